"""Curved operations: functions of one or more values of the same sample that are no weights, no routes and no neurons.

`torch.nn` has modules for most of them; what it only has as a function gets a small module here. None ever mixes
samples. Outside time such a module stands as it is; inside time it is the body of a `Telescoped`
(`snnc.ir.temporal`), which gives its function of the means after every step.

`DEGREE` says of which degree a function is homogeneous, `f(c x) = c^degree f(x)` for c > 0, where that is known for
any parameters: such a body acts on sums as it does on means, but for a power of the number of steps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from snnc.ir import dialect
from snnc.ir.dialect import register

UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "log": torch.log,
    "log1p": torch.log1p,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "reciprocal": torch.reciprocal,
    "square": torch.square,
    "sin": torch.sin,
    "cos": torch.cos,
    "erf": torch.erf,
    "atan": torch.atan,
    "tan": torch.tan,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "asin": torch.asin,
    "acos": torch.acos,
    "asinh": torch.asinh,
    "acosh": torch.acosh,
    "atanh": torch.atanh,
    "sign": torch.sign,
    "positive": lambda x: (x > 0).to(x),
    "not_negative": lambda x: (x >= 0).to(x),
    "is_zero": lambda x: (x == 0).to(x),
}


@register("kind")
class Unary(nn.Module):
    """A function of each number by itself, one of `UNARY`. Comparisons with zero give 1 or 0."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        if kind not in UNARY:
            raise ValueError(f"'{kind}' is no function of one number that snnc knows")
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        return UNARY[self.kind](x)

    def extra_repr(self) -> str:
        return self.kind


@register("exponent")
class Power(nn.Module):
    """`x ** exponent`, a constant number."""

    def __init__(self, exponent: float) -> None:
        super().__init__()
        self.exponent = float(exponent)

    def forward(self, x: Tensor) -> Tensor:
        return torch.pow(x, self.exponent)

    def extra_repr(self) -> str:
        return f"{self.exponent:g}"


@register("low", "high")
class Clip(nn.Module):
    """Each number kept in `[low, high]`: numbers, or tensors that broadcast over one sample; None where it is open."""

    low: Tensor | None
    high: Tensor | None

    def __init__(self, low: Tensor | float | None, high: Tensor | float | None) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(low) if isinstance(low, float | int) else low)
        self.register_buffer("high", torch.tensor(high) if isinstance(high, float | int) else high)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.low is None else torch.maximum(x, self.low.to(x.dtype))
        return x if self.high is None else torch.minimum(x, self.high.to(x.dtype))

    def extra_repr(self) -> str:
        return ", ".join("open" if b is None else dialect.describe(b) for b in (self.low, self.high))


@register("p", "dim", "eps")
class Normalize(nn.Module):
    """`x / max(norm, eps)`, the p-norm taken along `dim` (never the batch)."""

    def __init__(self, p: float, dim: int, eps: float) -> None:
        super().__init__()
        self.p, self.dim, self.eps = float(p), dim, float(eps)

    def forward(self, x: Tensor) -> Tensor:
        return functional.normalize(x, self.p, self.dim, self.eps)

    def extra_repr(self) -> str:
        return f"p={self.p:g}, dim={self.dim}, eps={self.eps:g}"


class _Largest(nn.Module):
    def __init__(self, dims: tuple[int, ...], keepdim: bool = False) -> None:
        super().__init__()
        self.dims, self.keepdim = tuple(dims), keepdim

    def extra_repr(self) -> str:
        return f"{self.dims}, keepdim={self.keepdim}"


@register("dims", "keepdim")
class Greatest(_Largest):
    """The largest value over `dims`, none of them the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.amax(x, self.dims, self.keepdim)


@register("dims", "keepdim")
class Least(_Largest):
    """The smallest value over `dims`, none of them the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.amin(x, self.dims, self.keepdim)


@register()
class Product(nn.Module):
    """Product of two values, shapes alike or broadcastable."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b


@register()
class Quotient(nn.Module):
    """Quotient of two values, shapes alike or broadcastable."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a / b


@register()
class MatMul(nn.Module):
    """Matrix product of two values over their last two dimensions; the batch is not among these."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.matmul(a, b)


@register()
class Maximum(nn.Module):
    """The larger of two values, number by number."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.maximum(a, b)


@register()
class Minimum(nn.Module):
    """The smaller of two values, number by number."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.minimum(a, b)


@register()
class Where(nn.Module):
    """The second value where the first, 0 or 1, is above one half, the third elsewhere."""

    def forward(self, chosen: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return torch.where(chosen > 0.5, a, b)


PLAIN: dict[type[nn.Module], tuple[str, ...]] = {
    nn.GELU: ("approximate",),
    **dict.fromkeys((nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.SELU, nn.Mish), ()),
    **dict.fromkeys((nn.LogSigmoid, nn.Softsign, nn.Tanhshrink), ()),
    **dict.fromkeys((nn.ELU, nn.CELU), ("alpha",)),
    nn.Softplus: ("beta", "threshold"),
    nn.LeakyReLU: ("negative_slope",),
    nn.PReLU: ("num_parameters",),
    **dict.fromkeys((nn.Softshrink, nn.Hardshrink), ("lambd",)),
    nn.LayerNorm: ("normalized_shape", "eps", "elementwise_affine", "bias"),
    nn.RMSNorm: ("normalized_shape", "eps", "elementwise_affine"),
    nn.GroupNorm: ("num_groups", "num_channels", "eps", "affine"),
    nn.LocalResponseNorm: ("size", "alpha", "beta", "k"),
}
dialect.CONFIG.update(PLAIN)

JOINT = (Product, Quotient, MatMul, Maximum, Minimum, Where)  # of several values
BILINEAR = (Product, MatMul)
NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.LocalResponseNorm, Normalize)
POINTWISE = (
    *(cls for cls in PLAIN if cls not in NORMS),
    *(Unary, Power, Clip),
)
BENT = (*POINTWISE, *NORMS, Greatest, Least, *JOINT)  # all but pools and heads
CURVED = (*dialect.MAX_POOLS, *dialect.HEADS, *BENT)

DEGREE: dict[type[nn.Module], int] = {
    **dict.fromkeys((*dialect.MAX_POOLS, Greatest, Least, nn.LeakyReLU, nn.PReLU, Maximum, Minimum), 1),
    **dict.fromkeys(BILINEAR, 2),
    Quotient: 0,
}


def degree(body: nn.Module) -> int | None:
    """The degree of which a body is homogeneous, or None."""
    if isinstance(body, Unary):
        known = {"abs": 1, "square": 2, "reciprocal": -1}
        comparison = body.kind in ("sign", "positive", "not_negative", "is_zero")
        return 0 if comparison else known.get(body.kind)
    return DEGREE.get(type(body))
