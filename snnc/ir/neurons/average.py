"""Average spike generation."""

from __future__ import annotations

import torch
from torch import Tensor

from snnc.ir.dialect import register
from snnc.ir.neurons.base import IF, LAYER_SYNCHRONOUS, fires


@register("T", "theta", "v0", unit=False)
class AverageIF(IF):
    """Integrate-and-fire on the mean of the whole input: average spike generation (ASG), layer-synchronous.

    The mean current over all T steps drives an `IF` for T steps. So the count is N* = clip(floor((v0 + S) / theta),
    0, T) whatever the order of the input, for 0 <= v0 <= theta; the spikes are spread evenly; and a network of such
    neurons is the ANN with `ClipQuant` at L = T, exactly. Each layer waits for the whole output of the one before it.

    Source: Yan, Zhou, Wong (arXiv 2211.08410), section on average spike generation; threshold and v0 are `IF`'s.
    """

    streaming = False

    @property
    def schedule(self) -> str:
        return LAYER_SYNCHRONOUS

    @property
    def updates(self) -> int:
        return 2 * self.T

    def charge(self, theta: Tensor, v0: Tensor, current: Tensor) -> Tensor:
        return super().charge(theta * self.T, v0 * self.T, current * self.T)

    def forward(self, current: Tensor, *more: Tensor) -> Tensor:
        # Everything times T: the mean need not be a number that floats can hold, and a tie would be lost.
        total = current.reshape(self.T, -1, *current.shape[1:]).sum(0)
        v, theta = self.v0 * self.T + torch.zeros_like(total), self.theta * self.T
        outputs = []
        for _ in range(self.T):
            u = v + total
            spike = fires(u, theta)
            v = u - spike * theta
            outputs.append(spike if self.unit else spike * self.theta)
        return torch.cat(outputs)
