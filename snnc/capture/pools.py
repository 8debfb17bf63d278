"""Spellings of pooling: averages and maxima over windows, over whole maps, over dimensions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from snnc.capture import spellings
from snnc.capture.lowering import Site
from snnc.capture.values import PLACES, SHAPE_HINT, Dim, Refused, Sizes, Unknown
from snnc.ir import curved, dialect

AVERAGE: dict[int, Any] = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
ADAPTIVE_AVERAGE: dict[int, Any] = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
MAXIMUM: dict[int, Any] = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
ADAPTIVE_MAXIMUM: dict[int, Any] = {1: nn.AdaptiveMaxPool1d, 2: nn.AdaptiveMaxPool2d, 3: nn.AdaptiveMaxPool3d}


def each(value: Any, dims: int) -> tuple[int, ...]:
    """One number for each dimension, where the author may have written one for all."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return values * dims if len(values) == 1 else values


def _window(at: Site, kernel: Any, stride: Any, padding: Any, dims: int) -> tuple[Any, Any, Any]:
    kernel = tuple(at.integer(k) for k in each(kernel, dims))
    stride = kernel if stride is None or stride == [] else tuple(at.integer(s) for s in each(stride, dims))
    return kernel, stride, tuple(at.integer(p) for p in each(padding, dims))


def averages(dims: int) -> Any:
    """`F.avg_pool1d`, `avg_pool2d`, `avg_pool3d`."""

    def spelling(
        at: Site, x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> Any:  # fmt: skip
        plain = padding in (0, (0,) * dims, [0] * dims) and divisor_override is None
        if plain and stride is None and dims == 2 and (whole := _whole_map(at, x, kernel_size)) is not None:
            return at.emit(whole, x)
        kernel, stride, padding = _window(at, kernel_size, stride, padding, dims)
        more = () if dims == 1 else (divisor_override,)
        return at.emit(AVERAGE[dims](kernel, stride, padding, ceil_mode, count_include_pad, *more), x)

    return spelling


def _whole_map(at: Site, x: Any, kernel: Any) -> nn.Module | None:
    """The module for a window written in terms of the input's own size, where that size is not known."""
    if isinstance(kernel, Sizes) and kernel.node is x and kernel.part in (slice(2, None), slice(-2, None)):
        return nn.AdaptiveAvgPool2d(1)
    if isinstance(kernel, (tuple, list)) and all(isinstance(k, Dim) and k.node is x for k in kernel):
        dims = tuple(k.index % 4 for k in kernel)
        if dims == (2, 3):
            return nn.AdaptiveAvgPool2d(1)
        if len(set(dims)) > 1:
            raise Refused("pools with the sides of the map swapped", SHAPE_HINT, shape=True)
        return dialect.OwnSizeAvgPool2d(dims[0])
    if isinstance(kernel, Dim) and kernel.node is x:
        return dialect.OwnSizeAvgPool2d(kernel.index % 4)
    if isinstance(kernel, (Sizes, Unknown)):
        raise Refused("pools with a window of unknown size", SHAPE_HINT, shape=True)
    return None


def maxima(dims: int) -> Any:
    """`F.max_pool1d`, `max_pool2d`, `max_pool3d`."""

    def spelling(
        at: Site, x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
        ceil_mode: bool = False, return_indices: bool = False,
    ) -> Any:  # fmt: skip
        if return_indices:
            at.refuse("asks for the place of each maximum", "pool with return_indices=False")
        kernel, stride, padding = _window(at, kernel_size, stride, padding, dims)
        return at.emit(MAXIMUM[dims](kernel, stride, padding, each(dilation, dims), ceil_mode=ceil_mode), x)

    return spelling


def adaptive(table: Any, dims: int) -> Any:
    """`F.adaptive_avg_pool2d` and its like; `table` has the classes."""

    def spelling(at: Site, x: Any, output_size: Any, return_indices: bool = False) -> Any:
        if return_indices:
            at.refuse("asks for the place of each maximum", "pool with return_indices=False")
        sizes = tuple(None if n is None else at.integer(n) for n in each(output_size, dims))
        if None in sizes:
            known = at.known(x)[-dims:]
            sizes = tuple(have if want is None else want for have, want in zip(known, sizes, strict=True))
        return at.emit(table[dims](sizes), x)

    return spelling


def mean(at: Site, x: fx.Node, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    """A mean over some dimensions."""
    return at.emit(dialect.Mean(_dims(at, x, dim), keepdim), x)


def sum_(at: Site, x: fx.Node, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    """A sum over some dimensions: their mean, times how many values they have."""
    dims = _dims(at, x, dim)
    count = math.prod(at.known(x)[d - 1] for d in dims)
    return spellings.mul(at, mean(at, x, dims, keepdim), float(count))


@dataclass(frozen=True)
class MaximumWithPlaces:
    """What `torch.max(x, dim)` gives: the values, and their places, which nothing may read."""

    values: Any
    indices: Any = PLACES

    def __getitem__(self, index: int) -> Any:
        return (self.values, self.indices)[index]


def max_(at: Site, x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """`torch.max`, of two values or over a map."""
    if isinstance(x, Tensor) or isinstance(dim, (Tensor, fx.Node)):
        return spellings.maximum(at, x, dim)
    return MaximumWithPlaces(amax(at, x, dim, keepdim))


def amax(at: Site, x: fx.Node, dim: Any = (), keepdim: bool = False) -> Any:
    """The maximum over some dimensions; of the whole map, a pool."""
    dims, rank = _dims(at, x, dim), at.rank(x)
    if rank is None:
        raise Refused("takes the maximum of a value of unknown rank", SHAPE_HINT, shape=True)
    if dims != tuple(range(2, rank)) or rank > 5 or rank < 3:
        return at.emit(curved.Greatest(dims, keepdim), x)
    x = at.emit(ADAPTIVE_MAXIMUM[rank - 2]((1,) * (rank - 2)), x)
    return x if keepdim else at.emit(nn.Flatten(1), x, part="flatten")


def _dims(at: Site, x: fx.Node, dim: Any) -> tuple[int, ...]:
    if dim is None or dim in ((), []):
        at.refuse("reduces the batch as well", "name the dimensions, such as x.mean((2, 3))")
    return tuple(sorted(at.axis(x, d) for d in (dim if isinstance(dim, (tuple, list)) else (dim,))))
