"""Spikes that differ between step-by-step and time-folded execution, on the published ResNet-20 and real images.

    python benchmarks/streaming.py --data FOLDER

FOLDER as for `accuracy.py`. In exact arithmetic none can differ; in float32 a convolution may round a sum
differently for another number of rows, and a threshold turns that into a spike. Prints the counts for float32 and
float64.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from accuracy import folder_module, load, provenance
from torch import Tensor

import snnc
from snnc.networks.network import Network
from snnc.runtime.runner import Runner


def spikes(net: Network, x: Tensor, window: int) -> Tensor:
    """Which neuron fired when, all layers in a row."""
    names = {name for name, _ in net.neurons()}
    found: dict[str, list[Tensor]] = {}

    def see(node: torch.fx.Node, value: Tensor, steps: int) -> None:
        if node.name in names:
            found.setdefault(node.name, []).append((value != 0).reshape(steps, -1))

    with torch.no_grad():
        Runner(net.graph).run(x, window, observe=see)
    return torch.cat([torch.cat(parts).flatten() for parts in found.values()])


def main() -> None:
    """Prints one line for each precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("SNNC_DATA"), help="folder with zoo.py, common.py")
    parser.add_argument("--limit", type=int, default=32, help="first so many test images")
    parser.add_argument("--T", type=int, default=8)
    args = parser.parse_args()
    calibration, x, _ = load(args.data, "cifar-imagenet", 512)
    model = folder_module(args.data, "zoo").akamaster(20, "resnet20-12fca82f.th")
    net = snnc.compile(model, args.T, "opi", calibration)
    x = x[: args.limit]
    for dtype in (torch.float32, torch.float64):
        net = net.to(dtype)
        step, folded = (spikes(net, x.to(dtype), window) for window in (1, args.T))
        print(f"{dtype}: {int((step != folded).sum())} of {int(folded.sum()):,} spikes differ ({len(x)} images)")
    print(provenance())


if __name__ == "__main__":
    main()
