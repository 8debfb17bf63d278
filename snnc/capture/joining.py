"""Spellings of joining values, with constants among them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from snnc.capture import routes
from snnc.capture.lowering import Site
from snnc.capture.values import Filled, Repeated
from snnc.ir import dialect


def cat(at: Site, tensors: Sequence[Any], dim: Any = 0) -> Any:
    """Values joined along `dim`; constants at the ends are padding, to which they are added."""
    values = [_blank(at, v) for v in tensors]
    first = next(v for v in values if isinstance(v, fx.Node))
    dim = at.axis(first, dim)
    front = _constants(values)
    back = _constants(values[len(front) :][::-1])[::-1]
    values = values[len(front) : len(values) - len(back)]
    if not all(isinstance(v, fx.Node) for v in values):
        return _between(at, [*front, *values, *back], dim)
    x = values[0] if len(values) == 1 else at.emit(dialect.Concat(dim), *values)
    if not front and not back:
        return x
    sizes = at.known(x)
    widths = [sum(_width(v, dim) for v in part) for part in (front, back)]
    x = at.emit(dialect.Pad(tuple([0, 0] * (len(sizes) - dim) + widths)), x)
    if not any(isinstance(v, Repeated) for v in (*front, *back)):
        return x
    middle = Filled(sizes, 0.0)
    blocks = [_block(at, v, dim, sizes) for v in (*front, middle, *back)]
    return _added(at, x, torch.cat(blocks, dim - 1))


def _between(at: Site, values: Sequence[Any], dim: int) -> fx.Node:
    """Data with constants between: the data joined, each entry brought to its place, and the constants added."""
    data = [v for v in values if isinstance(v, fx.Node)]
    constant = [v for v in values if not isinstance(v, fx.Node)]
    if not all(isinstance(v, (Filled, Repeated)) for v in constant):
        at.refuse("joins data and constants that differ from sample to sample", "constants of one sample's shape")
    x = data[0] if len(data) == 1 else at.emit(dialect.Concat(dim), *data)
    blocks: list[Tensor] = []
    places: list[int] = []
    for value in values:
        if isinstance(value, fx.Node):
            start = sum(len(block) for block in blocks)
            block = at.lowering.like.new_zeros(at.known(value))
            places += range(start, start + block.shape[dim - 1])
        else:
            block = _block(at, value, dim, at.known(x))
        blocks.append(block.movedim(dim - 1, 0))
    whole = torch.cat(blocks).movedim(0, dim - 1)
    weight = at.lowering.like.new_zeros(whole.shape[dim - 1], len(places))
    weight[places, range(len(places))] = 1.0
    return _added(at, at.emit(dialect.Mix(dim, weight), x), whole)


def _added(at: Site, x: fx.Node, constant: Tensor) -> fx.Node:
    """`x + constant`, of one sample's shape."""
    return at.emit(dialect.Affine(torch.ones_like(constant), constant), x)


def _block(at: Site, value: Filled | Repeated, dim: int, sizes: tuple[int, ...]) -> Tensor:
    """A constant part of a sample, as numbers; a part along `dim` of something of shape `sizes`."""
    if isinstance(value, Repeated):
        wanted = tuple(value.sample.shape[d] if d == dim - 1 else n for d, n in enumerate(sizes))
        if tuple(value.sample.shape) != wanted:
            at.refuse(
                f"joins values of shape {tuple(value.sample.shape)} and {sizes}", "check the network on one sample"
            )
        return value.sample.detach().to(at.lowering.like)
    return at.lowering.like.new_full(value.sizes, value.number)


def _constants(values: Sequence[Any]) -> list[Any]:
    """Leading constants."""
    return list(itertools.takewhile(lambda v: isinstance(v, (Filled, Repeated)), values))


def _width(value: Filled | Repeated, dim: int) -> int:
    return int(value.sample.shape[dim - 1]) if isinstance(value, Repeated) else value.sizes[dim - 1]


def _blank(at: Site, value: Any) -> Any:
    """A constant that is the same for every sample; one of zeros says no more than its shape."""
    if isinstance(value, Tensor) and value.dim() > 1:
        value = Repeated(value[0]) if value.any() and at.alike(value) else value
        return value if isinstance(value, Repeated) or value.any() else Filled(tuple(value.shape[1:]), 0.0)
    if isinstance(value, Filled) and value.number:
        return Repeated(torch.full(value.sizes, value.number))
    return value


def hstack(at: Site, tensors: Sequence[Any]) -> Any:
    """Values joined along dimension 1."""
    return cat(at, tensors, 1)


def stack(at: Site, tensors: Sequence[Any], dim: int = 0) -> Any:
    """Values joined along a new dimension."""
    return cat(at, [routes.unsqueeze(at, x, dim) for x in tensors], dim)
