"""Offset-spike calibration."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from snnc.ir.dialect import is_count, register
from snnc.ir.neurons.base import IF, LAYER_SYNCHRONOUS, fires


@register("T", "theta", "v0", "rho", "iterations", "guard", "eps", unit=False)
class OffsetIF(IF):
    """Integrate-and-fire whose initial potential is calibrated on each sample: offset-spike calibration (COS).

    The neuron runs the first `rho` steps of its input from `v0`, compares the residual potential with what an evenly
    driven neuron would keep, moves its initial potential by what removes (or adds) exactly one spike in that
    window, and then runs all `T` steps again from the first. It needs its whole input before its first
    output: layer-synchronous.

    Source: Hao et al., ICLR 2023 (arXiv 2302.10685), rule of the released code, with a guard: a neuron
    that fired at every step cannot fire once more, and is left alone.

    Attributes:
        rho: steps of the window, 1 <= rho <= T.
        iterations: shifts at most; the number and the sign of the shifts come from the first run.
        guard: False is the released code, which gives a saturated neuron an initial potential of about 1001 theta.
        eps: margin of a shift, in units of theta. Potentials of a unit are whole numbers, and its margin is 1.
    """

    streaming = False

    def __init__(
        self,
        T: int,
        theta: Tensor,
        v0: Tensor,
        rho: int,
        iterations: int = 1,
        guard: bool = True,
        eps: float = 1e-3,
        unit: bool = False,
    ) -> None:
        super().__init__(T, theta, v0, unit)
        self.rho, self.iterations, self.guard, self.eps = rho, iterations, guard, eps

    @property
    def schedule(self) -> str:
        return LAYER_SYNCHRONOUS

    @property
    def steps(self) -> int:
        return self.rho * self.iterations + self.T

    @property
    def updates(self) -> int:
        return self.steps

    def forward(self, current: Tensor, *more: Tensor) -> Tensor:
        window = current.reshape(self.T, -1, *current.shape[1:])[: self.rho]
        return self.walk(self.calibrated(window), current, self.T)[1]

    def calibrated(self, window: Tensor) -> Tensor:
        """Initial potential `[B, ...]` for a window of input `[rho, B, ...]`."""
        start = self.initial(window[0])
        wanted = torch.zeros_like(start)
        for k in range(self.iterations):
            count, fired, silent, residual = self._probe(window, start)
            if k == 0:
                wanted = torch.floor(residual / self.theta)
                wanted = torch.maximum(wanted, -count)
                if self.guard:
                    wanted = torch.minimum(wanted, self.rho - count)
            margin = 1.0 if self.unit else self.eps * self.theta
            down = torch.maximum(fired - self.theta + margin, self.theta)
            up = torch.maximum(self.theta - silent + margin, self.theta)
            start = torch.where(wanted < 0, start - down, torch.where(wanted > 0, start + up, start))
            wanted = wanted - torch.sign(wanted)
        return start

    def _probe(self, window: Tensor, start: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Runs the window from `start`: spike count, least `u` that fired, largest `u` that did not, residual."""
        far = torch.finfo(start.dtype).max / 4  # puts a potential out of a minimum's or maximum's way
        v = start
        count = torch.zeros_like(start)
        fired = torch.full_like(start, far)
        silent = torch.zeros_like(start) - 1000 * self.theta
        for current in window.unbind(0):
            u = v + current
            spike = fires(u, self.theta)
            fired = torch.minimum(fired, torch.add(u, 1 - spike, alpha=far))
            silent = torch.maximum(silent, torch.add(u, spike, alpha=-far))
            count = count + spike
            v = u - spike * self.theta
        return count, fired, silent, v

    def charge(self, theta: Tensor, v0: Tensor, current: Tensor) -> Tensor:
        # A shift of more than theta leads to a start of theta and the margin, less what one moment of the window had
        # added up to: currents and spikes. Without the guard a saturated neuron has 1000 theta for that.
        window = theta * (1 + self.rho) + self.rho * current + 1
        start = torch.maximum(v0, window) + self.iterations * theta
        saturated = self.iterations * (1001 * theta + 1)
        if not self.guard:
            start = start + saturated
        elif self.iterations > 1:  # the guard counts on one spike a shift, and of thresholds of 1 the margin makes two
            start = torch.where(theta > 1, start, start + saturated)
        return super().charge(theta, start, current)

    def fault(self) -> str:
        if fault := super().fault():
            return fault
        if not is_count(self.rho) or self.rho > self.T:
            return f"has rho = {self.rho!r}, outside 1..T = {self.T}"
        if not is_count(self.iterations) or not 0 < self.eps < math.inf:
            shifts = f"iterations = {self.iterations!r} and eps = {self.eps!r}"
            return f"has {shifts}; 1 or more, and a number above 0"
        return ""

    def extra_repr(self) -> str:
        more = "" if self.guard else ", guard=False"
        return f"{super().extra_repr()}, rho={self.rho}, iterations={self.iterations}{more}"
