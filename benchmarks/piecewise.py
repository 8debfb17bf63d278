"""CNNs with SiLU and GELU, trained here in a minute or two, as binary networks by sums of ReLUs, and telescoped.

    python benchmarks/piecewise.py --data FOLDER --out docs/results/piecewise.json

FOLDER holds `common.py` and MNIST, as for `low_latency_mnist.py`. Each network, four convolutions with batch
normalisation, is trained on the first training images. It is compiled for every T by each recipe with its options as
they stand (`--quick`), calibrated on 512 training images and compared with its ANN on test images: accuracy, in how
many images both choose the same class, and spikes for an image. Each finished row is written at once, and an
interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from accuracy import folder_module
from torch import nn
from vit import prepared, train

import snnc
from snnc.files import atomic_write
from snnc.ir.meter import Meter
from snnc.passes.pipeline import Pipeline
from snnc.recipes import recipe

ACTIVATIONS = {"silu": nn.SiLU, "gelu": nn.GELU}
RECIPES = {
    "best": lambda: recipe("best").pipeline,
    "best, 3 pieces": lambda: recipe("best").pipeline.set("piecewise-activations", pieces=3),
    "best, 8 pieces": lambda: recipe("best").pipeline.set("piecewise-activations", pieces=8),
    "telescoped": lambda: recipe("telescoped").pipeline,
    "telescoped-graded": lambda: recipe("telescoped-graded").pipeline,
}


def network(act: type[nn.Module], width: int = 16) -> nn.Module:
    """Four convolutions, and a classifier on the means of their maps."""
    sizes = [(1, width, 2), (width, 2 * width, 1), (2 * width, 2 * width, 2), (2 * width, 4 * width, 1)]
    layers = [
        layer
        for before, after, stride in sizes
        for layer in (nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), act())
    ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10))


@torch.no_grad()
def row(net: nn.Module, made: Pipeline, T: int, calibration: Any, test: Any, labels: Any, ann: Any) -> dict[str, Any]:
    """One network, measured."""
    start = time.process_time()
    spiking = snnc.compile(net, T, made, calibration)
    seconds = time.process_time() - start
    meter = Meter(spiking.graph)
    found = torch.cat([spiking.readout(part, observe=meter)[-1] for part in test.split(50)]).argmax(1)
    return {
        "T": T,
        "accuracy": 100 * float((found == labels).float().mean()),
        "agreement": 100 * float((found == ann).float().mean()),
        "neurons": sum(meter.sites.values()) // (T * len(test)),
        "spikes": sum(meter.spikes.values()) / len(test),
        "operations": sum(meter.operations.values()) / len(test),
        "seconds": seconds,
        "notes": [note for record in spiking.info["records"] for note in record["notes"] if "ReLU" in note],
    }


def main() -> None:
    """Trains, compiles, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("SNNC_DATA"), help="folder with common.py and mnist"
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file with every finished row")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rows", type=int, default=20000, help="training images")
    parser.add_argument("--images", type=int, default=500, help="test images")
    parser.add_argument("--nets", default="silu,gelu")
    parser.add_argument("--recipes", default="best;telescoped", help=f"of {'; '.join(RECIPES)}")
    parser.add_argument("--steps", default="1,2,4,8,16,32", help="values of T")
    args = parser.parse_args()
    common = folder_module(args.data, "common")
    (x, y), (test, labels) = (prepared(*common.load_idx("mnist", part)) for part in ("train", "test"))
    x, y, test, labels = x[: args.rows], y[: args.rows], test[: args.images], labels[: args.images]
    rows: list[dict[str, Any]] = json.loads(args.out.read_text()) if args.out.exists() else []
    for name in args.nets.split(","):
        torch.manual_seed(0)
        start = time.process_time()
        net = train(network(ACTIVATIONS[name]), x, y, args.epochs)
        with torch.no_grad():
            ann = net(test).argmax(1)
        percent = 100 * float((ann == labels).float().mean())
        print(f"{name}: ANN {percent:.2f} %, trained in {time.process_time() - start:.0f} s of one core", flush=True)
        for which in args.recipes.split(";"):
            for T in map(int, args.steps.split(",")):
                key = {"net": name, "ann": percent, "recipe": which}
                if any({**one, **key, "T": T} == one for one in rows):
                    continue
                rows.append(key | row(net, RECIPES[which](), T, x[:512], test, labels, ann))
                with atomic_write(args.out) as temporary:
                    temporary.write_text(json.dumps(rows, indent=1))
                one = rows[-1]
                print(
                    f"{name}, {which}, T = {T}: agreement {one['agreement']:.1f}, accuracy {one['accuracy']:.1f}, "
                    f"{one['spikes']:.0f} spikes, {one['seconds']:.0f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
