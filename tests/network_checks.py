"""What must hold for every network of the dialect, as functions of a module and the shape of one sample.

Each raises AssertionError where it does not hold. Numbers are dyadic and arithmetic is in double precision, or integers
by the pass `fixed-point`, so all comparisons are for equality.
"""

import copy
from pathlib import Path

import torch
from torch import Tensor, fx, nn

import snnc
from snnc.capture import capture
from snnc.differences import verify
from snnc.errors import SnncError
from snnc.ir.dialect import ACTIVATIONS, ClipQuant
from snnc.ir.graph import Stage, calls, replace
from snnc.ir.graphfile import pack_graph, unpack_graph
from snnc.networks.network import Network
from snnc.passes import FixedPoint, FoldBatchNorm, InsertNeurons, NormalizeThresholds
from snnc.passes.pipeline import Context, Pipeline
from tests.nets import sample

Shape = tuple[int, ...]


def exactly(module: nn.Module, x: Tensor) -> Tensor:
    """The output in double precision, of a copy, for a copy of the input, which some networks change."""
    with torch.no_grad():
        return copy.deepcopy(module).double()(x.double().clone())


def captured(net: nn.Module, shape: Shape) -> fx.GraphModule:
    """The graph of a network, which is the same function; a graph file gives the same graph back."""
    graph = capture(net, shape)
    x = sample(shape)
    assert torch.equal(exactly(graph, x), exactly(net, x)), "capture changed the function"
    again, stage, _ = unpack_graph(pack_graph(graph, Stage.ANN, {}))
    assert stage is Stage.ANN
    assert again.code == graph.code, "a graph file changed the graph"
    assert torch.equal(exactly(again, x), exactly(graph, x)), "a graph file changed the function"
    return graph


def exact_passes(graph: fx.GraphModule, shape: Shape, T: int) -> fx.GraphModule:
    """The graph with neurons, behind every pass that claims to be exact: none changes the function."""
    x = sample(shape, seed=1)
    context = Context(T=T, calibration=[sample(shape)])
    folded = Pipeline((FoldBatchNorm(),)).run(graph, context).graph
    assert torch.equal(exactly(folded, x), exactly(graph, x)), "fold-batchnorm changed the function"
    for index, (node, _) in enumerate(calls(folded, *ACTIVATIONS)):
        replace(folded, node, ClipQuant(torch.tensor([2.0, 4.0, 1.0][index % 3]), T))
    normal = Pipeline((NormalizeThresholds(),)).run(folded, context, Stage.QUANTIZED).graph
    assert torch.equal(exactly(normal, x), exactly(folded, x)), "normalize-thresholds changed the function"
    return Pipeline((InsertNeurons(),)).run(normal, context, Stage.QUANTIZED).graph


def streams(graph: fx.GraphModule, shape: Shape) -> int:
    """Step by step and all steps at once give the same spikes; how many places were compared."""
    network = Network(graph.double(), {})
    found = verify(network, network, sample(shape, seed=2).double(), stream=True)
    assert found.spikes == 0, f"streaming differs at {found.first}"
    return found.places


def same_everywhere(net: nn.Module, shape: Shape, T: int, folder: Path, program: bool = False) -> int:
    """A fixed-point network through files, step by step and in onnxruntime; how many places were compared."""
    pipeline = Pipeline((*snnc.recipe("opi").pipeline, FixedPoint()))
    snn = snnc.compile(net, T, pipeline, sample(shape, 8))
    x = 1.5 * sample(shape, 5, seed=3)
    again = snnc.load(snnc.save(snn, folder / "net.snn"))
    assert again.info == snn.info, "a graph file changed the history"
    places = 0
    for name, other, stream in (
        ("the graph file", again, False),
        ("streaming", snn, True),
        ("onnxruntime", snnc.load(snnc.save(snn, folder / "net.onnx")), False),
    ):
        found = verify(snn, other, x, stream=stream)
        assert found.exact, name
        assert found.spikes == 0, f"{name} differs at {found.first}"
        places += found.places
    if program:
        found = verify(snn, snnc.load(snnc.save(snn, folder / "net.pt2")), x)
        assert found.same, "the exported program differs"
    return places


def refused(error: SnncError) -> str:
    """Why a network was refused, without what is particular to it."""
    return error.message.partition(":")[2][:80] or error.message[:80]
