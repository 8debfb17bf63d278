"""Integrate-and-fire neurons in one kernel, on NVIDIA's GPUs.

The kernel reads each current once, writes each spike once, and holds potentials in registers over all steps, where
`IF.walk` launches half a dozen operations a step. Layers stay torch's: what they add up to in which order is cuDNN's
choice, in either runtime.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from snnc.ir.neurons import Neuron
from snnc.runtime.cpu.scan import Scan, memory, ordered, pattern, room

BLOCK = 1024  # neurons of one program


def available() -> bool:
    """Whether there is a compiler for the kernel."""
    return importlib.util.find_spec("triton") is not None


@dataclass
class GpuScan(Scan):
    """One layer of `IF` neurons on a GPU; called as `Scan` is."""

    @staticmethod
    def takes(neuron: Neuron, fixed: bool) -> bool:
        """Whether it runs a layer of `IF` neurons in a network that is one of integers (`fixed`), or not."""
        return True

    def __call__(
        self,
        state: Any,
        current: Tensor,
        steps: int,
        joined: Tensor | None = None,
        constant: bool = False,
        begin: int | None = 0,
    ) -> tuple[Any, Tensor]:
        """See `Scan`."""
        from snnc.runtime.gpu.kernels import scan  # here: Triton is not everywhere

        batch = len(current) if constant else len(current) // steps
        out = room(current, steps * batch, torch.uint8 if self.counts else torch.float32)
        x = ordered(current)
        n = x.numel() if constant else x.numel() // steps
        first = state is None
        state = torch.empty(n, dtype=torch.float32, device=current.device) if first else state
        factor, theta, height, v0, shift = self._kept(current)
        shifted = shift is not None and begin is not None
        step = shift[begin or 0 :] if shift is not None else theta  # which nobody reads then
        with torch.cuda.device_of(current):
            scan[-(-n // BLOCK),](
                x,
                x if joined is None else ordered(joined),
                theta if factor is None else factor,
                step,
                theta,
                height,
                v0,
                state,
                ordered(out),
                n,
                len(theta),
                steps,
                0 if constant else n,
                len(theta) if shift is not None and len(shift) > 1 else 0,
                first=first,
                joined=joined is not None,
                scaled=factor is not None,
                shifted=shifted,
                block=BLOCK,
                enable_fp_fusion=False,
            )
        return state, out

    def state(self, potentials: Tensor, current: Tensor) -> Any:
        """See `Scan.state`."""
        return ordered(potentials.contiguous(memory_format=memory(current))).reshape(-1).clone()

    def _kept(self, current: Tensor) -> tuple[Tensor | None, Tensor, Tensor, Tensor, Tensor | None]:
        """Factor, theta, height and v0 `[period]` and shift `[T, period]`, in the order of memory."""
        key = (current.shape[1:], memory(current))
        if key not in self.patterns:
            neuron = self.neuron
            one = (pattern(p, current).contiguous() for p in (neuron.theta, neuron.height, neuron.v0))
            factor = None if self.factor is None else pattern(self.factor.to(current.device), current).contiguous()
            shift = None if self.shift is None else torch.stack([pattern(step, current) for step in self.shift])
            self.patterns[key] = (factor, *one, shift)
        return self.patterns[key]
