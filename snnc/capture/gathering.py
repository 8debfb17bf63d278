"""Spellings of operations that pick values by constants: flipping, rolling, indexing, repeating, windows of a map.

torch itself says what they do: each is run on the numbers of all places of two samples, and of three, and what comes
out tells where each value comes from. So every corner of an operation's rules is torch's own, and samples stay apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from snnc.capture import layers, pools, routes, spellings
from snnc.capture.lowering import Site
from snnc.capture.values import Batch, Spelling
from snnc.ir import dialect

MOST = 2**24  # places of a value that is asked for, and of what comes out
LARGE = ("picks from more than 2^24 values, or as many", "check its sizes: no network needs so many")


def moved(at: Site, x: fx.Node, function: Callable[[Tensor], Tensor]) -> Any:
    """What a function that only picks values makes of `x`."""
    sizes = at.known(x)
    count = math.prod(sizes)
    if count > MOST:
        at.refuse(*LARGE)
    with suppress(RuntimeError, NotImplementedError):  # where it picks by constants that stand in memory, as many come
        if function(torch.empty((1, *sizes), device="meta")).numel() > MOST:
            at.refuse(*LARGE)
    places = []
    for samples in (2, 3):
        # In double precision, in which whole numbers are exact: some functions know no integers.
        found = function(torch.arange(samples * count, dtype=torch.float64).reshape(samples, *sizes))
        if found.numel() > samples * MOST:
            at.refuse(*LARGE)
        start = count * torch.arange(samples, dtype=torch.float64).reshape(-1, *[1] * (found.dim() - 1))
        apart = found.dim() > 1 and len(found) == samples and bool((found[0] < count).all())
        if not apart or not torch.equal(found, found[:1] + start):
            at.refuse("moves values between samples", "keep the batch as the first dimension, by itself")
        places.append(found[0].long())
    if not places[0].numel() or not torch.equal(*places):
        at.refuse("picks nothing, or moves values between samples", "check the network on one sample")
    return taken(at, x, places[0])


def taken(at: Site, x: fx.Node, places: Tensor) -> Any:
    """`x` at `places` of a sample: dimension by dimension where that can be, else along the last ones as one."""
    sizes = at.known(x)
    if (lines := _lines(places, sizes)) is not None:
        for dim, line in enumerate(lines, 1):
            if line.tolist() != list(range(sizes[dim - 1])):
                x = at.emit(dialect.Take(dim, line.clone()), x)
        return x
    kept, after = 0, tuple(places.shape)
    while kept < min(len(sizes), len(after)) - 1 and _passes(places, sizes, kept):
        kept += 1
    row = places[(0,) * kept].flatten()
    x = routes.reshape(at, x, Batch(), *sizes[:kept], math.prod(sizes[kept:]))
    x = at.emit(dialect.Take(kept + 1, row.clone()), x)
    return routes.reshape(at, x, Batch(), *after)


def _lines(places: Tensor, sizes: Sequence[int]) -> list[Tensor] | None:
    """The entries of each dimension, where each is picked by itself."""
    if places.dim() != len(sizes):
        return None
    lines, rest = [], places
    for dim, size in reversed(list(enumerate(sizes))):
        mine, rest = rest % size, rest // size
        line = mine[tuple(slice(None) if d == dim else 0 for d in range(len(sizes)))]
        if not torch.equal(mine, line.reshape(-1, *[1] * (len(sizes) - 1 - dim)).expand_as(mine)):
            return None
        lines.append(line)
    return lines[::-1]


def _passes(places: Tensor, sizes: Sequence[int], dim: int) -> bool:
    """Whether dimension `dim` stays as it is, and what is picked behind it is the same everywhere along it."""
    if places.shape[dim] != sizes[dim]:
        return False
    step = torch.arange(sizes[dim]).reshape(-1, *[1] * (places.dim() - 1 - dim)) * math.prod(sizes[dim + 1 :])
    return torch.equal(places, places.narrow(dim, 0, 1) + step)


def _run(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Numbers that an author writes one by one, or as one tuple."""
    return tuple(values[0]) if len(values) == 1 and isinstance(values[0], (tuple, list)) else values


def constant(at: Site, index: Any) -> Tensor:
    """Places that are constants."""
    if not isinstance(index, Tensor):
        at.refuse("picks entries at places that depend on the input", "pick outside of the network, or by constants")
    return index.detach().cpu()


def flip(at: Site, x: fx.Node, *dims: Any, **named: Any) -> Any:
    """`torch.flip`."""
    run = [at.axis(x, d) for d in _run(dims or tuple(named.values()))]
    return moved(at, x, lambda v: v.flip(run))


def fliplr(at: Site, x: fx.Node) -> Any:
    """`torch.fliplr`: dimension 1."""
    return flip(at, x, 1)


def flipud(at: Site, x: fx.Node) -> Any:
    """`torch.flipud`: dimension 0, which is the batch."""
    return flip(at, x, 0)


def roll(at: Site, x: fx.Node, shifts: Any, dims: Any = ()) -> Any:
    """`torch.roll`; without dimensions it rolls over the batch as well."""
    by = tuple(at.integer(s) for s in _run((shifts,)))
    run = tuple(at.axis(x, d) for d in _run((dims,)))
    if not run:
        at.refuse("rolls over the batch as well", "name the dimensions, such as x.roll(1, 2)")
    return moved(at, x, lambda v: v.roll(by, run))


def rot90(at: Site, x: fx.Node, k: int = 1, dims: Any = (0, 1)) -> Any:
    """`torch.rot90`."""
    return moved(at, x, lambda v: v.rot90(k, tuple(dims)))


def index_select(at: Site, x: fx.Node, dim: int, index: Any) -> Any:
    """`torch.index_select` by a constant."""
    dim, chosen = at.axis(x, dim), constant(at, index)
    return moved(at, x, lambda v: v.index_select(dim, chosen.long()))


def take_along(at: Site, x: fx.Node, indices: Any, dim: Any = None) -> Any:
    """`torch.take_along_dim` by a constant, which is the same for each sample."""
    if dim is None:
        at.refuse("flattens the batch as well", "name the dimension: torch.take_along_dim(x, index, dim=1)")
    dim, chosen = at.axis(x, dim), constant(at, indices)
    return moved(at, x, lambda v: v.take_along_dim(chosen.long(), dim))


def gather(at: Site, x: fx.Node, dim: int, index: Any, *, sparse_grad: bool = False) -> Any:
    """`torch.gather` by a constant that every sample shares, as `index.expand(x.size(0), -1)` makes it."""
    dim, chosen = at.axis(x, dim), constant(at, index)
    if len(chosen) != 1:
        at.refuse("picks entries of each sample by itself", "torch.take_along_dim, with one index for all samples")

    def picked(v: Tensor) -> Tensor:
        return v.gather(dim, chosen.long().expand(len(v), *chosen.shape[1:]))

    return moved(at, x, picked)


def getitem(at: Site, x: Any, index: Any) -> Any:
    """Indexing, by lists and constant tensors too."""
    items = list(index) if isinstance(index, tuple) else [index]
    if not isinstance(x, fx.Node) or all(i is Ellipsis or i is None or isinstance(i, (int, slice)) for i in items):
        return routes.getitem(at, x, index)
    whole = (slice(None), slice(0, Batch()), slice(None, Batch()))
    if items[0] is not Ellipsis and not (isinstance(items[0], slice) and items[0] in whole):
        at.refuse("selects samples", "keep the whole batch: x[:, ...]")
    # What torch does: slices and new dimensions first, then all entries that are picked by constants.
    plain = [i if i is Ellipsis or i is None or isinstance(i, slice) else slice(None) for i in items]
    x = routes.getitem(at, x, tuple(plain))
    chosen = tuple(_entries(at, i) for i in items)
    return moved(at, x, lambda v: v[chosen])


def _entries(at: Site, item: Any) -> Any:
    """Part of an index: what is picked, or everything."""
    if item is None or isinstance(item, slice):
        return slice(None)
    if isinstance(item, (tuple, list)):
        return list(item)
    return item if item is Ellipsis or isinstance(item, int) else constant(at, item)


def index(at: Site, x: Any, indices: Sequence[Any]) -> Any:
    """ATen: a tensor, or nothing, for each dimension."""
    return getitem(at, x, tuple(slice(None) if i is None else i for i in indices))


def repeat(at: Site, x: Any, *sizes: Any, **named: Any) -> Any:
    """`x.repeat`: the batch once, but for a constant, which is made one of every sample."""
    if isinstance(x, Tensor):
        return routes.tile(at, x, *_run(sizes or tuple(named.values())))
    run = [at.integer(s) for s in _run(sizes or tuple(named.values()))]
    return moved(at, x, lambda v: v.repeat(run))


def tile(at: Site, x: Any, *dims: Any, **named: Any) -> Any:
    """`torch.tile`, which leaves dimensions in front that it has no number for."""
    if isinstance(x, Tensor):
        return repeat(at, x, *dims, **named)
    run = [at.integer(s) for s in _run(dims or tuple(named.values()))]
    return moved(at, x, lambda v: v.tile(run))


def repeat_interleave(at: Site, x: Any, repeats: Any, dim: Any = None, *, output_size: Any = None) -> Any:
    """`torch.repeat_interleave`: each entry several times."""
    if dim is None:
        at.refuse("flattens the batch as well", "name the dimension: torch.repeat_interleave(x, 2, dim=1)")
    dim = at.axis(x, dim)
    times = constant(at, repeats) if isinstance(repeats, (Tensor, fx.Node)) else at.integer(repeats)
    return moved(at, x, lambda v: v.repeat_interleave(times, dim))


def expand(at: Site, x: Any, *sizes: Any, **named: Any) -> Any:
    """`x.expand`: dimensions of size one over more."""
    run = _run(sizes or tuple(value for name, value in named.items() if name != "implicit"))
    if not isinstance(x, fx.Node):
        return routes.expand(at, x, *run)
    if len(run) != len(at.known(x)) + 1 or run[0] not in (-1, Batch(), at.lowering.batch):
        at.refuse("repeats whole samples", "keep the batch as the first dimension, by itself")
    rest = [at.integer(s) for s in run[1:]]
    return x if list(at.known(x)) == rest else moved(at, x, lambda v: v.expand(-1, *rest))


def expand_as(at: Site, x: Any, other: Any) -> Any:
    """`x.expand_as`."""
    return expand(at, x, Batch(), *at.known(other))


def diagonal(at: Site, x: fx.Node, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """`torch.diagonal`."""
    one, two = at.axis(x, dim1), at.axis(x, dim2)
    return moved(at, x, lambda v: v.diagonal(offset, one, two))


def triangle(function: Callable[..., Tensor]) -> Spelling:
    """`torch.tril` and `torch.triu`: times a constant of zeros and ones."""

    def spelling(at: Site, x: fx.Node, diagonal: int = 0) -> Any:
        sizes = at.known(x)
        if len(sizes) < 2:
            at.refuse("takes a triangle out of the batch", "a value of shape [B, ..., N, M]")
        return spellings.mul(at, x, function(torch.ones(sizes[-2:]), at.integer(diagonal)))

    return spelling


def unfold(at: Site, x: fx.Node, dim: int, size: Any, step: Any) -> Any:
    """`x.unfold`: windows of one dimension."""
    dim, size, step = at.axis(x, dim), at.integer(size), at.integer(step)
    return moved(at, x, lambda v: v.unfold(dim, size, step))


def im2col(at: Site, x: fx.Node, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Any:
    """`F.unfold`: windows of a map, each as a column."""
    window, gaps, pads, steps = _window(at, kernel_size, dilation, padding, stride)
    if len(at.known(x)) != 3:
        at.refuse("cuts windows out of what is no map", "a value of shape [B, C, H, W]")
    if any(pads):
        x = at.emit(dialect.Pad((pads[1], pads[1], pads[0], pads[0])), x, part="pad")
    channels, height, width = at.known(x)
    places = torch.arange(height * width, dtype=torch.float64).reshape(1, 1, height, width)
    columns = functional.unfold(places, window, gaps, 0, steps)[0].long()
    if columns.numel() > MOST:
        at.refuse(*LARGE)
    x = routes.reshape(at, x, Batch(), channels, height * width)
    x = at.emit(dialect.Take(2, columns.flatten()), x)
    return routes.reshape(at, x, Batch(), channels * len(columns), columns.shape[1])


def col2im(
    at: Site, x: fx.Node, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Any:  # fmt: skip
    """`F.fold`: columns added up to a map. That is a transposed convolution, each weight of which is 1 once."""
    window, gaps, pads, steps = _window(at, kernel_size, dilation, padding, stride)
    size = tuple(at.integer(s) for s in pools.each(output_size, 2))
    taps = math.prod(window)
    if len(at.known(x)) != 2:
        at.refuse("adds up columns of what has none", "a value of shape [B, C * taps, L]")
    rows, number = at.known(x)
    room = [s + 2 * p - d * (k - 1) - 1 for s, p, d, k in zip(size, pads, gaps, window, strict=True)]
    places = [r // t + 1 for r, t in zip(room, steps, strict=True)]
    if min(room) < 0 or rows % taps or math.prod(places) != number:
        at.refuse(f"adds {number} columns of {rows} up to a map of {size}", "check the network on one sample")
    x = routes.reshape(at, x, Batch(), rows, *places)
    weight = torch.eye(taps).reshape(taps, 1, *window).repeat(rows // taps, 1, 1, 1).to(at.lowering.like)
    more = tuple(r % t for r, t in zip(room, steps, strict=True))
    return layers.transposed(2)(at, x, weight, None, steps, pads, more, rows // taps, gaps)


def _window(at: Site, *given: Any) -> list[tuple[int, ...]]:
    return [tuple(at.integer(n) for n in pools.each(one, 2)) for one in given]


def pixel_unshuffle(at: Site, x: fx.Node, downscale_factor: int) -> Any:
    """`F.pixel_unshuffle`: pixels as channels of a smaller map."""
    channels, height, width = at.known(x)
    by = at.integer(downscale_factor)
    if height % by or width % by:
        at.refuse(f"divides a map of {height} by {width} by {by}", "check the network on one sample")
    x = routes.reshape(at, x, Batch(), channels, height // by, by, width // by, by)
    x = routes.permute(at, x, 0, 1, 3, 5, 2, 4)
    return routes.reshape(at, x, Batch(), channels * by**2, height // by, width // by)


SPELLINGS: dict[str, Spelling] = {
    "flip": flip,
    "fliplr": fliplr,
    "flipud": flipud,
    "roll": roll,
    "rot90": rot90,
    "index_select": index_select,
    "take_along_dim": take_along,
    "gather": gather,
    "getitem": getitem,
    "index": index,
    "_unsafe_index": index,
    "repeat": repeat,
    "tile": tile,
    "repeat_interleave": repeat_interleave,
    "expand": expand,
    "expand_as": expand_as,
    "broadcast_to": expand,
    "diagonal": diagonal,
    "tril": triangle(torch.tril),
    "triu": triangle(torch.triu),
    "unfold": unfold,
    "im2col": im2col,
    "col2im": col2im,
    "pixel_unshuffle": pixel_unshuffle,
}
WINDOW = ("kernel_size", "dilation", "padding", "stride")
MODULES: dict[type[nn.Module], tuple[str, tuple[str, ...]]] = {
    nn.Unfold: ("im2col", WINDOW),
    nn.Fold: ("col2im", ("output_size", *WINDOW)),
    nn.PixelUnshuffle: ("pixel_unshuffle", ("downscale_factor",)),
}
