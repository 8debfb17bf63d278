"""Spikes of several heights."""

from __future__ import annotations

import torch
from torch import Tensor

from snnc.ir.dialect import is_count, register
from snnc.ir.neurons.base import Neuron, fires

MAX_BITS = 16  # float32 tells the multiples of theta apart up to 2^24, and currents are sums of many


@register("T", "theta", "v0", "bits", unit=False)
class GradedIF(Neuron):
    """Integrate-and-fire with graded spikes, 0 to 2^bits - 1 units of theta, streaming.

        u = v + I
        k = clip(floor(u / theta), 0, 2^bits - 1)
        output = k * theta,    v = u - k * theta

    `theta` is the height of one unit, so that v0 = theta / 2 rounds and `theta * (sum of k) + v(T) = v0 + S`, as
    with `IF`; bits = 1 is `IF`. One step reaches up to `(2^bits - 1) * theta`. At constant current z the sum of k is

        clip(floor((z T + v0) / theta), 0, (2^bits - 1) T)

    A graded spike is up to `bits` binary spikes of heights theta, 2 theta, 4 theta ... at the same step: a synapse
    adds its weight, shifted, for each of them.

    Source: the positive unit of H-MT (AAAI 2026), whose thresholds are theta * 2^i, i = 0 .. bits - 1.

    Attributes:
        bits: binary thresholds, 1 or more.
    """

    spikes = "graded"

    def __init__(self, T: int, theta: Tensor, v0: Tensor, bits: int, unit: bool = False) -> None:
        super().__init__(T, theta, v0, unit)
        self.bits = bits

    def initial(self, current: Tensor) -> Tensor:
        return self.v0 + torch.zeros_like(current)

    def step(self, state: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        u = state + current
        k = torch.zeros_like(u)
        # From the largest threshold down, as hardware does, each a product and not a sum: a potential of exactly k
        # thetas has k of them.
        for i in reversed(range(self.bits)):
            k = k + fires(u, (k + 2**i) * self.theta) * 2**i
        charge = k * self.theta
        return u - charge, k if self.unit else charge

    def reach(self) -> tuple[int, int]:
        return 0, 2**self.bits - 1

    def charge(self, theta: Tensor, v0: Tensor, current: Tensor) -> Tensor:
        return super().charge(theta * (2**self.bits - 1), v0, current)

    def binary(self) -> tuple[Tensor, Tensor]:
        theta = self.theta * (2**self.bits - 1)
        return theta, theta / 2 + (self.v0 - self.theta / 2)

    @staticmethod
    def split(theta: Tensor, v0: Tensor, bits: int) -> tuple[Tensor, Tensor]:
        """Parameters of a graded neuron whose largest spike is the spike of a binary one; `binary` undoes it.

        The charge v0 - theta / 2 by which a neuron departs from rounding stays what it was, so at T steps the neuron
        is the `ClipQuant` of (2^bits - 1) * T levels for which v0 was chosen, at any shift.
        """
        smallest = theta / (2**bits - 1)
        return smallest, smallest / 2 + (v0 - theta / 2)

    def fault(self) -> str:
        fits = is_count(self.bits) and self.bits <= MAX_BITS
        return super().fault() or ("" if fits else f"has bits = {self.bits!r}, outside 1..{MAX_BITS}")

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, bits={self.bits}"
