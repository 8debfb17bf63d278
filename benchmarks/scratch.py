"""A network trained from scratch for spikes on CIFAR-10, then converted: the papers' whole way, beside their rows.

    python benchmarks/scratch.py --data FOLDER --work FOLDER --out docs/results/scratch.json --epochs 18

FOLDER is that of `accuracy.py`. The ResNet-20 of `speed_nets.py`, with weights drawn anew, is trained by `snnc.tune` as
a quantised network (clip-quantisation with trained bounds, arXiv 2303.04347) on the labels of the training images, and
then compiled by several recipes for several T. An interrupted run goes on from its checkpoint in `--work`, where the
trained network is kept too; the file of results holds the options, the log of every epoch, the seconds of CPU (of the
last process) and the cells. The test images are scored at the end alone.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import chosen, folder_module, load, provenance, score, share
from speed_nets import build
from torch import nn

import snnc
from snnc.cli import show
from snnc.data import Dataset
from snnc.files import atomic_write, load_model
from snnc.networks.staged import staged

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> None:
    """Trains, converts and scores; each part that is there already is not done again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("SNNC_DATA"), help="folder of accuracy.py")
    parser.add_argument("--work", type=Path, required=True, help="folder for the checkpoint and the trained network")
    parser.add_argument("--out", type=Path, required=True, help="JSON file with options, log and cells")
    parser.add_argument("--net", default="resnet20", help="one of speed_nets.py")
    parser.add_argument("--levels", type=int, default=4, help="L of the clip-quantisation")
    parser.add_argument("--epochs", type=int, default=18)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--images", type=int, default=0, help="first so many training images; 0: all")
    parser.add_argument("--T", default="2,4,8,16")
    parser.add_argument("--recipes", default="qcfs,cos,best")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    trained = args.work / f"{args.net}-L{args.levels}.snn"
    busy = time.process_time()
    if not trained.exists():
        train(args, trained)
    busy = time.process_time() - busy
    net = staged(load_model(trained), str(trained))
    tune = net.info["tune"]
    found: dict[str, Any] = {"network": args.net, "levels": args.levels, "cpu_seconds": round(busy, 1)}
    found |= {"seconds": tune["seconds"], "options": tune["options"], "epochs": tune["epochs"], "cells": []}
    if args.out.exists():
        found = json.loads(args.out.read_text())
    calibration, x, y = load(args.data, "cifar-imagenet", 1024)
    found["quantised"] = score(lambda batch: net(batch)[None], x, y)[0]
    print(f"quantised, L={args.levels}: {found['quantised']:.2f}", flush=True)
    for T in map(int, args.T.split(",")):
        for which in args.recipes.split(","):
            if any((c["recipe"], c["T"]) == (which, T) for c in found["cells"]):
                continue
            snn = snnc.compile(net, T, chosen(which), calibration, samples=512 * share(which))
            cell = {"recipe": which, "T": T, "samples": len(y), "accuracy": score(snn.readout, x, y)[-1]}
            found["cells"].append({**cell, "latency": str(snn.latency), **provenance()})
            print(f"{which} T={T}: {cell['accuracy']:.2f}", flush=True)
            written(args.out, found)


def train(args: argparse.Namespace, trained: Path) -> None:
    """Trains the network, and writes it with its log."""
    images, labels = folder_module(args.data, "common").load_cifar10("train")
    if args.images:
        images, labels = images[: args.images], labels[: args.images]
    data = Dataset(images, labels.astype(np.int64), MEAN, STD, 255.0, "training images")
    checkpoint = args.work / f"{trained.stem}.checkpoint"
    snnc.tune(
        drawn(args.net, data),
        data,
        args.levels,
        "opi",
        kind="quantised",
        norms="own",
        loss="labels",
        optimiser="sgd",
        lr=args.lr,
        weight_decay=5e-4,
        batch=128,
        epochs=args.epochs,
        amp=True,
        checkpoint=checkpoint,
        resume=checkpoint.exists(),
        out=trained,
        track=show.track,
        report=lambda row: print(row, flush=True),
    )


@torch.no_grad()
def drawn(name: str, data: Dataset) -> nn.Module:
    """The network with weights of He et al. 2015 (arXiv 1502.01852), and batch norms that know the data's moments."""
    net = build(name).train()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a plain mean over batches
    for x, _ in data.sample(512, 0).batches(64):
        net(x)
    return net.eval()


def written(path: Path, found: dict[str, Any]) -> None:
    """Writes the file whole."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
