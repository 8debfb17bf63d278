"""The door for ONNX models: node by node through the graph, constants folded, everything else by torch's names.

All sizes but the batch are known here, from the model or from the user. The graph holds float32, whatever type the
model computes in.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, fx

from snnc.capture import constants
from snnc.capture.layout import Laid, settled
from snnc.capture.lowering import Lowering
from snnc.capture.onnx.curved import laid
from snnc.capture.onnx.fold import SAMPLED, SAMPLES, SIZES, UNFOLDED, Ledger, Varying, fold
from snnc.capture.onnx.input import checked_entries, laid_out, named, sample_shapes
from snnc.capture.onnx.model import AGAIN, OWN_DOMAINS, Call, Program, kind_name, read
from snnc.capture.onnx.operations import FLOATS, OPERATIONS, SHARED, SIZED, refusal
from snnc.capture.onnx.schema import check, check_read
from snnc.capture.onnx.site import OnnxSite
from snnc.capture.onnx.standins import results_of
from snnc.capture.refusals import SPELLED
from snnc.capture.standins import is_said
from snnc.capture.values import LOST, Refused, Truth
from snnc.errors import Blocker
from snnc.files.onnxfile import array, count, plain
from snnc.structure import Shape, shapes_of

# Layers that are called like the author's module; elsewhere the operation's own name says more.
PRODUCTS = ("Mul", "Div", "MatMul", "Gemm", "Conv", "ConvTranspose")
NAMED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization")
FOLDED = frozenset({*SIZES, *OPERATIONS, "Constant"}) - {"Dropout"}  # which may be random
INLINE = "onnx.inliner.inline_local_functions(model), and save what it gives"


def lower_onnx(model: onnx.ModelProto, input_shape: Shape | None) -> tuple[Lowering, Any, Shape]:
    """Lowers an ONNX model. Gives what was built, its result, and the shape of one sample.

    One output is the result itself; several are a dictionary by their names, in the order of the file.

    Args:
        model: with all weights in it.
        input_shape: shape of one sample as it will come, where that is known; see `sample_shape`.

    Raises:
        LoadError: the model is malformed.
        Unsupported: it does not take tensors of that shape.
    """
    program = read(model)
    found = checked_entries(program)
    own = sample_shapes(program, input_shape)
    shape = input_shape or own
    many = len(program.entries)
    lowering = Lowering(shape, None, torch.zeros(()), named(program))
    lowering.batch = program.entries[0].sizes[0] if program.entries[0].sizes else None
    lowering.blockers += found
    values: dict[str, Any] = {}
    given = zip(program.entries, lowering.entries, shapes_of(shape, many), shapes_of(own, many), strict=True)
    for entry, node, told, wanted in given:
        if entry.kind not in FLOATS:
            lowering.whole.add(node)
        assert told is not None
        assert wanted is not None
        values[entry.name] = laid_out(lowering, node, told, wanted)
    read_names = program.read
    ledger = Ledger(sum(map(count, program.weights.values())))
    for name, weight in program.weights.items():
        values[name] = array(weight) if plain(weight) else LOST
        if plain(weight) or name not in read_names:
            continue
        why = f"holds numbers of type {kind_name(weight.data_type)}"
        hint = "import the float network that it was made from"
        lowering.blockers.append(Blocker(name, "initialiser", why, hint))
    for call in program.calls:
        inputs = [values[name] if name else None for name in call.inputs]
        try:
            results = _results(lowering, call, inputs, program, read_names, ledger)
        except Refused as refused:
            if is_said(lowering, refused, call.op in PRODUCTS, inputs):
                lowering.blockers.append(Blocker(call.name, call.label, refused.why, refused.hint))
            results = results_of(lowering, call, inputs, program.opset, refused.reason or SPELLED)
        for name, result in zip(call.outputs, results, strict=False):
            lowering.trace_back(result, name)
        missing = [LOST] * (len(call.outputs) - len(results))
        values.update(zip(call.outputs, (*results, *missing), strict=False))
    ends = {name: values[name] for name in program.results}
    result = {name: (one.repeated() or one) if isinstance(one, Varying) else one for name, one in ends.items()}
    return lowering, result if len(result) > 1 else result[program.results[0]], shape


def _results(
    lowering: Lowering, call: Call, inputs: list[Any], program: Program, read_names: set[str], ledger: Ledger
) -> tuple[Any, ...]:
    """What one node gives."""
    if call.domain not in OWN_DOMAINS:
        own = f"{call.domain}.{call.op}" in program.functions
        hint = INLINE if own else "export it with the operations of ONNX itself"
        raise Refused(f"belongs to the domain '{call.domain}', which is not ONNX's own", hint)
    spelling = OPERATIONS.get(call.op)
    constant = not any(isinstance(value, (fx.Node, Laid, Truth)) for value in inputs)
    folded = constant and call.op in FOLDED
    if spelling or folded:
        check(call, program.opset)
    if any(value is LOST for value in inputs):
        if call.op not in (*OPERATIONS, *SIZES):
            raise refusal(call.op).refused()
        return results_of(lowering, call, inputs, program.opset, SPELLED)
    if part := lowering.part_of(call.op, inputs):
        return results_of(lowering, call, inputs, program.opset, part)
    if folded:
        return (_constant(call),) if call.op == "Constant" else fold(call, inputs, program.opset, ledger)
    if spelling is None:
        raise refusal(call.op).refused()
    if call.op != "Split" and read_names & set(filter(None, call.outputs[1:])):
        raise Refused("gives a second result that something reads", "a network that uses the first alone")
    if call.op in SHARED:
        inputs = [_shared(value) for value in inputs]
    if constant:
        raise Refused("works on constants alone, and snnc does not compute it", UNFOLDED)
    arrays = [value for value in inputs if isinstance(value, np.ndarray)]
    if call.op in NAMED and any(value.dtype.kind in "iub" for value in arrays):
        raise Refused("has weights that are integers", "float32 weights; import the float network of a quantised one")
    ledger.take(sum(value.size for value in arrays))
    base = _path(call)
    site = OnnxSite(
        lowering, call.op, base, call.op, base.rpartition(".")[0],
        attributes=call.attributes, opset=program.opset, results=len(call.outputs),
    )  # fmt: skip
    if call.op not in SIZED:
        inputs = [_of_every_sample(site, value) if isinstance(value, Varying) else value for value in inputs]
    try:
        fed = tuple(_tensor(value) if isinstance(value, np.ndarray) else value for value in inputs)
        views = any(isinstance(value, Laid) for value in fed) and call.op not in ("Shape", "Size")
        result = laid(site, spelling, fed) if views else spelling(site, *fed)
    except (TypeError, ValueError, AttributeError, IndexError, KeyError, RuntimeError, ArithmeticError) as error:
        line = " ".join(str(error).split())[:200]
        raise Refused(f"is written in a way that snnc does not read ({line})", AGAIN) from error
    check_read(call, program.opset, site.read)
    results = result if isinstance(result, tuple) else (result,)
    return tuple(value.numpy() if isinstance(value, Tensor) else value for value in results)


def _shared(value: Any) -> Any:
    """A constant that every sample has alike, as one that broadcasts over samples."""
    one = value.sample() if isinstance(value, Varying) else None
    return value if one is None else one


def _of_every_sample(at: OnnxSite, value: Varying) -> Any:
    """A constant that is made for a whole batch, as a value."""
    one, two = (torch.from_numpy(np.ascontiguousarray(v)) for v in (value.first, value.second))
    found = constants.seen(SAMPLES, one, two) if one.is_floating_point() else None
    if found is None:
        raise Refused(*SAMPLED)
    return settled(at, constants.laid(at, found))


def _constant(call: Call) -> np.ndarray:
    """The value of a `Constant` node."""
    for name, value in call.attributes.items():
        if name == "value" and plain(value):
            return array(value)
        if name in ("value_float", "value_floats"):
            return np.asarray(value, dtype=np.float32)
        if name in ("value_int", "value_ints"):
            return np.asarray(value, dtype=np.int64)
    raise Refused("holds something other than plain numbers", "dense constants of floats or integers")


def _tensor(value: np.ndarray) -> Tensor:
    """A constant as torch has it: floats in float32, everything else as integers."""
    floating = value.dtype.kind not in "iub"
    return torch.from_numpy(np.array(value, dtype=np.float32 if floating else np.int64, order="C"))


def _path(call: Call) -> str:
    """A name for the node's module: the name of the author's module if the exporter kept it.

    torch writes `/layer1/layer1.0/conv1/Conv` for the module `layer1.0.conv1`.
    """
    parts = [part for part in re.split("[/:]", call.name) if part]
    if len(parts) > 1 and call.op in NAMED and re.fullmatch(rf"{call.op}(_\d+)?", parts[-1]):
        parts.pop()
    kept = [part for part, after in zip(parts, [*parts[1:], ""], strict=False) if not after.startswith(f"{part}.")]
    return ".".join(kept) or call.op
