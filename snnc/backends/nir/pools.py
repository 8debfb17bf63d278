"""Factors past pools: heights of spikes, and the 1/n of average pools that are written as sums."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.calibrate.algebra import inputs_of, scale_inputs
from snnc.ir import dialect
from snnc.ir.dialect import WEIGHTED, Affine
from snnc.ir.graph import calls, insert, module_of, replace
from snnc.ir.rows import Refused
from snnc.ir.shapes import Shape

# What a factor of a channel may be moved past. Rules refuse what reshapes otherwise than by flattening, and means of
# anything but a map.
PASSED = (nn.Flatten, dialect.Reshape, dialect.Mean, *dialect.AVERAGE_POOLS)
Window = tuple[Shape, Shape, Shape]  # kernel, stride, padding


def sum_pools(
    graph: fx.GraphModule, shapes: dict[fx.Node, Shape], window: Callable[[Any, Shape, Shape], Window]
) -> None:
    """Replaces every average pool over two dimensions. In place; what is not one is left for its rule to refuse."""
    for node, module in list(calls(graph, *dialect.AVERAGE_POOLS, dialect.Mean)):
        found = _window(module, shapes[node.all_input_nodes[0]][1:], shapes[node][1:], window)
        if found is None:
            continue
        users = list(node.users)
        replace(graph, node, nn.AvgPool2d(*found, divisor_override=1))  # type: ignore[arg-type]
        end = node
        if isinstance(module, dialect.Mean) and not module.keepdim:
            end = insert(graph, f"{node.name}_flat", nn.Flatten(), node)
            for user in users:
                user.replace_input_with(node, end)
        spread(graph, end, torch.tensor(1 / math.prod(found[0])), "mean")


def _window(module: Any, sizes: Shape, out: Shape, window: Callable[[Any, Shape, Shape], Window]) -> Window | None:
    """Kernel, stride and padding; None where it is no mean over windows of one size."""
    if isinstance(module, dialect.Mean):
        whole = len(sizes) == 2 and sorted(d % 4 for d in module.dims) == [2, 3]
        return (sizes, sizes, (0, 0)) if whole else None
    if len(sizes) != 2 or getattr(module, "divisor_override", None) or getattr(module, "ceil_mode", False):
        return None
    try:
        kernel, stride, padding = window(module, sizes, out)
    except Refused:
        return None
    return None if any(padding) and not getattr(module, "count_include_pad", True) else (kernel, stride, padding)


def spread(graph: fx.GraphModule, node: fx.Node, factor: Tensor, name: str) -> None:
    """Multiplies what others read of a node: in their weights where all have some, else by a layer of its own.

    Args:
        graph: it is changed in place.
        node: whose value is multiplied.
        factor: one number, or `[C, 1, ...]` or `[F]`.
        name: how that layer is called.
    """
    layers = _layers(graph, node)
    if layers is None:
        users = list(node.users)
        new = insert(graph, f"{node.name}_{name}", Affine(factor, torch.zeros_like(factor)), node)
        for user in users:
            user.replace_input_with(node, new)
        return
    for layer in layers:
        scale_inputs(layer, factor.flatten() if factor.numel() > 1 else factor.flatten().expand(inputs_of(layer)))


def _layers(graph: fx.GraphModule, node: fx.Node) -> list[Any] | None:
    """The layers with weights that read a node, past pools and flattening; None where anything else does."""
    found: list[Any] = []
    for user in node.users:
        module = module_of(graph, user) if user.op == "call_module" else None
        if isinstance(module, PASSED):
            behind = _layers(graph, user)
            if behind is None:
                return None
            found += behind
        elif isinstance(module, WEIGHTED):
            found.append(module)
        else:
            return None
    return found
