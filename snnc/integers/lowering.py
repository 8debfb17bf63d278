"""One walk through a prepared graph that makes every number in it an integer.

Besides its integers a value has a grid: the real value of one unit at each place of a sample. A module without weights
(routes, pools, `Encode`) acts on the grid as on the value. A layer absorbs the grid of its input and chooses that of
its output; the operands of a join share theirs. A neuron's spikes stand for theta units of the grid of its current.

With data the network of real numbers runs alongside, and each layer makes up for the errors of the layers before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.calibrate.holding import Memory, size_of
from snnc.calibrate.limit import sharded
from snnc.calibrate.regression import covariance, equations
from snnc.calibrate.sweep import average
from snnc.errors import SnncError
from snnc.integers.pools import sums
from snnc.integers.populations import FACTOR, FINE, Populations, by_channel, spread
from snnc.integers.prepare import origins, readers
from snnc.integers.roles import Role, role
from snnc.integers.rounding import WIDEST, back, nearest, rounded, scaled
from snnc.integers.shifts import take_away
from snnc.integers.values import ROOM, Value, compact, finer, reach
from snnc.ir.curved import BENT
from snnc.ir.dialect import (
    AVERAGE_POOLS,
    HEADS,
    MAX_POOLS,
    ROUTES,
    TRAINED,
    WEIGHTED,
    Add,
    Affine,
    Grid,
    Mean,
    Mix,
    Pad,
    Sub,
)
from snnc.ir.embedding import Embedding
from snnc.ir.graph import calls, enters, insert, module_of, phases, replace
from snnc.ir.neurons import NEURONS, Neuron
from snnc.ir.rows import Refusal, Table
from snnc.ir.shapes import Shape
from snnc.ir.temporal import Decode, Encode, Frames, Restart, StepCurrent, Telescoped, TemporalMax
from snnc.processes import Pieces

COARSE = 2**18  # units of a threshold; where it would have more, what is added up to it does not count


@dataclass
class IntegerLowering:
    """Lowers `graph` in place.

    Attributes:
        graph: prepared.
        shapes: of one sample, by node.
        grid: of the input.
        x: samples `[N, ...]`.
        data: False if only the shape of `x` counts; then every number is rounded by itself.
        bits: of a weight.
        less: bits that a layer has fewer, by name.
        coarser: how often the unit of a layer's outputs was made twice as coarse, by name.
        positions: equations that say how the inputs of a layer vary.
        seed: of their draw.
        limit: bytes that the process may hold meanwhile; None: what it holds, and half of what is free.
        thetas: least threshold of each neuron layer, filled by the walk.
    """

    graph: fx.GraphModule
    shapes: dict[str, Shape]
    grid: Grid
    x: Tensor
    data: bool
    bits: int
    less: dict[str, int]
    coarser: dict[str, int]
    positions: int
    seed: int
    limit: float | None = None
    thetas: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.phase = phases(self.graph)
        self.decode: Decode = next(module for _, module in calls(self.graph, Decode))
        self.values: dict[fx.Node, Value] = {}
        self.populations = Populations(self.graph, self.shapes, 1 / self.grid.scale.double(), self.coarser)
        self.most = {
            node: 2 ** (self.bits - self.less.get(node.name, 0) - 1) - 1 for node, _ in calls(self.graph, *WEIGHTED)
        }
        self.weighted = {n for n, _ in calls(self.graph, Neuron) if self._weighted(n.all_input_nodes[0])}
        largest = 4 * max(math.prod(shape) for shape in self.shapes.values()) * self.decode.T
        self.shards = sharded(len(self.x), largest)
        self.memory = Memory.of(self.limit, largest * self.shards.sizes[0])
        self.generator = torch.Generator().manual_seed(self.seed)

    @torch.no_grad()
    def run(self, track: Callable[..., Iterator[Any]]) -> None:
        """Walks through the graph."""
        nodes = list(self.graph.graph.nodes)
        last = {source: node for node in nodes for source in node.all_input_nodes}
        for node in track(nodes, "rounding"):
            if node.op == "placeholder":
                nothing = torch.ones_like(self.x[:1], dtype=torch.float64)
                given = self.shards.deal(self.x)
                self.values[node] = Value(given, given, nothing, nothing)
            elif node.op == "output":
                for source in node.all_input_nodes:
                    self._leave(node, source)
            else:
                self.values[node] = self._visit(node, module_of(self.graph, node))
            for source in node.all_input_nodes:
                if last.get(source) is node:
                    self.values.pop(source, None)

    def mean(self, node: fx.Node, value: Pieces) -> Pieces:
        """Mean over the steps that are read, of what stands within time at a node."""
        return self.memory.each(self.decode, value) if self.phase[node] == "in" else value

    def _visit(self, node: fx.Node, module: Any) -> Value:
        return INTEGERS.at(node.name, module)(self, node, module)

    def _sources(self, node: fx.Node) -> list[Value]:
        return [self.values[source] for source in node.args if isinstance(source, fx.Node)]

    def _run(self, node: fx.Node, module: Any) -> tuple[Pieces, Pieces, tuple[int, ...]]:
        """What a module without weights gives, in real numbers and in integers, and the shape of that."""
        sources = self._sources(node)
        real, whole = (
            self.memory.each(module, *(v.real for v in sources)),
            self.memory.each(module, *(v.whole for v in sources)),
        )
        return real, whole, tuple(size_of(whole)[1:])

    # What has no weights

    def _average(self, node: fx.Node, module: Any) -> Value:
        (one,) = self._sources(node)
        real = self.memory.each(module, one.real)
        layer, share = sums(node.name, module, next(iter(one.whole.values())))
        replace(self.graph, node, layer)
        whole, size = self.memory.each(layer, one.whole), layer(one.size.to(self.x)).double()
        return Value(real, whole, spread(self._by_channel(node, one.grid), size.shape[1:]) * share, size)

    def _join(self, node: fx.Node, module: Any) -> Value:
        """The operands of a join have one grid; one that is always 0 has any."""
        real, whole, shape = self._run(node, module)
        one, other = self._sources(node)
        a, b = (value.grid.expand(1, *shape) for value in (one, other))
        if not bool(((a == b) | (a == 0) | (b == 0)).all()):
            raise SnncError(f"'{node.name}' adds values of several grids.")
        return Value(real, whole, torch.maximum(a, b), (one.size + other.size).expand(1, *shape))

    def _maximum(self, node: fx.Node, module: Any) -> Value:
        real, whole, shape = self._run(node, module)
        (one,) = self._sources(node)
        size = one.size.amax().expand(1, *shape)
        return Value(real, whole, spread(self._by_channel(node, one.grid), shape), size)

    def _route(self, node: fx.Node, module: Any) -> Value:
        real, whole, _ = self._run(node, module)
        sources = self._sources(node)
        return Value(real, whole, module(*(v.grid for v in sources)), module(*(v.size for v in sources)))

    def _pad(self, node: fx.Node, module: Pad) -> Value:
        if module.mode == "constant" and module.value:
            raise SnncError(f"'{node.name}' pads with {module.value:g}, which is on no grid.", "padding with zeros")
        return self._route(node, module)

    def _border(self, node: fx.Node, module: Any) -> Value:
        real, whole, _ = self._run(node, module)
        (one,) = self._sources(node)
        return Value(real, whole, one.grid, one.size)

    def _frames(self, node: fx.Node, module: Frames) -> Value:
        real, whole, _ = self._run(node, module)
        (one,) = self._sources(node)
        return Value(real, whole, one.grid[:, 0], one.size[:, 0])

    def _head(self, node: fx.Node, module: Any) -> Value:
        return self._leave(node, node.all_input_nodes[0])

    def _leave(self, node: fx.Node, source: fx.Node) -> Value:
        """The last factor, from integers to the unit of an output, before it or a head."""
        value = self.values[source]
        if role(self.graph, source) is not Role.HEAD:
            unit = value.grid[0].to(self.x)
            unit = unit.flatten()[0] if bool((unit == unit.flatten()[0]).all()) else unit
            factor = insert(self.graph, f"{source.name}_unit", Affine(unit.clone(), torch.zeros_like(unit)), source)
            node.replace_input_with(source, factor)
        return value

    def _by_channel(self, node: fx.Node, grid: Tensor) -> Tensor:
        """A grid by channel `[C]`, for values that are compared or added within a channel."""
        places = grid[0].flatten(1) if grid.dim() > 2 else grid[0][:, None]
        top = places.amax(1)
        if not bool(((places == top[:, None]) | (places == 0)).all()):
            raise SnncError(
                f"'{node.name}' brings values of one channel together that lie on several grids.",
                "thresholds that all channels share (scale-thresholds.per=layer)",
            )
        return top

    # Layers

    def _layer(self, node: fx.Node, module: Any) -> Value:
        value, inputs = self._inputs(node, module)
        weights = scaled(module, inputs)
        real = self.memory.each(module, value.real)
        rows, most = weights.flatten(2), self.most[node]
        gram = self._covariance(node, module, value.whole, real)
        better = partial(nearest, rows, most=most, gram=gram) if gram is not None else None
        outputs = rows.shape[0] * rows.shape[1]
        grid = self.populations.grid(node, inputs, self.most, better).expand(outputs)
        multiple = self.populations.multiple[node].expand(outputs).reshape(*rows.shape[:2], 1)
        whole = multiple * rounded(rows / (multiple * grid.reshape(multiple.shape)), most, gram)
        bias = torch.zeros_like(grid) if module.bias is None else (module.bias.double() / grid).round()
        module.weight = nn.Parameter(back(module, whole.reshape(weights.shape)).to(self.x), requires_grad=False)
        module.bias = nn.Parameter(bias.to(self.x), requires_grad=False)
        done = Value(real, self.memory.each(module, value.whole), grid, reach(module, value.size))
        flat = [1] * (len(done.shape) - 1)
        done.grid = grid.reshape((1, *flat, -1) if isinstance(module, nn.Linear) else (1, -1, *flat)).expand(
            1, *done.shape
        )
        return done

    def _covariance(self, node: fx.Node, module: Any, whole: Pieces, real: Pieces) -> Tensor | None:
        """Covariance `[groups, n, n]` of a layer's inputs, of their means over time."""
        if not self.data:
            return None
        (source,) = node.all_input_nodes
        fed, given = self.mean(source, whole), self.mean(node, real)
        drawn = equations(module, fed, given, self.shards, self.positions, self.generator)
        if drawn is None or any(X.shape[2] > WIDEST for X, _, _ in drawn.values()):
            return None
        gram = covariance(drawn, self.shards)
        return gram if gram.any() else None

    def _inputs(self, node: fx.Node, module: Any) -> tuple[Value, Tensor]:
        """The input of a layer, and its grid by input channel (or feature).

        Narrow values of several grids in one channel are put on one, by an integer factor at each place.
        """
        (source,) = node.all_input_nodes
        value = self.values[source]
        top, alike = by_channel(module, value.grid)
        if alike:
            return value, top
        if float(value.size.max()) > FINE:
            raise SnncError(
                f"'{node.name}' reads sums of several grids in one channel.",
                "thresholds that all channels share (scale-thresholds.per=layer)",
            )
        top = torch.where(top > 0, top, top.max()) / ROOM
        shape = tuple(value.grid.shape[1:])
        grid = top.expand(1, *shape) if isinstance(module, nn.Linear) else spread(top, shape)
        factor = (value.grid / grid).round()
        affine = Affine(factor[0].to(self.x), torch.zeros_like(factor[0]).to(self.x))
        added = insert(self.graph, f"{source.name}_level", affine, source)
        node.replace_input_with(source, added)
        self.phase[added] = self.phase[source]
        self.values[added] = Value(value.real, self.memory.each(affine, value.whole), grid, value.size * factor)
        return self.values[added], top

    def _entry(self, node: fx.Node, value: Value) -> Value:
        """The input, put on its grid."""
        replace(self.graph, node, self.grid)
        step = (1 / self.grid.scale.double()).expand(1, *value.shape)
        ends = torch.full_like(step, float(max(-self.grid.low, self.grid.high)))
        return Value(value.real, self.memory.each(self.grid, value.whole), step, ends)

    def _affine(self, node: fx.Node, module: Affine) -> Value:
        """Folds the factor into the grid where it may choose one; multiplies by an integer where a join shares one."""
        (value,) = self._sources(node)
        if enters(self.graph, node.all_input_nodes[0]):
            return self._entry(node, value)
        real = self.memory.each(module, value.real)
        shape = tuple(size_of(real)[1:])
        scale, shift = (v.double().expand(1, *shape) for v in (module.scale, module.shift))
        step = value.grid.expand(1, *shape) * scale.abs()
        size = value.size.expand(1, *shape)
        if node in self.populations.members:
            chosen = self.populations.grid(node, value.grid, self.most)
            grid = chosen.expand(1, *shape) if chosen.dim() == 0 else spread(chosen, shape)
            factor = (step / grid).round().clamp_max(FACTOR)
        else:
            factor = self._fineness(node, module, step, size, shift)
            grid = step / factor
            # A factor near nothing (a channel that normalisation has switched off) would make the grid too fine.
            theta = self._thresholds(node, shape)
            idle = (theta / grid > COARSE) | (step == 0)
            other = torch.where(shift == 0, theta, torch.maximum(theta, shift.abs())) / FINE
            grid, factor = torch.where(idle, other, grid), torch.where(idle, 0.0, factor)
        factor = factor * scale.sign()
        added = (shift / grid).round()
        factor, added = (compact(v[0]).to(self.x) for v in (factor, added))
        replace(self.graph, node, Affine(factor, added))
        whole = self.memory.each(module_of(self.graph, node), value.whole)
        return Value(real, whole, grid, size * factor.double().abs() + added.double().abs())

    def _fineness(self, node: fx.Node, module: Affine, step: Tensor, size: Tensor, shift: Tensor) -> Tensor:
        """Powers of two that a narrow value is multiplied by, so that shifts and thresholds are not coarse."""
        reads = any(role(self.graph, user) is Role.NEURON for user in readers(self.graph, node))
        if not reads and not module.shift.any():
            return torch.ones_like(step)
        fine = finer(size + torch.where(step > 0, shift.abs() / step, 0.0)).clamp(1, FINE)
        return (fine / 2 ** self.less.get(node.name, 0)).clamp_min(1).floor()

    def _thresholds(self, node: fx.Node, shape: tuple[int, ...]) -> Tensor:
        """Thresholds of the neurons that read a value; 1 where there are none."""
        for user in readers(self.graph, node):
            module = module_of(self.graph, user)
            if role(self.graph, user) is Role.NEURON and self.shapes.get(user.name) == shape:
                return module.theta.double().expand(1, *shape)
        return torch.ones((1, *shape), dtype=torch.float64)

    def _stepped(self, node: fx.Node, module: StepCurrent) -> Value:
        (value,) = self._sources(node)
        real = self.memory.each(module, value.real)
        grid = self._by_channel(node, value.grid)
        unit = torch.where(grid > 0, grid, 1.0).reshape(-1, *[1] * (module.shift.dim() - 2))
        module.shift = (module.shift.double() / unit).round().to(self.x)
        size = value.size + module.shift.double().abs().amax(0)
        return Value(real, self.memory.each(module, value.whole), value.grid, size)

    # Neurons

    def _weighted(self, source: fx.Node) -> bool:
        """Whether a current has passed weights: spikes as such have no error to correct, and ties that must stay."""
        found = {one: role(self.graph, one) for one in origins(self.graph, source)}
        return any(kind in (Role.LAYER, Role.JOIN) for kind in found.values()) or any(
            self._weighted(one.all_input_nodes[0]) for one, kind in found.items() if kind is Role.FACTOR
        )

    def _neuron(self, node: fx.Node, module: Neuron) -> Value:
        (source,) = node.all_input_nodes
        value = self.values[source]
        shape = value.shape
        grid = self._by_channel(node, value.grid)
        grid = torch.where(grid > 0, grid, module.theta.double().max() / FINE).reshape(-1, *[1] * (len(shape) - 1))
        real = self.memory.each(module, value.real)
        v0, whole = module.v0.double(), value.whole
        if self.data and node in self.weighted:
            fed, wanted = (self.mean(source, part) for part in (whole, value.real))
            error = average(self.shards, fed.__getitem__).double() * grid - average(self.shards, wanted.__getitem__)
            units = (error / grid).round()
            left = error
            if take_away(self.graph, node, units):
                whole = self.memory.each(Affine(torch.ones(()), -units.to(self.x)), whole)
                left = error - units * grid
            room = module.theta.double() / 2
            v0 = v0 - (module.T * left).clamp(-room, room)
        theta = (module.theta.double() / grid).round().clamp_min(1)
        module.unit = True
        module.theta, module.v0 = theta.to(self.x), (v0 / grid).round().expand(theta.shape).to(self.x)
        self.thetas[node.name] = int(theta.min())
        low, high = module.reach()
        spikes = torch.full((1, *shape), float(max(-low, high)), dtype=torch.float64)
        return Value(real, self.memory.each(module, whole), (theta * grid).expand(1, *shape), spikes)


INTEGERS: Table[Callable[[IntegerLowering, fx.Node, Any], Value]] = Table(
    "integers",
    __name__,
    {
        WEIGHTED: IntegerLowering._layer,
        Affine: IntegerLowering._affine,
        NEURONS: IntegerLowering._neuron,
        StepCurrent: IntegerLowering._stepped,
        HEADS: IntegerLowering._head,
        AVERAGE_POOLS: IntegerLowering._average,
        (Add, Sub): IntegerLowering._join,
        (TemporalMax, Restart, *MAX_POOLS): IntegerLowering._maximum,
        ROUTES: IntegerLowering._route,
        Pad: IntegerLowering._pad,
        (Encode, Decode): IntegerLowering._border,
        Frames: IntegerLowering._frames,
        Mean: Refusal("is a mean of which nothing made a pool", "prepare before it"),
        Mix: Refusal("mixes entries, of which nothing made a layer", "prepare before it"),
        (*BENT, Telescoped): Refusal(
            "gives no integers that every runtime would agree on",
            "the network without fixed-point, or trained with ReLU in its place",
        ),
        Embedding: Refusal(
            "looks a table up, whose rows lie on no grid of the input", "the network without fixed-point"
        ),
        Grid: Refusal("puts on a grid what is on one already", "a network of real numbers"),
        TRAINED: Refusal("does not spike, and only spikes are integers", "insert-neurons before fixed-point"),
    },
    exact=Neuron,  # one of somebody's own may multiply its potential, which no integer survives
)
