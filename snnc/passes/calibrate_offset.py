"""Offset-spike calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import fx

from snnc.checks import MOST_STEPS
from snnc.ir.exchange import set_time, swap_neurons
from snnc.ir.graph import Stage
from snnc.ir.neurons import OffsetIF
from snnc.passes.pipeline import Context, Pass


@dataclass(frozen=True)
class CalibrateOffset(Pass):
    """Makes every neuron an `OffsetIF`, which calibrates its initial potentials on each sample (COS).

    Each layer pre-simulates `rho` steps and shifts its initial potentials by what moves one spike too many or too
    few. No data and no parameters: the calibration happens at inference.

    What it costs: the network becomes layer-synchronous. Each layer waits for its whole input, takes
    `rho * iterations` steps to calibrate and `max(T, rho)` steps to emit.

    Options:
        rho: steps of pre-simulation, or "T", or "2T", or "auto": 2T, and 4 at least.
        iterations: shifts at most (1 is the released code; `rho` always suffices for an even count).
        guard: leave a neuron alone that fired at every step (False: the released code, see `OffsetIF`).
        eps: margin of a shift, in units of theta.
    """

    name = "calibrate-offset"
    takes = (Stage.SPIKING,)
    neuron = OffsetIF
    source = "COS: Hao et al., ICLR 2023 (arXiv 2302.10685), as released, with a guard"

    rho: int | Literal["T", "2T", "auto"] = 4
    iterations: int = 1
    guard: bool = True
    eps: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = isinstance(self.rho, str) or 1 <= self.rho <= MOST_STEPS
        self.require("rho", fits, f"1 to {MOST_STEPS}, or 'T', '2T' or 'auto'")
        self.require("iterations", 1 <= self.iterations <= MOST_STEPS, f"1 to {MOST_STEPS}")
        self.require("eps", self.eps > 0, "a small number above 0, such as 0.001")

    def apply(self, graph: fx.GraphModule, context: Context) -> int:
        rho = max(2 * context.T, 4) if self.rho == "auto" else context.times(self.rho)
        T = max(rho, context.T)
        if rho < context.T:
            context.notes.append(
                f"calibrated on the first {rho} of {context.T} steps; rho = T is more accurate, and takes "
                f"{context.T - rho} steps more in each layer"
            )
        set_time(graph, T)
        options = (rho, self.iterations, self.guard, self.eps)
        return swap_neurons(graph, lambda node, theta, v0: OffsetIF(T, theta, v0, *options))
