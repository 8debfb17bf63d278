"""Sums that float32 would round on a GPU, formed in float64."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def in_double(module: nn.Module, x: Tensor, whole: bool = False) -> Tensor:
    """A layer's value of `x`, summed in float64: exact for integers (`whole`) that float32 holds, whatever is summed.

    cuDNN adds other numbers than the products where it finds that faster (Winograd's algorithm, arXiv 1509.09308). In
    float32 three of four sums of integers then came out with a fraction on an H200. In float64 what another algorithm
    errs by is far below the distance of integers, and is rounded away where they are.

    Args:
        module: a convolution, whose parameters stay as they are.
        x: its input `[rows, channels, ...]`, float32.
        whole: all numbers are integers; a value within 2^-24 of one is that one.

    Returns:
        The value, in the type of `x`.
    """
    one = copy.copy(module)  # other threads may be calling the module itself
    one.__dict__["_parameters"] = {name: p if p is None else p.double() for name, p in module._parameters.items()}
    result: Tensor = one(x.double())
    near = result.round()
    return (torch.where((result - near).abs() < 2**-24, near, result) if whole else result).to(x.dtype)
