"""One form for each function: what makes every door give the same graph.

Where the input's shape is known, windows as large as the map become `AdaptiveAvgPool` to 1, shapes that equal a
flattening become `Flatten(1)`, slices and pads lose what does nothing. Where it is not, only what holds for every shape
is done.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import fx, nn

from snnc.capture.bounds import ROUNDINGS, Clamp
from snnc.capture.lowering import StandIn
from snnc.capture.patterns import whole
from snnc.capture.pools import ADAPTIVE_AVERAGE
from snnc.capture.quantisers import merge_clips, recognise
from snnc.capture.routes import ALL, Range
from snnc.capture.values import INPUT, Refused
from snnc.errors import Blocker, Unsupported
from snnc.ir import dialect
from snnc.ir.accounting import curved_inside
from snnc.ir.curved import BENT, Greatest, Least, Normalize
from snnc.ir.embedding import Embedding
from snnc.ir.graph import calls, insert, module_of, remove, replace, tidy
from snnc.ir.rows import Refusal, Table
from snnc.ir.shapes import Shapes
from snnc.ir.temporal import TIME
from snnc.ir.whole import misread


def canonicalise(graph: fx.GraphModule, input_shape: Sequence[int] | None = None, rank: int | None = None) -> None:
    """Brings every module into its canonical form, in place.

    Args:
        graph: of modules of the dialect.
        input_shape: shape of one sample, where it is known.
        rank: of the input, the batch included, where only that is known.

    Raises:
        Unsupported: the graph does not take samples of that shape.
    """
    facts = Shapes.of(graph, input_shape, rank)
    for node in list(graph.graph.nodes):
        if node.op == "call_module":
            try:
                module = module_of(graph, node)
                FORMS(module)(graph, node, module, facts)
            except Refused as refused:
                at = refused.node or node
                raise Unsupported(
                    f"{at.name} ({type(module_of(graph, at)).__name__}) {refused.why}.", refused.hint
                ) from refused
    tidy(graph)


def _either(graph: fx.GraphModule, node: fx.Node, module: nn.Module, useless: bool) -> None:
    """Takes a node out, or gives it `module`."""
    if useless:
        remove(graph, node)
    else:
        replace(graph, node, module)


def _only_before(graph: fx.GraphModule, source: fx.Node, *kinds: type[nn.Module]) -> Any:
    """The module of one of `kinds` at `source`, where nothing else reads it; otherwise None."""
    module = graph._modules.get(str(source.target)) if source.op == "call_module" else None
    return module if isinstance(module, kinds) and len(source.users) == 1 else None


def _is_bias(layer: Any, affine: dialect.Affine) -> bool:
    """Whether an affine adds one number to each output of a layer without a bias; the layer then takes it over."""
    if layer is None or layer.bias is not None or not (affine.scale == 1).all():
        return False
    outputs = layer.weight.shape[1] * layer.groups if isinstance(layer, dialect.TRANSPOSED) else layer.weight.shape[0]
    if affine.shift.shape != (outputs, *[1] * (layer.weight.dim() - 2)) or outputs == 1:
        return False
    layer.bias = nn.Parameter(affine.shift.detach().reshape(-1).clone())
    return True


def _average(graph: fx.GraphModule, node: fx.Node, module: Any, facts: Shapes) -> None:
    """Averages over the whole map, however they are spelled."""
    source = node.all_input_nodes[0]
    before, after, rank = facts.shape(source), facts.shape(node), facts.rank(source)
    if isinstance(module, dialect.Mean):
        if rank in (3, 4, 5) and module.dims == tuple(range(2, rank)):
            replace(graph, node, ADAPTIVE_AVERAGE[rank - 2]((1,) * (rank - 2)))
            if not module.keepdim:
                flatten = insert(graph, f"{node.name}_flatten", nn.Flatten(1), node)
                node.replace_all_uses_with(flatten, delete_user_cb=lambda user: user is not flatten)
                facts.forget(node)
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


def _reshape(graph: fx.GraphModule, node: fx.Node, module: nn.Module, facts: Shapes) -> None:
    """A reshape that flattens becomes `Flatten(1)`; several reshapes in a row become one."""
    source = node.all_input_nodes[0]
    before, after = facts.shape(source), facts.shape(node)
    if before is None or after is None:
        if isinstance(module, dialect.Reshape) and module.shape == (-1,):
            replace(graph, node, nn.Flatten(1))
        return
    if math.prod(before) != math.prod(after):
        raise Unsupported(f"{node.name} moves values between samples.", "keep the batch as the first dimension")
    while source.op == "call_module" and isinstance(module_of(graph, source), (nn.Flatten, dialect.Reshape)):
        if len(source.users) > 1:
            break
        remove(graph, source)
        source = node.all_input_nodes[0]
        before = facts.shape(source)
    if before == after:
        remove(graph, node)
    else:
        replace(graph, node, nn.Flatten(1) if len(after) == 1 and before else dialect.Reshape(after))


def _slice(graph: fx.GraphModule, node: fx.Node, module: dialect.Slice, facts: Shapes) -> None:
    """Bounds counted from the front, and nothing where the whole dimension is taken; slices in a row become one."""
    source = node.all_input_nodes[0]
    before = facts.shape(source)
    if before is None:
        return
    ranges: list[Range] = []
    for size, part in zip(before, [*module.ranges, *[ALL] * len(before)], strict=False):
        start, stop, step = slice(*part).indices(size)
        whole = start == 0 and stop >= size and step == 1
        ranges.append(ALL if whole else (start, stop, step))
    previous = module_of(graph, source) if source.op == "call_module" and len(source.users) == 1 else None
    if isinstance(previous, dialect.Slice):
        pairs: list[tuple[Any, Range]] = list(zip(previous.ranges, ranges, strict=True))
        if all(ALL in pair for pair in pairs):
            ranges = [b if a == ALL else a for a, b in pairs]
            replace(graph, source, dialect.Slice(tuple(ranges)))
            remove(graph, node)
            facts.forget(source)
            return
    _either(graph, node, dialect.Slice(tuple(ranges)), all(r == ALL for r in ranges))


def _upsample(graph: fx.GraphModule, node: fx.Node, module: nn.Upsample, facts: Shapes) -> None:
    """Whole factors as factors; anything else as the author wrote it."""
    before, after = facts.shape(node.all_input_nodes[0]), facts.shape(node)
    if before is None or after is None:
        return
    if before == after:
        remove(graph, node)
    elif all(b % a == 0 for a, b in zip(before[1:], after[1:], strict=True)):
        factors = tuple(float(b // a) for a, b in zip(before[1:], after[1:], strict=True))
        replace(graph, node, nn.Upsample(scale_factor=factors, mode="nearest"))
    elif isinstance(scale := module.scale_factor, float):
        replace(graph, node, nn.Upsample(scale_factor=(scale,) * (len(before) - 1), mode="nearest"))
    elif isinstance(size := module.size, int):
        replace(graph, node, nn.Upsample((size,) * (len(before) - 1), mode="nearest"))


def _pad(graph: fx.GraphModule, node: fx.Node, module: dialect.Pad, facts: Shapes) -> None:
    pads = list(module.pads)
    # Only zeros can be padded in the last dimensions alone: torch's other modes name all that they could reach.
    while pads and not any(pads[-2:] if module.mode == "constant" else pads):
        del pads[-2:]
    _either(graph, node, dialect.Pad(tuple(pads), module.mode, float(module.value)), not pads)


def _take(graph: fx.GraphModule, node: fx.Node, module: dialect.Take, facts: Shapes) -> None:
    """Takes in a row become one; entries in equal steps are a slice."""
    source = node.all_input_nodes[0]
    rank, before = facts.rank(source), facts.shape(source)
    dim, index = module.dim if rank is None else module.dim % rank, module.index
    first = _only_before(graph, source, dialect.Take)
    if first is not None and first.dim == dim and before is not None and int(index.max()) < before[dim - 1]:
        index = first.index[index]
        remove(graph, source)
    steps = set((index[1:] - index[:-1]).tolist()) or {1}
    if len(steps) == 1 and min(steps) > 0:
        start, stop = int(index[0]), int(index[-1]) + 1
        part = dialect.Slice((*[ALL] * (dim - 1), (start, stop, min(steps))))
        replace(graph, node, part)
        _slice(graph, node, part, facts)
    else:
        replace(graph, node, dialect.Take(dim, index))


def _mix(graph: fx.GraphModule, node: fx.Node, module: dialect.Mix, facts: Shapes) -> None:
    """Where each sum is one entry, entries are taken."""
    rank = facts.rank(node)
    dim, weight = module.dim if rank is None else module.dim % rank, module.weight
    chosen = (weight != 0).sum(1).eq(1).all() and weight.sum(1).eq(1).all()
    module = dialect.Mix(dim, weight)
    replace(graph, node, module)
    if chosen:
        taken = dialect.Take(dim, weight.argmax(1))
        replace(graph, node, taken)
        _take(graph, node, taken, facts)


def _permute(graph: fx.GraphModule, node: fx.Node, module: dialect.Permute, facts: Shapes) -> None:
    """Orders in a row become one."""
    source = node.all_input_nodes[0]
    dims = tuple(d % len(module.dims) for d in module.dims)
    first = _only_before(graph, source, dialect.Permute)
    if first is not None:
        dims = tuple(first.dims[d] for d in dims)
        remove(graph, source)
    _either(graph, node, dialect.Permute(dims), dims == tuple(range(len(dims))))


def _affine(graph: fx.GraphModule, node: fx.Node, module: dialect.Affine, facts: Shapes) -> None:
    useless = _is_bias(_only_before(graph, node.all_input_nodes[0], *dialect.WEIGHTED), module)
    _either(graph, node, module, useless or bool((module.scale == 1).all() and (module.shift == 0).all()))


def _along(graph: fx.GraphModule, node: fx.Node, module: Any, facts: Shapes) -> None:
    """A dimension counted from the front."""
    if (rank := facts.rank(node.all_input_nodes[0])) is not None:
        module.dim = int(module.dim) % rank


def _as_it_is(graph: fx.GraphModule, node: fx.Node, module: nn.Module, facts: Shapes) -> None:
    pass


# How each module is brought into its form, in place; its inputs have theirs already.
def _over(graph: fx.GraphModule, node: fx.Node, module: Any, facts: Shapes) -> None:
    if (rank := facts.rank(node.all_input_nodes[0])) is not None:
        module.dims = tuple(sorted(d % rank for d in module.dims))


FORMS: Table[Callable[[fx.GraphModule, fx.Node, Any, Shapes], None]] = Table(
    "forms",
    __name__,
    {
        (*dialect.AVERAGE_POOLS, dialect.Mean): _average,
        (nn.Flatten, dialect.Reshape): _reshape,
        dialect.Slice: _slice,
        dialect.Pad: _pad,
        dialect.Permute: _permute,
        dialect.Take: _take,
        dialect.Mix: _mix,
        dialect.Affine: _affine,
        nn.Upsample: _upsample,
        BENT: _as_it_is,
        (Greatest, Least): _over,
        (dialect.Concat, *dialect.HEADS, Normalize): _along,
        (*dialect.WEIGHTED, *dialect.MAX_POOLS, *dialect.TRAINED, Embedding): _as_it_is,
        (dialect.Add, dialect.Sub, nn.PixelShuffle): _as_it_is,
        (*ROUNDINGS, Clamp, StandIn): _as_it_is,
        (*TIME, dialect.Grid): Refusal("belongs to a spiking network", "the network that it was compiled from"),
    },
)


def finish(graph: fx.GraphModule, input_shape: Sequence[int] | None = None, rank: int | None = None) -> list[Blocker]:
    """Ends every capture, in place: canonical forms, quantised activations, and the checks on the whole graph.

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
    if whole(graph, Shapes.of(graph, input_shape, rank)):
        tidy(graph)
    if any(True for _ in calls(graph, *ROUNDINGS, Clamp)):
        if blockers := recognise(graph):
            return blockers
        canonicalise(graph, input_shape, rank)
    merge_clips(graph)
    tidy(graph)
    return _check_whole(graph)


def remaining(graph: fx.GraphModule, rank: int | None = None) -> list[Blocker]:
    """What `finish` would find in a graph with stand-ins for what has been refused."""
    with suppress(Unsupported):  # where sizes do not fit, for want of those of the stand-ins
        canonicalise(graph, None, rank)
    return [*_not_finite(graph), *recognise(graph), *_check_whole(graph)]


FINITE = "finite weights, such as those of an earlier checkpoint"


def _not_finite(graph: fx.GraphModule) -> list[Blocker]:
    spread = [
        Blocker(node.name, type(module).__name__, "'running_var' is so far below zero that it gives NaN", FINITE)
        for node, module in calls(graph, *dialect.BATCHNORMS)
        if module.running_var is not None and bool((module.running_var + module.eps < 0).any())
    ]
    return spread + [
        Blocker(node.name, type(module).__name__, f"'{name}' holds NaN or infinity", FINITE)
        for node, module in calls(graph)
        for name, value in module.state_dict().items()
        if value.is_floating_point() and not torch.isfinite(value).all()
    ]  # fmt: skip


def _check_whole(graph: fx.GraphModule) -> list[Blocker]:
    """An activation somewhere, or another curved operation that is no pool and no head at the network's output.

    And whole numbers that nothing reads but tables.
    """
    if found := misread(graph):
        return [Blocker(found[0].name, "input", found[1], INPUT)]
    if any(True for _ in calls(graph, *dialect.ACTIVATIONS, dialect.ClipQuant)) or curved_inside(graph):
        return []
    if any(module.reason and module.reason.neuron for _, module in calls(graph, StandIn)):
        return []
    why = "the network has no activation, so there would be no neuron: it is linear but for pooling"
    hint = "check that the forward method applies its activations"
    return [Blocker("output", "network", why, hint)]
