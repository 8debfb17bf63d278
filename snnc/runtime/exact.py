"""Switches off what makes torch compute with fewer bits than a network has.

A rounding that a layer's output would bear flips spikes. Three things round behind a caller's back: autocast, which
gives currents of 8 significant bits; a process-wide precision of less than float32, such as the "medium" of
`torch.set_float32_matmul_precision`, for which oneDNN takes bfloat16 where the processor multiplies it, and on NVIDIA's
GPUs TF32 (11 significant bits), which torch lets convolutions have unless it is told otherwise; and NNPACK, which torch
takes for convolutions of 16 rows or more where it has no oneDNN (on Macs, for one) and which does not add the products
themselves, so that not even sums of integers are exact. cuDNN has such a convolution too, and no switch for it: on GPUs
those of integers are formed in float64.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_lock = threading.Lock()
_inside = 0  # calls under way, in all threads
_nnpack = True  # whether it was on before the first of them
_coarse: list[tuple[Any, str]] = []  # operations with a precision of fewer bits, and which


@contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """Within it convolutions and products are those of the type that they have, on CPUs and NVIDIA's GPUs."""
    global _inside
    with _lock:
        if not _inside:
            _off()
        _inside += 1
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _back()


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


def _off() -> None:
    global _nnpack, _coarse
    (_nnpack,) = torch.backends.nnpack.set_flags(False)
    onednn: Any = torch.backends.mkldnn
    every = [onednn.matmul, onednn.conv]
    if torch.cuda.is_available():  # elsewhere nobody needs them touched
        every += [torch.backends.cudnn.conv, torch.backends.cuda.matmul]  # type: ignore[attr-defined]
    _coarse = [(one, one.fp32_precision) for one in every]
    _coarse = [(one, bits) for one, bits in _coarse if bits not in ("ieee", "none")]
    for one, _ in _coarse:
        one.fp32_precision = "ieee"


def _back() -> None:
    torch.backends.nnpack.set_flags(_nnpack)
    for one, bits in _coarse:
        one.fp32_precision = "none"  # an operation that was told nothing itself goes on following its backend
        if one.fp32_precision != bits:
            one.fp32_precision = bits
