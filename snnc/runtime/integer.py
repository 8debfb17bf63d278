"""Layers with 8-bit weights on spikes in bytes, by the matrix units that torch reaches through oneDNN.

Sums are 32-bit integers, and leave as float32. Below 2^24 both hold every integer, so they are what the layer computes
in float32, in any order.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

MOST = 127  # of a value: processors without VNNI add two products in 16 bits, and 2 * 127 * 128 still fits

Layer = Callable[[Tensor], Tensor]


def packed(module: nn.Module) -> Layer | None:
    """A layer that takes bytes `0 .. MOST` and gives float32, or None where this machine or this layer has none.

    Convolutions take and give channels-last memory.
    """
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.onednn, "qconv2d_pointwise"):
        return None
    if not isinstance(module, nn.Conv2d | nn.Linear) or type(module) not in (nn.Conv2d, nn.Linear):
        return None
    if module.weight.dtype != torch.float32:
        return None
    unit = units(module.weight)
    narrow = module.weight / unit.reshape(-1, *[1] * (module.weight.dim() - 1))
    if not bool(((narrow == narrow.round()) & (narrow.abs() <= 127)).all()):
        return None
    narrow = narrow.to(torch.int8)
    return _convolution(module, narrow, unit) if isinstance(module, nn.Conv2d) else _linear(module, narrow, unit)


def units(weight: Tensor) -> Tensor:
    """The largest power of two, up to 2^16, that divides all integers of an output `[outputs]`; 1 for other numbers.

    Fixed point with few bits has such factors; multiplied by a sum of integers they round nothing.
    """
    rows = weight.detach().flatten(1)
    if not bool((rows == rows.round()).all()):
        return torch.ones(len(rows))
    found = torch.ones(len(rows))
    for _ in range(16):
        even = ((rows / (2 * found[:, None])).frac() == 0).all(1) & (rows != 0).any(1)
        if not bool(even.any()):
            break
        found = torch.where(even, 2 * found, found)
    return found


def _convolution(module: nn.Conv2d, narrow: Tensor, unit: Tensor) -> Layer | None:
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        return None
    zeros = torch.zeros(module.out_channels, dtype=torch.int32)
    geometry = (list(module.stride), list(module.padding), list(module.dilation), module.groups)
    weight = torch.ops.onednn.qconv_prepack(narrow, unit, 1.0, 0, *geometry)
    bias, run = module.bias, torch.ops.onednn.qconv2d_pointwise.default

    def layer(x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        return run(x, 1.0, 0, weight, unit, zeros, bias, *geometry, 1.0, 0, torch.float32, "none", [], "")

    return layer


def _linear(module: nn.Linear, narrow: Tensor, unit: Tensor) -> Layer:
    zeros = torch.zeros(module.out_features, dtype=torch.int32)
    weight = torch.ops.onednn.qlinear_prepack(narrow, None)
    bias, run = module.bias, torch.ops.onednn.qlinear_pointwise.default

    def layer(x: Tensor) -> Tensor:
        return run(x, 1.0, 0, weight, unit, zeros, bias, 1.0, 0, torch.float32, "none", [], "")

    return layer
