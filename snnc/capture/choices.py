"""Spellings of comparisons and of choices by them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from snnc.capture import spellings
from snnc.capture.lowering import Site
from snnc.capture.spellings import FAR
from snnc.capture.values import Spelling, Truth
from snnc.ir import curved, dialect

# Functions that give infinity or no number for some finite ones.
UNBOUNDED = frozenset(
    {"exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "reciprocal", "tan", "sinh", "cosh", "asin", "acos", "acosh"}
    | {"atanh"}
)


def compare(kind: str, swapped: bool = False, negated: bool = False) -> Spelling:
    """`x > y` and its like, as the sign of a difference, which is zero only between equals."""

    def spelling(at: Site, x: Any, other: Any) -> Any:
        first, second = (other, x) if swapped else (x, other)
        node = at.emit(curved.Unary(kind), spellings.sub(at, first, second))
        return Truth(spellings.add(at, spellings.neg(at, node), 1.0) if negated else node)

    return spelling


def number(at: Site, x: Any, *_: Any, **__: Any) -> Any:
    """A cast to floating point: a comparison becomes a value of ones and zeros."""
    return x.node if isinstance(x, Truth) else x


def logical_not(at: Site, x: Any) -> Any:
    """`~condition`."""
    if isinstance(x, Tensor) and x.dtype == torch.bool:
        return ~x
    if not isinstance(x, Truth):
        at.refuse("negates something other than a comparison", "a comparison, such as x > 0")
    return Truth(spellings.add(at, spellings.neg(at, x.node), 1.0))


def logical_and(at: Site, a: Any, b: Any) -> Any:
    """`a & b` of comparisons, or of one and a constant mask."""
    a, b = (v if isinstance(v, Truth) else _mask(at, v) for v in (a, b))
    if isinstance(a, Truth) and isinstance(b, Truth):
        return Truth(at.emit(curved.Minimum(), a.node, b.node))
    value, mask = (a, b) if isinstance(a, Truth) else (b, a)
    return Truth(spellings.mul(at, value.node, mask))


def logical_or(at: Site, a: Any, b: Any) -> Any:
    """`a | b` of comparisons."""
    if not (isinstance(a, Truth) and isinstance(b, Truth)):
        at.refuse("joins a comparison with something else", "two comparisons")
    return Truth(at.emit(curved.Maximum(), a.node, b.node))


def never(at: Site, x: fx.Node) -> Any:
    """`isnan`, `isinf`: of values that are finite for finite data this holds nowhere."""
    seen, left = set(), [x]
    while left:
        node = left.pop()
        if node in seen:
            continue
        seen.add(node)
        module = at.lowering.module(node)
        if isinstance(module, (curved.Quotient, curved.Power)) or getattr(module, "kind", None) in UNBOUNDED:
            at.refuse("asks where a value is no finite number", "the value itself, without the question")
        left.extend(node.all_input_nodes)
    return torch.zeros((), dtype=torch.bool)


def always(at: Site, x: fx.Node) -> Any:
    """`isfinite`, the opposite of both."""
    return ~never(at, x)


def nan_to_num(at: Site, x: fx.Node, *_: Any, **__: Any) -> Any:
    """`nan_to_num` of values that are finite for finite data."""
    never(at, x)
    return x


def _mask(at: Site, value: Any) -> Any:
    if not isinstance(value, Tensor) or value.dtype != torch.bool:
        at.refuse("chooses by something other than a comparison or a constant mask", "a comparison, such as x > 0")
    return value.to(at.lowering.like)


def where(at: Site, condition: Any, x: Any = None, other: Any = None) -> Any:
    """`torch.where`: by a constant mask a sum, by a comparison of values a choice at run time."""
    if x is None or other is None:
        at.refuse("asks for the places where something holds", "torch.where(condition, a, b)")
    if isinstance(condition, Truth):
        like = condition.node
        values = [v if isinstance(v, fx.Node) else constant_at(at, like, v) for v in (x, other)]
        return at.emit(curved.Where(), like, *values)
    mask = _mask(at, condition)
    for value, share, rest in ((x, mask, other), (other, 1 - mask, x)):
        if isinstance(value, fx.Node) and share.numel() == 1 and share == 1 and _one(rest):
            return value
    parts: list[Any] = []
    for value, share in ((x, mask), (other, 1 - mask)):
        if isinstance(value, fx.Node):
            parts.append(spellings.mul(at, value, share))
        else:
            number = finite(torch.as_tensor(value, dtype=mask.dtype))
            parts.append(torch.where(share > 0, number, torch.zeros_like(number)))
    return spellings.add(at, *parts)


def _one(value: Any) -> bool:
    return not isinstance(value, fx.Node) and torch.as_tensor(value).numel() == 1


def masked_fill(at: Site, x: Any, mask: Any, value: Any) -> Any:
    """`x.masked_fill(mask, value)`."""
    return where(at, mask, value, x)


def finite(value: Tensor) -> Tensor:
    """A mask's numbers, infinity among them, as numbers that can be added up."""
    return value.clamp(-FAR, FAR)


def constant_at(at: Site, like: fx.Node, value: Any) -> fx.Node:
    """A constant as a value of every sample: of one sample's shape, told by a value that it will meet."""
    number = finite(spellings._trimmed(torch.as_tensor(value, dtype=at.lowering.like.dtype)))
    return at.emit(dialect.Affine(torch.zeros_like(number), number), like)
