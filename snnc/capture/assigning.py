"""Spellings of writing into a part of a value, which `torch.export` shows as a new value."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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
    return Filled(at.known(x), number) if isinstance(x, fx.Node) else Filled(shape(at, x), number)


def copy(at: Site, x: Any, other: Any, non_blocking: bool = False) -> Any:
    """`x.copy_(other)`: the other one, in the shape of the first."""
    wanted = shape(at, x)
    if isinstance(other, fx.Node):
        return gathering.expand(at, other, Batch(), *wanted)
    if isinstance(other, Tensor):
        return Repeated(other.detach().expand(1, *wanted)[0])
    if shape(at, other) != wanted:
        at.refuse(*SIZES)
    return other


def slice_scatter(at: Site, x: Any, src: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    """`x[..., start:end:step] = src`."""
    if dim == 0:
        whole = start in (0, None) and (end is None or isinstance(end, Batch) or at.integer(end) > routes.END)
        if whole and step == 1:
            return src
        at.refuse("writes into some samples", "write into all of them: x[:, ...] = y")
    sizes = shape(at, x)
    dim = at.axis(x, dim) if isinstance(x, fx.Node) else dim % (len(sizes) + 1)
    bounds = slice(*(None if n is None else at.integer(n) for n in (start, end, step)))
    return _written(at, x, src, dim, list(range(sizes[dim - 1]))[bounds])


def select_scatter(at: Site, x: Any, src: Any, dim: int, index: Any) -> Any:
    """`x[..., index] = src`."""
    sizes = shape(at, x)
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
    sizes = shape(at, x)
    if shape(at, src) != (*sizes[: dim - 1], len(places), *sizes[dim:]):
        at.refuse(*SIZES)
    if not (isinstance(x, fx.Node) or isinstance(src, fx.Node)):
        sample = _numbers(at, x, sizes).clone()
        sample.index_copy_(dim - 1, torch.tensor(places), _numbers(at, src, shape(at, src)))
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
        more.index_copy_(dim - 1, torch.tensor(places), _numbers(at, src, shape(at, src)))
        return at.emit(dialect.Affine(keep, more), x)
    # A value within a constant: each entry of the value in its place, zeros elsewhere, and the constant is added.
    weight = torch.zeros(sizes[dim - 1], len(places)).to(at.lowering.like)
    weight[torch.tensor(places), torch.arange(len(places))] = 1.0
    more = _numbers(at, x, sizes).clone().index_fill_(dim - 1, torch.tensor(places), 0.0)
    y = at.emit(dialect.Mix(dim, weight), src)
    return at.emit(dialect.Affine(torch.ones_like(more), more), y) if more.any() else y


def shape(at: Site, value: Any) -> tuple[int, ...]:
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


Write = Callable[[Tensor, Tensor], Tensor]  # values, and what is written into them


def placed(
    at: Site, x: Any, new: Any, write: Callable[[int], Write], counts: Sequence[int] = (2, 3)
) -> Any:  # fmt: skip
    """What writing into a value, at places that are constants, makes of it; of which one may be a constant itself.

    As in `gathering`, torch says what is written where: on the numbers of all places of some samples.

    Args:
        at: the call site.
        x: the value that is written into.
        new: what is written.
        write: for a number of samples, what torch does then.
        counts: two numbers of samples that it is tried with.
    """
    sizes, more = shape(at, x), shape(at, new)
    count, every = math.prod(sizes), math.prod(sizes) + math.prod(more)
    if every > gathering.MOST:
        at.refuse(*gathering.LARGE)
    found = []
    for samples in counts:
        table = torch.arange(samples * every, dtype=torch.float64).reshape(samples, every)
        old, late = table[:, :count].reshape(samples, *sizes), table[:, count:].reshape(samples, *more)
        result = write(samples)(old.clone(), late.clone())
        start = every * torch.arange(samples, dtype=torch.float64).reshape(-1, *[1] * len(sizes))
        if result.shape != old.shape or not torch.equal(result, result[:1] + start) or result[0].max() >= every:
            at.refuse("writes values of some samples into others", "keep the batch as the first dimension, by itself")
        found.append(result[0].long())
    if not torch.equal(*found):
        at.refuse("writes values of some samples into others", "keep the batch as the first dimension, by itself")
    return _picked(at, x, new, found[0])


def _picked(at: Site, x: Any, new: Any, places: Tensor) -> Any:
    """The entries of two values in a row at `places`; of a constant they are added."""
    parts = [(v, shape(at, v)) for v in (x, new)]
    data = [isinstance(v, fx.Node) for v, _ in parts]
    if not any(data):
        both = torch.cat([_numbers(at, v, sizes).flatten() for v, sizes in parts])
        return Repeated(both[places])
    flat = [routes.reshape(at, v, Batch(), math.prod(n)) for v, n in parts if isinstance(v, fx.Node)]
    if all(data):
        return gathering.taken(at, at.emit(dialect.Concat(1), *flat), places)
    count = math.prod(parts[0][1])
    first = places < count  # where what is taken comes from the value that is written into
    mine = first if data[0] else ~first
    row = torch.where(mine, places if data[0] else places - count, 0)
    constant, sizes = parts[1 if data[0] else 0]
    numbers = _numbers(at, constant, sizes).flatten()
    other = torch.where(mine, 0, places - count if data[0] else places)
    y = gathering.taken(at, flat[0], row)
    keep = mine.to(at.lowering.like)
    return at.emit(dialect.Affine(keep, numbers[other] * (1 - keep)), y)


def index_put(at: Site, x: Any, indices: Sequence[Any], values: Any, accumulate: bool = False, *_: Any) -> Any:
    """`x[:, places] = values`, at constant places; ATen names a tensor, or nothing, for each dimension."""
    if accumulate or (indices and indices[0] is not None):
        at.refuse("writes into some samples, or adds where it writes", "write into all of them: x[:, places] = y")
    chosen = tuple(slice(None) if i is None else gathering.constant(at, i) for i in indices)
    part = torch.empty((1, *shape(at, x)), device="cpu")[chosen].shape[1:]
    if isinstance(values, fx.Node):
        sizes = at.known(values)
        if len(sizes) != len(part):
            at.refuse(*SIZES)
        values = gathering.expand(at, values, Batch(), *part)
    elif isinstance(values, (Tensor, int, float)):
        values = torch.as_tensor(values)
        values = values[None] if values.dim() <= len(part) else values
        values = Repeated(_alike(at, values).expand(part))

    def write(old: Tensor, late: Tensor) -> Tensor:
        old[chosen] = late
        return old

    return placed(at, x, values, lambda samples: write)


def _alike(at: Site, value: Tensor) -> Tensor:
    """A constant of one sample, of one that has the batch in front."""
    if not at.alike(value):
        at.refuse("writes constants that are not alike for every sample", "constants of one sample's shape")
    return value.detach()[0]


def index_copy(at: Site, x: Any, dim: int, index: Any, source: Any) -> Any:
    """`x.index_copy_(dim, index, source)`."""
    dim, chosen = dim % (len(shape(at, x)) + 1), gathering.constant(at, index).long()
    if dim == 0:
        at.refuse("writes into some samples", "write into all of them, along another dimension")
    return placed(at, x, source, lambda samples: lambda old, late: old.index_copy(dim, chosen, late))


def index_fill(at: Site, x: Any, dim: int, index: Any, value: Any) -> Any:
    """`x.index_fill_(dim, index, number)`."""
    if isinstance(value, fx.Node):
        at.refuse("fills a value with one of the input's", "keep samples apart, and constants constant")
    sizes = shape(at, x)
    dim, chosen = dim % (len(sizes) + 1), gathering.constant(at, index).long()
    if dim == 0:
        at.refuse("writes into some samples", "write into all of them, along another dimension")
    part = (*sizes[: dim - 1], len(chosen), *sizes[dim:])
    return index_copy(at, x, dim, chosen, Filled(part, float(value)))


def scatter(at: Site, x: Any, dim: int, index: Any, src: Any, *, reduce: Any = None) -> Any:
    """`x.scatter(dim, index, src)` by a constant that every sample shares."""
    dim = dim % (len(shape(at, x)) + 1)
    if reduce is not None or dim == 0:
        at.refuse("writes into some samples, or adds where it writes", "write into all of them: x[:, places] = y")
    if isinstance(index, (Repeated, Filled)):
        chosen = index.sample if isinstance(index, Repeated) else torch.full(index.sizes, index.number)
    else:
        if len(gathering.constant(at, index)) != at.lowering.batch:  # torch writes into as many samples alone
            at.refuse("writes into some samples", "write into all of them: x[:, places] = y")
        chosen = _alike(at, index)
    chosen = chosen.long()
    chosen = torch.where(chosen < 0, chosen + shape(at, x)[dim - 1], chosen)  # ONNX counts from the end; torch refuses
    if isinstance(src, (int, float)) or (isinstance(src, Tensor) and src.dim() == 0):
        src = Filled(tuple(chosen.shape), float(src))
    return placed(
        at, x, src, lambda samples: lambda old, late: old.scatter(dim, chosen.expand(samples, *chosen.shape), late)
    )


SPELLINGS: dict[str, Spelling] = {
    **dict.fromkeys(("index_put", "_unsafe_index_put"), index_put),
    "index_copy": index_copy,
    "index_fill": index_fill,
    "scatter": scatter,
    "fill": fill,
    "copy": copy,
    "slice_scatter": slice_scatter,
    "select_scatter": select_scatter,
}
