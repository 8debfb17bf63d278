"""Operations on constants that every sample has alike, such as an encoding of places that is made for a whole batch.

They are computed here, for batches of two sizes: what comes out has to be alike for every sample, and for both sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from snnc.capture import constants
from snnc.capture.standins import mapped
from snnc.capture.values import Batch, Filled, ManyBatches, Refused, Repeated

SAMPLES = (13, 17)  # numbers that no author writes into a network
SIZED = frozenset({"repeat", "expand", "tile", "broadcast_to", "zeros", "ones", "full"})  # these take sizes
CONSTANTS = (
    *(Tensor, Filled, Repeated, Batch, ManyBatches, int, float, str, type(None), torch.dtype, torch.device),
    *(torch.layout, type(Ellipsis)),
)
CHECK = "check the network on one sample"


def only(values: Sequence[Any]) -> bool:
    """Whether values are constants, of which at least one is one of every sample."""
    return any(isinstance(v, (Filled, Repeated)) for v in values) and all(isinstance(v, CONSTANTS) for v in values)


def sized(name: str, values: Sequence[Any]) -> bool:
    """Whether a constant is made for a whole batch that does not stand in front."""
    sizes = values[1:] if isinstance(values[0], Tensor) else values
    batch = [isinstance(v, (Batch, ManyBatches)) for v in sizes]
    return name in SIZED and any(batch) and not batch[0] and all(isinstance(v, CONSTANTS) for v in values)


def fold(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """What a function gives, as one constant of every sample, or several; refuses what differs between samples.

    One whose batch does not stand in front is an `Elsewhere`.
    """
    one, two = (_run(function, args, kwargs, samples) for samples in SAMPLES)
    return _same(one, two)


def _run(function: Callable[..., Any], args: Any, kwargs: Any, samples: int) -> Any:
    def real(value: Any) -> Any:
        if isinstance(value, Repeated):
            return value.sample.detach().expand(samples, *value.sample.shape).clone()
        if isinstance(value, Filled):
            return torch.full((samples, *value.sizes), value.number)
        if isinstance(value, ManyBatches):
            return samples * value.times
        return samples if isinstance(value, Batch) else value

    try:
        with torch.no_grad():
            return function(*mapped(args, real), **mapped(kwargs, real))
    except Exception as error:
        raise Refused(f"fails on constants ({type(error).__name__}: {error})", CHECK) from error


def _same(one: Any, two: Any) -> Any:
    if isinstance(one, (tuple, list)) and isinstance(two, (tuple, list)) and len(one) == len(two):
        found = [_same(a, b) for a, b in zip(one, two, strict=True)]
        return found if isinstance(one, list) else tuple(found)
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        if torch.equal(one, two):
            return one
        seen = constants.seen(SAMPLES, one, two)
        if seen is not None:
            return Repeated(seen.sample.clone()) if seen.dims[0] == (0,) else seen
    elif type(one) is int and (one, two) == SAMPLES:
        return Batch()
    elif type(one) is type(two) and one == two:
        return one
    raise Refused(
        "computes a constant that is not the same for every sample", "keep samples apart, and constants constant"
    )
