"""Spellings of maps that are scaled, and of other sums with constant weights along a dimension.

Scaling is one matrix for each dimension of a map. torch itself tells it: each is scaled by the operation of ATen that
the author's call ends in, which is given the unit vectors. So the rules of corners, borders and smoothing are its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from snnc.capture import pools, routes
from snnc.capture.lowering import Site
from snnc.capture.values import Batch, Spelling
from snnc.ir import dialect

ATEN = torch.ops.aten
MOST = 2**24  # numbers in a matrix
SMOOTH = {"linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}  # and the dimensions of their maps


def mixed(at: Site, x: fx.Node, dim: int, weight: Tensor) -> Any:
    """Sums along one dimension."""
    if weight.numel() > MOST:
        at.refuse("mixes more than 2^24 pairs of values", "check its sizes: no network needs so many")
    return at.emit(dialect.Mix(dim, weight.to(at.lowering.like)), x)


def interpolate(
    at: Site,
    x: fx.Node,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: Any = None,
    recompute_scale_factor: Any = None,
    antialias: bool = False,
) -> Any:
    """`F.interpolate`, `nn.Upsample`."""
    if isinstance(scale_factor, (tuple, list)):
        scale_factor = tuple(float(s) for s in scale_factor)
    if size is not None:
        size = tuple(at.integer(s) for s in size) if isinstance(size, (tuple, list)) else at.integer(size)
    if mode == "nearest" and not (recompute_scale_factor and size is None):
        return at.emit(nn.Upsample(size, scale_factor, "nearest"), x)
    sizes = at.known(x)[1:]
    if size is None:
        scales: list[Any] = [float(s) for s in pools.each(scale_factor, len(sizes))]
        size = tuple(math.floor(n * s) for n, s in zip(sizes, scales, strict=True))
    else:
        size, scales = pools.each(size, len(sizes)), [None] * len(sizes)
    if recompute_scale_factor:
        scales = [None] * len(sizes)
    if mode == "nearest":
        return at.emit(nn.Upsample(size, None, "nearest"), x)
    if mode == "area":
        return at.emit(pools.ADAPTIVE_AVERAGE[len(sizes)](size), x)
    if mode == "nearest-exact":
        return nearest_exact(at, x, size, scales)
    if SMOOTH.get(mode) != len(sizes) or (antialias and len(sizes) != 2):
        at.refuse(f"scales a map of {len(sizes)} dimensions by '{mode}'", "check the network on one sample")
    return smooth(at, x, size, scales, mode, bool(align_corners), antialias)


def nearest_exact(at: Site, x: fx.Node, size: Sequence[int], scales: Sequence[float | None]) -> Any:
    """Nearest neighbours, by the middles of pixels."""
    for dim, (new, scale) in enumerate(zip(size, scales, strict=True), 2):
        row = torch.arange(at.known(x)[dim - 1], dtype=torch.float32).reshape(1, 1, -1)
        index = ATEN._upsample_nearest_exact1d(row, [new], scale).flatten().long()
        x = at.emit(dialect.Take(dim, index), x)
    return x


def smooth(
    at: Site, x: fx.Node, size: Sequence[int], scales: Sequence[float | None], mode: str, align: bool, antialias: bool
) -> Any:  # fmt: skip
    """Linear and cubic interpolation: a matrix for each dimension. A scale of None is what the sizes say."""
    sizes = at.known(x)[1:]
    if min(size) < 1 or max(*sizes, *size) ** 2 > MOST:
        at.refuse(f"scales a map of {sizes} to {tuple(size)}", "check its sizes: no network needs so many")
    whole = _operation(mode, align, antialias)
    map_ = torch.rand(1, 1, *sizes, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = map_
    for dim, (old, new, scale) in enumerate(zip(sizes, size, scales, strict=True), 2):
        weight = _matrix(old, new, scale, mode, align, antialias)
        x = mixed(at, x, dim, weight)
        found = dialect.Mix(dim, weight)(found)
    # torch 2.13 smooths maps of width one wrongly: what it computes there is no product of matrices.
    if not torch.allclose(found, whole(map_, size, scales), rtol=0, atol=1e-9):
        at.refuse(f"scales a map of {sizes} to {tuple(size)} in a way of its own", "antialias=False")
    return x


def _operation(mode: str, align: bool, antialias: bool) -> Callable[[Tensor, Sequence[int], Sequence[Any]], Tensor]:
    """What scales a map to a size: by how much is None where sizes say so."""
    name = f"upsample_{mode}{SMOOTH[mode]}d"
    function = getattr(ATEN, f"_{name}_aa" if antialias else name)
    return lambda x, size, scales: function(x, list(size), align, *scales)


def _matrix(old: int, new: int, scale: float | None, mode: str, align: bool, antialias: bool) -> Tensor:
    """The matrix `[new, old]` that scales one dimension: it scales the rows of a map of unit vectors."""
    units = torch.eye(old, dtype=torch.float64)[None, None]
    if SMOOTH[mode] == 2 and old > 1:
        return _operation(mode, align, antialias)(units, (old, new), (None, scale))[0, 0].mT
    if SMOOTH[mode] == 2 or old == 1:
        return torch.ones(new, 1, dtype=torch.float64)
    return _operation("linear", align, False)(units[0], (new,), (scale,))[0].mT


def cumsum(at: Site, x: fx.Node, dim: int, dtype: Any = None) -> Any:
    """`torch.cumsum`."""
    dim = at.axis(x, dim)
    return mixed(at, x, dim, torch.ones([at.known(x)[dim - 1]] * 2).tril())


def grid_sample(
    at: Site, x: fx.Node, grid: Any, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: Any = None
) -> Any:  # fmt: skip
    """`F.grid_sample` at constant places, the same for each sample: a matrix on the whole map."""
    if not isinstance(grid, Tensor) or len(grid) != 1:
        at.refuse(
            "samples at places that depend on the input, or on the sample",
            "sample at constant places, such as grid.expand(x.size(0), -1, -1, -1)",
        )
    channels, *sizes = at.known(x)
    count, new = math.prod(sizes), grid.shape[1:-1]
    if count * max(count, math.prod(new)) > MOST:
        at.refuse("mixes more than 2^24 pairs of values", "check its sizes: no network needs so many")
    units = torch.eye(count, dtype=torch.float64).reshape(1, count, *sizes)
    weight = functional.grid_sample(units, grid.detach().cpu().double(), mode, padding_mode, bool(align_corners))
    x = routes.reshape(at, x, Batch(), channels, count)
    x = mixed(at, x, 2, weight.reshape(count, -1).mT)
    return routes.reshape(at, x, Batch(), channels, *new)


def aten_nearest(at: Site, x: fx.Node, size: Any, scales: Any = None, *more: Any) -> Any:
    """ATen: `_upsample_nearest_exact2d` and its like."""
    return nearest_exact(at, x, *_given(at, x, size, scales, more))


def aten_smooth(mode: str, antialias: bool = False) -> Spelling:
    """ATen: `upsample_bilinear2d` and its like."""

    def spelling(at: Site, x: fx.Node, size: Any, align: bool, scales: Any = None, *more: Any) -> Any:
        return smooth(at, x, *_given(at, x, size, scales, more), mode, align, antialias)

    return spelling


def _given(at: Site, x: fx.Node, size: Any, scales: Any, more: Sequence[Any]) -> tuple[Any, Any]:
    """Sizes and scales, one for each dimension: these come in a list, or one by one; either may be left out."""
    sizes = at.known(x)[1:]
    given = list(scales) if isinstance(scales, (tuple, list)) else [scales, *more]
    given = given if len(given) == len(sizes) else [None] * len(sizes)
    if size is None:
        return tuple(math.floor(n * s) for n, s in zip(sizes, given, strict=True)), given
    return tuple(at.integer(s) for s in size), given


SPELLINGS: dict[str, Spelling] = {
    "interpolate": interpolate,
    "upsample": interpolate,
    "cumsum": cumsum,
    "grid_sample": grid_sample,
    "grid_sampler": lambda at, x, grid, mode, padding, align: grid_sample(
        at, x, grid, ("bilinear", "nearest", "bicubic")[mode], ("zeros", "border", "reflection")[padding], align
    ),
}
SCALED = ("size", "scale_factor", "mode", "align_corners")
MODULES: dict[type[nn.Module], tuple[str, tuple[str, ...]]] = {
    nn.Upsample: ("interpolate", (*SCALED, "recompute_scale_factor")),
    nn.UpsamplingNearest2d: ("interpolate", SCALED),
    nn.UpsamplingBilinear2d: ("interpolate", SCALED),
}
EXPORTED: dict[str, Spelling] = {
    **{f"_upsample_nearest_exact{d}d": aten_nearest for d in (1, 2, 3)},
    **{f"upsample_{mode}{d}d": aten_smooth(mode) for mode, d in SMOOTH.items()},
    "_upsample_bilinear2d_aa": aten_smooth("bilinear", True),
    "_upsample_bicubic2d_aa": aten_smooth("bicubic", True),
    "grid_sampler_2d": SPELLINGS["grid_sampler"],
    "grid_sampler_3d": SPELLINGS["grid_sampler"],
}
