"""Clips and roundings as they stand during capture, and the intervals that clips keep values in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.ir import dialect
from snnc.ir.graph import module_of

INFINITY = float("inf")


class Floor(nn.Module):
    """Rounds down. Only during capture."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.floor(x)


class Round(nn.Module):
    """Rounds to the nearest integer. Only during capture."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.round(x)


class Clamp(nn.Module):
    """Clips to `[low, high]`, where given: numbers, or tensors of one for each channel. Only during capture."""

    def __init__(self, low: float | Tensor | None, high: float | Tensor | None) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.low is None else torch.maximum(x, torch.as_tensor(self.low).to(x))
        return x if self.high is None else torch.minimum(x, torch.as_tensor(self.high).to(x))


ROUNDINGS = (Floor, Round)
CLIPS = (nn.ReLU, nn.Hardtanh, Clamp)


def bounds(module: nn.Module) -> tuple[Tensor, Tensor]:
    """The interval that a clip allows."""
    low: Any = getattr(module, "low", 0.0) if isinstance(module, Clamp) else getattr(module, "min_val", 0.0)
    high: Any = getattr(module, "high", None) if isinstance(module, Clamp) else getattr(module, "max_val", None)
    return double(-INFINITY if low is None else low), double(INFINITY if high is None else high)


def double(value: Any) -> Tensor:
    """A number or tensor in double precision, on the CPU."""
    return torch.as_tensor(value).detach().to("cpu", torch.float64)


class Intervals:
    """For each node the least and the greatest value that it can have, as far as that follows from the modules.

    They are found as they are asked for, and once: whoever changes the graph meanwhile keeps each node's function.
    """

    def __init__(self, graph: fx.GraphModule) -> None:
        self.graph = graph
        self.found: dict[fx.Node, tuple[float, float]] = {}

    def __getitem__(self, node: fx.Node) -> tuple[float, float]:
        pending = [node]  # no recursion: a chain may be longer than Python's stack
        while pending:
            last = pending[-1]
            module = module_of(self.graph, last) if last.op == "call_module" else None
            inputs = [i for i in last.args if isinstance(i, fx.Node)] if module is not None else []
            if missing := [i for i in inputs if i not in self.found]:
                pending += missing
                continue
            known = [self.found[i] for i in inputs]
            self.found[pending.pop()] = (-INFINITY, INFINITY) if module is None else _interval(module, known)
        return self.found[node]


def _interval(module: nn.Module, inputs: list[tuple[float, float]]) -> tuple[float, float]:
    low, high = min(i[0] for i in inputs), max(i[1] for i in inputs)
    if isinstance(module, dialect.ClipQuant):
        return 0.0, float(module.lam.max())
    if isinstance(module, CLIPS):
        least, most = bounds(module)
        return max(low, float(least.min())), max(float(least.min()), min(high, float(most.max())))
    if isinstance(module, dialect.HEADS):
        return (0.0, 1.0) if isinstance(module, nn.Softmax) else (-INFINITY, 0.0)
    if isinstance(module, dialect.Pad):
        return (min(low, module.value), max(high, module.value)) if module.mode == "constant" else (low, high)
    if isinstance(module, dialect.Add):
        return sum(i[0] for i in inputs), sum(i[1] for i in inputs)
    if isinstance(module, dialect.AVERAGE_POOLS):
        padded = any(torch.as_tensor(getattr(module, "padding", 0)).flatten().tolist())
        free = getattr(module, "divisor_override", None) is not None
        return (-INFINITY, INFINITY) if free else (min(low, 0.0), max(high, 0.0)) if padded else (low, high)
    if isinstance(module, dialect.Affine) and low > -INFINITY and high < INFINITY:
        ends = torch.stack([double(module.scale) * v + double(module.shift) for v in (low, high)])
        return float(ends.min()), float(ends.max())
    if isinstance(module, (*dialect.MAX_POOLS, *dialect.ROUTES, dialect.Mean)):
        return low, high
    return -INFINITY, INFINITY
