"""NIR files as networks: those of snnc come back spike for spike, and those of others load or are refused by node."""

import json
from itertools import pairwise

import nir
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner

import snnc
from snnc.backends import NirFile
from snnc.cli import main
from snnc.errors import LoadError, Unsupported
from snnc.networks.network import Network
from tests import zoo
from tests.backends.nir.test_nir import REFUSED, Shortcut, build, fixed
from tests.backends.nir.test_targets import Mean
from tests.nets import NETS, sample, spiking


def back(net, path, x, target="nir"):
    """What differs between a network and the one that is read from its file."""
    return snnc.verify(net, snnc.load(snnc.save(net, path / "net.nir", NirFile(target))), x)


@pytest.mark.parametrize("name", [name for name in NETS if name not in REFUSED])
def test_what_snnc_wrote_comes_back(name, tmp_path):
    graph, shape = spiking(name)
    net, x = Network(graph, {"input_shape": list(shape)}), sample(shape, 3)
    found = back(net, tmp_path, x)
    assert found.same
    assert found.logits < 1e-6  # a mean over places of a mean over steps, and the other way round
    assert sum(one.spikes for one in found.layers) > 0


@pytest.mark.parametrize("net", [Mean, Shortcut])
def test_sums_and_branches_come_back(net, tmp_path):
    graph, x = build(net(), 3, 8, 8), sample((3, 8, 8), 3)
    assert back(Network(graph, {"input_shape": [3, 8, 8]}), tmp_path, x, "sinabs").spikes == 0


def test_networks_of_integers_come_back_to_the_bit(tmp_path):
    net = Network(fixed(), {"input_shape": [3, 8, 8]}, stage=snnc.Stage.FIXED)
    found = back(net, tmp_path, torch.randn(3, 3, 8, 8))
    assert (found.exact, found.same, sum(found.outputs)) == (True, True, 0)
    ann, shape = zoo.ZOO["residual"]()
    pipeline = snnc.Pipeline((*snnc.recipe("opi").pipeline, snnc.PASSES["fixed-point"]()))
    x = zoo.sample(shape, 4)
    found = back(snnc.compile(ann, 4, pipeline, x), tmp_path, x)
    assert (found.exact, found.same, sum(found.outputs)) == (True, True, 0)


def test_its_history_comes_along(tmp_path):
    ann, shape = zoo.ZOO["plain"]()
    net = snnc.compile(ann, 4, snnc.recipe("best").set("even-currents", gain=0.0), zoo.sample(shape, 4), quick=True)
    read = snnc.load(snnc.save(net, tmp_path / "net.nir"))
    assert read.info["recipe"] == net.info["recipe"]
    assert read.latency == net.latency
    assert read.entries == net.entries


def conv(outputs, inputs, size, **options):
    rng = np.random.default_rng(0)
    weight = rng.integers(-4, 5, (outputs, inputs, 3, 3)).astype("float32") / 4
    options = {"stride": 1, "padding": 1, "dilation": 1, "groups": 1} | options
    return nir.Conv2d((size, size), weight, **options, bias=np.arange(outputs, dtype="float32") / 8)


def neurons(*shape, theta=1.0, **options):
    ones = np.ones(shape, "float32")
    return nir.IF(ones * options.pop("r", 1), ones * theta, np.zeros_like(ones), **options)


def graph(nodes, *edges, **metadata):
    names = list(nodes)
    return nir.NIRGraph(nodes, list(edges) or list(pairwise(names)), metadata=metadata, type_check=False)


def foreign():
    """A file of others: a gain, thresholds of each channel, groups, a scale, two edges into one node, a sum pool."""
    theta = np.array([1, 2, 0.5, 1], "float32").reshape(4, 1, 1)
    nodes = {
        "input": nir.Input(np.array([2, 4, 4])),
        "0.conv": conv(4, 2, 4),
        "0.if": neurons(4, 4, 4, theta=theta, r=0.5),
        "side": conv(4, 2, 4, groups=2),
        "1.if": neurons(4, 4, 4),
        "scale": nir.Scale(np.full((4, 4, 4), 0.5, "float32")),
        "pool": nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "flat": nir.Flatten({"input": np.array([4, 2, 2])}, 0, -1),
        "out": nir.Linear(np.arange(48, dtype="float32").reshape(3, 16) / 16),
        "output": nir.Output(np.array([3])),
    }
    edges = [("input", "0.conv"), ("0.conv", "0.if"), ("0.if", "side"), ("side", "1.if"), ("0.if", "1.if"),
             ("1.if", "scale"), ("scale", "pool"), ("pool", "flat"), ("flat", "out"), ("out", "output")]  # fmt: skip
    return graph(nodes, *edges)


def simulated(x, steps):
    """What `foreign` means, step by step, by torch's functions."""
    found = foreign().nodes
    weights = {name: torch.from_numpy(found[name].weight) for name in ("0.conv", "side", "out")}
    bias = {name: torch.from_numpy(found[name].bias) for name in ("0.conv", "side")}
    theta = torch.tensor([1, 2, 0.5, 1]).reshape(4, 1, 1)
    a, b, total = torch.zeros(len(x), 4, 4, 4), torch.zeros(len(x), 4, 4, 4), 0
    for _ in range(steps):
        a = a + 0.5 * F.conv2d(x, weights["0.conv"], bias["0.conv"], padding=1)
        first = (a >= theta).float()
        a = a - first * theta
        b = b + F.conv2d(first, weights["side"], bias["side"], padding=1, groups=2) + first
        second = (b >= 1).float()
        b = b - second
        total = total + F.avg_pool2d(second * 0.5, 2, divisor_override=1).flatten(1) @ weights["out"].T
    return total / steps


def test_a_file_of_others_is_what_it_says(tmp_path):
    nir.write(tmp_path / "net.nir", foreign())
    net, x = snnc.load(tmp_path / "net.nir"), sample((2, 4, 4), 5)
    assert net.T == 8  # which such a file does not say
    assert torch.equal(net(x), simulated(x, 8))
    assert [name for name, _ in net.neurons()] == ["_0_if", "_1_if"]


LIF = nir.LIF(*[np.ones(3, "float32")] * 2, np.zeros(3, "float32"), np.ones(3, "float32"))
FLAT = nir.Affine(np.eye(3, dtype="float32"), np.zeros(3, "float32"))
INPUT, OUTPUT = nir.Input(np.array([3])), nir.Output(np.array([3]))
UNEVEN = nir.IF(np.ones((2, 2)), np.array([[1.0, 2.0], [1.0, 1.0]]), np.zeros((2, 2)))
HIGH = nir.IF(np.ones(3), np.ones(3), np.full(3, -1.0))
ODD = {
    "lif": ({"input": INPUT, "lif": LIF, "output": OUTPUT}, "lif (LIF): snnc has no such node"),
    "reset": ({"input": INPUT, "if": HIGH, "output": OUTPUT}, "if (IF): a spike sets its potential to another value"),
    "places": ({"input": nir.Input(np.array([2, 2])), "if": UNEVEN, "output": nir.Output(np.array([2, 2]))},
               "if (IF): its numbers differ from place to place"),
    "none": ({"input": INPUT, "fc": FLAT, "output": OUTPUT}, "no neuron stands before it"),
    "inner": ({"input": INPUT, "inner": nir.NIRGraph.from_list(FLAT), "if": neurons(3), "output": OUTPUT},
              "inner (NIRGraph): snnc has no such node"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_nodes_that_snnc_has_not_are_named(name, tmp_path):
    nodes, why = ODD[name]
    nir.write(tmp_path / "net.nir", graph(nodes))
    with pytest.raises(Unsupported) as caught:
        snnc.load(tmp_path / "net.nir")
    assert why in str(caught.value)
    assert caught.value.hint


def test_all_nodes_are_named_and_loops_are_refused(tmp_path):
    names = {"input": INPUT, "a": LIF, "b": LIF, "output": OUTPUT}
    nir.write(tmp_path / "net.nir", graph(names))
    with pytest.raises(Unsupported) as caught:
        snnc.load(tmp_path / "net.nir")
    assert [one.node for one in caught.value.blockers] == ["a", "b"]
    loop = {"input": INPUT, "if": neurons(3), "fc": FLAT, "output": OUTPUT}
    nir.write(tmp_path / "net.nir", graph(loop, ("input", "if"), ("if", "fc"), ("fc", "if"), ("if", "output")))
    with pytest.raises(Unsupported, match="feeds itself"):
        snnc.load(tmp_path / "net.nir")


@pytest.mark.parametrize("T", [0, -1, 2**40])
def test_steps_that_cannot_be_are_refused(T, tmp_path):
    nir.write(tmp_path / "net.nir", graph({"input": INPUT, "if": neurons(3), "output": OUTPUT}, T=T))
    with pytest.raises(LoadError, match="is broken"):
        snnc.load(tmp_path / "net.nir")


def test_files_that_are_no_nir_are_refused(tmp_path):
    nir.write(tmp_path / "net.nir", foreign())
    whole = (tmp_path / "net.nir").read_bytes()
    for size in (600, len(whole) // 2):
        (tmp_path / "cut.nir").write_bytes(whole[:size])
        with pytest.raises(LoadError, match="no whole NIR file"):
            snnc.load(tmp_path / "cut.nir")


def test_the_command_line_measures_and_compares_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    graph, shape = spiking("conv")
    net = Network(graph, {"input_shape": list(shape)})
    snnc.save(net, "net.snn")
    snnc.save(net, "net.nir")
    np.savez("data.npz", x=sample(shape, 6).numpy(), y=np.zeros(6, int))

    def ran(*words):
        found = CliRunner().invoke(main, list(words))
        assert found.exit_code == 0, found.output
        return found.stdout

    assert json.loads(ran("verify", "net.snn", "net.nir", "--data", "data.npz", "--json"))["spikes"] == 0
    assert json.loads(ran("eval", "net.nir", "--data", "data.npz", "--json"))["T"] == net.T
    assert "IF" in ran("inspect", "net.nir")
    again = CliRunner().invoke(main, ["compile", "net.nir"])
    assert "is a spiking network already" in again.stderr
