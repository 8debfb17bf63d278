"""What each lowering of max pooling costs, on a network with three max pools trained on MNIST.

    python benchmarks/maxpool.py --data FOLDER

FOLDER as for `accuracy.py`. Trains a small network (pools behind and before a ReLU, one of them overlapping and
padded) on 12,000 training images, compiles it with the recipe `opi`, thresholds at the largest activation, and each
lowering, and prints the accuracy on the first test images after each number of steps. The lowering that ships must
approach the ANN as T grows.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from accuracy import folder_module, load, provenance, score
from torch import Tensor, nn
from torch.nn import functional as F

import snnc

STEPS = (4, 8, 16, 32, 64, 128, 256)


def network() -> nn.Module:
    """Three convolutions, three max pools."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.MaxPool2d(3, 2, 1), nn.ReLU()),
        *(nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 9, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


def train(net: nn.Module, x: Tensor, y: Tensor, epochs: int = 3) -> None:
    """Adam, one cycle, cross-entropy."""
    optimiser = torch.optim.Adam(net.parameters(), 2e-3)
    net.train()
    for _ in range(epochs):
        for index in torch.randperm(len(x)).split(100):
            optimiser.zero_grad()
            F.cross_entropy(net(x[index]), y[index]).backward()
            optimiser.step()
    net.eval()


def main() -> None:
    """Trains, compiles with each lowering, prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("SNNC_DATA"), help="folder with common.py")
    parser.add_argument("--limit", type=int, default=1000, help="first so many test images")
    args = parser.parse_args()
    torch.manual_seed(0)
    images, x, y = load(args.data, "mnist", 12_000)
    _, labels = folder_module(args.data, "common").load_idx("mnist", "train")
    net = network()
    train(net, images, torch.tensor(labels[: len(images)]).long())
    x, y = x[: args.limit], y[: args.limit]
    ann = score(lambda batch: net(batch)[None], x, y)[0]
    print(f"ANN {ann:.2f} % on the first {len(y)} test images\n{provenance()}\n")
    print("| lowering | " + " | ".join(f"T={T}" for T in STEPS) + " |\n|---|" + "---|" * len(STEPS))
    for lowering in ("running-max", "gate", "per-step"):
        pipeline = snnc.recipe("opi").pipeline.set("insert-neurons", maxpool=lowering)
        pipeline = pipeline.set("scale-thresholds", rule="max", per="layer")  # does not depend on T
        snn = snnc.compile(net, max(STEPS), pipeline, images[:512])
        accuracy = score(snn.readout, x, y)
        print(f"| `{lowering}` | " + " | ".join(f"{accuracy[T - 1]:.2f}" for T in STEPS) + " |", flush=True)


if __name__ == "__main__":
    main()
