"""What fixed point costs: accuracy of a published network in float and in integers, and the proof on all of them.

    python benchmarks/fixed_point.py accuracy --data FOLDER --out docs/results/fixed_point.json
    python benchmarks/fixed_point.py proof --data FOLDER --out docs/results/fixed_point_proof.json

`accuracy`: ResNet-20 on CIFAR-10, recipe `best`, T = 8, in float and with weights of 8, 6 and 4 bits; all variants
start from one network. `proof`: every network of FOLDER/zoo.py at T = 1, 4, 8, 32; the largest integer of each, and
the spikes that differ between float32 and float64 on some images, which must be none. Whatever is done is written at
once, and a cell of `proof` not done again.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accuracy import TASKS, folder_module, load, provenance
from torch import Tensor, fx

import snnc
from snnc.capture import capture
from snnc.ir.dialect import Grid
from snnc.ir.graph import calls
from snnc.networks.network import Network
from snnc.passes import FixedPoint
from snnc.passes.pipeline import Context, Pipeline
from snnc.recipes import recipe
from snnc.runtime.runner import Runner

BATCH = 50
STEPS = (1, 4, 8, 32)


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["accuracy", "proof"])
    parser.add_argument("--data", type=Path, default=os.environ.get("SNNC_DATA"), help="folder with zoo.py, common.py")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.add_argument("--limit", type=int, default=0, help="first so many test samples; 0: all")
    parser.add_argument("--bits", default="0,8,4,6", help="0 is float")
    parser.add_argument("--recipe", default="best", help="of `accuracy`; `proof` takes opi, or qcfs for trained bounds")
    parser.add_argument("--images", type=int, default=32, help="of `proof`")
    parser.add_argument("--calibration", type=int, default=512, help="training images of `accuracy`")
    parser.add_argument("--networks", default=",".join(TASKS))
    parser.add_argument("--T", default=",".join(map(str, STEPS)))
    args = parser.parse_args()
    torch.set_num_threads(1)
    accuracy(args) if args.what == "accuracy" else proof(args)


def accuracy(args: argparse.Namespace) -> None:
    """Scores all variants of one network."""
    calibration, x, y = load(args.data, "cifar-imagenet", args.calibration)
    if args.limit:
        x, y = x[: args.limit], y[: args.limit]
    net = folder_module(args.data, "zoo").akamaster(20, "resnet20-12fca82f.th")
    shape = tuple(x.shape[1:])
    context = Context(T=8, calibration=list(calibration.split(64)), input_shape=shape)
    start = time.time()
    made = recipe(args.recipe).pipeline.run(capture(net, shape), context)
    print(f"compiled in {time.time() - start:.0f} s", flush=True)
    variants: dict[int, Network] = {}
    for bits in map(int, args.bits.split(",")):
        graph, stage, notes, start = made.graph, made.stage, [], time.time()
        if bits:
            result = Pipeline((FixedPoint(bits=bits),)).run(made.graph, context, made.stage)
            graph, stage, notes = result.graph, result.stage, list(result.records[0].notes)
        variants[bits] = Network(graph, {}, stage=stage)
        print(f"{bits} bits: {time.time() - start:.0f} s. {'; '.join(notes)}", flush=True)
    right, seen = dict.fromkeys(variants, 0), 0
    agree = dict.fromkeys(variants, 0)
    for batch, labels in zip(x.split(BATCH), y.split(BATCH), strict=True):
        classes = {bits: one(batch).argmax(1) for bits, one in variants.items()}
        seen += len(labels)
        for bits, found in classes.items():
            right[bits] += int((found == labels).sum())
            agree[bits] += int((found == next(iter(classes.values()))).sum())
        if seen % 500 == 0 or seen == len(y):
            rows = [
                {"bits": b, "accuracy": 100 * right[b] / seen, "agreement with the first": 100 * agree[b] / seen}
                for b in variants
            ]
            write(args.out, {"network": "resnet20", "recipe": args.recipe, "T": 8, "samples": seen, "rows": rows})
            print(seen, [(r["bits"], round(r["accuracy"], 2)) for r in rows], flush=True)


def proof(args: argparse.Namespace) -> None:
    """Compiles every network and compares the two precisions."""
    done = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
    for name in args.networks.split(","):
        task = TASKS[name]
        calibration, x, _ = load(args.data, task.data, 64)
        net = task.model(folder_module(args.data, "zoo"))
        for T in map(int, args.T.split(",")):
            if any((row["network"], row["T"]) == (name, T) for row in done):
                continue
            base = recipe("qcfs" if "qcfs" in task.recipes else "opi")
            chosen = replace(base, pipeline=base.pipeline.insert(FixedPoint(samples=args.images)))
            snn = snnc.compile(net, T, chosen, calibration, samples=args.images)
            largest = max(snn.info["proof"], key=lambda row: row["bound"])
            spikes, differ = compared(snn.graph, x[: args.images])
            row = {"network": name, "recipe": base.name, "T": T, "largest": largest["bound"], "at": largest["name"]}
            row |= {
                "images": args.images,
                "spikes": spikes,
                "differ": differ,
                "notes": snn.info["records"][-1]["notes"],
            }
            done.append(row)
            write(args.out, {"rows": done})
            print({k: v for k, v in row.items() if k != "notes"}, flush=True)


@torch.no_grad()
def compared(graph: fx.GraphModule, x: Tensor) -> tuple[int, int]:
    """Values within time that are not zero, and those that differ between float32 and float64."""
    double = copy.deepcopy(graph).double()
    grid = next(module for _, module in calls(graph, Grid))
    next(module for _, module in calls(double, Grid)).scale = torch.tensor(1.0, dtype=torch.float64)
    spikes = differ = 0
    for part in x.split(8):
        seen: dict[str, Tensor] = {}
        Runner(graph).run(part, observe=lambda node, value, _, seen=seen: seen.update({node.name: value}))

        def see(node: fx.Node, value: Tensor, _: int, seen: dict[str, Tensor] = seen) -> None:
            nonlocal spikes, differ
            single = seen.pop(node.name)
            spikes += int((single != 0).sum())
            differ += int((single.double() != value).sum())

        Runner(double).run(grid(part).double(), observe=see)
    return spikes, differ


def write(path: Path, content: dict[str, Any]) -> None:
    """Writes the file whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({**content, **provenance()}, indent=1) + "\n")
    temporary.replace(path)


if __name__ == "__main__":
    main()
