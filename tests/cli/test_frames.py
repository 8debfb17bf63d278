"""Networks over frames on the command line: every command that takes them, and what they say where data do not fit."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import snnc
from snnc.cli import main
from snnc.files import load_model


def snn(*words: str, code: int = 0) -> str:
    found = CliRunner().invoke(main, list(words))
    assert found.exit_code == code, (found.stdout, found.stderr, found.exception)
    return found.stdout + found.stderr if code else found.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A network as a module, an exported program and ONNX; films of 4 frames, as frames and as events."""
    here = tmp_path_factory.mktemp("frames")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()
    torch.save(net, here / "net.pt")
    x = torch.zeros(2, 2, 6, 6)
    torch.export.save(torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim("b")},)), here / "net.pt2")
    random = np.random.default_rng(0)
    film, y = random.random((70, 4, 2, 6, 6), dtype=np.float32), random.integers(0, 3, 70)
    np.savez(here / "film.npz", x=film, y=y)
    np.savez(here / "turned.npz", x=film.swapaxes(0, 1), y=y)
    np.savez(here / "still.npz", x=film[:, 0], y=y)
    events = np.stack([np.arange(2100) % 30 * 10, *random.integers(0, 6, (2, 2100)), random.integers(0, 2, 2100)], 1)
    np.savez(here / "events.npz", events=events, first=np.arange(70) * 30, y=y, size=np.array([6, 6]))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        snn("compile", "net.pt", "--frames", "mean", "--calib", "film.npz", "--recipe", "opi", "-o", "film.snn")
        snn("compile", "net.pt", "--frames", "sum", "--T", "5", "--calib", "events.npz", "--bins", "count", "--recipe",
            "opi", "-o", "seen.snn", "-o", "seen.onnx")  # fmt: skip
    return here


@pytest.fixture(autouse=True)
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)


def test_compile_takes_the_layout_that_it_is_told():
    told = json.loads(snn("compile", "net.pt", "--frames", "mean", "--time-first", "--calib", "turned.npz", "--recipe",
                          "opi", "-o", "turned.snn", "--json"))  # fmt: skip
    assert told["frames"] == {"of": "mean", "T": 4}
    assert told["input_shape"] == [4, 2, 6, 6]
    one, two = snnc.load("turned.snn"), snnc.load("film.snn")
    x = torch.rand(3, 4, 2, 6, 6)
    assert torch.equal(one(x), two(x))


@pytest.mark.parametrize("ann", ["net.pt", "net.pt2"])
def test_eval_compares_with_the_network_on_the_mean(ann):
    found = json.loads(snn("eval", "film.snn", "--data", "film.npz", "--ann", ann, "--json"))
    with np.load("film.npz") as data:
        x, y = torch.from_numpy(data["x"]), torch.from_numpy(data["y"])
    wanted = load_model(Path("net.pt"))(x.mean(1)).argmax(1)
    assert found["ann_accuracy"] == pytest.approx(100 * float((wanted == y).double().mean()))
    assert len(found["accuracy"]) == 4
    assert found["agreement"][-1] > 80


def test_every_command_takes_them():
    assert "The same: no spike" in snn("verify", "film.snn", "--stream", "--data", "film.npz", "--limit", "8")
    assert "Error of each layer" in snn("explain", "film.snn", "--data", "film.npz", "--ann", "net.pt", "--limit", "8")
    assert "Wrote" in snn("report", "film.snn", "--data", "film.npz", "--ann", "net.pt", "--limit", "8", "-o", "r.html")
    told = snn(
        "compare", "film.snn", "--recipes", "opi", "--calib", "film.npz", "--data", "film.npz", "--ann", "net.pt"
    )
    assert "opi" in told
    told = snn("inspect", "film.snn")
    assert "Frames: 4 a sample, one at each step; the network was trained on their mean" in told


def test_events_are_binned_as_in_the_file():
    assert "Events: binned by count, equal parts, on 6,6 pixels" in snn("inspect", "seen.snn")
    for name in ("seen.snn", "seen.onnx"):
        told = json.loads(snn("eval", name, "--data", "events.npz", "--json", "-q"))
        assert told["data"].endswith("5 frames of 6 x 6 pixels by count, equal parts)")
        assert not any("binned" in note for note in told["notes"])
    told = json.loads(snn("eval", "seen.snn", "--data", "events.npz", "--bins", "time", "--json", "-q"))
    assert any("--bins count" in note for note in told["notes"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("compile", "net.pt", "--frames", "mean", "--calib", "still.npz"), "so they hold no frames"),
        (("compile", "net.pt", "--calib", "film.npz"), "--frames (frames= in Python)"),
        (("compile", "net.pt", "--calib", "events.npz"), "holds events"),
        (
            ("compile", "net.pt", "--frames", "mean", "--T", "8", "--calib", "film.npz"),
            "have 4 frames a sample, and T is 8",
        ),
        (("compile", "net.pt", "--frames", "mean", "--calib", "film.npz", "--recipe", "cos"), "'calibrate-offset'"),
        (("eval", "film.snn", "--data", "still.npz"), "holds no frames, and the network takes 4"),
        (("eval", "film.snn", "--data", "turned.npz"), "--time-first"),
        (("eval", "film.snn", "--data", "events.npz", "--bins", "often"), "no way to bin events"),
    ],
)
def test_what_does_not_fit(words, said):
    assert said in snn(*words, code=1)


def test_options_that_do_not_go_together():
    told = snn("compile", "net.pt", "--frames", "mean", "--max-drop", "1", "--calib", "film.npz", code=2)
    assert "frames fix it" in told
    told = snn("compile", "net.pt", "--calib", "still.npz", "--time-first", code=2)
    assert "for samples that are frames" in told
