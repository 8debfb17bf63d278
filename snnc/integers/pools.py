"""Average pools as sums: layers whose weights are all 1."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from snnc.errors import SnncError
from snnc.ir.dialect import OwnSizeAvgPool2d


def sums(name: str, pool: Any, x: Tensor) -> tuple[nn.Module, Tensor]:
    """The layer that adds up what an average pool averages, and its share of each sum, `[1, C, ...]` in float64.

    Where windows reach over the border and do not count it, shares differ from place to place.

    Args:
        name: of the pool, for errors.
        pool: any average pool.
        x: an input of it, whose shape counts.

    Raises:
        SnncError: windows of several sizes, which are no convolution.
    """
    dims = x.dim() - 2
    sizes = x.shape[2:]
    if isinstance(pool, nn.AvgPool1d | nn.AvgPool2d | nn.AvgPool3d):
        kernel, stride, padding = (_each(v, dims) for v in (pool.kernel_size, pool.stride, pool.padding))
    else:
        outputs = tuple(pool(x[:1]).shape[2:])
        own = isinstance(pool, OwnSizeAvgPool2d)
        if own:
            kernel = (x.shape[pool.dim],) * dims
        else:
            if any(size % out for size, out in zip(sizes, outputs, strict=True)):
                raise SnncError(
                    f"'{name}' averages {tuple(sizes)} to {outputs}: its windows have several sizes.",
                    "an output size that divides the input's",
                )
            kernel = tuple(size // out for size, out in zip(sizes, outputs, strict=True))
        stride, padding = kernel, (0,) * dims
    kind: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    channels = x.shape[1]
    layer: Any = kind(channels, channels, kernel, stride, padding, groups=channels, bias=False, device="meta")
    layer.weight = nn.Parameter(torch.ones(layer.weight.shape).to(x), requires_grad=False)
    one = torch.ones_like(x[:1])
    means, totals = pool(one).double(), layer(one).double()
    if means.shape != totals.shape:
        raise SnncError(f"'{name}' has windows that end outside of its input.", "ceil_mode=False")
    # A share is one in a whole number. The quotient of two roundings would differ from window to window, and a layer
    # behind would have to bring places on one grid that are on it already.
    return layer.eval(), 1 / (totals / means).round()


def _each(value: Any, dims: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple) else (int(value),) * dims
