"""The two networks side by side: the neurons' inputs and outputs, and the ANN with errors put into it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.calibrate.pointwise import find
from snnc.errors import SnncError
from snnc.ir.dialect import ACTIVATIONS, Add, ClipQuant
from snnc.ir.graph import calls, insert
from snnc.ir.neurons import BipolarIF, Neuron
from snnc.networks.base import SpikingNetwork
from snnc.passes import PASSES, EncodeInput, ExpandInput
from snnc.passes.pipeline import Pass
from snnc.runtime.runner import Runner
from snnc.structure import Samples


class Perturbed(fx.Interpreter):
    """Runs a graph with an error added to the values of some nodes, and keeps every value in `env`."""

    def __init__(self, graph: fx.GraphModule, errors: dict[fx.Node, Tensor]) -> None:
        super().__init__(graph, garbage_collect_values=False)
        self.errors = errors

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        return value + self.errors[n].to(value) if n in self.errors else value


@dataclass
class Seen:
    """One neuron layer over the steps that are read out, `[B, ...]` each, float64.

    Attributes:
        current: sum of the currents.
        output: sum of the outputs.
        spikes: number of the outputs that are not zero.
    """

    current: Tensor | None = None
    output: Tensor | None = None
    spikes: Tensor | None = None


def observed(network: SpikingNetwork, x: Samples) -> tuple[Tensor, dict[str, Seen]]:
    """Runs a spiking network on few enough samples for one round; gives its output and what each layer saw and did."""
    seen = {name: Seen() for name, _ in network.neurons()}
    feeds: dict[fx.Node, list[str]] = {}
    for node, _ in calls(network.graph, Neuron):
        feeds.setdefault(node.all_input_nodes[0], []).append(node.name)
    past: dict[fx.Node, int] = {}
    runner = Runner(network.graph)  # a first pass and a calibration simulate more steps than are read out
    first, last = runner.skip, runner.skip + runner.read

    def see(node: fx.Node, value: Tensor, steps: int) -> None:
        fed, own = feeds.get(node, []), seen.get(node.name)
        if not fed and own is None:
            return
        start = past.get(node, 0)
        past[node] = start + steps
        by_step = value.reshape(steps, -1, *value.shape[1:])[max(0, first - start) : max(0, last - start)]
        total = by_step.sum(0, dtype=torch.float64)
        for name in fed:
            seen[name].current = _plus(seen[name].current, total)
        if own is not None:
            own.output = _plus(own.output, total)
            own.spikes = _plus(own.spikes, (by_step != 0).sum(0, dtype=torch.float64))

    return network.readout(x, observe=see)[-1], seen


def _plus(before: Tensor | None, more: Tensor) -> Tensor:
    return more if before is None else before + more


class Encoded(nn.Identity):
    """A value of the ANN that the spiking network encodes as spikes."""


def with_encoders(network: SpikingNetwork, graph: fx.GraphModule) -> fx.GraphModule:
    """The ANN with an `Encoded` where the spiking network has an encoder, under its name. In place.

    Raises:
        SnncError: the graph belongs to another network.
    """
    twins = {node.name: node for node in graph.graph.nodes if node.op == "call_module"}
    for node, neuron in calls(network.graph, BipolarIF):
        if neuron.rectified:
            continue  # a ReLU
        readers = list(_readers(node, twins))
        sources = {reader.args[place] for reader, place in readers if place < len(reader.args)}
        if len(sources) != 1:
            raise other(f"it has no value for the encoder '{node.name}'")
        (source,) = sources
        assert isinstance(source, fx.Node)
        site = insert(graph, node.name, Encoded(), source)
        for reader, place in readers:
            reader.args = (*reader.args[:place], site, *reader.args[place + 1 :])
    graph.recompile()
    return graph


def with_ramps(network: SpikingNetwork, graph: fx.GraphModule) -> fx.GraphModule:
    """The ANN with the sums of ReLUs that `piecewise-activations` put in the place of its activations. In place.

    So the distance of a sum from its activation, which no neuron makes, is in none of the errors that are found.
    """
    nodes = {node.name: node for node in network.graph.graph.nodes}
    tops = network.info.get("ceilings") or {}
    for site in find(graph):
        end, total, i = site.node, None, 0
        while f"{end.name}_ramp{i}" in nodes:
            x = _copied(network, graph, nodes, f"{end.name}_in{i}", end, site.root)
            top = tops.get(f"{end.name}_ramp{i}")
            ramp: nn.Module = nn.ReLU() if top is None else nn.Hardtanh(0.0, float(top))
            x = insert(graph, f"{end.name}_ramp{i}", ramp, x, before=end)
            x = _copied(network, graph, nodes, f"{end.name}_out{i}", end, x)
            total = x if total is None else insert(graph, f"{end.name}_sum{i}", Add(), total, x, before=end)
            i += 1
        if total is not None:
            end.replace_all_uses_with(total)
            graph.graph.erase_node(end)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _copied(
    network: SpikingNetwork, graph: fx.GraphModule, nodes: Mapping[str, fx.Node], name: str, end: fx.Node, x: fx.Node
) -> fx.Node:
    """The factor of that name applied to `x`, if there is one."""
    if name not in nodes:
        return x
    factor = copy.deepcopy(network.graph.get_submodule(str(nodes[name].target)))
    return insert(graph, name, factor, x, before=end)


def _readers(node: fx.Node, twins: Mapping[str, fx.Node]) -> Iterator[tuple[fx.Node, int]]:
    """Nodes of the ANN that read the value of a node of the spiking network, and at which place."""
    for user in node.users:
        if user.name in twins:
            yield from ((twins[user.name], place) for place, source in enumerate(user.args) if source is node)
        else:
            yield from _readers(user, twins)


def beside(network: SpikingNetwork, graph: fx.GraphModule) -> tuple[dict[str, fx.Node], fx.GraphModule]:
    """A copy of the ANN that has what the spiking network was given in the place of activations, and its `matched`."""
    graph = with_encoders(network, with_ramps(network, copy.deepcopy(graph)))
    return matched(network, graph), graph


def matched(network: SpikingNetwork, graph: fx.GraphModule) -> dict[str, fx.Node]:
    """For each neuron layer the activation or encoded value of the ANN that it stands for, which has the same name.

    Raises:
        SnncError: the graph belongs to another network, or a pass gave the layers another meaning.
    """
    for record in network.info.get("records", []):
        one = PASSES.get(record.get("name"))
        if one is not None and record.get("sites", 1):
            _require_comparable(one)
    sites = {node.name: node for node, _ in calls(graph, *ACTIVATIONS, ClipQuant, Encoded)}
    neurons = [name for name, _ in network.neurons()]
    if extra := [name for name in neurons if name not in sites]:
        raise other(f"it has no activation '{extra[0]}'")
    if missing := [name for name in sites if name not in neurons]:
        raise other(f"its activation '{missing[0]}' has no neurons in the spiking network")
    return {name: sites[name] for name in neurons}


def _require_comparable(one: type[Pass]) -> None:
    """Refuses a network if a pass changed its layers so that they no longer match those of the ANN."""
    if one.changes_units:
        raise SnncError(
            f"After '{one.name}' spikes and activations have different units.",
            f"the network compiled without {one.name}{': it is the same function' if one.exact else ''}",
        )
    if one is EncodeInput:
        raise SnncError(
            f"After '{one.name}' the input is spikes too, a layer that the ANN does not have.",
            f"the network compiled without {EncodeInput.name} and {ExpandInput.name}",
        )


def other(why: str) -> SnncError:
    """The error for an ANN that does not belong to the spiking network."""
    return SnncError(f"This ANN is not the one that was compiled: {why}.", "the model that 'snnc compile' was given")
