"""Biases against the mean error of every channel."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, fx

from snnc.calibrate.sweep import Site, Sweep, add_current, calibration_input, reference_of, shift_for
from snnc.checks import MOST_ROUNDS
from snnc.ir.graph import Stage
from snnc.ir.neurons import Neuron
from snnc.passes.pipeline import Context, Pass
from snnc.processes import Pieces


@dataclass(frozen=True)
class CalibrateBias(Pass):
    """Shifts the current of every channel until its mean rate is the mean activation of the network before conversion.

    Layer by layer, from the input to the output, each on the spikes that the corrected layers before it emit:

        b_c <- b_c - mean over samples and positions of (phi - a)

    No labels. What is found holds at this T alone.

    Options:
        rounds: simulations of each layer; every one corrects what the one before left.
        samples: calibration samples at most.
    """

    name = "calibrate-bias"
    takes = (Stage.SPIKING,)
    source = "Li et al., ICML 2021 (arXiv 2106.06984), light calibration"

    rounds: int = 3
    samples: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("rounds", 1 <= self.rounds <= MOST_ROUNDS, f"1 to {MOST_ROUNDS}")
        self.require("samples", self.samples >= 1, "1 or more")

    def rows(self, context: Context) -> int:
        return self.rounds * context.seen(self.samples) * context.T

    def apply(self, graph: fx.GraphModule, context: Context) -> int:
        x = calibration_input(f"Pass '{self.name}'", self.samples, context)
        shifts: dict[fx.Node, Tensor] = {}

        def visit(site: Site) -> Pieces | None:
            if not isinstance(site.module, Neuron):
                return None
            shifts[site.node], value = shift_for(site, self.rounds)
            return value

        Sweep(graph, reference_of(context, f"Pass '{self.name}'"), x).run(visit, context.track)
        for node, shift in shifts.items():
            add_current(graph, node, shift)
        context.notes.append(f"on {len(x)} samples")
        return len(shifts)
