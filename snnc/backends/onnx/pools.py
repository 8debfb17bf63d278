"""Pools in ONNX.

What torch and ONNX mean alike is one ONNX node. For the rest torch is asked which elements a window covers, since
runtimes differ in the windows at the edge: sums are a convolution by ones, divided by torch's own counts; maxima are
taken over padding that is written out, or over gathered windows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from snnc.backends.onnx.block import EmitSite, each
from snnc.backends.onnx.ops import Emitter
from snnc.ir import dialect
from snnc.ir.rows import Kinds

_LOWEST = float(np.finfo(np.float32).min)


def average(at: EmitSite, m: Any, x: str) -> str:
    """AvgPool1d, AvgPool2d, AvgPool3d."""
    dims = _dims(m)
    kernel, stride, padding = (each(v, dims) for v in (m.kernel_size, m.stride, m.padding))
    end = _overhang(at, m)
    if getattr(m, "divisor_override", None) is None and not any(end):
        pads, inside = padding * 2, int(m.count_include_pad)
        return at.op("AveragePool", x, kernel_shape=kernel, strides=stride, pads=pads, count_include_pad=inside)
    channels, *sizes = at.shape(m)
    ones = at.const("window", torch.ones(channels, 1, *kernel))
    pads = [*padding, *(p + e for p, e in zip(padding, end, strict=True))]
    total = at.op("Conv", x, ones, part="total", kernel_shape=kernel, strides=stride, pads=pads, group=channels)
    return at.op("Div", total, at.const("count", _counts(m, sizes)))


def _dims(m: nn.Module) -> int:
    """1, 2 or 3, by the name of the pool's class."""
    return int(type(m).__name__[-2])


def _counts(m: Any, sizes: list[int]) -> Tensor:
    """What torch divides each window's sum by, `[1, 1, ...]`."""
    dims = len(sizes)
    if override := getattr(m, "divisor_override", None):
        return torch.full((1, 1, *[1] * dims), float(override))
    ones = torch.ones(1, 1, *sizes)
    share = m(ones)  # of each window that is inside the map
    kernel, stride, padding = (each(v, dims) for v in (m.kernel_size, m.stride, m.padding))
    reach = [(n - 1) * s + k for n, s, k in zip(share.shape[2:], stride, kernel, strict=True)]
    pads = [e for r, size, p in zip(reach, sizes, padding, strict=True) for e in (max(0, r - size - p), p)][::-1]
    conv: Any = (functional.conv1d, functional.conv2d, functional.conv3d)[dims - 1]
    inside = conv(functional.pad(ones, pads), torch.ones(1, 1, *kernel), stride=stride)
    return (inside / share).round()


def _overhang(at: EmitSite, m: Any) -> list[int]:
    """How far the last windows of `ceil_mode` reach beyond the padding, in each dimension."""
    dims = _dims(m)
    if not m.ceil_mode:
        return [0] * dims
    sizes, (_, *outs) = at.shape(m)[1:], at.after or ()
    kernel, stride, padding, dilation = (
        each(v, dims) for v in (m.kernel_size, m.stride, m.padding, getattr(m, "dilation", 1))
    )
    return [
        max(0, (out - 1) * s + d * (k - 1) + 1 - size - 2 * p)
        for out, size, k, s, p, d in zip(outs, sizes, kernel, stride, padding, dilation, strict=True)
    ]


def own_size(at: EmitSite, m: dialect.OwnSizeAvgPool2d, x: str) -> str:
    """A square window as large as the map is on one side."""
    window = [at.shape(m)[m.dim - 1]] * 2
    return at.op("AveragePool", x, kernel_shape=window, strides=window)


def adaptive_average(at: EmitSite, m: Any, x: str) -> str:
    """AdaptiveAvgPool1d, AdaptiveAvgPool2d, AdaptiveAvgPool3d."""
    dims = _dims(m)
    wanted = m.output_size if isinstance(m.output_size, tuple) else (m.output_size,) * dims
    if set(wanted) == {1}:
        return at.op("GlobalAveragePool", x)
    sizes = at.shape(m)[1:]
    outs = [w or s for w, s in zip(wanted, sizes, strict=True)]
    if all(size % out == 0 for size, out in zip(sizes, outs, strict=True)):
        kernel = [size // out for size, out in zip(sizes, outs, strict=True)]
        return at.op("AveragePool", x, kernel_shape=kernel, strides=kernel)
    for k, (size, out) in enumerate(zip(sizes, outs, strict=True)):  # one dimension after the other, by a matrix
        turn = [*(d for d in range(dims + 2) if d != 2 + k), 2 + k]
        back = [turn.index(d) for d in range(dims + 2)]
        matrix = torch.zeros(size, out)
        for i, window in enumerate(_windows(size, out)):
            matrix[window.start : window.stop, i] = 1.0
        last = at.op("Transpose", x, part=f"turned{k}", perm=turn)
        total = at.op("MatMul", last, at.const(f"windows{k}", matrix), part=f"total{k}")
        each_mean = at.op("Div", total, at.const(f"counts{k}", matrix.sum(0)), part=f"mean{k}")
        x = at.op("Transpose", each_mean, part="" if k == dims - 1 else f"axis{k}", perm=back)
    return x


def _windows(size: int, out: int) -> list[range]:
    """The windows of adaptive pooling along one dimension."""
    return [range(i * size // out, -(-(i + 1) * size // out)) for i in range(out)]


def maximum(at: EmitSite, m: Any, x: str) -> str:
    """MaxPool1d, MaxPool2d, MaxPool3d."""
    return at.op("MaxPool", _reaching(at, m, x, _LOWEST, "padded"), **_window(m))


def _window(m: Any) -> dict[str, Any]:
    dims = _dims(m)
    kernel, stride, padding, dilation = (each(v, dims) for v in (m.kernel_size, m.stride, m.padding, m.dilation))
    return {"kernel_shape": kernel, "strides": stride, "pads": padding * 2, "dilations": dilation}


def _reaching(at: EmitSite, m: Any, x: str, value: float, part: str) -> str:
    """`x`, longer by what the last windows of `ceil_mode` reach beyond it."""
    end = _overhang(at, m)
    if not any(end):
        return x
    pads = at.const("ends", [*[0] * (len(end) + 4), *end])
    return at.op("Pad", x, pads, at.const(f"{part}.value", value), part=part)


def leaders(at: EmitSite, m: Any, total: str, current: str) -> str:
    """`current` where `total` is largest in its window: `GatedMax`."""
    total, current = _reaching(at, m, total, _LOWEST, "totals"), _reaching(at, m, current, 0.0, "currents")
    names = (f"{at.out}.best", f"{at.out}.index")
    _, index = at.block.several("MaxPool", total, outs=names, **_window(m))
    line = at.op("Reshape", current, at.const("line", [-1]), part="line")
    return at.op("Gather", line, index, axis=0)


def adaptive_maximum(at: EmitSite, m: Any, x: str) -> str:
    """AdaptiveMaxPool1d, AdaptiveMaxPool2d, AdaptiveMaxPool3d."""
    dims = _dims(m)
    wanted = m.output_size if isinstance(m.output_size, tuple) else (m.output_size,) * dims
    if set(wanted) == {1}:
        return at.op("GlobalMaxPool", x)
    sizes = at.shape(m)[1:]
    for k, (size, out) in enumerate(zip(sizes, (w or s for w, s in zip(wanted, sizes, strict=True)), strict=True)):
        windows = _windows(size, out)
        longest = max(map(len, windows))  # a shorter window repeats its last element, which changes no maximum
        index = torch.tensor([[w[min(i, len(w) - 1)] for i in range(longest)] for w in windows])
        gathered = at.take(x, index, 2 + k, f"gathered{k}")
        x = at.op("ReduceMax", gathered, part="" if k == dims - 1 else f"axis{k}", axes=[3 + k], keepdims=0)
    return x


POOLS: dict[Kinds, Emitter] = {
    (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d): average,
    (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d): adaptive_average,
    (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d): maximum,
    (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d): adaptive_maximum,
    dialect.OwnSizeAvgPool2d: own_size,
}
