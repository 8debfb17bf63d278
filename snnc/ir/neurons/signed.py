"""Spikes of either sign."""

from __future__ import annotations

import torch
from torch import Tensor

from snnc.ir.dialect import register
from snnc.ir.neurons.base import Neuron, fires


@register("T", "theta", "v0", unit=False)
class SignedIF(Neuron):
    """Integrate-and-fire with negative spikes that take back what was emitted too early; streaming.

    A neuron that has emitted more spikes than it has taken back (a tracer counts them) and whose potential falls
    below 0 emits a spike of height -theta:

        u = v + I
        s = 1 if u >= theta;  -1 if u < 0 and tracer > 0;  else 0
        v = u - s * theta,    tracer = tracer + s

    The tracer never falls below 0, so the sum of the output is never negative, as that of a ReLU. The
    channel is ternary. Enough steps without input after the T lead to N = clip(floor((v0 + S) / theta), 0, T).

    Source: signed IF with a spike tracer, as in SNM, Fast-SNN, SpikeZIP-TF (ST-BIF) and DCGS.
    """

    spikes = "signed"

    def reach(self) -> tuple[int, int]:
        return -1, 1

    def charge(self, theta: Tensor, v0: Tensor, current: Tensor) -> Tensor:
        return torch.maximum(v0, theta) + self.T * current

    def initial(self, current: Tensor) -> tuple[Tensor, Tensor]:
        zero = torch.zeros_like(current)
        return self.v0 + zero, zero

    def step(self, state: tuple[Tensor, Tensor], current: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        v, tracer = state
        u = v + current
        # A potential that fires is not below 0, so the two exclude each other.
        sign = fires(u, self.theta) - (1 - fires(u, 0.0)) * fires(tracer, 1.0)
        charge = sign * self.theta
        return (u - charge, tracer + sign), sign if self.unit else charge
