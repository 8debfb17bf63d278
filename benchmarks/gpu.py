"""On a GPU: whether spikes are those of the CPU, a network's time beside T times its ANN's, and the neuron kernel's.

    python benchmarks/gpu.py --out gpu.json
    python benchmarks/gpu.py --device cpu --batch 4 --out cpu.json       # that the script itself works

The networks of `speed_nets.py`, float and in fixed point. Rows of one table are timed in turns; seconds are medians
between two synchronisations. The ANN runs in float32 as the networks do, and beside it with TF32 where torch takes
that by itself. "differ" counts readouts, after each step: of the fixed-point network those that are not the CPU's, and
of each network those that the kernel gives and the reference on the same device does not. None may. The kernel's share
is of what a copy of the same currents reaches.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from speed_nets import build, images

import snnc
from snnc.files import atomic_write
from snnc.neurons import IF
from snnc.passes import FixedPoint
from snnc.pipeline import Pipeline
from snnc.recipes import recipe
from snnc.runtime.exact import exact
from snnc.runtime.gpu import GpuScan
from snnc.runtime.scan import Scan


def main() -> None:
    """Measures and prints everything, and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--networks", default="resnet20,vgg16")
    parser.add_argument("--T", type=int, default=8)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    device = torch.device(args.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    found: dict[str, Any] = {"device": name, "torch": torch.__version__, "kernel": kernel(device, args.rounds)}
    for network in args.networks.split(","):
        found[network] = measured(network, device, args)
    with atomic_write(args.out) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


@torch.no_grad()
def measured(name: str, device: torch.device, args: argparse.Namespace) -> dict[str, Any]:
    """One network: seconds of each row, and readouts that differ."""
    ann, x = build(name), images(name, args.batch)
    start = recipe("opi").pipeline
    nets = {
        "float": snnc.compile(ann, args.T, start, images(name, 32)),
        "fixed": snnc.compile(ann, args.T, Pipeline((*start, FixedPoint())), images(name, 32)),
    }
    here = x.to(device).contiguous(memory_format=torch.channels_last)
    there = copy.deepcopy(ann).to(device).to(memory_format=torch.channels_last)

    def float32() -> None:
        with exact(device):
            there(here)

    rows: dict[str, Callable[[], Any]] = {"ANN": float32, "ANN as torch runs it": functools.partial(there, here)}
    runs: dict[str, str] = {}
    differ: dict[str, int] = {}
    for kind, net in nets.items():
        seen: dict[str, torch.Tensor] = {}
        for runtime in ("reference", "auto"):
            moved = copy.deepcopy(net).to(device)
            moved.runtime = runtime
            seen[runtime] = moved.readout(here).cpu()
            runs[f"{kind}, {runtime}"] = moved.runs_by
            rows[f"{kind}, {runtime}"] = functools.partial(moved, here)
        differ[f"{kind}, auto from reference"] = int((seen["auto"] != seen["reference"]).sum())
        if kind == "fixed":  # floats are rounded as each device sums
            wanted = net.readout(x)
            differ |= {f"fixed, {name} from CPU": int((one != wanted).sum()) for name, one in seen.items()}
    seconds = timed(rows, device, args.rounds)
    limit = args.T * seconds["ANN"]
    return {
        "seconds": seconds,
        "of T x ANN": {row: round(value / limit, 3) for row, value in seconds.items()},
        "runs by": runs,
        "differ": differ,
    }


@torch.no_grad()
def kernel(device: torch.device, rounds: int, T: int = 8) -> list[dict[str, Any]]:
    """Bytes a second of a layer of neurons over T steps, beside a copy."""
    found = []
    for rows, channels, size in ((32, 16, 32), (256, 64, 32), (256, 512, 4)):
        current = torch.randn(T * rows, channels, size, size, device=device).contiguous(
            memory_format=torch.channels_last
        )
        target = torch.empty_like(current)
        neuron = IF(T, torch.rand(channels, 1, 1, device=device) + 0.5, torch.zeros(channels, 1, 1, device=device))
        scan = (GpuScan if device.type == "cuda" else Scan)(neuron, False)
        calls: dict[str, Callable[[], Any]] = {
            "copy": functools.partial(target.copy_, current),
            "neurons": functools.partial(scan, None, current, T),
        }
        seconds = timed(calls, device, 5 * rounds)
        moved = 2 * current.numel() * 4
        found.append({"bytes": moved, **{row: moved / value for row, value in seconds.items()}})
        found[-1]["share"] = round(seconds["copy"] / seconds["neurons"], 3)
    return found


def timed(rows: dict[str, Callable[[], Any]], device: torch.device, rounds: int) -> dict[str, float]:
    """Median seconds of each row, in turns."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    seconds: dict[str, list[float]] = {row: [] for row in rows}
    for turn in range(rounds + 2):
        for row, run in rows.items():
            wait()
            start = time.perf_counter()
            run()
            wait()
            if turn > 1:  # the first ones compile and choose
                seconds[row].append(time.perf_counter() - start)
    return {row: statistics.median(values) for row, values in seconds.items()}


if __name__ == "__main__":
    main()
