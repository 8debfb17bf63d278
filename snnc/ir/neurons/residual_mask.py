"""Neurons that a first pass silences."""

from __future__ import annotations

import torch
from torch import Tensor

from snnc.ir.dialect import is_count, register
from snnc.ir.neurons.base import IF, TWO_PASS

MARGIN = 1e-3  # of theta: the released rule
State = tuple[Tensor, Tensor, int]


@register("T", "theta", "v0", "tau", unit=False)
class ResidualMaskIF(IF):
    """Integrate-and-fire that stays silent where a first pass left no positive residual (SRP): two-pass streaming.

    The network runs `tau` steps. Then each neuron looks at its residual potential: v(tau) > 0.001 theta keeps it,
    anything less silences it, for this sample. Potentials start anew from v0, and the second pass is read out. Why it
    helps: a neuron that should have been silent and spiked all the same has v(tau) < 0. The converse does not hold:
    some neurons are silenced that should spike.

    Both passes are in the one train of T steps, so the neuron streams; `Decode` skips the first `tau` steps.

    Source: Hao et al., AAAI 2023 (arXiv 2302.02091), rule of the released code.

    Attributes:
        T: steps of both passes.
        tau: steps of the first, 1 <= tau < T.
    """

    def __init__(self, T: int, theta: Tensor, v0: Tensor, tau: int, unit: bool = False) -> None:
        super().__init__(T, theta, v0, unit)
        self.tau = tau

    @property
    def schedule(self) -> str:
        return TWO_PASS

    def initial(self, current: Tensor) -> State:  # type: ignore[override]
        return super().initial(current), torch.ones_like(current), 0

    def step(self, state: State, current: Tensor) -> tuple[State, Tensor]:  # type: ignore[override]
        v, mask, clock = state
        v, spike = super().step(v, current)
        spike = spike * mask  # all ones in the first pass
        if clock + 1 == self.tau:
            mask = (v > self.theta * MARGIN).to(v)
            v = super().initial(current)
        return (v, mask, clock + 1), spike

    def charge(self, theta: Tensor, v0: Tensor, current: Tensor) -> Tensor:
        # 0.001 theta is no integer. Up to theta = 2^20 its rounding never reaches the next one, from either side, so
        # the comparison with a whole potential has one outcome.
        return torch.maximum(super().charge(theta, v0, current), 16 * theta)

    def fault(self) -> str:
        if fault := super().fault():
            return fault
        fits = is_count(self.tau) and self.tau < self.T
        return "" if fits else f"has tau = {self.tau!r}, outside 1..T - 1 = {self.T - 1}"

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, tau={self.tau}"
