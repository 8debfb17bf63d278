"""Layers that run a few steps behind each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, fx

from snnc.checks import MOST_STEPS
from snnc.ir.exchange import set_time, swap_neurons
from snnc.ir.graph import Stage, calls, phases
from snnc.ir.neurons import IF, Neuron, WaitingIF
from snnc.ir.temporal import Encode, Frames, Temporal
from snnc.passes.pipeline import Context, Pass


@dataclass(frozen=True)
class WaitForInput(Pass):
    """Makes every neuron a `WaitingIF`, which has seen `wait` further steps of its input when it emits.

    From streaming (wait = 0) to the counts of average spike generation (wait = T - 1), step by step. Neurons whose
    current is constant in time, such as the first layer's, know their input already: they stay an `IF`.

    No data. What it costs: latency, T and the sum of the waits on the longest path. A shorter path to a join is
    delayed to match.

    Options:
        wait: steps that each layer waits, or "T" for the whole input. More than T - 1 is T - 1.
    """

    name = "wait-for-input"
    takes = (Stage.SPIKING,)
    neuron = WaitingIF
    source = "ours; with the whole input: Yan et al. (arXiv 2211.08410), average spike generation"

    wait: int | Literal["T"] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = self.wait == "T" or 0 <= self.wait <= MOST_STEPS
        self.require("wait", fits, f"0 to {MOST_STEPS}, or 'T'")

    def steps(self, T: int) -> int:
        """Steps that a layer waits at T time steps."""
        return T - 1 if self.wait == "T" else min(self.wait, T - 1)

    def neurons(self, T: int) -> type[Neuron]:
        return WaitingIF if self.steps(T) else IF

    def apply(self, graph: fx.GraphModule, context: Context) -> int:
        wait = self.steps(context.T)
        known = steady(graph)

        def make(node: fx.Node, theta: Tensor, v0: Tensor) -> Neuron:
            if node in known or not wait:
                return IF(context.T, theta, v0)
            return WaitingIF(context.T, theta, v0, wait)

        set_time(graph, context.T)
        return swap_neurons(graph, make)


def steady(graph: fx.GraphModule) -> set[fx.Node]:
    """Neurons whose current is the input's own: nothing between them and `Encode`, or `Frames`, has a state.

    It is the same at every step, or what the frames make of it, which no sample has in common with all others.
    """
    constant = {node for node, _ in calls(graph, Encode, Frames)}
    found = set()
    phase = phases(graph)
    for node, module in calls(graph):
        if phase[node] == "in" and constant.issuperset(node.all_input_nodes):
            if isinstance(module, Neuron):
                found.add(node)
            elif not isinstance(module, Temporal):
                constant.add(node)
    return found
