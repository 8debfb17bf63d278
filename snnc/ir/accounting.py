"""Which arithmetic inside time is driven by spikes, and which is dense at each step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from snnc.ir.curved import BILINEAR, MatMul
from snnc.ir.dialect import TRANSPOSED, WEIGHTED
from snnc.ir.graph import calls, module_of, phases
from snnc.ir.neurons import Neuron
from snnc.ir.temporal import Encode, RunningMax, Telescoped

Shapes = Mapping[fx.Node, tuple[int, ...]]


@dataclass(frozen=True)
class Share:
    """Operations of one sample and one step.

    Attributes:
        driven: multiply-accumulates of weights and products that spikes drive: additions, where there is a spike.
        dense: those of weights and products that read other values.
        curved: numbers that curved operations give: dense, and of several operations each.
    """

    driven: int
    dense: int
    curved: int

    def __str__(self) -> str:
        whole = max(1, self.driven + self.dense)
        percent = 100 * self.driven / whole
        return (
            f"spikes drive {percent:.0f} % of {whole} products with weights or values a step; curved operations "
            f"give {self.curved} numbers a step, which is dense arithmetic"
        )


def share(graph: fx.GraphModule, shapes: Shapes) -> Share:
    """What is driven by spikes in a spiking graph.

    Args:
        graph: spiking.
        shapes: of one sample's value at every node.
    """
    phase, made = phases(graph), _origins(graph)
    driven = dense = curved = 0
    for node, module in calls(graph):
        if phase[node] != "in":
            continue
        body = module.body if isinstance(module, Telescoped) else module
        product = isinstance(body, BILINEAR)
        if isinstance(body, WEIGHTED) or product:
            count = operations(body, [shapes[source] for source in node.all_input_nodes], shapes[node])
            spikes = all(made[source] == {"spikes"} for source in node.all_input_nodes)
            driven, dense = (driven + count, dense) if spikes else (driven, dense + count)
        elif isinstance(module, Telescoped) and not isinstance(module, RunningMax):
            curved += math.prod(shapes[node])
    return Share(driven, dense, curved)


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
        if module is None or isinstance(module, Encode):
            found[node] = {"input"}
        elif isinstance(module, Neuron):
            found[node] = {"spikes"}
        elif isinstance(module, WEIGHTED):
            found[node] = {"current"}
        elif isinstance(module, Telescoped) and not isinstance(module, RunningMax):
            found[node] = {"curved"}
        else:
            found[node] = set().union(*(found[source] for source in node.all_input_nodes))
    return found
