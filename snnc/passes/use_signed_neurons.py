"""Spikes of either sign."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, fx

from snnc.ir.exchange import set_time, swap_neurons
from snnc.ir.graph import Stage
from snnc.ir.neurons import BipolarIF, GradedIF, Neuron, SignedIF
from snnc.ir.neurons.graded import MAX_BITS
from snnc.passes.pipeline import Context, Pass


@dataclass(frozen=True)
class UseSignedNeurons(Pass):
    """Makes every neuron a `SignedIF`, which takes spikes back that came too early.

    Encoders of values of either sign stay as they are.

    Streaming, no data. What it costs: a ternary channel, a counter for each neuron, and an operation for each
    negative spike.

    Options:
        bits: of a spike besides its sign. From 2 on neurons are rectified `BipolarIF`, whose largest spike is as high
            as the binary neuron's; thresholds should be chosen for as many levels: `quantize-activations.bits`.
    """

    name = "use-signed-neurons"
    takes = (Stage.SPIKING,)
    neuron = SignedIF
    source = "signed IF with a spike tracer, as in SNM, Fast-SNN, SpikeZIP-TF (ST-BIF) and DCGS"

    bits: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("bits", 1 <= self.bits <= MAX_BITS, f"1..{MAX_BITS}")

    def neurons(self, T: int) -> type[Neuron]:
        return SignedIF if self.bits == 1 else BipolarIF

    def apply(self, graph: fx.GraphModule, context: Context) -> int:
        set_time(graph, context.T)
        return swap_neurons(graph, lambda node, theta, v0: self._neuron(context.T, theta, v0))

    def _neuron(self, T: int, theta: Tensor, v0: Tensor) -> Neuron:
        if self.bits == 1:
            return SignedIF(T, theta, v0)
        return BipolarIF(T, *GradedIF.split(theta, v0, self.bits), 2**self.bits - 1, rectified=True)
