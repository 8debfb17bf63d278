"""What the proof of a fixed-point network writes down: ranges of integers, and a row for each layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from snnc.errors import VerifyError

LIMIT = 2**24  # float32 holds every integer up to here
TF32, BF16 = 11, 8  # significant bits of an operand on matrix units of these kinds


@dataclass(frozen=True)
class Row:
    """What was proved of one layer.

    Attributes:
        name: of the node.
        module: its class.
        bits: of the largest weight, sign included and without the power of two that all weights of an output share;
            None where there are no weights.
        bound: no integer inside the layer is larger, partial sums and potentials included.
        headroom: bits between `bound` and 2^24.
        tf32, bf16: whether both operands of its products are exact in these formats; None where it has no products of
            matrices.
    """

    name: str
    module: str
    bits: int | None
    bound: int
    headroom: float
    tf32: bool | None
    bf16: bool | None


@dataclass(frozen=True)
class Span:
    """Least and largest integer of a value, float64: `[]`, or `[C]` over its channels.

    `rank` is the number of dimensions of one sample, where it is known.
    """

    low: Tensor
    high: Tensor
    rank: int | None = None

    @property
    def size(self) -> Tensor:
        """Largest magnitude."""
        return torch.maximum(self.low.abs(), self.high.abs())

    def whole(self, rank: int | None = None) -> Span:
        """One range for all channels."""
        return Span(self.low.min(), self.high.max(), rank)


def double(value: float) -> Tensor:
    """One number in float64."""
    return torch.tensor(value, dtype=torch.float64)


def holds_integers(dtype: torch.dtype) -> bool:
    """Whether a type holds every integer up to 2^24."""
    return dtype.itemsize >= 4


def integers(name: str, value: Tensor) -> Tensor:
    """A parameter in float64.

    Raises:
        VerifyError: it holds something else than integers below 2^24, or would compute in a type that rounds them.
    """
    if value.is_floating_point() and not holds_integers(value.dtype):
        raise VerifyError(f"'{name}' is {value.dtype}, which does not hold every integer below 2^24.")
    value = value.detach().double()
    if not ((value == value.round()) & (value.abs() < LIMIT)).all():
        raise VerifyError(f"'{name}' holds numbers that are no integers below 2^24.")
    return value


def note(rows: list[Row], name: str, module: Any, bound: Tensor, bits: int | None = None, operand: int = 0) -> None:
    """Adds a row; `operand` is the number of significant bits of the widest operand, 0 where nothing multiplies."""
    largest = int(bound.max())
    headroom = 24 - float(torch.log2(double(max(largest, 1))))
    safe = (operand <= TF32, operand <= BF16) if operand else (None, None)
    rows.append(Row(name, type(module).__name__, bits, largest, round(headroom, 2), *safe))


def significant(values: Tensor) -> int:
    """Significant bits of the widest of some integers: those from its first to its last 1."""
    whole = values.abs().to(torch.int64)
    lowest = (whole & -whole).clamp_min(1)
    return int(torch.div(whole, lowest, rounding_mode="floor").max()).bit_length()


def shared(rows: Tensor) -> Tensor:
    """The largest power of two that divides all integers of each row."""
    whole = rows.abs().to(torch.int64)
    lowest = torch.where(whole > 0, whole & -whole, LIMIT)
    return lowest.amin(1).double()
