"""Which arithmetic inside time is driven by spikes, and which is dense at each step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import networkx as nx
from torch import Tensor, fx, nn

from snnc.ir.curved import BENT, BILINEAR, CURVED, MatMul
from snnc.ir.dialect import AVERAGE_POOLS, MAX_POOLS, ROUTES, TRANSPOSED, WEIGHTED, Add, Affine, Mean, Mix, Sub
from snnc.ir.graph import calls, module_of, phases, view
from snnc.ir.neurons import Neuron
from snnc.ir.temporal import Decode, Encode, Frames, RunningMax, Telescoped

KEEPING = (*ROUTES, *AVERAGE_POOLS, Mean, Mix, Add, Sub, Affine, Decode)  # of constants these make constants
Shapes = Mapping[fx.Node, tuple[int, ...]]


@dataclass(frozen=True)
class Share:
    """Multiply-accumulates of one sample, by what drives them.

    Attributes:
        driven: of weights and products that spikes drive, at a step: additions, where there is a spike.
        dense: of weights and products that read other values inside time, at a step.
        curved: numbers that curved operations give at a step: dense too, and of several operations each.
        once: of weights and products that act once: on the input itself, or on a mean that is no spike's.
    """

    driven: int
    dense: int
    curved: int
    once: int

    def __str__(self) -> str:
        percent = 100 * self.driven / max(1, self.driven + self.dense)
        parts = [f"spikes drive {percent:.0f} % of {self.driven + self.dense:,} multiply-accumulates a step"]
        if self.dense:
            parts.append(f"{self.dense:,} are dense at each step")
        if self.curved:
            parts.append(f"curved operations give {self.curved:,} numbers a step, which is dense arithmetic")
        return "; ".join([*parts, f"{self.once:,} more act once a sample"])


def share(graph: fx.GraphModule, shapes: Shapes) -> Share:
    """What is driven by spikes in a spiking graph.

    Args:
        graph: spiking.
        shapes: of one sample's value at every node.
    """
    phase, spikes = phases(graph), driven(graph)
    found = {"driven": 0, "dense": 0, "curved": 0, "once": 0}
    for node, module in calls(graph):
        body = module.body if isinstance(module, Telescoped) else module
        if isinstance(body, (*WEIGHTED, *BILINEAR)):
            kind = "driven" if node in spikes else "dense" if phase[node] == "in" else "once"
            found[kind] += operations(body, [shapes[source] for source in node.all_input_nodes], shapes[node])
        elif isinstance(module, Telescoped) and not isinstance(module, RunningMax):
            found["curved"] += math.prod(shapes[node])
    return Share(**found)


def driven(graph: fx.GraphModule) -> set[fx.Node]:
    """The weights and products that read spikes alone: inside time, or behind it on their mean."""
    made, found = _origins(graph), set()
    for node, module in calls(graph):
        body = module.body if isinstance(module, Telescoped) else module
        heavy = isinstance(body, WEIGHTED) or (isinstance(body, BILINEAR) and isinstance(module, Telescoped))
        if heavy and all(made[source] == {"spikes"} for source in node.all_input_nodes):
            found.add(node)
    return found


class Rests:
    """What values inside time are where no neuron fires: constants add up between neurons and layers."""

    def __init__(self, graph: fx.GraphModule) -> None:
        self.graph = graph
        self._known: dict[fx.Node, Tensor] = {}
        self._shapes: dict[fx.Node, tuple[int, ...]] = {}

    def of(self, node: fx.Node, value: Tensor) -> Tensor | float:
        """The rest of a node's value `[T * B, ...]`, `[1, ...]` or 0. Nodes come in the order of the graph."""
        module = module_of(self.graph, node)
        self._shapes[node] = tuple(value.shape[1:])
        sources = [source for source in node.args if isinstance(source, fx.Node)]
        constant = isinstance(module, Affine) and bool(module.shift.any())
        constant |= isinstance(module, KEEPING) and any(source in self._known for source in sources)
        if constant and node not in self._known:
            kept = [self._known.get(one, value.new_zeros((1, *self._shapes[one]))) for one in sources]
            rest = kept[0] if isinstance(module, Decode) else module(*kept)
            self._known[node] = rest.expand(1, *value.shape[1:])
        return self._known.get(node, 0.0)


def operations(module: Any, before: list[tuple[int, ...]], after: tuple[int, ...]) -> int:
    """Multiply-accumulates of a layer or a product for one sample, those on padding among them."""
    if isinstance(module, BILINEAR):
        return math.prod(after) * (before[0][-1] if isinstance(module, MatMul) else 1)
    sites = before[0] if isinstance(module, TRANSPOSED) else after
    places = sites[:-1] if isinstance(module, nn.Linear) else sites[1:]
    return int(module.weight.numel()) * math.prod(places)


def _origins(graph: fx.GraphModule) -> dict[fx.Node, set[str]]:
    """What each value is made of: "spikes", "curved" values, "current" of weights, the "input", or several of these."""
    found: dict[fx.Node, set[str]] = {}
    for node in graph.graph.nodes:
        module = module_of(graph, node) if node.op == "call_module" else None
        if module is None or isinstance(module, Encode | Frames):
            found[node] = {"input"}
        elif isinstance(module, Neuron):
            found[node] = {"spikes"}
        elif isinstance(module, WEIGHTED):
            found[node] = {"current"}
        elif isinstance(module, (Telescoped, *BENT)) and not isinstance(module, RunningMax):
            found[node] = {"curved"}
        else:
            found[node] = set().union(*(found[source] for source in node.all_input_nodes))
    return found


def curved_inside(graph: fx.GraphModule) -> bool:
    """Whether a curved operation, pools apart, has weights or a product behind it."""
    net = view(graph)
    kinds = tuple(cls for cls in CURVED if cls not in MAX_POOLS)
    heavy = (*WEIGHTED, *BILINEAR)
    behind = {node for node, _ in calls(graph, *kinds)}
    return any(behind & nx.ancestors(net, node) for node, _ in calls(graph, *heavy))
