"""Least squares: the sum of ramps that is nearest to a function, over the values that data gives it.

Shapes: C channels, N points, K knots, n ramps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from snnc.calibrate.ramps import NONE, Ramps, between, broken, jumps, sum_of
from snnc.calibrate.statistics import BINS, Histogram

POINTS = 256  # at which a function and its approximation are compared, over the range of the data
SPREAD = 0.01  # share of the weight that lies evenly over that range, so that rare values count too
ROUNDS = 16  # in which knots move, at most
FLAT = ((False, False), (True, False), (False, True), (True, True))  # which ends are flat, from likely to unlikely
GAIN = 0.9  # of the square error, that a further flat end has to leave: outside the data it may be wrong


def fitted(function: Callable[[Tensor], Tensor], both: Histogram, pieces: int) -> Ramps | None:
    """The sum of `pieces` ramps that is nearest to a function over the values seen, channel by channel.

    Knots start where, for many of them, the least square error puts them: as dense as `(p f''^2)^(1/5)`, p the density
    of values and f'' the curvature (de Boor, A Practical Guide to Splines, 1978, chapter XII); and once more one after
    the other, each where the error is largest. They move by damped Gauss-Newton steps as long as the error falls, and
    the better of both stays. Whether the ends are flat, which costs no ramp, is what does best for all channels.

    Args:
        function: of each number, the same for all channels.
        both: histogram of `x`, and of `-x` in as many channels more.
        pieces: ramps, 1 or more.

    Returns:
        Ramps with tensors `[C]`, or `[1]` for all channels; None where the function jumps within the range of the
        values.
    """
    x, count, spread = points_of(both, POINTS)
    seen = x[spread > 0]
    low, high = float(seen.min()), float(seen.max())
    if jumps(function, low, high):
        return None
    if (made := broken(function, low - (high - low), high + (high - low))) is not None:
        return made
    y = torch.where(spread > 0, function(x), 0.0)
    p = count / count.sum(1, keepdim=True)
    weight = (1 - SPREAD) * p + SPREAD * spread / spread.sum(1, keepdim=True)
    flat = _flat_ends(*_merged(x, spread, p, function), pieces)
    at, _ = _best(x, y, weight, pieces, flat)
    worth = _solved(_basis(x, at, flat), y, weight)
    made = Ramps(worth[:, 0], tuple(between(at, worth[:, 1:], flat)), NONE, NONE)
    return _measured(made, function, at, both)


def points_of(both: Histogram, points: int) -> tuple[Tensor, Tensor, Tensor]:
    """Values `[C, N]`, how often they occur, and how much of the range of the data each stands for.

    Args:
        both: histogram of `x`, and of `-x` in as many channels more.
        points: N.
    """
    half = points // 2
    counts = both.counts.reshape(len(both.counts), half, -1).sum(2)
    width = (both.top / half)[:, None].expand_as(counts)
    middle = (torch.arange(half, dtype=torch.float64) + 0.5) * width
    x, count, spread = (
        torch.cat([sign * left.flip(1), right], 1)
        for sign, (right, left) in zip((-1, 1, 1), (v.chunk(2) for v in (middle, counts, width)), strict=True)
    )
    count = torch.where(count.sum(1, keepdim=True) > 0, count, 1.0)  # a channel that is always zero
    seen = (count.cumsum(1) > 0) & (count.flip(1).cumsum(1).flip(1) > 0)
    return x, count, spread * seen


def _measured(made: Ramps, function: Callable[[Tensor], Tensor], at: Tensor, both: Histogram) -> Ramps:
    """With its errors, which are largest at knots `[C, K]` and at the ends."""
    x, count, spread = points_of(both, 2 * BINS)
    wrong = torch.where(spread > 0, sum_of(made, x) - function(x), 0.0)
    first, last = _ends(x, spread, both)
    more = torch.cat([at, first, last], 1)
    beyond = torch.where((more >= first) & (more <= last), sum_of(made, more) - function(more), 0.0)
    rms = ((count * wrong.square()).sum(1) / count.sum(1)).sqrt()
    return replace(made, largest=torch.cat([wrong, beyond], 1).abs().amax(1), rms=rms)


def _ends(x: Tensor, spread: Tensor, both: Histogram) -> tuple[Tensor, Tensor]:
    """The least and the largest value of each channel, `[C, 1]`."""
    top, deep = (peak[:, None] for peak in both.peak.chunk(2))
    first = torch.where(spread > 0, x, math.inf).amin(1, keepdim=True)
    last = torch.where(spread > 0, x, -math.inf).amax(1, keepdim=True)
    return torch.where(deep > 0, -deep, first), torch.where(top > 0, top, last)


def _merged(
    x: Tensor, spread: Tensor, p: Tensor, function: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Points `[1, N]` over the range of all channels, the function there, and the weight of each."""
    low, high = float(x[spread > 0].min()), float(x[spread > 0].max())
    grid = torch.linspace(low, high, POINTS, dtype=x.dtype)
    place = ((x - low) / (high - low) * (POINTS - 1)).round().long().clamp(0, POINTS - 1)
    count = torch.bincount(place.flatten(), p.flatten(), minlength=POINTS)
    weight = (1 - SPREAD) * count / count.sum() + SPREAD / POINTS
    return grid[None], function(grid)[None], weight[None]


def _flat_ends(x: Tensor, y: Tensor, weight: Tensor, pieces: int) -> tuple[bool, bool]:
    """Whether the function is taken to be flat to the left and to the right."""
    chosen, least = FLAT[-1], math.inf
    for flat in FLAT:
        if pieces + sum(flat) > 1:
            error = float(_best(x, y, weight, pieces, flat)[1])
            chosen, least = (flat, error) if error < GAIN * least else (chosen, least)
    return chosen


def _best(x: Tensor, y: Tensor, weight: Tensor, pieces: int, flat: tuple[bool, bool]) -> tuple[Tensor, Tensor]:
    """Knots `[C, K]`, and the square error `[C]`."""
    knots = pieces + sum(flat) - 1
    at, error = _settled(x, y, weight, _start(x, y, weight, knots), flat, ROUNDS)
    grown = _start(x, y, weight, max(1, sum(flat)))
    while grown.shape[1] < knots:
        grown, _ = _settled(x, y, weight, grown, flat, ROUNDS // 4)
        left = _error(x, y, weight, grown, flat)[2]
        share = (weight * left.square()).cumsum(1)
        edges = torch.cat([x[:, :1], grown, x[:, -1:]], 1)
        place = torch.searchsorted(x, edges).clamp_max(x.shape[1] - 1)
        reached = share.gather(1, place)
        inside = (reached[:, 1:] - reached[:, :-1]).argmax(1, keepdim=True)  # the piece with most of the error
        half = (reached.gather(1, inside) + reached.gather(1, inside + 1)) / 2
        middle = x.gather(1, torch.searchsorted(share, half).clamp_max(x.shape[1] - 1))
        grown = _apart(torch.cat([grown, middle], 1), x)
    other, found = _settled(x, y, weight, grown, flat, ROUNDS)
    better = found < error
    return torch.where(better[:, None], other, at), torch.where(better, found, error)


def _start(x: Tensor, y: Tensor, weight: Tensor, knots: int) -> Tensor:
    """Knots `[C, K]` at quantiles of the density that many knots would have."""
    slope = (y[:, 1:] - y[:, :-1]) / (x[:, 1:] - x[:, :-1])
    bend = (slope[:, 1:] - slope[:, :-1]).abs() / (x[:, 2:] - x[:, :-2])
    room = x[:, 2:] - x[:, :-2]
    density = weight[:, 1:-1] / room
    amount = torch.where(weight[:, 1:-1] > 0, (density * bend.square()) ** 0.2, 0.0) * room
    amount = amount + 1e-9 * amount.amax(1, keepdim=True) + torch.where(weight[:, 1:-1] > 0, 1e-12, 0.0)
    share = amount.cumsum(1) / amount.sum(1, keepdim=True)
    wanted = ((torch.arange(knots, dtype=torch.float64) + 0.5) / knots).expand(len(x), -1).contiguous()
    place = torch.searchsorted(share.contiguous(), wanted).clamp_max(share.shape[1] - 1)
    return _apart(x[:, 1:-1].gather(1, place), x)


def _apart(knots: Tensor, x: Tensor) -> Tensor:
    """Knots in order and within the range, with a little room between them."""
    room = (x[:, -1:] - x[:, :1]) / POINTS
    knots = knots.sort(1)[0]
    least = knots[:, :1]
    rows = [least]
    for one in knots[:, 1:].split(1, 1):
        rows.append(torch.maximum(one, rows[-1] + room))
    return torch.cat(rows, 1)


def _basis(x: Tensor, at: Tensor, flat: tuple[bool, bool]) -> Tensor:
    """One and every ramp at each point: `[C, N, 1 + n]`."""
    ones = torch.ones_like(at[:, :1]).expand(-1, at.shape[1] + 1)
    columns = [
        torch.minimum((one.direction * (x - one.start[:, None])).clamp_min(0), one.width[:, None])
        for one in between(at, ones, flat)
    ]
    return torch.stack([torch.ones_like(x), *columns], 2)


def _solved(columns: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Weighted least squares: what each column is worth, `[C, columns]`."""
    left = (columns * weight[:, :, None]).transpose(1, 2)
    gram = left @ columns
    scale = gram.diagonal(dim1=1, dim2=2).clamp_min(1e-300).rsqrt()  # columns of one size, then a touch of ridge
    gram = gram * scale[:, :, None] * scale[:, None, :] + 1e-10 * torch.eye(gram.shape[1], dtype=gram.dtype)
    return torch.linalg.solve(gram, (left @ y[:, :, None])[:, :, 0] * scale) * scale


def _error(x: Tensor, y: Tensor, weight: Tensor, at: Tensor, flat: tuple[bool, bool]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean square error `[C]`, and with it what the columns are worth and what is left `[C, N]`."""
    columns = _basis(x, at, flat)
    worth = _solved(columns, y, weight)
    left = y - (columns @ worth[:, :, None])[:, :, 0]
    return (weight * left.square()).sum(1), worth, left


def _settled(
    x: Tensor, y: Tensor, weight: Tensor, at: Tensor, flat: tuple[bool, bool], rounds: int
) -> tuple[Tensor, Tensor]:
    """Knots of least error near those given, and the error `[C]`."""
    error, worth, left = _error(x, y, weight, at, flat)
    for _ in range(rounds):
        slopes = torch.zeros(len(x), at.shape[1] + 1, dtype=x.dtype)
        signs = torch.ones(at.shape[1] + 1 - sum(flat), dtype=x.dtype)
        signs[0] = 1.0 if flat[0] else -1.0
        slopes[:, int(flat[0]) : slopes.shape[1] - int(flat[1])] = worth[:, 1:] * signs
        # A knot that moves to the right keeps the slope before it for longer, which all values behind it feel.
        moved = (slopes[:, None, :-1] - slopes[:, None, 1:]) * (x[:, :, None] > at[:, None, :])
        step = _solved(torch.cat([_basis(x, at, flat), moved], 2), left, weight)[:, -at.shape[1] :]
        before = error
        for share in (1.0, 0.4, 0.1):
            tried = _apart(torch.minimum(torch.maximum(at + share * step, x[:, 1:2]), x[:, -2:-1]), x)
            other, *rest = _error(x, y, weight, tried, flat)
            better = other < error
            at, error = torch.where(better[:, None], tried, at), torch.where(better, other, error)
            worth, left = (torch.where(better[:, None], a, b) for a, b in zip(rest, (worth, left), strict=True))
        if bool((error >= before * (1 - 1e-3)).all()):
            break
    return at, error
