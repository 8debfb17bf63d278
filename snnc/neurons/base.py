"""Integrate-and-fire neurons with reset by subtraction.

One step of an `IF`, with potential `v`, input current `I`, threshold `theta`:

    u = v + I          charge
    s = u >= theta     fire; the comparison is `>=`, as in QCFS, COS and SRP
    v = u - s * theta  reset by subtraction (Han et al. 2020); v is bounded on neither side
    output = s * theta

so that summed over T steps `theta * spikes + v(T) = v(0) + sum of currents`. The other models keep this sum, but for
neurons that `residual_mask` silences. They differ in the spikes that there are (`signed`, `graded`), in when a layer
fires (`waiting`, `average`), and in what it knows when it starts (`offset`, `residual_mask`).

`theta` and `v0` are buffers in the unit of the activation that the neuron replaces, shape `[]` (one a layer)
or `[C, 1, ...]` (one a channel).
"""

from __future__ import annotations

import torch
from torch import Tensor

from snnc.dialect import describe, register
from snnc.temporal import Temporal

STREAMING, TWO_PASS, PIPELINED = "streaming", "two-pass streaming", "pipelined"
LAYER_SYNCHRONOUS = "layer-synchronous"
SCHEDULES = (STREAMING, TWO_PASS, PIPELINED, LAYER_SYNCHRONOUS)  # a network has the last one that a layer of it needs


def fires(u: Tensor, theta: Tensor | float) -> Tensor:
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

    def binary(self) -> tuple[Tensor, Tensor]:
        """`theta` and `v0` of the binary neuron that reaches as far in one step."""
        return self.theta, self.v0

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
