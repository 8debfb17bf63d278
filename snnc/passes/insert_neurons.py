"""Clip-quantisation to integrate-and-fire neurons, and time around them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import networkx as nx
import torch
from torch import fx, nn

from snnc.calibrate.sweep import Rectify
from snnc.errors import SnncError
from snnc.ir.accounting import share
from snnc.ir.curved import CURVED
from snnc.ir.dialect import MAX_POOLS, ClipQuant, SignedQuant
from snnc.ir.frames import begin
from snnc.ir.graph import Stage, calls, insert, module_of, replace, view
from snnc.ir.neurons import IF, BipolarIF
from snnc.ir.shapes import every_shape
from snnc.ir.temporal import MAXPOOL_LOWERINGS, Decode, Encode, Telescoped
from snnc.passes.pipeline import Context, Pass
from snnc.structure import shape_of


@dataclass(frozen=True)
class InsertNeurons(Pass):
    """Puts an `IF` neuron in the place of every `ClipQuant`: theta = lam, and the v0 that computes the same function.

    That v0 is `theta * (1/2 + (shift - 1/2) * T / L)`: at T = L it is `shift * theta`, which makes the neuron equal
    to the `ClipQuant` at constant input; at another T it makes the mean error between the two zero for currents that
    are uniform in [0, theta], as long as that v0 itself lies in [0, theta].

    Time lies between the first and the last neuron: `Encode` on every edge into that region, `Decode` on every
    edge out of it. What comes before runs once, what comes after runs once, on the mean. Over frames time begins at the
    input, where `Frames` lets one in at each step (`snnc.ir.frames`).

    Max pooling inside that region acts on spike trains, and the maximum at each step is not the maximum of the
    rates. Outside of it max pooling is exact as it is. So is every other curved operation; inside it is `Telescoped`,
    which gives its function of the means after every step. A `SignedQuant` becomes an encoder, `BipolarIF`.

    Options:
        maxpool: how a max pool between neurons is lowered: "running-max" (exact for the counts), "gate"
            (forwards the leading input; converges more slowly), "per-step" (WRONG, for comparison).
        powers: thresholds are powers of two, each the nearest in proportion. They then move into float weights without
            rounding these, as a simulator with one threshold a layer asks for.
    """

    name = "insert-neurons"
    takes = (Stage.QUANTIZED,)
    gives = Stage.SPIKING
    uses = (Context.ceilings,)
    provides = (Context.reference,)
    neuron = IF
    source = "QCFS: Bu et al., ICLR 2022 (arXiv 2303.04347), theorem 2; soft reset: Han et al., CVPR 2020"

    maxpool: Literal["running-max", "gate", "per-step"] = "running-max"
    powers: bool = False

    def apply(self, graph: fx.GraphModule, context: Context) -> int:
        neurons = []
        context.reference = _unquantized(graph, context)
        for node, module in calls(graph, SignedQuant):
            theta = module.lam / module.units
            replace(graph, node, BipolarIF(context.T, theta, theta / 2, module.units))
            neurons.append(node)
        for node, module in calls(graph, ClipQuant):
            theta = torch.exp2(module.lam.log2().round()) if self.powers else module.lam.clone()
            v0 = theta * (0.5 + (module.shift - 0.5) * context.T / module.L)
            replace(graph, node, IF(context.T, theta, v0))
            neurons.append(node)
        if not neurons:
            raise SnncError(
                "no neuron was inserted: the network has no ReLU, and no values are encoded.",
                "the recipe 'telescoped', or the pass encode-values before this one",
            )
        frames = begin(graph, set(neurons))
        inside = between(graph, set(neurons), frames)
        lowered = self._lower_max_pools(graph, inside, context)
        telescoped = [(node, body) for node, body in calls(graph, *CURVED) if node in inside]
        for node, body in telescoped:
            replace(graph, node, Telescoped(context.T, body))
        put_borders(graph, inside, context.T, framed=bool(frames))
        if lowered:
            context.notes.append(f"{lowered} max pools between neurons lowered as {self.maxpool}")
        if telescoped:
            context.notes.append(f"{len(telescoped)} curved operations telescoped")
        if (example := context.example(graph)) is not None:
            context.notes.append(str(share(graph, every_shape(graph, shape_of(example)))))
        return len(neurons)

    def _lower_max_pools(self, graph: fx.GraphModule, inside: set[fx.Node], context: Context) -> int:
        pools = [(node, pool) for node, pool in calls(graph, *MAX_POOLS) if node in inside]
        for node, pool in pools:
            if self.maxpool == "gate" and type(pool).__name__.startswith("Adaptive"):
                raise SnncError(f"'{node.name}' is adaptive, which 'gate' cannot lower.", "maxpool = 'running-max'")
            replace(graph, node, MAXPOOL_LOWERINGS[self.maxpool](context.T, module_of(graph, node)))
        return len(pools)


def between(graph: fx.GraphModule, neurons: set[fx.Node], frames: set[fx.Node] | None = None) -> set[fx.Node]:
    """The nodes that lie in time: on a path from a neuron, or from where frames come in, to a neuron; ends included."""
    net, frames = view(graph), frames or set()
    starts = frames or neurons
    fed = starts.union(*(nx.descendants(net, node) for node in starts))
    feeding = neurons.union(*(nx.ancestors(net, node) for node in neurons))
    return (fed & feeding) | frames


def put_borders(graph: fx.GraphModule, inside: set[fx.Node], T: int, late: int = 0, framed: bool = False) -> None:
    """`Encode` on every edge into the nodes that lie in time, `Decode` on every edge out of them. In place.

    Where the input is `framed`, it comes in step by step and needs no `Encode`.
    """
    for node in [one for one in graph.graph.nodes if one.op != "output"]:
        users = list(node.users)
        if node.op == "placeholder" and framed:
            continue
        if node in inside:
            _through(graph, node, [u for u in users if u not in inside], Decode(T, T, late=late), "decode")
        else:
            _through(graph, node, [u for u in users if u in inside], Encode(T), "encode")


def _unquantized(graph: fx.GraphModule, context: Context) -> fx.GraphModule:
    """A copy with the activations that the network was trained with; bounds that it was trained with stay."""
    reference = copy.deepcopy(graph)
    for node, _ in calls(reference, ClipQuant):
        if node.name in context.ceilings:
            replace(reference, node, Rectify(context.ceilings[node.name]))
    for node, _ in calls(reference, SignedQuant):
        replace(reference, node, nn.Identity())
    return reference


def _through(graph: fx.GraphModule, source: fx.Node, users: list[fx.Node], module: Encode | Decode, name: str) -> None:
    """Puts one `module` between `source` and all of `users`."""
    if users:
        node = insert(graph, f"{source.name}_{name}", module, source)
        for user in users:
            user.replace_input_with(source, node)
