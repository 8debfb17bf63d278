"""One form for each function: what makes every door give the same graph.

Where the input's shape is known, windows as large as the map become `AdaptiveAvgPool` to 1, shapes that equal a
flattening become `Flatten(1)`, slices and pads lose what does nothing. Where it is not, only what holds for every shape
is done.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import networkx as nx
import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from snnc import dialect
from snnc.errors import Blocker, Unsupported
from snnc.graph import calls, insert, module_of, remove, replace, tidy, view
from snnc.layers import ADAPTIVE_AVERAGE, AVERAGE
from snnc.lowering import author_line, rank_after
from snnc.quantisers import recognise, settle_clips

BATCH = 2
Shape = tuple[int, ...] | None


def canonicalise(
    graph: fx.GraphModule, input_shape: Sequence[int] | None = None, rank: int | None = None
) -> None:
    """Brings every module into its canonical form, in place.

    Args:
        graph: of modules of the dialect.
        input_shape: shape of one sample, where it is known.
        rank: of the input, the batch included, where only that is known.

    Raises:
        Unsupported: the graph does not take samples of that shape.
    """
    facts = Facts(graph, input_shape, rank)
    for node in list(graph.graph.nodes):
        if node.op == "placeholder":
            continue
        if node.op == "call_module":
            _canonical(graph, node, facts)
    tidy(graph)


class Facts:
    """Shapes and ranks of values, computed as they are asked for, since the graph changes meanwhile."""

    def __init__(self, graph: fx.GraphModule, input_shape: Sequence[int] | None, rank: int | None) -> None:
        self.graph = graph
        self.mode = FakeTensorMode(allow_non_fake_inputs=True) if input_shape is not None else None
        self.values: dict[fx.Node, Tensor] = {}
        self.ranks: dict[fx.Node, int | None] = {}
        entry = next(iter(graph.graph.nodes))
        self.ranks[entry] = rank
        if self.mode is not None and input_shape is not None:
            like = next(graph.parameters(), torch.zeros(()))
            with self.mode:
                self.values[entry] = torch.empty((BATCH, *input_shape), dtype=like.dtype, device=like.device)

    def shape(self, node: fx.Node) -> Shape:
        """Shape of one sample of a node's value, or None."""
        if self.mode is None:
            return None
        if node not in self.values:
            self._compute(node)
        return tuple(int(n) for n in self.values[node].shape[1:])

    def _compute(self, node: fx.Node) -> None:
        assert self.mode is not None
        for source in node.all_input_nodes:
            self.shape(source)
        module = module_of(self.graph, node)
        try:
            with self.mode, torch.no_grad():
                self.values[node] = module(*(self.values[n] for n in node.args if isinstance(n, fx.Node)))
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            shapes = ", ".join(str(self.shape(n)) for n in node.all_input_nodes)
            message = (
                f"{node.name} ({type(module).__name__}) does not take samples of shape {shapes}: {error}"
            )
            raise Unsupported(message.split("\n", maxsplit=1)[0], "check --input-shape") from error

    def rank(self, node: fx.Node) -> int | None:
        """Number of dimensions of a node's value, the batch included, or None."""
        shape = self.shape(node)
        if shape is not None:
            return 1 + len(shape)
        if node not in self.ranks:
            self.ranks[node] = rank_after(
                module_of(self.graph, node), [self.rank(n) for n in node.all_input_nodes]
            )
        return self.ranks[node]


def _canonical(graph: fx.GraphModule, node: fx.Node, facts: Facts) -> None:
    """One node. Its inputs are canonical already."""
    module, source = module_of(graph, node), node.all_input_nodes[0]
    if isinstance(module, (*dialect.AVERAGE_POOLS, dialect.Mean)):
        _average(graph, node, module, facts)
    elif isinstance(module, (nn.Flatten, dialect.Reshape)):
        _reshape(graph, node, facts)
    elif isinstance(module, dialect.Slice):
        _slice(graph, node, module, facts)
    elif isinstance(module, dialect.Pad):
        pads = list(module.pads)
        while pads and not any(pads[-2:]):
            del pads[-2:]
        _either(graph, node, dialect.Pad(tuple(pads), module.mode, float(module.value)), not pads)
    elif isinstance(module, dialect.Permute):
        dims = tuple(d % len(module.dims) for d in module.dims)
        _either(graph, node, dialect.Permute(dims), dims == tuple(range(len(dims))))
    elif isinstance(module, dialect.Affine):
        _either(graph, node, module, bool((module.scale == 1).all() and (module.shift == 0).all()))
    elif isinstance(module, nn.Upsample):
        _upsample(graph, node, facts)
    elif isinstance(module, (dialect.Concat, *dialect.HEADS)) and (rank := facts.rank(source)) is not None:
        module.dim = int(module.dim) % rank  # type: ignore[operator, arg-type]


def _either(graph: fx.GraphModule, node: fx.Node, module: nn.Module, useless: bool) -> None:
    """Takes a node out, or gives it `module`."""
    if useless:
        remove(graph, node)
    else:
        replace(graph, node, module)


def _average(graph: fx.GraphModule, node: fx.Node, module: Any, facts: Facts) -> None:
    """Averages over the whole map, however they are spelled."""
    source = node.all_input_nodes[0]
    before, after, rank = facts.shape(source), facts.shape(node), facts.rank(source)
    if isinstance(module, dialect.Mean):
        if rank in (3, 4, 5) and module.dims == tuple(range(2, rank)):
            replace(graph, node, ADAPTIVE_AVERAGE[rank - 2]((1,) * (rank - 2)))
            if not module.keepdim:
                flatten = insert(graph, f"{node.name}_flatten", nn.Flatten(1), node)
                node.replace_all_uses_with(flatten, delete_user_cb=lambda user: user is not flatten)
                facts.values.pop(node, None)
        return
    if before is None or after is None:
        return
    size, dims = before[1:], len(before) - 1
    if isinstance(module, dialect.OwnSizeAvgPool2d):
        window = size[module.dim - 2]
        module = nn.AvgPool2d((window, window), (window, window), (0, 0))
        replace(graph, node, module)
    if type(module) is ADAPTIVE_AVERAGE[dims]:
        plain = True
    else:
        plain = tuple(module.padding) == (0,) * dims and getattr(module, "divisor_override", None) is None
    if plain and after == before:
        remove(graph, node)
    elif plain and getattr(module, "kernel_size", None) == size and set(after[1:]) == {1}:
        replace(graph, node, ADAPTIVE_AVERAGE[dims]((1,) * dims))


def _reshape(graph: fx.GraphModule, node: fx.Node, facts: Facts) -> None:
    """`Flatten(1)` where that is what it does; reshapes in a row become one."""
    module, source = module_of(graph, node), node.all_input_nodes[0]
    before, after = facts.shape(source), facts.shape(node)
    if before is None or after is None:
        if isinstance(module, dialect.Reshape) and module.shape == (-1,):
            replace(graph, node, nn.Flatten(1))
        return
    if math.prod(before) != math.prod(after):
        raise Unsupported(
            f"{node.name} moves values between samples.", "keep the batch as the first dimension"
        )
    while source.op == "call_module" and isinstance(module_of(graph, source), (nn.Flatten, dialect.Reshape)):
        if len(source.users) > 1:
            break
        remove(graph, source)
        source = node.all_input_nodes[0]
        before = facts.shape(source)
    if before == after:
        remove(graph, node)
    else:
        replace(graph, node, nn.Flatten(1) if len(after) == 1 else dialect.Reshape(after))


def _slice(graph: fx.GraphModule, node: fx.Node, module: dialect.Slice, facts: Facts) -> None:
    """Bounds counted from the front, and nothing where the whole dimension is taken; slices in a row become one."""
    source = node.all_input_nodes[0]
    before = facts.shape(source)
    if before is None:
        return
    ranges: list[tuple[int | None, int | None, int | None]] = []
    for size, part in zip(before, [*module.ranges, *[(None, None, None)] * len(before)], strict=False):
        start, stop, step = slice(*part).indices(size)
        whole = start == 0 and stop >= size and step == 1
        ranges.append((None, None, None) if whole else (start, stop, step))
    previous = module_of(graph, source) if source.op == "call_module" and len(source.users) == 1 else None
    if isinstance(previous, dialect.Slice):
        pairs = list(zip(previous.ranges, ranges, strict=True))
        if all((None, None, None) in pair for pair in pairs):
            ranges = [b if a == (None, None, None) else a for a, b in pairs]
            replace(graph, source, dialect.Slice(tuple(ranges)))
            remove(graph, node)
            facts.values.pop(source, None)
            return
    _either(graph, node, dialect.Slice(tuple(ranges)), all(r == (None, None, None) for r in ranges))


def _upsample(graph: fx.GraphModule, node: fx.Node, facts: Facts) -> None:
    """Whole factors as factors; anything else as the author wrote it."""
    before, after = facts.shape(node.all_input_nodes[0]), facts.shape(node)
    if before is None or after is None:
        return
    if before == after:
        remove(graph, node)
    elif all(b % a == 0 for a, b in zip(before[1:], after[1:], strict=True)):
        factors = tuple(float(b // a) for a, b in zip(before[1:], after[1:], strict=True))
        replace(graph, node, nn.Upsample(scale_factor=factors, mode="nearest"))


def finish(
    graph: fx.GraphModule, input_shape: Sequence[int] | None = None, rank: int | None = None
) -> list[Blocker]:
    """What every door does last, in place: canonical forms, quantised activations, and the checks on the whole.

    Args:
        graph: of modules of the dialect, roundings and clips of `snnc.bounds` among them.
        input_shape: shape of one sample, where it is known.
        rank: of the input, the batch included, where only that is known.

    Returns:
        What keeps the network from being converted; nothing where the graph is of stage `ANN`.
    """
    if broken := _not_finite(graph):
        return broken
    canonicalise(graph, input_shape, rank)
    blockers = [*recognise(graph), *settle_clips(graph)]
    if blockers:
        return blockers
    canonicalise(graph, input_shape, rank)
    return _check_whole(graph)


def _not_finite(graph: fx.GraphModule) -> list[Blocker]:
    return [
        Blocker(node.name, type(module).__name__, f"'{name}' holds NaN or infinity", "check the file that it was loaded from")
        for node, module in calls(graph)
        for name, value in module.state_dict().items()
        if value.is_floating_point() and not torch.isfinite(value).all()
    ]  # fmt: skip


def _check_whole(graph: fx.GraphModule) -> list[Blocker]:
    """An activation somewhere, and none after a softmax."""
    output = next(iter(reversed(graph.graph.nodes)))
    kinds = (*dialect.ACTIVATIONS, dialect.ClipQuant)
    last = {node for node, module in calls(graph) if isinstance(module, kinds)}
    if not last:
        why = "the network has no activation, so there would be no neuron: it is linear but for pooling"
        hint = "check that the forward method applies its ReLUs, and train the network with them"
        return [Blocker(output.name, "network", why, hint)]
    below = view(graph)
    return [
        Blocker(
            node.name,
            type(module).__name__,
            "stands before an activation, where only a spike rate can be",
            "keep softmax for the network's output, or leave it out",
            author_line(node),
        )
        for node, module in calls(graph, *dialect.HEADS)
        if last & nx.descendants(below, node)
    ]
