"""A neuron that looks ahead."""

from __future__ import annotations

import torch
from torch import Tensor

from snnc.ir.dialect import register
from snnc.ir.neurons.base import IF, PIPELINED, STREAMING


@register("T", "theta", "v0", "wait", unit=False)
class WaitingIF(IF):
    """Integrate-and-fire that waits `wait` steps before its first output: pipelined.

    At output step t it has integrated the input of steps 1 .. min(t + wait, T), so less current arrives too late to be
    emitted, and current that is taken back within the wait causes no spike. wait = 0 is `IF`. With wait = T - 1 the
    whole input is there before the first spike, and the count is N* = clip(floor((v0 + S) / theta), 0, T) whatever
    the order.

    All layers run at once, each `wait` steps behind the one before it, so a sample takes T steps and the sum of the
    waits on the longest path. A shorter path to a join is delayed until both are at the same step.

    Source: ours; wait = T - 1 has the counts of average spike generation (Yan et al., arXiv 2211.08410).

    Attributes:
        wait: steps, 0 <= wait < T.
    """

    streaming = False

    def __init__(self, T: int, theta: Tensor, v0: Tensor, wait: int, unit: bool = False) -> None:
        super().__init__(T, theta, v0, unit)
        self.wait = wait

    @property
    def schedule(self) -> str:
        return PIPELINED if self.wait else STREAMING

    @property
    def delay(self) -> int:
        return self.wait

    @property
    def updates(self) -> int:
        return self.T + self.wait

    def forward(self, current: Tensor, *more: Tensor) -> Tensor:
        steps = current.reshape(self.T, -1, *current.shape[1:]).unbind(0)
        first = torch.stack(steps[: self.wait + 1]).sum(0)
        nothing = torch.zeros_like(first)
        return self.walk(None, torch.cat([first, *steps[self.wait + 1 :], *[nothing] * self.wait]), self.T)[1]

    def fault(self) -> str:
        if fault := super().fault():
            return fault
        fits = type(self.wait) is int and 0 <= self.wait < self.T
        return "" if fits else f"has wait = {self.wait!r}, outside 0..T - 1 = {self.T - 1}"

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, wait={self.wait}"
