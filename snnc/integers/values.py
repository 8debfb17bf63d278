"""Values on their way to integers, and what a layer makes of their size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from snnc.calibrate.holding import size_of
from snnc.processes import Pieces

ROOM = 2**10  # magnitude up to which a factor may widen a value


@dataclass
class Value:
    """A node's value.

    Attributes:
        real: in the network of real numbers, in the shards of this process.
        whole: integers, in the same shards.
        grid: what one unit is, `[1, ...]` in float64; 0 where the value is always 0.
        size: largest magnitude of the integers, `[1, ...]` in float64.
    """

    real: Pieces
    whole: Pieces
    grid: Tensor
    size: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return tuple(size_of(self.whole)[1:])


def reach(module: Any, size: Tensor) -> Tensor:
    """Largest magnitudes that a layer gives for inputs of some magnitudes."""
    weight, bias = module.weight, module.bias
    try:
        module.weight, module.bias = (nn.Parameter(v.double().abs(), requires_grad=False) for v in (weight, bias))
        found: Tensor = module(size)
        return found
    finally:
        module.weight, module.bias = weight, bias


def finer(wide: Tensor) -> Tensor:
    """The power of two that widens magnitudes `[1, ...]` up to `ROOM`, alike within a channel: borders see less."""
    if wide.dim() > 2:
        wide = wide.flatten(2).amax(2).reshape(*wide.shape[:2], *[1] * (wide.dim() - 2)).expand(wide.shape)
    return torch.exp2(torch.floor(torch.log2(ROOM / wide.clamp_min(1.0))))


def compact(value: Tensor) -> Tensor:
    """A parameter of one sample's shape with one entry where all are alike, or one a channel."""
    if bool((value == value.flatten()[0]).all()):
        return value.flatten()[0].clone()
    first = value.flatten(1)[:, :1] if value.dim() > 1 else value[:, None]
    if value.dim() > 1 and bool((value.flatten(1) == first).all()):
        return first.reshape(-1, *[1] * (value.dim() - 1)).clone()
    return value.clone()
