"""Accuracy of every recipe on published networks: network x recipe x T, beside the ANN.

    python benchmarks/accuracy.py --data FOLDER --out docs/results/accuracy.json          # measures, resumes
    python benchmarks/accuracy.py --out docs/results/accuracy.json --render docs/results/accuracy.md \\
        --peer docs/results/spikingjelly.json                                                # writes the tables

FOLDER holds `zoo.py` (functions that return trained networks) and `common.py` (loaders of the data sets); both
are imported from there. Calibration uses training images only, without labels. Each measured cell is written at once,
so that an interrupted run goes on where it stopped.

`baseline` and `opi-max` do not depend on T: one run at the largest T gives every column, as the any-time readout. The
other recipes are compiled for each T, with their options as they stand (`--quick`). Rows that are recipes with options
stand in `CHANGES`. Rows of `best` are calibrated on twice as many samples as the others, and those of `best-graded` on
eight times as many.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import snnc
from snnc.passes import WaitForInput
from snnc.passes.pipeline import Pipeline
from snnc.recipes import Recipe, names, recipe

ANYTIME = ("opi-max", "baseline")
ALL_T = (1, 2, 4, 8, 16, 32, 64)
BATCH = 50
BEGIN, END = "<!-- accuracy: begin -->\n", "<!-- accuracy: end -->\n"


# Rows that are recipes with options; the part before the first dash is the recipe.
CHANGES: dict[str, Callable[[Pipeline], Pipeline]] = {
    "opi-max": lambda p: p.set("scale-thresholds", rule="max", per="layer"),
    **{
        f"opi-{rule}": lambda p, r=rule: p.set("set-initial-potential", rule=r)
        for rule in ("zero", "uniform", "normal")
    },
    "cos-4": lambda p: p.set("calibrate-offset", rho=4).set("quantize-activations", levels="T"),
    "cos-T": lambda p: p.set("calibrate-offset", rho="T").set("quantize-activations", levels="T", least_levels=1),
    **{f"opi-wait-{wait}": lambda p, w=wait: p.insert(WaitForInput(w)) for wait in (1, 2, 3)},
    "best-plain": lambda p: p.set("even-currents", gain=0.0),
    "best-wait-1": lambda p: p.insert(WaitForInput(1), before="even-currents"),
}


@dataclass(frozen=True)
class Task:
    """A network with the data to calibrate and to score it.

    Attributes:
        data: name of the data set.
        model: builds the trained network.
        recipes: what to run.
    """

    data: str
    model: Callable[[ModuleType], nn.Module]
    recipes: tuple[str, ...]


RELU = ("data-free", "baseline", "opi-max", "opi", "cos", "cos-4", "cos-T", "best-plain", "best", "best-signed")
OTHERS = (
    "opi-zero",
    "opi-uniform",
    "opi-normal",
    "signed",
    "graded",
    "opi-wait-1",
    "opi-wait-2",
    "opi-wait-3",
    "asg",
    "srp",
)
PAST = ("best-wait-1", "best-graded")
TRAINED = ("qcfs", "cos", "cos-4", "cos-T", "best-plain", "best", "best-signed")
TASKS: dict[str, Task] = {
    "resnet20": Task("cifar-imagenet", lambda z: z.akamaster(20, "resnet20-12fca82f.th"), RELU + OTHERS + PAST),
    "resnet56": Task("cifar-imagenet", lambda z: z.akamaster(56, "resnet56-4bfd9763.th"), RELU),
    "densenet": Task("cifar-own", lambda z: z.jasonwei(), RELU),
    "mlperf-resnet8": Task("cifar-raw", lambda z: z.mlperf_resnet8(), RELU),
    "ds-cnn": Task("kws", lambda z: z.kws(), RELU),
    **{f"cq-{k}": Task("mnist", lambda z, k=k: z.cq(k, True), TRAINED) for k in ("plain", "dense", "mobilev1")},
    **{f"cq-{k}": Task("mnist", lambda z, k=k: z.cq(k, True), TRAINED) for k in ("mobilev2", "basic", "bottle")},
    **{f"cq-{k}-clip": Task("mnist", lambda z, k=k: z.cq(k, False), RELU) for k in ("plain", "dense", "mobilev1")},
    **{f"cq-{k}-clip": Task("mnist", lambda z, k=k: z.cq(k, False), RELU) for k in ("mobilev2", "basic", "bottle")},
}


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("SNNC_DATA"), help="folder with zoo.py and common.py"
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file with every measured cell")
    parser.add_argument("--networks", default=",".join(TASKS))
    parser.add_argument("--recipes", default="", help="only these, of what a network is run with")
    parser.add_argument("--T", default=",".join(map(str, ALL_T)))
    parser.add_argument("--limit", type=int, default=0, help="first so many test samples; 0: all")
    parser.add_argument("--calibration", type=int, default=512, help="training samples for calibration")
    parser.add_argument("--render", type=Path, help="Markdown file whose tables are replaced; measures nothing")
    parser.add_argument("--peer", type=Path, action="append", default=[], help="JSON of a peer, for --render")
    args = parser.parse_args()
    if args.render:
        cells = read_cells(args.out) + [cell for path in args.peer for cell in peer_cells(path)]
        before, rest = args.render.read_text().split(BEGIN)
        _, after = rest.split(END)
        args.render.write_text(before + BEGIN + render(cells) + END + after)
        return
    only = set(filter(None, args.recipes.split(",")))
    for name in args.networks.split(","):
        task = TASKS[name]
        recipes = [r for r in task.recipes if not only or r in only]
        measure(args, name, task, recipes, sorted(map(int, args.T.split(","))))


def measure(args: argparse.Namespace, name: str, task: Task, recipes: list[str], steps: list[int]) -> None:
    """Runs the missing cells of one network."""
    model = folder_module(args.data, "zoo")
    net = task.model(model)
    calibration, x, y = load(args.data, task.data, max(args.calibration * share(which) for which in recipes))
    if args.limit:
        x, y = x[: args.limit], y[: args.limit]
    ann = score(lambda batch: net(batch)[None], x, y)[0]
    for which in recipes:
        for group in [steps] if which in ANYTIME else [[T] for T in steps]:
            known = {(c["network"], c["recipe"], c["T"]): c["samples"] for c in read_cells(args.out)}
            if all(known.get((name, which, T), 0) >= len(y) for T in group):
                continue
            start = time.time()
            samples = args.calibration * share(which)
            snn = snnc.compile(net, group[-1], chosen(which), calibration, samples=samples, quick=True)
            accuracy = score(snn.readout, x, y)
            seconds = time.time() - start
            for T in group:
                cell = {
                    "network": name,
                    "recipe": which,
                    "T": T,
                    "samples": len(y),
                    "accuracy": accuracy[T - 1],
                    "ann": ann,
                    "calibration": min(samples, len(calibration)),
                    "latency": str(snn.latency) if group[-1] == T else f"{T} steps (streaming)",
                    "seconds": round(seconds, 1),
                    **provenance(),
                }
                write_cell(args.out, cell)
                print(
                    f"{name} {which} T={T}: {accuracy[T - 1]:.2f} (ANN {ann:.2f}, {len(y)} samples, {seconds:.0f} s)",
                    flush=True,
                )


def share(which: str) -> int:
    """How many times as many samples as others calibrate a row: those that fit weights need more."""
    return {"best-graded": 8}.get(which, 2 if which.startswith("best") else 1)


def chosen(which: str) -> Recipe:
    """The recipe behind a column name."""
    base = recipe(which.split("-")[0]) if which not in names() else recipe(which)
    change = CHANGES.get(which)
    return replace(base.settled(change(base.pipeline)), name=which) if change else base


@torch.no_grad()
def score(run: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> list[float]:
    """Top-1 in percent after each step, for a function from a batch to `[T, B, classes]`."""
    hits: Any = 0
    for batch, label in zip(x.split(BATCH), y.split(BATCH), strict=True):
        hits = hits + (run(batch).argmax(-1) == label).sum(1)
    return [100 * int(h) / len(y) for h in hits]


def folder_module(folder: Path, name: str) -> ModuleType:
    """A module of the data folder, under a name of its own."""
    sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location(f"data_{name}", Path(folder) / f"{name}.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"{folder} has no {name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load(folder: Path, name: str, samples: int) -> tuple[Tensor, Tensor, Tensor]:
    """Calibration input (training images), test input and test labels of a data set, normalised."""
    common = folder_module(folder, "common")
    if name == "kws":  # one set only: every fifth sample calibrates, the others are scored
        x, y = common.load_kws()
        x = torch.tensor((x.astype(np.float32) - common.KWS_ZERO) * common.KWS_SCALE)
        held = torch.arange(len(x)) % 5 == 0
        return x[held], x[~held], torch.tensor(y).long()[~held]
    if name == "mnist":
        train, _ = common.load_idx("mnist", "train")
        test, y = common.load_idx("mnist", "test")
        train, test = train[:, None], test[:, None]
    else:
        path = Path(folder) / "cifar10" / "data_batch_1.med.xz"
        train, _ = common.cifar_unpack(path.read_bytes())
        test, y = common.load_cifar10("test")
    prepare = PREPARE[name]
    return prepare(train[:samples]), prepare(test), torch.tensor(y).long()


def normaliser(mean: tuple[float, ...], std: tuple[float, ...], scale: float = 255) -> Callable[[np.ndarray], Tensor]:
    """From uint8 images to the input that a network was trained on."""
    m, s = (torch.tensor(v).reshape(-1, 1, 1) for v in (mean, std))
    return lambda x: (torch.tensor(x).float() / scale - m) / s


PREPARE = {
    "cifar-imagenet": normaliser((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar-own": normaliser((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar-raw": normaliser((0.0,), (1.0,), 1),
    "mnist": normaliser((0.0,), (1.0,)),
}


def provenance() -> dict[str, str]:
    """Where and when a cell was measured."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    threads = torch.get_num_threads()
    cores = f"{platform.machine()} CPU, {threads} thread{'s'[: threads > 1]}, torch {torch.__version__}"
    return {"commit": commit.stdout.strip(), "machine": cores, "date": time.strftime("%Y-%m-%d")}


def read_cells(path: Path) -> list[dict[str, Any]]:
    """Every cell measured so far."""
    return json.loads(path.read_text()) if path.exists() else []


def peer_cells(path: Path) -> list[dict[str, Any]]:
    """The cells of a peer, from the JSON that `peer_spikingjelly.py` writes."""
    found = json.loads(path.read_text())
    rows = {**found["recipes"], "best": found["best"]}
    return [
        {
            "network": found["network"],
            "recipe": f"SpikingJelly {found['versions']['spikingjelly']} {row}",
            "T": int(T),
            "samples": found["n"],
            "accuracy": accuracy,
            "ann": found["ann"],
            "latency": f"{T} steps (streaming)",
        }
        for row, by_step in rows.items()
        for T, accuracy in by_step.items()
    ]


def write_cell(path: Path, cell: dict[str, Any]) -> None:
    """Adds a cell, in the place of one with fewer samples; the file is written whole."""
    key = ("network", "recipe", "T")
    cells = [c for c in read_cells(path) if any(c[k] != cell[k] for k in key)]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps([*cells, cell], indent=1) + "\n")
    temporary.replace(path)


def render(cells: list[dict[str, Any]]) -> str:
    """One Markdown table a network; a cell on fewer samples than the network's most is marked."""
    lines = []
    for name, task in TASKS.items():
        mine = sorted((c for c in cells if c["network"] == name), key=lambda c: place(c["recipe"], task.recipes))
        if not mine:
            continue
        most = max(c["samples"] for c in mine)
        columns = sorted({c["T"] for c in mine})
        ann = next(c["ann"] for c in mine if c["samples"] == most)
        lines += ["", f"### {name}: ANN {ann:.2f} % ({most:,} test samples)", ""]
        head = len(lines)
        lines += ["| recipe | " + " | ".join(f"T={T}" for T in columns) + " | latency at the largest T |"]
        lines += ["|---|" + "---|" * (len(columns) + 1)]
        rows = {which: {c["T"]: c for c in mine if c["recipe"] == which} for which in (c["recipe"] for c in mine)}
        spelled = {
            which: f"| `{which}` | "
            + " | ".join(spell(row[T], most) if T in row else "" for T in columns)
            + f" | {row[max(row)]['latency']} |"
            for which, row in rows.items()
        }
        others = [line for which, line in spelled.items() if folded(which)]
        lines += [line for which, line in spelled.items() if not folded(which)]
        few = sorted({(c["samples"], c["ann"]) for c in mine if c["samples"] < most})
        lines += [
            "",
            *(f"(n): first n test samples, on which the ANN has {a:.2f} % at n = {n}." for n, a in few),
        ]
        if others:
            title = '<details markdown="1"><summary>Every setting of the peer</summary>'
            lines += ["", title, "", *lines[head : head + 2], *others, "", "</details>"]
    return "\n".join(lines) + "\n"


def folded(which: str) -> bool:
    """Whether a row is a setting of a peer that is not its best."""
    return which.startswith("SpikingJelly") and not which.endswith(" best")


def place(which: str, recipes: tuple[str, ...]) -> int:
    """Where a row stands: in the order of the recipes, and peers behind them as they come."""
    return recipes.index(which) if which in recipes else len(recipes)


def spell(cell: dict[str, Any], most: int) -> str:
    """A cell of a table."""
    mark = "" if cell["samples"] == most else f" ({cell['samples']})"
    return f"{cell['accuracy']:.2f}{mark}"


if __name__ == "__main__":
    main()
