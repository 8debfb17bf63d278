"""Spellings of products and quotients, of which both factors may depend on the input."""

from __future__ import annotations

import operator
from typing import Any

from torch import fx

from snnc.capture import joining, layers, routes, spellings
from snnc.capture.choices import finite
from snnc.capture.lowering import Site
from snnc.capture.values import SHAPE_HINT, Refused, Truth
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


def addcmul(at: Site, x: Any, a: Any, b: Any, *, value: float = 1) -> Any:
    """`x + value * a * b`, of which any may depend on the input."""
    return _added(at, x, _of_two(at, product, a, b), value)


def addcdiv(at: Site, x: Any, a: Any, b: Any, *, value: float = 1) -> Any:
    """`x + value * a / b`, of which any may depend on the input."""
    return _added(at, x, _of_two(at, quotient, a, b), value)


def lerp(at: Site, x: Any, end: Any, weight: Any) -> Any:
    """`x + weight * (end - x)`, of which any may depend on the input."""
    return _added(at, x, _of_two(at, product, weight, _of_two(at, spellings.sub, end, x)), 1)


def _of_two(at: Site, spelling: Any, a: Any, b: Any) -> Any:
    """An operation on two values, or its result where both are constants."""
    if isinstance(a, fx.Node) or isinstance(b, fx.Node):
        return spelling(at, a, b)
    constants: dict[Any, Any] = {product: operator.mul, quotient: operator.truediv, spellings.sub: operator.sub}
    return constants[spelling](a, b)


def _added(at: Site, x: Any, y: Any, factor: float) -> Any:
    """`x + factor * y`."""
    if isinstance(y, fx.Node):
        y = y if factor == 1 else spellings.mul(at, y, float(factor))
        return spellings.add(at, x, y)
    return spellings.add(at, x, y * factor)


def prod(at: Site, x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    """`x.prod(dim)`: products of two halves, over and over; dimensions of ONNX one by one."""
    if dim is None or dim in ((), []):
        at.refuse("multiplies samples by each other", "name the dimension: x.prod(1)")
    for place in sorted((at.axis(x, d) for d in (dim if isinstance(dim, (tuple, list)) else (dim,))), reverse=True):
        while (count := at.known(x)[place - 1]) > 1:
            half = count // 2
            parts = [routes.narrow(at, x, place, start, half) for start in (0, half)]
            rest = [routes.narrow(at, x, place, 2 * half, 1)] if count % 2 else []
            x = at.emit(curved.Product(), *parts)
            x = joining.cat(at, [x, *rest], place) if rest else x
        x = x if keepdim else routes.squeeze(at, x, place)
    return x


def cumprod(at: Site, x: Any, dim: int, dtype: Any = None) -> Any:
    """`x.cumprod(dim)`: each entry times the one that is 1, 2, 4, .. places before it."""
    place = at.axis(x, dim)
    count, step = at.known(x)[place - 1], 1
    while step < count:
        first, rest, before = (
            routes.narrow(at, x, place, start, length)
            for start, length in ((0, step), (step, count - step), (0, count - step))
        )
        x, step = joining.cat(at, [first, at.emit(curved.Product(), rest, before)], place), 2 * step
    return x
