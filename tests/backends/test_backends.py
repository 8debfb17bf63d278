"""What is written runs in a fresh process, the exported program without snnc, and gives the same to the bit."""

import subprocess
import sys
import warnings

import pytest
import torch

import snnc
from snnc.backends import BACKENDS
from snnc.errors import SnncError, WriteError
from snnc.networks.network import Network
from snnc.passes import (
    AverageInput,
    CalibrateOffset,
    DelayReadout,
    MaskResidual,
    UseGradedNeurons,
    UseSignedNeurons,
    WaitForInput,
)
from tests.nets import NETS, sample, spiking

WITHOUT_SNNC = """
import sys
sys.modules["snnc"] = None
import torch
module = torch.export.load(sys.argv[1]).module()
torch.save([module(x) for x in torch.load(sys.argv[2])], sys.argv[3])
"""
WITH_SNNC = """
import sys, torch, snnc
net = snnc.load(sys.argv[1])
torch.save([(net(x), net.readout(x)) for x in torch.load(sys.argv[2])], sys.argv[3])
"""


def network(name, T=4, **options):
    graph, shape = spiking(name, T, **options)
    return Network(graph, {"input_shape": list(shape), "recipe": "test"}), shape


@pytest.mark.parametrize(("suffix", "program"), [
    (".snn", WITH_SNNC), (".pt2", WITHOUT_SNNC), (".pt2", WITH_SNNC), (".onnx", WITH_SNNC)
])  # fmt: skip
def test_in_a_fresh_process(suffix, program, tmp_path):
    net, shape = network("maxpool")
    inputs = [sample(shape, batch) for batch in (1, 3, 7)]
    path = snnc.save(net, tmp_path / f"net{suffix}")
    torch.save(inputs, tmp_path / "in.pt")
    subprocess.run([sys.executable, "-c", program, path, tmp_path / "in.pt", tmp_path / "out.pt"], check=True)
    for x, (logits, by_step) in zip(inputs, torch.load(tmp_path / "out.pt"), strict=True):
        assert torch.equal(logits, net(x))
        assert torch.equal(by_step[[0, 1, 3]], net.readout(x)[[0, 1, 3]])


@pytest.mark.parametrize("name", ["residual", "dense", "skip", "double"])
def test_exported_programs_of_joins(name, tmp_path):
    for options in ({}, {"cos": CalibrateOffset(rho=6)}):
        net, shape = network(name, T=2, **options)
        loaded = snnc.load(snnc.save(net, tmp_path / "net.pt2"))
        x = sample(shape, 3)
        with torch.no_grad():
            assert torch.equal(loaded.readout(x), net.readout(x))
        assert loaded.latency == net.latency


def test_an_exported_program_holds_weights_that_are_parts_of_others(tmp_path):
    net, shape = network("mlp", T=2)
    for number, module in enumerate(m for m in net.graph.modules() if isinstance(m, torch.nn.Linear)):
        whole = torch.cat([torch.zeros_like(module.weight), module.weight.data]).t().contiguous()
        module.weight.data = whole.t()[len(module.weight) :]
        assert number or not module.weight.is_contiguous()
    x = sample(shape, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        path = snnc.save(net, tmp_path / "net.pt2")
    assert torch.equal(snnc.load(path)(x), net(x))


def test_an_exported_program_of_a_network_that_ends_in_spikes(tmp_path):
    x = torch.rand(5, 3, generator=torch.Generator().manual_seed(0))
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU())
    net = snnc.compile(model, 3, "data-free", input_shape=(3,))
    loaded = snnc.load(snnc.save(net, tmp_path / "net.pt2"))
    assert torch.equal(loaded.readout(x), net.readout(x))
    assert torch.equal(loaded(x[:1]), net(x[:1]))


def test_what_torch_does_not_export_is_a_sentence(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("Constraints violated (batch)!\n  - and more")

    net, _ = network("mlp", T=2)
    monkeypatch.setattr(torch.export, "export", refuse)
    with pytest.raises(WriteError, match=r"^torch\.export does not take the network \(Constraints violated") as caught:
        snnc.save(net, tmp_path / "net.pt2")
    assert caught.value.hint == "the backend torch or onnx"
    assert list(tmp_path.iterdir()) == []


MODELS = {
    "signed": UseSignedNeurons(),
    "graded": UseGradedNeurons(2),
    "waiting": WaitForInput(2),
    "average": AverageInput(),
    "mask": MaskResidual(3),
    "delayed": DelayReadout(),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("suffix", [".snn", ".pt2"])
def test_every_model_is_written(model, suffix, tmp_path):
    """With a max pool and a value that passes time by, in any batch, and with its latency."""
    for name in ("maxpool", "skip"):
        net, shape = network(name, T=4, then=MODELS[model], units=3)
        loaded = snnc.load(snnc.save(net, tmp_path / f"net{suffix}"))
        for batch in (1, 3):
            x = sample(shape, batch)
            with torch.no_grad():
                assert torch.equal(loaded(x), net(x))
                assert torch.equal(loaded.readout(x)[[0, 1, 3]], net.readout(x)[[0, 1, 3]])
        assert loaded.latency == net.latency


def test_a_failed_write_leaves_what_was_there(tmp_path):
    net, _ = network("conv")
    path = tmp_path / "net.pt2"
    path.write_text("before")
    net.info["input_shape"] = None
    with pytest.raises(SnncError, match="shape of the input"):
        snnc.save(net, path)
    assert [p.name for p in tmp_path.iterdir()] == ["net.pt2"]
    assert path.read_text() == "before"


def test_every_backend_says_what_it_is():
    for name, backend in BACKENDS.items():
        assert backend.name == name
        assert backend.suffix.startswith(".")
        assert backend.summary


@pytest.mark.parametrize("name", NETS)
def test_graph_files_keep_everything(name, tmp_path):
    net, shape = network(name)
    loaded = snnc.load(snnc.save(net, tmp_path / "net.snn"))
    assert str(loaded.graph.graph) == str(net.graph.graph)
    assert loaded.info == net.info
    with torch.no_grad():
        assert torch.equal(loaded(sample(shape, 2)), net(sample(shape, 2)))
