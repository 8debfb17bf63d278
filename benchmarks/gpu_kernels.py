"""What the kernels for GPUs reach, beside what the GPU reaches: a part of `gpu.py`."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from snnc.ir.neurons import IF
from snnc.runtime.cpu.scan import Scan
from snnc.runtime.gpu.layer import packed
from snnc.runtime.gpu.scan import GpuScan

TIMES = 20  # calls of a kernel in one measurement
LAYERS = ((16, 32), (32, 16), (64, 8), (64, 32), (128, 16), (256, 8), (512, 4))  # channels, pixels a side


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
            "copy": often(functools.partial(target.copy_, current), device),
            "neurons": often(functools.partial(scan, None, current, T), device),
        }
        seconds = timed(calls, device, rounds)
        moved = TIMES * 2 * current.numel() * 4
        found.append({"bytes": moved // TIMES, **{row: moved / value for row, value in seconds.items()}})
        found[-1]["share"] = round(seconds["copy"] / seconds["neurons"], 3)
    return found


@torch.no_grad()
def layers(device: torch.device, rounds: int, T: int = 8, batch: int = 256) -> dict[str, Any]:
    """Layers of 3 x 3 and their neurons in one kernel, beside what a product of bytes and a copy reach."""
    most = ceilings(device, rounds)
    found = []
    for channels, size in LAYERS:
        conv = nn.Conv2d(channels, channels, 3, 1, 1, bias=False).requires_grad_(False)
        conv.weight.copy_(torch.randint(-127, 128, conv.weight.shape))
        theta = torch.tensor(200.0, device=device)
        neurons = GpuScan(IF(T, theta, theta / 2, True), True)
        layer = packed(conv.to(device))
        if layer is None:
            raise SystemExit("There is no kernel for a layer that should have one.")
        spikes = torch.randint(0, 2, (T * batch, channels, size, size), dtype=torch.uint8, device=device)
        spikes = spikes.contiguous(memory_format=torch.channels_last)
        run = often(functools.partial(layer.firing(neurons).fire, None, T, 0, spikes), device)
        second = timed({"": run}, device, rounds)[""] / TIMES
        work = {"operations": 2 * 9 * channels * spikes.numel() / second, "bytes": 2 * spikes.numel() / second}
        shares = {name: round(value / most[name], 3) for name, value in work.items()}
        found.append({"channels": channels, "size": size, "us": round(1e6 * second, 1), "share": shares})
    return {"most": most, "layers": found}


def ceilings(device: torch.device, rounds: int) -> dict[str, float]:
    """Operations a second of a large product of bytes, and bytes a second of a large copy, read and written."""
    a, b = (torch.randint(-127, 128, (8192, 8192), dtype=torch.int8, device=device) for _ in range(2))
    x = torch.randn(1 << 28, device=device)
    y = torch.empty_like(x)
    calls = {"product": functools.partial(torch._int_mm, a, b.t()), "copy": functools.partial(y.copy_, x)}
    seconds = timed({name: often(call, device) for name, call in calls.items()}, device, rounds)
    return {
        "operations": TIMES * 2 * 8192**3 / seconds["product"],
        "bytes": TIMES * 2 * x.nbytes / seconds["copy"],
    }


def often(call: Callable[[], Any], device: torch.device) -> Callable[[], Any]:
    """A call many times over, without what launching costs on a GPU."""
    if device.type != "cuda":
        return lambda: [call() for _ in range(TIMES)]
    call()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(TIMES):
            call()
    return graph.replay


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
