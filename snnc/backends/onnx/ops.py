"""Modules of the dialect that are blind to time, in ONNX: one small emitter for each. Pools are in `pools`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from snnc.backends.onnx.block import EmitSite, each
from snnc.ir import dialect
from snnc.ir.embedding import Embedding
from snnc.ir.rows import Kinds

Emitter = Callable[..., str]  # of a site, the module and the names of its inputs: the name of its output
_END = 2**63 - 1
_MODES = {"constant": "constant", "zeros": "constant", "reflect": "reflect", "replicate": "edge"}


def convolution(at: EmitSite, m: Any, x: str) -> str:
    """Conv1d, Conv2d, Conv3d; padding that is not zeros is a node of its own."""
    dims = len(m.kernel_size)
    if m.padding == "same":
        whole = [d * (k - 1) for d, k in zip(m.dilation, m.kernel_size, strict=True)]
        begin, end = [w // 2 for w in whole], [w - w // 2 for w in whole]
    else:
        begin = end = each(0 if m.padding == "valid" else m.padding, dims)
    if m.padding_mode != "zeros":
        pads = [p for pair in zip(reversed(begin), reversed(end), strict=True) for p in pair]
        x = _padded(at, m, x, pads, m.padding_mode, 0.0, "pad")
        begin = end = [0] * dims
    return at.op("Conv", *_parameters(at, m, x), pads=[*begin, *end], **_strides(m))


def transposed(at: EmitSite, m: Any, x: str) -> str:
    """ConvTranspose1d, ConvTranspose2d, ConvTranspose3d."""
    pads, more = list(m.padding) * 2, list(m.output_padding)
    return at.op("ConvTranspose", *_parameters(at, m, x), pads=pads, output_padding=more, **_strides(m))


def _parameters(at: EmitSite, m: Any, x: str) -> list[str]:
    return [x, at.const("weight", m.weight), *([at.const("bias", m.bias)] if m.bias is not None else [])]


def _strides(m: Any) -> dict[str, Any]:
    return {
        "kernel_shape": list(m.kernel_size),
        "strides": list(m.stride),
        "dilations": list(m.dilation),
        "group": m.groups,
    }


def linear(at: EmitSite, m: nn.Linear, x: str) -> str:
    """A product with the last dimension, of any rank."""
    weight = at.const("weight", m.weight.T)
    if m.bias is None:
        return at.op("MatMul", x, weight)
    return at.op("Add", at.op("MatMul", x, weight, part="product"), at.const("bias", m.bias))


def pad(at: EmitSite, m: dialect.Pad, x: str) -> str:
    """`torch.nn.functional.pad`."""
    return _padded(at, m, x, m.pads, m.mode, m.value, "")


def _padded(at: EmitSite, m: nn.Module, x: str, pads: Sequence[int], mode: str, value: float, part: str) -> str:
    """`pads` in torch's order: the last dimension first, its beginning and its end."""
    pairs = list(zip(pads[::2], pads[1::2], strict=True))
    if mode != "constant" and (mode not in _MODES or min(pads) < 0):
        # ONNX has no padding that goes round before opset 19, nor one that pads and cuts in one: torch says what
        # stands where.
        rank = at.dimensions(m)
        for k, (size, pair) in enumerate(zip(reversed(at.shape(m)), pairs, strict=False)):
            index = functional.pad(torch.arange(float(size))[None, None], pair, mode).flatten().long()
            x = at.take(x, index, rank - 1 - k, part if k == len(pairs) - 1 else f"{part or 'axis'}{k}")
        return x
    rest = [(0, 0)] * (at.dimensions(m) - len(pairs))
    ends = [*rest, *reversed(pairs)]
    sizes = at.const("pads", [a for a, _ in ends] + [b for _, b in ends])
    more = [at.const("value", float(value))] if mode == "constant" and value else []
    return at.op("Pad", x, sizes, *more, part=part, mode=_MODES[mode])


def slice_(at: EmitSite, m: dialect.Slice, x: str) -> str:
    """Basic slicing."""
    given = [(axis, r) for axis, r in enumerate(m.ranges, 1) if tuple(r) not in ((None, None, None), (None, None, 1))]
    if not given:
        return at.op("Identity", x)
    starts = at.const("starts", [r[0] or 0 for _, r in given])
    ends = at.const("ends", [_END if r[1] is None else r[1] for _, r in given])
    axes = at.const("axes", [axis for axis, _ in given])
    return at.op("Slice", x, starts, ends, axes, at.const("steps", [r[2] or 1 for _, r in given]))


def flatten(at: EmitSite, m: nn.Flatten, x: str) -> str:
    """Dimensions joined; as a reshape, in which 0 keeps a dimension."""
    start, end, tail = m.start_dim, m.end_dim, []
    if start < 0 or end != -1:
        rank = at.dimensions(m)
        start, end = start % rank, end % rank
        tail = list(at.shape(m)[end:]) if end < rank - 1 else []
    return at.op("Reshape", x, at.const("shape", [*[0] * start, -1, *tail]))


def upsample(at: EmitSite, m: nn.Upsample, x: str) -> str:
    """Nearest neighbours: by whole factors, else by torch's own choice of neighbours."""
    dims = at.dimensions(m) - 2
    factors = each(m.scale_factor or 0.0, dims, float)
    if all(f and f.is_integer() for f in factors):
        scales = at.const("scales", [1.0, 1.0, *factors])
        how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return at.op("Resize", x, "", scales, mode="nearest", **how)
    sizes = at.shape(m)[1:]
    for k, size in enumerate(sizes):
        row = torch.arange(float(size)).reshape([-1 if d == k else 1 for d in range(dims)]).expand(sizes)
        chosen = m(row[None, None])[0, 0].movedim(k, 0)
        index = chosen.reshape(len(chosen), -1)[:, 0].long()
        x = at.take(x, index, 2 + k, "" if k == dims - 1 else f"axis{k}")
    return x


def pixel_shuffle(at: EmitSite, m: nn.PixelShuffle, x: str) -> str:
    """Channels to pixels, in torch's order."""
    return at.op("DepthToSpace", x, blocksize=m.upscale_factor, mode="CRD")


def affine(at: EmitSite, m: dialect.Affine, x: str) -> str:
    """`x * scale + shift`."""
    scaled = at.op("Mul", x, at.const("scale", m.scale), part="scaled")
    return at.op("Add", scaled, at.const("shift", m.shift))


def grid(at: EmitSite, m: dialect.Grid, x: str) -> str:
    """`clip(round(x * scale), low, high)`; ONNX rounds halves to even as torch does."""
    scaled = at.op("Mul", x, at.const("scale", m.scale), part="scaled")
    whole = at.op("Round", scaled, part="whole")
    return at.op("Clip", whole, at.const("low", float(m.low)), at.const("high", float(m.high)))


def reshape(at: EmitSite, m: dialect.Reshape, x: str) -> str:
    """A sample in another shape; 0 keeps the batch."""
    return at.op("Reshape", x, at.const("shape", [0, *m.shape]))


def mean(at: EmitSite, m: dialect.Mean, x: str) -> str:
    """Mean over dimensions."""
    return at.op("ReduceMean", x, axes=list(m.dims), keepdims=int(m.keepdim))


def mix(at: EmitSite, m: dialect.Mix, x: str) -> str:
    """A product with one dimension, as that of matrices where it is one of the last two."""
    rank = at.dimensions(m)
    dim = m.dim % rank
    if dim == rank - 1:
        return at.op("MatMul", x, at.const("weight", m.weight.T))
    weight = at.const("weight", m.weight)
    if dim == rank - 2:
        return at.op("MatMul", weight, x)
    swap = list(range(rank))
    swap[dim], swap[-2] = swap[-2], dim
    x = at.op("Transpose", x, part="turned", perm=swap)
    return at.op("Transpose", at.op("MatMul", weight, x, part="mixed"), perm=swap)


def embedding(at: EmitSite, m: Embedding, x: str) -> str:
    """Rows of a table. An input of whole numbers comes as int64; what is counted from it is float."""
    if at.node.all_input_nodes[0].op != "placeholder":
        x = at.op("Cast", x, part="places", to=7)
    return at.op("Gather", at.const("weight", m.weight), x, axis=0)


OPS: dict[Kinds, Emitter] = {
    Embedding: embedding,
    dialect.CONVOLUTIONS: convolution,
    dialect.TRANSPOSED: transposed,
    nn.Linear: linear,
    dialect.Add: lambda at, m, a, b: at.op("Add", a, b),
    dialect.Sub: lambda at, m, a, b: at.op("Sub", a, b),
    dialect.Concat: lambda at, m, *x: at.op("Concat", *x, axis=m.dim),
    dialect.Affine: affine,
    dialect.Grid: grid,
    dialect.Pad: pad,
    dialect.Slice: slice_,
    dialect.Reshape: reshape,
    dialect.Permute: lambda at, m, x: at.op("Transpose", x, perm=[d % len(m.dims) for d in m.dims]),
    dialect.Mean: mean,
    dialect.Take: lambda at, m, x: at.op("Gather", x, at.const("index", m.index), axis=m.dim),
    dialect.Mix: mix,
    nn.Flatten: flatten,
    nn.Upsample: upsample,
    nn.PixelShuffle: pixel_shuffle,
    nn.Softmax: lambda at, m, x: at.op("Softmax", x, axis=m.dim),
    nn.LogSoftmax: lambda at, m, x: at.op("LogSoftmax", x, axis=m.dim),
}
