"""Accuracy against mean steps, where each sample is read out as soon as it is sure.

    python benchmarks/early_exit.py --data FOLDER --out docs/results/early_exit.json --recipe best-signed --T 8

FOLDER is that of `accuracy.py`. Options and temperatures are chosen on training images without labels; the curve is of
test images. The network's readout after each step comes along.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict
from pathlib import Path

import accuracy

import snnc
from snnc.measure.evaluate import CONFIDENCES

FINE = (*CONFIDENCES, 0.6, 0.85, 0.97)


def main() -> None:
    """Parses the command line, measures, and adds the curve to the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("SNNC_DATA"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--recipe", default="best-signed")
    parser.add_argument("--T", type=int, default=8)
    parser.add_argument("--limit", type=int, default=0, help="first so many test samples; 0: all")
    parser.add_argument("--calibration", type=int, default=1024)
    args = parser.parse_args()
    task = accuracy.TASKS[args.network]
    ann = task.model(accuracy.folder_module(args.data, "zoo"))
    calibration, x, y = accuracy.load(args.data, task.data, args.calibration)
    x, y = x[: args.limit or len(x)], y[: args.limit or len(y)]
    start = time.time()
    net = snnc.compile(ann, args.T, args.recipe, calibration, samples=args.calibration)
    compiled = time.time() - start
    batches = zip(x.split(accuracy.BATCH), y.split(accuracy.BATCH), strict=True)
    found = snnc.evaluate(net, batches, ann, exits=sorted(FINE))
    row = {
        "network": args.network,
        "recipe": args.recipe,
        "T": args.T,
        "samples": found.samples,
        "ann": found.ann_accuracy,
        "accuracy": found.accuracy,
        "exits": [asdict(one) for one in found.exits],
        "choices": net.info.get("choices"),
        "temperatures": net.info.get("exit", {}).get("temperatures"),
        "calibration": min(args.calibration, len(calibration)),
        "seconds_compiling": round(compiled, 1),
        **accuracy.provenance(),
    }
    key = ("network", "recipe", "T")
    rows = [
        one
        for one in (json.loads(args.out.read_text()) if args.out.exists() else [])
        if any(one[k] != row[k] for k in key)
    ]
    args.out.write_text(json.dumps([*rows, row], indent=1) + "\n")
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
