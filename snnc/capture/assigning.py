"""Spellings of writing into a part of a value, which `torch.export` shows as a new value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from snnc.capture import gathering, routes
from snnc.capture.lowering import Site
from snnc.capture.values import Batch, Filled, Repeated, Spelling
from snnc.ir import dialect

SIZES = ("writes a value of another shape than the part that it is written to", "check the network on one sample")


def fill(at: Site, x: Any, value: Any) -> Any:
    """`x.fill_(number)`: the same number everywhere."""
    if isinstance(value, fx.Node):
        at.refuse("fills a value with one of the input's", "keep samples apart, and constants constant")
    number = float(value.item() if isinstance(value, Tensor) else value)
    return Filled(at.known(x), number) if isinstance(x, fx.Node) else Filled(_shape(at, x), number)


def copy(at: Site, x: Any, other: Any, non_blocking: bool = False) -> Any:
    """`x.copy_(other)`: the other one, in the shape of the first."""
    wanted = _shape(at, x)
    if isinstance(other, fx.Node):
        return gathering.expand(at, other, Batch(), *wanted)
    if isinstance(other, Tensor):
        return Repeated(other.detach().expand(1, *wanted)[0])
    if _shape(at, other) != wanted:
        at.refuse(*SIZES)
    return other


def slice_scatter(at: Site, x: Any, src: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    """`x[..., start:end:step] = src`."""
    if dim == 0:
        whole = start in (0, None) and (end is None or isinstance(end, Batch) or at.integer(end) > routes.END)
        if whole and step == 1:
            return src
        at.refuse("writes into some samples", "write into all of them: x[:, ...] = y")
    sizes = _shape(at, x)
    dim = at.axis(x, dim) if isinstance(x, fx.Node) else dim % (len(sizes) + 1)
    bounds = slice(*(None if n is None else at.integer(n) for n in (start, end, step)))
    return _written(at, x, src, dim, list(range(sizes[dim - 1]))[bounds])


def select_scatter(at: Site, x: Any, src: Any, dim: int, index: Any) -> Any:
    """`x[..., index] = src`."""
    sizes = _shape(at, x)
    dim, index = dim % (len(sizes) + 1), at.integer(index)
    if dim == 0:
        at.refuse("writes into one sample", "write into all of them: x[:, ...] = y")
    one = (*sizes[: dim - 1], 1, *sizes[dim:])
    if isinstance(src, fx.Node):
        src = routes.unsqueeze(at, src, dim)
    elif isinstance(src, Filled):
        src = Filled(one, src.number)
    else:
        sample = src.sample if isinstance(src, Repeated) else src.detach().expand(1, *sizes[: dim - 1], *sizes[dim:])[0]
        src = Repeated(sample.unsqueeze(dim - 1))
    return _written(at, x, src, dim, [index % sizes[dim - 1]])


def _written(at: Site, x: Any, src: Any, dim: int, places: Sequence[int]) -> Any:
    """`x` with entries `places` of dimension `dim` from `src`."""
    sizes = _shape(at, x)
    if _shape(at, src) != (*sizes[: dim - 1], len(places), *sizes[dim:]):
        at.refuse(*SIZES)
    if not (isinstance(x, fx.Node) or isinstance(src, fx.Node)):
        sample = _numbers(at, x, sizes).clone()
        sample.index_copy_(dim - 1, torch.tensor(places), _numbers(at, src, _shape(at, src)))
        return Repeated(sample)
    if isinstance(x, fx.Node) and isinstance(src, fx.Node):
        order = list(range(sizes[dim - 1]))
        for entry, place in enumerate(places):
            order[place] = sizes[dim - 1] + entry
        joined = at.emit(dialect.Concat(dim), x, src)
        return gathering.index_select(at, joined, dim, torch.tensor(order))
    if isinstance(x, fx.Node):  # and a constant: what is there goes, and the constant is added
        keep, more = torch.ones(sizes).to(at.lowering.like), torch.zeros(sizes).to(at.lowering.like)
        keep.index_fill_(dim - 1, torch.tensor(places), 0.0)
        more.index_copy_(dim - 1, torch.tensor(places), _numbers(at, src, _shape(at, src)))
        return at.emit(dialect.Affine(keep, more), x)
    # A value within a constant: each entry of the value in its place, zeros elsewhere, and the constant is added.
    weight = torch.zeros(sizes[dim - 1], len(places)).to(at.lowering.like)
    weight[torch.tensor(places), torch.arange(len(places))] = 1.0
    more = _numbers(at, x, sizes).clone().index_fill_(dim - 1, torch.tensor(places), 0.0)
    y = at.emit(dialect.Mix(dim, weight), src)
    return at.emit(dialect.Affine(torch.ones_like(more), more), y) if more.any() else y


def _shape(at: Site, value: Any) -> tuple[int, ...]:
    """Shape of one sample."""
    if isinstance(value, fx.Node):
        return at.known(value)
    if isinstance(value, Filled):
        return value.sizes
    if isinstance(value, Tensor) and not at.alike(value):
        at.refuse("writes constants that are not alike for every sample", "constants of one sample's shape")
    return tuple((value.sample if isinstance(value, Repeated) else value[0]).shape)


def _numbers(at: Site, value: Any, sizes: tuple[int, ...]) -> Tensor:
    """A constant of one sample."""
    if isinstance(value, Filled):
        return torch.full(sizes, value.number).to(at.lowering.like)
    sample: Tensor = value.sample if isinstance(value, Repeated) else value[0]
    return sample.detach().to(at.lowering.like).expand(sizes)


SPELLINGS: dict[str, Spelling] = {
    "fill": fill,
    "copy": copy,
    "slice_scatter": slice_scatter,
    "select_scatter": select_scatter,
}
