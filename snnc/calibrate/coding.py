"""Values of a shard as bytes, and back to the same bits.

What a number becomes later may depend on how a value lies in memory, since sums run in that order. So a value that is
put away keeps its strides.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

MOST = 127  # units that a byte can tell
MINUS_ZERO = -128  # the byte that stands for -0.0, which some arithmetic leaves


@dataclass(frozen=True)
class Coded:
    """A value as bytes.

    Attributes:
        raw: `[bytes]`.
        value: gives the value back from these bytes, or a copy of them.
    """

    raw: Tensor
    value: Callable[[Tensor], Tensor]


def dense(value: Tensor) -> Tensor:
    """The value, in memory without gaps or overlaps; a copy where it was not."""
    sizes = sorted((stride, size) for size, stride in zip(value.shape, value.stride(), strict=True) if size != 1)
    apart = [math.prod(size for _, size in sizes[:place]) for place in range(len(sizes))]
    return value if value.numel() == 0 or apart == [stride for stride, _ in sizes] else value.contiguous()


def plain(value: Tensor) -> Coded:
    """Any dense value, number by number."""
    shape, strides, kind = value.shape, value.stride(), value.dtype

    def back(raw: Tensor) -> Tensor:
        return raw.view(kind).as_strided(shape, strides)

    return Coded(_flat(value).view(torch.uint8), back)


def spikes(value: Tensor, unit: Tensor) -> Coded | None:
    """A dense value of spikes: a bit for each where there is one or none, else a byte; None where that is not exact.

    Args:
        value: whole multiples of `unit`, of one magnitude `MOST` at most.
        unit: height of a spike, in a shape that broadcasts to that of `value`.
    """
    count = (value / unit).round()
    if not bool((count.abs() <= MOST).all()):  # NaN is not
        return None
    minus = bool((torch.signbit(value) & (value == 0)).any())
    single = not minus and bool(((count == 0) | (count == 1)).all())
    flat = _flat(count.to(torch.int8).masked_fill_(torch.signbit(value) & (value == 0), MINUS_ZERO))
    raw = torch.from_numpy(np.packbits(flat.numpy().view(np.uint8))) if single else flat.view(torch.uint8)
    shape, strides, kind, numbers, unit = value.shape, value.stride(), value.dtype, value.numel(), unit.clone()

    def back(raw: Tensor) -> Tensor:
        flat = torch.from_numpy(np.unpackbits(raw.numpy(), count=numbers)) if single else raw.view(torch.int8)
        code = flat.as_strided(shape, strides)
        found = code.to(kind).mul_(unit)
        return found.masked_fill_(code == MINUS_ZERO, -0.0) if minus else found

    same = torch.equal(_flat(back(raw)).view(torch.uint8), _flat(value).view(torch.uint8))
    return Coded(raw, back) if same else None


def _flat(value: Tensor) -> Tensor:
    """A dense value in the order of its memory."""
    return value.as_strided((value.numel(),), (1,))
