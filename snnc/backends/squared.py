"""Convolutions that have a square kernel and the same padding on both sides, which is all that some formats say.

Padding on one side, oblong and dilated kernels, slices and crops become such convolutions once zeros are put around the
kernel: an output `i` reads the inputs `step * i + first + tap * dilation`, and inputs outside are 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Axis:
    """One dimension of a map, and what is read along it.

    Attributes:
        size: of the input.
        out: of the output.
        step: inputs from one output to the next.
        first: the input that the first tap of output 0 reads; negative in the padding.
        taps: of the kernel.
        dilation: inputs from one tap to the next.
    """

    size: int
    out: int
    step: int = 1
    first: int = 0
    taps: int = 1
    dilation: int = 1

    @property
    def plain(self) -> bool:
        """Whether a kernel as it is, with padding on both sides alike, reads the same."""
        reach = self.dilation * (self.taps - 1) + 1
        return self.first <= 0 and (self.size - 2 * self.first - reach) // self.step + 1 == self.out

    def kernels(self) -> dict[int, int]:
        """Sizes of kernels with zeros around the taps that read the same, each with its padding on both sides."""
        reach = self.dilation * (self.taps - 1) + 1
        found: dict[int, int] = {}
        for padding in range(max(0, -self.first), self.size + reach + abs(self.first) + 1):
            room = self.size + 2 * padding
            least = max(room - self.step * self.out + 1, self.first + padding + reach)
            for kernel in range(least, room - self.step * (self.out - 1) + 1):
                found.setdefault(kernel, padding)
        return found


@dataclass(frozen=True)
class Square:
    """A convolution with a square kernel.

    Attributes:
        weight: `[out, in, k]` or `[out, in, k, k]`.
        stride, padding, dilation: one a dimension.
    """

    weight: Tensor
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]


def square(weight: Tensor, axes: tuple[Axis, ...]) -> Square | None:
    """The convolution of `weight` `[out, in, taps ...]` with a square kernel, or None where there is none."""
    stride = tuple(axis.step for axis in axes)
    if len({axis.taps for axis in axes}) == 1 and all(axis.plain for axis in axes):
        return Square(weight, stride, tuple(-axis.first for axis in axes), tuple(axis.dilation for axis in axes))
    choices = [axis.kernels() for axis in axes]
    if not (common := set.intersection(*(set(found) for found in choices))):
        return None
    size = min(common)
    padding = tuple(found[size] for found in choices)
    wide = weight.new_zeros((*weight.shape[:2], *[size] * len(axes)))
    at = [axis.first + pad + axis.dilation * torch.arange(axis.taps) for axis, pad in zip(axes, padding, strict=True)]
    grid: list[Any] = list(torch.meshgrid(*at, indexing="ij"))
    wide[(slice(None), slice(None), *grid)] = weight
    return Square(wide, stride, padding, tuple(1 for _ in axes))


def dense(weight: Tensor, groups: int) -> Tensor:
    """The kernel of a grouped convolution as one of a single group, zeros between the groups."""
    if groups == 1:
        return weight
    out, inputs = len(weight) // groups, weight.shape[1]
    wide = weight.new_zeros((len(weight), groups * inputs, *weight.shape[2:]))
    for g in range(groups):
        wide[g * out : (g + 1) * out, g * inputs : (g + 1) * inputs] = weight[g * out : (g + 1) * out]
    return wide
