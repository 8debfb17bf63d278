"""Settings of a process change no result: within these guards torch computes as in a new process.

`exact` is for running a network, `steady` for whatever makes or measures one. Both switch off what rounds behind a
caller's back: autocast, which gives currents of 8 significant bits; a process-wide precision of less than float32, such
as the "medium" of `torch.set_float32_matmul_precision`, for which oneDNN takes bfloat16 where the processor multiplies
it, and on NVIDIA's GPUs TF32 (11 significant bits), which torch lets convolutions have unless it is told otherwise; and
NNPACK, which torch takes for convolutions of 16 rows or more where it has no oneDNN (on Macs, for one) and which does
not add the products themselves, so that not even sums of integers are exact. cuDNN has such a convolution too, and no
switch for it: on GPUs those of integers are formed in float64 (`snnc.runtime.exact`). Both also put the default type,
the default device and denormal numbers back to what they are in a new process.

Left as they are: deterministic mode, which changes no bit on CPUs and is the caller's wish on GPUs; and what decides
how floats are added up, which is the number of threads, oneDNN on or off, and the machine. See decision 27.
"""

from __future__ import annotations

import random
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch


class _Shared:
    """State of the whole process: the first call under way changes it, in whatever thread, and the last puts it back.

    Calls overlap in threads: what the first to end restored would be on for the other.
    """

    def __init__(self, change: Callable[[ExitStack], None]) -> None:
        self.change = change
        self.lock = threading.Lock()
        self.inside = 0
        self.undo = ExitStack()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self.lock:
            if not self.inside:
                self.change(self.undo)
            self.inside += 1
        try:
            yield
        finally:
            with self.lock:
                self.inside -= 1
                if not self.inside:
                    self.undo.close()


def _numbers(undo: ExitStack) -> None:
    """Types and precisions of a new process."""
    if (before := torch.get_default_dtype()) != torch.float32:
        torch.set_default_dtype(torch.float32)
        undo.callback(torch.set_default_dtype, before)
    (nnpack,) = torch.backends.nnpack.set_flags(False)
    undo.callback(torch.backends.nnpack.set_flags, nnpack)
    onednn: Any = torch.backends.mkldnn
    every = [onednn.matmul, onednn.conv]
    if torch.cuda.is_available():  # elsewhere they have no effect
        every += [torch.backends.cudnn.conv, torch.backends.cuda.matmul]  # type: ignore[attr-defined]
    for one, bits in [(one, one.fp32_precision) for one in every]:
        if bits not in ("ieee", "none"):
            one.fp32_precision = "ieee"
            undo.callback(_precision, one, bits)


def _precision(one: Any, bits: str) -> None:
    one.fp32_precision = "none"  # an operation without a setting of its own follows its backend
    if one.fp32_precision != bits:
        one.fp32_precision = bits


def _silence(undo: ExitStack) -> None:
    """No advice of torch to its own callers, which is attributed to whatever module happens to call."""
    undo.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore", FutureWarning)


_exact, _quiet = _Shared(_numbers), _Shared(_silence)


@contextmanager
def exact() -> Iterator[None]:
    """A guard within which torch computes in the type of its tensors. The gradient mode stays as it is."""
    with _exact(), ExitStack() as stack:
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.empty(0).device.type != "cpu":  # a default device, which costs a call in Python for each operation
            stack.enter_context(torch.device("cpu"))
        if sys.float_info.min * 0.5 == 0.0 and torch.set_flush_denormal(False):  # of this thread alone
            stack.callback(torch.set_flush_denormal, True)
        yield


@contextmanager
def steady() -> Iterator[None]:
    """A guard within which a process is like a new one; after it all settings are as they were before.

    Gradients are recorded unless the code within says otherwise; no tensor is one of inference mode. The random states
    of torch, numpy and Python are those of the caller, and the caller's again at the end, whatever was drawn. What snnc
    draws comes from generators of its own, so that only a caller's own loader depends on these states.
    """
    with exact(), torch.inference_mode(False), torch.enable_grad(), _quiet(), _random():
        yield


@contextmanager
def _random() -> Iterator[None]:
    own, arrays, numbers = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        random.setstate(own)
        np.random.set_state(arrays)  # noqa: NPY002
        torch.set_rng_state(numbers)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
