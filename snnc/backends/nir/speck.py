"""What a core of a Speck chip holds, in numbers (published with Sinabs, whose own check a test compares).

A chip has nine cores, and each layer takes one. The memory of kernels and the one of neurons come in pairs of sizes; a
layer needs a core where both are large enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

KI = 1024
CORES = ((16, 64), (32, 32), (64, 16), (16, 16))  # Ki of kernels, Ki of neurons
LARGEST, CHANNELS, STRIDES = 16, 1024, (1, 2, 4, 8)


def needs(channels: int, outputs: int, kernel: tuple[int, int], places: tuple[int, int]) -> tuple[int, int]:
    """Words of kernel memory and of neuron memory: addresses are powers of two."""
    bits = _bits(math.prod(kernel)) + _bits(outputs)
    return channels * 2**bits, outputs * 2 ** sum(map(_bits, places))


def over(node: Any) -> Iterator[str]:
    """Why a convolution does not fit, one clause each."""
    outputs, channels, *kernel = node.weight.shape
    stride = [int(one) for one in np.atleast_1d(node.stride)]
    if max(kernel) > LARGEST:
        yield f"its kernel is {kernel[0]} x {kernel[1]}, and a Speck takes {LARGEST} x {LARGEST} at most"
    if outputs > CHANNELS:
        yield f"it has {outputs} output channels, and a Speck takes {CHANNELS} at most"
    if set(stride) - set(STRIDES):
        yield f"its stride is {max(stride)}, and a Speck takes 1, 2, 4 or 8"
    places = tuple(int(size) for size in node.output_type["output"][1:])
    kernels, neurons = needs(channels, outputs, (kernel[0], kernel[1]), (places[0], places[1]))
    if all(kernels > a * KI or neurons > b * KI for a, b in CORES):
        yield f"it needs {kernels / KI:g} Ki of kernels and {neurons / KI:g} Ki of neurons, and no core has both"


def _bits(count: int) -> int:
    return math.ceil(math.log2(count))
