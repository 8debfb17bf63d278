"""NIR files: what a reader does with them, by the definitions of NIR, is what the network does, spike for spike."""

import json
import sys

import nir
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from torch import nn

import snnc
from snnc.backends.squared import Axis, dense, square
from snnc.cli import main
from snnc.errors import SnncError, Unsupported
from snnc.ir.dialect import Add, Grid
from snnc.ir.graph import GraphBuilder
from snnc.ir.neurons import IF
from snnc.ir.temporal import Decode, Encode
from snnc.networks.network import Network
from snnc.passes import (
    AverageInput,
    DelayReadout,
    MaskResidual,
    NormalizeThresholds,
    UseGradedNeurons,
    UseSignedNeurons,
    WaitForInput,
)
from snnc.passes.pipeline import Pipeline
from tests import zoo
from tests.nets import NETS, quantized, sample, spiking
from tests.nir_reader import Reader

REFUSED = {
    "maxpool": "NIR has no maximum",
    "pool-first": "NIR has no maximum",
    "conv1d": "NIR has no maximum",
    "conv3d": "three dimensions",
    "decoder": "NIR has no such node",
    "routes": "no square kernel",
    "picked": "NIR has no such node",
    "bare": "NIR has no maximum",
}


def written(graph, shape, tmp_path, **info):
    net = Network(graph, {"input_shape": list(shape), "recipe": "test", **info})
    return net, snnc.save(net, tmp_path / "net.nir")


def spikes(net, x):
    found = {}

    def see(node, value, steps):
        found.setdefault(node.name, []).append((value != 0).reshape(steps, -1, *value.shape[1:]))

    net.readout(x, observe=see)
    return {name: torch.cat(found[name]) for name, _ in net.neurons()}


def assert_same(net, path, x):
    reader = Reader(path)
    assert torch.equal(reader.logits(x), net(x))
    want = spikes(net, x)
    assert set(reader.spikes) == set(want)
    for name, train in want.items():
        assert torch.equal(reader.spikes[name] != 0, train), name
    assert sum(int(train.sum()) for train in want.values()) > 0
    return reader


@pytest.mark.parametrize("name", [name for name in NETS if name not in REFUSED])
@pytest.mark.parametrize("T", [1, 4])
def test_a_reader_gives_the_same_spikes(name, T, tmp_path):
    graph, shape = spiking(name, T)
    assert_same(*written(graph, shape, tmp_path), sample(shape, 3))


@pytest.mark.parametrize("name", REFUSED)
def test_what_nir_cannot_say_is_refused(name, tmp_path):
    graph, shape = spiking(name)
    path = tmp_path / "net.nir"
    path.write_text("before")
    with pytest.raises(Unsupported, match=REFUSED[name]) as caught:
        written(graph, shape, tmp_path)
    assert caught.value.hint
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["net.nir"]


def test_every_blocker_is_named(tmp_path):
    with pytest.raises(Unsupported) as caught:
        written(*spiking("pool-first"), tmp_path)
    assert [(b.node, b.op) for b in caught.value.blockers] == [("pool1", "MaxPool2d"), ("pool2", "RunningMax")]


MODELS = {
    "signed": UseSignedNeurons(),
    "graded": UseGradedNeurons(2),
    "waiting": WaitForInput(2),
    "average": AverageInput(),
    "mask": MaskResidual(3),
}


@pytest.mark.parametrize("model", MODELS)
def test_other_neurons_are_refused(model, tmp_path):
    with pytest.raises(Unsupported, match="no neuron like it"):
        written(*spiking("residual", then=MODELS[model], units=3), tmp_path)


def test_hints_for_signed_neurons_with_currents_of_their_own_lead_somewhere(tmp_path):
    """Without `even-currents` the neurons would still be refused, so the hint is another recipe."""
    ann, x = pooled()[:2].append(nn.Flatten()).append(nn.Linear(18, 3)), sample((1, 5, 5), 8)
    net = snnc.compile(ann.eval(), 2, "best-signed", x)
    with pytest.raises(Unsupported, match="NIR has no neuron like it") as caught:
        snnc.save(net, tmp_path / "net.nir")
    assert caught.value.hint.startswith("a recipe with plain neurons: 'opi'")
    snnc.save(snnc.compile(ann, 2, "opi", x), tmp_path / "net.nir")


def test_delayed_readout_is_told(tmp_path):
    net, path = written(*spiking("conv", then=DelayReadout()), tmp_path)
    reader = assert_same(net, path, sample((3, 4, 4), 3))
    assert int(reader.told["late"]) == 2
    assert not torch.equal(Reader(path, late=0).logits(sample((3, 4, 4), 3)), net(sample((3, 4, 4), 3)))


def test_thresholds_are_one_and_parameters_what_readers_ask_for(tmp_path):
    net, path = written(*spiking("residual"), tmp_path, note="some history")
    assert any((neuron.theta != 1).any() for _, neuron in net.neurons())
    graph = nir.read(path)
    neurons = [node for node in graph.nodes.values() if isinstance(node, nir.IF)]
    assert len(neurons) == len(net.neurons())
    for node in neurons:
        assert (node.r == 1).all()
        assert (node.v_threshold == 1).all()
        assert (node.v_reset == 0).all()
    known = {nir.Input, nir.Output, nir.Affine, nir.Conv2d, nir.AvgPool2d, nir.Flatten, nir.IF}
    assert {type(node) for node in graph.nodes.values()} <= known
    assert all(int(node.groups) == 1 for node in graph.nodes.values() if isinstance(node, nir.Conv2d))
    assert json.loads(graph.metadata["history"])["note"] == "some history"
    assert int(graph.metadata["T"]) == 4


def test_a_join_of_unit_spikes_is_two_edges(tmp_path):
    graph, shape = quantized("residual")
    context = snnc.Context(T=4)
    passes = (NormalizeThresholds(), snnc.PASSES["insert-neurons"]())
    graph = snnc.Pipeline(passes).run(graph, context, snnc.Stage.QUANTIZED).graph
    _, path = written(graph, shape, tmp_path)
    into = {}
    for source, target in nir.read(path).edges:
        into.setdefault(target, []).append(source)
    assert sum(len(sources) == 2 for sources in into.values()) == 2


def build(make, *shape):
    """A dyadic network from an ordinary module, whose neurons round at one half."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = zoo.dyadic(make.eval())
    pipeline = snnc.Pipeline(
        (
            snnc.PASSES["fold-batchnorm"](),
            snnc.PASSES["quantize-activations"](bound="data"),
            snnc.PASSES["insert-neurons"](),
        )
    )
    graph = snnc.compile(net, 4, pipeline, sample(shape, 4)).graph
    for _, neuron in Network(graph, {}).neurons():
        neuron.theta = 2.0 ** neuron.theta.log2().round()
        neuron.v0 = neuron.theta / 2
    return graph


SHAPES = {
    "one-sided": (nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 2, 2)),),
    "oblong": (nn.Sequential(nn.ZeroPad2d((1, 1, 4, 5)), nn.Conv2d(3, 4, (10, 4), 2), nn.ReLU(), nn.Conv2d(4, 2, 1)),),
    "grouped": (nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.ReLU(), nn.Conv2d(6, 4, 3, 2, 1, 1, 2)),),
    "dilated": (nn.Sequential(nn.Conv2d(3, 4, 3, padding="same", dilation=2), nn.ReLU(), nn.Conv2d(4, 4, (1, 3)),),),
    "pools": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AvgPool2d(2, 2, 1), nn.Conv2d(4, 4, 1),
                            nn.ReLU(), nn.AdaptiveAvgPool2d((2, 1)), nn.Flatten(), nn.Linear(8, 3)),),
    "sums": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AvgPool2d(2, divisor_override=1), nn.Conv2d(4, 2, 1)),),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_that_nir_lacks(name, tmp_path):
    (make,) = SHAPES[name]
    graph = build(make, 3, 8, 8)
    assert_same(*written(graph, (3, 8, 8), tmp_path), sample((3, 8, 8), 3))


class Shortcut(nn.Module):
    """The published shortcut of ResNets: every second place, and channels of zeros."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv, self.out = nn.Conv2d(3, 4, 3, 1, 1), nn.Conv2d(4, 8, 3, 2, 1), nn.Conv2d(7, 2, 1)

    def forward(self, x):
        x = F.relu(self.stem(x))
        y = self.conv(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return self.out(F.relu(y[:, 1:, 1:, :3]))


def test_sliced_and_padded_shortcuts(tmp_path):
    assert_same(*written(build(Shortcut(), 3, 8, 8), (3, 8, 8), tmp_path), sample((3, 8, 8), 3))


def test_one_dimension(tmp_path):
    net = nn.Sequential(
        nn.Conv1d(3, 4, 3, 2, 1), nn.ReLU(), nn.AvgPool1d(2), nn.Conv1d(4, 4, 2, dilation=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(8, 3),
    )  # fmt: skip
    reader = assert_same(*written(build(net, 3, 16), (3, 16), tmp_path), sample((3, 16), 3))
    assert {nir.Conv1d, nir.AvgPool2d} & {type(node) for node in reader.graph.nodes.values()} == {nir.Conv1d}


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (nn.AvgPool2d(3, 2, ceil_mode=True), "ceil_mode"),
        (nn.AvgPool2d(3, 2, 1, count_include_pad=False), "count_include_pad"),
        (nn.AdaptiveAvgPool2d(4), "windows differ"),
        (nn.Upsample(scale_factor=2), "no such node"),
        (nn.ConstantPad2d(1, 0.5), "no padding but zeros"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_shapes_that_no_kernel_gives(layer, why, tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), layer, nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    with pytest.raises(Unsupported, match=why):
        written(build(net, 3, 8, 8), (3, 8, 8), tmp_path)


@pytest.mark.parametrize("size", [5, 8])
@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("pads", [(0, 1, 1, 0), (2, 0, 1, 3), (0, 0, 2, 2), (1, 1, 1, 1)])
@pytest.mark.parametrize(("kernel", "dilation"), [((3, 3), (1, 1)), ((2, 4), (1, 1)), ((2, 3), (2, 1))])
def test_square_kernels_read_the_same(size, step, pads, kernel, dilation):
    """Where there is one; and there is, unless the sizes of one parity cannot meet those of another."""
    weight, x = torch.randint(-4, 5, (2, 3, *kernel)).float(), torch.randint(-4, 5, (2, 3, size, size)).float()
    want = F.conv2d(F.pad(x, pads), weight, stride=step, dilation=dilation)
    firsts = (-pads[2], -pads[0])
    axes = tuple(
        Axis(size, out, step, first, taps, gap)
        for out, first, taps, gap in zip(want.shape[2:], firsts, kernel, dilation, strict=True)
    )
    found = square(weight, axes)
    if found is None:
        reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
        assert (reach[0] - pads[2] - pads[3] - reach[1] + pads[0] + pads[1]) % 2
        return
    assert found.weight.shape[2] == found.weight.shape[3]
    assert torch.equal(F.conv2d(x, found.weight, None, found.stride, found.padding, found.dilation), want)


def test_dense_kernels_are_grouped_ones():
    weight, x = torch.randint(-4, 5, (6, 2, 3, 3)).float(), torch.randint(-4, 5, (2, 4, 5, 5)).float()
    assert torch.equal(F.conv2d(x, dense(weight, 2)), F.conv2d(x, weight, groups=2))


def fixed(grids=1):
    """A fixed-point network: integers between a grid on its input and its readout."""
    build, generator = GraphBuilder(), torch.Generator().manual_seed(0)

    def whole(module):
        for value in module.parameters():
            value.data = torch.randint(-3, 5, value.shape, generator=generator).float()
        return module

    theta, v0 = torch.tensor([5.0, 7.0, 11.0, 12.0])[:, None, None], torch.tensor([2.0, 3.0, 5.0, 6.0])[:, None, None]
    source = build.input()
    x = build.call("grid", Grid(torch.tensor(3.0), -5, 4), source)
    if grids == 2:
        x = build.call("join", Add(), x, build.call("finer", Grid(torch.tensor(6.0), -5, 4), source))
    for i, module in enumerate((nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))):
        x = build.call(f"conv{i}", whole(module), x)
        x = build.call(f"encode{i}", Encode(6), x) if i == 0 else x
        x = build.call(f"if{i}", IF(6, theta, v0, unit=True), x)
    x = build.call("decode", Decode(6, 6), x)
    return build.finish(build.call("readout", nn.Flatten(), x))


def test_fixed_point_networks_stay_integers(tmp_path):
    net = Network(fixed(), {"input_shape": [3, 8, 8]}, stage=snnc.Stage.FIXED)
    path = snnc.save(net, tmp_path / "net.nir")
    x = torch.randn(3, 3, 8, 8)
    assert_same(net, path, x)
    node = nir.read(path).nodes["if1"]
    assert sorted(set(node.v_threshold.flatten())) == [5, 7, 11, 12]
    told = nir.read(path).metadata
    assert (told["input_scale"] == 3).all()
    assert (int(told["input_low"]), int(told["input_high"])) == (-5, 4)
    assert "round" in told["input"]


@pytest.mark.parametrize("name", ["plain", "residual", "inverted", "normalised", "qcfs"])
def test_fixed_point_networks_of_the_zoo(name, tmp_path):
    net, shape = zoo.ZOO[name]()
    pipeline = snnc.Pipeline((*snnc.recipe("opi").pipeline, snnc.PASSES["fixed-point"]()))
    x = zoo.sample(shape, 4)
    snn = snnc.compile(net, 4, pipeline, x)
    reader = Reader(snnc.save(snn, tmp_path / "net.nir"))
    reader.run(x)
    for layer, train in spikes(snn, x).items():
        assert torch.equal(reader.spikes[layer].bool(), train), layer


def test_two_grids_are_refused(tmp_path):
    net = Network(fixed(grids=2), {"input_shape": [3, 8, 8]}, stage=snnc.Stage.FIXED)
    with pytest.raises(Unsupported, match="does not round"):
        snnc.save(net, tmp_path / "net.nir")


def test_no_shape_no_file(tmp_path):
    with pytest.raises(SnncError, match="shape of the input"):
        written(spiking("conv")[0], (), tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_the_library_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nir", None)
    with pytest.raises(SnncError, match="needs the package nir") as caught:
        written(*spiking("conv"), tmp_path)
    assert "snnc[nir]" in caught.value.hint


def test_the_command_line_offers_to_measure_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3)), "net.pt")
    said = [
        CliRunner().invoke(main, ["compile", "net.pt", "--input-shape", "1,5,5", "-o", out]).stdout
        for out in ("net.nir", "net.snn")
    ]
    assert ["Wrote net" in one for one in said] == [True, True]
    assert ["snnc eval" in one for one in said] == [True, True]


@pytest.mark.parametrize(
    ("words", "why", "hint"),
    [
        ((), "'even-currents' gives it currents that change", "--set even-currents.gain=0"),
        (("--recipe", "cos"), "'calibrate-offset' makes neurons that NIR has not", "'opi'"),
        (("--recipe", "graded"), "'use-graded-neurons' makes neurons", "'opi'"),
        (("--recipe", "best-signed"), "'use-signed-neurons' makes neurons", "'opi'"),
        (("--max-drop", 1, "--recipes", "best,opi"), "'even-currents' gives it", "--set even-currents.gain=0"),
        (
            ("--recipe", "opi", "--factory", "tests.backends.nir.test_nir:pooled"),
            "maxpool2d_2 (MaxPool2d): NIR has no maximum",
            "average",
        ),
    ],
)
def test_what_nir_cannot_say_is_refused_before_any_pass(words, why, hint, tmp_path, monkeypatch):
    monkeypatch.setattr(Pipeline, "run", lambda *given, **more: pytest.fail("a pass ran"))
    torch.save(pooled()[:2].append(nn.Flatten()).append(nn.Linear(18, 3)), tmp_path / "net.pt")
    np.savez(tmp_path / "data.npz", x=np.zeros((4, 1, 5, 5), "float32"))
    model = "-" if "--factory" in words else tmp_path / "net.pt"
    command = ["compile", model, "--calib", tmp_path / "data.npz", "-o", tmp_path / "net.nir", *words]
    for more in ((), ("--dry-run",)):
        result = CliRunner().invoke(main, [str(word) for word in (*command, *more)])
        assert result.exit_code == 1
        said = " ".join(result.stderr.split())
        assert why in said
        assert hint in said
    assert not (tmp_path / "net.nir").exists()


def pooled():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2, 3))


def test_a_search_leaves_out_what_nir_cannot_say(tmp_path):
    torch.save(pooled()[:2].append(nn.Flatten()).append(nn.Linear(18, 3)), tmp_path / "net.pt")
    x = np.random.default_rng(0).standard_normal((8, 1, 5, 5)).astype("float32")
    np.savez(tmp_path / "data.npz", x=x)
    words = ["compile", tmp_path / "net.pt", "--calib", tmp_path / "data.npz", "--max-drop", 100, "--T", 1]
    result = CliRunner().invoke(main, [str(word) for word in (*words, "-o", tmp_path / "net.nir")])
    assert result.exit_code == 0, result.output
    assert "Not tried, since the backend 'nir' cannot write their networks: asg, cos" in result.stderr


def test_a_shape_is_asked_for_before_any_pass(tmp_path, monkeypatch):
    monkeypatch.setattr(Pipeline, "run", lambda *given, **more: pytest.fail("a pass ran"))
    torch.save(pooled(), tmp_path / "net.pt")
    for name in ("net.nir", "net.pt2"):
        result = CliRunner().invoke(main, ["compile", str(tmp_path / "net.pt"), "-o", str(tmp_path / name)])
        assert "needs the shape of the input" in result.stderr
        assert not (tmp_path / name).exists()


def test_metadata_is_plain(tmp_path):
    _, path = written(*spiking("mlp"), tmp_path)
    graph = nir.read(path)
    assert isinstance(graph.metadata["readout"], str)
    for node in graph.nodes.values():
        if isinstance(node, nir.IF):
            assert node.metadata["reset"] == "subtract"
            assert node.metadata["v0"].dtype == np.float32
            assert node.metadata["v0"].shape == node.v_threshold.shape
