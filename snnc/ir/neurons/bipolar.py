"""Spikes of either sign and several heights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from snnc.ir.dialect import is_count, register
from snnc.ir.neurons.base import Neuron

MOST = 2**16 - 1  # units of a step, as in graded neurons


@register("T", "theta", "v0", "units", "rectified", unit=False)
class BipolarIF(Neuron):
    """Integrate-and-fire whose output follows the sum of its input in both directions; streaming.

        u = v + I
        k = clip(floor(u / theta), -units, units);   rectified: no less than minus the sum of all k before
        output = k * theta,    v = u - k * theta

    With v0 = theta / 2, X(t) the sum of the input and Y(t) that of the output, k is `(X(t) - Y(t-1)) / theta`, rounded
    and clipped: what has been emitted stays within theta / 2 of what has arrived, as long as a step of it is no larger
    than `units * theta`. At constant current z the mean after T steps is

        theta / T * clip(floor((z T + v0) / theta), -units T, units T)

    It is the encoder of a value that may have either sign. A `rectified` one keeps the sum of its output above zero:
    a ReLU that takes back what it emitted too early, in spikes of several heights; with one unit it is `SignedIF`.

    Source: the signed multi-threshold units of DCGS (ICML 2025) and ECMT (arXiv 2502.21193), with equally spaced
    heights and rounding; the tracer as in SpikeZIP-TF (ST-BIF).

    Attributes:
        theta: shape `[]`, `[C, 1, ...]` as with every neuron, or `[C]` for one threshold a feature, the last dimension.
        units: thresholds that one step emits at most; 1 is ternary, 2^bits - 1 graded.
        rectified: whether the sum of the output stays above zero.
    """

    spikes = "signed"

    def __init__(
        self, T: int, theta: Tensor, v0: Tensor, units: int = 1, rectified: bool = False, unit: bool = False
    ) -> None:
        super().__init__(T, theta, v0, unit)
        self.units, self.rectified = units, rectified

    @property
    def bits(self) -> int:
        """Binary digits of the largest spike."""
        return int(self.units).bit_length()

    def reach(self) -> tuple[int, int]:
        return -self.units, self.units

    def initial(self, current: Tensor) -> Any:
        zero = torch.zeros_like(current)
        return (self.v0 + zero, zero) if self.rectified else self.v0 + zero

    def step(self, state: Any, current: Tensor) -> tuple[Any, Tensor]:
        v, tracer = state if self.rectified else (state, None)
        u = v + current
        # The quotient may be rounded over a whole number; products tell which it is.
        guess = torch.floor(u / self.theta).clamp(-self.units, self.units)
        guess = guess - (guess * self.theta > u).to(u)
        guess = guess + ((guess + 1) * self.theta <= u).to(u)
        k = guess.clamp(-self.units, self.units)
        if tracer is None:
            charge = k * self.theta
            return u - charge, k if self.unit else charge
        k = torch.maximum(k, -tracer)
        charge = k * self.theta
        return (u - charge, tracer + k), k if self.unit else charge

    def charge(self, theta: Tensor, v0: Tensor, current: Tensor) -> Tensor:
        return torch.maximum(v0, theta * self.units) + self.T * current

    def binary(self) -> tuple[Tensor, Tensor]:
        theta = self.theta * self.units
        return theta, theta / 2 + (self.v0 - self.theta / 2)

    def fault(self) -> str:
        fits = is_count(self.units) and self.units <= MOST
        return super().fault() or ("" if fits else f"has units = {self.units!r}, outside 1..{MOST}")

    def extra_repr(self) -> str:
        more = ", rectified" if self.rectified else ""
        return f"{super().extra_repr()}, units={self.units}{more}"
