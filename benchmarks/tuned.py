"""Accuracy of spiking networks after a short training: network x T, within a budget of time.

    python benchmarks/tuned.py --data FOLDER --out docs/results/tuned.json --set amp=true --set epochs=3 --T 4

FOLDER is that of `accuracy.py`. Every network is compiled with `--recipe` for each T and then trained by `snnc.tune`
through the spiking network, on training images, distilling from the original network, with the options that
`snnc.tune` has by default; `--set NAME=VALUE` changes one. The test images are scored once, at the end. `--minutes` is
a budget by the clock: then run nothing else. Without it `epochs` says how long, and the cell tells the seconds of CPU
that compilation and training took, in all threads: a quarter of an hour on two cores is 1,800 of them.

Cells go into one JSON file, in the form of those of `accuracy.py`, with the row "tuned"; what is there is skipped. With
`--set kind=quantised` the row is "quantised": the clip-quantised network of T levels, trained alike and scored as it
is, which is what binary spikes would come to if they were even in time. With `--first NAME=VALUE` such a network is
trained first, with these options over those of `--set`, converted by `best` with all steps read, and trained on through
its spikes; the row is "tuned-twice", and its seconds are those of both.
"""

from __future__ import annotations

import argparse
import os
import time
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import TASKS, folder_module, load, provenance, read_cells, score, write_cell
from torch import nn

import snnc
from snnc.cli import show
from snnc.data import Dataset
from snnc.recipes import recipe

MEANS = {"cifar-imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("SNNC_DATA"), help="folder of accuracy.py")
    parser.add_argument("--out", type=Path, required=True, help="JSON file with every measured cell")
    parser.add_argument("--networks", default="resnet20")
    parser.add_argument("--T", default="1,2,4,8")
    parser.add_argument("--minutes", type=float, help="budget by the clock, in place of epochs")
    parser.add_argument("--recipe", help="conversion that training starts from")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="option of snnc.tune")
    parser.add_argument(
        "--first", action="append", default=[], metavar="NAME=VALUE", help="option of a quantised training before it"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for the tuned networks")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.first and (args.recipe or args.minutes):
        parser.error("--first converts by 'best' and counts epochs: leave out --recipe and --minutes")
    options = dict(parsed(text) for text in args.set)
    first = dict(parsed(text) for text in args.first)
    for name in args.networks.split(","):
        for T in map(int, args.T.split(",")):
            key = (name, row(options, first), T)
            if key not in {(c["network"], c["recipe"], c["T"]) for c in read_cells(args.out)}:
                measure(args, name, T, options, first)


def row(options: dict[str, Any], first: dict[str, Any]) -> str:
    """The row that a cell stands in."""
    if first:
        return "tuned-twice"
    return "quantised" if options.get("kind") == "quantised" else "tuned"


def parsed(text: str) -> tuple[str, Any]:
    """`NAME=VALUE`, the value as in TOML; text needs no quotes."""
    name, _, value = text.partition("=")
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name, value


def converted(
    ann: nn.Module, training: Dataset, T: int, options: dict[str, Any]
) -> tuple[snnc.Network, dict[str, Any]]:
    """A network trained as a quantised one of T levels and then converted, and what its training told."""
    quantised = snnc.tune(ann, training, T, kind="quantised", track=show.track, report=told, **options)
    best = recipe("best")
    every_step = replace(best, name="best, all steps read", pipeline=best.pipeline.remove("delay-readout"))
    net = snnc.compile(quantised, T, every_step, training.sample(1024, 0), samples=1024, track=show.track)
    return net, quantised.info["tune"]


def measure(args: argparse.Namespace, name: str, T: int, options: dict[str, Any], first: dict[str, Any]) -> None:
    """Trains and scores one network."""
    task = TASKS[name]
    ann = task.model(folder_module(args.data, "zoo"))
    images, labels = folder_module(args.data, "common").load_cifar10("train")
    mean, std = MEANS[task.data]
    training = Dataset(images, labels.astype(np.int64), mean, std, 255.0, "training images")
    start, busy = time.time(), time.process_time()
    before: dict[str, Any] | None = None
    if first:
        started, before = converted(ann, training, T, options | first)
        net = snnc.tune(started, training, teacher=ann, track=show.track, report=told, **options)
    else:
        net = snnc.tune(ann, training, T, args.recipe, minutes=args.minutes, track=show.track, report=told, **options)
    seconds, busy = time.time() - start, time.process_time() - busy
    if args.keep:
        snnc.save(net, args.keep / f"{name}-T{T}.snn")
    _, x, y = load(args.data, task.data, 1)
    tune = net.info["tune"]
    readout = net.readout if isinstance(net, snnc.Network) else lambda batch: net(batch)[None]
    cell = {
        "network": name,
        "recipe": row(options, first),
        "T": T,
        "samples": len(y),
        "accuracy": score(readout, x, y)[-1],
        "ann": score(lambda batch: ann(batch)[None], x, y)[0],
        "latency": str(net.latency) if isinstance(net, snnc.Network) else "",
        "seconds": round(seconds, 1),
        "cpu_seconds": round(busy, 1),
        "from": net.info["recipe"],
        "minutes": args.minutes,
        "options": {**tune["options"]},
        "images": sum(t["steps"] * min(t["options"]["batch"], t["samples"]) for t in (before, tune) if t),
        "held_out": tune["table"],
        **({"first": {"options": before["options"], "held_out": before["table"]}} if before else {}),
        **provenance(),
    }
    write_cell(args.out, cell)
    print(
        f"{name} T={T}: {cell['accuracy']:.2f} (ANN {cell['ann']:.2f}), {cell['images']} images, {busy:.0f} s of CPU",
        flush=True,
    )


def told(row: dict[str, Any]) -> None:
    print(row, flush=True)


if __name__ == "__main__":
    main()
