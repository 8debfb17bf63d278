"""Curved operations that exporters and authors take apart, as one module again.

A chain of operations computes the same. But in time each factor of a product would be encoded as spikes by itself,
and a whole activation or normalisation is exact.
"""

from __future__ import annotations

import math
from typing import Any

from torch import fx, nn

from snnc.ir import dialect
from snnc.ir.curved import Product, Quotient, Unary
from snnc.ir.graph import calls, insert, module_of, remove
from snnc.ir.shapes import Shapes

CLOSE = 1e-4  # of constants that files hold in float32, or authors wrote to a few digits


def whole(graph: fx.GraphModule, facts: Shapes) -> int:
    """Puts one module in the place of every chain that is known, in place; gives how many."""
    found = 0
    for node, module in list(calls(graph, Product, Quotient)):
        if str(node.target) not in graph._modules or len(node.args) != 2:
            continue
        made = _gate(graph, node) if isinstance(module, Product) else None
        made = made or _norm(graph, node, facts)
        if made is not None:
            source, new = made
            one = insert(graph, f"{node.name}_whole", new, source)
            node.replace_all_uses_with(one)
            graph.graph.erase_node(node)
            delattr(graph, str(node.target))
            facts.forget(node)
            found += 1
    return found


def _module(graph: fx.GraphModule, node: Any, *kinds: type[nn.Module]) -> Any:
    """The module of one of some kinds that a node calls, or None."""
    module = module_of(graph, node) if isinstance(node, fx.Node) and node.op == "call_module" else None
    return module if isinstance(module, kinds) else None


def _line(graph: fx.GraphModule, node: Any) -> tuple[Any, float, float]:
    """What a node is a multiple of, the factor, and what is added: numbers alone; 1 and 0 where there are none."""
    scale, shift = 1.0, 0.0
    while (affine := _module(graph, node, dialect.Affine)) and affine.scale.numel() == 1 and affine.shift.numel() == 1:
        shift += scale * float(affine.shift)
        scale *= float(affine.scale)
        node = node.args[0]
    return node, scale, shift


def _is(a: float, b: float) -> bool:
    return abs(a - b) <= CLOSE * max(1.0, abs(b))


def _gate(graph: fx.GraphModule, node: Any) -> tuple[fx.Node, nn.Module] | None:
    """`x f(x)`, for the f of SiLU, hard swish and GELU."""
    for a, b in (node.args, node.args[::-1]):
        gate, scale, shift = _line(graph, b)
        for x, outer, rest in ((a, 1.0, 0.0), _line(graph, a)):
            if rest == 0 and (found := _gated(graph, x, gate, scale, shift)) is not None:
                made, whole_factor = found
                if _is(outer * whole_factor, 1.0) or _later(graph, node, outer * whole_factor):
                    return x, made
    return None


def _gated(graph: fx.GraphModule, x: Any, gate: Any, scale: float, shift: float) -> tuple[nn.Module, float] | None:
    """The module of which `x (scale gate + shift)` is a multiple, and of what factor."""
    if isinstance(gate, fx.Node) and gate.args and gate.args[0] is x and not shift:
        if _module(graph, gate, nn.Sigmoid):
            return nn.SiLU(), scale
        if _module(graph, gate, nn.Hardsigmoid):
            return nn.Hardswish(), scale
    if (clip := _module(graph, gate, nn.Hardtanh)) and (clip.min_val, clip.max_val) in ((0.0, 6.0), (0.0, 1.0)):
        inner, slope, start = _line(graph, gate.args[0])
        top = clip.max_val
        if inner is x and _is(slope, top / 6) and _is(start, top / 2) and not shift:
            return nn.Hardswish(), scale * top
    erf = _module(graph, gate, Unary)
    if erf is not None and erf.kind == "erf" and _is(scale, shift):
        inner, slope, start = _line(graph, gate.args[0])
        if inner is x and _is(slope, math.sqrt(0.5)) and not start:
            return nn.GELU(), 2 * scale
    return None


def _later(graph: fx.GraphModule, node: fx.Node, factor: float) -> bool:
    """Whether what reads a product alone divides it by `factor`; if so, that is taken out."""
    user = next(iter(node.users)) if len(node.users) == 1 else None
    affine = _module(graph, user, dialect.Affine)
    if user is None or affine is None or affine.scale.numel() != 1 or affine.shift.any():
        return False
    if not _is(float(affine.scale) * factor, 1.0):
        return False
    remove(graph, user)
    return True


MEANS = (dialect.Mean, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)


def _mean_of(graph: fx.GraphModule, node: Any, facts: Shapes) -> tuple[Any, int]:
    """What a node is the mean of over the last dimensions, which are kept, and over how many of these; 0 for none."""
    module = _module(graph, node, *MEANS)
    if module is None:
        return None, 0
    before, after = facts.shape(node.args[0]), facts.shape(node)
    if before is None or after is None or len(before) != len(after):
        return None, 0
    rank = len(before)
    kept = next((d for d in range(rank) if before[d] != after[d]), rank)
    over_all = after == (*before[:kept], *[1] * (rank - kept)) and kept < rank
    return (node.args[0], rank - kept) if over_all else (None, 0)


def _norm(graph: fx.GraphModule, node: Any, facts: Shapes) -> tuple[fx.Node, nn.Module] | None:
    """`(x - mean) / sqrt(variance + eps)` and `x / sqrt(mean square + eps)` over the last dimensions."""
    pairs: list[tuple[Any, Any]] = []
    if _module(graph, node, Quotient):
        root = _module(graph, node.args[1], Unary)
        pairs = [(node.args[0], node.args[1])] if root is not None and root.kind == "sqrt" else []
    else:
        for a, b in (node.args, node.args[::-1]):
            root = _module(graph, b, Unary)
            if root is not None and root.kind == "rsqrt":
                pairs.append((a, b))
            elif root is not None and root.kind == "reciprocal":
                under = _module(graph, b.args[0], Unary)
                pairs += [(a, b.args[0])] if under is not None and under.kind == "sqrt" else []
    for top, root in pairs:
        mean, scale, eps = _line(graph, root.args[0])
        square, count = _mean_of(graph, mean, facts)
        power = _module(graph, square, Unary) if count else None
        if power is None or power.kind != "square" or not _is(scale, 1.0) or eps < 0:
            continue
        inner = square.args[0]
        shape = (facts.shape(top) or ())[-count:]
        if not _same(graph, inner, top):
            continue
        if _module(graph, top, dialect.Sub):
            x, centre = top.args
            of, over = _mean_of(graph, centre, facts)
            if of is x and over == count:
                return x, nn.LayerNorm(shape, eps, elementwise_affine=False)
        return top, nn.RMSNorm(shape, eps, elementwise_affine=False)
    return None


def _same(graph: fx.GraphModule, a: Any, b: Any) -> bool:
    """Whether two values are one, or the same difference written twice."""
    if a is b:
        return True
    return bool(_module(graph, a, dialect.Sub) and _module(graph, b, dialect.Sub)) and all(
        x is y or _twin(graph, x, y) for x, y in zip(a.args, b.args, strict=True)
    )


def _twin(graph: fx.GraphModule, a: Any, b: Any) -> bool:
    """Whether two values are the same mean of the same value."""
    one, other = _module(graph, a, *MEANS), _module(graph, b, *MEANS)
    told = [(type(m), getattr(m, "dims", None), getattr(m, "output_size", None)) for m in (one, other)]
    return one is not None and told[0] == told[1] and a.args == b.args
