"""What the modules of a graph may hold: finite numbers, positive thresholds, and no dimension that is the batch's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from snnc.ir import curved, dialect
from snnc.ir.dialect import is_count
from snnc.ir.embedding import Embedding
from snnc.ir.neurons import Neuron
from snnc.ir.rows import Table
from snnc.ir.temporal import Decode, Encode, FrameMean, Frames, Temporal

Fault = tuple[str, str]  # the attribute, or "" for the module itself, and a clause that goes on after its name


def faults(name: str, module: nn.Module) -> Iterator[str]:
    """What is wrong with what the module of the node called `name` holds, one sentence each."""
    for held, value in module.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            yield f"'{name}.{held}' holds NaN or infinity."
    for held, clause in VALUES.at(name, module)(module):
        yield f"'{name}.{held}' {clause}." if held else f"'{name}' {clause}."


def _nothing(module: Any) -> Iterator[Fault]:
    """Whatever the constructor takes is right."""
    yield from ()


def _positive(bound: Tensor, name: str) -> Iterator[Fault]:
    """A bound is above zero everywhere, and one for all or one for each channel."""
    if not (bound > 0).all():
        yield name, "is not positive everywhere"
    yield from _by_channel(bound, name)


def _by_channel(bound: Tensor, name: str) -> Iterator[Fault]:
    if any(size != 1 for size in bound.shape[1:]):
        yield name, f"has shape {tuple(bound.shape)}; give [] or [C, 1, ...]"


def _levels(module: Any) -> Iterator[Fault]:
    yield from _positive(module.lam, "lam")
    if not is_count(module.L):
        yield "", f"has L = {module.L!r}, not a whole number of levels"


def _signed_levels(module: Any) -> Iterator[Fault]:
    yield from _levels(module)
    if is_count(module.L) and not (is_count(module.units) and module.L % module.units == 0):
        yield "", f"has {module.units!r} units a step for {module.L} levels"


def _grid(module: Any) -> Iterator[Fault]:
    yield from _positive(module.scale, "scale")
    if not (type(module.low) is int and type(module.high) is int and module.low <= 0 <= module.high):
        yield "", f"clips to {module.low!r}..{module.high!r}; whole numbers around 0 are meant"


def _nearest(module: Any) -> Iterator[Fault]:
    if module.mode != "nearest":
        yield "", f"scales by {module.mode!r}; only nearest neighbours are meant"


def _along_one(module: Any) -> Iterator[Fault]:
    if module.dim in (0, None):
        yield "", "acts along the batch"


def _along_some(module: Any) -> Iterator[Fault]:
    if 0 in module.dims or not module.dims:
        yield "", "acts along the batch"


def _steps(module: Any) -> Iterator[Fault]:
    if not is_count(module.T):
        yield "", f"has T = {module.T!r}, not a whole number of steps"


def _temporal(module: Any) -> Iterator[Fault]:
    if clause := module.fault():
        yield "", clause


def _neuron(module: Any) -> Iterator[Fault]:
    yield from _positive(module.theta, "theta")
    yield from _by_channel(module.v0, "v0")
    yield from _temporal(module)


VALUES: Table[Callable[[Any], Iterator[Fault]]] = Table(
    "values",
    __name__,
    {
        (*dialect.LINEAR, *dialect.TRAINED, *curved.CURVED, Embedding): _nothing,
        nn.Upsample: _nearest,
        dialect.ClipQuant: _levels,
        dialect.SignedQuant: _signed_levels,
        dialect.Grid: _grid,
        (*dialect.HEADS, curved.Normalize): _along_one,
        (curved.Greatest, curved.Least): _along_some,
        (Encode, Frames, FrameMean, Decode): _steps,
        Temporal: _temporal,
        Neuron: _neuron,
    },
)
