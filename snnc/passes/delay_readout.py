"""Readout of the later steps alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import fx

from snnc.ir.graph import Stage, calls
from snnc.ir.temporal import Decode
from snnc.passes.pipeline import Context, Pass


@dataclass(frozen=True)
class DelayReadout(Pass):
    """Leaves the first steps out of the final readout.

    A spike that reaches the last layer at the first steps rests on layers before it that have hardly seen the sample.
    T and the latency stay: the first `floor(share * T)` steps are simulated and waited for, and the mean is taken over
    the others. Calibrate first: what follows compares the later steps alone, in every layer.

    Options:
        share: of T, that is left out; 0 reads all steps.
    """

    name = "delay-readout"
    takes = (Stage.SPIKING,)
    source = "Inference-Scale Complexity in ANN-SNN Conversion, CVPR 2025; here a share of T"

    share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("share", 0 <= self.share < 1, "0 or more, below 1")

    def over_frames(self, T: int) -> None:
        """Nothing: the steps that it leaves out are frames."""

    def apply(self, graph: fx.GraphModule, context: Context) -> int:
        sites = 0
        for _, module in calls(graph, Decode):
            module.late = math.floor(self.share * module.read)
            sites += 1
        if late := math.floor(self.share * context.T):
            context.notes.append(f"the readout leaves out the first {f'{late} steps' if late > 1 else 'step'}")
        return sites
