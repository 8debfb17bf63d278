"""What differs is counted, place by place; what is the same gives zero. Dyadic numbers, so zero means zero."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import snnc
import snnc.backends
from snnc.cli import main
from snnc.differences import verify
from snnc.errors import DataError, SnncError
from snnc.ir.dialect import Affine, Grid
from snnc.ir.graph import GraphBuilder, Stage
from snnc.ir.neurons import IF, GradedIF
from snnc.ir.temporal import Decode, Encode
from snnc.networks.network import Network
from snnc.passes import AverageInput, MaskResidual, NormalizeThresholds, UseGradedNeurons, UseSignedNeurons
from tests.nets import NETS, quantized, sample, spiking


def network(name, T=4, **options):
    graph, shape = spiking(name, T, **options)
    return Network(graph, {"input_shape": list(shape), "recipe": "test"}), shape


def tiny(v0=0.0, T=4, second=0.0):
    """Two layers of one neuron a feature, thresholds 1, no weights but the readout's."""
    build = GraphBuilder()
    x = build.call("encode", Encode(T), build.input())
    for name, start in (("one", v0), ("two", second)):
        x = build.call(name, IF(T, torch.tensor(1.0), torch.tensor(start)), x)
    readout = nn.Linear(2, 2, bias=False)
    readout.weight.data = torch.eye(2)
    graph = build.finish(build.call("fc", readout, build.call("decode", Decode(T, T), x)))
    return Network(graph, {"input_shape": [2]})


def whole(v0=0.0, T=4, unit=1.0):
    """The same in fixed point, on a grid of quarters."""
    build = GraphBuilder()
    x = build.call("encode", Encode(T), build.call("grid", Grid(torch.tensor(4.0), -8, 8), build.input()))
    for name, theta, start in (("one", 4.0, 4 * v0), ("two", 1.0, 0.0)):
        x = build.call(name, IF(T, torch.tensor(theta), torch.tensor(start), unit=True), x)
    x = build.call("unit", Affine(torch.tensor(unit), torch.tensor(0.0)), build.call("decode", Decode(T, T), x))
    graph = build.finish(x)
    record = {"name": "x", "options": {}, "sites": 1, "stage": "FIXED", "seconds": 0.1, "error": None, "notes": []}
    return Network(graph, {"input_shape": [2], "records": [record]}, stage=Stage.FIXED)


QUARTERS = torch.tensor([[0.25, 1.0], [0.5, 0.0], [0.0, 0.0]])


def test_every_place_is_counted():
    """From v0 = 0 a current of 1/4 fires at step 4, from 1/2 at 2; a current of 1/2 at 2 and 4, or 1 and 3."""
    found = verify(tiny(), tiny(0.5), QUARTERS)
    one, two = found.layers
    assert (one.name, one.differ, one.places, one.spikes, one.step) == ("one", 2 + 4, 24, 1 + 4 + 2, 1)
    assert (two.name, two.differ, two.places, two.step) == ("two", 6, 24, 1)
    assert (found.spikes, found.places, found.first, found.touched) == (12, 48, ("one", 1), 2)
    # Sample 0 is 0, 0, 0, 1/4 or 0, 1/2, 1/3, 1/4; sample 1 is 0, 1/2, 1/3, 1/2 or 1, 1/2, 2/3, 1/2.
    assert found.outputs == [1, 1, 2, 0]
    assert found.logits == 1.0
    assert not found.same
    assert found.predictions == [0, 0, 0, 0]
    assert found.samples == 3


def test_another_readout_behind_the_same_spikes_is_not_the_same():
    """In fixed point in any bit, in float where a prediction differs: a spoilt readout must not pass for rounding."""
    found = verify(whole(), whole(unit=1 + 2**-23), QUARTERS)
    assert (found.exact, found.spikes, found.same, found.touched) == (True, 0, False, 2)
    swapped = tiny()
    swapped.graph.fc.weight = nn.Parameter(torch.eye(2).flip(0), requires_grad=False)
    found = verify(tiny(), swapped, QUARTERS)
    assert found.spikes == 0
    assert any(found.predictions)
    assert not found.same
    nudged = tiny()
    nudged.graph.fc.weight = nn.Parameter(torch.eye(2) * (1 + 2**-23), requires_grad=False)
    found = verify(tiny(), nudged, QUARTERS)
    assert any(found.outputs)
    assert found.same


@pytest.mark.parametrize("chunk", [1, 5, 7, 8, 64])
def test_rounds_of_any_size(chunk):
    """More samples than a round holds, and a rest."""
    net, shape = network("residual")
    other, _ = network("residual")
    net.chunk = chunk
    found = verify(net, other, sample(shape, 7))
    assert found.same
    assert found.samples == 7
    assert found.places == verify(other, other, sample(shape, 7)).places


def test_the_first_layer_of_the_first_step_is_told():
    found = verify(tiny(), tiny(second=0.5), QUARTERS[1:])
    assert found.layers[0].differ == 0
    assert found.layers[0].step is None
    assert found.first is None  # spikes of height 1 reach the threshold of the second layer from either start
    found = verify(tiny(), tiny(second=-0.5), QUARTERS[1:])
    assert found.first == ("two", 2)


@pytest.mark.parametrize("name", NETS)
def test_streaming_gives_the_same(name):
    net, shape = network(name)
    found = verify(net, net, sample(shape, 5), stream=True)
    assert found.same
    assert found.spikes == 0
    assert found.touched == 0
    assert not any(found.outputs[t - 1] for t in (1, 2, 4))  # a mean over three steps rounds
    assert [layer.name for layer in found.layers] == [layer for layer, _ in net.neurons()]
    assert sum(layer.spikes for layer in found.layers) > 0


@pytest.mark.parametrize("then", [UseSignedNeurons(), UseGradedNeurons(2), MaskResidual(3)])
def test_other_neurons_stream_the_same(then):
    net, shape = network("residual", then=then, units=3)
    assert verify(net, net, sample(shape, 3), stream=True).same


def test_chunks_change_nothing():
    small, large = network("residual")[0], network("residual")[0]
    shifted = network("residual")[0]
    for _, neuron in shifted.neurons():
        neuron.v0 = neuron.v0 * 0
    small.chunk, large.chunk = 4, 1000
    x = sample((3, 8, 8), 7)
    found = [verify(net, shifted, x) for net in (small, large)]
    assert found[0] == found[1]
    assert found[0].spikes > 0
    assert verify(small, large, x).same


def test_thresholds_in_the_weights_are_the_same_network():
    """Their spikes have other heights: what counts is whether there is one."""
    graph, shape = quantized("residual")
    insert = snnc.PASSES["insert-neurons"]()
    nets = [
        Network(snnc.Pipeline(passes).run(graph, snnc.Context(T=4), Stage.QUANTIZED).graph, {})
        for passes in ((insert,), (NormalizeThresholds(), insert))
    ]
    assert any((neuron.theta != 1).any() for _, neuron in nets[0].neurons())
    assert verify(*nets, sample(shape, 3)).same


def test_graded_spikes_differ_in_their_number():
    a, shape = network("mlp", then=UseGradedNeurons(2), units=3)
    b, _ = network("mlp", then=UseGradedNeurons(2), units=3)
    name, neuron = b.neurons()[0]
    neuron.v0 = neuron.v0 + neuron.theta
    found = verify(a, b, sample(shape, 3))
    seen = [[], []]
    for net, into in zip((a, b), seen, strict=True):
        net.readout(sample(shape, 3), observe=lambda node, value, steps, into=into: into.append((node.name, value)))
    want = dict(seen[0])[name] != dict(seen[1])[name]
    assert found.layers[0].differ == int(want.sum()) > 0


def test_graded_spikes_of_a_file_of_integers_differ_in_their_number(tmp_path):
    """3 units of a spike are no more positive than 1."""
    a, b = tiny(), whole()
    a.graph.one = GradedIF(4, torch.tensor(1.0), torch.tensor(0.0), 2)
    b.graph.one = GradedIF(4, torch.tensor(4.0), torch.tensor(8.0), 2, unit=True)
    b = onnx(b, tmp_path)
    for pair in ((a, b), (b, a)):
        found = verify(*pair, torch.ones(1, 2))
        assert [layer.differ for layer in found.layers] == [2, 0]
        assert not found.same


@pytest.mark.parametrize("change", [0.0, 0.5])
def test_exported_programs_are_compared_by_their_outputs(change, tmp_path):
    net, shape = network("conv")
    path = snnc.save(net, tmp_path / "net.pt2")
    _, neuron = net.neurons()[-1]
    neuron.v0 = neuron.v0 + change
    found = verify(net, snnc.load(path), sample(shape, 5))
    assert found.layers is None
    assert found.spikes is None
    assert found.first is None
    assert found.same is (change == 0)
    assert (sum(found.outputs) > 0) is (change > 0)
    assert (found.touched > 0) is (change > 0)
    assert ["outputs were compared to the bit" in note for note in found.notes] == [True]


def onnx(net, path, **options):
    return snnc.load(snnc.save(net, path / "net.onnx", snnc.backends.OnnxModel(**options)))


def test_spikes_in_onnxruntime_are_counted(tmp_path):
    assert verify(tiny(), onnx(tiny(), tmp_path), QUARTERS).same
    other = onnx(tiny(0.5), tmp_path)
    assert verify(tiny(), other, QUARTERS).spikes == 12
    assert verify(other, onnx(tiny(), tmp_path), QUARTERS).spikes == 12


def test_files_with_one_output_are_compared_after_the_last_step(tmp_path):
    found = verify(tiny(), onnx(tiny(0.5), tmp_path, anytime=False), QUARTERS)
    assert found.outputs == [0]
    assert found.spikes == 12
    assert "only the last outputs" in found.notes[0]


@pytest.mark.parametrize("name", NETS)
def test_onnxruntime_gives_the_same(name, tmp_path):
    for T in (1, 4):
        net, shape = network(name, T)
        found = verify(net, onnx(net, tmp_path), sample(shape, 3))
        assert found.spikes == 0
        assert found.places > 0
        if name != "bare":  # whose softmax rounds
            assert not any(found.outputs[t - 1] for t in (1, 2, 4) if t <= T)  # as a mean over three steps does


def test_fixed_point_networks_must_not_differ(tmp_path):
    a, b = whole(), whole(0.5)
    assert verify(a, b, QUARTERS).exact
    found = verify(a, onnx(b, tmp_path), QUARTERS)
    assert found.exact
    assert found.spikes == 12
    assert verify(a, onnx(whole(), tmp_path), QUARTERS).same
    assert not verify(a, onnx(tiny(0.5), tmp_path), QUARTERS).exact
    assert not verify(a, tiny(0.5), QUARTERS).exact
    # A fixed-point network beside the float one that it came from: heights differ, spikes are there or not.
    assert verify(a, tiny(), QUARTERS).spikes == 0
    assert verify(onnx(whole(), tmp_path), tiny(0.5), QUARTERS).spikes == 12


def test_other_networks_are_compared_by_their_outputs():
    a, shape = network("mlp")
    found = verify(a, network("single")[0], sample(shape, 3))
    assert found.layers is None
    assert "different networks" in found.notes[0]
    assert sum(found.outputs) > 0
    assert not found.exact


def test_other_numbers_of_steps_compare_the_last():
    found = verify(tiny(T=4), tiny(T=8), QUARTERS)
    assert found.layers is None
    assert len(found.outputs) == 1
    assert "4 steps and the other after 8" in found.notes[0]


def test_outputs_of_other_shapes_are_refused():
    a, b = network("mlp")[0], network("mlp")[0]
    b.graph.fc3 = nn.Linear(8, 2).eval().requires_grad_(False)
    with pytest.raises(SnncError, match=r"shapes \(2,\) and \(4,\)"):
        verify(b, a, sample((6,), 3))


def test_labels_and_the_original_network():
    x = torch.tensor([[0.25, 1.0], [0.75, 0.5], [1.0, 0.0]])
    ann = nn.Sequential(nn.Flatten())
    found = verify(tiny(), tiny(0.5), [(x, torch.tensor([1, 0, 1]))], ann)
    assert found.accuracy == (pytest.approx(200 / 3), pytest.approx(200 / 3))
    assert found.ann_accuracy == pytest.approx(200 / 3)
    assert found.ann_predictions == (0, 0)
    assert verify(tiny(), tiny(), x).accuracy is None
    with pytest.raises(DataError, match="A label is 2"):
        verify(tiny(), tiny(), [(x, torch.tensor([1, 0, 2]))])


def test_what_cannot_stream_is_refused(tmp_path):
    net, shape = network("conv", then=AverageInput())
    with pytest.raises(SnncError, match="layer-synchronous"):
        verify(net, net, sample(shape, 2), stream=True)
    loaded = snnc.load(snnc.save(net, tmp_path / "net.pt2"))
    with pytest.raises(SnncError, match="step by step"):
        verify(net, loaded, sample(shape, 2), stream=True)


# The command


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("files")
    for name, net in {
        "a.snn": tiny(),
        "b.snn": tiny(0.5),
        "a.pt2": tiny(),
        "a.onnx": tiny(),
        "b.onnx": tiny(0.5),
        "fixed.snn": whole(),
        "spoilt.snn": whole(0.5),
    }.items():
        snnc.save(net, path / name)
    np.savez(path / "x.npz", x=QUARTERS.numpy())
    np.savez(path / "xy.npz", x=QUARTERS.numpy(), y=np.array([1, 0, 0]))
    torch.save(nn.Sequential(nn.Flatten()).eval(), path / "ann.pt")
    return path


@pytest.fixture
def files(folder, monkeypatch):
    monkeypatch.chdir(folder)


def run(*words):
    return CliRunner().invoke(main, ["verify", *words])


def test_the_command_finds_nothing(files):
    for words in (
        ("a.snn", "a.snn"),
        ("a.snn", "a.pt2"),
        ("a.snn", "a.onnx"),
        ("a.snn", "--stream"),
        ("fixed.snn", "--stream"),
    ):
        result = run(*words, "--data", "x.npz", "--strict")
        assert result.exit_code == 0, result.output
        assert (
            f"no {'output differs in any bit' if 'a.pt2' in words else 'spike and no prediction differs'}."
            in result.output
        )


def test_float_networks_may_differ(files):
    result = run("a.snn", "b.snn", "--data", "xy.npz", "--ann", "ann.pt")
    assert result.exit_code == 0
    assert "Spikes that differ: 12 of 48 places (25 %); they part at step 1 in 'one'" in result.output
    assert "Predictions that differ: 0 of 3" in result.output
    assert "Accuracy: A 100.00 %, B 100.00 %, ANN 100.00 %" in result.output
    assert "from the ANN's: A 0, B 0" in result.output
    assert run("a.snn", "b.snn", "--data", "x.npz", "--strict").exit_code == 1
    assert "Spikes that differ: 12 of 48" in run("a.snn", "b.onnx", "--data", "x.npz").output


def test_fixed_point_networks_fail(files):
    result = run("fixed.snn", "spoilt.snn", "--data", "x.npz")
    assert result.exit_code == 1
    assert "NOT the same" in result.output
    assert run("fixed.snn", "a.snn", "--data", "x.npz").exit_code == 0


def test_json(files):
    result = run("a.snn", "b.snn", "--data", "x.npz", "--limit", "2", "--batch", "1", "--chunk", "4", "--json")
    found = json.loads(result.stdout)
    assert (found["spikes"], found["places"], found["samples"], found["failed"]) == (12, 32, 2, False)
    assert found["first"] == ["one", 1]
    assert [layer["name"] for layer in found["layers"]] == ["one", "two"]
    assert found["same"] is False
    assert run("a.snn", "b.snn", "--data", "x.npz", "--strict", "--json").exit_code == 1


@pytest.mark.parametrize(
    ("words", "says", "code"),
    [
        (("a.snn",), "Give B", 2),
        (("a.snn", "a.pt2", "--stream"), "step by step", 1),
        (("a.snn", "ann.pt"), "not a compiled network", 1),
        (("a.snn", "gone.snn"), "does not exist", 1),
        (("x.npz", "a.snn"), "Error:", 1),
    ],
)
def test_what_cannot_be_compared_is_said(files, words, says, code):
    result = run(*words, "--data", "x.npz")
    assert result.exit_code == code
    assert says in result.output
    assert "Traceback" not in result.output
