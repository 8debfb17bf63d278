"""Spellings of operations that only move values: reshaping, slicing, joining, padding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.capture import layout
from snnc.capture.lowering import Site
from snnc.capture.values import SHAPE_HINT, Batch, Dim, Filled, ManyBatches, Refused, Repeated, Sizes, Unknown
from snnc.ir import dialect

Range = tuple[int | None, int | None, int | None]
ALL: Range = (None, None, None)
END = 2**62


def flatten(at: Site, x: fx.Node, start_dim: int = 0, end_dim: int = -1) -> Any:
    """Dimensions `start_dim` to `end_dim` as one."""
    if start_dim == 0:
        if end_dim in (-1, (at.rank(x) or 0) - 1):
            at.refuse("flattens the batch as well", "flatten from dimension 1: torch.flatten(x, 1)")
        sizes = at.known(x)[:end_dim]
        return layout.reshape(at, x, [ManyBatches(times=math.prod(sizes)), *at.known(x)[end_dim:]])
    return at.emit(nn.Flatten(start_dim, end_dim), x)


def reshape(at: Site, x: fx.Node, *shape: Any, **named: Any) -> Any:
    """`view` and `reshape`: the batch first, by itself, then the shape of a sample."""
    shape = shape or tuple(named.values())
    sizes = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    if len(shape) == 1 and isinstance(shape[0], Sizes) and shape[0].node is x and shape[0].part == slice(None):
        return x
    batch, known = sizes[0], at.sizes(x)
    if known is not None and _joins_batch(at, sizes, known):
        return layout.reshape(at, x, sizes)
    if any(isinstance(s, Batch) for s in sizes[1:]) or batch == Unknown(shape=False):
        at.refuse("merges samples with another dimension", "keep the batch as the first dimension, by itself")
    sample = tuple(at.integer(s) for s in sizes[1:])
    if not isinstance(batch, (Batch, int)):
        raise Refused("needs sizes that are not known", SHAPE_HINT, shape=True)
    if known is not None and -1 not in sample and math.prod(sample) != math.prod(known):
        at.refuse("moves values between samples", "keep the batch as the first dimension, by itself")
    if isinstance(batch, int) and batch != -1 and batch != at.lowering.batch:
        at.refuse(f"fixes the batch at {batch}", "write x.flatten(1), or x.view(x.size(0), ...)")
    if batch == -1 and -1 in sample:
        at.refuse("leaves two sizes open", "write x.size(0) first")
    flat = len(sample) == 1 and (bool(known) if known is not None else sample == (-1,))
    return at.emit(nn.Flatten(1) if flat else dialect.Reshape(sample), x)


def _joins_batch(at: Site, sizes: Sequence[Any], known: tuple[int, ...]) -> bool:
    """Whether a shape has the batch elsewhere than in front by itself."""
    if len(sizes) == 1:
        return False
    if any(isinstance(s, ManyBatches) for s in sizes) or any(isinstance(s, Batch) for s in sizes[1:]):
        return True
    rest = [at.integer(s) for s in sizes[1:] if not isinstance(s, Unknown)]
    if len(rest) < len(sizes) - 1 or not isinstance(sizes[0], (int, Batch)):
        return False
    total = math.prod(known)
    if -1 in rest:
        return len(rest) > 1 and isinstance(sizes[0], int) and sizes[0] > 1 and sizes[0] != at.lowering.batch
    front = sizes[0] == -1 or (at.lowering.batch is not None and sizes[0] != at.lowering.batch)
    return isinstance(sizes[0], int) and front and math.prod(rest) != total and total % math.prod(rest or [1]) == 0


def view_as(at: Site, x: fx.Node, other: fx.Node) -> Any:
    """The shape of another value."""
    return reshape(at, x, Batch(), *at.known(other))


def unflatten(at: Site, x: fx.Node, dim: int, sizes: Sequence[Any]) -> Any:
    """One dimension as several."""
    dim = at.axis(x, dim)
    shape = at.known(x)
    return reshape(at, x, Batch(), *shape[: dim - 1], *sizes, *shape[dim:])


def squeeze(at: Site, x: fx.Node, dim: Any = None) -> Any:
    """Without dimensions of size one; the batch is none of them."""
    shape = at.known(x)
    if dim is None:
        dims = set(range(1, len(shape) + 1))
    else:
        dims = {at.axis(x, d) for d in (dim if isinstance(dim, (tuple, list)) else (dim,))}
    return reshape(at, x, Batch(), *(n for i, n in enumerate(shape, 1) if n != 1 or i not in dims))


def unsqueeze(at: Site, x: fx.Node, dim: int) -> Any:
    """With a dimension of size one at `dim`."""
    shape = at.known(x)
    dim += len(shape) + 2 if dim < 0 else 0
    if dim == 0:
        at.refuse("puts a dimension in front of the batch", "keep the batch as the first dimension")
    return reshape(at, x, Batch(), *shape[: dim - 1], 1, *shape[dim - 1 :])


def permute(at: Site, x: fx.Node, *dims: Any, **named: Any) -> Any:
    """Dimensions in a new order."""
    dims = dims or tuple(named.values())
    order = tuple(dims[0]) if isinstance(dims[0], (tuple, list)) else dims
    order = tuple(int(d) % len(order) for d in order)
    if order[0] != 0:
        return layout.permute(at, x, order)
    return at.emit(dialect.Permute(order), x)


def transpose(at: Site, x: fx.Node, dim0: int, dim1: int) -> Any:
    """Two dimensions swapped."""
    rank = at.rank(x)
    if rank is not None and 0 in (dim0 % rank, dim1 % rank) and dim0 % rank != dim1 % rank:
        order = list(range(rank))
        order[dim0], order[dim1] = order[dim1], order[dim0]
        return layout.permute(at, x, order)
    a, b, rank = at.axis(x, dim0), at.axis(x, dim1), at.rank(x)
    if rank is None:
        raise Refused("swaps dimensions of a value of unknown rank", SHAPE_HINT, shape=True)
    order = list(range(rank))
    order[a], order[b] = b, a
    return at.emit(dialect.Permute(tuple(order)), x)


def channel_shuffle(at: Site, x: fx.Node, groups: int) -> Any:
    """Channels of `groups` groups, interleaved."""
    channels, *rest = at.known(x)
    x = reshape(at, x, Batch(), groups, channels // groups, *rest)
    x = transpose(at, x, 1, 2)
    return reshape(at, x, Batch(), channels, *rest)


def _slice(at: Site, x: fx.Node, dim: int, part: Range) -> fx.Node:
    """`part` of dimension `dim`; everything of the others."""
    dim = at.axis(x, dim)
    rank = at.rank(x) or dim + 1
    return at.emit(dialect.Slice(tuple(part if d == dim else ALL for d in range(1, rank))), x)


def narrow(at: Site, x: fx.Node, dim: int, start: Any, length: Any) -> Any:
    """`length` entries of `dim`, from `start`."""
    start = at.integer(start)
    return _slice(at, x, dim, (start, start + at.integer(length), None))


def slice_(at: Site, x: fx.Node, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    """ATen: one dimension sliced."""
    start = None if start is None else at.integer(start)
    end = None if end is None or isinstance(end, Batch) or at.integer(end) > END else at.integer(end)
    if (start or 0) == 0 and end is None and step == 1:
        return x
    return _slice(at, x, dim, (start, end, step))


def select(at: Site, x: fx.Node, dim: int, index: Any) -> Any:
    """One entry of `dim`, which goes."""
    dim, index = at.axis(x, dim), at.integer(index)
    shape = at.known(x)
    x = _slice(at, x, dim, (index, index + 1 if index != -1 else None, None))
    return reshape(at, x, Batch(), *shape[: dim - 1], *shape[dim:])


def split(at: Site, x: fx.Node, sizes: Any, dim: int = 0) -> Any:
    """Pieces of a size, or of a list of sizes."""
    dim = at.axis(x, dim)
    if not isinstance(sizes, (tuple, list)):
        total, part = at.known(x)[dim - 1], at.integer(sizes)
        sizes = [min(part, total - start) for start in range(0, total, part)]
    parts, start = [], 0
    for size in map(at.integer, sizes):
        parts.append(_slice(at, x, dim, (start, start + size, None)))
        start += size
    return tuple(parts)


def chunk(at: Site, x: fx.Node, chunks: int, dim: int = 0) -> Any:
    """So many pieces."""
    dim = at.axis(x, dim)
    return split(at, x, -(-at.known(x)[dim - 1] // chunks), dim)


def unbind(at: Site, x: fx.Node, dim: int = 0) -> Any:
    """Every entry of `dim`."""
    dim = at.axis(x, dim)
    return tuple(select(at, x, dim, i) for i in range(at.known(x)[dim - 1]))


def getitem(at: Site, x: Any, index: Any) -> Any:
    """Indexing: of data by slices and integers, of a list of sizes, and of what a split gave."""
    if isinstance(x, Sizes):
        return _size(at, x, index)
    if not isinstance(x, fx.Node):
        return x[index]
    items = list(index) if isinstance(index, tuple) else [index]
    if not all(i is Ellipsis or i is None or isinstance(i, (int, slice)) for i in items):
        at.refuse("picks entries at places that depend on the input", "pick outside of the network, or by constants")
    if Ellipsis in items:
        place, rank = items.index(Ellipsis), at.rank(x)
        if rank is None:
            raise Refused("is indexed with an ellipsis, of unknown rank", SHAPE_HINT, shape=True)
        fill = rank - sum(i is not None for i in items) + 1
        items[place : place + 1] = [slice(None)] * fill
    if items[0] != slice(None) and not (items[0] == slice(0, Batch()) or items[0] == slice(None, Batch())):
        at.refuse("selects samples", "keep the whole batch: x[:, ...]")
    ranges = [_range(at, i) if isinstance(i, slice) else (i, i + 1 or None, None) for i in items[1:] if i is not None]
    if any(r != ALL for r in ranges):
        rank = at.rank(x)
        ranges += [ALL] * ((rank or 0) - 1 - len(ranges))
        x = at.emit(dialect.Slice(tuple(ranges)), x)
    if all(isinstance(i, slice) for i in items):
        return x
    shape, sizes = iter(at.known(x)), []
    for item in items[1:]:
        size = 1 if item is None else next(shape)
        sizes += [] if isinstance(item, int) else [size]
    return reshape(at, x, Batch(), *sizes, *shape)


def setitem(at: Site, x: Any, index: Any, value: Any) -> Any:
    """`x[..] = value`, which only an exported program can follow."""
    raise Refused("writes into a value", SHAPE_HINT, shape=True)


def _range(at: Site, part: slice) -> Range:
    start, stop, step = (None if v is None else at.integer(v) for v in (part.start, part.stop, part.step))
    return start, None if stop is not None and stop > END else stop, None if step == 1 else step


def _size(at: Site, sizes: Sizes, index: Any) -> Any:
    """One size, or a run of them, of a value whose rank is not known."""
    if isinstance(index, slice):
        if sizes.part != slice(None):
            return Unknown(shape=True)
        return Sizes(sizes.node, index)
    if sizes.part != slice(None):
        return Unknown(shape=True)
    return Batch() if index == 0 else Dim(sizes.node, index)


def length(at: Site, x: fx.Node) -> Any:
    """`len(x)`, the number of samples."""
    return Batch()


def size(at: Site, x: fx.Node, dim: int | None = None) -> Any:
    """`x.size()`, `x.size(dim)`, `x.shape`."""
    sizes, rank = at.sizes(x), at.rank(x)
    if sizes is not None:
        run: Any = (Batch(), *sizes)
    elif rank is not None:
        run = (Batch(), *(Dim(x, d) for d in range(1, rank)))
    else:
        run = Sizes(x)
    return run if dim is None else getitem(at, run, dim)


def rank(at: Site, x: fx.Node) -> Any:
    """`x.dim()`, `x.ndim`."""
    known = at.rank(x)
    return Unknown(shape=True) if known is None else known


def pad(at: Site, x: fx.Node, pad: Any, mode: str = "constant", value: Any = None) -> Any:
    """`torch.nn.functional.pad`."""
    pads = tuple(at.integer(p) for p in pad)
    rank = at.rank(x)
    if len(pads) % 2 or (rank is not None and len(pads) > 2 * (rank - 1)):
        at.refuse("pads the batch", "pad dimension 1 or higher")
    if mode != "constant":
        return at.emit(dialect.Pad(pads, mode), x)
    number = float(value.item() if isinstance(value, Tensor) else value or 0.0)
    return at.emit(dialect.Pad(pads, "constant", number), x)


def expand(at: Site, x: Tensor, *sizes: Any) -> Any:
    """A constant for every sample."""
    return _repeated(at, x, sizes)


def _repeated(at: Site, x: Tensor, sizes: Sequence[Any]) -> Any:
    """A constant, as it is for one sample of a batch."""
    batch, rest = sizes[0], [at.integer(s) for s in sizes[1:]]
    fixed = isinstance(batch, int) and batch == at.lowering.batch
    if not (isinstance(batch, Batch) or fixed) or (x.dim() == len(sizes) and x.shape[0] != 1):
        at.refuse("makes a tensor that is not of the batch's size", "register it as a buffer")
    return Repeated(x.detach().expand(1, *rest)[0])


def tile(at: Site, x: Any, *sizes: Any) -> Any:
    """`token.repeat(len(x), 1, 1)`: a constant for every sample."""
    run = tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
    x = x.detach().reshape(*[1] * (len(run) - x.dim()), *x.shape)
    return _repeated(at, x.repeat(1, *(at.integer(s) for s in run[1:])), (run[0], *[-1] * (len(run) - 1)))


def filled(at: Site, number: float, sizes: Any, dtype: torch.dtype | None = None) -> Any:
    """`torch.zeros(x.size(0), 16, 8, 8)` and its like; of whole numbers or truths it is a constant like any other."""
    if isinstance(sizes, fx.Node):
        rest = at.known(sizes)
    elif sizes and all(type(s) is int for s in sizes):
        return torch.full(tuple(sizes), number, dtype=dtype or at.lowering.like.dtype, device=at.lowering.like.device)
    elif not sizes or not isinstance(sizes[0], Batch):
        at.refuse("makes a tensor that is not of the batch's size", "register it as a buffer")
    else:
        rest = tuple(at.integer(s) for s in sizes[1:])
    if dtype is None or dtype.is_floating_point:
        return Filled(rest, number)
    return Repeated(torch.full(rest, number, dtype=dtype))
