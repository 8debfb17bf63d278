"""Accuracy against latency, spikes and energy, for the recipes beside each other.

    python benchmarks/frontier.py --data FOLDER --out docs/results/frontier.json --network ds-cnn --T 4,8
    python benchmarks/frontier.py --out docs/results/frontier.json --render docs/results/frontier.md

FOLDER and networks are those of `accuracy.py`. Networks are compiled with options as they stand (`quick`), and measured
by `snnc.compare`. Each row is written at once, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import accuracy

import snnc

RECIPES = ("opi", "best", "best-signed", "best-graded", "cos")
BEGIN, END = "<!-- frontier: begin -->\n", "<!-- frontier: end -->\n"
HEAD = (
    "| recipe | T | latency, steps | schedule | accuracy % | early exit at 0.9 | spikes | operations | energy |",
    "|---|---|---|---|---|---|---|---|---|",
)


def main() -> None:
    """Parses the command line, and measures or renders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("SNNC_DATA"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--network", default="ds-cnn")
    parser.add_argument("--recipes", default=",".join(RECIPES))
    parser.add_argument("--T", default="4,8")
    parser.add_argument("--limit", type=int, default=0, help="first so many test samples; 0: all")
    parser.add_argument("--calibration", type=int, default=512)
    parser.add_argument("--render", type=Path, help="Markdown file whose tables are replaced; measures nothing")
    args = parser.parse_args()
    if args.render:
        before, rest = args.render.read_text().split(BEGIN)
        text = "\n".join(tables(accuracy.read_cells(args.out)))
        args.render.write_text(before + BEGIN + text + "\n" + END + rest.split(END)[1])
        return
    task = accuracy.TASKS[args.network]
    ann = task.model(accuracy.folder_module(args.data, "zoo"))
    calibration, x, y = accuracy.load(args.data, task.data, args.calibration)
    x, y = x[: args.limit or len(x)], y[: args.limit or len(y)]
    for T in map(int, args.T.split(",")):
        for name in args.recipes.split(","):
            key = (args.network, name, T)
            known = [(c["network"], c["recipe"], c["T"]) for c in accuracy.read_cells(args.out)]
            if key not in known:
                cell = {
                    **dict(zip(("network", "recipe", "T"), key, strict=True)),
                    **row(ann, T, name, calibration, x, y),
                }
                accuracy.write_cell(args.out, cell)
                print(line(cell), flush=True)


def row(ann: Any, T: int, name: str, calibration: Any, x: Any, y: Any) -> dict[str, Any]:
    """One network, compiled and measured."""
    start = time.time()
    net = snnc.compile(ann, T, name, calibration, samples=len(calibration), quick=True)
    (found,) = snnc.compare({name: net}, (x, y), ann, samples=len(x)).rows
    one = found.evaluation
    return {
        "samples": one.samples,
        "ann": one.ann_accuracy,
        "accuracy": one.accuracy[-1],
        "steps": one.latency.steps,
        "schedule": one.latency.schedule,
        "early": None if found.early is None else [found.early.accuracy, found.early.steps],
        "spikes": None if found.rate is None else found.rate / 100 * net.T,
        "operations": one.operations,
        "energy": found.energy,
        "calibration": len(calibration),
        "seconds": round(time.time() - start, 1),
        **accuracy.provenance(),
    }


def tables(cells: list[dict[str, Any]]) -> list[str]:
    """One table a network, from few steps of latency to many."""
    lines = []
    for network in dict.fromkeys(c["network"] for c in cells):
        mine = sorted((c for c in cells if c["network"] == network), key=lambda c: (c["steps"], c["accuracy"]))
        lines += ["", f"### {network}: ANN {mine[0]['ann']:.2f} % ({mine[0]['samples']:,} test samples)", "", *HEAD]
        lines += map(line, mine)
    return lines


def line(c: dict[str, Any]) -> str:
    """A row of a table."""
    early = "" if c["early"] is None else f"{c['early'][0]:.2f} at {c['early'][1]:.2f} steps"
    cells = (
        f"`{c['recipe']}`", c["T"], c["steps"], c["schedule"], f"{c['accuracy']:.2f}", early,
        f"{c['spikes']:.2f}", f"{c['operations'] / 1e6:.1f} M", f"{c['energy']:.3f}",
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    main()
