"""Biases against the mean error of every channel."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, fx

from snnc.calibrate.sweep import SweepSite, add_current, shift_for
from snnc.ir.neurons import Neuron
from snnc.passes.pipeline import Context
from snnc.passes.sweeping import RoundsPass
from snnc.processes import Pieces


@dataclass(frozen=True)
class CalibrateBias(RoundsPass):
    """Shifts the current of every channel until its mean rate is the mean activation of the network before conversion.

    Layer by layer, from the input to the output, each on the spikes that the corrected layers before it emit:

        b_c <- b_c - mean over samples and positions of (phi - a)

    No labels. What is found holds at this T alone.

    Options:
        rounds: simulations of each layer; every one corrects what the one before left.
        samples: calibration samples at most.
    """

    name = "calibrate-bias"
    source = "Li et al., ICML 2021 (arXiv 2106.06984), light calibration"

    def apply(self, graph: fx.GraphModule, context: Context) -> int:
        shifts: dict[fx.Node, Tensor] = {}

        def visit(site: SweepSite) -> Pieces | None:
            if not isinstance(site.module, Neuron):
                return None
            shifts[site.node], value = shift_for(site, self.rounds)
            return value

        self.sweep(graph, context, visit)
        for node, shift in shifts.items():
            add_current(graph, node, shift)
        return len(shifts)
