"""Integrate-and-fire neurons with reset by subtraction.

One step of every neuron here, with potential `v`, input current `I`, threshold `theta`:

    u = v + I          charge
    s = u >= theta     fire; the comparison is `>=`, as in QCFS, COS and SRP
    v = u - s * theta  reset by subtraction (Han et al. 2020); v is bounded on neither side
    output = s * theta

so that summed over T steps `theta * spikes + v(T) = v(0) + sum of currents`.

`theta` and `v0` are buffers in the unit of the activation that the neuron replaces, shape `[]` (one a layer)
or `[C, 1, ...]` (one a channel).
"""

from __future__ import annotations

import torch
from torch import Tensor

from snnc.dialect import describe, register
from snnc.temporal import Temporal


def fires(u: Tensor, theta: Tensor) -> Tensor:
    """1 where `u >= theta`, 0 elsewhere, in the type of `u`.

    Written as `u - theta >= 0`, which is the same in IEEE arithmetic: a difference is zero only between equals. It
    stays in floating point, and so runs five times faster than a comparison to bool and back.
    """
    return (u - theta).ge_(0.0)


class Neuron(Temporal):
    """Base of all neuron models: a `Temporal` module whose output is spikes."""

    theta: Tensor
    v0: Tensor

    def __init__(self, T: int, theta: Tensor, v0: Tensor) -> None:
        super().__init__(T)
        self.register_buffer("theta", theta)
        self.register_buffer("v0", v0)

    @property
    def steps(self) -> int:
        """Steps that one layer takes from its first input to its last output."""
        return self.T

    def extra_repr(self) -> str:
        return f"T={self.T}, theta={describe(self.theta)}, v0={describe(self.v0)}"


@register("T", "theta", "v0")
class IF(Neuron):
    """Integrate-and-fire, binary spikes, streaming."""

    def initial(self, current: Tensor) -> Tensor:
        return self.v0 + torch.zeros_like(current)

    def step(self, state: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        u = state + current
        spike = fires(u, self.theta) * self.theta
        return u - spike, spike


@register("T", "theta", "v0", "rho", "iterations", "guard", "eps")
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
        eps: margin of a shift, in units of theta.
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
    ) -> None:
        super().__init__(T, theta, v0)
        self.rho, self.iterations, self.guard, self.eps = rho, iterations, guard, eps

    @property
    def steps(self) -> int:
        return self.rho * self.iterations + self.T

    def forward(self, current: Tensor) -> Tensor:
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
            margin = self.eps * self.theta
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

    def extra_repr(self) -> str:
        more = "" if self.guard else ", guard=False"
        return f"{super().extra_repr()}, rho={self.rho}, iterations={self.iterations}{more}"
