"""Sequential calibration: layer by layer, from the input to the output, against the network before conversion.

The spiking graph and its reference (`Context.reference`: the same nodes, with the activations that the network was
trained with) run side by side over the calibration data, one node at a time. What a layer receives already has the
errors of the layers before it, corrected as far as they could be; so each layer can make up for the rest.

Samples are walked through in shards, which several processes may share (`snnc.processes`). What a layer learns is
learnt from sums over all shards. How values are held meanwhile is told in `snnc.calibrate.holding`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from snnc.calibrate.holding import Memory, size_of
from snnc.calibrate.limit import largest_value, sharded
from snnc.ir.dialect import CONVOLUTIONS, Add, Affine, Sub
from snnc.ir.frames import folded
from snnc.ir.graph import calls, entries, insert, module_of, phases, steps
from snnc.ir.temporal import Decode, Encode, StepCurrent
from snnc.processes import Pieces, Shards
from snnc.structure import Samples
from snnc.structure import each as each_input


class Rectify(torch.nn.Module):
    """`clip(x, 0, ceiling)`, the ceiling infinite or in a shape that broadcasts. For references alone, never a file."""

    def __init__(self, ceiling: Tensor) -> None:
        super().__init__()
        self.ceiling = ceiling

    def forward(self, x: Tensor) -> Tensor:
        return torch.minimum(x.clamp_min(0), self.ceiling)


@dataclass
class SweepSite:
    """A node of the spiking graph at its turn in the sweep.

    Attributes:
        node: the node.
        module: what it calls.
        inputs: values of its inputs, in the shards of this process: `[T * N, ...]` within time, `[N, ...]` outside.
        wanted: what the reference has at this node, `[N, ...]` in each shard; of one that ran on each frame the mean.
        sweep: the sweep, for values of other nodes that are known already.
    """

    node: fx.Node
    module: Any
    inputs: list[Pieces]
    wanted: Pieces
    sweep: Sweep


class Sweep:
    """One walk through a spiking graph and its reference, node by node.

    Args:
        graph: spiking; the visitor may change the module of the node that it is shown.
        reference: the same nodes before neurons were put in.
        x: calibration input `[N, ...]`, of several inputs all.
        limit: bytes that the process may hold meanwhile; None: what it holds, and half of what is free.
    """

    def __init__(
        self, graph: fx.GraphModule, reference: fx.GraphModule, x: Samples, limit: float | None = None
    ) -> None:
        self.graph, self.reference = graph, reference
        self.by_frame = folded(reference)
        largest = largest_value(reference, x, steps(graph))
        self.shards = sharded(len(x), largest)
        self.memory = Memory.of(limit, largest * self.shards.sizes[0])
        self.given = dict(zip(entries(graph), map(self.shards.deal, each_input(x)), strict=True))
        self.phase = phases(graph)
        self.decode = next(module for _, module in calls(graph, Decode))
        self.values: dict[fx.Node, Pieces] = {}
        self.wanted: dict[str, Pieces] = {}

    def rate(self, node: fx.Node) -> Pieces | None:
        """Mean over time `[N, ...]` of a node's value, if it is known by now."""
        return self.means(node, self.values[node]) if node in self.values else None

    def mean(self, node: fx.Node, value: Tensor) -> Tensor:
        """Mean over the steps that are read out, of a value within time; any other value as it is."""
        return self.decode(value) if self.phase[node] == "in" else value

    def means(self, node: fx.Node, value: Pieces) -> Pieces:
        """`mean` of every shard."""
        return self.memory.each(self.decode, value) if self.phase[node] == "in" else value

    def average(self, of: Callable[[int], Tensor]) -> Tensor:
        """Mean over all samples and positions of `of(i)` `[N, C, ...]`, i a shard: `[C, 1, ...]`, as a threshold."""
        return average(self.shards, of)

    @torch.no_grad()
    def run(self, visit: Callable[[SweepSite], Pieces | None], track: Callable[..., Iterator[Any]]) -> None:
        """Shows every node to `visit`, in topological order. What `visit` gives is the node's value, if not None."""
        twins = {node.name: node for node in self.reference.graph.nodes}
        known: dict[fx.Node, Pieces] = {}
        nodes = [node for node in self.graph.graph.nodes if node.op != "output"]
        last = {source: node for node in self.graph.graph.nodes for source in node.all_input_nodes}
        last_known = {source: node for node in self.reference.graph.nodes for source in node.all_input_nodes}
        for node in track(nodes, "calibrating"):
            twin = twins.get(node.name)
            if node.op == "placeholder":
                self.values[node] = self.wanted[node.name] = known[twins[node.name]] = self.given[node]
                continue
            self._visit(node, twin, known, visit)
            for source in node.all_input_nodes:
                if last[source] is node:
                    del self.values[source]
            for source in twin.all_input_nodes if twin is not None else ():
                if last_known[source] is twin:
                    del known[source], self.wanted[source.name]

    def _visit(
        self,
        node: fx.Node,
        twin: fx.Node | None,
        known: dict[fx.Node, Pieces],
        visit: Callable[[SweepSite], Pieces | None],
    ) -> None:
        """Finds the value of a node, and of its twin in the reference."""
        inputs = [self.values[source] for source in node.args if isinstance(source, fx.Node)]
        module = module_of(self.graph, node)
        value = None
        if twin is not None:
            sources = [known[source] for source in twin.args if isinstance(source, fx.Node)]
            known[twin] = found = self.memory.each(module_of(self.reference, twin), *sources)
            wanted = self.memory.each(self.decode, found) if twin in self.by_frame else found
            self.wanted[node.name] = wanted
            value = visit(SweepSite(node, module, inputs, wanted, self))
        self.values[node] = self.memory.each(module, *inputs) if value is None else value


def settled(error: Callable[[Tensor], Tensor], start: Tensor, gain: float, rounds: int) -> Tensor:
    """The best parameter `[C, 1, ...]` of `start`, `start - gain * error(start)`, and so on: `rounds` corrections.

    A rate is a staircase, so a correction may overshoot; each channel keeps what gave the least error.

    Args:
        error: mean error of each channel, shape of `start`, for a parameter.
        start: the parameter as it is.
        gain: change of the parameter for one unit of error.
        rounds: corrections that are tried.
    """
    best, now = start, start
    least = left = error(start)
    for _ in range(rounds):
        now = now - gain * left
        left = error(now)
        better = left.abs() < least.abs()
        best, least = torch.where(better, now, best), torch.where(better, left, least)
    return best


def shift_for(site: SweepSite, rounds: int, counts: Tensor | None = None) -> tuple[Tensor, Pieces]:
    """The constant current that gives a neuron layer the mean activation wanted, and its output then.

    Shape `[C, 1, ...]`; or `[C]`, where a neuron has one threshold for each feature of the last dimension.

    Args:
        site: of the layer.
        rounds: simulations; every one corrects what the one before left.
        counts: how much each position of a sample counts, mean 1, `[...]` without channels; None: all alike.
    """
    T, (current,) = site.module.T, site.inputs
    last = by_feature(site.module, current)

    def emitted(i: int, shift: Tensor) -> Tensor:
        now = current[i]
        return site.module((now.reshape(T, -1, *now.shape[1:]) + shift).flatten(0, 1))

    def error(shift: Tensor) -> Tensor:
        return averaged(lambda i: site.sweep.mean(site.node, emitted(i, shift)) - site.wanted[i])

    def seen(value: Tensor) -> Tensor:
        value = value.movedim(-1, 1) if last else value
        return value if counts is None else value * counts.to(value)

    def averaged(of: Callable[[int], Tensor]) -> Tensor:
        found = site.sweep.average(lambda i: seen(of(i)))
        return found.flatten() if last else found

    start = torch.zeros_like(averaged(lambda i: site.wanted[i]))
    shift = settled(error, start, 1.0, rounds)
    return shift, site.sweep.memory.hold(lambda i: emitted(i, shift), current, unit=site.module.height)


def by_feature(neuron: Any, current: Pieces) -> bool:
    """Whether a neuron has a threshold for each feature, the last dimension of its current."""
    return neuron.theta.dim() == 1 and len(size_of(current)) > 2


def average(shards: Shards, of: Callable[[int], Tensor]) -> Tensor:
    """Mean over all samples and positions of `of(i)` `[N, C, ...]`, i a shard: `[C, 1, ...]`, as a threshold has it."""
    total, count, like = shards.total(lambda i: channel_sums(of(i)))
    return (total / count).to(like)


def channel_sums(value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sum over samples and positions of `[N, C, ...]`, `[C, 1, ...]` in float64; how many they are; a 0 of the type."""
    sums = value.double().sum([0, *range(2, value.dim())]).reshape(-1, *[1] * (value.dim() - 2))
    return sums, torch.tensor(value.numel() // len(sums)), torch.zeros((), dtype=value.dtype)


def add_current(graph: fx.GraphModule, node: fx.Node, shift: Tensor) -> None:
    """Adds a constant current `shift` `[C, 1, ...]` at the input of `node`, at every step.

    It goes into the bias of a layer before, where nothing else reads that layer's output; through a sum into one of
    its branches. Elsewhere it becomes an `Affine` in front of `node`.
    """
    source = node.all_input_nodes[0]
    if layer := biased_layer(graph, source, shift):
        sign = -1.0 if layer[1] else 1.0
        module = layer[0]
        bias = torch.zeros(len(module.weight)) if module.bias is None else module.bias
        moved = bias.double() + sign * shift.flatten().double()
        module.bias = torch.nn.Parameter(moved.to(module.weight), requires_grad=False)
        return
    affine = insert(graph, f"{node.name}_current", Affine(torch.ones_like(shift), shift.clone()), source)
    node.replace_input_with(source, affine)


def biased_layer(graph: fx.GraphModule, node: fx.Node, shift: Tensor) -> tuple[Any, bool] | None:
    """A layer whose bias reaches `node`'s value as it is, and whether with a minus sign."""
    if node.op != "call_module" or len(node.users) > 1:
        return None
    module = module_of(graph, node)
    if isinstance(module, Encode | StepCurrent):
        return biased_layer(graph, node.all_input_nodes[0], shift)
    if isinstance(module, Add | Sub):
        for place, source in enumerate(node.all_input_nodes):
            if found := biased_layer(graph, source, shift):
                return found[0], found[1] ^ (place == 1 and isinstance(module, Sub))
        return None
    if isinstance(module, torch.nn.Linear):  # it counts along the last dimension, and so must the shift
        return (module, False) if shift.dim() == 1 and module.out_features == shift.numel() else None
    # One channel may be spread over several in a sum; a transposed layer keeps its outputs elsewhere in its weights.
    fits = isinstance(module, CONVOLUTIONS) and module.out_channels == shift.numel()
    return (module, False) if fits else None
