"""Initial potentials against the mean error of every channel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx

from snnc.calibrate.sweep import SweepSite, settled
from snnc.ir.neurons import Neuron
from snnc.passes.pipeline import Context
from snnc.passes.sweeping import RoundsPass


@dataclass(frozen=True)
class CalibratePotential(RoundsPass):
    """Moves the initial potential of every channel until its mean rate is the mean activation before conversion.

    Layer by layer, from the input to the output, each on the spikes that the corrected layers before it emit:

        v0_c <- v0_c + T * mean over samples and positions of (a - phi)

    A shift of a current acts at every step, one of the potential once, before the first. One value a channel; the
    paper's has one for each neuron. No labels. What is found holds at this T alone.

    Options:
        rounds: simulations of each layer; every one corrects what the one before left.
        samples: calibration samples at most.
    """

    name = "calibrate-potential"
    source = "Li et al., ICML 2021 (arXiv 2106.06984), advanced calibration, here per channel"

    def apply(self, graph: fx.GraphModule, context: Context) -> int:
        sites: list[fx.Node] = []

        def visit(site: SweepSite) -> None:
            neuron, sweep = site.module, site.sweep
            if not isinstance(neuron, Neuron):
                return

            def error(v0: Tensor) -> Tensor:
                neuron.v0 = v0
                return sweep.average(lambda i: sweep.mean(site.node, neuron(site.inputs[0][i])) - site.wanted[i])

            start = neuron.v0 + torch.zeros_like(sweep.average(lambda i: site.wanted[i]))
            neuron.v0 = settled(error, start, context.T, self.rounds)
            sites.append(site.node)

        self.sweep(graph, context, visit)
        return len(sites)
