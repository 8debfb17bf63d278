"""Telling data apart: by samples as a network saw them, or by arrays as they are stored."""

from __future__ import annotations

import hashlib

import numpy as np
from torch import Tensor

from snnc.data.dataset import Dataset
from snnc.structure import Samples, each


def fingerprint(x: Samples, y: Tensor | None) -> str:
    """SHA-256 of samples `[N, ...]` in float32 and labels `[N]` in int64, both little-endian, after their shape.

    Of several inputs one after the other; whole numbers are int64.
    """
    found = hashlib.sha256()
    for one in each(x):
        found.update(repr(tuple(one.shape)).encode())
        found.update(np.ascontiguousarray(one.numpy(), "<f4" if one.is_floating_point() else "<i8").tobytes())
    if y is not None:
        found.update(np.ascontiguousarray(y.numpy(), "<i8").tobytes())
    return found.hexdigest()


def stored(data: Dataset) -> str:
    """SHA-256 of a data set as it is stored, and of what turns it into input; images stay bytes, so it is quick."""
    found = hashlib.sha256(repr((data.x.shape, data.x.dtype.str, data.mean, data.std, data.scale)).encode())
    found.update(np.ascontiguousarray(data.x).data)
    for name in data.takes:
        found.update(repr((name, data.others.get(name, data.x).shape)).encode())
        found.update(np.ascontiguousarray(data.others.get(name, data.x)).data)
    if data.y is not None:
        found.update(np.ascontiguousarray(data.y).data)
    return found.hexdigest()
