"""Integrate-and-fire neurons in one pass over memory.

`IF.walk` makes half a dozen passes over a step's values. Here a block of neurons is led through all steps while its
potentials stay in the cache, and a join in front of the neurons is added on the way. The arithmetic is that of
`IF.step`, operation by operation, so the spikes are the same bits.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snnc.ir.neurons import IF, Neuron
from snnc.runtime.cpu.loops import ALONE, BLOCK, SCALED, SUM, jit, scan_loop

SMALL = 1 << 18  # values: below it a second thread costs more than it saves


def available() -> bool:
    """Whether there is a compiler for the loops."""
    return jit() is not None


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


def ordered(x: Tensor) -> Tensor:
    """A value `[rows, ...]` as `[rows, n]` in memory order, without a copy where it lies in one piece."""
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        x = x.permute(0, 2, 3, 1)
    return x.reshape(len(x), -1)


def last(x: Tensor) -> bool:
    """Whether the channels are what lies closest together in memory."""
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)


def memory(x: Tensor) -> torch.memory_format:
    """Which of the two usual orders a value has in memory; where it has both, the one that the reference goes on in.

    Layers look at strides when they choose how to sum, also where these say nothing, as of maps of one pixel.
    """
    return torch.channels_last if last(x) and not x.is_contiguous() else torch.contiguous_format


def room(current: Tensor, rows: int, dtype: torch.dtype) -> Tensor:
    """Memory for `rows` rows of spikes, with the device and layout of the reference's."""
    shape = (rows, *current.shape[1:])
    return torch.empty(shape, dtype=dtype, device=current.device, memory_format=memory(current))


@dataclass
class Scan:
    """One layer of `IF` neurons.

    Attributes:
        neuron: the layer.
        counts: spikes leave as bytes, 0 or 1; otherwise as floats, 0 or the height of a spike.
        factor: of the bytes that a join adds, shape `[]` or `[C, 1, ...]`; None where it adds another current.
        shift: a current of its own for each step, `[T, C, 1, ...]`, added last; None where there is none.
    """

    neuron: IF
    counts: bool
    factor: Tensor | None = None
    shift: Tensor | None = None
    patterns: dict[Any, tuple[Any, ...]] = field(default_factory=dict)

    @staticmethod
    def takes(neuron: Neuron, fixed: bool) -> bool:
        """Whether it runs a layer of `IF` neurons in a network that is one of integers (`fixed`), or not.

        Plans for floats have no counts of spikes, so integer neurons that were edited since keep their modules.
        """
        return (fixed or not neuron.unit) and available()

    def __call__(
        self,
        state: Any,
        current: Tensor,
        steps: int,
        joined: Tensor | None = None,
        constant: bool = False,
        begin: int | None = 0,
    ) -> tuple[Any, Tensor]:
        """Runs `steps` steps.

        Args:
            state: potentials of an earlier call, or None.
            current: `[steps * B, ...]`, or `[B, ...]` with `constant`.
            steps: how many.
            joined: what is added to the current, `[steps * B, ...]`, laid out in memory like it.
            constant: the current is the same at each step.
            begin: the first of the steps, which tells the currents of `shift`; None leaves them out.

        Returns:
            The state, and spikes `[steps * B, ...]`, laid out like the current.
        """
        batch = len(current) if constant else len(current) // steps
        out = room(current, steps * batch, torch.uint8 if self.counts else torch.float32)
        x = ordered(current).reshape(1 if constant else steps, -1).numpy()
        spikes = ordered(out).reshape(steps, -1).numpy()
        n = spikes.shape[1]
        mode, y = ALONE, spikes[:1]  # which nobody reads
        if joined is not None:
            mode, y = SUM if self.factor is None else SCALED, ordered(joined).reshape(steps, -1).numpy()
        shift, factor, theta, v0 = self._patterns(current)
        shifted = self.shift is not None and begin is not None
        shift = shift[begin or 0 :][: steps if shifted else 1]
        first = state is None
        state = np.empty(n, np.float32) if first else state
        loop = scan_loop(mode, shifted, self.counts)

        def part(start: int, stop: int) -> None:
            loop(x, y, shift, factor, theta, v0, state, first, spikes, start, stop)

        threads = torch.get_num_threads()
        if threads == 1 or spikes.size < SMALL:
            part(0, n)
        else:
            share = -(-n // threads // BLOCK) * BLOCK
            list(_pool(threads).map(lambda start: part(start, min(start + share, n)), range(0, n, share)))
        return state, out

    def state(self, potentials: Tensor, current: Tensor) -> Any:
        """A state that starts from `potentials` `[B, ...]`, for a current that lies in memory like `current`."""
        return ordered(potentials.contiguous(memory_format=memory(current))).reshape(-1).numpy().copy()

    def _patterns(self, current: Tensor) -> tuple[np.ndarray[Any, Any], ...]:
        """Shift `[steps, period]`, factor, theta and v0 in the order of one sample, repeated to a block's length."""
        key = (current.shape[1:], last(current))
        if key not in self.patterns:
            zero = torch.zeros((), dtype=torch.float32, device="cpu")
            factor, shift = (zero if p is None else p for p in (self.factor, self.shift))
            shifts = np.stack([_repeated(one, current) for one in shift.reshape(-1, *shift.shape[1:])])
            one = (_repeated(p, current) for p in (factor, self.neuron.theta, self.neuron.v0))
            self.patterns[key] = (shifts, *one)
        return self.patterns[key]


def pattern(parameter: Tensor, current: Tensor) -> Tensor:
    """A parameter `[]`, `[C, 1, ...]` or `[F]` in the order of one sample of `current`, up to where it repeats."""
    one = ordered(parameter.expand(1, *current.shape[1:]).contiguous(memory_format=memory(current)))[0]
    # One for each channel repeats so; one for each feature, the last dimension, does not.
    return one[: current.shape[1]] if last(current) and parameter.dim() != 1 else one


def _repeated(parameter: Tensor, current: Tensor) -> np.ndarray[Any, Any]:
    one = pattern(parameter, current)
    return np.ascontiguousarray(one.repeat(max(1, BLOCK // len(one))).numpy())
