"""ONNX operations that only move values, and questions about shapes, by way of torch's functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from snnc.capture import assigning, constants, embedding, gathering, joining, layers, layout, routes
from snnc.capture.layout import Laid
from snnc.capture.onnx import curved
from snnc.capture.onnx.fold import SAMPLED, SAMPLES, Varying
from snnc.capture.onnx.model import AGAIN
from snnc.capture.onnx.site import OnnxSite
from snnc.capture.refusals import LOOKED_UP
from snnc.capture.values import Batch, ManyBatches


def shape(at: OnnxSite, x: fx.Node) -> Any:
    """`Shape`."""
    return _of_sizes(at, x, lambda sizes: sizes[at.get("start", 0) : at.get("end")])


def size(at: OnnxSite, x: fx.Node) -> Any:
    """`Size`."""
    return _of_sizes(at, x, np.prod)


def _of_sizes(at: OnnxSite, x: fx.Node, what: Callable[[np.ndarray], Any]) -> Any:
    """A question about a value's shape; its answer may depend on the number of samples."""
    own = [curved.sizes(at, x, n) if isinstance(x, Laid) else [n, *at.known(x)] for n in SAMPLES]
    first, second = (np.asarray(what(np.array(one, dtype=np.int64))) for one in own)
    return first if np.array_equal(first, second) else Varying(first, second)


def reshape(at: OnnxSite, x: fx.Node, shape: Any = None) -> Any:
    """`Reshape`."""
    sizes = at.numbers(shape, "shape")
    if sizes is None:
        at.refuse("has no shape to reshape to", AGAIN)
    own = [Batch(), *at.known(x)]
    if not at.get("allowzero", 0):
        if any(s == 0 and i >= len(own) for i, s in enumerate(sizes)):
            at.refuse("copies a size that its input does not have", AGAIN)
        sizes = [own[i] if s == 0 else s for i, s in enumerate(sizes)]
    if not sizes:
        at.refuse("leaves no dimension", "keep the batch as the first dimension")
    return routes.reshape(at, x, sizes)


def flatten(at: OnnxSite, x: fx.Node) -> Any:
    """`Flatten`: two dimensions, split at `axis`."""
    axis, sizes = at.axis(x, at.get("axis", 1)), at.known(x)
    if any(n != 1 for n in sizes[: axis - 1]):
        return layout.reshape(at, x, [ManyBatches(times=math.prod(sizes[: axis - 1])), math.prod(sizes[axis - 1 :])])
    return at.emit(nn.Flatten(1), x)


def squeeze(at: OnnxSite, x: fx.Node, axes: Any = None) -> Any:
    """`Squeeze`."""
    dims = at.numbers(axes, "axes")
    if dims == []:
        at.refuse("names no axes, which runtimes take as none or as all of them", "name the axes, or leave them out")
    if dims is None and at.lowering.batch == 1:
        at.refuse("drops all dimensions of size one, the batch among them", "name the axes")
    if dims and any(at.known(x)[at.axis(x, d) - 1] != 1 for d in dims):
        at.refuse("drops a dimension that is larger than one", AGAIN)
    return routes.squeeze(at, x, dims)


def unsqueeze(at: OnnxSite, x: fx.Node, axes: Any = None) -> Any:
    """`Unsqueeze`: axes count dimensions of the result."""
    dims = at.numbers(axes, "axes") or []
    rank = 1 + len(at.known(x)) + len(dims)
    if any(not -rank <= d < rank for d in dims):
        at.refuse(f"adds dimensions {dims} to a value of {rank - len(dims)}", AGAIN)
    for dim in sorted(d % rank for d in dims):
        x = routes.unsqueeze(at, x, dim)
    return x


def transpose(at: OnnxSite, x: fx.Node) -> Any:
    """`Transpose`."""
    rank = 1 + len(at.known(x))
    order = at.get("perm", list(range(rank))[::-1])
    if sorted(order) != list(range(rank)):
        at.refuse(f"orders {rank} dimensions as {order}", AGAIN)
    return routes.permute(at, x, order)


def concat(at: OnnxSite, *values: Any) -> Any:
    """`Concat`; blocks of one number may be of the batch's size."""
    parts = [(v.filled() or v.repeated() or v) if isinstance(v, Varying) else v for v in values]
    if any(isinstance(v, Varying) for v in parts):
        at.refuse(*SAMPLED)
    return joining.cat(at, parts, at.get("axis", 1))


def split(at: OnnxSite, x: fx.Node, sizes: Any = None) -> Any:
    """`Split`: by sizes, or into as many parts as it has results."""
    dim = at.axis(x, at.get("axis", 0))
    found = at.numbers(sizes, "split")
    total = at.known(x)[dim - 1]
    if at.get("num_outputs", at.results) != at.results:
        at.refuse(f"has {at.results} outputs, and num_outputs = {at.get('num_outputs')}", AGAIN)
    if found is None:
        part = -(-total // at.results)
        found = [min(part, total - part * i) for i in range(at.results)]
    if sum(found) != total or len(found) != at.results:
        at.refuse(f"splits {total} entries into {found}", AGAIN)
    return routes.split(at, x, found, dim)


def slice_(at: OnnxSite, x: fx.Node, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None) -> Any:
    """`Slice`."""
    first, last = at.numbers(starts, "starts"), at.numbers(ends, "ends")
    if first is None or last is None:
        at.refuse("has no bounds", AGAIN)
    rank = 1 + len(at.known(x))
    dims, strides = at.numbers(axes, "axes"), at.numbers(steps)
    dims = list(range(len(first))) if dims is None else dims
    strides = [1] * len(first) if strides is None else strides
    index = [slice(None)] * rank
    for dim, start, stop, step in zip(dims, first, last, strides, strict=True):
        if not -rank <= dim < rank:
            at.refuse(f"slices dimension {dim} of {rank}", AGAIN)
        if dim % rank == 0:
            if (
                start != 0
                or step != 1
                or not (isinstance(stop, Batch) or (isinstance(stop, int) and stop >= 2**31 - 1))
            ):
                at.refuse("selects samples", "keep the whole batch")
            continue
        bounds = slice(at.integer(start), at.integer(stop), at.integer(step)).indices(at.known(x)[dim % rank - 1])
        if step < 0:
            x = gathering.index_select(at, x, dim % rank, torch.arange(*bounds))
        else:
            index[dim % rank] = slice(*bounds)
    return routes.getitem(at, x, tuple(index))


def gather(at: OnnxSite, x: fx.Node, indices: Any) -> Any:
    """`Gather` by constants, or of a constant by an input."""
    if isinstance(x, Tensor) and isinstance(indices, fx.Node):
        return embedding.gathered(at, x, indices, at.get("axis", 0))
    if not isinstance(x, fx.Node):
        raise LOOKED_UP.refused()
    dim = at.axis(x, at.get("axis", 0))
    total = at.known(x)[dim - 1]
    if not isinstance(indices, Tensor):
        at.refuse("picks entries at places that depend on the input", "pick outside of the network, or by constants")
    places = [at.integer(i) for i in indices.flatten()]
    if any(not -total <= i < total for i in places):
        at.refuse(f"picks entries that are not there, of {total}", AGAIN)
    if indices.dim() == 0:
        return routes.select(at, x, dim, places[0] % total)
    return gathering.getitem(at, x, (*[slice(None)] * dim, indices))


def gather_elements(at: OnnxSite, x: fx.Node, indices: Any) -> Any:
    """`GatherElements` by a constant that every sample shares."""
    return gathering.gather(at, x, at.get("axis", 0), indices)


def scatter_elements(at: OnnxSite, x: Any, indices: Any, updates: Any) -> Any:
    """`ScatterElements` by a constant that every sample shares."""
    if at.get("reduction", "none") not in ("none", b"none"):
        at.refuse("adds where it writes", "reduction none")
    return assigning.scatter(at, _written(at, x), at.get("axis", 0), _written(at, indices), _written(at, updates))


def scatter_nd(at: OnnxSite, x: Any, indices: Any, updates: Any) -> Any:
    """`ScatterND`: places of all samples, as exporters write `x[:, places] = y`."""
    if at.get("reduction", "none") not in ("none", b"none"):
        at.refuse("adds where it writes", "reduction none")
    found = [indices] * 2 if isinstance(indices, Tensor) else map(torch.from_numpy, (indices.first, indices.second))
    by_count = dict(zip(SAMPLES, found, strict=True))
    (into, order), (new, back) = (_ordered(at, _written(at, v)) for v in (x, updates))

    def write(samples: int) -> assigning.Write:
        places = by_count[samples].unbind(-1)

        def written(old: Tensor, late: Tensor) -> Tensor:
            view = old.permute(order)  # writes into `old`
            view[places] = late.permute(back)
            return old

        return written

    made = assigning.placed(at, into, new, write, SAMPLES)
    return layout.settled(at, Laid(made, tuple((d,) for d in order)))


def _ordered(at: OnnxSite, x: Any) -> tuple[Any, list[int]]:
    """A value with the batch in front, and the order in which its author has its dimensions."""
    if not isinstance(x, Laid):
        return x, list(range(1 + len(assigning.shape(at, x))))
    if any(len(dim) != 1 for dim in x.dims):
        at.refuse(*layout.MOVED)
    return x.node, [dim[0] for dim in x.dims]


def _written(at: OnnxSite, value: Any) -> Any:
    """A constant of every sample, as such; one whose batch is elsewhere as a value."""
    if not isinstance(value, Varying):
        return value
    if (known := value.filled() or value.repeated()) is not None:
        return known
    one, two = (torch.from_numpy(np.ascontiguousarray(v)) for v in (value.first, value.second))
    found = constants.seen(SAMPLES, one, two)
    return at.refuse(*SAMPLED) if found is None else constants.laid(at, found)


def col2im(at: OnnxSite, x: fx.Node, size: Any, window: Any) -> Any:
    """`Col2Im` of maps with two dimensions, padded alike on both sides."""
    shape, block = at.numbers(size) or [], at.numbers(window) or []
    if len(shape) != 2 or len(block) != 2:
        at.refuse("adds columns up to a map that has not two dimensions", "maps of height and width")
    pads = at.get("pads", [0] * 4)
    if len(pads) != 4 or pads[:2] != pads[2:]:
        at.refuse("adds columns up to a map whose sides are cut off differently", "padding that is alike on both sides")
    gaps, steps = at.get("dilations", [1, 1]), at.get("strides", [1, 1])
    return gathering.col2im(at, x, shape, block, gaps, pads[:2], steps)


def trilu(at: OnnxSite, x: fx.Node, k: Any = None) -> Any:
    """`Trilu`."""
    keep = torch.triu if at.get("upper", 1) else torch.tril
    return gathering.triangle(keep)(at, x, (at.numbers(k) or [0])[0])


def tile(at: OnnxSite, x: fx.Node, repeats: Any) -> Any:
    """`Tile`: the batch once."""
    return gathering.repeat(at, x, at.numbers(repeats) or [])


def expand(at: OnnxSite, x: fx.Node, sizes: Any) -> Any:
    """`Expand`: a size of 1 keeps what there is."""
    wanted, own = at.numbers(sizes) or [], [Batch(), *at.known(x)]
    wanted = [*own[: len(own) - len(wanted)], *wanted]
    wanted = [h if w == 1 else w for w, h in zip(wanted, own, strict=True)] if len(wanted) == len(own) else wanted
    return gathering.expand(at, x, wanted)


def pad(at: OnnxSite, x: fx.Node, pads: Any = None, value: Any = None, axes: Any = None) -> Any:
    """`Pad`."""
    amounts = at.numbers(pads, "pads")
    rank = 1 + len(at.known(x))
    dims = [d % rank for d in at.numbers(axes) or range(rank)]
    if amounts is None or len(amounts) != 2 * len(dims):
        at.refuse(f"has {len(amounts or [])} pads for {len(dims)} dimensions", AGAIN)
    begin, end = [0] * rank, [0] * rank
    for place, dim in enumerate(dims):
        begin[dim], end[dim] = at.integer(amounts[place]), at.integer(amounts[place + len(dims)])
    if begin[0] or end[0]:
        at.refuse("pads the batch", "pad dimension 1 or higher")
    mode = at.get("mode", "constant")
    modes = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    if mode not in modes:
        at.refuse(f"pads in a way called '{mode}'", "mode constant, reflect or edge")
    number = at.real(value, at.get("value", 0.0))
    flat = [n for b, e in zip(begin[:0:-1], end[:0:-1], strict=True) for n in (b, e)]
    if modes[mode] != "constant" and min(flat, default=0) < 0:
        at.refuse(f"crops the map and pads it by '{mode}' at once", "crop it by a Slice before")
    if modes[mode] != "constant":  # torch mirrors dimensions of maps alone
        while len(flat) > 2 * max(1, rank - 2) and not any(flat[-2:]):
            del flat[-2:]
        return routes.pad(at, x, flat, modes[mode]) if any(flat) else x
    return routes.pad(at, x, flat, "constant", number)


def depth_to_space(at: OnnxSite, x: fx.Node) -> Any:
    """`DepthToSpace`: channels as pixels of a larger map."""
    block = at.get("blocksize", 0)
    channels, height, width = at.known(x)
    if at.get("mode", "DCR") == "CRD":
        return layers.pixel_shuffle(at, x, block)
    x = routes.reshape(at, x, Batch(), block, block, channels // block**2, height, width)
    x = routes.permute(at, x, 0, 3, 4, 1, 5, 2)
    return routes.reshape(at, x, Batch(), channels // block**2, height * block, width * block)


def space_to_depth(at: OnnxSite, x: fx.Node) -> Any:
    """`SpaceToDepth`: pixels as channels of a smaller map."""
    block = at.get("blocksize", 0)
    channels, height, width = at.known(x)
    x = routes.reshape(at, x, Batch(), channels, height // block, block, width // block, block)
    x = routes.permute(at, x, 0, *((1, 3, 5) if at.get("mode", "DCR") == "CRD" else (3, 5, 1)), 2, 4)
    return routes.reshape(at, x, Batch(), channels * block**2, height // block, width // block)
