"""The matrix by which ONNX `Resize` scales one dimension: linear and cubic, by the formulas of its specification."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor

Curve = Callable[[float], float]  # the weight of a value, by its distance


def linear(distance: float) -> float:
    """A tent."""
    return max(0.0, 1 - abs(distance))


def cubic(a: float) -> Curve:
    """Keys' curve (IEEE ASSP 29, 1981); `a` is `cubic_coeff_a`."""

    def curve(distance: float) -> float:
        d = abs(distance)
        if d <= 1:
            return (a + 2) * d**3 - (a + 3) * d**2 + 1
        return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0

    return curve


def matrix(places: list[Fraction], old: int, curve: Curve, reach: int, excluded: bool, wide: Fraction) -> Tensor:
    """Weights `[new, old]`, double precision.

    Args:
        places: where each new value stands among the old ones.
        old: how many there are.
        curve: weights by distance.
        reach: distance from which on they are 0.
        excluded: whether values beyond the ends are left out, and not those at the ends.
        wide: how much wider the curve is, 1 or more: more where a map gets smaller and is smoothed.
    """
    weight = torch.zeros(len(places), old, dtype=torch.float64)
    for row, place in enumerate(places):
        first, last = math.floor(place - reach * wide), math.ceil(place + reach * wide)
        for k in range(first, last + 1):
            if 0 <= k < old or not excluded:
                weight[row, min(max(k, 0), old - 1)] += curve(float((k - place) / wide))
    return weight / weight.sum(1, keepdim=True)
