"""Constants as values of every sample, where a value is wanted: queries of a decoder, anchors of a detector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.capture.layout import Laid
from snnc.capture.lowering import Site
from snnc.capture.spellings import FAR
from snnc.capture.values import Filled
from snnc.ir import dialect


@dataclass(frozen=True, eq=False)
class Elsewhere:
    """A constant of every sample whose batch does not stand in front, by itself.

    Attributes:
        sample: what each sample has.
        dims: as those of a `Laid`.
    """

    sample: Tensor
    dims: tuple[tuple[int, ...], ...]


def value(at: Site, sample: Tensor) -> fx.Node:
    """A constant as a value: zero times a number of the input, and the constant added."""
    if not sample.numel():
        at.refuse("reads a constant that holds no number", "that constant left out")
    lowering = at.lowering
    floats = [entry for entry in lowering.entries if entry not in lowering.whole]
    made = [node for node in lowering.build.graph.nodes if node.op == "call_module" and node not in lowering.whole]
    source = (floats or made or lowering.entries)[0]
    x = at.emit(nn.Flatten(1), source, part="constant") if len(at.known(source)) != 1 else source
    x = at.emit(dialect.Take(1, torch.zeros(sample.numel(), dtype=torch.long)), x, part="constant")
    if tuple(sample.shape) != at.known(x):
        x = at.emit(dialect.Reshape(tuple(sample.shape)), x, part="constant")
    number = sample.detach().to(lowering.like).clamp(-FAR, FAR).clone()
    return at.emit(dialect.Affine(torch.zeros_like(number), number), x, part="constant")


def filled(at: Site, constant: Filled) -> fx.Node:
    """One number all over, as a value."""
    return value(at, torch.full(constant.sizes, constant.number))


def laid(at: Site, constant: Elsewhere) -> Laid:
    """The same as its author sees it."""
    return Laid(value(at, constant.sample), constant.dims)


def seen(samples: tuple[int, int], one: Tensor, two: Tensor) -> Elsewhere | None:
    """A constant that was computed for two numbers of samples, if all samples have it alike."""
    if one.dim() != two.dim() or one.dtype != two.dtype:
        return None
    places = [d for d, (a, b) in enumerate(zip(one.shape, two.shape, strict=True)) if a != b]
    if len(places) != 1:
        return None
    (d,) = places
    times = one.shape[d] // samples[0]
    if (one.shape[d], two.shape[d]) != (times * samples[0], times * samples[1]):
        return None
    parts = [v.unflatten(d, (n, times)).movedim(d, 0) for v, n in zip((one, two), samples, strict=True)]
    sample = parts[0][0]
    if not all(torch.equal(part, sample.expand_as(part)) for part in parts):
        return None
    if times == 1:
        return Elsewhere(sample.squeeze(d), tuple((0,) if e == d else (e + (e < d),) for e in range(one.dim())))
    return Elsewhere(sample, tuple((0, e + 1) if e == d else (e + 1,) for e in range(one.dim())))


def spread(at: Site, given: Any) -> Any:
    """Constants whose batch is elsewhere as values, in tuples too."""
    if isinstance(given, (tuple, list)):
        return type(given)(spread(at, v) for v in given)
    return laid(at, given) if isinstance(given, Elsewhere) else given
