"""An emitted ONNX file, loaded: it behaves as a network does, runs in bounded memory, and is not trusted."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto, helper, parser

import snnc
from snnc.cli import main
from snnc.errors import DataError, LoadError, SnncError
from snnc.files.emitted import is_emitted, is_emitted_file
from snnc.networks import onnx as ort
from snnc.networks.onnx import OnnxNetwork, load_emitted, quiet_options
from tests.backends.test_backends import network
from tests.nets import sample


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    net, _ = network("maxpool")
    return snnc.save(net, tmp_path_factory.mktemp("onnx") / "net.onnx")


def test_it_behaves_as_a_network(file):
    net, shape = network("maxpool")
    loaded = snnc.load(file, chunk=8)
    x = sample(shape, 7)
    assert isinstance(loaded, OnnxNetwork)
    assert torch.equal(loaded(x), net(x))
    assert loaded.readout(x).shape == (4, 7, 4)
    assert (loaded.T, loaded.latency, loaded.chunk) == (4, net.latency, 8)
    assert loaded.info["recipe"] == "test"
    assert not list(loaded.parameters())


def test_rows_in_memory_are_bounded(file, monkeypatch):
    loaded = snnc.load(file, chunk=9)
    sizes = []
    run = OnnxNetwork._run
    monkeypatch.setattr(OnnxNetwork, "_run", lambda net, s, x, names: sizes.append(len(x)) or run(net, s, x, names))
    x = sample((3, 8, 8), 7)
    loaded.readout(x)
    assert sizes == [2, 2, 2, 1]  # of 4 steps each
    loaded.chunk = 1
    loaded(x[:2])
    assert sizes[4:] == [1, 1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x: x[:, :2], "takes"),
        (lambda x: x.long(), "not floating-point"),
        (lambda x: x[:0], "empty batch"),
        (lambda x: x * float("nan"), "NaN or infinity"),
        (lambda x: (x.double() + 1) * 1e300, "NaN or infinity"),  # a number, but not in float32
    ],
)
def test_input_is_checked(file, change, reason):
    loaded = snnc.load(file)
    for call in (loaded, loaded.readout, loaded.spikes):
        with pytest.raises(DataError, match=reason):
            call(change(sample((3, 8, 8), 2)))


def test_an_input_that_only_the_runtime_refuses():
    net, _ = network("maxpool")
    net.info.update(input_shape=None, input_rank=4)
    with pytest.raises(SnncError, match="needs the shape"):  # its second pool rounds up
        snnc.backends.onnx.writer.model(net)
    net, _ = network("conv")
    net.info.update(input_shape=None, input_rank=4)
    made = snnc.backends.onnx.writer.model(net)
    loaded = OnnxNetwork(made, json.loads(made.metadata_props[0].value))
    with pytest.raises(DataError, match=r"An input of shape \(2, 3, 9, 9\) does not go through the network: "):
        loaded(sample((3, 9, 9), 2))


def test_results_that_are_not_numbers_are_told(tmp_path):
    net, _ = network("skip")
    net.graph.short.weight *= 1e38
    loaded = snnc.load(snnc.save(net, tmp_path / "net.onnx"))
    with pytest.raises(DataError, match="output is NaN or infinite"):
        loaded(sample((6,), 2) * 100)


def test_options_of_the_session(file):
    options = quiet_options(threads=3)
    assert options.intra_op_num_threads == 3
    assert quiet_options().intra_op_num_threads == torch.get_num_threads()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    loaded = snnc.load(file, options=options)
    found = loaded.session.get_session_options()
    assert found.intra_op_num_threads == 3
    assert found.graph_optimization_level == options.graph_optimization_level
    x = sample((3, 8, 8), 2)
    assert torch.equal(loaded(x), snnc.load(file)(x))


# Devices


def test_without_the_gpu_build(file):
    with pytest.raises(SnncError, match="This onnxruntime runs on the CPU only") as caught:
        snnc.load(file, device="cuda")
    assert "snnc[gpu]" in caught.value.hint
    with pytest.raises(SnncError, match="run on cpu or cuda, not on 'mps'"):
        snnc.load(file, device="mps")
    with pytest.raises(SnncError, match="'gpu' is no device"):
        snnc.load(file, device="gpu")
    net, _ = network("conv")
    with pytest.raises(SnncError, match="torch finds no device 'cuda' here"):
        snnc.load(snnc.save(net, file.with_suffix(".snn")), device="cuda")
    for move in (lambda: net.to("cuda"), net.cuda, lambda: net.cuda(0), lambda: net.to("gpu")):
        with pytest.raises(SnncError, match=r"torch finds no device '(cuda|cuda:0|gpu)' here \(\w") as caught:
            move()
        assert caught.value.hint == "net.to('cpu'), where every network runs"
    assert net.to("cpu") is net


def test_with_the_gpu_build_on_the_gpu_or_not_at_all(file, monkeypatch):
    """No GPU is needed for this: the runtime is one that says it has CUDA, and then starts without it."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    asked = []

    def session(content, options, providers):
        asked.append(providers)
        return SimpleNamespace(get_providers=lambda: started)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    started = ["CPUExecutionProvider"]
    with pytest.raises(SnncError, match="could not start CUDA"):
        snnc.load(file, device="cuda")
    started = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert snnc.load(file, device="cuda:1").device == torch.device("cuda:1")
    assert asked[-1][0] == ("CUDAExecutionProvider", {"device_id": 1, "use_tf32": 0})


def test_tensors_are_bound_and_not_copied(file, monkeypatch):
    """What holds for the CPU here holds for a GPU: addresses of torch's memory are what the session is given."""
    loaded = snnc.load(file)
    given = {}

    class Binding:
        def bind_input(self, name, device, index, kind, shape, address):
            given[name] = (device, index, shape, address)

        def bind_output(self, name, device, index, kind, shape, address):
            given[name] = (device, index, shape, address)

        def synchronize_outputs(self):
            given["synchronised"] = True

    session = SimpleNamespace(
        io_binding=Binding,
        get_inputs=loaded.session.get_inputs,
        get_outputs=loaded.session.get_outputs,
        run_with_iobinding=lambda binding: None,
    )
    x = sample((3, 8, 8), 2)
    monkeypatch.setattr(torch, "empty", torch.zeros)
    (out,) = loaded._run(session, x, ["by_step"])
    assert given["x"] == ("cpu", 0, (2, 3, 8, 8), x.data_ptr())
    assert given["by_step"] == ("cpu", 0, [4, 2, 4], out.data_ptr())
    assert given["synchronised"]


# Files that are not to be trusted


def altered(file, tmp_path, change):
    made = onnx.load(file)
    change(made)
    path = tmp_path / "altered.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def history(change):
    def apply(made):
        found = json.loads(made.metadata_props[0].value)
        change(found)
        made.metadata_props[0].value = json.dumps(found)

    return apply


def outside(tensor):
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def of_function(made):
    return next(n for f in made.functions for n in f.node if n.op_type == "Constant").attribute[0]


def add_function(made, text):
    made.functions.append(parser.parse_function(f'<domain: "snnc", opset_import: ["" : 17, "snnc" : 1]> {text}'))
    made.graph.node.append(helper.make_node("Own", ["x"], ["own"], domain="snnc"))


def many(made):
    """Twenty functions, each of which calls the next ten times."""
    for k in range(20):
        lines = "\n".join(f"y{i} = snnc.F{k + 1} (x)" for i in range(10)) if k < 19 else "y0 = Neg (x)"
        text = f'<domain: "snnc", opset_import: ["" : 17, "snnc" : 1]> F{k} (x) => (y0) {{ {lines} }}'
        made.functions.append(parser.parse_function(text))
    made.graph.node.append(helper.make_node("F0", ["x"], ["much"], domain="snnc"))


HOSTILE = {
    "weights elsewhere": (lambda m: outside(m.graph.initializer[0]), "keeps data outside of the file"),
    "constants elsewhere": (lambda m: outside(of_function(m).t), "keeps data outside of the file"),
    "another domain": (lambda m: m.opset_import.append(helper.make_opsetid("com.microsoft", 1)), "'com.microsoft'"),
    "another domain in a function": (
        lambda m: m.functions[0].opset_import.append(helper.make_opsetid("ai.onnx.ml", 3)),
        "uses operators of 'ai.onnx.ml'",
    ),
    "an operator of another domain": (
        lambda m: m.graph.node.append(helper.make_node("Relu", ["x"], ["r"], domain="x")),
        "calls 'Relu'",
    ),
    "an operator": (lambda m: m.graph.node.append(helper.make_node("Loop", ["x"], ["r"])), "calls 'Loop', which"),
    "no such function": (lambda m: m.functions.pop(), "which snnc never writes"),
    "a function of that name twice": (lambda m: m.functions.append(m.functions[0]), "names that are not theirs"),
    "endless": (lambda m: add_function(m, "Own (x) => (y) { y = snnc.Own (x) }"), "'Own' calls itself"),
    "endless in a loop": (
        lambda m: add_function(
            m,
            "Own (x) => (y) { y = Scan <num_scan_inputs: int = 1, body = step (float[] i) => (float[] o) "
            "{ o = snnc.Own (i) }> (x) }",
        ),
        "'Own' calls itself",
    ),
    "too much": (many, "stand for too many operations"),
    "training": (lambda m: m.training_info.add(), "more than a network"),
    "sparse": (lambda m: m.graph.sparse_initializer.add(), "more than a network"),
    "no JSON": (lambda m: setattr(m.metadata_props[0], "value", "{"), "no JSON"),
    "deep JSON": (lambda m: setattr(m.metadata_props[0], "value", "[" * 10**5), "no JSON"),
    "long JSON": (lambda m: setattr(m.metadata_props[0], "value", " " * 2**23), "too long"),
    "no history": (lambda m: setattr(m.metadata_props[0], "value", "[]"), "no latency"),
    "no latency": (history(lambda h: h.update(latency=3)), "no latency"),
    "half a latency": (history(lambda h: h["latency"].pop("rho")), "latency is incomplete"),
    "no steps": (history(lambda h: h["latency"].update(T=0)), "not in whole steps"),
    "very many steps": (history(lambda h: h["latency"].update(T=10**30)), "not in whole steps"),
    "steps that are text": (history(lambda h: h["latency"].update(T="4")), "not in whole steps"),
    "another stage": (history(lambda h: h.update(stage="ANN")), "not that of a spiking network"),
    "no shape": (history(lambda h: h.update(input_shape=[3, -8, 8])), "input has no shape"),
    "no rank": (history(lambda h: h.update(input_rank="4")), "no number of dimensions"),
    "no range": (history(lambda h: h.update(input_range=[0, float("nan")])), "input has no range"),
    "no proof": (history(lambda h: h.update(proof=[{"name": "a", "module": "b", "tf32": 3}])), "proof is not one"),
    "no records": (history(lambda h: h.update(records=[{"name": 3}])), "records are not those"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_refused(kind, file, tmp_path, monkeypatch):
    """In one sentence, and before onnxruntime has seen anything of them."""
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *a, **k: pytest.fail("it went to onnxruntime"))
    change, reason = HOSTILE[kind]
    with pytest.raises(LoadError, match=reason) as caught:
        snnc.load(altered(file, tmp_path, change))
    assert "\n" not in caught.value.message
    assert caught.value.message.endswith(".")


def test_what_onnxruntime_refuses_is_one_sentence(file, tmp_path, capfd):
    def cycle(made):
        made.graph.node[0].input[0] = made.graph.node[-1].output[0]

    for change in (cycle, lambda m: m.graph.initializer.pop(), lambda m: m.graph.initializer[0].dims.append(7)):
        with pytest.raises(LoadError, match="onnxruntime does not take the model: ") as caught:
            snnc.load(altered(file, tmp_path, change))
        assert "\n" not in caught.value.message
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("length", [3, 40, 2000, -1])
def test_files_that_are_cut_short(length, file, tmp_path):
    path = tmp_path / "cut.onnx"
    path.write_bytes(file.read_bytes()[:length])
    with pytest.raises(LoadError, match=r"cut short or damaged|not a spiking network"):
        snnc.load(path)


def test_other_models_are_not_spiking_networks(file, tmp_path):
    plain = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[B, 3] x) => (float[B, 3] y) {y = Relu (x)}'
    )
    path = tmp_path / "ann.onnx"
    path.write_bytes(plain.SerializeToString())
    with pytest.raises(LoadError, match="an ONNX model, but not a spiking network"):
        load_emitted(path)
    assert not is_emitted(plain)
    assert not is_emitted_file(path)
    assert not is_emitted_file(Path(__file__))
    assert is_emitted_file(file)
    with pytest.raises(LoadError, match="cannot be read"):
        load_emitted(tmp_path / "none.onnx")


def test_large_files_are_not_read(file, monkeypatch):
    monkeypatch.setattr("snnc.files.onnxfile.LIMIT", 1000)
    with pytest.raises(LoadError, match="exceeds the 2 GB"):
        load_emitted(file)


# The command line


@pytest.fixture
def folder(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.onnx").write_bytes(file.read_bytes())
    x = sample((3, 8, 8), 12)
    np.savez("data.npz", x=x.numpy(), y=snnc.load(file)(x).argmax(1).numpy())


def run(*words, code=0):
    result = CliRunner().invoke(main, list(map(str, words)))
    assert result.exit_code == code, result.output
    return result


def test_eval_inspect_and_what_needs_a_graph(folder):
    found = json.loads(run("eval", "net.onnx", "--data", "data.npz", "--threads", 1, "--json").stdout)
    assert found["accuracy"][-1] == 100
    assert len(found["accuracy"]) == 4
    assert found["rates"] == {}
    assert found["runtime"] == "ONNX file"
    assert "An ONNX file runs without its spikes" in run("eval", "net.onnx", "--data", "data.npz").stdout
    for runtime in ("reference", "fast"):
        refused = run("eval", "net.onnx", "--data", "data.npz", "--runtime", runtime, code=2).stderr
        assert f"--runtime {runtime} is for graph files" in refused
    run("report", "net.onnx", "--data", "data.npz")
    assert "An ONNX file runs, but" in Path("net.html").read_text()
    shown = run("inspect", "net.onnx").stdout
    assert "Recipe: test" in shown
    assert "An ONNX file: it runs" in shown
    assert json.loads(run("inspect", "net.onnx", "--json").stdout)["latency"]["T"] == 4
    assert "CPU only" in run("eval", "net.onnx", "--data", "data.npz", "--device", "cuda", code=1).stderr
    for verb in ("compile", "check"):
        assert "a spiking network already" in run(verb, "net.onnx", code=1).stderr
    refused = run("explain", "net.onnx", "--ann", "net.onnx", "--data", "data.npz", code=1).stderr
    assert "already" in refused or "cannot be looked into" in refused
    assert "An ONNX file cannot be trained" in run("tune", "net.onnx", "--data", "data.npz", code=1).stderr


def test_compile_writes_one_or_two_outputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    nn = torch.nn
    torch.save(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval(), "ann.pt")
    run("compile", "ann.pt", "--input-shape", "1,8,8", "-o", "two.onnx")
    run("compile", "ann.pt", "--input-shape", "1,8,8", "--backend", "onnx", "--single-output")
    assert len(onnx.load("two.onnx").graph.output) == 2
    assert len(onnx.load("ann.onnx").graph.output) == 1
    run("compile", "ann.pt", "--single-output", code=2)


def test_importing_snnc_does_not_import_onnx():
    code = "import snnc, sys; assert not {'onnx', 'onnxruntime'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_devices_by_name():
    assert ort.providers(torch.device("cpu")) == ["CPUExecutionProvider"]
