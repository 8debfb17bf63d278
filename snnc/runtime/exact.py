"""Switches off what makes torch compute with fewer bits than a network has.

A rounding that a layer's output would bear flips spikes. Two things round behind a caller's back: autocast, which gives
currents of 8 significant bits; and NNPACK, which torch takes for convolutions of 16 rows or more where it has no oneDNN
(on Macs, for one) and which does not add the products themselves, so that not even sums of integers are exact.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_lock = threading.Lock()
_inside = 0  # calls under way, in all threads
_before = True  # whether NNPACK was on before the first of them


@contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """Within it convolutions and products on `device` are those of the type that they have."""
    global _inside, _before
    with _lock:
        if not _inside:
            (_before,) = torch.backends.nnpack.set_flags(False)
        _inside += 1
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                torch.backends.nnpack.set_flags(_before)
