"""What it costs to run a network and its graph on the same samples at the end of capture.

    python benchmarks/comparison.py

Networks of `speed_nets.py`, random weights. Seconds of one thread, the least of several runs: a capture with the
comparison and without it, and one forward pass of 3 samples, which is the largest batch that is compared.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from speed_nets import build, images

from snnc.capture import captured, doors
from snnc.capture.comparison import not_compared


def least(run: Callable[[], Any], times: int) -> float:
    """Processor seconds of the fastest run."""
    found = []
    for _ in range(times):
        begun = time.process_time()
        run()
        found.append(time.process_time() - begun)
    return min(found)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default="resnet20,vgg16")
    parser.add_argument("--times", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | capture alone | with the comparison | ratio | difference in forward passes | error | bound |")
    print("|---|---|---|---|---|---|---|")
    for name in args.nets.split(","):
        net = build(name).eval()
        x = images(name, 3)
        shape = tuple(x.shape[1:])
        compared = captured(net, shape).compared
        with torch.no_grad():
            forward = least(lambda net=net, x=x: net(x), args.times)
        whole = least(lambda net=net, shape=shape: captured(net, shape), args.times)
        with mock.patch.object(doors, "compare", return_value=(not_compared("left out"), None)):
            alone = least(lambda net=net, shape=shape: captured(net, shape), args.times)
        cells = (f"{alone:.2f} s", f"{whole:.2f} s", f"{whole / alone:.1f}", f"{(whole - alone) / forward:.1f}")
        print(f"| {name} | {' | '.join(cells)} | {compared['error']:.1e} | {compared['bound']:.1e} |")


if __name__ == "__main__":
    main()
