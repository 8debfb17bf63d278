"""What a pre-activation looks like, seen in data or predicted, and the thresholds that follow from it."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

BINS = 2048
PART = 2**22  # values that a histogram counts at a time; several numbers are computed of each


class Statistics(Protocol):
    """Distribution of the input of one activation, channel by channel.

    Every method gives a bound `[C]`, or `[1]` with `per="layer"`, in the unit of the activation, > 0.

    Attributes:
        rank: dimensions of a value behind its channel: 0 for `[B, C]`, 2 for images.
    """

    rank: int

    def maximum(self, per: str) -> Tensor:
        """Largest activation."""

    def percentile(self, percent: float, per: str) -> Tensor:
        """The activation (zeros counted) that `percent` % of all do not exceed."""

    def mse(self, levels: int, shift: float, per: str) -> Tensor:
        """The bound at which clip-quantisation to `levels` levels has the least mean square error."""


def shaped(bound: Tensor, rank: int) -> Tensor:
    """A bound `[C]` as float32 that broadcasts over `[B, C, ...]`; `[1]`, one for a layer, becomes `[]`."""
    bound = bound.float()
    return bound[0].clone() if len(bound) == 1 else bound.reshape(-1, *[1] * rank)


def positive(bound: Tensor) -> Tensor:
    """A channel that never fired has no bound of its own: it gets the largest of its layer (1 where all are silent)."""
    fallback = bound.max() if bool((bound > 0).any()) else torch.ones(())
    return torch.where(bound > 0, bound, fallback.to(bound))


class Histogram:
    """Histogram of positive values, channel by channel, over any number of batches.

    The range of a channel is a power of two and doubles when a value exceeds it, two bins merging into one: so the
    result does not depend on how the data was cut into batches, and memory does not grow with it.

    Attributes:
        counts: `[C, BINS]`, values in `(0, top]`.
        total: values seen in each channel, those <= 0 among them.
        top: `[C]`, upper end of the range.
        peak: `[C]`, the largest value itself.
    """

    def __init__(self, channels: int, rank: int = 0) -> None:
        self.rank = rank
        self.counts = torch.zeros(channels, BINS, dtype=torch.float64)
        self.top = torch.full((channels,), 2.0**-40, dtype=torch.float64)
        self.peak = torch.zeros(channels, dtype=torch.float64)
        self.total = 0

    def update(self, x: Tensor) -> None:
        """Adds a batch `[B, C, ...]`."""
        for part in x.detach().split(max(1, PART * len(x) // max(1, x.numel()))):
            self._update(part)

    def _update(self, x: Tensor) -> None:
        values = x.movedim(1, 0).flatten(1)
        peak = values.amax(1).to(self.peak).clamp_min(0)
        self.total += values.shape[1]
        self.peak = torch.maximum(self.peak, peak)
        self._grow(torch.where(peak > 0, 2.0 ** torch.ceil(torch.log2(peak.clamp_min(2.0**-40))), self.top))
        scale = (BINS / self.top).to(values)
        # Slot 0 takes what is not positive and is dropped.
        slot = torch.where(values > 0, (values * scale[:, None]).ceil().clamp(1, BINS), 0).long()
        slot += torch.arange(len(slot), device=slot.device)[:, None] * (BINS + 1)
        counts = torch.bincount(slot.flatten(), minlength=len(slot) * (BINS + 1))
        self.counts += counts.reshape(-1, BINS + 1)[:, 1:].to(self.counts)

    def _grow(self, top: Tensor) -> None:
        for _ in range(2000):
            small = self.top < top
            if not small.any():
                return
            if not self.counts[small].any():
                self.top[small] = top[small]
                return
            merged = self.counts[small].reshape(-1, BINS // 2, 2).sum(2)
            self.counts[small] = torch.cat([merged, torch.zeros_like(merged)], 1)
            self.top[small] *= 2

    def add(self, other: Histogram) -> None:
        """Adds the counts of another histogram. The result is the same as if one had seen both, in any order."""
        moved = Histogram(len(other.top))
        moved.counts, moved.top = other.counts.clone(), other.top.clone()
        top = torch.maximum(self.top, other.top)
        self._grow(top)
        moved._grow(top)
        self.counts += moved.counts
        self.peak = torch.maximum(self.peak, other.peak)
        self.total += other.total

    def merged(self) -> Histogram:
        """All channels as one."""
        one = Histogram(1)
        one.top, one.peak = self.top.amax(0, keepdim=True), self.peak.amax(0, keepdim=True)
        one.total = self.total * len(self.top)
        same = Histogram(len(self.top))
        same.counts, same.top = self.counts.clone(), self.top.clone()
        same._grow(one.top.expand(len(self.top)))
        one.counts = same.counts.sum(0, keepdim=True)
        return one

    def maximum(self, per: str) -> Tensor:
        """See `Statistics`."""
        return positive((self.merged() if per == "layer" else self).peak)

    def percentile(self, percent: float, per: str) -> Tensor:
        """See `Statistics`. Interpolates within a bin."""
        h = self.merged() if per == "layer" else self
        below = h.total - h.counts.sum(1)
        reached = below[:, None] + h.counts.cumsum(1)
        wanted = percent / 100 * h.total
        index = (reached < wanted).sum(1).clamp_max(BINS - 1)
        inside = h.counts.gather(1, index[:, None])[:, 0]
        before = reached.gather(1, index[:, None])[:, 0] - inside
        share = ((wanted - before) / inside.clamp_min(1)).clamp(0, 1)
        value = torch.minimum((index + share) * h.top / BINS, h.peak)
        # A channel that is silent in so many cases gets its peak: the percentile would be zero.
        return positive(torch.where(below >= wanted, h.peak, value))

    def mse(self, levels: int, shift: float, per: str) -> Tensor:
        """See `Statistics`. A grid over fractions of the peak, then a finer one around the best."""
        h = self.merged() if per == "layer" else self
        middle = (torch.arange(BINS, dtype=torch.float64) + 0.5) / BINS * h.top[:, None]
        # Number and sum of the values in each bin and all above it.
        tails = [v.flip(1).cumsum(1).flip(1) for v in (h.counts, h.counts * middle)]
        coarse = torch.logspace(-2, 0, 60, dtype=torch.float64)
        fine = torch.linspace(0.925, 1.075, 31, dtype=torch.float64)
        best = h.peak
        for grid in (coarse, fine):
            bounds = [torch.minimum(best * fraction, h.peak).clamp_min(1e-30) for fraction in grid]
            errors = torch.stack([h._error(bound, levels, shift, *tails) for bound in bounds])
            best = torch.stack(bounds).gather(0, errors.argmin(0, keepdim=True))[0]
        return positive(torch.where(h.peak > 0, best, 0))

    def _error(self, bound: Tensor, levels: int, shift: float, number: Tensor, total: Tensor) -> Tensor:
        """Square error of clip-quantisation at a bound `[C]`, up to a constant of each channel.

        A value v is quantised to as many steps q as there are edges `(k - shift) * step`, k = 1..levels, below it. So
        `(q - v)^2 - v^2`, summed over values, is a sum over edges of the values above them. Within a bin the values
        are taken to be spread evenly.
        """
        k = torch.arange(1, levels + 1, dtype=torch.float64)
        step = (bound / levels)[:, None]
        edge, width = (k - shift) * step, (self.top / BINS)[:, None]
        index = (edge / width).floor().clamp(0, BINS - 1).long()
        # Of the bin that holds the edge, what lies below it does not count.
        below = self.counts.gather(1, index) * (edge / width - index).clamp(0, 1)
        above = number.gather(1, index) - below
        mass = total.gather(1, index) - below * (edge + index * width) / 2
        return ((2 * k - 1) * step**2 * above - 2 * step * mass).sum(1)


class Gaussian:
    """Pre-activations taken to be normal, mean `mu` and standard deviation `sigma`, both `[C]`.

    Source of the least-square-error bound: the fixed point of Huang et al. (DCGS), in the general form of H-MT (AAAI
    2026, lemma 4.4), with levels 0..n.
    """

    def __init__(self, mu: Tensor, sigma: Tensor, rank: int = 0) -> None:
        self.rank = rank
        self.mu = mu.double()
        self.sigma = sigma.double().clamp_min(1e-12)

    def _layer(self, bound: Tensor, per: str) -> Tensor:
        return bound.amax(0, keepdim=True) if per == "layer" else bound

    def maximum(self, per: str) -> Tensor:
        """See `Statistics`. Four standard deviations above the mean."""
        return positive(self._layer(self.mu + 4 * self.sigma, per))

    def percentile(self, percent: float, per: str) -> Tensor:
        """See `Statistics`."""
        quantile = torch.special.ndtri(torch.tensor(percent / 100, dtype=torch.float64))
        return positive(self._layer(self.mu + quantile * self.sigma, per))

    def mse(self, levels: int, shift: float, per: str) -> Tensor:
        """See `Statistics`. `shift` is 0.5 by derivation; the largest bound stands for a layer."""
        low, high = 0.02 * self.sigma, self.mu.clamp_min(0) + 8 * self.sigma
        for _ in range(50):
            theta = (low * high).sqrt()
            above = self._gain(theta, levels) < 1
            low, high = torch.where(above, low, theta), torch.where(above, theta, high)
        return positive(self._layer(theta, per))

    def _gain(self, theta: Tensor, levels: int) -> Tensor:
        """Least-squares gain of the quantiser, E[x q] / E[q^2]: above 1 below the best bound, below 1 above it."""
        middle = 2 * torch.arange(1, levels + 1, dtype=torch.float64) - 1
        c = (middle * theta[:, None] / (2 * levels) - self.mu[:, None]) / (2**0.5 * self.sigma[:, None])
        error = torch.erf(c)
        d = levels**2 - (middle * error).sum(1)
        gain = self.mu / theta * levels * (levels - error.sum(1)) / d
        gain = gain + self.sigma / ((torch.pi / 2) ** 0.5 * theta) * levels * torch.exp(-(c**2)).sum(1) / d
        # Where next to nothing fires the ratio is 0/0: the bound is then far too high.
        return torch.where(torch.isfinite(gain) & (d > 1e-9), gain, torch.zeros_like(gain))
