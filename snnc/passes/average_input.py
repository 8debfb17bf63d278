"""Average spike generation."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from snnc.ir.exchange import set_time, swap_neurons
from snnc.ir.graph import Stage
from snnc.ir.neurons import AverageIF
from snnc.passes.pipeline import Context, Pass


@dataclass(frozen=True)
class AverageInput(Pass):
    """Makes every neuron an `AverageIF`, which fires on the mean of its whole input (ASG).

    At T = L the network is the clip-quantised ANN exactly: of the three errors only unevenness is gone. So compare
    it with a quantised network of ceil(log2(T + 1)) bits, which it is.

    No data. What it costs: the network becomes layer-synchronous; each layer takes T steps after its input is whole.
    """

    name = "average-input"
    takes = (Stage.SPIKING,)
    neuron = AverageIF
    source = "ASG: Yan, Zhou, Wong (arXiv 2211.08410), without the retraining"

    def apply(self, graph: fx.GraphModule, context: Context) -> int:
        set_time(graph, context.T)
        return swap_neurons(graph, lambda node, theta, v0: AverageIF(context.T, theta, v0))
