"""From a trained network to a graph of the dialect.

`capture` and `blockers` are what other parts of snnc use; `finish` is for a door that lies outside this package.

    doors       live modules, exported programs and ONNX models, which way each goes
    copying     the copy that is worked on              comparison  graph and network, run on the same samples
    references  the networks that graphs are compared with
    calling     how a live module is called         embedding   tables that whole numbers look up
    framed      samples of several frames       collecting  calibration data
    symbolic    tracing of live modules             exported    the ATen ops of exported programs
    walk        node by node through either graph   lowering    what is built on the way; values: what has no number
    standins    what stands for refused results     trial       what the other door would read
    operations  all names, and what each becomes    spellings, layers, pools, routes    the functions behind the names
    constants   constants as values of every sample
    refusals    what is refused, and why            canonical   one form for each function
    quantisers  quantised activations               bounds      clips, roundings, and how far values reach

    onnx/       the door for ONNX models
"""

from snnc.capture.calling import arranged, calling, in_order
from snnc.capture.canonical import finish
from snnc.capture.collecting import collect, fitted
from snnc.capture.doors import Captured, blockers, capture, captured, is_onnx, told_inputs, told_shape
from snnc.capture.framed import counted_frames, framed_shape, misframed, one_frame

__all__ = [
    "Captured",
    "arranged",
    "blockers",
    "calling",
    "capture",
    "captured",
    "collect",
    "counted_frames",
    "finish",
    "fitted",
    "framed_shape",
    "in_order",
    "is_onnx",
    "misframed",
    "one_frame",
    "told_inputs",
    "told_shape",
]
