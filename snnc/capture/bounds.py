"""Clips and roundings as they stand during capture, and the intervals that clips keep values in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.ir import dialect
from snnc.ir.curved import BENT
from snnc.ir.embedding import Embedding
from snnc.ir.graph import module_of
from snnc.ir.rows import Refusal, Table
from snnc.ir.shapes import ALIKE, SHAPES
from snnc.ir.temporal import TIME

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
SHAPES.add((*ROUNDINGS, Clamp), ALIKE)


def ends(module: nn.Module) -> tuple[Tensor, Tensor]:
    """The interval that a clip allows."""
    low: Any = getattr(module, "low", 0.0) if isinstance(module, Clamp) else getattr(module, "min_val", 0.0)
    high: Any = getattr(module, "high", None) if isinstance(module, Clamp) else getattr(module, "max_val", None)
    return double(-INFINITY if low is None else low), double(INFINITY if high is None else high)


def double(value: Any) -> Tensor:
    """A number or tensor in double precision, on the CPU."""
    return torch.as_tensor(value).detach().to("cpu", torch.float64)


Interval = tuple[float, float]
ANYTHING: Interval = (-INFINITY, INFINITY)


def _clip(module: nn.Module, inputs: Sequence[Interval]) -> Interval:
    (low, high), (least, most) = _hull(module, inputs), ends(module)
    return max(low, float(least.min())), max(float(least.min()), min(high, float(most.max())))


def _hull(module: nn.Module, inputs: Sequence[Interval]) -> Interval:
    """Values are moved, or averaged, or the largest of some is taken."""
    return min(low for low, _ in inputs), max(high for _, high in inputs)


def _pad(module: dialect.Pad, inputs: Sequence[Interval]) -> Interval:
    low, high = _hull(module, inputs)
    return (min(low, module.value), max(high, module.value)) if module.mode == "constant" else (low, high)


def _average(module: nn.Module, inputs: Sequence[Interval]) -> Interval:
    low, high = _hull(module, inputs)
    padded = any(torch.as_tensor(getattr(module, "padding", 0)).flatten().tolist())
    if getattr(module, "divisor_override", None) is not None:
        return ANYTHING
    return (min(low, 0.0), max(high, 0.0)) if padded else (low, high)


def _affine(module: dialect.Affine, inputs: Sequence[Interval]) -> Interval:
    low, high = _hull(module, inputs)
    if low == -INFINITY or high == INFINITY:
        return ANYTHING
    ends = torch.stack([double(module.scale) * v + double(module.shift) for v in (low, high)])
    return float(ends.min()), float(ends.max())


def _mix(module: dialect.Mix, inputs: Sequence[Interval]) -> Interval:
    """Each sum, at the ends of what it adds up; what has no weight has no part in it, infinite or not."""
    low, high = _hull(module, inputs)
    weight = double(module.weight)
    up, down = weight.clamp_min(0).sum(1), weight.clamp_max(0).sum(1)

    def ends(over: float, under: float) -> Tensor:
        return torch.where(up > 0, up * over, 0.0) + torch.where(down < 0, down * under, 0.0)

    return float(ends(low, high).min()), float(ends(high, low).max())


def anything(module: nn.Module, inputs: Sequence[Interval]) -> Interval:
    """Where nothing follows from the module."""
    return ANYTHING


INTERVALS: Table[Callable[[Any, Sequence[Interval]], Interval]] = Table(
    "intervals",
    __name__,
    {
        CLIPS: _clip,
        dialect.ClipQuant: lambda module, inputs: (0.0, float(module.lam.max())),
        nn.Softmax: lambda module, inputs: (0.0, 1.0),
        nn.LogSoftmax: lambda module, inputs: (-INFINITY, 0.0),
        dialect.Add: lambda module, inputs: (sum(low for low, _ in inputs), sum(high for _, high in inputs)),
        dialect.AVERAGE_POOLS: _average,
        dialect.Affine: _affine,
        (*dialect.MAX_POOLS, *dialect.ROUTES, dialect.Mean): _hull,
        dialect.Pad: _pad,
        dialect.Mix: _mix,
        Embedding: lambda module, inputs: (float(module.weight.min()), float(module.weight.max())),
        (*dialect.WEIGHTED, *dialect.BATCHNORMS, dialect.Sub, *ROUNDINGS, *BENT): anything,
        dialect.SignedQuant: lambda module, inputs: (-float(module.lam.max()), float(module.lam.max())),
        (*TIME, dialect.Grid): Refusal("belongs to a spiking network", "the network that it was compiled from"),
    },
)


class Intervals:
    """For each node the least and the greatest value that it can have, as far as that follows from the modules.

    They are found when they are asked for, and only once. So a change of the graph meanwhile must keep each node's
    function.
    """

    def __init__(self, graph: fx.GraphModule) -> None:
        self.graph = graph
        self.found: dict[fx.Node, Interval] = {}

    def __getitem__(self, node: fx.Node) -> Interval:
        pending = [node]  # no recursion: a chain may be longer than Python's stack
        while pending:
            last = pending[-1]
            inputs = [i for i in last.args if isinstance(i, fx.Node)] if last.op == "call_module" else []
            if missing := [i for i in inputs if i not in self.found]:
                pending += missing
                continue
            self.found[pending.pop()] = self._one(last, [self.found[i] for i in inputs])
        return self.found[node]

    def _one(self, node: fx.Node, inputs: Sequence[Interval]) -> Interval:
        if node.op != "call_module":
            return ANYTHING
        module = module_of(self.graph, node)
        return INTERVALS.at(node.name, module)(module, inputs)
