"""Spellings of normalisation: by a sample's own statistics, and the statistics themselves."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.capture import layers, pools, spellings
from snnc.capture.lowering import Site
from snnc.capture.values import Spelling
from snnc.ir import curved, dialect

ALONG = ("mixes samples, or a value without a batch", "keep the batch as the first dimension, by itself")


def layer_norm(
    at: Site, x: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Any:
    """Layer normalisation over the last dimensions."""
    shape = _normalised(at, x, normalized_shape)
    _constants(at, weight, bias)
    affine = weight is not None or bias is not None
    module = nn.LayerNorm(shape, float(eps), affine, bias is not None, device="meta")
    if affine:
        module.weight = nn.Parameter(_or_ones(at, weight, shape))
    if bias is not None:
        module.bias = nn.Parameter(layers.constant(bias).reshape(shape))
    return at.emit(module, x)


def rms_norm(at: Site, x: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Any:
    """Normalisation by the root of the mean square."""
    shape = _normalised(at, x, normalized_shape)
    _constants(at, weight)
    module = nn.RMSNorm(shape, eps, weight is not None, device="meta")
    if weight is not None:
        module.weight = nn.Parameter(_or_ones(at, weight, shape))
    return at.emit(module, x)


def _normalised(at: Site, x: Any, shape: Any) -> tuple[int, ...]:
    sizes = tuple(at.integer(n) for n in (shape if isinstance(shape, (tuple, list, torch.Size)) else (shape,)))
    rank = at.rank(x)
    if rank is not None and len(sizes) >= rank:
        at.refuse("normalises over the batch as well", "normalise over a sample's own dimensions")
    return sizes


def _constants(at: Site, *values: Any) -> None:
    if any(isinstance(v, fx.Node) for v in values):
        at.refuse("scales by weights from data", "constant weights")


def _or_ones(at: Site, weight: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    return at.lowering.like.new_ones(shape) if weight is None else layers.constant(weight).reshape(shape)


def group_norm(
    at: Site, x: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Any:
    """Normalisation over groups of channels and all positions."""
    _constants(at, weight, bias)
    known = weight if weight is not None else bias
    channels = known.numel() if known is not None else at.known(x)[0]
    module = nn.GroupNorm(num_groups, channels, float(eps), known is not None, device="meta")
    if known is not None:
        module.weight = nn.Parameter(_or_ones(at, weight, (channels,)))
        zero = at.lowering.like.new_zeros(channels)
        module.bias = nn.Parameter(zero if bias is None else layers.constant(bias).reshape(channels))
    return at.emit(module, x)


def own_norm(at: Site, module: Any, x: Any) -> Any:
    """`nn.LayerNorm` and `nn.RMSNorm`, by way of the functions."""
    if isinstance(module, nn.RMSNorm):
        return rms_norm(at, x, module.normalized_shape, module.weight, module.eps)
    return layer_norm(at, x, module.normalized_shape, module.weight, module.bias, module.eps)


def own_group_norm(at: Site, module: Any, x: Any) -> Any:
    """`nn.GroupNorm`."""
    if module.affine:
        return group_norm(at, x, module.num_groups, module.weight, module.bias, module.eps)
    return at.emit(nn.GroupNorm(module.num_groups, module.num_channels, module.eps, False), x)


def instance_norm(
    at: Site, x: Any, running_mean: Any = None, running_var: Any = None, weight: Any = None, bias: Any = None,
    use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5, *_: Any,
) -> Any:  # fmt: skip
    """Normalisation of each channel by itself; with running statistics a batch normalisation."""
    if not use_input_stats:
        return layers.batch_norm(at, x, running_mean, running_var, weight, bias, eps=eps)
    rank = at.rank(x)
    if rank is not None and rank < 3:
        at.refuse("normalises single numbers", "maps behind batch and channels")
    known = weight if weight is not None else bias
    channels = known.numel() if known is not None else at.known(x)[0]
    return group_norm(at, x, channels, weight, bias, eps)


def own_instance_norm(at: Site, module: Any, x: Any) -> Any:
    """`nn.InstanceNorm1d` to `3d`."""
    rank, dims = at.rank(x), int(type(module).__name__[-2])
    if rank is not None and rank != dims + 2:
        at.refuse(*ALONG)
    own = not (module.track_running_stats and module.running_mean is not None)
    return instance_norm(
        at, x, module.running_mean, module.running_var, module.weight, module.bias, own, eps=module.eps
    )


def local_response_norm(at: Site, x: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Any:
    """AlexNet's normalisation across channels."""
    return at.emit(nn.LocalResponseNorm(size, float(alpha), float(beta), float(k)), x)


def normalize(at: Site, x: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Any = None) -> Any:
    """`F.normalize`."""
    return at.emit(curved.Normalize(float(p), at.axis(x, dim), eps), x)


def norm(at: Site, x: Any, p: Any = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None, **_: Any) -> Any:
    """A vector norm over some dimensions."""
    p = {"fro": 2, None: 2}.get(p, p)
    if p == 2:
        return at.emit(curved.Unary("sqrt"), pools.sum_(at, at.emit(curved.Unary("square"), x), dim, keepdim))
    size = at.emit(curved.Unary("abs"), x)
    if p == 1:
        return pools.sum_(at, size, dim, keepdim)
    if p == math.inf:
        return largest(curved.Greatest)(at, size, dim, keepdim)
    if not isinstance(p, int | float) or not 0 < p < math.inf:
        at.refuse(f"takes a norm of order {p}", "an order above zero, or infinity")
    total = pools.sum_(at, at.emit(curved.Power(float(p)), size), dim, keepdim)
    return at.emit(curved.Power(1 / float(p)), total)


def variance(at: Site, x: Any, dim: Any = None, *args: Any, **kwargs: Any) -> Any:
    """`x.var(dim)`: the mean square of what differs from the mean."""
    given = dict(zip(("unbiased", "keepdim"), args, strict=False)) | kwargs
    if isinstance(dim, bool):
        at.refuse("reduces the batch as well", "name the dimensions, such as x.var(1)")
    correction = given.get("correction", given.get("unbiased", True))
    dims = pools._dims(at, x, dim)
    count = math.prod(at.known(x)[d - 1] for d in dims)
    rest = at.emit(dialect.Sub(), x, pools.mean(at, x, dims, True))
    result = pools.mean(at, at.emit(curved.Unary("square"), rest), dims, bool(given.get("keepdim", False)))
    freedom = count - int(1 if correction is None else correction)
    return result if freedom == count else spellings.mul(at, result, count / freedom)


def deviation(at: Site, x: Any, dim: Any = None, *args: Any, **kwargs: Any) -> Any:
    """`x.std(dim)`."""
    return at.emit(curved.Unary("sqrt"), variance(at, x, dim, *args, **kwargs))


def both(of: Spelling) -> Spelling:
    """`torch.var_mean` and `torch.std_mean`."""

    def spelling(at: Site, x: Any, dim: Any = None, *args: Any, **kwargs: Any) -> Any:
        keepdim = bool(kwargs.get("keepdim", args[1] if len(args) > 1 else False))
        return of(at, x, dim, *args, **kwargs), pools.mean(at, x, dim, keepdim)

    return spelling


def largest(cls: Any) -> Spelling:
    """`amax` and `amin` over dimensions."""

    def spelling(at: Site, x: Any, dim: Any = (), keepdim: bool = False) -> Any:
        return at.emit(cls(pools._dims(at, x, dim), keepdim), x)

    return spelling


def least(at: Site, x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """`torch.min`, of two values or over a dimension."""
    if isinstance(x, Tensor) or isinstance(dim, (Tensor, fx.Node)):
        return spellings.minimum(at, x, dim)
    return pools.MaximumWithPlaces(largest(curved.Least)(at, x, dim, keepdim))
