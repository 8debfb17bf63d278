"""What a run costs: operations as they happen, and energy under two published conventions.

Nothing here is a measurement of hardware. The conventions price arithmetic alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import fx

from snnc.ir.accounting import operations as products_of
from snnc.ir.accounting import share
from snnc.ir.curved import BILINEAR
from snnc.ir.dialect import WEIGHTED
from snnc.ir.graph import calls, phases
from snnc.ir.meter import AVERAGED, COSTS, JOINED, TELESCOPED, fan_out
from snnc.ir.neurons import Neuron
from snnc.ir.shapes import every_shape
from snnc.ir.temporal import Telescoped
from snnc.measure.evaluate import Evaluation
from snnc.networks.base import SpikingNetwork

Shapes = Mapping[fx.Node, tuple[int, ...]]


@dataclass(frozen=True)
class Convention:
    """Prices in joules: of a multiply-accumulate, and of an addition on an arriving spike."""

    name: str
    mac: float
    add: float
    source: str


CONVENTIONS = (
    Convention("45 nm CMOS, 32-bit floating point", 4.6e-12, 0.9e-12, "Horowitz, ISSCC 2014; most papers"),
    Convention("neuromorphic chip against GPU", 12.5e-12, 77e-15, "QCFS (arXiv 2303.04347), one FLOP a MAC"),
)


@dataclass(frozen=True)
class Price:
    """Joules per sample under one convention.

    Attributes:
        convention: its name.
        source: where it is from.
        ann: of the ANN, every layer.
        usual: of the spiking network as tables usually count: synaptic operations, and the analog layers at each step.
        once: everything counted, the analog layers once, their current kept.
        each: everything counted, the analog layers again at each step.
    """

    convention: str
    source: str
    ann: float
    usual: float
    once: float
    each: float


@dataclass(frozen=True)
class Energy:
    """Operations per sample, and what they cost.

    Attributes:
        analog: multiply-accumulates of the layers before the first neuron, which see the analog input.
        macs: multiply-accumulates of the ANN in all other layers, and in products between the neurons.
        operations: synaptic operations: additions, one for each spike and connection, pre-simulation included.
        dense: multiply-accumulates of weights and products inside time that read no spikes, over all steps.
        curved: numbers that curved operations inside time give, over all steps; each counts as a multiply-accumulate.
        biases: additions of a bias, one for each output of a layer in time and step.
        updates: additions to a membrane potential, one for each neuron and step, pre-simulation included.
        simulated: steps that are simulated.
        rate: spikes per neuron and step.
        levels: values above zero that the mean output of a neuron can have.
        bits: of the clip-quantised network with as many values.
        prices: one for each of `CONVENTIONS`.
    """

    analog: float
    macs: float
    operations: float
    dense: int
    curved: int
    biases: int
    updates: int
    simulated: int
    rate: float
    levels: int
    bits: int
    prices: list[Price]


def account(graph: fx.GraphModule, shapes: Shapes, operations: float, spikes: float, T: int, runs: int = 1) -> Energy:
    """The account of one sample.

    Args:
        graph: a spiking graph.
        shapes: shape of one sample's value at every node, without batch and time.
        operations: synaptic operations per sample.
        spikes: spikes per sample.
        T: steps that are read out.
        runs: how often the ANN ran for one sample.
    """
    phase = phases(graph)
    layers = [
        (node, m, float(fan_out(m, shapes[node.all_input_nodes[0]]).sum())) for node, m in calls(graph, *WEIGHTED)
    ]
    neurons = [(math.prod(shapes[node]), neuron) for node, neuron in calls(graph, Neuron)]
    analog = sum(count for node, _, count in layers if phase[node] == "before")
    parts = share(graph, shapes)
    products = [
        products_of(m.body, [shapes[source] for source in node.all_input_nodes], shapes[node])
        for node, m in calls(graph, Telescoped)
        if isinstance(m.body, BILINEAR)
    ]
    macs = sum(count for node, _, count in layers if phase[node] != "before") + sum(products)
    simulated = max(int(neuron.T) for _, neuron in neurons)
    biased = [math.prod(shapes[node]) for node, m, _ in layers if m.bias is not None and phase[node] == "in"]
    updates = sum(count * neuron.updates for count, neuron in neurons)
    dense, curved = parts.dense * simulated, parts.curved * simulated
    added = operations + simulated * sum(biased) + updates
    levels = T * max(int((n.binary()[0] / n.theta).round().max()) for _, n in neurons)
    return Energy(
        analog=analog,
        macs=macs,
        operations=operations,
        dense=dense,
        curved=curved,
        biases=simulated * sum(biased),
        updates=updates,
        simulated=simulated,
        rate=spikes / sum(count * int(n.T) for count, n in neurons),
        levels=levels,
        bits=math.ceil(math.log2(levels + 1)),
        prices=[
            Price(
                c.name,
                c.source,
                ann=c.mac * (analog + macs + parts.curved) * runs,
                usual=c.mac * analog * simulated + c.add * operations,
                once=c.mac * (analog + dense + curved) + c.add * added,
                each=c.mac * (analog * simulated + dense + curved) + c.add * added,
            )
            for c in CONVENTIONS
        ],
    )


def measured(network: SpikingNetwork, found: Evaluation, shape: Sequence[int]) -> Energy | None:
    """The account of a network that was measured; None where it cannot be looked into.

    Args:
        network: that was measured.
        found: what `snnc.evaluate` gave.
        shape: of one sample.
    """
    if not network.looks_inside or found.operations is None or found.spikes is None:
        return None
    shapes, runs = every_shape(network.graph, shape), runs_of(network)
    return account(network.graph, shapes, found.operations, found.spikes, network.T, runs)


def runs_of(network: SpikingNetwork) -> int:
    """How often the original network ran for one sample."""
    return network.T if network.frames == "each" else 1


def left_out(graph: fx.GraphModule) -> list[str]:
    """What the account does not count for this network, as sentences."""
    phase = phases(graph)
    inside = {node: module for node, module in calls(graph) if phase[node] == "in"}
    said = {COSTS.at(node.name, module).left_out for node, module in inside.items()}
    found = [sentence for sentence in (AVERAGED, JOINED, TELESCOPED) if sentence in said]
    if any(module.theta.numel() > 1 for _, module in calls(graph, Neuron)):
        found.append("Thresholds differ by channel: spikes of height 1 need them folded into the next weights.")
    return found
