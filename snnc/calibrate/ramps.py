"""Functions of one number as sums of ramps: exactly where they are piecewise linear, by least squares elsewhere.

A ramp is `clip(direction (x - start), 0, width)`: one ReLU, or one clipped one. Of a piecewise linear function each
piece that is not flat is one ramp, and what its neuron emits is worth the slope. So at any x all ramps but one are
either silent or full, and only one has an error of rounding: a sum of ReLUs that run on without end would add up the
errors of all, with weights that mostly cancel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from snnc.ir.curved import Clip, Unary

GRID = 4097  # points at which a function is looked at as a whole
MOST = 16  # bends of a function that is taken as piecewise linear
STRAIGHT = 1e-9  # by which slopes may differ and be one, against the largest


@dataclass(frozen=True)
class Ramp:
    """`slope * clip(direction * (x - start), 0, width)`.

    Attributes:
        start: where it leaves zero.
        width: how far it rises, infinite without end.
        slope: what it is worth.
        direction: 1 to the right, -1 to the left.
    """

    start: Tensor
    width: Tensor
    slope: Tensor
    direction: float = 1.0


@dataclass(frozen=True)
class Ramps:
    """`constant + sum of ramps`. All tensors broadcast over one sample.

    Attributes:
        constant: what it is where all ramps are zero.
        ramps: one or more.
        largest, rms: error over the data, each `[C]`; zero where nothing was approximated.
    """

    constant: Tensor
    ramps: tuple[Ramp, ...]
    largest: Tensor
    rms: Tensor

    def behind(self, rank: int) -> Ramps:
        """From `[C]` to shapes that broadcast over a sample with `rank` dimensions behind its channels."""

        def shaped(value: Tensor) -> Tensor:
            return value[0] if len(value) == 1 else value.reshape(-1, *[1] * rank)

        ramps = [
            replace(one, start=shaped(one.start), width=shaped(one.width), slope=shaped(one.slope))
            for one in self.ramps
        ]
        return replace(self, constant=shaped(self.constant), ramps=tuple(ramps))


NONE = torch.zeros(1, dtype=torch.float64)
INFINITE = torch.tensor(math.inf, dtype=torch.float64)


def _exact(constant: Tensor | float, *ramps: tuple[Tensor | float, Tensor | float, Tensor | float, float]) -> Ramps:
    def double(value: Tensor | float) -> Tensor:
        return torch.as_tensor(value, dtype=torch.float64)

    made = tuple(Ramp(double(start), double(width), double(slope), way) for start, width, slope, way in ramps)
    return Ramps(double(constant), made, NONE, NONE)


def _leaky(slope: Tensor | float) -> Ramps:
    return _exact(0.0, (0.0, INFINITE, 1.0, 1.0), (0.0, INFINITE, -slope, -1.0))


def _clip(module: Clip) -> Ramps | None:
    low, high = module.low, module.high
    if low is None:
        return None if high is None else _exact(high, (high, INFINITE, -1.0, -1.0))
    if high is None:
        return _exact(low, (low, INFINITE, 1.0, 1.0))
    width = high.double() - low.double()
    return _exact(low, (low, width, 1.0, 1.0)) if bool((width > 0).all()) else None


def _prelu(module: nn.PReLU, rank: int) -> Ramps:
    slope = module.weight.detach()
    return _leaky(slope[0] if len(slope) == 1 else slope.reshape(-1, *[1] * (rank - 2)))


def _shrink(lambd: float) -> Ramps:
    return _exact(0.0, (lambd, INFINITE, 1.0, 1.0), (-lambd, INFINITE, -1.0, -1.0))


EXACT: dict[type[nn.Module], Callable[..., Ramps | None]] = {
    nn.LeakyReLU: lambda module, _: _leaky(module.negative_slope),
    nn.PReLU: _prelu,
    nn.Hardsigmoid: lambda module, _: _exact(0.0, (-3.0, 6.0, 1 / 6, 1.0)),
    nn.Softshrink: lambda module, _: _shrink(module.lambd),
    Clip: lambda module, _: _clip(module),
    Unary: lambda module, _: _leaky(-1.0) if module.kind == "abs" else None,
}


def exactly(module: nn.Module | None, rank: int) -> Ramps | None:
    """A module that is piecewise linear as ramps; None for any other.

    Args:
        module: a function of each number.
        rank: dimensions of its value, the batch among them.
    """
    known = None if module is None else EXACT.get(type(module))
    return known(module, rank) if known else None


def broken(function: Callable[[Tensor], Tensor], low: float, high: float) -> Ramps | None:
    """A function that is piecewise linear from `low` to `high`, with `MOST` bends at most, as ramps; None for others.

    A bend is where the lines on either side of it meet, which is exact to a few roundings of float64.
    """
    x = torch.linspace(low, high, GRID, dtype=torch.float64)
    y = function(x)
    slope = (y[1:] - y[:-1]) / (x[1:] - x[:-1])
    bent = torch.nonzero((slope[1:] - slope[:-1]).abs() > STRAIGHT * slope.abs().max())[:, 0] + 1
    if not len(bent) or len(bent) > 2 * MOST:
        return None
    knots, slopes = [], [slope[0]]
    for i in bent.tolist():  # the point between intervals i - 1 and i
        if i + 1 in bent:
            continue  # the bend lies in interval i, and shows at both its ends
        start = i - 1 if i - 1 in bent else i
        a, b = start - 1, i
        meets = (y[b] - y[a] + slope[a] * x[a] - slope[b] * x[b]) / (slope[a] - slope[b])
        knots.append(torch.where(meets.abs() < STRAIGHT * (high - low), 0.0, meets))
        slopes.append(slope[b])
    at = torch.stack(knots)
    small = STRAIGHT * torch.stack(slopes).abs().max()
    flat = (bool(slopes[0].abs() < small), bool(slopes[-1].abs() < small))
    worth = torch.stack(slopes[int(flat[0]) : len(slopes) - int(flat[1])])
    worth[0] = worth[0] if flat[0] else -worth[0]
    made = Ramps(NONE, tuple(between(at[None], worth[None], flat)), NONE, NONE)
    made = replace(made, ramps=tuple(one for one in made.ramps if bool((one.slope.abs() >= small).all())))
    made = replace(made, constant=function(at[:1]))
    return made if bool(((sum_of(made, x[None])[0] - y).abs() <= 1e-6 * y.abs().max()).all()) else None


def jumps(function: Callable[[Tensor], Tensor], low: float, high: float) -> bool:
    """Whether a function jumps, or is not finite, somewhere from `low` to `high`.

    Every interval is halved again and again, towards the greater change: what is left of that is a jump.
    """
    x = torch.linspace(low, high, GRID, dtype=torch.float64)
    left, right = x[:-1], x[1:]
    start, end = function(left), function(right)
    size = (start.max() - start.min()).abs()
    for _ in range(40):
        middle = (left + right) / 2
        value = function(middle)
        upper = (end - value).abs() > (value - start).abs()
        left, start = torch.where(upper, middle, left), torch.where(upper, value, start)
        right, end = torch.where(upper, right, middle), torch.where(upper, end, value)
    steps = (end - start).abs()
    return not bool((steps <= 1e-3 * size).all() and torch.isfinite(steps).all())


def between(at: Tensor, slopes: Tensor, flat: tuple[bool, bool]) -> list[Ramp]:
    """The ramps between knots `[C, K]`, and beyond the first and the last where the function is not flat there."""
    endless = torch.full_like(at[:, 0], math.inf)
    found = [] if flat[0] else [(at[:, 0], endless, -1.0)]
    found += [(at[:, k], at[:, k + 1] - at[:, k], 1.0) for k in range(at.shape[1] - 1)]
    found += [] if flat[1] else [(at[:, -1], endless, 1.0)]
    return [Ramp(start, width, slopes[:, i], way) for i, (start, width, way) in enumerate(found)]


def sum_of(made: Ramps, x: Tensor) -> Tensor:
    """The value of ramps with tensors `[C]` at points `[C, N]`."""
    columns = [
        one.slope[:, None] * torch.minimum((one.direction * (x - one.start[:, None])).clamp_min(0), one.width[:, None])
        for one in made.ramps
    ]
    return made.constant[:, None] + torch.stack(columns).sum(0)
