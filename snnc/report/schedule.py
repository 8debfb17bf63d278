"""When each layer works on one sample."""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx

from snnc.ir.graph import calls, view
from snnc.ir.neurons import LAYER_SYNCHRONOUS, PIPELINED, Neuron
from snnc.networks.base import SpikingNetwork
from snnc.runtime.runner import Runner


@dataclass(frozen=True)
class Turn:
    """One neuron layer: it is busy from step `start` to `end`; what it emits before `read` is not read out."""

    name: str
    start: int
    read: int
    end: int


def timetable(network: SpikingNetwork) -> list[Turn]:
    """Every neuron layer's turn, under the schedule that the network needs; the last `end` is the latency.

    Streaming layers work at the same time. A pipelined one begins to emit after the waits on the longest path to it; a
    layer-synchronous one begins when the last of those before it is done.
    """
    runner = Runner(network.graph)
    cost = dict(calls(network.graph, Neuron))
    free: dict[object, int] = {}
    turns = []
    net = view(network.graph)
    for node in nx.topological_sort(net):
        start = max((free[source] for source in net.predecessors(node)), default=0)
        free[node] = start
        if node not in cost:
            continue
        if runner.schedule == LAYER_SYNCHRONOUS:
            free[node] = start + cost[node].steps
            turns.append(Turn(node.name, start, free[node] - runner.read, free[node]))
        elif runner.schedule == PIPELINED:
            free[node] = start + cost[node].delay
            turns.append(Turn(node.name, start, free[node], free[node] + runner.read))
        else:
            turns.append(Turn(node.name, 0, runner.skip, runner.skip + runner.read))
    return turns
