"""Weights by least squares against the error that reaches a layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import networkx as nx
import torch
from torch import Tensor, fx, nn

from snnc.calibrate.feedback import Stepped
from snnc.calibrate.holding import size_of
from snnc.calibrate.regression import refit
from snnc.calibrate.relevance import counts, relevance
from snnc.calibrate.sweep import SweepSite, add_current, by_feature, shift_for
from snnc.checks import MOST_ROUNDS
from snnc.ir.dialect import WEIGHTED, Add
from snnc.ir.graph import calls, module_of, view
from snnc.ir.neurons import Neuron
from snnc.ir.temporal import Decode, Encode, StepCurrent
from snnc.passes.even_currents import departure
from snnc.passes.pipeline import Context
from snnc.passes.sweeping import RoundsPass
from snnc.processes import Pieces
from snnc.structure import joined


@dataclass(frozen=True)
class CalibrateWeights(RoundsPass):
    """Refits every layer, so that on the spikes that reach it, it gives the currents of the network before conversion.

    Layer by layer, from the input to the output, each on the spikes that the corrected layers before it emit, with
    x the mean of its input over time and z what the layer gave before conversion:

        W, b <- argmin  mean |W x + b - z|^2  +  strength |W - W_before|^2

    in closed form. Where the layer is a branch of a sum, z also makes up for the error of the branches that are
    known by then. Then, if `feedback` is not 0, by what the neurons behind it emit: with X the covariance of x, phi
    the mean of what they emit and a what they should,

        W <- W + (X + strength)^-1 mean x (a - phi)

    and each channel keeps what gave the least error at calibration samples that this does not see. Then the bias of
    each channel, as `calibrate-bias`. No labels. What is found holds at this T alone.

    Where `even-currents` came before, its currents are brought up to date on what the corrected layers emit: all of
    what departs from the mean is taken away, whatever its `gain` was.

    Layers that no spike reaches see what they always saw, and stay. So do 3d, transposed and non-zero-padded
    convolutions, which are not covered.

    Options:
        ridge: pull to the old weights, relative to the variance of an input.
        relevance: whether a position (a token, a place in an image) counts as much as the output depends on it, by
            the mean square gradient of the network before conversion; without, all count alike.
        rounds: simulations of each layer for its bias.
        samples: calibration samples at most.
        positions: equations for each layer, drawn over samples and positions.
        feedback: corrections of the weights by what the neurons behind them emit.
    """

    name = "calibrate-weights"
    source = "ours: layer-wise least squares; the sequential order of Li et al., ICML 2021 (arXiv 2106.06984)"

    ridge: float = 0.03
    relevance: bool = False
    positions: int = 60000
    feedback: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("ridge", 0 <= self.ridge < math.inf, "0 or more")
        self.require("feedback", 0 <= self.feedback <= MOST_ROUNDS, f"0 to {MOST_ROUNDS}")
        self.require("positions", self.positions >= 2, "2 or more")

    def apply(self, graph: fx.GraphModule, context: Context) -> int:
        generator = torch.Generator().manual_seed(context.seed)
        relevant: Mapping[str, Tensor] = {}
        if self.relevance:
            given = joined(context.data(f"Pass '{self.name}'"))
            relevant = relevance(context.reference, given, context.seed)
        shifts: dict[fx.Node, Tensor] = {}
        fed: dict[fx.Node, Stepped] = {}
        net = view(graph)
        spiked = set().union(*(nx.descendants(net, node) for node, _ in calls(graph, Neuron)))
        left: list[str] = []
        moved = 0

        def visit(site: SweepSite) -> Pieces | None:
            nonlocal moved
            gradient = relevant.get(site.node.name)
            if isinstance(site.module, Neuron):
                evened(graph, site)
                if stepped := fed.pop(site.node, None):
                    site.inputs[0] = stepped.correct(site, self.ridge, self.feedback)
                    evened(graph, site)
                last = by_feature(site.module, site.inputs[0])
                shifts[site.node], value = shift_for(site, self.rounds, counts(gradient, last))
                return value
            if isinstance(site.module, WEIGHTED) and site.node in spiked:
                seen, shards = site.sweep.means(site.node, site.inputs[0]), site.sweep.shards
                wanted = goal(graph, site)
                count = counts(gradient, isinstance(site.module, nn.Linear))
                done = refit(site.module, seen, wanted, shards, self.ridge, self.positions, generator, count)
                moved += done
                left.extend([] if done else [site.node.name])
                if done and self.feedback and (stepped := Stepped.of(graph, site, generator)):
                    fed[stepped.neuron] = stepped
            return None

        self.sweep(graph, context, visit)
        for node, shift in shifts.items():
            add_current(graph, node, shift)
        if left:
            context.notes.append(f"weights of {len(left)} layers left as they are (the first: '{left[0]}')")
        return moved


def evened(graph: fx.GraphModule, site: SweepSite) -> None:
    """Brings the currents of single steps in front of neurons up to date. In place."""
    step = module_of(graph, site.node.all_input_nodes[0])
    if isinstance(step, StepCurrent):
        (current,) = site.inputs
        shift = departure(current, step.T, site.sweep.shards)
        step.shift = step.shift + shift
        site.inputs[0] = site.sweep.memory.each(StepCurrent(step.T, shift), current)


def goal(graph: fx.GraphModule, site: SweepSite) -> Pieces:
    """What a layer should give: its value before conversion, and the error of the other branches of its sum."""
    users = list(site.node.users)
    if len(users) == 1 and users[0].op == "call_module" and isinstance(module_of(graph, users[0]), Add):
        for other in users[0].all_input_nodes:
            rate = None if other is site.node else site.sweep.rate(other)
            wanted = site.sweep.wanted.get(_twin(graph, other).name)
            if rate is not None and wanted is not None and size_of(rate) == size_of(site.wanted):
                return _moved(site, wanted, rate)
    return site.wanted


def _twin(graph: fx.GraphModule, node: fx.Node) -> fx.Node:
    """The node whose name its value has before conversion: entering or leaving time has none there."""
    crosses = node.op == "call_module" and isinstance(module_of(graph, node), Encode | Decode)
    return node.all_input_nodes[0] if crosses else node


def _moved(site: SweepSite, wanted: Pieces, found: Pieces) -> Pieces:
    """What is wanted at a site, and what is missing elsewhere."""

    def sums(i: int) -> Tensor:
        return site.wanted[i] + wanted[i] - found[i]

    return site.sweep.memory.hold(sums, site.wanted, wanted, found, light=True)
