"""Spellings of products and quotients, of which both factors may depend on the input."""

from __future__ import annotations

import math
from typing import Any

from torch import fx

from snnc.capture import layers, pools, routes, spellings
from snnc.capture.choices import finite
from snnc.capture.lowering import Site
from snnc.capture.values import SHAPE_HINT, Batch, Refused, Truth
from snnc.ir import curved


def product(at: Site, x: Any, other: Any) -> Any:
    """A product with a constant, or of two values."""
    x, other = (v.node if isinstance(v, Truth) else v for v in (x, other))
    if isinstance(x, fx.Node) and isinstance(other, fx.Node):
        if x is other:
            return at.emit(curved.Unary("square"), x)
        return spellings._join(at, curved.Product(), x, other)
    return spellings.mul(at, x, other)


def quotient(at: Site, x: Any, other: Any, *, rounding_mode: str | None = None) -> Any:
    """A quotient by a constant or by a value."""
    if not isinstance(other, fx.Node):
        return spellings.div(at, x, other, rounding_mode=rounding_mode)
    if rounding_mode is not None:
        at.refuse("rounds a quotient of two values", "leave rounding out")
    if isinstance(x, fx.Node):
        return spellings._join(at, curved.Quotient(), x, other)
    return spellings.mul(at, at.emit(curved.Unary("reciprocal"), other), x)


def matmul(at: Site, x: Any, other: Any) -> Any:
    """A matrix product, of which both factors may depend on the input."""
    if not (isinstance(x, fx.Node) and isinstance(other, fx.Node)):
        return layers.matmul(at, x, other)
    ranks = at.rank(x), at.rank(other)
    if None in ranks:
        raise Refused("multiplies values of unknown rank", SHAPE_HINT, shape=True)
    if ranks[0] != ranks[1] or (ranks[0] or 0) < 3:
        at.refuse("multiplies matrices across the batch", "give both factors the batch as their first dimension")
    return at.emit(curved.MatMul(), x, other)


def baddbmm(at: Site, bias: Any, x: Any, other: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """`beta * bias + alpha * x @ other`."""
    y = matmul(at, x, other)
    y = y if alpha == 1 else spellings.mul(at, y, float(alpha))
    if beta == 0:
        return y
    if isinstance(bias, fx.Node):
        return spellings.add(at, y, bias, alpha=beta)
    return spellings.add(at, y, finite(bias * beta))


def bilinear_einsum(at: Site, formula: str, a: fx.Node, b: fx.Node) -> Any:
    """`torch.einsum` of two values with the batch in front: letters sorted into a matrix product."""
    if "..." in formula or formula.count(",") != 1:
        at.refuse("sums products by a formula that snnc does not read", "two values, with every letter written out")
    left, _, out = formula.replace(" ", "").partition("->")
    one, two = left.split(",")
    if not out:
        out = "".join(sorted(c for c in set(one + two) if (one + two).count(c) == 1))
    if any(len(set(word)) != len(word) for word in (one, two, out)):
        at.refuse("takes a diagonal", "letters that stand once in each value")
    n = one[0]
    if not (two[0] == n and out[:1] == n):
        at.refuse("sums over the batch, or moves it", "keep the batch's letter first, in both values and the result")
    sizes = dict(zip(one[1:], at.known(a), strict=True)) | dict(zip(two[1:], at.known(b), strict=True))
    shared = [c for c in one[1:] if c in two and c in out]
    summed = [c for c in one if c in two and c not in out]
    rows, columns = ([c for c in word[1:] if c not in other and c in out] for word, other in ((one, two), (two, one)))
    lost = [(k, word, other) for k, (word, other) in enumerate(((one, two), (two, one)))]
    values = [a, b]
    words = [one, two]
    for k, word, other in lost:
        gone = [c for c in word[1:] if c not in other and c not in out]
        if gone:
            values[k] = pools.sum_(at, values[k], tuple(word.index(c) for c in gone))
            words[k] = "".join(c for c in word if c not in gone)
    x = _arranged(at, values[0], words[0], [shared, rows, summed], sizes)
    y = _arranged(at, values[1], words[1], [shared, summed, columns], sizes)
    z = at.emit(curved.MatMul(), x, y)
    order = [*shared, *rows, *columns]
    z = routes.reshape(at, z, Batch(), *(sizes[c] for c in order))
    return routes.permute(at, z, 0, *(1 + order.index(c) for c in out[1:]))


def _arranged(at: Site, x: fx.Node, word: str, groups: list[list[str]], sizes: dict[str, int]) -> fx.Node:
    """A value as `[B, product of group, ...]`, its letters in the order of `groups`."""
    order = [0, *(word.index(c) for group in groups for c in group)]
    x = routes.permute(at, x, *order)
    result: fx.Node = routes.reshape(at, x, Batch(), *(math.prod(sizes[c] for c in group) for group in groups))
    return result


def einsum(at: Site, formula: Any, *operands: Any) -> Any:
    """`torch.einsum` of two values."""
    values = operands[0] if len(operands) == 1 and isinstance(operands[0], (tuple, list)) else operands
    if not isinstance(formula, str) or len(values) != 2 or not all(isinstance(v, fx.Node) for v in values):
        at.refuse("sums products by a formula of letters with a constant", "write it with nn.Linear or a convolution")
    return bilinear_einsum(at, formula, *values)
