"""Spellings of curved operations: activations and functions of numbers; and the names of all curved operations."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.capture import choices, layers, norms, pools, products, routes, spellings
from snnc.capture.lowering import Site
from snnc.capture.values import Spelling
from snnc.ir import curved, dialect


def plain(cls: Any, *names: str) -> Spelling:
    """An activation of `torch.nn`; `names` are its arguments in order, `inplace` among them."""

    def spelling(at: Site, x: Any, *args: Any, **kwargs: Any) -> Any:
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        at.inplace |= bool(given.pop("inplace", False))
        return at.emit(cls(**given), x)

    return spelling


def unary(kind: str) -> Spelling:
    """A function of each number."""
    return lambda at, x: at.emit(curved.Unary(kind), x)


def scaled(kind: str, factor: float) -> Spelling:
    """A function of each number, times a constant."""
    return lambda at, x: spellings.mul(at, at.emit(curved.Unary(kind), x), factor)


def elu(at: Site, x: Any, alpha: Any = 1.0, *args: Any, **kwargs: Any) -> Any:
    """ELU; ATen writes SELU and CELU as one with factors: `scale * x` above zero, `alpha scale (e^(s x) - 1)` below."""
    given = dict(zip(("scale", "input_scale"), args, strict=False)) | kwargs
    if isinstance(args[0] if args else False, bool) or "inplace" in given:  # F.elu(x, alpha, inplace)
        at.inplace |= bool(given.get("inplace", args[0] if args else False))
        given = {}
    scale, inner = float(given.get("scale", 1.0)), float(given.get("input_scale", 1.0))
    if (alpha, scale, inner) == (1.6732632423543772, 1.0507009873554805, 1.0):
        return at.emit(nn.SELU(), x)
    if scale == 1.0 and inner != 1.0 and alpha == 1.0 / inner:
        return at.emit(nn.CELU(float(alpha)), x)
    if inner != 1.0:
        at.refuse("is an ELU with a factor inside, below zero alone", "use nn.ELU, nn.CELU or nn.SELU")
    y = at.emit(nn.ELU(float(alpha)), x)
    return y if scale == 1.0 else spellings.mul(at, y, scale)


def softplus(at: Site, x: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """Softplus."""
    return at.emit(nn.Softplus(float(beta), float(threshold)), x)


def gelu(at: Site, x: Any, approximate: str = "none") -> Any:
    """GELU in both forms."""
    return at.emit(nn.GELU(approximate), x)


def rrelu(
    at: Site, x: Any, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, *_: Any, **__: Any
) -> Any:
    """A leaky ReLU, at inference."""
    if training is True:
        at.refuse("is random at inference", "write F.rrelu(x, training=self.training)")
    return at.emit(nn.LeakyReLU((lower + upper) / 2), x)


def own_rrelu(at: Site, module: Any, x: Any) -> Any:
    """`nn.RReLU`."""
    return rrelu(at, x, module.lower, module.upper)


def prelu(at: Site, x: Any, weight: Any) -> Any:
    """A leaky ReLU whose slope was trained: one number, or one for each channel."""
    if not isinstance(weight, Tensor):
        at.refuse("takes its slope from data", "a constant slope")
    weight = weight.detach().reshape(-1)
    module = nn.PReLU(len(weight), device="meta")
    module.weight = nn.Parameter(layers.constant(weight))
    return at.emit(module, x)


def own_prelu(at: Site, module: Any, x: Any) -> Any:
    """`nn.PReLU`."""
    return prelu(at, x, module.weight)


def glu(at: Site, x: Any, dim: int = -1) -> Any:
    """Half of the channels, times the sigmoid of the other half."""
    a, b = routes.chunk(at, x, 2, dim)
    return at.emit(curved.Product(), a, at.emit(nn.Sigmoid(), b))


def softmin(at: Site, x: Any, dim: int | None = None, *_: Any, **__: Any) -> Any:
    """Softmax of `-x`."""
    return spellings.head(nn.Softmax)(at, spellings.neg(at, x), dim)


def logsumexp(at: Site, x: Any, dim: Any, keepdim: bool = False) -> Any:
    """`x - log_softmax(x)`, which is the same number everywhere along `dim`; over several dimensions one by one."""
    for place in reversed(pools._dims(at, x, dim)):
        same = at.emit(dialect.Sub(), x, at.emit(nn.LogSoftmax(place), x))
        x = pools.mean(at, same, place, keepdim)
    return x


# Powers.


def power(at: Site, x: Any, exponent: Any) -> Any:
    """`x ** constant`, or a constant to the power of x."""
    if not isinstance(x, fx.Node):
        base = torch.as_tensor(x)
        if not isinstance(exponent, fx.Node) or base.numel() != 1 or not base > 0:
            at.refuse("raises something other than one positive number", "a constant base above zero")
        return at.emit(curved.Unary("exp"), spellings.mul(at, exponent, math.log(float(base))))
    if isinstance(exponent, fx.Node) or (isinstance(exponent, Tensor) and exponent.numel() != 1):
        at.refuse("raises to a power that is no single constant", "a constant exponent")
    number = float(exponent)
    if number == 1.0:
        return x
    known = {2.0: "square", 0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}
    return at.emit(curved.Unary(known[number]) if number in known else curved.Power(number), x)


def logaddexp(at: Site, x: Any, other: Any) -> Any:
    """`log(e^x + e^y)`, which is `x + softplus(y - x)`."""
    return spellings.add(at, x, softplus(at, spellings.sub(at, other, x)))


def hypot(at: Site, x: Any, other: Any) -> Any:
    """`sqrt(x^2 + y^2)`."""
    squares = [power(at, v, 2.0) if isinstance(v, fx.Node) else v.square() for v in (x, other)]
    return at.emit(curved.Unary("sqrt"), spellings.add(at, *squares))


SPELLINGS: dict[str, Spelling] = {
    # activations
    "gelu": gelu,
    "silu": plain(nn.SiLU, "inplace"),
    "hardswish": plain(nn.Hardswish, "inplace"),
    "hardsigmoid": plain(nn.Hardsigmoid, "inplace"),
    "sigmoid": plain(nn.Sigmoid),
    "expit": plain(nn.Sigmoid),
    "tanh": plain(nn.Tanh),
    "elu": elu,
    "selu": plain(nn.SELU, "inplace"),
    "celu": plain(nn.CELU, "alpha", "inplace"),
    "softplus": softplus,
    "mish": plain(nn.Mish, "inplace"),
    "leaky_relu": plain(nn.LeakyReLU, "negative_slope", "inplace"),
    "rrelu": rrelu,
    "prelu": prelu,
    "_prelu_kernel": prelu,
    "logsigmoid": plain(nn.LogSigmoid),
    "softsign": plain(nn.Softsign),
    "tanhshrink": plain(nn.Tanhshrink),
    "softshrink": plain(nn.Softshrink, "lambd"),
    "hardshrink": plain(nn.Hardshrink, "lambd"),
    "glu": glu,
    "softmin": softmin,
    "logsumexp": logsumexp,
    # functions of numbers
    **{name: unary(name) for name in ("abs", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "reciprocal", "square")},
    **{name: unary(name) for name in ("sin", "cos", "erf", "atan", "sign")},
    **{name: unary(name) for name in ("tan", "sinh", "cosh", "asin", "acos", "asinh", "acosh", "atanh")},
    **{f"arc{name}": unary(f"a{name}") for name in ("sin", "cos", "sinh", "cosh", "tanh")},
    "erfc": lambda at, x: spellings.rsub(at, at.emit(curved.Unary("erf"), x), 1.0),
    "special_erfc": lambda at, x: spellings.rsub(at, at.emit(curved.Unary("erf"), x), 1.0),
    "logaddexp": logaddexp,
    "hypot": hypot,
    "fmax": spellings.maximum,
    "fmin": spellings.minimum,
    "absolute": unary("abs"),
    "arctan": unary("atan"),
    "sgn": unary("sign"),
    "special_erf": unary("erf"),
    "exp2": lambda at, x: power(at, 2.0, x),
    "log2": scaled("log", 1 / math.log(2)),
    "log10": scaled("log", 1 / math.log(10)),
    "pow": power,
    # normalisation
    "layer_norm": norms.layer_norm,
    "rms_norm": norms.rms_norm,
    "group_norm": norms.group_norm,
    "instance_norm": norms.instance_norm,
    "local_response_norm": norms.local_response_norm,
    "normalize": norms.normalize,
    "norm": norms.norm,
    "vector_norm": norms.norm,
    "linalg_vector_norm": norms.norm,
    "var": norms.variance,
    "std": norms.deviation,
    "var_mean": norms.both(norms.variance),
    "std_mean": norms.both(norms.deviation),
    "amin": norms.largest(curved.Least),
    "min": norms.least,
    # comparisons and choices
    **dict.fromkeys(("gt", "greater"), choices.compare("positive")),
    **dict.fromkeys(("ge", "greater_equal"), choices.compare("not_negative")),
    **dict.fromkeys(("lt", "less"), choices.compare("positive", swapped=True)),
    **dict.fromkeys(("le", "less_equal"), choices.compare("not_negative", swapped=True)),
    "eq": choices.compare("is_zero"),
    **dict.fromkeys(("ne", "not_equal"), choices.compare("is_zero", negated=True)),
    **dict.fromkeys(("logical_not", "bitwise_not", "invert"), choices.logical_not),
    **dict.fromkeys(("logical_and", "bitwise_and", "and_", "__and__"), choices.logical_and),
    **dict.fromkeys(("logical_or", "bitwise_or", "or_", "__or__"), choices.logical_or),
    **dict.fromkeys(("float", "double", "half", "type_as"), choices.number),
    **dict.fromkeys(("isnan", "isinf"), choices.never),
    "isfinite": choices.always,
    "nan_to_num": choices.nan_to_num,
    "where": choices.where,
    "masked_fill": choices.masked_fill,
    # products
    **dict.fromkeys(("mul", "multiply"), products.product),
    **dict.fromkeys(("div", "divide", "true_divide", "truediv"), products.quotient),
    "baddbmm": products.baddbmm,
    "addcmul": products.addcmul,
    "addcdiv": products.addcdiv,
    "lerp": products.lerp,
    "prod": products.prod,
    "cumprod": products.cumprod,
}

MODULES: dict[type[nn.Module], tuple[str, tuple[str, ...]]] = {
    nn.GELU: ("gelu", ("approximate",)),
    nn.SiLU: ("silu", ("inplace",)),
    nn.Hardswish: ("hardswish", ("inplace",)),
    nn.Hardsigmoid: ("hardsigmoid", ("inplace",)),
    nn.Sigmoid: ("sigmoid", ()),
    nn.Tanh: ("tanh", ()),
    nn.ELU: ("elu", ("alpha", "inplace")),
    nn.SELU: ("selu", ("inplace",)),
    nn.CELU: ("celu", ("alpha", "inplace")),
    nn.Softplus: ("softplus", ("beta", "threshold")),
    nn.Mish: ("mish", ("inplace",)),
    nn.LeakyReLU: ("leaky_relu", ("negative_slope", "inplace")),
    nn.LogSigmoid: ("logsigmoid", ()),
    nn.Softsign: ("softsign", ()),
    nn.Tanhshrink: ("tanhshrink", ()),
    nn.Softshrink: ("softshrink", ("lambd",)),
    nn.Hardshrink: ("hardshrink", ("lambd",)),
    nn.GLU: ("glu", ("dim",)),
    nn.Softmin: ("softmin", ("dim",)),
    nn.LocalResponseNorm: ("local_response_norm", ("size", "alpha", "beta", "k")),
}
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
OWN: dict[type[nn.Module], Spelling] = {
    nn.PReLU: own_prelu,
    nn.RReLU: own_rrelu,
    nn.LayerNorm: norms.own_norm,
    nn.RMSNorm: norms.own_norm,
    nn.GroupNorm: norms.own_group_norm,
    **dict.fromkeys(INSTANCE_NORMS, norms.own_instance_norm),
    **dict.fromkeys(
        (curved.Unary, curved.Power, curved.Clip, curved.Normalize, curved.Greatest, curved.Least, *curved.JOINT),
        layers.own,
    ),
    nn.Softmax2d: lambda at, module, x: at.emit(nn.Softmax(at.axis(x, -3)), x),
}
