"""Counting spikes and synaptic operations: against brute force, and by hand."""

import copy
from collections import Counter

import pytest
import torch
from torch import Tensor, fx, nn

from snnc.calibrate.observe import watch
from snnc.ir.accounting import driven
from snnc.ir.curved import MatMul, Product
from snnc.ir.dialect import WEIGHTED, Add, Affine, Concat, Pad, Permute
from snnc.ir.graph import GraphBuilder, calls, module_of, phases, replace
from snnc.ir.meter import Meter, fan_out
from snnc.ir.neurons import IF, GradedIF, Neuron, SignedIF
from snnc.ir.temporal import Decode, Encode, RunningMax, Telescoped
from snnc.networks.network import Network
from snnc.passes import CalibrateOffset, MaskResidual, UseGradedNeurons, UseSignedNeurons
from tests.nets import NETS, sample, spiking

LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(5, 3), (5,)),
    "linear-on-rows": (nn.Linear(5, 3), (2, 5)),
    "conv1d": (nn.Conv1d(2, 3, 3, padding=1), (2, 6)),
    "conv2d": (nn.Conv2d(2, 3, 3, padding=1), (2, 4, 5)),
    "conv3d": (nn.Conv3d(1, 2, 2), (1, 3, 3, 3)),
    "strided": (nn.Conv2d(2, 3, 3, 2, 1), (2, 5, 6)),
    "dilated": (nn.Conv2d(2, 3, 3, padding=2, dilation=2), (2, 5, 5)),
    "grouped": (nn.Conv2d(4, 6, 3, padding=1, groups=2), (4, 3, 4)),
    "depthwise": (nn.Conv2d(3, 3, 3, groups=3), (3, 4, 4)),
    "pointwise": (nn.Conv2d(3, 7, 1), (3, 3, 3)),
    "skipping": (nn.Conv2d(2, 2, 1, 2), (2, 4, 4)),
    "transposed": (nn.ConvTranspose2d(2, 3, 3, 2, 1, output_padding=1), (2, 3, 3)),
    "transposed-grouped": (nn.ConvTranspose2d(4, 2, 2, groups=2), (4, 3, 3)),
    "transposed1d": (nn.ConvTranspose1d(2, 3, 4, 2), (2, 4)),
}


def brute_force(layer: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """Puts a one at each input in turn, and counts the outputs that it reaches."""
    layer = copy.deepcopy(layer).requires_grad_(False)
    layer.weight.fill_(1.0)
    layer.bias = None
    places = torch.Size(shape).numel()
    ones = torch.eye(places).reshape(places, *shape)
    return (layer(ones) != 0).flatten(1).sum(1).reshape(shape).double()


@pytest.mark.parametrize("name", LAYERS)
def test_fan_out(name):
    layer, shape = LAYERS[name]
    before = copy.deepcopy(layer.state_dict())
    fan = fan_out(layer, shape)
    assert torch.equal(fan[0], brute_force(layer, shape))
    assert all(torch.equal(before[key], value) for key, value in layer.state_dict().items())


def test_fan_out_sums_to_the_multiplications():
    """Inside of the borders every output takes all of its inputs."""
    layer = nn.Conv2d(4, 6, 3, groups=2)
    assert fan_out(layer, (4, 7, 8)).sum() == 6 * 5 * 6 * 2 * 9
    assert fan_out(nn.Linear(5, 3), (5,)).sum() == 15


def test_fan_out_of_mirrored_borders():
    """Padding that mirrors makes the inputs near a border count twice: the sum is still that of the multiplications."""
    layer = nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect")
    assert fan_out(layer, (2, 4, 5)).sum() == 3 * 4 * 5 * 2 * 9


def test_fan_out_without_gradients():
    with torch.no_grad():
        assert fan_out(nn.Linear(2, 3), (2,)).tolist() == [[3.0, 3.0]]


def by_hand() -> Network:
    """Two inputs, three neurons, a layer of two neurons in time, and a readout of four: T = 4."""
    b = GraphBuilder()
    first, second, third = nn.Linear(2, 3, bias=False), nn.Linear(3, 2), nn.Linear(2, 4)
    first.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    second.weight.data = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.0]])
    second.bias.data.zero_()
    theta, v0 = torch.tensor(1.0), torch.tensor(0.0)
    x = b.call("encode", Encode(4), b.call("first", first, b.input()))
    x = b.call("one", IF(4, theta.clone(), v0.clone()), x)
    x = b.call("two", IF(4, theta.clone(), v0.clone()), b.call("second", second, x))
    return Network(b.finish(b.call("third", third, b.call("decode", Decode(4, 4), x))), {})


@pytest.mark.parametrize("chunk", [1, 3, 256])
def test_operations_by_hand(chunk):
    """x = (1, 1/2): neurons of the first layer fire 4, 2 and 0 times, of the second 4 times and once."""
    net = by_hand()
    net.chunk = chunk
    meter = Meter(net.graph)
    net.readout(torch.tensor([[1.0, 0.5], [0.0, 0.0]]), observe=meter)
    assert meter.spikes == {"one": 6, "two": 5}
    assert meter.sites == {"one": 2 * 4 * 3, "two": 2 * 4 * 2}
    assert meter.operations == {"second": 6 * 2, "third": 5 * 4}
    assert meter.macs == {"second": 6, "third": 8}
    assert meter.rates() == {"one": 6 / 24, "two": 5 / 16}


class Silent(nn.Module):
    """A neuron that never fires."""

    def forward(self, x: Tensor) -> Tensor:
        return 0 * x


def plainly(graph: fx.GraphModule, x: Tensor) -> tuple[Counter, Counter]:
    """Spikes and operations from the folded graph, one input at a time. The readout counts what enters its Decode."""
    values: dict[fx.Node, Tensor] = {}
    watch(graph, x, lambda node, value: values.update({node: value}))
    silent, rests = copy.deepcopy(graph), {}
    for node, _ in calls(silent, Neuron):
        replace(silent, node, Silent())
    watch(silent, x, lambda node, value: rests.update({node.name: value}))
    phase, spikes, operations = phases(graph), Counter(), Counter()
    for node, module in calls(graph):
        if isinstance(module, Neuron):
            spikes[node.name] = int((values[node] != 0).sum())
        if isinstance(module, WEIGHTED) and phase[node] == "in" and node in driven(graph):
            source = node.all_input_nodes[0]
            value, rest = values[source], rests[source.name]  # what constants bring is no spike
            operations[node.name] = float(((value != rest) * brute_force(module, tuple(value.shape[1:]))).sum())
    return spikes, operations


@pytest.mark.parametrize("cos", [None, CalibrateOffset(rho=6)])
@pytest.mark.parametrize("name", NETS)
def test_counts_against_brute_force(name, cos):
    """Of any net and schedule, in chunks that do not divide the batch; layers before time are not counted."""
    graph, shape = spiking(name, 4, cos=cos)
    x = sample(shape, 5)
    meter = Meter(graph)
    Network(graph, {}, chunk=12).readout(x, observe=meter)
    with torch.no_grad():
        spikes, operations = plainly(graph, x)
    assert meter.spikes == spikes
    phase = {node.name: p for node, p in phases(graph).items()}
    assert {name: count for name, count in meter.operations.items() if phase[name] == "in"} == operations
    assert "before" not in {phase[name] for name in meter.operations}
    assert all(0 <= rate <= 1 for rate in meter.rates().values())
    for layer, count in meter.operations.items():
        assert 0 <= count <= meter.macs[layer] * 5 * (6 if cos else 4)


def test_a_bottleneck_without_a_neuron_is_dense():
    """The layer behind it multiplies numbers, at each step."""
    graph, _ = spiking("inverted", 4)
    layers = {node for node, _ in calls(graph, *WEIGHTED) if phases(graph)[node] == "in"}
    assert {node.name for node in layers - driven(graph)} == {"conv4"}


def after(*modules: nn.Module, value: Tensor, neuron: Neuron | None = None) -> Meter:
    """Spikes `value` `[T * B, ...]`, decoded, through a chain of modules to the output."""
    b = GraphBuilder()
    neuron = neuron or IF(2, torch.tensor(1.0), torch.tensor(0.0))
    x = b.call("neuron", neuron, b.call("encode", Encode(2), b.input()))
    x = b.call("decode", Decode(2, 2), x)
    for i, module in enumerate(modules):
        x = b.call(f"m{i}", module, *[x] * (2 if isinstance(module, Add | Concat) else 1))
    graph = b.finish(x)
    meter = Meter(graph)
    meter(next(node for node, _ in calls(graph, Neuron)), value, 2)
    return meter


def test_readouts_are_followed():
    """Through what lies between the last neuron and its readout layers, step by step."""
    spikes = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]], [[[1.0, 0.0], [1.0, 0.0]]]])
    assert after(nn.Flatten(), nn.Linear(4, 3), value=spikes).operations == {"m1": 9}
    # An average of one or two spikes is one number that is not zero.
    assert after(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(1, 3), value=spikes).operations == {"m2": 6}
    # A second layer behind the first reads no spikes.
    assert after(nn.Flatten(), nn.Linear(4, 3), nn.Linear(3, 2), value=spikes).operations == {"m1": 9}
    assert after(nn.Flatten(), value=spikes).operations == {}


@pytest.mark.parametrize(("join", "operations"), [(Add(), 9), (Concat(1), 18)])
def test_a_readout_of_a_value_joined_with_itself(join, operations):
    spikes = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    layer = nn.Linear(6 if isinstance(join, Concat) else 3, 3)
    assert after(join, layer, value=spikes).operations == {"m1": operations}


@pytest.mark.parametrize("chunk", [1, 7, 256])
def test_a_readout_of_two_layers(chunk):
    """A join behind time counts the spikes of both, step by step."""
    graph, shape = spiking("early", 4)
    meter = Meter(graph)
    Network(graph, {}, chunk).readout(sample(shape, 5), observe=meter)
    assert meter.operations["fc3"] == 4 * sum(meter.spikes.values())
    assert meter.macs == {"fc2": 64, "fc3": 64}


def test_graded_and_negative_spikes_by_hand():
    """5 is two binary spikes and 7 three; -1 is one."""
    graded = GradedIF(2, torch.tensor([0.5, 1.0]), torch.tensor([0.0, 0.0]), 3)
    spikes = torch.tensor([[2.5, 7.0], [0.0, 4.0]])
    meter = after(nn.Linear(2, 3), value=spikes, neuron=graded)
    assert (meter.spikes, meter.operations) == ({"neuron": 2 + 3 + 0 + 1}, {"m0": 6 * 3})
    assert meter.rates() == {"neuron": 6 / 4}
    signed = SignedIF(2, torch.tensor(0.5), torch.tensor(0.0))
    meter = after(nn.Linear(2, 3), value=torch.tensor([[0.5, 0.0], [-0.5, 0.5]]), neuron=signed)
    assert (meter.spikes, meter.operations) == ({"neuron": 3}, {"m0": 9})


def test_graded_spikes_on_their_way():
    """Routes keep what a spike is made of. A sum or a mean is one number, of as many bits as the neurons have."""
    graded = GradedIF(2, torch.tensor(0.5), torch.tensor(0.0), 3)
    spikes = torch.tensor([[[[2.5, 0.0], [0.0, 0.0]]], [[[3.5, 0.0], [0.5, 0.0]]]])  # 2 + 3 + 1 binary spikes
    for modules, count in (
        ((nn.Flatten(), nn.Linear(4, 3)), 6 * 3),
        ((Concat(1), nn.Flatten(), nn.Linear(8, 3)), 12 * 3),
        ((Pad((1, 1, 0, 0)), nn.Flatten(), nn.Linear(8, 3)), 6 * 3),
        ((Permute((0, 1, 3, 2)), nn.Flatten(), nn.Linear(4, 3)), 6 * 3),
        ((nn.AvgPool2d(2), nn.Flatten(), nn.Linear(1, 3)), 2 * 3 * 3),
        ((Add(), nn.Flatten(), nn.Linear(4, 3)), 3 * 3 * 3),
    ):
        (found,) = after(*modules, value=spikes, neuron=copy.deepcopy(graded)).operations.values()
        assert found == count, modules


@pytest.mark.parametrize("name", ["conv", "residual", "maxpool", "dense", "routes", "early"])
@pytest.mark.parametrize("then", [UseGradedNeurons(2), MaskResidual(3), UseSignedNeurons()], ids=lambda p: p.name)
def test_models_against_brute_force(name, then):
    """One bit counts as an ordinary spike; a layer that is fed by neurons counts the bits of k."""
    graph, shape = spiking(name, 4, then=then, units=3)
    x = sample(shape, 5)
    meter = Meter(graph)
    Network(graph, {}, chunk=5 * 7).readout(x, observe=meter)
    values: dict[fx.Node, Tensor] = {}
    with torch.no_grad():
        watch(graph, x, lambda node, value: values.update({node: value}))
    for node, neuron in calls(graph, Neuron):
        k = (values[node] / neuron.theta).abs()
        bits = (k % 2).sum() + (k // 2).sum()  # of 0, 1, 2 and 3
        assert meter.spikes[node.name] == bits
        for user in node.users:
            if isinstance(layer := module_of(graph, user), WEIGHTED):
                fan = brute_force(layer, tuple(values[node].shape[1:]))
                assert meter.operations[user.name] == float(((k % 2 + k // 2) * fan).sum())
    most = 2 if isinstance(then, UseGradedNeurons) else 1
    assert 0 < max(meter.rates().values()) <= most


def test_pooled_spikes_are_counted_as_they_arrive():
    """Behind a running maximum a layer sees at most one spike for each window and step."""
    graph, shape = spiking("maxpool", 8)
    seen: dict[str, Tensor] = {}
    watch(graph, sample(shape, 2), lambda node, value: seen.update({node.name: value}))
    pool = next(node for node, _ in calls(graph, RunningMax))
    layer = next(iter(pool.users))
    meter = Meter(graph)
    meter(pool, seen[pool.name], 8)
    fan = brute_force(module_of(graph, layer), tuple(seen[pool.name].shape[1:]))
    assert meter.operations == {layer.name: float(((seen[pool.name] != 0) * fan).sum())}


def product(body: nn.Module, a: Tensor, b: Tensor) -> Meter:
    """A product of two trains of spikes `[T * B, ...]`."""
    build = GraphBuilder()
    x = build.call("encode", Encode(2), build.input())
    spikes = [build.call(n, IF(2, torch.tensor(1.0), torch.tensor(0.0)), x) for n in "ab"]
    x = build.call("decode", Decode(2, 2), build.call("product", Telescoped(2, body), *spikes))
    meter = Meter(build.finish(x))
    nodes = {node.name: node for node in meter.graph.graph.nodes}
    for name, value in (("a", a), ("b", b), ("product", torch.zeros_like(body(a, b)))):
        meter(nodes[name], value, 2)
    return meter


def test_products_of_spikes_by_hand():
    """A spike counts once for every result that it is part of."""
    a, b = torch.zeros(2, 3, 4), torch.zeros(2, 4, 5)
    a[0, 0, :2], b[1, 3] = 1.0, 1.0
    meter = product(MatMul(), a, b)
    assert meter.macs == {"product": 3 * 4 * 5}
    assert meter.operations == {"product": 2 * 5 + 5 * 3}
    meter = product(Product(), torch.ones(2, 3, 1), torch.eye(3).expand(2, 3, 3).reshape(2, 3, 3))
    assert meter.operations == {"product": 2 * 3 * 3 + 2 * 3}


def test_a_constant_is_no_spike():
    """What a factor adds to spikes is there at every step, and costs as little as a bias."""
    spikes = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    shifted = Affine(torch.tensor(2.0), torch.tensor(-1.0))
    assert after(shifted, nn.Linear(3, 3), value=spikes).operations == {"m1": 9}
    assert after(shifted, Concat(1), nn.Linear(6, 3), value=spikes).operations == {"m2": 18}


def test_layers_that_read_no_spikes_are_not_counted():
    build = GraphBuilder()
    x = build.call(
        "neuron", IF(2, torch.tensor(1.0), torch.tensor(0.0)), build.call("encode", Encode(2), build.input())
    )
    x = build.call("curved", Telescoped(2, nn.GELU()), x)
    x = build.call("layer", nn.Linear(3, 3), x)
    x = build.call("last", IF(2, torch.tensor(1.0), torch.tensor(0.0)), x)
    graph = build.finish(build.call("decode", Decode(2, 2), x))
    meter = Meter(graph)
    Network(graph, {}).readout(torch.ones(2, 3), observe=meter)
    assert meter.operations == {}
