"""The form that integers need: the same network, with a place for every factor, and one division at its end."""

from __future__ import annotations

import copy
import math

import networkx as nx
import torch
from torch import Tensor, fx, nn

from snnc.errors import SnncError
from snnc.integers.roles import LINEAR, STILL, WIDE, Role, role
from snnc.ir.dialect import HEADS, MAX_POOLS, Add, Affine, Mean, Mix, Permute, Reshape, Sub
from snnc.ir.graph import calls, entries, insert, module_of, phases, replace, tidy, view
from snnc.ir.neurons import Neuron
from snnc.ir.shapes import Shape, every_shape
from snnc.ir.temporal import Decode, Encode, Frames, Restart, RunningMax


def prepare(graph: fx.GraphModule, x: Tensor) -> None:
    """Rewrites a spiking graph in place. `x` is one sample or more; only their shape counts.

    1. A mean over dimensions becomes an average pool, and a mix a layer on the last dimension.
    2. What is linear behind the readouts moves into time, so that sums of integers are read out.
    3. A `Affine` that does nothing yet stands on the input, before each operand of a join that has no weights of
       its own, and before each neuron that reads spikes: it will hold a factor.

    Raises:
        SnncError: an operation that cannot be one on integers; says which and why.
    """
    for node, module in calls(graph, Mean):
        _pool_mean(graph, node, module, every_shape(graph, x.shape[1:]))
    for node, module in calls(graph, Mix):
        _layer(graph, node, module, 1 + len(every_shape(graph, x.shape[1:])[node]))
    tidy(graph)
    _read_last(graph)
    source = next((node for node, _ in calls(graph, Frames)), entries(graph)[0])
    _identity(graph, source, list(source.users), "grid")
    for node, _ in calls(graph, Add, Sub):
        for operand in dict.fromkeys(node.all_input_nodes):
            if producer(graph, operand) is None:
                _identity(graph, operand, [node], "factor")
    for node, _ in calls(graph, Neuron):
        (operand,) = node.all_input_nodes
        if not any(role(graph, one) in WIDE for one in origins(graph, operand)):
            _identity(graph, operand, [node], "factor")
    tidy(graph)


def _identity(graph: fx.GraphModule, source: fx.Node, users: list[fx.Node], name: str) -> None:
    node = insert(graph, f"{source.name}_{name}", Affine(torch.tensor(1.0), torch.tensor(0.0)), source)
    if name == "factor":  # behind the layers of the other branches, which say how large it has to be
        users[0].prepend(node)
    for user in users:
        user.replace_input_with(source, node)


def through(graph: fx.GraphModule, node: fx.Node) -> fx.Node:
    """The node whose value `Encode` repeats, or the node itself."""
    while role(graph, node) is Role.ENCODE:
        node = node.all_input_nodes[0]
    return node


def producer(graph: fx.GraphModule, operand: fx.Node) -> fx.Node | None:
    """The layer or join that gives an operand, and can take the grid of the join; None where there is none.

    A layer that reads the operand too would multiply integers that are as wide as sums: then it keeps its own grid.
    """
    node = through(graph, operand)
    if role(graph, node) not in WIDE:
        return None
    return None if any(role(graph, n) is Role.LAYER for n in readers(graph, node)) else node


def readers(graph: fx.GraphModule, node: fx.Node) -> set[fx.Node]:
    """Nodes that read a value, also by way of routes, pools and `Encode`."""
    found: set[fx.Node] = set()
    for user in node.users:
        if (kind := role(graph, user)) is not None:
            found |= readers(graph, user) if kind in STILL | {Role.STEP} else {user}
    return found


def origins(graph: fx.GraphModule, node: fx.Node) -> set[fx.Node]:
    """Where a value comes from, behind routes, pools and `Encode`."""
    passes = role(graph, node) in STILL | {Role.WALK, Role.STEP}
    return set().union(*(origins(graph, one) for one in node.all_input_nodes)) if passes else {node}


def _pool_mean(graph: fx.GraphModule, node: fx.Node, module: Mean, known: dict[fx.Node, Shape]) -> None:
    """A mean over dimensions as an average pool over their positions, laid out in a row."""
    source = node.all_input_nodes[0]
    shape, out = known[source], known[node]
    taken = sorted(d % (len(shape) + 1) for d in module.dims)
    kept = [d for d in range(1, len(shape) + 1) if d not in taken]
    window = math.prod(shape[d - 1] for d in taken)
    rows = math.prod(shape[d - 1] for d in kept)
    for name, one in (
        ("order", Permute((0, *kept, *taken))),
        ("rows", Reshape((rows, window))),
        ("mean", nn.AvgPool1d(window)),
    ):
        source = insert(graph, f"{node.name}_{name}", one, source)
    replace(graph, node, Reshape(out))
    node.replace_input_with(node.all_input_nodes[0], source)


def _layer(graph: fx.GraphModule, node: fx.Node, module: Mix, rank: int) -> None:
    """A mix as a linear layer, with its dimension as the last one."""
    source, dim = node.all_input_nodes[0], module.dim % rank
    layer = nn.Linear(module.weight.shape[1], module.weight.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(module.weight.clone(), requires_grad=False)
    if dim == rank - 1:
        replace(graph, node, layer)
        return
    swapped = list(range(rank))
    swapped[dim], swapped[-1] = rank - 1, dim
    source = insert(graph, f"{node.name}_last", Permute(tuple(swapped)), source)
    source = insert(graph, f"{node.name}_layer", layer, source)
    replace(graph, node, Permute(tuple(swapped)))
    node.replace_input_with(node.all_input_nodes[0], source)


def _read_last(graph: fx.GraphModule) -> None:
    """Moves readouts behind all that is linear. A max pool on the way becomes one in time."""
    phase = phases(graph)
    net = view(graph)
    after = {node for node, at in phase.items() if at == "after" and node.op == "call_module"}
    decodes: dict[fx.Node, Decode] = dict(calls(graph, Decode))
    linear = {node for node in after if role(graph, node) in LINEAR}
    moved = linear.union(*(nx.ancestors(net, node) & after for node in linear)) - set(decodes)
    pattern = next(iter(decodes.values()))
    encoded: dict[fx.Node, fx.Node] = {}
    for node in [one for one in graph.graph.nodes if one in moved]:
        module = module_of(graph, node)
        if isinstance(module, HEADS):
            raise SnncError(f"'{node.name}' ({type(module).__name__}) has layers behind it.", "the network up to there")
        if isinstance(module, MAX_POOLS):
            running = RunningMax(pattern.T, module)
            replace(graph, node, Restart(pattern.T, running, pattern.skip) if pattern.skip else running)
        for source in node.all_input_nodes:
            if source in decodes:
                node.replace_input_with(source, source.all_input_nodes[0])
            elif phase[source] == "before":
                if source not in encoded:
                    encoded[source] = insert(graph, f"{source.name}_encode", Encode(pattern.T), source)
                node.replace_input_with(source, encoded[source])
        if users := [user for user in node.users if user not in moved]:
            read = insert(graph, f"{node.name}_decode", copy.deepcopy(pattern), node)
            for user in users:
                user.replace_input_with(node, read)
    tidy(graph)
