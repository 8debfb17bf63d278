"""What the machine of `speed.py` reaches, and the least time that a network's arithmetic and memory take there."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import snnc
from snnc.ir.neurons import IF
from snnc.runtime.cpu.integer import packed
from snnc.runtime.cpu.scan import Scan

Clock = Callable[[], float]


def timed(run: Callable[[], Any], clock: Clock) -> float:
    """Seconds of one call."""
    start = clock()
    run()
    return clock() - start


def best(run: Callable[[], Any], clock: Clock, times: int) -> float:
    """Seconds of the fastest of some calls."""
    return min(timed(run, clock) for _ in range(times))


@torch.no_grad()
def ceilings(clock: Clock) -> dict[str, float]:
    """Operations and bytes a second at best: three layers in float32 and in 8 bits, and copies."""
    plain, bytes_ = [], []
    for channels, size, rows in ((64, 8, 128), (128, 16, 32), (512, 4, 32)):
        layer = nn.Conv2d(channels, channels, 3, padding=1).requires_grad_(False).to(memory_format=torch.channels_last)
        layer.weight.copy_(torch.randint(-127, 128, layer.weight.shape))
        x = torch.randint(0, 2, (rows, channels, size, size)).float().contiguous(memory_format=torch.channels_last)
        spikes, fast = x.to(torch.uint8), packed(layer)
        if fast is None:
            raise SystemExit("torch has no 8-bit layers on this machine.")
        operations = 2 * rows * size * size * channels * channels * 9
        plain.append(operations / best(lambda layer=layer, x=x: layer(x), clock, 7))
        bytes_.append(operations / best(lambda fast=fast, spikes=spikes: fast(spikes), clock, 7))
    found = {"float32 operations/s": max(plain), "8-bit operations/s": max(bytes_)}
    for size, name, times in ((1 << 20, "copy in cache, bytes/s", 60), (1 << 26, "copy in memory, bytes/s", 9)):
        source, target = torch.ones(size // 4), torch.empty(size // 4)
        target.copy_(source)
        found[name] = 2 * size / best(lambda target=target, source=source: target.copy_(source), clock, times)
    return found


@torch.no_grad()
def neurons(clock: Clock) -> list[dict[str, float]]:
    """Bytes a second of the neuron pass at T = 8, beside a copy of the same currents, in turn."""
    rows = []
    layer = Scan(IF(8, torch.full((16, 1, 1), 200.0), torch.full((16, 1, 1), 100.0), unit=True), True)
    for batch in (1, 4, 32, 128):
        current = torch.randint(-99, 300, (8 * batch, 16, 32, 32)).float().contiguous(memory_format=torch.channels_last)
        pairs = [_pair(layer, current, clock) for _ in range(21)]
        scan, copy = (statistics.median(times) for times in zip(*pairs, strict=True))
        rates = current.numel() * 5 / scan, current.numel() * 8 / copy
        row = {"MB": current.nbytes / 1e6, "neurons, bytes/s": rates[0], "copy, bytes/s": rates[1]}
        rows.append(row | {"share": rates[0] / rates[1]})
    return rows


def _pair(layer: Scan, current: Tensor, clock: Clock) -> tuple[float, float]:
    target = torch.empty_like(current)
    target.copy_(current)
    return timed(lambda: layer(None, current, 8), clock), timed(lambda: target.copy_(current), clock)


def roofline(counted: dict[str, float], ceiling: dict[str, float], T: int, batch: int) -> dict[str, float]:
    """Least seconds for a batch: arithmetic, and the currents and spikes, each written once and read once."""
    first, rest = counted["first"], counted["rest"]
    plain, bytes_ = ceiling["float32 operations/s"], ceiling["copy in cache, bytes/s"]
    passes = T * counted["neurons"] * (4 + 4 + 1 + 1) / bytes_
    ann = batch * (first + rest) / plain
    return {
        "ANN": ann,
        "ANN, folded": ann,
        "ANN, onnxruntime": ann,
        "fast, float": batch * ((first + T * rest) / plain + T * counted["neurons"] * 4 * 4 / bytes_),
        "fast, fixed point": batch * (first / plain + T * rest / ceiling["8-bit operations/s"] + passes),
    }


def machine(threads: int) -> dict[str, str]:
    """What was measured, and where."""
    about = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.split(":")[1].strip() for line in about if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.machine(),
        "8-bit units": "VNNI" if torch.cpu._is_vnni_supported() else "none",
        "torch": torch.__version__,
        "snnc": snnc.__version__,
        "date": datetime.now(UTC).date().isoformat(),
        "threads": str(threads),
        "seconds": "of the CPU" if threads == 1 else "of a clock",
    }
