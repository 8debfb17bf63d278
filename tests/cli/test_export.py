"""One network in several files: `snnc export`, and several `-o` of `snnc compile`."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import snnc
from snnc.cli import main

SHAPE = (1, 4, 4)


def run(*words, code=0):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)).eval()


@pytest.fixture(scope="module")
def x():
    return torch.rand(8, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, x):
    monkeypatch.chdir(tmp_path)
    net = snnc.compile(model(), T=2, recipe="opi", calibration=x)
    snnc.save(net, "net.snn")


def test_every_form_is_that_of_compile(x):
    pytest.importorskip("nir")
    found = json.loads(run("export", "net.snn", "-o", "a.onnx", "-o", "a.nir", "-o", "a.snn", "--json").stdout)
    assert [one["backend"] for one in found["files"]] == ["onnx", "nir", "torch"]
    assert (found["out"], found["backend"]) == ("a.onnx", "onnx")
    net = snnc.load("net.snn")
    assert torch.equal(snnc.load("a.onnx")(x), net(x))
    assert torch.equal(snnc.load("a.snn")(x), net(x))
    snnc.save(net, "direct.nir")
    assert Path("a.nir").stat().st_size == Path("direct.nir").stat().st_size


def test_compile_writes_several(x):
    torch.save(model(), "model.pt")
    np.savez("x.npz", x=x.numpy())
    words = ("compile", "model.pt", "--calib", "x.npz", "--recipe", "opi", "-o", "a.snn", "-o", "a.onnx")
    rehearsal = run(*words, "--dry-run")
    assert "It would write a.snn (torch), a.onnx (onnx)." in rehearsal.stdout
    assert not Path("a.snn").exists()
    result = run(*words, "--save-config", "run.toml")
    assert "Wrote a.snn" in result.stdout
    assert "Wrote a.onnx" in result.stdout
    assert torch.equal(snnc.load("a.onnx")(x), snnc.load("a.snn")(x))
    text = Path("run.toml").read_text()
    assert 'a.onnx" =' not in text  # what it writes is no input
    Path("run.toml").write_text(text.replace('out = ["a.snn", "a.onnx"]', 'out = "b.snn"'))  # as older versions wrote
    run("compile", "--config", "run.toml")
    assert torch.equal(snnc.load("b.snn")(x), snnc.load("a.snn")(x))


def test_a_shape_that_nothing_told(x):
    snnc.save(snnc.compile(model(), T=2, recipe="data-free"), "free.snn")
    refused = run("export", "free.snn", "-o", "free.pt2", code=1)
    assert "--input-shape" in refused.stderr
    run("export", "free.snn", "-o", "free.pt2", "--input-shape", "1,4,4")
    assert torch.equal(snnc.load("free.pt2")(x), snnc.load("free.snn")(x))
    assert "does not go through" in run("export", "free.snn", "-o", "b.pt2", "--input-shape", "2,4,4", code=1).stderr
    assert "1,4,4, not 2,4,4" in run("export", "net.snn", "-o", "b.pt2", "--input-shape", "2,4,4", code=1).stderr


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (("-o", "a.foo"), 1, "that of no form"),
        (("-o", "a.foo", "--backend", "onnx"), 0, "Wrote a.foo"),
        (("-o", "a.onnx", "-o", "b.onnx", "--backend", "onnx"), 2, "for one file"),
        (("-o", "a.onnx", "-o", "./a.onnx"), 1, "written twice"),
        (("-o", "net.snn"), 1, "would overwrite"),
        (("-o", "a.pt2", "--single-output"), 2, "ONNX files"),
        ((), 2, "--out"),
    ],
)
def test_files_that_make_no_sense(words, code, why):
    assert why in " ".join(run("export", "net.snn", *words, code=code).output.split())


def test_what_was_written_before_a_form_is_refused(x):
    pytest.importorskip("nir")
    pipeline = snnc.recipe("opi").pipeline.insert(snnc.PASSES["use-signed-neurons"]())
    snnc.save(snnc.compile(model(), T=2, recipe=pipeline, calibration=x), "signed.snn")
    refused = run("export", "signed.snn", "-o", "a.onnx", "-o", "a.nir", code=1)
    assert "Written before this failed: a.onnx." in refused.stderr
    assert "NIR has no neuron like it" in refused.stderr
    assert Path("a.onnx").exists()
    assert not Path("a.nir").exists()
    assert "cannot be looked into" in run("export", "a.onnx", "-o", "b.pt2", code=1).stderr
