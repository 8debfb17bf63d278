"""How long it takes to compile a network: capture, passes and calibration.

    python benchmarks/compile_time.py --recipes opi,cos,best --samples 512

ResNet-20 of `speed_nets.py` at T = 8, on random images. CPU seconds of one thread, each pass by itself, and how many
times the passes called a convolution, in calls of the whole network: what one forward pass would serve shows there.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from speed_nets import build, images
from torch import nn

import snnc
from snnc.recipes import recipe


def main() -> None:
    """Prints a table for each recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", default="opi,cos,best")
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--T", type=int, default=8)
    parser.add_argument("--net", default="resnet20")
    args = parser.parse_args()
    torch.set_num_threads(1)
    x = images(args.net, args.samples)
    layers = sum(isinstance(module, nn.Conv2d) for module in build(args.net).modules())
    snnc.capture(build(args.net))  # what is imported at first use
    for name in args.recipes.split(","):
        begun = [time.process_time()]
        rows = [0]  # of convolutions

        def count(layer: nn.Module, inputs: Any, rows: list[int] = rows) -> None:
            if isinstance(layer, nn.Conv2d):
                rows[-1] += len(inputs[0])

        hooks: list[Any] = []

        def after(
            step: Any, *rest: Any, begun: list[float] = begun, rows: list[int] = rows, hooks: list[Any] = hooks
        ) -> None:
            now = time.process_time()
            if step is None:  # capture refuses networks while all modules have hooks
                hooks.append(nn.modules.module.register_module_forward_pre_hook(count))
            sweeps = rows[-1] / args.samples / layers
            print(f"| {step.name if step else 'capture'} | {now - begun[-1]:.1f} | {sweeps:.2f} |", flush=True)
            begun.append(now)
            rows.append(0)

        print(f"\n{name}\n\n| pass | s | sweeps |\n|---|--:|--:|")
        snnc.compile(build(args.net), T=args.T, recipe=recipe(name), calibration=x, callbacks=(after,))
        for hook in hooks:
            hook.remove()
        print(f"| all | {time.process_time() - begun[0]:.1f} | |", flush=True)


if __name__ == "__main__":
    main()
