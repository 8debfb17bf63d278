"""Several layers and shortcuts that neurons add up, as one convolution of 8-bit integers.

The inputs become one image with more channels, and what a shortcut adds stands in the middle of the kernel. Factors of
shortcuts are as large as thresholds, which are larger than 127, and a byte has room for more than a count: so a count n
enters more than once, as m n, (m - 1) n and, where that is not enough, m n again, and every factor is a sum of these m
times numbers of at most 127.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from snnc.runtime.cpu.integer import MOST

# How many times the products of its main part a common convolution may have. Otherwise the main part is a product of
# gathered windows, which takes 2.75 times as long, and what is done in floats behind it takes as long as 16 outputs.
SLOWER, FLOATS = 2.75, 16


@dataclass(frozen=True)
class Summand:
    """A layer on counts, or a factor.

    Attributes:
        counts: name of what it reads.
        most: the largest of these.
        sample: shape of one sample of them, channels first.
        weight: integers `[outputs, inputs / groups, rows, columns]`, float64.
        stride, padding, dilation, groups: of the convolution.
    """

    counts: str
    most: int
    sample: tuple[int, ...]
    weight: Tensor
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def small(self) -> bool:
        """Whether the weights are 8-bit integers as they are."""
        return bool((self.weight.abs() <= MOST).all())

    @property
    def centred(self) -> bool:
        """Whether its kernel has a middle, and its output the size of its input."""
        sizes = list(zip(self.weight.shape[2:], self.padding, self.dilation, strict=True))
        return self.groups == 1 and self.stride == (1, 1) and all(k % 2 and 2 * p == d * (k - 1) for k, p, d in sizes)

    @property
    def plain(self) -> bool:
        """Whether it sees one pixel."""
        return self.groups == 1 and self.weight.shape[2:] == (1, 1) and self.padding == (0, 0)


@dataclass(frozen=True)
class Part:
    """Counts as they enter the common image: every `stride`-th pixel, times `factor`."""

    counts: str
    stride: tuple[int, int]
    factor: int


@dataclass(frozen=True)
class Whole:
    """One convolution, of the parts one behind the other."""

    parts: list[Part]
    term: Summand


def merged(terms: tuple[Summand, ...]) -> Whole | None:
    """All terms as one, or None where that would not be exact, or not faster."""
    if len(terms) == 1:
        return Whole([Part(terms[0].counts, (1, 1), 1)], terms[0]) if terms[0].small else None
    main = max(terms, key=lambda term: term.weight.numel() * term.centred)
    if not main.centred:
        return None
    parts, weights = [], []
    for term in terms:
        alike = replace(term, counts="", most=0, weight=main.weight, sample=main.sample)
        same = alike == replace(main, counts="", most=0) and term.weight.shape[2:] == main.weight.shape[2:]
        if not (same or term.plain) or (found := _digits(term)) is None:
            return None
        for factor, weight in found:
            parts.append(Part(term.counts, term.stride, factor))
            weights.append(weight if same else _middle(weight, main.weight))
    whole = torch.cat(weights, 1)
    if whole.numel() > (SLOWER + FLOATS / len(whole)) * main.weight.numel():
        return None
    return Whole(parts, replace(main, weight=whole, sample=(whole.shape[1], *main.sample[1:])))


def _middle(weight: Tensor, like: Tensor) -> Tensor:
    """A kernel of one pixel as the middle of a larger one."""
    whole = weight.new_zeros(*weight.shape[:2], *like.shape[2:])
    whole[:, :, like.shape[2] // 2, like.shape[3] // 2] = weight[:, :, 0, 0]
    return whole


def _digits(term: Summand) -> list[tuple[int, Tensor]] | None:
    """Weights as a sum of factors times numbers of at most 127; None if that takes more than four of them."""
    if term.small:
        return [(1, term.weight)]
    m, rest = MOST // term.most, term.weight
    found: list[tuple[int, Tensor]] = []
    for _ in range(3):
        # The last two: rest = m a + (m - 1) b, with a and b about the same. A count that enters once has no second.
        both = (2 * rest / (2 * m - 1)).round()
        b = m * both - rest
        a = both - b
        if m > 1 and float(torch.maximum(a.abs(), b.abs()).max()) <= MOST:
            return [*found, (m, a), (m - 1, b)]
        most = (rest / m).round().clamp(-MOST, MOST)
        found.append((m, most))
        rest = rest - m * most
        if not bool(rest.any()):
            return found
    return None
