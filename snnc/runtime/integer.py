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
    if type(module) is nn.Conv2d and _fits(module.weight):
        return _convolution(module)
    return _linear(module) if type(module) is nn.Linear and _fits(module.weight) else None


def _fits(weight: Tensor) -> bool:
    """Whether weights are integers of 8 bits."""
    return weight.dtype == torch.float32 and bool(((weight == weight.round()) & (weight.abs() <= 127)).all())


def _convolution(module: nn.Conv2d) -> Layer | None:
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        return None
    ones, zeros = torch.ones(module.out_channels), torch.zeros(module.out_channels, dtype=torch.int32)
    geometry = (list(module.stride), list(module.padding), list(module.dilation), module.groups)
    weight = torch.ops.onednn.qconv_prepack(module.weight.to(torch.int8), ones, 1.0, 0, *geometry)
    bias, run = module.bias, torch.ops.onednn.qconv2d_pointwise.default

    def layer(x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        return run(x, 1.0, 0, weight, ones, zeros, bias, *geometry, 1.0, 0, torch.float32, "none", [], "")

    return layer


def _linear(module: nn.Linear) -> Layer:
    ones, zeros = torch.ones(module.out_features), torch.zeros(module.out_features, dtype=torch.int32)
    weight = torch.ops.onednn.qlinear_prepack(module.weight.to(torch.int8), None)
    bias, run = module.bias, torch.ops.onednn.qlinear_pointwise.default

    def layer(x: Tensor) -> Tensor:
        return run(x, 1.0, 0, weight, ones, zeros, bias, 1.0, 0, torch.float32, "none", [], "")

    return layer
