"""Which layers share a grid, and the grid that suits all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import networkx as nx
import torch
from torch import Tensor, fx, nn

from snnc.integers.prepare import producer, readers
from snnc.integers.roles import STILL, Role, role
from snnc.integers.rounding import best_grid, scaled
from snnc.ir.dialect import Add, Concat, Permute, Reshape, Sub, Take
from snnc.ir.graph import calls, enters, module_of
from snnc.ir.shapes import Shape

FACTOR = 2**15 - 1  # largest factor of a branch without weights
FINEST, WEIGHT = 2**16, 127  # units of a threshold or bias at most, where the largest weight is 127 or more
LARGEST = 2**22  # units of a bias at most, for T of which are added up
FINE = 2**7  # units of a spike, and of a threshold behind it, where no weight says how fine a grid should be
UNITS = 2**8  # units that a threshold has at least; the weights before it are then multiples of a power of two


class Populations:
    """The grids of layers and joins.

    A join adds integers, so all its operands share a grid, and so do those of the joins that it feeds directly.
    Together they are a population. A layer that feeds no join is a population by itself. The grid of a population is
    chosen when the walk reaches its first member. There is one for each channel, or a single one if channels are mixed
    later and must be comparable.

    Args:
        graph: prepared.
        shapes: of one sample at each node.
        step: of the input, what one unit of its grid is, `[]` or `[C, 1, ...]`.
        coarser: how often the multiple of a layer or factor was halved, by name, so that a bound holds.

    Attributes:
        multiple: powers of two that divide the weights of a layer, `[outputs]` or `[]`, filled as grids are chosen.
    """

    def __init__(
        self, graph: fx.GraphModule, shapes: dict[str, Shape], step: Tensor, coarser: Mapping[str, int] | None = None
    ) -> None:
        self.graph, self.shapes, self.coarser = graph, shapes, coarser or {}
        joins = nx.Graph()
        for node, _ in calls(graph, Add, Sub):
            joins.add_node(node)
            joins.add_edges_from((node, one) for n in node.all_input_nodes if (one := producer(graph, n)) is not None)
        order = {node: i for i, node in enumerate(graph.graph.nodes)}
        self.members = {
            node: sorted(part, key=order.__getitem__) for part in nx.connected_components(joins) for node in part
        }
        self.chosen: dict[fx.Node, Tensor] = {}
        self.multiple: dict[fx.Node, Tensor] = {}
        self._guesses = self._guess(step)

    def grid(
        self,
        node: fx.Node,
        inputs: Tensor,
        most: dict[fx.Node, int],
        better: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """The grid of a layer's outputs, `[outputs]` or `[]`.

        Args:
            node: a layer with weights, or a factor that feeds a join.
            inputs: grid of its input, as far as it is known by now: `[inputs]` for a layer, `[1, ...]` for a factor.
            most: largest integer weight of each layer, before it is multiplied.
            better: gives a better grid for the weights of `node` from a good one, where no others share it.
        """
        if node not in self.chosen:
            members = self.members.get(node, [node])
            found, factors = self._best(members, node, inputs, most)
            if better and found.dim() and [one for one in members if one in most] == [node]:
                found = better(found)
            found = self._coarse(members, found, most)
            multiple = self._multiple(members, found, most, factors)
            self.multiple.update(dict.fromkeys(members, multiple))
            found = self._snapped(members, found / multiple)
            self.chosen.update(dict.fromkeys(members, found))
        return self.chosen[node]

    def _best(
        self, members: list[fx.Node], first: fx.Node, inputs: Tensor, most: dict[fx.Node, int]
    ) -> tuple[Tensor, list[Tensor]]:
        """The grid of least error, and the sizes `[outputs, n]` of the branches without weights."""
        weighted, factors = [], []
        for node in members:
            module = module_of(self.graph, node)
            given = inputs if node is first else self._guesses.get(node.all_input_nodes[0])
            if given is None:
                continue
            if role(self.graph, node) is Role.LAYER:
                by_input = given if node is first else by_channel(module, given)[0]
                weighted.append((scaled(module, by_input).flatten(2).flatten(0, 1), most[node]))
            elif role(self.graph, node) is Role.FACTOR:
                size = (given * module.scale.double().abs()).expand(1, *self.shapes[node.name])
                factors.append(size[0].flatten(1) if size.dim() > 2 else size[0][:, None])
        lengths = {len(w) for w, _ in weighted} | {len(f) for f in factors}
        if len(lengths) > 1 or any(self.mixed(node) for node in members):
            weighted = [(w.reshape(1, -1), m) for w, m in weighted]
            factors = [f.reshape(1, -1) for f in factors]
        if weighted:
            one = torch.ones((), dtype=torch.float64)
            found = best_grid([(w, one, m) for w, m in weighted] + [(f, one, FACTOR) for f in factors])
        else:
            found = torch.stack([f.amax(1) for f in factors]).amax(0) / FINE
            found = torch.where(found > 0, found, torch.full_like(found, float(found.max()) or 1.0))
        return found[0] if len(found) == 1 else found, factors

    def _thetas(self, members: list[fx.Node]) -> list[Tensor]:
        """Thresholds of the neuron layers that read some members."""
        read = {user for node in members for user in readers(self.graph, node)}
        neurons = [module_of(self.graph, node) for node in read if role(self.graph, node) is Role.NEURON]
        return [neuron.theta.double().flatten() for neuron in neurons]

    def _factored(self, members: list[fx.Node]) -> list[Tensor]:
        """Thresholds behind a factor that reads some members, in the unit of these; 0 where the factor is 0."""
        read = {user for node in members for user in readers(self.graph, node)} - set(members)
        found = []
        for node in (one for one in read if role(self.graph, one) is Role.FACTOR):
            scale: Tensor = module_of(self.graph, node).scale.double().abs()
            for user in readers(self.graph, node):
                if role(self.graph, user) is Role.NEURON:
                    theta = module_of(self.graph, user).theta.double()
                    found.append(torch.where(scale > 0, theta / scale, 0.0).flatten())
        return found

    def _coarse(self, members: list[fx.Node], grid: Tensor, most: dict[fx.Node, int]) -> Tensor:
        """No finer than thresholds and biases ask for: a channel that has next to no weights would be."""
        weights = [most[node] for node in members if node in most]
        units = min(FINEST, FINEST * min(weights, default=WEIGHT) // WEIGHT)
        for value in [*self._thetas(members), *self._factored(members), *self._biases(members)]:
            one = value.reshape(grid.shape) if value.numel() == grid.numel() else value.max()
            grid = torch.maximum(grid, one / units)
        return grid

    def _biases(self, members: list[fx.Node]) -> list[Tensor]:
        """Magnitudes of the biases of members that have some."""
        biases = [getattr(module_of(self.graph, node), "bias", None) for node in members]
        return [bias.double().abs() for bias in biases if bias is not None]

    def _multiple(
        self, members: list[fx.Node], grid: Tensor, most: dict[fx.Node, int], factors: list[Tensor]
    ) -> Tensor:
        """Powers of two, like `grid`, that make the unit fine enough for thresholds, biases and factors."""
        weights = [most[node] for node in members if node in most]
        one = torch.ones_like(grid)
        known = len(factors) == sum(role(self.graph, node) is Role.FACTOR for node in members)
        if not weights or not known:
            return one
        thetas = [t.reshape(grid.shape) if t.numel() == grid.numel() else t.min() for t in self._thetas(members)]
        units = [theta / grid for theta in thetas] or [one * min(weights)]
        power = (UNITS / torch.stack(units).amin(0)).log2().ceil().clamp_max(math.log2(UNITS))
        for size in factors:  # these have to stay below the largest factor
            share = size.amax(1).reshape(grid.shape) / grid
            power = torch.minimum(power, (FACTOR / 2 / share).log2().floor())
        for bias in self._biases(members):  # of a channel without weights, whose threshold is nothing beside it
            one = bias.reshape(grid.shape) if bias.numel() == grid.numel() else bias.max()
            power = torch.minimum(power, (LARGEST / (one / grid)).log2().floor())
        power = power - max(self.coarser.get(node.name, 0) for node in members)
        return torch.exp2(power.clamp_min(0))

    def _snapped(self, members: list[fx.Node], grid: Tensor) -> Tensor:
        """The next coarser grid on which the threshold of the neurons that read it lies, so that its spikes keep it."""
        thetas = self._thetas(members)
        if len(thetas) != 1 or thetas[0].numel() not in (1, grid.numel()):
            return grid
        theta = thetas[0] if grid.dim() else thetas[0][0]
        units = torch.floor(theta / grid)
        return torch.where(units >= 1, theta / units.clamp_min(1), grid)

    def mixed(self, node: fx.Node) -> bool:
        """Whether values of several channels move into one channel before they reach weights or neurons."""
        shape = self.shapes[node.name]
        if isinstance(module_of(self.graph, node), nn.Linear) and len(shape) > 1:
            return True
        for user in node.users:
            kind = role(self.graph, user)
            module = None if kind is None else module_of(self.graph, user)
            passes = kind in STILL | {Role.WALK, Role.STEP, Role.DECODE}
            if isinstance(module, nn.Linear) and len(shape) > 1:
                return True
            if isinstance(module, nn.PixelShuffle) or (isinstance(module, Permute) and module.dims[1] != 1):
                return True
            if isinstance(module, Take) and module.dim % (1 + len(shape)) == 1:  # channels in another order
                return True
            if isinstance(module, Concat) and module.dim != 1:
                return True
            if isinstance(module, Reshape) and len(module.shape) > 1 and self.shapes[user.name][0] != shape[0]:
                return True
            if passes and self.mixed(user):
                return True
        return False

    def _guess(self, step: Tensor) -> dict[fx.Node, Tensor]:
        """Grids `[1, ...]` of values that no layer has a say in, before thresholds are rounded."""
        found: dict[fx.Node, Tensor] = {}
        for node in self.graph.graph.nodes:
            kind = role(self.graph, node)
            module: Any = None if kind is None else module_of(self.graph, node)
            known = [found[source] for source in node.all_input_nodes if source in found]
            shape = self.shapes.get(node.name, ())
            if kind is Role.FACTOR and enters(self.graph, node.all_input_nodes[0]):
                found[node] = step.double().expand(1, *shape)
            elif kind is Role.NEURON:
                found[node] = module.theta.double().expand(1, *shape)
            elif kind is None or len(known) < len(node.all_input_nodes):
                continue
            elif kind in (Role.ROUTE, Role.CONCAT, Role.MAX):
                found[node] = module(*(found[source] for source in node.args if isinstance(source, fx.Node)))
            elif kind in (Role.WALK, Role.STEP, Role.GRID, Role.ENCODE):
                found[node] = known[0] if known[0].shape[1:] == shape else spread(known[0].flatten(2).amax(2)[0], shape)
            elif kind is Role.AVERAGE:
                found[node] = module(known[0]) / _window(self.shapes[node.all_input_nodes[0].name], shape)
        return found


def _window(before: tuple[int, ...], after: tuple[int, ...]) -> float:
    """Roughly how many inputs one output of a pool has."""
    return max(1.0, torch.tensor(before).prod().item() / torch.tensor(after).prod().item())


def spread(grid: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A grid by channel `[C]` at each place of a sample, `[1, C, ...]`."""
    return grid.reshape(1, -1, *[1] * (len(shape) - 1)).expand(1, *shape)


def by_channel(module: Any, grid: Tensor) -> tuple[Tensor, bool]:
    """The grid `[inputs]` of a layer's input, from the grid at each place; and whether it is the same at all places.

    0 stands for values that are always 0, which lie on any grid.
    """
    places = grid.reshape(-1, module.in_features).T if isinstance(module, nn.Linear) else grid[0].flatten(1)
    top = places.amax(1)
    return top, bool(((places == top[:, None]) | (places == 0)).all())
