"""ONNX layers: convolutions, products, normalisation and pooling, by way of torch's functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from snnc.capture import formulas, layers, pools, resizing, routes
from snnc.capture.onnx.model import AGAIN
from snnc.capture.onnx.site import OnnxSite
from snnc.ir import dialect

CONSTANT = ("takes its weights from data", "use weights that are parameters or buffers of the network")


def conv(at: OnnxSite, x: fx.Node, weight: Any, bias: Any = None) -> Any:
    """`Conv`. Padding that differs from side to side goes in front of it."""
    dims = at.spatial(x)
    _check_kernel(at, weight, bias)
    strides, dilations = _sizes(at, "strides", dims), _sizes(at, "dilations", dims)
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, weight.shape[2:], strict=True)]
    begin, end = _pads(at, x, reach, strides)
    if begin != end or min(begin) < 0:
        x = at.emit(dialect.Pad(_interleaved(begin, end)), x, part="pad")
        begin = [0] * dims
    spelling = layers.convolutions(dims)
    return spelling(at, x, weight, bias, tuple(strides), tuple(begin), tuple(dilations), at.get("group", 1))


def _check_kernel(at: OnnxSite, weight: Any, bias: Any) -> None:
    """Weights are constants, and of the shape that the node says."""
    if not isinstance(weight, Tensor) or isinstance(bias, fx.Node):
        at.refuse(*CONSTANT)
    sizes = list(weight.shape[2:])
    if (told := at.get("kernel_shape", sizes)) != sizes:
        at.refuse(f"has kernel_shape {told} and a kernel of {sizes}", AGAIN)


UNLIKE = ("pads by auto_pad in a way that runtimes read differently", "export it with pads as numbers")


def _sizes(at: OnnxSite, name: str, dims: int) -> list[int]:
    """An attribute of whole numbers from 1 up, one for each dimension; ones where there is none."""
    found = at.get(name, None if name == "kernel_shape" else [1] * dims)
    if found is None or len(found) != dims or min(found) < 1:
        at.refuse(f"has {name} {found} for {dims} dimensions", AGAIN)
    return list(found)


def _interleaved(begin: Sequence[int], end: Sequence[int]) -> tuple[int, ...]:
    """ONNX's padding in the order of torch's: from the last dimension on."""
    return tuple(n for pair in zip(begin[::-1], end[::-1], strict=True) for n in pair)


def _pads(
    at: OnnxSite, x: fx.Node, reach: Sequence[int], strides: Sequence[int], backwards: bool = False
) -> tuple[list[int], list[int]]:
    """Padding in front of and behind each dimension; `reach` is how far a kernel reaches, dilation included."""
    dims, mode = len(reach), at.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        pads = list(at.get("pads", [0] * 2 * dims))
        if len(pads) != 2 * dims:
            at.refuse(f"has {len(pads)} pads for {dims} dimensions", AGAIN)
        if at.op != "Conv" and pads and min(pads) < 0:
            at.refuse(f"has pads {pads}", AGAIN)
        return pads[:dims], pads[dims:]
    if any(at.get("pads", ())):
        at.refuse(f"has pads and auto_pad = '{mode}' at once", "one of the two")
    if mode == "VALID":
        return [0] * dims, [0] * dims
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        at.refuse(f"pads in a way called '{mode}'", "export it with pads as numbers")
    sizes = at.known(x)[1:]
    if backwards:
        extra = at.get("output_padding", [0] * dims)
        total = [max(0, r + e - s) for r, s, e in zip(reach, strides, extra, strict=True)]
    else:
        total = [max(0, (-(-n // s) - 1) * s + r - n) for n, r, s in zip(sizes, reach, strides, strict=True)]
    less, more = [n // 2 for n in total], [n - n // 2 for n in total]
    return (less, more) if mode == "SAME_UPPER" else (more, less)


def conv_transpose(at: OnnxSite, x: fx.Node, weight: Any, bias: Any = None) -> Any:
    """`ConvTranspose`. What it crops on one side alone is cut off behind it."""
    dims = at.spatial(x)
    _check_kernel(at, weight, bias)
    strides, dilations = _sizes(at, "strides", dims), _sizes(at, "dilations", dims)
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, weight.shape[2:], strict=True)]
    extra = at.get("output_padding", [0] * dims)
    wanted = at.get("output_shape")
    if wanted is not None:
        at.get("pads")  # ONNX ignores them here
        full = [(n - 1) * s + r + e for n, s, r, e in zip(at.known(x)[1:], strides, reach, extra, strict=True)]
        total = [f - w for f, w in zip(full, wanted[-dims:], strict=True)]
        less, more = [n // 2 for n in total], [n - n // 2 for n in total]
        begin, end = (less, more) if at.get("auto_pad") == "SAME_UPPER" else (more, less)
        if min(total) < 0:
            at.refuse("is asked for a shape larger than it makes", "export it with pads in place of output_shape")
    else:
        begin, end = _pads(at, x, reach, strides, backwards=True)
    even = begin == end
    pads = begin if even else [0] * dims
    y = layers.transposed(dims)(
        at, x, weight, bias, tuple(strides), tuple(pads), tuple(extra), at.get("group", 1), tuple(dilations)
    )
    if even:
        return y
    cut = [slice(b, n - e) for b, e, n in zip(begin, end, at.known(y)[1:], strict=True)]
    return routes.getitem(at, y, (slice(None), slice(None), *cut))


def gemm(at: OnnxSite, a: Any, b: Any, c: Any = None) -> Any:
    """`Gemm`: `alpha * a @ b + beta * c`, of vectors and a constant matrix."""
    if not (isinstance(a, fx.Node) and isinstance(b, Tensor) and b.dim() == 2) or isinstance(c, fx.Node):
        at.refuse("multiplies by something other than a constant matrix", "weights as initialisers")
    if at.get("transA", 0):
        at.refuse("moves the batch", "export it without transA")
    if len(at.known(a)) != 1:
        at.refuse(f"multiplies values of {1 + len(at.known(a))} dimensions", "flatten before the layer")
    weight = b if at.get("transB", 0) else b.t()
    alpha, beta = at.get("alpha", 1.0), at.get("beta", 1.0)
    bias = None
    if c is not None:
        if c.numel() not in (1, weight.shape[0]) or (c.dim() == 2 and c.shape[0] != 1):
            at.refuse(f"adds a constant of shape {tuple(c.shape)}", "one number for each output")
        bias = c.reshape(-1).expand(weight.shape[0]) * beta
    return layers.linear(at, a, weight if alpha == 1 else weight * alpha, bias)


def matmul(at: OnnxSite, x: Any, other: Any) -> Any:
    """`MatMul`, of which both factors may depend on the input."""
    return formulas.matmul(at, x, other)


def batch_norm(at: OnnxSite, x: fx.Node, scale: Any, bias: Any, mean: Any, var: Any) -> Any:
    """`BatchNormalization` by constants."""
    if not all(isinstance(v, Tensor) and v.dim() == 1 for v in (scale, bias, mean, var)):
        at.refuse("normalises by values that are no constants", "one constant for each channel")
    training = bool(at.get("training_mode", 0)) or not at.get("spatial", 1)
    eps = float(str(np.float32(at.get("epsilon", 1e-5))))  # the file holds a float32, the author wrote a decimal
    return layers.batch_norm(at, x, mean, var, scale, bias, training, eps=eps)


def max_pool(at: OnnxSite, x: fx.Node) -> Any:
    """`MaxPool`."""
    dilations = _sizes(at, "dilations", at.spatial(x))
    return _pool(
        at, x, dilations, lambda dims, k, s, p, ceil: pools.MAXIMUM[dims](k, s, p, tuple(dilations), False, ceil)
    )


def average_pool(at: OnnxSite, x: fx.Node) -> Any:
    """`AveragePool`."""
    dims = at.spatial(x)
    if any(d != 1 for d in at.get("dilations", [1])):
        return _gapped(at, x, dims)
    counted = bool(at.get("count_include_pad", 0))
    begin, end = _pads(at, x, _sizes(at, "kernel_shape", dims), _sizes(at, "strides", dims))
    if counted and begin != end:
        x = at.emit(dialect.Pad(_interleaved(begin, end)), x, part="pad")
        at.attributes = {**at.attributes, "pads": [0] * 2 * dims, "auto_pad": "NOTSET"}
    counted = counted or not any((*begin, *end))
    return _pool(at, x, [1] * dims, lambda dims, k, s, p, ceil: pools.AVERAGE[dims](k, s, p, ceil, counted))


def _gapped(at: OnnxSite, x: fx.Node, dims: int) -> Any:
    """Averages over windows with gaps, which torch has none of: along one dimension after the other."""
    kernel, strides, gaps = (_sizes(at, name, dims) for name in ("kernel_shape", "strides", "dilations"))
    reach = [d * (k - 1) + 1 for d, k in zip(gaps, kernel, strict=True)]
    begin, end = _pads(at, x, reach, strides)
    if at.get("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER"):
        at.refuse(*UNLIKE)
    ceil = bool(at.get("ceil_mode", 0)) and at.get("auto_pad", "NOTSET") == "NOTSET"
    counted = bool(at.get("count_include_pad", 0))
    for dim, size in enumerate(at.known(x)[1:]):
        rows = _windows(size, begin[dim], end[dim], reach[dim], strides[dim], ceil)
        weight = torch.zeros(rows, size)
        for row in range(rows):
            start = row * strides[dim] - begin[dim]
            places = [p for p in range(start, start + reach[dim], gaps[dim]) if p < size + end[dim]]
            inside = [p for p in places if 0 <= p < size]
            if not inside and not counted:
                at.refuse("averages over a window of padding alone", "pads smaller than the window")
            weight[row, inside] = 1 / len(places if counted else inside)
        x = resizing.mixed(at, x, 2 + dim, weight)
    return x


def _pool(at: OnnxSite, x: fx.Node, dilations: Sequence[int], make: Any) -> Any:
    """A pool that leaves what lies outside of the map out.

    torch pads both sides alike. So there may have to be more padding in front, by whole strides, and `ceil_mode` for a
    window that reaches over the end; the windows too many are cut off.
    """
    dims, sizes = at.spatial(x), at.known(x)[1:]
    kernel, strides = _sizes(at, "kernel_shape", dims), _sizes(at, "strides", dims)
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    begin, end = _pads(at, x, reach, strides)
    if any(pad >= r for pad, r in zip((*begin, *end), (*reach, *reach), strict=True)):
        at.refuse(
            f"pads by {max(*begin, *end)}, so that a window lies outside of the map", "pads smaller than the window"
        )
    places = list(zip(sizes, begin, end, reach, strides, strict=True))
    ceil, plain = bool(at.get("ceil_mode", 0)), at.get("auto_pad", "NOTSET") in ("NOTSET", "")
    want = [_windows(*one, ceil and plain) for one in places]
    # ONNX lets auto_pad ignore ceil_mode, and says nothing of gaps; runtimes do otherwise.
    if not plain and (any(d != 1 for d in dilations) or (ceil and want != [_windows(*one, True) for one in places])):
        at.refuse(*UNLIKE)
    ceil = ceil and plain
    found = []
    for mode in (ceil, not ceil):
        fits = [_fit(*one, mode) for one in zip(sizes, begin, reach, strides, want, strict=True)]
        if None not in fits:
            pads, cuts = zip(*(fit for fit in fits if fit), strict=True)
            found.append((sum(cut != slice(None) for cut in cuts), mode, pads, cuts))
    if not found:
        at.refuse("pads one side of the map in a way that torch cannot", "pad both sides alike")
    cost, mode, pads, cuts = min(found, key=lambda one: one[0])
    y = at.emit(make(dims, tuple(kernel), tuple(strides), pads, mode), x)
    return routes.getitem(at, y, (slice(None), slice(None), *cuts)) if cost else y


def _fit(size: int, begin: int, reach: int, stride: int, want: int, ceil: bool) -> tuple[int, slice] | None:
    """Padding on both sides of one dimension, at most half a window, and which windows to keep."""
    for skip, pad in enumerate(range(begin, max(begin, reach // 2) + 1, stride)):
        have = _windows(size, pad, pad, reach, stride, ceil)
        if have >= skip + want:
            return pad, slice(None) if have == want else slice(skip, skip + want)
    return None


def _windows(size: int, begin: int, end: int, reach: int, stride: int, ceil: bool) -> int:
    """How many windows there are; with `ceil` also one that starts inside and reaches over the end."""
    room = size + begin + end - reach
    if not ceil:
        return room // stride + 1
    number = -(-room // stride) + 1
    return number - ((number - 1) * stride >= size + begin)


def global_pool(table: Any) -> Any:
    """`GlobalAveragePool` and `GlobalMaxPool`."""

    def spelling(at: OnnxSite, x: fx.Node) -> Any:
        dims = at.spatial(x)
        return at.emit(table[dims]((1,) * dims), x)

    return spelling


def reduced(spelling: Any) -> Any:
    """`ReduceMean`, `ReduceSum` and `ReduceMax`: axes are an attribute or an input."""

    def spelled(at: OnnxSite, x: fx.Node, axes: Any = None) -> Any:
        dims, kept = at.numbers(axes, "axes"), bool(at.get("keepdims", 1))
        if at.get("noop_with_empty_axes", 0) and not dims:
            return x
        return spelling(at, x, dims, kept)

    return spelled
