"""Integrate-and-fire neurons with reset by subtraction.

One step of an `IF`, with potential `v`, input current `I`, threshold `theta`:

    u = v + I          charge
    s = u >= theta     fire; the comparison is `>=`, as in QCFS, COS and SRP
    v = u - s * theta  reset by subtraction (Han et al. 2020); v is bounded on neither side
    output = s * theta

so that summed over T steps `theta * spikes + v(T) = v(0) + sum of currents`. The other models keep this sum, but for
neurons that `residual_mask` silences. They differ in the spikes that there are (`signed`, `graded`), in when a layer
fires (`waiting`, `average`), and in what it knows when it starts (`offset`, `residual_mask`).

The output of a neuron that is a `unit` is s itself, the number of spikes, and nothing else about it changes: what is
taken from the potential stays s * theta. Fixed-point networks hold such neurons; their weights are in units of theta.

`theta` and `v0` are buffers in the unit of the activation that the neuron replaces, shape `[]` (one a layer)
or `[C, 1, ...]` (one a channel).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from snnc.ir.dialect import describe, register
from snnc.ir.temporal import Temporal

STREAMING, TWO_PASS, PIPELINED = "streaming", "two-pass streaming", "pipelined"
LAYER_SYNCHRONOUS = "layer-synchronous"
SCHEDULES = (STREAMING, TWO_PASS, PIPELINED, LAYER_SYNCHRONOUS)  # a network has the last one that a layer of it needs

Spikes = Literal["binary", "signed", "graded"]


def fires(u: Tensor, theta: Tensor | float) -> Tensor:
    """1 where `u >= theta`, 0 elsewhere, in the type of `u`.

    Written as `u - theta >= 0`, which is the same in IEEE arithmetic: a difference is zero only between equals. It
    stays in floating point, and so runs five times faster than a comparison to bool and back.
    """
    return (u - theta).ge_(0.0)


class Neuron(Temporal):
    """Base of all neuron models: a `Temporal` module whose output is spikes.

    Attributes:
        spikes: "binary", one height or none; "signed", of either sign; "graded", several heights.
        unit: the output is the number of spikes (0 or 1; 0 .. 2^bits - 1; -1, 0 or 1) and not theta times that. What
            is taken from the potential is theta times the number all the same.
    """

    spikes: ClassVar[Spikes] = "binary"
    theta: Tensor
    v0: Tensor

    def __init__(self, T: int, theta: Tensor, v0: Tensor, unit: bool = False) -> None:
        super().__init__(T)
        self.unit = unit
        self.register_buffer("theta", theta)
        self.register_buffer("v0", v0)

    @property
    def steps(self) -> int:
        """Steps that one layer takes from its input to its last output, in a layer-synchronous network."""
        return self.T

    @property
    def schedule(self) -> str:
        """How a network that holds this neuron runs, one of `SCHEDULES`."""
        return STREAMING

    @property
    def delay(self) -> int:
        """Steps that the output of a number comes after the input of that number, where layers are pipelined."""
        return 0

    @property
    def updates(self) -> int:
        """Additions to one potential in a run; what a neuron reads before it fires counts too."""
        return self.T

    @property
    def height(self) -> Tensor:
        """Height of one spike in the output, shape as theta: theta, or 1 where the neuron is a unit."""
        return torch.ones_like(self.theta) if self.unit else self.theta

    def reach(self) -> tuple[int, int]:
        """Least and largest number of spikes of one step."""
        return 0, 1

    def charge(self, theta: Tensor, v0: Tensor, current: Tensor) -> Tensor:
        """The largest magnitude in the arithmetic of one sample: potentials, thresholds and sums of currents.

        Firing never takes a potential below 0 and taking back never above theta, so only currents carry it further.

        Args:
            theta: thresholds.
            v0: magnitudes of the initial potentials.
            current: largest magnitude of the current of a step.
        """
        return torch.maximum(v0 + self.T * current, theta)

    def binary(self) -> tuple[Tensor, Tensor]:
        """`theta` and `v0` of the binary neuron that reaches as far in one step."""
        return self.theta, self.v0

    def extra_repr(self) -> str:
        more = ", unit" if self.unit else ""
        return f"T={self.T}, theta={describe(self.theta)}, v0={describe(self.v0)}{more}"


@register("T", "theta", "v0", unit=False)
class IF(Neuron):
    """Integrate-and-fire, binary spikes, streaming."""

    def initial(self, current: Tensor) -> Tensor:
        return self.v0 + torch.zeros_like(current)

    def step(self, state: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        u = state + current
        count = fires(u, self.theta)
        charge = count * self.theta
        return u - charge, count if self.unit else charge
