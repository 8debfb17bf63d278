"""Layers with 8-bit weights on spikes in bytes, by the matrix units that torch reaches through oneDNN.

Sums are 32-bit integers, and leave as float32. Below 2^24 both hold every integer, so they are what the layer computes
in float32, in any order. Sums that stay within bytes, of a pool above all, leave as bytes.
"""

from __future__ import annotations

import itertools
import math
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
    return _product(*found, module.bias, result) if isinstance(module, nn.Linear) else None


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
    # A dilation along a single line changes nothing, and some crash oneDNN: it is set to 1 there.
    dilation = [1 if k == 1 else d for k, d in zip(module.kernel_size, module.dilation, strict=True)]
    geometry = (list(module.stride), list(module.padding), dilation, module.groups)
    weight = torch.ops.onednn.qconv_prepack(narrow, unit, 1.0, 0, *geometry)
    bias, run = module.bias, torch.ops.onednn.qconv2d_pointwise.default
    few: dict[torch.Size, Layer | None] = {}

    def layer(x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        size = x.shape[2:]
        if size not in few:
            module(x[:1].float())  # raises where the kernel does not fit into the map; oneDNN would compute something
            few[size] = _of_few_places(module, narrow, unit, result, size)
        if found := few[size]:
            return found(x)
        return run(x, 1.0, 0, weight, unit, zeros, bias, *geometry, 1.0, 0, result, "none", [], "")

    return layer


def _of_few_places(
    module: nn.Conv2d, narrow: Tensor, unit: Tensor, result: torch.dtype, size: torch.Size
) -> Layer | None:
    """A convolution of maps that its kernel is larger than, as a product: most of it would be of padding.

    3 x 3 on maps of 2 x 2 pixels, where VGG-16 ends for CIFAR, is 4 products a sum and not 9. None for other maps.
    """
    (rows, columns), (tall, wide) = size, narrow.shape[2:]
    above, before = (int(n) for n in module.padding)
    geometry = zip(size, module.stride, (above, before), module.dilation, (tall, wide), strict=True)
    out = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, s, p, d, k in geometry]
    places, area = rows * columns, tall * wide
    if module.groups > 1 or places >= area or places * math.prod(out) > 2 * area:
        return None  # the last would hold more than twice the weights
    outputs, inputs = narrow.shape[:2]
    whole = torch.zeros(*out, outputs, *size, inputs, dtype=torch.int8, device="cpu")
    steps = (range(n) for n in (*out, tall, wide))
    for down, along, line, column in itertools.product(*steps):
        i = down * module.stride[0] - above + line * module.dilation[0]
        j = along * module.stride[1] - before + column * module.dilation[1]
        if 0 <= i < rows and 0 <= j < columns:
            whole[down, along, :, i, j] = narrow[:, :, line, column]
    bias = None if module.bias is None else module.bias.repeat(math.prod(out))
    product = _product(whole.flatten(3).flatten(0, 2), unit.repeat(math.prod(out)), bias, result)

    def layer(x: Tensor) -> Tensor:
        return product(x.permute(0, 2, 3, 1).flatten(1)).unflatten(1, (*out, outputs)).permute(0, 3, 1, 2)

    return layer


def _product(narrow: Tensor, unit: Tensor, bias: Tensor | None, result: torch.dtype) -> Layer:
    zeros = torch.zeros(len(narrow), dtype=torch.int32, device="cpu")
    weight = torch.ops.onednn.qlinear_prepack(narrow, None)
    run = torch.ops.onednn.qlinear_pointwise.default

    def layer(x: Tensor) -> Tensor:
        return run(x, 1.0, 0, weight, unit, zeros, bias, 1.0, 0, result, "none", [], "")

    return layer
