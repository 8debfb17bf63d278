"""A first pass that finds the neurons that should be silent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from torch import fx

from snnc.checks import MOST_STEPS
from snnc.ir.exchange import set_time, swap_neurons
from snnc.ir.graph import Stage
from snnc.ir.neurons import ResidualMaskIF
from snnc.passes.pipeline import Context, Pass


@dataclass(frozen=True)
class MaskResidual(Pass):
    """Makes every neuron a `ResidualMaskIF`, which a first pass may silence, on each sample (SRP).

    The network streams `tau` steps, which are not read. A neuron whose residual potential is not above 0.001 theta is
    then silent; all others start anew, and T steps are read.

    No data, no parameters. What it costs: tau steps for every sample, and their spikes.

    Options:
        tau: steps of the first pass.
    """

    name = "mask-residual"
    takes = (Stage.SPIKING,)
    neuron = ResidualMaskIF
    source = "SRP: Hao et al., AAAI 2023 (arXiv 2302.02091), rule of the released code"

    tau: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("tau", 1 <= self.tau <= MOST_STEPS, f"1 to {MOST_STEPS}")

    def over_frames(self, T: int) -> Self | None:
        raise self.unframed("reads a sample twice, and frames come once")

    def apply(self, graph: fx.GraphModule, context: Context) -> int:
        T = self.tau + context.T
        set_time(graph, T, self.tau)
        return swap_neurons(graph, lambda node, theta, v0: ResidualMaskIF(T, theta, v0, self.tau))
