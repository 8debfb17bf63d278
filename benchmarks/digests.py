"""Digests of what snnc gives: networks of every recipe, their ONNX and `.pt2` files, and what `eval` prints.

    python benchmarks/digests.py digests.json            writes them
    python benchmarks/digests.py --against digests.json  compares with an earlier version's

A change that moves code, and is meant to change nothing, is held to it: run it before and after, on one machine.
Uses public names alone, so that both versions run the same script.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import onnx
import torch
from torch import Tensor, nn

import snnc
from snnc.cli import main as command
from snnc.recipes import names

T = 4
RECIPES = [
    "asg",
    "baseline",
    "best",
    "best-graded",
    "best-signed",
    "cos",
    "data-free",
    "graded",
    "low-latency",
    "low-latency-streaming",
    "opi",
    "qcfs",
    "signed",
    "srp",
]


class Residual(nn.Module):
    """Convolutions with batch norm, a strided residual block, and an average pool."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1)
        )
        self.side = nn.Conv2d(8, 12, 1, stride=2)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(self.body(x) + self.side(x))
        return self.head(x.mean((2, 3)))


def networks() -> Iterator[tuple[str, nn.Module]]:
    """Three small networks with random weights."""
    torch.manual_seed(0)
    yield "residual", Residual().eval()
    yield (
        "pools",
        nn.Sequential(
            nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU6(),
            nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 5),
        ).eval(),
    )  # fmt: skip
    yield "dense", nn.Sequential(nn.Flatten(), nn.Linear(128, 24), nn.ReLU(), nn.Linear(24, 5)).eval()


def digest(*parts: Any) -> str:
    """SHA-256 of tensors, bytes and texts, 16 digits of it."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            part = f"{part.dtype}{tuple(part.shape)}".encode() + part.detach().contiguous().numpy().tobytes()
        total.update(part if isinstance(part, bytes) else str(part).encode())
    return total.hexdigest()[:16]


def of_graph(graph: torch.fx.GraphModule) -> str:
    """Nodes, their inputs, their modules as they print, and every tensor."""
    rows = [(n.op, n.name, str(n.args)) for n in graph.graph.nodes]
    modules = [(name, repr(module)) for name, module in graph.named_modules() if name]
    tensors = [part for name, value in sorted(graph.state_dict().items()) for part in (name, value)]
    return digest(rows, modules, *tensors)


def of_program(path: Path) -> str:
    """Nodes and tensors of an exported program: the file itself holds names of source files."""
    program = torch.export.load(path)
    rows = [(n.op, n.name, str(n.target), str(n.args)) for n in program.graph.nodes]
    tensors = [part for name, value in sorted(program.state_dict.items()) for part in (name, value)]
    return digest(rows, *tensors)


def of_onnx(path: Path) -> str:
    """An ONNX file, without the times in its history."""
    model = onnx.load(path)
    for entry in model.metadata_props:
        entry.value = re.sub(r'"seconds": [0-9.e-]+', "", entry.value)
    return digest(model.SerializeToString())


def evaluated(net: Path, data: Path) -> str:
    """What `eval --json` prints, without its times."""
    result = click.testing.CliRunner().invoke(command, ["eval", str(net), "--data", str(data), "--json"])
    if result.exit_code:
        raise SystemExit(result.output)

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: without(v) for k, v in value.items() if "second" not in k and k not in ("snn", "data")}
        return [without(v) for v in value] if isinstance(value, list) else value

    return digest(json.dumps(without(json.loads(result.stdout)), sort_keys=True))


def rows(folder: Path) -> Iterator[tuple[str, str]]:
    """A name and a digest for each thing that a version gives."""
    images = torch.rand(96, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(96) % 5
    data = folder / "data.npz"
    np.savez(data, x=images.numpy(), y=labels.numpy())
    for name, model in list(networks()):  # all before any is compiled, which may draw random numbers
        for recipe in (one for one in RECIPES if one in names()):  # an earlier version lacks some
            for fixed in (False, True):
                label = f"{name} {recipe}{' fixed' if fixed else ''}"
                pipeline = snnc.recipe(recipe).pipeline
                if fixed:
                    pipeline = pipeline.insert(snnc.PASSES["fixed-point"](), after=pipeline.passes[-1].name)
                try:
                    net = snnc.compile(model, T=T, recipe=pipeline, calibration=images)
                except snnc.SnncError as error:
                    yield label, f"refused: {error.message}"
                    continue
                yield f"{label} graph", of_graph(net.graph)
                yield f"{label} output", digest(net.readout(images[:8]))
                path = snnc.save(net, folder / "net.snn")
                yield f"{label} eval", evaluated(path, data)
                yield f"{label} onnx", of_onnx(snnc.save(net, folder / "net.onnx"))
                if recipe in ("best", "cos"):
                    yield f"{label} pt2", of_program(snnc.save(net, folder / "net.pt2"))


def main() -> int:
    """Writes or compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--against", action="store_true", help="compare with FILE in the place of writing it")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = dict(rows(Path(folder)))
    if not given.against:
        given.file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"{len(found)} digests")
        return 0
    before = json.loads(given.file.read_text(encoding="utf-8"))
    differing = [name for name in sorted(before.keys() | found.keys()) if before.get(name) != found.get(name)]
    print(*(f"{name}: {before.get(name)} before, {found.get(name)} now" for name in differing), sep="\n")
    print(f"{len(found)} digests, {len(differing)} differ")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
