"""The commands that write, on a small network: for `tests.killing`."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch
from click.testing import CliRunner
from torch import nn

import snnc
from snnc.cli import main
from snnc.files import load_torch
from snnc.tune.checkpoint import FORMAT
from tests.fuzz_seeds import SHAPE, net
from tests.killing import Command

COMPILE = ("compile", "ann.pt", "--calib", "data.npz", "--T", "4", "--recipe", "opi")


def prepare() -> None:
    """What the commands read, in the current folder."""
    torch.save(net(), "ann.pt")
    torch.save(nn.Sequential(*(nn.AvgPool2d(2) if isinstance(m, nn.MaxPool2d) else m for m in net())), "flat.pt")
    x = np.random.default_rng(0).normal(size=(40, *SHAPE)).astype("float32")
    np.savez("data.npz", x=x, y=net()(torch.from_numpy(x)).argmax(1).numpy())
    snnc.save(snnc.compile(net(), 4, "opi", x), "ready.snn")


def cli(*words: str) -> Callable[[], None]:
    """Runs a command line in this process."""

    def run() -> None:
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0, result.output

    return run


def page(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert text.rstrip().endswith("</html>")


def nir_file(path: Path) -> None:
    with h5py.File(path) as file:
        assert file["node"]["nodes"]


def saved_run(path: Path) -> None:
    assert tomllib.loads(path.read_text(encoding="utf-8"))["command"]


def checkpoint(path: Path) -> None:
    content = load_torch(path)
    assert content["format"] == FORMAT
    assert {"network", "optimiser", "progress"} <= set(content)


def rows(path: Path) -> None:
    assert json.loads(path.read_text())


TUNE = ("tune", "ann.pt", "--data", "data.npz", "--T", "4", "--epochs", "2", "--batch", "8", "--save-seconds", "0")
COMMANDS = {
    command.name: command
    for command in (
        Command("compile -o .snn", cli(*COMPILE, "-o", "out.snn"), {"out.snn": snnc.load}),
        Command("compile -o .onnx", cli(*COMPILE, "-o", "out.onnx"), {"out.onnx": snnc.load}),
        Command("compile -o .nir", cli("compile", "flat.pt", *COMPILE[2:], "-o", "out.nir"), {"out.nir": nir_file}),
        Command("compile -o .pt2", cli(*COMPILE, "-o", "out.pt2"), {"out.pt2": snnc.load}),
        Command("compile --save-config", cli(*COMPILE, "-o", "out.snn", "--save-config", "run.toml"),
                {"out.snn": snnc.load, "run.toml": saved_run}),
        Command("compile --max-drop", cli(*COMPILE, "--max-drop", "50", "--holdout", "8", "--calib-samples", "16",
                                          "-o", "out.snn"), {"out.snn": snnc.load}),
        Command("tune", cli(*TUNE, "-o", "out.snn"), {"out.snn": snnc.load, "out.snn.checkpoint": checkpoint},
                removed="out.snn.checkpoint"),
        Command("report", cli("report", "ready.snn", "--ann", "ann.pt", "--data", "data.npz", "-o", "out.html"),
                {"out.html": page}),
        Command("compare", cli("compare", "ready.snn", "--ann", "ann.pt", "--data", "data.npz", "-o", "out.html"),
                {"out.html": page}),
    )
}  # fmt: skip
