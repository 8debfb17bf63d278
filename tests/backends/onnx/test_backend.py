"""A spiking network as an ONNX file: the same spikes to the bit, a size that T does not change, and no snnc needed."""

import json
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import onnx
import onnx.inliner
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

import snnc
from snnc.backends import OnnxModel
from snnc.backends.onnx.writer import model
from snnc.errors import SnncError
from snnc.files.emitted import KEY
from snnc.ir.dialect import ClipQuant, Grid
from snnc.ir.graph import GraphBuilder, Stage, calls
from snnc.ir.neurons import IF, Neuron, SignedIF
from snnc.ir.temporal import Decode, Encode, RunningMax
from snnc.networks.network import Network
from snnc.networks.onnx import OnnxNetwork
from snnc.passes import CalibrateOffset, InsertNeurons, UseGradedNeurons
from snnc.passes.pipeline import Context, Pipeline
from tests.backends.test_backends import MODELS, network
from tests.nets import NETS, Dyadic, sample, spiking

ANYWHERE = """
import sys
sys.modules["snnc"] = sys.modules["torch"] = sys.modules["onnx"] = None
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
given = numpy.load(sys.argv[2])
found = {f"{name}.{out.name}": value for name in given.files
         for out, value in zip(session.get_outputs(), session.run(None, {"x": given[name]}))}
numpy.savez(sys.argv[3], **found)
"""


def emitted(net):
    """The network as it comes out of a file, without the file."""
    made = model(net)
    return OnnxNetwork(made, json.loads(made.metadata_props[0].value))


def layers(net, x):
    """Every neuron layer's output in torch, `[T * B, ...]`; a runner may take the samples, or the steps, in rounds."""
    seen = {name: [] for name, _ in net.neurons()}

    def observe(node, value, steps):
        if node.name in seen:
            seen[node.name].append(value.unflatten(0, (steps, -1)))

    net.chunk = 10**6
    net.readout(x, observe=observe)
    whole = {name: all(len(v) == net.T for v in values) for name, values in seen.items()}
    return {name: torch.cat(values, 1 if whole[name] else 0).flatten(0, 1) for name, values in seen.items()}


def assert_same(net, x, steps=(0, 1, 3)):
    """Logits, the readout after steps whose mean is dyadic, and every spike."""
    there = emitted(net)
    assert torch.equal(there(x), net(x))
    assert torch.equal(there.readout(x)[[*steps]], net.readout(x)[[*steps]])
    found, wanted = there.spikes(x), layers(net, x)
    assert list(found) == list(wanted)
    for name in found:
        assert torch.equal(found[name], wanted[name]), name
    assert there.latency == net.latency
    assert there.T == net.T


@pytest.mark.parametrize("name", [name for name in NETS if name != "bare"])  # a softmax is not dyadic
def test_every_net(name):
    net, shape = network(name)
    assert_same(net, sample(shape, 3))


@pytest.mark.parametrize("T", [1, 8, 32])
def test_any_number_of_steps(T):
    net, shape = network("residual", T=T)
    assert_same(net, sample(shape, 2), sorted({0, T // 2 - 1, T - 1} - {-1}))


@pytest.mark.parametrize("name", ["maxpool", "skip", "dense"])
@pytest.mark.parametrize("kind", MODELS)
def test_every_model(kind, name):
    """With a max pool, and with values that pass time by."""
    net, shape = network(name, T=4, then=MODELS[kind], units=3)
    assert_same(net, sample(shape, 3))


@pytest.mark.parametrize("cos", [CalibrateOffset(rho=2, eps=2**-8), CalibrateOffset(rho=6, eps=2**-8)], ids=str)
def test_offset_calibration(cos):
    net, shape = network("residual", T=4, cos=cos)
    assert_same(net, sample(shape, 3))


def test_it_runs_where_nothing_of_this_is_installed(tmp_path):
    net, shape = network("maxpool")
    inputs = {f"b{batch}": sample(shape, batch) for batch in (1, 3, 7)}
    path = snnc.save(net, tmp_path / "net.onnx")
    np.savez(tmp_path / "in.npz", **{k: v.numpy() for k, v in inputs.items()})
    subprocess.run([sys.executable, "-c", ANYWHERE, path, tmp_path / "in.npz", tmp_path / "out.npz"], check=True)
    found = np.load(tmp_path / "out.npz")
    for name, x in inputs.items():
        assert torch.equal(torch.from_numpy(found[f"{name}.logits"]), net(x))
        assert torch.equal(torch.from_numpy(found[f"{name}.by_step"])[[0, 1, 3]], net.readout(x)[[0, 1, 3]])


def test_the_file_reads_as_a_spiking_network():
    net, _ = network("maxpool")
    text = onnx.printer.to_text(model(net))
    assert 'relu1 = snnc.IF <T: int = 4> (conv1_encode, "relu1.theta", "relu1.v0")' in " ".join(text.split())
    assert "pool1 = snnc.RunningMax <T: int = 4> (relu1)" in text
    assert "by_step" in text
    onnx.checker.check_model(onnx.parser.parse_model(text), full_check=True)


def test_each_neuron_layer_is_one_node_under_its_name():
    net, _ = network("residual", then=UseGradedNeurons(2), units=3)
    nodes = {node.name: node for node in model(net).graph.node}
    for name, neuron in net.neurons():
        assert nodes[name].op_type == type(neuron).__name__
        attributes = {a.name: a.i for a in nodes[name].attribute}
        assert attributes == {"T": neuron.T, "bits": 2}


def test_nothing_grows_with_T():
    """Neither nodes nor functions; what differs are the digits of T."""
    few, many = (model(network("residual", T=T)[0]) for T in (8, 256))
    assert [n.op_type for n in few.graph.node] == [n.op_type for n in many.graph.node]
    assert few.functions == many.functions
    assert abs(few.ByteSize() - many.ByteSize()) < 0.01 * few.ByteSize()


def test_versions_and_history():
    net, shape = network("conv")
    net.info["records"] = [{"name": "insert-neurons"}]
    made = model(net)
    assert (made.ir_version, [(o.domain, o.version) for o in made.opset_import]) == (8, [("", 17), ("snnc", 1)])
    history = json.loads(next(p.value for p in made.metadata_props if p.key == KEY))
    assert history["recipe"] == "test"
    assert history["records"] == net.info["records"]
    assert history["latency"]["T"] == 4
    assert "2 neuron layers" in made.doc_string
    assert "4 steps (streaming)" in made.doc_string
    assert [d.dim_param or d.dim_value for d in made.graph.input[0].type.tensor_type.shape.dim] == ["batch", *shape]


def test_one_output_where_one_is_wanted(tmp_path):
    net, shape = network("skip")
    x = sample(shape, 3)
    loaded = snnc.load(snnc.save(net, tmp_path / "net.onnx", OnnxModel(anytime=False)))
    assert [output.name for output in loaded.model.graph.output] == ["logits"]
    assert torch.equal(loaded(x), net(x))
    assert loaded.spikes(x).keys() == dict(net.neurons()).keys()
    with pytest.raises(SnncError, match="readout after the last step only"):
        loaded.readout(x)


@pytest.mark.parametrize("kind", [IF, SignedIF])
def test_a_fixed_point_network(kind):
    """Integers of eight bits, spikes that are counts, an input on a grid: the same whatever it is made of."""
    generator = torch.Generator().manual_seed(0)

    def whole(module):
        for value in module.parameters():
            value.data = torch.randint(-127, 128, value.shape, generator=generator).float()
        return module

    def neuron(theta):
        return kind(8, torch.tensor(theta)[:, None, None], torch.tensor(theta)[:, None, None] // 2, unit=True)

    b = GraphBuilder()
    x = b.call("grid", Grid(torch.tensor([31.7, 40.0, 29.3])[:, None, None], -127, 127), b.input())
    x = b.call("encode", Encode(8), b.call("conv1", whole(nn.Conv2d(3, 4, 3, padding=1)), x))
    x = b.call("relu1", neuron([20011.0, 9973.0, 30011.0, 14009.0]), x)
    x = b.call("pool", RunningMax(8, nn.MaxPool2d(2)), x)
    x = b.call("relu2", neuron([101.0, 163.0, 127.0, 211.0]), b.call("conv2", whole(nn.Conv2d(4, 4, 3, padding=1)), x))
    x = b.call("fc", whole(nn.Linear(64, 4)), b.call("flatten", nn.Flatten(), x))
    graph = b.finish(b.call("decode", Decode(8, 8), x))
    net = Network(graph, {"input_shape": [3, 8, 8]}, stage=Stage.FIXED)
    x = torch.randn(16, 3, 8, 8, generator=generator)
    assert_same(net, x, (0, 1, 3, 7))
    there = emitted(net)
    assert there.stage is Stage.FIXED
    assert set(there.spikes(x)["relu2"].unique().tolist()) == ({0, 1} if kind is IF else {-1, 0, 1})


@pytest.mark.parametrize("name", ["maxpool", "dense"])
def test_other_engines(name):
    """The reference evaluator of ONNX, and a runtime to which the functions are written out."""
    net, shape = network(name)
    x, made = sample(shape, 2), model(net)
    logits, by_step = map(torch.from_numpy, ReferenceEvaluator(made).run(None, {"x": x.numpy()}))
    assert torch.equal(logits, net(x))
    assert torch.equal(by_step[[0, 1, 3]], net.readout(x)[[0, 1, 3]])
    flat = onnx.inliner.inline_local_functions(made)
    assert not flat.functions
    assert torch.equal(OnnxNetwork(flat, {"latency": asdict(net.latency), "stage": "SPIKING"})(x), net(x))


def test_names_that_are_taken():
    """Nodes called as the inputs and outputs of the file are."""
    b = Dyadic(0)
    x = b.call("logits", nn.Linear(6, 8), b.input("data"))
    x = b.call("x", nn.Linear(8, 8), b.call("relu", ClipQuant(torch.tensor(2.0), 4), x))
    graph = b.finish(b.call("out", nn.Linear(8, 4), b.call("by_step", ClipQuant(torch.tensor(1.0), 4), x)))
    made = Pipeline((InsertNeurons(),)).run(graph, Context(T=4), Stage.QUANTIZED).graph
    assert_same(Network(made, {"input_shape": [6]}), sample((6,), 3))


def test_other_precisions_are_refused():
    net, _ = network("conv")
    with pytest.raises(SnncError, match=r"writes float32, and the network is torch\.float64"):
        model(net.double())


def test_what_no_file_can_hold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("snnc.backends.onnx.writer._LIMIT", 1000)
    with pytest.raises(SnncError, match="larger than the 2 GB"):
        snnc.save(network("conv")[0], tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_an_input_of_unknown_shape():
    graph, shape = spiking("residual")
    net = Network(graph, {"input_shape": None, "input_rank": 4})
    assert_same(net, sample(shape, 2))
    with pytest.raises(SnncError, match="needs the dimensions of the input"):
        model(Network(graph, {}))


def test_time_is_not_walked_while_writing(monkeypatch):
    """Which is why a long T costs nothing."""
    net, _ = network("maxpool", T=4)

    def walked(*_):
        raise AssertionError("a step was taken")

    for cls in {type(module) for _, module in calls(net.graph, Neuron)}:
        monkeypatch.setattr(cls, "step", walked)
    model(net)
