"""Inserting neurons: where time begins and ends, the theorem, and convergence as time grows."""

import pytest
import torch
from torch import Tensor, fx, nn

from snnc.errors import PassFailed
from snnc.ir.dialect import MAX_POOLS, ClipQuant, Concat
from snnc.ir.graph import GraphBuilder, Stage, calls, replace
from snnc.ir.neurons import IF
from snnc.ir.temporal import Decode, Encode, GatedMax, RunningMax, StepMax, Telescoped
from snnc.passes import InsertNeurons
from snnc.passes.pipeline import Context, Pipeline, Result
from tests.nets import NETS, Dyadic, quantized, sample, spiking

# Where each net's time begins and ends.
BORDERS = {
    "mlp": ({"fc1_encode"}, {"relu2_decode"}),
    "single": ({"fc1_encode"}, {"relu1_decode"}),
    "conv": ({"conv1_encode"}, {"relu2_decode"}),
    "residual": ({"stem_encode"}, {"relu3_decode"}),
    "preactivation": ({"stem_encode", "bn1_encode"}, {"relu3_decode"}),
    "maxpool": ({"conv1_encode"}, {"relu2_decode"}),
    "pool-first": ({"pool1_encode"}, {"relu2_decode"}),
    "dense": ({"stem_encode", "bn1_encode"}, {"relu3_decode"}),
    "skip": ({"fc1_encode"}, {"relu2_decode"}),
    "double": ({"fc1_encode"}, {"relu2_decode"}),
    "early": ({"fc1_encode"}, {"relu1_decode", "relu2_decode"}),
    "shared": ({"bn1_encode", "bn2_encode"}, {"relu3_decode"}),
    "conv1d": ({"conv1_encode"}, {"relu2_decode"}),
    "conv3d": ({"conv1_encode"}, {"relu2_decode"}),
    "decoder": ({"conv1_encode"}, {"relu3_decode"}),
    "inverted": ({"stem_encode"}, {"relu3_decode"}),
    "routes": ({"conv1_encode"}, {"relu2_decode"}),
    "trained": ({"conv1_encode"}, {"act2_decode"}),
    "picked": ({"flip_encode"}, {"relu3_decode"}),
    "bare": ({"x_encode"}, {"relu2_decode"}),
}


def convert(graph: fx.GraphModule, T: int, **options: object) -> Result:
    return Pipeline((InsertNeurons(**options),)).run(graph, Context(T=T), Stage.QUANTIZED)


@pytest.mark.parametrize("name", NETS)
def test_borders_of_time(name):
    """Encode on every edge into the region between first and last neuron, Decode on every edge out, and none else."""
    graph, _ = quantized(name)
    result = convert(graph, 5)
    encodes = {node.name for node, _ in calls(result.graph, Encode)}
    decodes = {node.name for node, _ in calls(result.graph, Decode)}
    assert (encodes, decodes) == BORDERS[name]
    assert all((m.T, m.read) == (5, 5) for _, m in calls(result.graph, Decode))
    neurons = {node.name for node, _ in calls(result.graph, IF)}
    assert neurons == {node.name for node, _ in calls(graph, ClipQuant)}
    assert result.records[0].sites == len(neurons)


def test_one_encode_for_all_readers():
    """A value that two layers read is repeated once."""
    graph, _ = spiking("residual")
    (node,) = (node for node, _ in calls(graph, Encode))
    assert {user.name for user in node.users} == {"relu0"}
    build = Dyadic(0)
    x = build.chain(build.input(), fc=nn.Linear(4, 4))
    quants = [build.call(f"act{i}", ClipQuant(torch.tensor(1.0), 4), x) for i in (1, 2)]
    graph = build.finish(build.call("cat", Concat(1), *quants))
    result = convert(graph, 4).graph
    assert [node.name for node, _ in calls(result, Encode)] == ["fc_encode"]


@pytest.mark.parametrize(("T", "L", "shift"), [(4, 4, 0.5), (4, 4, 0.0), (8, 4, 0.5), (2, 4, 0.0), (8, 4, 0.25)])
def test_parameters(T, L, shift):
    """theta = lam, and v0 = theta * (1/2 + (shift - 1/2) T / L)."""
    graph, _ = quantized("conv", L, shift)
    result = convert(graph, T)
    for node, quant in calls(graph, ClipQuant):
        neuron = result.graph.get_submodule(node.name)
        assert torch.equal(neuron.theta, quant.lam)
        assert torch.equal(neuron.v0, quant.lam * (0.5 + (shift - 0.5) * T / L))
        assert neuron.theta is not quant.lam
        assert neuron.T == T


def test_no_activation_at_all():
    build = GraphBuilder()
    graph = build.finish(build.call("fc", nn.Linear(2, 2), build.input()))
    with pytest.raises(PassFailed, match="no neuron was inserted: the network has no ReLU"):
        convert(graph, 4)


@pytest.mark.parametrize("shift", [0.0, 0.5])
@pytest.mark.parametrize("T", [1, 2, 3, 4, 5, 7, 8, 16])
def test_theorem_on_a_net(T, shift):
    """One layer of neurons sees constant currents: at T = L the network is the quantized ANN, bit for bit."""
    graph, shape = quantized("single", T, shift)
    x = sample(shape, 64)
    assert torch.equal(convert(graph, T).graph(x), graph(x))


def test_theorem_on_maps():
    """The same for convolutions with a bound for each channel, and a max pool on either side of the neurons."""
    build = Dyadic(1)
    bound = torch.tensor([0.5, 1.0, 2.0, 4.0]).reshape(4, 1, 1)
    x = build.chain(build.input(), conv=nn.Conv2d(3, 4, 3, padding=1), pool=nn.MaxPool2d(2), act=ClipQuant(bound, 6))
    graph = build.finish(build.chain(x, pool2=nn.MaxPool2d(2), flatten=nn.Flatten(), fc=nn.Linear(16, 4)))
    x = sample((3, 8, 8), 16)
    result = convert(graph, 6).graph
    assert torch.equal(result(x), graph(x))
    assert {node.name for node, _ in calls(result, *MAX_POOLS)} == {"pool", "pool2"}


# Streaming networks see uneven currents, and converge.


def clipped(name: str) -> tuple[fx.GraphModule, fx.GraphModule, Tensor]:
    """The net with so many levels that only the clipping is left, the net to convert, and an input."""
    graph, shape = quantized(name, 1)
    smooth, _ = quantized(name, 2**15)
    for _, module in calls(smooth, ClipQuant):
        module.L = 2**15
    return graph, smooth, 0.377 * sample(shape, 2)  # off the grid, where rates would soon be met exactly


def errors(name: str, steps: tuple[int, ...], **options: object) -> list[float]:
    """Largest error of the output after so many steps, v0 = theta / 2."""
    graph, smooth, x = clipped(name)
    for _, module in calls(graph, ClipQuant):
        module.shift = 0.5
    return [(convert(graph, T, **options).graph(x) - smooth(x)).abs().max().item() for T in steps]


@pytest.mark.parametrize("name", ["mlp", "conv", "residual", "maxpool", "pool-first", "conv1d", "early", "skip"])
def test_rates_converge(name):
    """The error falls like 1 / T: a fixed charge, spread over more and more steps."""
    few, many = errors(name, (16, 256))
    assert 0 < many * 256 <= 2 * few * 16


@pytest.mark.parametrize("name", ["maxpool", "pool-first"])
def test_rates_converge_after_many_steps(name):
    """Max pooling of spikes and of currents, behind the activation and before it."""
    (error,) = errors(name, (1024,))
    assert 0 < error < 8 / 1024


@pytest.mark.parametrize("name", ["maxpool", "conv1d"])
def test_maximum_at_each_step_does_not_converge(name):
    """Pooling of spikes: the wrong lowering keeps its error, however long it runs."""
    wrong = errors(name, (64, 256), maxpool="per-step")
    (right,) = errors(name, (256,))
    assert wrong[1] > 0.9 * wrong[0]
    assert wrong[1] > 20 * right


@pytest.mark.parametrize(("maxpool", "kind"), [("running-max", RunningMax), ("gate", GatedMax), ("per-step", StepMax)])
def test_lowerings_of_max_pooling(maxpool, kind):
    """Only between neurons; the pool behind the last neuron acts on rates and stays."""
    graph, _ = quantized("maxpool")
    result = convert(graph, 4, maxpool=maxpool)
    assert [node.name for node, _ in calls(result.graph, kind)] == ["pool1"]
    assert [node.name for node, _ in calls(result.graph, nn.MaxPool2d)] == ["pool2"]
    assert result.records[0].notes[0] == f"1 max pools between neurons lowered as {maxpool}"
    pool = next(m for _, m in calls(result.graph, kind)).pool
    assert (pool.kernel_size, pool.stride, pool.padding) == (3, 2, 1)


def test_gate_has_no_adaptive_form():
    graph, _ = quantized("pool-first")
    with pytest.raises(PassFailed, match="'pool2' is adaptive"):
        convert(graph, 4, maxpool="gate")
    with pytest.raises(PassFailed, match="running-max"):
        convert(graph, 4, maxpool="gate")


def test_heads_between_neurons_are_telescoped():
    """A softmax of single steps is not the softmax of the rates, so it acts on running means."""
    graph, _ = quantized("mlp")
    node = next(node for node, module in calls(graph, nn.Linear) if node.name == "fc2")
    replace(graph, node, nn.Softmax(1))
    found = convert(graph, 4).graph
    assert isinstance(found.get_submodule("fc2"), Telescoped)
