"""Recipes on pictures of ImageNet: SqueezeNet, 1,000 classes, 500 pictures calibrate and 500 others are scored.

    python benchmarks/imagenet.py --data FOLDER --out docs/results/imagenet.json --T 4,8        # measures, resumes
    python benchmarks/imagenet.py --out docs/results/imagenet.json --render PAGE.md             # between its two marks

FOLDER holds `zoo.py` and `common.py`, as for `accuracy.py`. Options are as they stand (`--quick`).
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import accuracy
import numpy as np
import torch
from torch import Tensor

import snnc

RECIPES = ("best-signed", "best-graded", "best", "graded", "signed", "opi", "cos", "asg", "srp", "baseline")
NETWORK = "squeezenet"
BATCH = 20
MEAN = (104.0, 117.0, 123.0)  # of blue, green and red
BEGIN, END = "<!-- imagenet: begin -->\n", "<!-- imagenet: end -->\n"
HEAD = (
    "| recipe | T | latency, steps | top-1 % | top-5 % | class of the ANN % | seconds |",
    "|---|---|---|---|---|---|---|",
)


def main() -> None:
    """Parses the command line, and measures or renders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("SNNC_DATA"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipes", default=",".join(RECIPES))
    parser.add_argument("--T", default="4,8")
    parser.add_argument("--limit", type=int, default=500, help="first so many pictures are scored")
    parser.add_argument("--calibration", type=int, default=500)
    parser.add_argument("--render", type=Path, help="Markdown file whose table is replaced; measures nothing")
    args = parser.parse_args()
    if args.render:
        before, rest = args.render.read_text().split(BEGIN)
        text = "\n".join(table(accuracy.read_cells(args.out)))
        args.render.write_text(before + BEGIN + text + "\n" + END + rest.split(END)[1])
        return
    ann = accuracy.folder_module(args.data, "zoo").squeezenet_dc()
    given, _ = pictures(args.data, "calibration", args.calibration)
    x, y = pictures(args.data, "test", args.limit)
    scores = outputs(ann, x)
    for T in map(int, args.T.split(",")):
        for name in args.recipes.split(","):
            known = [(c["recipe"], c["T"]) for c in accuracy.read_cells(args.out) if c["samples"] >= len(y)]
            if (name, T) in known:
                continue
            start = time.time()
            net = snnc.compile(ann, T, name, given, samples=len(given), quick=True)
            cell = {
                "network": NETWORK,
                "recipe": name,
                "T": T,
                "samples": len(y),
                "calibration": len(given),
                "steps": net.latency.steps,
                **measured(outputs(net, x), scores, y),
                "ann": top(scores, y, 1),
                "ann_top5": top(scores, y, 5),
                "seconds": round(time.time() - start, 1),
                **accuracy.provenance(),
            }
            accuracy.write_cell(args.out, cell)
            print(line(cell), flush=True)


def pictures(folder: Path, split: str, limit: int) -> tuple[Tensor, Tensor]:
    """Pictures as the network was trained on, and their labels."""
    x, y = accuracy.folder_module(folder, "common").load_imagenet1000(split)
    x = torch.tensor(x[:limit, ::-1].astype(np.float32)) - torch.tensor(MEAN).reshape(-1, 1, 1)
    return x, torch.tensor(y[:limit])


@torch.no_grad()
def outputs(net: Any, x: Tensor) -> Tensor:
    """Scores of the classes."""
    return torch.cat([net(part) for part in x.split(BATCH)])


def measured(found: Tensor, ann: Tensor, y: Tensor) -> dict[str, float]:
    """How good scores are, in percent."""
    same = 100 * float((found.argmax(1) == ann.argmax(1)).float().mean())
    return {"accuracy": top(found, y, 1), "top5": top(found, y, 5), "same": round(same, 2)}


def top(found: Tensor, y: Tensor, k: int) -> float:
    """Percentage of samples whose class is among the k with the highest scores."""
    return round(100 * float((found.topk(k, 1).indices == y[:, None]).any(1).float().mean()), 2)


def table(cells: list[dict[str, Any]]) -> list[str]:
    """The table, T by T, the best first."""
    first = cells[0]
    ann = f"ANN: {first['ann']:.1f} % top-1, {first['ann_top5']:.1f} % top-5 ({first['samples']} pictures)"
    return ["", ann, "", *HEAD, *map(line, sorted(cells, key=lambda c: (c["T"], -c["top5"])))]


def line(c: dict[str, Any]) -> str:
    """A row of the table."""
    figures = (f"{c[key]:.1f}" for key in ("accuracy", "top5", "same"))
    return "| " + " | ".join((f"`{c['recipe']}`", str(c["T"]), str(c["steps"]), *figures, f"{c['seconds']:.0f}")) + " |"


if __name__ == "__main__":
    main()
