"""Spikes of either sign."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from snnc.ir.exchange import exchange, set_time
from snnc.ir.graph import Stage
from snnc.ir.neurons import SignedIF
from snnc.passes.pipeline import Context, Pass


@dataclass(frozen=True)
class UseSignedNeurons(Pass):
    """Makes every neuron a `SignedIF`, which takes spikes back that came too early.

    Streaming, no data. What it costs: a ternary channel, a counter for each neuron, and an operation for each
    negative spike.
    """

    name = "use-signed-neurons"
    takes = (Stage.SPIKING,)
    neuron = SignedIF
    source = "signed IF with a spike tracer, as in SNM, Fast-SNN, SpikeZIP-TF (ST-BIF) and DCGS"

    def apply(self, graph: fx.GraphModule, context: Context) -> int:
        set_time(graph, context.T)
        return exchange(graph, lambda node, theta, v0: SignedIF(context.T, theta, v0))
