"""Values whose batch stands elsewhere than in front, or shares a dimension with others, as it does inside attention.

Transformers are written with shapes such as `[3, B, heads, N, C]`, `[N, B, C]`, `[B * heads, N, C]` and
`[B * windows, N, C]`. The value itself always keeps the batch in front, by itself; a `Laid` says how the author sees
it. Moving and joining dimensions changes that view alone; what acts on single numbers, or on the last dimensions, acts
on the value and keeps the view. Once the batch is back in front, it is an ordinary value again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from snnc.capture.lowering import Site
from snnc.capture.values import Batch, ManyBatches
from snnc.ir import dialect

SOME = 1_000_003  # stands for the number of samples where that is open: a prime that is no size
MOVED = ("moves the batch", "keep the batch as the first dimension, by itself")


@dataclass(frozen=True)
class Laid:
    """A value as its author sees it.

    Attributes:
        node: the value, the batch in front.
        dims: for each dimension of the author's, those of `node` that it is made of, the slowest first; 0 is the batch.
            An empty one is of size one.
    """

    node: fx.Node
    dims: tuple[tuple[int, ...], ...]


def of(at: Site, x: fx.Node | Laid) -> Laid:
    """Any value as a `Laid`."""
    return x if isinstance(x, Laid) else Laid(x, tuple((i,) for i in range(len(at.known(x)) + 1)))


def settled(at: Site, laid: Laid) -> fx.Node | Laid:
    """An ordinary value, where the batch is in front by itself."""
    if laid.dims[:1] != ((0,),):
        return laid
    x, sizes = laid.node, (1, *at.known(laid.node))
    order = [a for dim in laid.dims for a in dim]
    if order != sorted(order):
        x = at.emit(dialect.Permute(tuple(order)), x)
    shape = tuple(math.prod(sizes[a] for a in dim) for dim in laid.dims[1:])
    if shape != at.known(x):
        x = at.emit(nn.Flatten(1) if len(shape) == 1 else dialect.Reshape(shape), x)
    return x


def permute(at: Site, x: fx.Node | Laid, order: Sequence[int]) -> Any:
    """Dimensions in a new order."""
    laid = of(at, x)
    if sorted(d % len(laid.dims) for d in order) != list(range(len(laid.dims))):
        at.refuse(f"orders {len(laid.dims)} dimensions as {tuple(order)}", "check the network on one sample")
    return settled(at, Laid(laid.node, tuple(laid.dims[d] for d in order)))


def shape(at: Site, laid: Laid) -> tuple[Any, ...]:
    """Sizes as the author sees them."""
    sizes = (1, *at.known(laid.node))
    found: list[Any] = []
    for dim in laid.dims:
        size = math.prod(sizes[a] for a in dim)
        found.append((Batch() if size == 1 else ManyBatches(times=size)) if 0 in dim else size)
    return tuple(found)


def reshape(at: Site, x: fx.Node | Laid, wanted: Sequence[Any]) -> Any:
    """Dimensions joined and split."""
    laid, samples = of(at, x), at.lowering.batch or SOME
    sizes = [samples, *at.known(laid.node)]
    numbers = [
        samples * w.times if isinstance(w, ManyBatches) else samples if isinstance(w, Batch) else at.integer(w)
        for w in wanted
    ]
    total = math.prod(sizes)
    if numbers.count(-1) == 1:
        rest = math.prod(n for n in numbers if n != -1)
        numbers[numbers.index(-1)] = total // rest if rest and total % rest == 0 else 0
    if math.prod(numbers) != total or min(numbers) < 1:
        at.refuse("moves values between samples", "keep the batch as the first dimension, by itself")
    left = [a for dim in laid.dims for a in dim]
    node = laid.node
    dims: list[list[int]] = []
    for number in numbers:
        dim: list[int] = []
        reached = 1
        while reached < number or (number == 1 and not dim and left and sizes[left[0]] == 1):
            a = left.pop(0)
            need = number // reached
            if number % (reached * sizes[a]) == 0:
                dim.append(a)
                reached *= sizes[a]
                continue
            if a == 0 or number % reached or sizes[a] % need:
                at.refuse("splits the batch, or moves values between samples", MOVED[1])
            # One dimension as two: those behind it move up by one.
            sizes[a : a + 1] = [need, sizes[a] // need]
            node = at.emit(dialect.Reshape(tuple(sizes[1:])), node)
            left = [b + (b > a) for b in left]
            dims = [[b + (b > a) for b in one] for one in dims]
            dim = [*(b + (b > a) for b in dim), a]
            left.insert(0, a + 1)
            reached = number
        dims.append(dim)
    dims[-1] += left  # of size one
    return settled(at, Laid(node, tuple(map(tuple, dims))))


def canonical(at: Site, laid: Laid) -> Laid:
    """The same view of a value whose dimensions stand in the author's order, joined, but for the batch in front."""
    order = [0, *(a for dim in laid.dims for a in dim if a)]
    node, sizes = laid.node, (1, *at.known(laid.node))
    if order != sorted(order):
        node = at.emit(dialect.Permute(tuple(order)), node)
    dims: list[tuple[int, ...]] = []
    shape: list[int] = []
    for dim in laid.dims:
        own: list[int] = []
        for apart, run in itertools.groupby(dim or (None,), lambda a: a == 0):
            if apart:
                own.append(0)
                continue
            shape.append(math.prod(1 if a is None else sizes[a] for a in run))
            own.append(len(shape))
        dims.append(tuple(own))
    if tuple(shape) != at.known(node):
        node = at.emit(dialect.Reshape(tuple(shape)), node)
    return Laid(node, tuple(dims))


def single(at: Site, laid: Laid, dim: Any) -> int:
    """The dimension of the value that one of the author's is."""
    own = laid.dims[at.integer(dim)]
    if len(own) != 1 or own == (0,):
        at.refuse("works along the batch", "keep samples apart")
    return own[0]


def index(at: Site, x: Laid, items: Any) -> Any:
    """Indexing by slices and integers."""
    items = list(items) if isinstance(items, tuple) else [items]
    if Ellipsis in items:
        place = items.index(Ellipsis)
        fill = len(x.dims) - sum(i is not None for i in items) + 1
        items[place : place + 1] = [slice(None)] * fill
    items += [slice(None)] * (len(x.dims) - sum(i is not None for i in items))
    laid = canonical(at, x)
    ranges: list[Any] = [(None, None, None)] * len(at.known(laid.node))
    dims: list[tuple[int, ...]] = []
    gone: list[int] = []
    left = iter(enumerate(laid.dims))
    for item in items:
        if item is None:
            dims.append(())
            continue
        place, own = next(left)
        if item == slice(None):
            dims.append(own)
            continue
        a = single(at, laid, place)
        if isinstance(item, int):
            ranges[a - 1] = (item, item + 1 or None, None)
            gone.append(a)
        elif isinstance(item, slice):
            ranges[a - 1] = tuple(None if v is None else at.integer(v) for v in (item.start, item.stop, item.step))
            dims.append(own)
        else:
            at.refuse("is indexed by something other than constants", "use slices with constant bounds")
    node = laid.node
    if any(r != (None, None, None) for r in ranges):
        node = at.emit(dialect.Slice(tuple(ranges)), node)
    if gone:
        kept = [n for a, n in enumerate(at.known(node), 1) if a not in gone]
        node = at.emit(dialect.Reshape(tuple(kept)), node)
        dims = [tuple(a - sum(g < a for g in gone) for a in own) for own in dims]
    return settled(at, Laid(node, tuple(dims)))


def route_of(name: str) -> Callable[..., Any] | None:
    """What moves dimensions, and questions about them."""

    def rank(x: Laid) -> int:
        return len(x.dims)

    def one(at: Site, x: Laid, dim: int, item: Any) -> Any:
        return index(at, x, tuple(item if d == dim % rank(x) else slice(None) for d in range(rank(x))))

    def flat(at: Site, x: Laid, start_dim: int = 0, end_dim: int = -1) -> Any:
        first, last, sizes = start_dim % rank(x), end_dim % rank(x), shape(at, x)
        joined = tuple(a for dim in x.dims[first : last + 1] for a in dim)
        return settled(at, Laid(x.node, (*x.dims[:first], joined, *x.dims[last + 1 :]))) if sizes else x

    def run(args: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(args[0]) if len(args) == 1 and isinstance(args[0], (tuple, list)) else args

    def swap(at: Site, x: Laid, dim0: int, dim1: int) -> Any:
        order = list(range(rank(x)))
        order[dim0], order[dim1] = order[dim1], order[dim0]
        return permute(at, x, order)

    def pieces(at: Site, x: Laid, size: Any, dim: int = 0) -> Any:
        total = shape(at, x)[dim]
        if not isinstance(size, (tuple, list)):
            part = at.integer(size)
            size = [min(part, total - start) for start in range(0, total, part)]
        ends = [sum(size[: i + 1]) for i in range(len(size))]
        return tuple(one(at, x, dim, slice(end - n, end)) for n, end in zip(size, ends, strict=True))

    def squeezed(at: Site, x: Laid, dim: Any = None) -> Any:
        given = range(rank(x)) if dim is None else dim if isinstance(dim, (tuple, list)) else (dim,)
        chosen, sizes = {d % rank(x) for d in given}, shape(at, x)
        gone = [d for d in sorted(chosen) if sizes[d] == 1]
        spare = tuple(a for d in gone for a in x.dims[d])
        dims = [own for d, own in enumerate(x.dims) if d not in gone]
        place = next((d for d, own in enumerate(dims) if 0 not in own), None)
        if spare and place is None:
            at.refuse(*MOVED)
        if spare:
            dims[place or 0] = (*dims[place or 0], *spare)
        return settled(at, Laid(x.node, tuple(dims)))

    def unsqueezed(at: Site, x: Laid, dim: int) -> Any:
        place = dim % (rank(x) + 1)
        return settled(at, Laid(x.node, (*x.dims[:place], (), *x.dims[place:])))

    def size(at: Site, x: Laid, dim: int | None = None) -> Any:
        return shape(at, x) if dim is None else shape(at, x)[dim]

    def attribute(at: Site, x: Laid, name: str) -> Any:
        found = {"shape": lambda: shape(at, x), "ndim": lambda: rank(x), "data": lambda: x}
        found |= {"dtype": lambda: at.lowering.like.dtype, "device": lambda: at.lowering.like.device}
        if name == "mT" or name not in found:
            at.refuse(f"reads .{name}", "read x.shape, x.ndim, x.dtype or x.device alone")
        return found[name]()

    def unflat(at: Site, x: Laid, dim: int, sizes: Sequence[Any]) -> Any:
        own = shape(at, x)
        place = dim % rank(x)
        return reshape(at, x, (*own[:place], *sizes, *own[place + 1 :]))

    def chunks(at: Site, x: Laid, chunks: int, dim: int = 0) -> Any:
        return pieces(at, x, -(-shape(at, x)[dim] // chunks), dim)

    known: dict[str, Callable[..., Any]] = {
        "permute": lambda at, x, *dims, **named: permute(at, x, run(dims or tuple(named.values()))),
        **dict.fromkeys(("transpose", "swapaxes", "swapdims"), swap),
        **dict.fromkeys(("view", "reshape"), lambda at, x, *s, **n: reshape(at, x, run(s or tuple(n.values())))),
        **dict.fromkeys(("view_as", "reshape_as"), lambda at, x, other: reshape(at, x, shape(at, of(at, other)))),
        **dict.fromkeys(("_unsafe_view",), lambda at, x, *s: reshape(at, x, run(s))),
        "flatten": flat,
        "unflatten": unflat,
        "squeeze": squeezed,
        "unsqueeze": unsqueezed,
        "select": one,
        "slice": lambda at, x, dim=0, start=None, end=None, step=1: (
            one(at, x, dim, slice(start, end, step))
            if (start or 0, step) != (0, 1) or (isinstance(end, int) and end < 2**31)
            else x
        ),
        "unbind": lambda at, x, dim=0: tuple(one(at, x, dim, i) for i in range(at.integer(shape(at, x)[dim]))),
        "getitem": index,
        **dict.fromkeys(("split", "split_with_sizes"), pieces),
        "chunk": chunks,
        **dict.fromkeys(("size", "sym_size"), size),
        "len": lambda at, x: shape(at, x)[0],
        **dict.fromkeys(("dim", "ndimension"), lambda at, x: rank(x)),
        "getattr": attribute,
    }
    return known.get(name)


def route(name: str) -> Callable[..., Any]:
    """One of the functions that move dimensions, by torch's name."""
    found = route_of(name)
    assert found is not None
    return found
