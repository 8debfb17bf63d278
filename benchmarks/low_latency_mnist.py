"""MNIST in one step: a published network, retrained with the activations and the input of `low-latency`.

    python benchmarks/low_latency_mnist.py --data FOLDER --out docs/results/low_latency_mnist.json

FOLDER holds `zoo.py` and `common.py`, as for `accuracy.py`. The network is `cq-plain-clip`, seven convolutions with
activations clipped to [0, 1] and inputs from 0 to 1. Each row compiles it by a recipe for T steps and trains the
spiking network on the 60,000 training images, some of them held out; the 10,000 test images are scored once, at the
end. Rows:

    direct        opi: the image itself drives the first layer
    spikes        low-latency-streaming without expand-input: the image is spikes too
    expanded      low-latency-streaming: and at three resolutions

Each finished row is written at once. Cost is given in seconds of one core, whatever else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from accuracy import folder_module, provenance

import snnc
from snnc.data import Dataset
from snnc.files import atomic_write
from snnc.networks.network import Network
from snnc.recipes import recipe

BATCH = 100


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("SNNC_DATA"), help="folder with zoo.py, common.py")
    parser.add_argument("--out", type=Path, required=True, help="JSON file with every finished row")
    parser.add_argument("--rows", default="expanded,spikes,direct")
    parser.add_argument("--T", type=int, default=1)
    parser.add_argument("--resolution", type=float, default=2.5)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--amp", action="store_true", help="train in bfloat16; twice as fast where the CPU has it")
    args = parser.parse_args()
    for row in args.rows.split(","):
        measure(args, row)


def measure(args: argparse.Namespace, row: str) -> None:
    """Trains and scores one row."""
    common = folder_module(args.data, "common")
    model = folder_module(args.data, "zoo").cq("plain", False)
    train, test = (images(*common.load_idx("mnist", part)) for part in ("train", "test"))
    options: dict[str, Any] = {"loss": "both", "lr": 1e-3, "batch": 64, "crop": 2, "flip": False, "held_out": 0.02}
    start = time.process_time()
    net = snnc.tune(
        model, train, args.T, chosen(row, args.resolution), epochs=args.epochs, amp=args.amp, report=show, **options
    )
    seconds = time.process_time() - start
    found = {
        "row": row,
        "T": args.T,
        "resolution": None if row == "direct" else args.resolution,
        "epochs": args.epochs,
        "amp": args.amp,
        "core_seconds": round(seconds),
        "held_out": net.info["tune"]["table"],
        "accuracy": accuracy(net, test),
        "latency": str(net.latency),
        **provenance(),
    }
    show(found)
    rows = json.loads(args.out.read_text()) if args.out.exists() else []
    with atomic_write(args.out) as temporary:
        temporary.write_text(json.dumps([*rows, found], indent=1) + "\n")


def chosen(row: str, resolution: float) -> Any:
    """The pipeline behind a row."""
    if row == "direct":
        return recipe("opi")
    pipeline = recipe("low-latency-streaming").pipeline.set("limit-range", resolution=resolution)
    return pipeline if row == "expanded" else pipeline.remove("expand-input")


def images(x: Any, y: Any) -> Dataset:
    """8-bit images, 0 to 1 once they are batches."""
    return Dataset(x[:, None], y.astype("int64"), scale=255)


@torch.no_grad()
def accuracy(net: Network, data: Dataset) -> float:
    """Per cent of all samples."""
    hits = sum(int((net(x).argmax(1) == y).sum()) for x, y in data.batches(BATCH) if y is not None)
    return round(100 * hits / len(data), 2)


def show(found: dict[str, Any]) -> None:
    """One line."""
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
