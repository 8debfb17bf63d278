"""Layers with 8-bit weights on spikes in bytes, by the matrix units that torch reaches through oneDNN.

Sums are 32-bit integers, and leave as float32. Below 2^24 both hold every integer, so they are what the layer computes
in float32, in any order. Sums that stay within bytes, of a pool above all, leave as bytes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

MOST = 127  # of a value: processors without VNNI add two products in 16 bits, and 2 * 127 * 128 still fits

Layer = Callable[[Tensor], Tensor]


def packed(module: nn.Module, counts: bool = False) -> Layer | None:
    """A layer that takes bytes `0 .. MOST`, or None where this machine or this layer has none.

    Convolutions take and give channels-last memory. The output is float32, or bytes where all of it `counts`.
    """
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.onednn, "qconv2d_pointwise"):
        return None
    if (found := narrowed(module)) is None:
        return None
    result = torch.uint8 if counts else torch.float32
    if isinstance(module, nn.Conv2d):
        return _convolution(module, *found, result)
    return _linear(module, *found, result) if isinstance(module, nn.Linear) else None


def narrowed(module: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Weights as 8-bit integers, and a float32 power of two `[outputs]` that each output is in units of, on the CPU.

    None for what is no 2d convolution or linear layer, and for other weights.
    """
    if type(module) not in (nn.Conv2d, nn.Linear) or not isinstance(module, nn.Conv2d | nn.Linear):
        return None
    if module.weight.dtype != torch.float32:
        return None
    if isinstance(module, nn.Conv2d) and (module.padding_mode != "zeros" or isinstance(module.padding, str)):
        return None
    weight = module.weight.detach().cpu()
    unit = units(weight)
    narrow = weight / unit.reshape(-1, *[1] * (weight.dim() - 1))
    if not bool(((narrow == narrow.round()) & (narrow.abs() <= 127)).all()):
        return None
    return narrow.to(torch.int8), unit


def reach(module: nn.Module, most: int) -> int | None:
    """The largest value of a layer of whole numbers from 0 on, such as a pool that sums, for input `0 .. most`."""
    if not isinstance(module, nn.Conv2d | nn.Linear) or getattr(module, "padding_mode", "zeros") != "zeros":
        return None
    numbers = [value.detach() for value in (module.weight, module.bias) if value is not None]
    if any(bool(((value < 0) | (value != value.round())).any()) for value in numbers):
        return None
    sums = numbers[0].flatten(1).double().sum(1) * most
    return int((sums + numbers[1] if len(numbers) > 1 else sums).max())


def units(weight: Tensor) -> Tensor:
    """The largest power of two, up to 2^16, that divides all integers of an output `[outputs]`; 1 for other numbers.

    Fixed point with few bits has such factors; multiplied by a sum of integers they round nothing.
    """
    rows = weight.detach().flatten(1)
    found = torch.ones(len(rows), dtype=torch.float32, device=rows.device)
    if not bool((rows == rows.round()).all()):
        return found
    for _ in range(16):
        even = ((rows / (2 * found[:, None])).frac() == 0).all(1) & (rows != 0).any(1)
        if not bool(even.any()):
            break
        found = torch.where(even, 2 * found, found)
    return found


def _convolution(module: nn.Conv2d, narrow: Tensor, unit: Tensor, result: torch.dtype) -> Layer:
    zeros = torch.zeros(module.out_channels, dtype=torch.int32, device="cpu")
    geometry = (list(module.stride), list(module.padding), list(module.dilation), module.groups)
    weight = torch.ops.onednn.qconv_prepack(narrow, unit, 1.0, 0, *geometry)
    bias, run = module.bias, torch.ops.onednn.qconv2d_pointwise.default

    def layer(x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        return run(x, 1.0, 0, weight, unit, zeros, bias, *geometry, 1.0, 0, result, "none", [], "")

    return layer


def _linear(module: nn.Linear, narrow: Tensor, unit: Tensor, result: torch.dtype) -> Layer:
    zeros = torch.zeros(module.out_features, dtype=torch.int32, device="cpu")
    weight = torch.ops.onednn.qlinear_prepack(narrow, None)
    bias, run = module.bias, torch.ops.onednn.qlinear_pointwise.default

    def layer(x: Tensor) -> Tensor:
        return run(x, 1.0, 0, weight, unit, zeros, bias, 1.0, 0, result, "none", [], "")

    return layer
