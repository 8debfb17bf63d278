"""The parts of a spiking graph that can run faster, and how: decided once, from the graph alone.

Two plans give the reference's spikes for different reasons. That of a float network leaves every layer as it is, and
runs neurons in one pass whose roundings are the same. That of a fixed-point network may sum in any order, since every
value is an integer that float32 holds: spikes are bytes, layers multiply 8-bit integers, and what is linear behind the
last neuron runs once, on the sum over time.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, fx, nn

from snnc.errors import VerifyError
from snnc.ir import dialect
from snnc.ir.graph import calls, module_of, phases
from snnc.ir.neurons import IF, OffsetIF
from snnc.ir.proof import prove
from snnc.ir.temporal import Decode, Encode, StepCurrent
from snnc.runtime.counts import COUNTS, MOVES
from snnc.runtime.cpu import integer, scan
from snnc.runtime.cpu.integer import MOST, Layer
from snnc.runtime.gpu import layer as gpu_layer
from snnc.runtime.gpu.layer import GpuLayer
from snnc.runtime.gpu.scan import GpuScan

# What may run once on the sum over time: it is linear.
TAIL = (*dialect.CONVOLUTIONS, nn.Linear, *MOVES, dialect.Add, dialect.Sub, dialect.Affine)


@dataclass(frozen=True)
class Join:
    """What a layer of neurons reads: a current, and perhaps a second value that is added to it.

    Nodes that are `absorbed` do not run; the pass does what they do. With a `layer`, which forms the current, that is
    one of them, and `current` is what it reads.
    """

    scan: scan.Scan
    current: fx.Node
    joined: fx.Node | None = None
    absorbed: tuple[fx.Node, ...] = ()
    layer: GpuLayer | None = None

    @property
    def reads(self) -> list[fx.Node]:
        """The nodes whose values it reads."""
        return [self.current] if self.joined is None else [self.current, self.joined]

    def added(self, current: Tensor, joined: Tensor) -> Tensor:
        """The current with what is added to it, as the modules in front would form it."""
        return current + (joined if self.scan.factor is None else joined.float() * self.scan.factor)


@dataclass
class Plan:
    """How the nodes inside time run; a node that is nowhere below runs as its module does.

    Attributes:
        fixed: whether the network is one of integers.
        bound: nodes whose values are bytes, with the largest value.
        layers: layers on bytes.
        joins: neurons in one pass.
        tail: what is linear behind the last neuron, in 64-bit floats, in order.
        sums: what the tail reads.
    """

    graph: fx.GraphModule
    fixed: bool
    bound: dict[fx.Node, int] = field(default_factory=dict)
    layers: dict[fx.Node, Layer] = field(default_factory=dict)
    joins: dict[fx.Node, Join] = field(default_factory=dict)
    tail: dict[fx.Node, nn.Module] = field(default_factory=dict)
    sums: set[fx.Node] = field(default_factory=set)

    def __str__(self) -> str:
        parts = [f"{len(self.layers)} layers on 8-bit integers"] if self.layers else []
        if self.joins:
            whole = sum(join.layer is not None for join in self.joins.values())
            inside = f", {whole} of them with the layer in front" if whole else ""
            parts.append(f"{len(self.joins)} layers of neurons in one pass{inside}")
        return ", ".join(parts) or "nothing"


def plan(graph: fx.GraphModule, fixed: bool, kind: type[scan.Scan] = scan.Scan) -> Plan:
    """The plan of a spiking graph whose values are all integers (`fixed`), or any numbers.

    `kind` runs the neurons, and decides what runs the layers.
    """
    made = Plan(graph, fixed)
    packed = gpu_layer.packed if kind is GpuScan else integer.packed
    phase = phases(graph)
    inside = [node for node, _ in calls(graph) if phase[node] == "in"]
    if fixed:
        for node in inside:
            _count(made, node)
        for node in inside:
            source = node.all_input_nodes[0]
            if source in made.bound and (layer := packed(module_of(graph, node), node in made.bound)):
                made.layers[node] = layer
        _gather_tail(made, inside)
    for node in inside:
        neuron = module_of(graph, node)
        if type(neuron) in (IF, OffsetIF) and kind.takes(neuron, fixed):
            made.joins[node] = _with_layer(made, _join(made, node, kind))
    return made


def proved(graph: fx.GraphModule) -> bool:
    """Whether every value inside time is an integer that float32 holds."""
    try:
        prove(graph)
    except VerifyError:
        return False
    return all(value.dtype == torch.float32 for value in graph.buffers() if value.is_floating_point())


def _count(made: Plan, node: fx.Node) -> None:
    """Finds whether a node's values are whole numbers from 0 to `MOST`."""
    module = module_of(made.graph, node)
    most = COUNTS.at(node.name, module)(module, [made.bound.get(source) for source in node.all_input_nodes])
    if most is not None and most <= MOST:
        made.bound[node] = most


def _gather_tail(made: Plan, inside: list[fx.Node]) -> None:
    """Finds the linear modules that have no neuron behind them."""
    for node in reversed(inside):
        module = module_of(made.graph, node)
        behind = all(user in made.tail or isinstance(module_of(made.graph, user), Decode) for user in node.users)
        if behind and isinstance(module, TAIL) and getattr(module, "padding_mode", "zeros") == "zeros":
            made.tail[node] = copy.deepcopy(module).double()
    made.tail = dict(reversed(made.tail.items()))
    readers = [*made.tail, *(node for node, _ in calls(made.graph, Decode))]
    made.sums = {source for node in readers for source in node.all_input_nodes if source not in made.tail}


def _join(made: Plan, node: fx.Node, kind: type[scan.Scan]) -> Join:
    """How a layer of neurons forms its current: what only it reads is formed on the way, a sum and steps' currents."""
    neuron, source = module_of(made.graph, node), node.all_input_nodes[0]
    counts = made.fixed and neuron.unit
    if type(neuron) is not IF:
        return Join(kind(neuron, counts), source)
    shift: Tensor | None = None
    taken: tuple[fx.Node, ...] = ()
    if isinstance(module := _alone(made, source), StepCurrent):
        shift, taken, source = module.shift, (source,), source.all_input_nodes[0]
    plain = Join(kind(neuron, counts, shift=shift), source, absorbed=taken)
    if not isinstance(_alone(made, source), dialect.Add) or len(source.all_input_nodes) < 2:
        return plain
    sides = [_factored(made, side) for side in source.all_input_nodes]
    floats = [side for side, (_, factor, _) in zip(source.all_input_nodes, sides, strict=True) if factor is None]
    if not floats or any(isinstance(module_of(made.graph, side), Encode) for side in source.all_input_nodes):
        return plain
    current = floats[0]
    joined, factor, absorbed = sides[1 - source.all_input_nodes.index(current)]
    return Join(kind(neuron, counts, factor, shift), current, joined, (*taken, source, *absorbed))


def _with_layer(made: Plan, join: Join) -> Join:
    """The same with the layer in front, where that and its neurons are one kernel."""
    node, layer = join.current, made.layers.get(join.current)
    if type(join.scan.neuron) is not IF or not isinstance(layer, GpuLayer) or _alone(made, node) is None:
        return join
    absorbed = (*join.absorbed, node)
    whole = layer.firing(join.scan)
    return replace(join, current=node.all_input_nodes[0], absorbed=absorbed, layer=whole) if whole else join


def _alone(made: Plan, node: fx.Node) -> nn.Module | None:
    """The module of a node that has one reader, and no part in the tail."""
    alone = node.op == "call_module" and len(node.users) == 1 and node not in made.sums
    return module_of(made.graph, node) if alone else None


def _factored(made: Plan, node: fx.Node) -> tuple[fx.Node, Tensor | None, tuple[fx.Node, ...]]:
    """A value as bytes times a factor, where it is that, and the node that the neurons then spare."""
    if node in made.bound:
        return node, torch.ones((), dtype=torch.float32, device="cpu"), ()
    module, source = module_of(made.graph, node), node.all_input_nodes[0]
    alone = len(node.users) == 1 and node not in made.sums
    scales = isinstance(module, dialect.Affine) and module.scale.dim() in (0, 3) and not module.shift.any()
    if scales and alone and source in made.bound:
        return source, module.scale, (node,)
    return node, None, ()


def constants(made: Plan) -> set[fx.Node]:
    """Values that all their readers take as constant in time, so that they need not be repeated."""
    readers = {join.current for join in made.joins.values() if join.joined is None}
    return {
        node
        for node, _ in calls(made.graph, Encode)
        if node in readers and node not in made.sums and all(_takes_constant(made, user) for user in node.users)
    }


def _takes_constant(made: Plan, user: fx.Node) -> bool:
    join = made.joins.get(user)
    return join is not None and type(join.scan.neuron) is IF
