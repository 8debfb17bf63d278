"""Counts spikes and synaptic operations while a network runs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.ir.accounting import Rests, driven
from snnc.ir.accounting import operations as products
from snnc.ir.curved import BILINEAR, CURVED
from snnc.ir.dialect import (
    AVERAGE_POOLS,
    ROUTES,
    TRAINED,
    WEIGHTED,
    Add,
    Affine,
    Grid,
    Mean,
    Mix,
    Sub,
)
from snnc.ir.embedding import Embedding
from snnc.ir.graph import calls, module_of, phases
from snnc.ir.neurons import Neuron
from snnc.ir.rows import Refusal, Table
from snnc.ir.temporal import Decode, Encode, Frames, Restart, StepCurrent, Telescoped, TemporalMax


def fan_out(layer: Any, shape: tuple[int, ...]) -> Tensor:
    """Connections that leave each input of a layer, borders counted as they are: `[1, C, ...]` for one sample.

    Its sum is the number of multiply-accumulate operations of the layer.
    """
    ones = copy.deepcopy(layer)
    ones.weight = nn.Parameter(torch.ones_like(layer.weight, dtype=torch.float64), requires_grad=False)
    ones.bias = None
    with torch.enable_grad():
        x = torch.zeros((1, *shape), dtype=torch.float64, device=layer.weight.device, requires_grad=True)
        (grad,) = torch.autograd.grad(ones(x).sum(), x)
    return grad


Unit = Tensor | None
AVERAGED = "Average pools between neurons give values that are no spikes: one addition for each is counted."
MIXED = (
    "Mixes between neurons, such as a resized map, give values that are no spikes: one addition for each is counted."
)
TELESCOPED = "Each number that a curved operation gives counts as one multiply-accumulate a step; most take several."
JOINED = "Joins and factors between neurons are not counted; they cost nothing where they go into weights."


def _none(module: Any, units: Sequence[Unit], shape: Sequence[int]) -> Unit:
    return None


def _spikes(module: Neuron, units: Sequence[Unit], shape: Sequence[int]) -> Unit:
    return module.height.expand(1, *shape)


def _moved(module: Any, units: Sequence[Unit], shape: Sequence[int]) -> Unit:
    known = [unit for unit in units if unit is not None]
    return module(*known) if len(known) == len(units) else None


def _pooled(module: Any, units: Sequence[Unit], shape: Sequence[int]) -> Unit:
    return _moved(module.pool, units, shape)


def _kept(module: Any, units: Sequence[Unit], shape: Sequence[int]) -> Unit:
    return units[0]


@dataclass(frozen=True)
class Cost:
    """What an operation inside time, or behind it, costs.

    Attributes:
        unit: height of one spike at each place of its value, `[1, ...]`, from the module, the heights of its inputs and
            the shape of a sample; None if the value is not a whole number of spikes.
        weights: whether each spike that comes in is an operation on each of its connections.
        left_out: a sentence on what the energy does not count.
    """

    unit: Callable[[Any, Sequence[Unit], Sequence[int]], Unit] = _none
    weights: bool = False
    left_out: str = ""


COSTS: Table[Cost] = Table(
    "costs",
    __name__,
    {
        WEIGHTED: Cost(weights=True),
        Neuron: Cost(_spikes),
        ROUTES: Cost(_moved),
        TemporalMax: Cost(_pooled),
        Restart: Cost(lambda module, units, shape: COSTS(module.body).unit(module.body, units, shape)),
        Decode: Cost(_kept),
        (*AVERAGE_POOLS, Mean): Cost(left_out=AVERAGED),
        Mix: Cost(left_out=MIXED),
        (Add, Sub, Affine): Cost(left_out=JOINED),
        Telescoped: Cost(left_out=TELESCOPED),
        (Encode, Frames, StepCurrent, Grid, Embedding, *CURVED): Cost(),
        TRAINED: Refusal("belongs to a network without spikes", "the network compiled"),
    },
)


@dataclass
class Meter:
    """An observer (`Network.readout(x, observe=meter)`) that adds up what it sees.

    A synaptic operation (SOP) is one nonzero input of a layer inside time, or of the readout, on one of its
    connections, at one step. Layers before the first neuron work on the analog input, once a sample, since their
    current is constant in time; they have no spikes to count. Nor have layers and products that read other values than
    spikes inside time, which are dense at each step (`snnc.ir.accounting.share`). A spike in a product of two values
    counts once for each result that it is part of.

    A negative spike is a spike. A graded spike of k units counts once for each binary digit 1 of k, which adds a
    shifted weight. Behind an average or a join a value is not a whole number of units. It costs as many operations as
    the graded neurons have bits, or one without graded neurons. A first pass counts, like every step.

    Attributes:
        spikes: by neuron layer, over all samples and steps.
        sites: by neuron layer, neurons x samples x steps.
        operations: by layer with weights, synaptic operations over all samples and steps.
        macs: by layer with weights, multiply-accumulates of the ANN for one sample.
    """

    graph: fx.GraphModule
    spikes: dict[str, int] = field(default_factory=dict)
    sites: dict[str, int] = field(default_factory=dict)
    operations: dict[str, float] = field(default_factory=dict)
    macs: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._phase = phases(self.graph)
        self._fans: dict[str, Tensor] = {}
        self._bits = max((getattr(m, "bits", 1) for _, m in calls(self.graph, Neuron)), default=1)
        self._units: dict[fx.Node, Tensor | None] = {}
        self._held: dict[fx.Node, dict[fx.Node, Tensor]] = {}
        self._layers: dict[fx.Node, list[fx.Node]] = {}
        self._driven = driven(self.graph)
        self._rests = Rests(self.graph)
        self._active: dict[fx.Node, tuple[float, tuple[int, ...]]] = {}
        self._factors = {source for node in self._driven for source in node.all_input_nodes if self._product(node)}
        for node, _ in calls(self.graph, *WEIGHTED):
            if self._phase[node] == "in" and node in self._driven:
                self._layers.setdefault(node.all_input_nodes[0], []).append(node)
        self._decodes: dict[fx.Node, list[fx.Node]] = {}
        for node, _ in calls(self.graph, Decode):
            self._decodes.setdefault(node.all_input_nodes[0], []).append(node)

    def __call__(self, node: fx.Node, value: Tensor, steps: int) -> None:
        """See `snnc.runtime.runner.Observer`."""
        self._measure(node, value)
        if node in self._factors:
            self._active[node] = float(self._parts(node, value).sum()), tuple(value.shape)
        if node in self._driven and self._product(node):
            self._multiply(node, value)
        if isinstance(module_of(self.graph, node), Neuron):
            name = node.name
            self.spikes[name] = self.spikes.get(name, 0) + int(self._parts(node, value).sum())
            self.sites[name] = self.sites.get(name, 0) + value.numel()
        for layer in self._layers.get(node, ()):
            self._count(layer, node, value)
        for decode in self._decodes.get(node, ()):
            self._follow(decode, value)

    def _measure(self, node: fx.Node, value: Tensor) -> None:
        """Finds the height of one unit at each place of a node's value, where it has one; only if spikes are graded."""
        self._rests.of(node, value)
        if node in self._units or self._bits == 1:
            return
        module = module_of(self.graph, node)
        units = [self._units.get(source) for source in node.args if isinstance(source, fx.Node)]
        self._units[node] = COSTS.at(node.name, module).unit(module, units, value.shape[1:])

    def _product(self, node: fx.Node) -> bool:
        module = module_of(self.graph, node)
        return isinstance(module, Telescoped) and isinstance(module.body, BILINEAR)

    def _multiply(self, node: fx.Node, value: Tensor) -> None:
        """Counts a product of spikes: each is an addition to every result that it is part of."""
        body, operations = module_of(self.graph, node).body, 0.0
        shapes = [self._active[source][1] for source in node.all_input_nodes]
        self.macs[node.name] = float(products(body, [shape[1:] for shape in shapes], tuple(value.shape[1:])))
        for source in node.args:
            active, shape = self._active[source]  # type: ignore[index]
            operations += active * self.macs[node.name] / math.prod(shape[1:])
        self.operations[node.name] = self.operations.get(node.name, 0.0) + operations

    def _parts(self, node: fx.Node, value: Tensor) -> Tensor:
        """Binary spikes in each entry of a value."""
        active = value != self._rests.of(node, value)
        if self._bits == 1:
            return active
        unit = self._units[node]
        if unit is None:
            return active * self._bits
        whole = torch.where(active, value / unit, 0).abs().round().long()
        return torch.stack([whole >> i & 1 for i in range(self._bits)]).sum(0)

    def _follow(self, node: fx.Node, value: Tensor) -> None:
        """Carries single steps through what lies between the last neuron and the readout layers."""
        self._measure(node, value)
        for user in node.users:
            module = module_of(self.graph, user) if user.op == "call_module" else None
            if module is not None and COSTS.at(user.name, module).weights:
                if user in self._driven:
                    self._count(user, node, value)
            elif module is not None:
                held = self._held.setdefault(user, {})  # a join waits for its other inputs, of the same steps
                held[node] = value
                if len(held) == len(user.all_input_nodes):
                    del self._held[user]
                    self._follow(user, module(*(held[source] for source in user.args if isinstance(source, fx.Node))))

    def _count(self, layer: fx.Node, source: fx.Node, value: Tensor) -> None:
        name = layer.name
        if name not in self._fans:
            self._fans[name] = fan_out(module_of(self.graph, layer), tuple(value.shape[1:]))
            self.macs[name] = float(self._fans[name].sum())
        active = self._parts(source, value).sum(0, dtype=torch.float64)
        self.operations[name] = self.operations.get(name, 0.0) + float((active * self._fans[name][0]).sum())

    def rates(self) -> dict[str, float]:
        """Spikes per neuron and step, by neuron layer."""
        return {name: self.spikes[name] / self.sites[name] for name in self.spikes}
