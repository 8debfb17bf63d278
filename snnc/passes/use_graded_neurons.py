"""Spikes of several heights."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from snnc.ir.exchange import set_time, swap_neurons
from snnc.ir.graph import Stage
from snnc.ir.neurons import GradedIF
from snnc.ir.neurons.graded import MAX_BITS
from snnc.passes.pipeline import Context, Pass


@dataclass(frozen=True)
class UseGradedNeurons(Pass):
    """Makes every neuron a `GradedIF`, whose spikes have 0 .. 2^bits - 1 units.

    The largest spike is as high as the binary neuron's: the unit is theta / (2^bits - 1), and v0 keeps its distance
    from one half. At constant input the neuron is the `ClipQuant` of (2^bits - 1) * T levels. Thresholds should be
    chosen for that many: `quantize-activations.bits`.

    Streaming, no data. What it costs: a channel of `bits` bits, and an operation, shifted, for each binary spike.

    Options:
        bits: binary thresholds of a neuron; 1 is an ordinary neuron.
    """

    name = "use-graded-neurons"
    takes = (Stage.SPIKING,)
    neuron = GradedIF
    source = "the positive unit of H-MT (AAAI 2026); thresholds for (2^bits - 1) T levels: its lemma 4.4"

    bits: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("bits", 1 <= self.bits <= MAX_BITS, f"1..{MAX_BITS}")

    def apply(self, graph: fx.GraphModule, context: Context) -> int:
        set_time(graph, context.T)
        return swap_neurons(
            graph, lambda node, theta, v0: GradedIF(context.T, *GradedIF.split(theta, v0, self.bits), self.bits)
        )
