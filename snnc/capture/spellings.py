"""Spellings of arithmetic, activations and rounding, and of questions about a tensor."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.capture import routes
from snnc.capture.bounds import Clamp, Floor, Round
from snnc.capture.lowering import Site
from snnc.capture.values import Batch, Dim, ManyBatches, Sizes, Spelling, Truth, Unknown
from snnc.ir import curved, dialect


def relu(at: Site, x: Any, inplace: bool = False) -> Any:
    """ReLU."""
    at.inplace |= inplace
    return at.emit(nn.ReLU(), x)


def clamp(at: Site, x: Any, min: Any = None, max: Any = None) -> Any:
    """A clip: ReLU or `Hardtanh` where it starts at zero; what else it may be is decided later."""
    if isinstance(min, fx.Node) or isinstance(max, fx.Node):
        x = x if min is None else maximum(at, x, min)
        return x if max is None else minimum(at, x, max)
    low, high = _bound(at, min), _bound(at, max)
    if isinstance(low, float) and low == 0.0 and high is None:
        return at.emit(nn.ReLU(), x)
    if isinstance(low, float) and low == 0.0 and isinstance(high, float) and high > 0:
        return at.emit(nn.Hardtanh(0.0, high), x)
    kind = curved.Clip if at.rank(x) == 1 else Clamp  # one number for each sample is no activation's
    return _of_one_shape(at, kind(low, high), x, [b for b in (low, high) if isinstance(b, Tensor)])


def _of_one_shape(at: Site, module: nn.Module, x: fx.Node, constants: list[Tensor]) -> Any:
    """Emits a module that combines a value with constants; refuses constants that are larger than one sample."""
    rank = at.rank(x)
    if rank is not None and any(constant.dim() >= rank for constant in constants):
        at.refuse("combines samples with a constant of the batch's size", "use a constant of one sample's shape")
    y = at.emit(module, x)
    if at.sizes(x) != at.sizes(y):
        at.refuse("spreads a value over a larger shape", "give the constant the value's own shape")
    return y


def _bound(at: Site, value: Any) -> Any:
    """A clip bound: a float, a tensor with one bound for each channel, or None."""
    if isinstance(value, Tensor):
        value = _trimmed(value)
        return float(value) if value.dim() == 0 else value
    return None if value is None or value in (float("inf"), float("-inf")) else float(value)


def clamp_min(at: Site, x: Any, min: Any) -> Any:
    """A clip from below."""
    return clamp(at, x, min, None)


def clamp_max(at: Site, x: Any, max: Any) -> Any:
    """A clip from above."""
    return clamp(at, x, None, max)


def hardtanh(at: Site, x: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Any:
    """A clip at both ends."""
    at.inplace |= inplace
    return clamp(at, x, min_val, max_val)


def relu6(at: Site, x: Any, inplace: bool = False) -> Any:
    """ReLU, clipped at 6."""
    return hardtanh(at, x, 0.0, 6.0, inplace)


def threshold(at: Site, x: Any, threshold: float, value: float, inplace: bool = False) -> Any:
    """ReLU, where both numbers are zero."""
    if threshold != 0 or value != 0:
        at.refuse(f"replaces what is below {threshold} by {value}", "train with ReLU, which is threshold(x, 0, 0)")
    return relu(at, x, inplace)


def maximum(at: Site, x: Any, other: Any = None) -> Any:
    """A clip from below, where one operand is constant."""
    x, other = (other, x) if isinstance(other, fx.Node) and isinstance(x, Tensor) else (x, other)
    if isinstance(x, fx.Node) and isinstance(other, fx.Node):
        return _join(at, curved.Maximum(), x, other)
    return clamp(at, x, other, None)


def minimum(at: Site, x: Any, other: Any = None) -> Any:
    """A clip from above, where one operand is constant."""
    x, other = (other, x) if isinstance(other, fx.Node) and isinstance(x, Tensor) else (x, other)
    if isinstance(x, fx.Node) and isinstance(other, fx.Node):
        return _join(at, curved.Minimum(), x, other)
    return clamp(at, x, None, other)


def _trimmed(value: Tensor) -> Tensor:
    """A constant without leading dimensions of size one: they broadcast the same."""
    value = value.detach()
    while value.dim() and value.shape[0] == 1:
        value = value[0]
    return value.clone()


FAR = 1e30  # stands for infinity in a mask: far beyond every score, and its sum over many steps is still a number


def _affine(at: Site, x: Any, scale: Any, shift: Any) -> Any:
    """`x * scale + shift`, with constants of which at least one is more than a number or both are."""
    like = at.lowering.like
    parts = [_trimmed(torch.as_tensor(v, dtype=like.dtype, device=like.device)) for v in (scale, shift)]
    rank = at.rank(x)
    parts = [p[0].clone() if rank is not None and p.dim() == rank and at.alike(p) else p for p in parts]
    parts[1] = parts[1].clamp(-FAR, FAR)
    parts = [p.clone() for p in torch.broadcast_tensors(*parts)]
    return _of_one_shape(at, dialect.Affine(*parts), x, parts)


def _data(value: Any) -> bool:
    return isinstance(value, fx.Node)


def add(at: Site, x: Any, other: Any, *, alpha: Any = 1) -> Any:
    """`x + alpha * other`."""
    if _data(x) and _data(other):
        if alpha != 1:
            other = _affine(at, other, alpha, 0.0)
        return _join(at, dialect.Add(), x, other)
    return _affine(at, x, 1.0, other * alpha) if _data(x) else _affine(at, other, alpha, x)


def sub(at: Site, x: Any, other: Any, *, alpha: Any = 1) -> Any:
    """`x - alpha * other`."""
    if _data(x) and _data(other):
        if alpha != 1:
            other = _affine(at, other, alpha, 0.0)
        return _join(at, dialect.Sub(), x, other)
    return _affine(at, x, 1.0, -other * alpha) if _data(x) else _affine(at, other, -alpha, x)


def _join(at: Site, module: nn.Module, a: fx.Node, b: fx.Node) -> Any:
    ranks = {at.rank(a), at.rank(b)} - {None}
    if len(ranks) > 1:
        at.refuse("adds values with different numbers of dimensions", "unsqueeze the smaller one")
    return at.emit(module, a, b)


def rsub(at: Site, x: Any, other: Any, *, alpha: Any = 1) -> Any:
    """`other - alpha * x`."""
    return sub(at, other, x, alpha=alpha)


def neg(at: Site, x: Any) -> Any:
    """`-x`."""
    return _affine(at, x, -1.0, 0.0)


def mul(at: Site, x: Any, other: Any) -> Any:
    """A product with a constant."""
    return _affine(at, x, other, 0.0) if _data(x) else _affine(at, other, x, 0.0)


def div(at: Site, x: Any, other: Any, *, rounding_mode: str | None = None) -> Any:
    """A quotient by a constant, rounded where `rounding_mode` says so."""
    if rounding_mode == "trunc":
        at.refuse("rounds towards zero", "use torch.floor")
    like = at.lowering.like
    scale = 1.0 / torch.as_tensor(other, dtype=like.dtype, device=like.device)
    y = _affine(at, x, scale, 0.0)
    return y if rounding_mode is None else at.emit(Floor(), y)


def floor_divide(at: Site, x: Any, other: Any) -> Any:
    """`x // other`."""
    return div(at, x, other, rounding_mode="floor")


def floor(at: Site, x: Any) -> Any:
    """Rounds down."""
    return at.emit(Floor(), x)


def round_(at: Site, x: Any, *, decimals: int = 0) -> Any:
    """Rounds to the nearest integer."""
    if decimals:
        at.refuse("rounds to decimals", "round to integers, and scale before and after")
    return at.emit(Round(), x)


def dropout(at: Site, x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """Nothing, unless it is told to drop at inference."""
    if training and p > 0:
        at.refuse("drops values at inference as well", "write F.dropout(x, p, training=self.training)")
    return x


def stochastic_depth(at: Site, x: Any, p: float, mode: str = "row", training: bool = True) -> Any:
    """torchvision's, which drops whole samples of a branch while it trains."""
    return dropout(at, x, p, training)


def drop_path(at: Site, x: Any, drop_prob: float = 0.0, training: bool = False, scale_by_keep: bool = True) -> Any:
    """The same, as timm calls it."""
    return dropout(at, x, drop_prob, training)


def drop_block(
    at: Site, x: Any, p: float, block_size: int, inplace: bool = False, eps: float = 1e-6, training: bool = True
) -> Any:
    """Drops squares of a map while it trains."""
    return dropout(at, x, p, training)


def head(cls: Any) -> Spelling:
    """Softmax and its logarithm."""

    def spelling(at: Site, x: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
        rank = at.rank(x)
        if dim is None:
            dim = 0 if rank == 3 else 1
        return at.emit(cls(at.axis(x, dim) if dim >= 0 or rank is not None else dim), x)

    return spelling


def getattr_(at: Site, x: Any, name: str) -> Any:
    """An attribute of a tensor."""
    if not isinstance(x, fx.Node):
        return getattr(x, name)
    found: dict[str, Callable[[], Any]] = {
        "shape": lambda: routes.size(at, x),
        "ndim": lambda: routes.rank(at, x),
        "data": lambda: x,
        "mT": lambda: routes.transpose(at, x, -2, -1),
        "dtype": lambda: at.lowering.like.dtype,
        "device": lambda: at.lowering.like.device,
        "requires_grad": lambda: False,
    }
    if name not in found:
        at.refuse(f"reads .{name}", "read x.shape, x.ndim, x.dtype or x.device alone")
    return found[name]()


def to(at: Site, x: Any, *args: Any, **kwargs: Any) -> Any:
    """A cast, which must be to floating point."""
    kinds = [v for v in (*args, *kwargs.values()) if isinstance(v, torch.dtype)]
    if isinstance(x, fx.Node) and x in at.lowering.whole:
        return x  # it is looked up, and whole numbers stay what they are in any type
    if any(not kind.is_floating_point for kind in kinds):
        at.refuse(f"casts data to {kinds[0]}", "keep data in floating point")
    own = at.lowering.like.dtype
    if any(torch.finfo(kind).eps > torch.finfo(own).eps for kind in kinds):
        at.refuse(f"rounds values of {own} to {kinds[0]}", "take autocast, and casts to short floats, out of forward")
    return x.node if isinstance(x, Truth) and kinds else x


def arithmetic(function: Callable[..., Any], *args: Any) -> Any:
    """Arithmetic on sizes of which at least one is not known."""
    if function is len and isinstance(args[0], tuple):
        return len(args[0])
    if function in (operator.eq, operator.ne) and isinstance(args[0], Batch) and isinstance(args[1], Batch):
        return function is operator.eq
    if (times := _times(function, args)) is not None:
        return times
    return Unknown(any(isinstance(a, (Dim, Sizes)) or (isinstance(a, Unknown) and a.shape) for a in args))


def _times(function: Callable[..., Any], args: tuple[Any, ...]) -> Batch | ManyBatches | None:
    """The number of samples, times or by a whole number."""
    factors = [1 if isinstance(a, Batch) else a.times if isinstance(a, ManyBatches) else a for a in args]
    counted = [isinstance(a, Batch | ManyBatches) for a in args]
    if len(args) != 2 or not all(type(f) is int for f in factors) or sum(counted) != 1:
        return None
    a, b = factors
    if function in (operator.mul, operator.imul):
        a *= b
    elif function in (operator.floordiv, operator.truediv) and counted[0] and b and a % b == 0:
        a //= b
    else:
        return None
    return Batch() if a == 1 else ManyBatches(times=a) if a else None


def filled(number: float) -> Spelling:
    """`torch.zeros` and its like."""

    def spelling(at: Site, *sizes: Any, dtype: torch.dtype | None = None, **_: Any) -> Any:
        run = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (tuple, list, fx.Node)) else sizes
        return routes.filled(at, number, run, dtype)

    return spelling


def new_filled(number: float) -> Spelling:
    """`x.new_zeros` and its like."""

    def spelling(at: Site, x: Any, *sizes: Any, dtype: torch.dtype | None = None, **_: Any) -> Any:
        return routes.filled(at, number, sizes[0] if isinstance(sizes[0], (tuple, list)) else sizes, dtype)

    return spelling


def new_full(at: Site, x: Any, sizes: Any, fill_value: Any, *, dtype: torch.dtype | None = None, **_: Any) -> Any:
    """`x.new_full`, in the type of `x`."""
    return full(at, sizes, fill_value, dtype=dtype or at.lowering.like.dtype)


def full(at: Site, sizes: Any, fill_value: Any, *, dtype: torch.dtype | None = None, **_: Any) -> Any:
    """`torch.full` and `torch.full_like`."""
    if isinstance(fill_value, fx.Node):
        at.refuse("fills a value with one of the input's", "keep samples apart, and constants constant")
    kind = torch.tensor(fill_value).dtype if dtype is None and not isinstance(sizes, fx.Node) else dtype
    return routes.filled(at, float(fill_value), sizes, kind)
