"""Telling data apart."""

from __future__ import annotations

import hashlib

import numpy as np
from torch import Tensor


def fingerprint(x: Tensor, y: Tensor | None) -> str:
    """SHA-256 of samples `[N, ...]` in float32 and labels `[N]` in int64, both little-endian, after their shape."""
    found = hashlib.sha256(repr(tuple(x.shape)).encode())
    found.update(np.ascontiguousarray(x.numpy(), "<f4").tobytes())
    if y is not None:
        found.update(np.ascontiguousarray(y.numpy(), "<i8").tobytes())
    return found.hexdigest()
