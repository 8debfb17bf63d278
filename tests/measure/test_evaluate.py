"""Evaluation and counting against the plainest way to do the same."""

import pytest
import torch

import snnc
from snnc.calibrate.observe import watch
from snnc.errors import DataError
from snnc.ir.dialect import WEIGHTED
from snnc.ir.graph import calls
from snnc.ir.meter import fan_out
from snnc.networks.network import Network
from tests.nets import NETS, sample, spiking


def network(name, T=4):
    graph, shape = spiking(name, T)
    return Network(graph, {}), shape


@pytest.mark.parametrize("name", NETS)
def test_fan_out_counts_connections(name):
    """Against the definition: the outputs that change when one input does, all weights being one."""
    graph, shape = spiking(name)
    seen = {}
    watch(graph, sample(shape, 1), lambda node, value: seen.update({node: value}))
    for node, layer in calls(graph, *WEIGHTED):
        size = tuple(seen[node.all_input_nodes[0]].shape[1:])
        fan = fan_out(layer, size)
        weight, bias = layer.weight.data.clone(), layer.bias
        layer.weight.data.fill_(1)
        layer.bias = None
        flat = torch.eye(int(torch.tensor(size).prod())).reshape(-1, *size)
        brute = (layer(flat) != 0).flatten(1).sum(1)
        layer.weight.data, layer.bias = weight, bias
        assert torch.equal(fan.flatten(), brute.double()), node.name


def test_numbers_against_a_plain_loop():
    net, shape = network("conv", T=4)
    x, y = sample(shape, 10), torch.arange(10) % 3
    ann = lambda x: net.graph(x) + 1  # noqa: E731 (any other function of the same shape)
    module = torch.nn.Module()
    module.forward = ann
    found = snnc.evaluate(net, [(x[:6], y[:6]), (x[6:], y[6:])], module)
    by_step = net.readout(x)
    assert found.samples == 10
    assert found.accuracy == [100 * float((s.argmax(1) == y).double().mean()) for s in by_step]
    assert found.agreement[-1] == 100
    spikes = []
    net.readout(x, observe=lambda node, value, steps: spikes.append((node.name, value)))
    layers = {name for name, _ in net.neurons()}
    total = sum(int((value != 0).sum()) for name, value in spikes if name in layers)
    assert found.spikes == total / 10
    assert set(found.rates) == layers
    assert all(0 <= rate <= 1 for rate in found.rates.values())


def test_operations_of_a_network_counted_by_hand():
    """Two linear layers behind the first neurons: each spike meets every unit of the next layer."""
    net, shape = network("mlp", T=4)
    x = sample(shape, 5)
    spikes = {}
    net.readout(x, observe=lambda node, value, steps: spikes.update({node.name: int((value != 0).sum())}))
    found = snnc.evaluate(net, [(x, torch.zeros(5).long())])
    assert found.operations == (spikes["relu1"] * 8 + spikes["relu2"] * 4) / 5
    assert found.macs == 8 * 8 + 8 * 4


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "gave no batches"),
        ([(torch.zeros(2, 6), torch.tensor([0, 99]))], "A label is 99"),
        ([torch.zeros(2, 6)], "label"),
        ([(torch.zeros(2, 5), torch.tensor([0, 1]))], "does not go through"),
    ],
)
def test_data_that_cannot_be_scored(data, words):
    net, _ = network("mlp")
    with pytest.raises(DataError, match=words):
        snnc.evaluate(net, data)


@pytest.mark.parametrize("name", ["conv", "residual", "skip", "trained"])
@pytest.mark.parametrize("chunk", [3, 256])
def test_every_number_against_a_plain_loop(name, chunk):
    """Sample by sample, beside the ANN that the network was made from; chunks do not divide the batches."""
    net, shape = network(name, T=4)
    net.chunk = chunk
    ann, _ = NETS[name]()
    x, y = sample(shape, 9), torch.arange(9) % 4
    batches = [(x[:4], y[:4]), (x[4:5], y[4:5]), (x[5:], y[5:])]
    found = snnc.evaluate(net, iter(batches), ann)
    right, ann_right, same, spikes = [0] * 4, 0, [0] * 4, dict.fromkeys(dict(net.neurons()), 0)
    neurons = {}

    def see(node, value, steps):
        if node.name in spikes:
            spikes[node.name] += int((value != 0).sum())
            neurons[node.name] = value[0].numel()

    for one, label in zip(x, y, strict=True):
        wanted = int(ann(one[None]).argmax())
        ann_right += wanted == label
        for t, logits in enumerate(net.readout(one[None], observe=see)):
            right[t] += int(logits.argmax()) == label
            same[t] += int(logits.argmax()) == wanted
    assert found.samples == 9
    assert found.accuracy == [100 * int(r) / 9 for r in right]
    assert found.ann_accuracy == 100 * int(ann_right) / 9
    assert found.agreement == [100 * s / 9 for s in same]
    assert found.spikes == sum(spikes.values()) / 9
    assert found.rates == {name: spikes[name] / (9 * 4 * neurons[name]) for name in spikes}
    assert found.latency == net.latency
    assert found.to_dict()["latency"]["T"] == 4


def test_without_an_ann():
    net, shape = network("mlp")
    found = snnc.evaluate(net, [(sample(shape, 3), torch.tensor([0, 1, 2]))])
    assert (found.ann_accuracy, found.agreement) == (None, None)


def test_evaluating_twice_gives_the_same():
    net, shape = network("maxpool")
    data = [(sample(shape, 5), torch.arange(5) % 4)]
    assert snnc.evaluate(net, data) == snnc.evaluate(net, data)


def test_maps_cannot_be_scored():
    """A network whose output is a map has no classes to compare."""
    net, shape = network("decoder")
    with pytest.raises(DataError, match=r"not .B, classes"):
        snnc.evaluate(net, [(sample(shape, 2), torch.tensor([0, 1]))])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_an_ann_of_another_precision_is_compared(dtype):
    net, shape = network("conv", T=4)
    ann = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 4)).to(dtype).eval()
    x, y = sample(shape, 6), torch.arange(6) % 3
    found = snnc.evaluate(net, [(x, y)], ann)
    assert found.ann_accuracy == 100 * int((ann(x.to(dtype)).argmax(1) == y).sum()) / 6
