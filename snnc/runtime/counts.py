"""Which values of a fixed-point network are counts, whole numbers from 0 to a bound, so that a byte may hold them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from snnc.ir import dialect
from snnc.ir.curved import CURVED
from snnc.ir.embedding import Embedding
from snnc.ir.neurons import GradedIF, Neuron
from snnc.ir.rows import Table
from snnc.ir.temporal import Decode, Encode, Frames, Restart, StepCurrent, Telescoped, TemporalMax

# The largest value, given those of what a module reads; None for what may be no count.
Count = Callable[[Any, Sequence[int | None]], int | None]
# Whatever the type of a value.
MOVES = (dialect.Concat, dialect.Slice, dialect.Take, dialect.Reshape, dialect.Permute, nn.Flatten)


def _no_count(module: Any, sources: Sequence[int | None]) -> None:
    """It gives currents, negative values or fractions."""


def _spikes(module: Neuron, sources: Sequence[int | None]) -> int | None:
    return 1 if module.unit and module.spikes == "binary" else None


def _graded(module: GradedIF, sources: Sequence[int | None]) -> int | None:
    return 2**module.bits - 1 if module.unit else None


def _moved(module: nn.Module, sources: Sequence[int | None]) -> int | None:
    known = [bound for bound in sources if bound is not None]
    return max(known) if len(known) == len(sources) else None


def _padded(module: dialect.Pad, sources: Sequence[int | None]) -> int | None:
    whole = module.mode == "constant" and module.value >= 0 and module.value == int(module.value)
    return max(sources[0], int(module.value)) if whole and sources[0] is not None else None


def _weighted(module: Any, sources: Sequence[int | None]) -> int | None:
    """A layer of whole numbers from 0 on, such as a pool that sums."""
    if sources[0] is None or getattr(module, "padding_mode", "zeros") != "zeros":
        return None
    numbers = [value.detach() for value in (module.weight, module.bias) if value is not None]
    if any(bool(((value < 0) | (value != value.round())).any()) for value in numbers):
        return None
    sums = numbers[0].flatten(1).double().sum(1) * sources[0]
    return int((sums + numbers[1] if len(numbers) > 1 else sums).max())


COUNTS: Table[Count] = Table(
    "counts",
    __name__,
    {
        (*dialect.LINEAR, *dialect.TRAINED, *CURVED, Embedding): _no_count,
        (dialect.Grid, Encode, Frames, Decode, StepCurrent, Telescoped): _no_count,
        (*MOVES, Restart, TemporalMax): _moved,
        dialect.Pad: _padded,
        (nn.Conv2d, nn.Linear): _weighted,
        Neuron: _spikes,
        GradedIF: _graded,
    },
)
