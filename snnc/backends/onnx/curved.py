"""Curved operations in ONNX: one small emitter for each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from snnc.backends.onnx.block import EmitSite
from snnc.backends.onnx.ops import Emitter
from snnc.errors import SnncError
from snnc.ir import curved
from snnc.ir.rows import Kinds, Refusal

# Functions of one number: operators one after the other, and what `chain` says of theirs.
UNARY: dict[str, tuple[Any, ...]] = {
    "abs": ("Abs",),
    "exp": ("Exp",),
    "expm1": ("Exp", ("Sub", 1.0)),
    "log": ("Log",),
    "log1p": (("Add", 1.0), "Log"),
    "sqrt": ("Sqrt",),
    "rsqrt": ("Sqrt", "Reciprocal"),
    "reciprocal": ("Reciprocal",),
    "square": (("Pow", 2.0),),
    "sin": ("Sin",),
    "cos": ("Cos",),
    "erf": ("Erf",),
    "atan": ("Atan",),
    **{name: (name.title(),) for name in ("tan", "sinh", "cosh", "asin", "acos", "asinh", "acosh", "atanh")},
    "sign": ("Sign",),
    "positive": (("Greater", 0.0), "Cast"),
    "not_negative": (("GreaterOrEqual", 0.0), "Cast"),
    "is_zero": (("Equal", 0.0), "Cast"),
}


def chain(at: EmitSite, x: str, *steps: Any) -> str:
    """Operators one after the other: a name, or a name with a number as the second input."""
    for place, step in enumerate(steps):
        kind, numbers = (step[0], step[1:]) if isinstance(step, tuple) else (step, ())
        inputs = [at.const(f"{kind.lower()}{place}", float(number)) for number in numbers]
        more = {"to": 1} if kind == "Cast" else {}
        x = at.op(kind, x, *inputs, part="" if place == len(steps) - 1 else f"part{place}", **more)
    return x


def unary(at: EmitSite, m: curved.Unary, x: str) -> str:
    """Any of them."""
    return chain(at, x, *UNARY[m.kind])


def gelu(at: EmitSite, m: nn.GELU, x: str) -> str:
    """Both forms, which opset 17 has no operator for."""
    half = at.op("Mul", x, at.const("half", 0.5), part="half")
    if m.approximate == "none":
        bell = at.op("Erf", at.op("Mul", x, at.const("root", math.sqrt(0.5)), part="scaled"), part="erf")
    else:
        cube = at.op("Mul", at.op("Pow", x, at.const("three", 3.0), part="cube"), at.const("c", 0.044715), part="bent")
        line = at.op("Add", x, cube, part="line")
        bell = at.op("Tanh", at.op("Mul", line, at.const("root", math.sqrt(2 / math.pi)), part="scaled"), part="tanh")
    return at.op("Mul", half, at.op("Add", bell, at.const("one", 1.0), part="share"))


def softplus(at: EmitSite, m: nn.Softplus, x: str) -> str:
    """`log(1 + exp(beta x)) / beta`, and x where that is the same to torch."""
    beta = at.const("beta", float(m.beta))
    scaled = at.op("Mul", x, beta, part="scaled")
    smooth = at.op("Div", at.op("Softplus", scaled, part="smooth"), beta, part="low")
    return at.op("Where", at.op("Greater", scaled, at.const("most", float(m.threshold)), part="far"), x, smooth)


def prelu(at: EmitSite, m: nn.PReLU, x: str) -> str:
    """A slope for each channel."""
    slope = m.weight.reshape(-1, *[1] * (at.dimensions(m) - 2)) if m.weight.numel() > 1 else m.weight
    return at.op("PRelu", x, at.const("slope", slope))


def layer_norm(at: EmitSite, m: nn.LayerNorm, x: str) -> str:
    """Over the last dimensions."""
    weight = torch.ones(m.normalized_shape) if m.weight is None else m.weight
    bias = [] if m.bias is None else [at.const("bias", m.bias)]
    scale = at.const("weight", weight)
    return at.op("LayerNormalization", x, scale, *bias, axis=-len(m.normalized_shape), epsilon=m.eps)


def rms_norm(at: EmitSite, m: nn.RMSNorm, x: str) -> str:
    """By the root of the mean square."""
    axes = list(range(-len(m.normalized_shape), 0))
    mean = at.op("ReduceMean", at.op("Mul", x, x, part="square"), part="mean", axes=axes)
    eps = torch.finfo(torch.float32).eps if m.eps is None else m.eps
    root = at.op("Sqrt", at.op("Add", mean, at.const("eps", eps), part="sum"), part="root")
    if m.weight is None:
        return at.op("Div", x, root)
    return at.op("Mul", at.op("Div", x, root, part="even"), at.const("weight", m.weight))


def group_norm(at: EmitSite, m: nn.GroupNorm, x: str) -> str:
    """Groups as the channels of an instance normalisation."""
    channels, *rest = at.shape(m)
    grouped = at.op("Reshape", x, at.const("groups", [0, m.num_groups, -1]), part="grouped")
    ones, zeros = torch.ones(m.num_groups), torch.zeros(m.num_groups)
    scales = at.const("ones", ones), at.const("zeros", zeros)
    even = at.op("InstanceNormalization", grouped, *scales, part="even", epsilon=m.eps)
    shape = at.const("shape", [0, channels, *rest])
    if m.weight is None:
        return at.op("Reshape", even, shape)
    back = at.op("Reshape", even, shape, part="back")
    column = (channels, *[1] * len(rest))
    scaled = at.op("Mul", back, at.const("weight", m.weight.reshape(column)), part="scaled")
    return at.op("Add", scaled, at.const("bias", m.bias.reshape(column)))


def response_norm(at: EmitSite, m: nn.LocalResponseNorm, x: str) -> str:
    """Across channels; ONNX places windows of an even size otherwise."""
    if m.size % 2 == 0:
        raise SnncError(
            f"The backend 'onnx' cannot write '{at.node.name}', a LocalResponseNorm of an even size.",
            "the backend torch or pt2",
        )
    return at.op("LRN", x, size=m.size, alpha=m.alpha, beta=m.beta, bias=m.k)


def normalize(at: EmitSite, m: curved.Normalize, x: str) -> str:
    """By the length along one dimension."""
    if m.p not in (1.0, 2.0):
        raise SnncError(
            f"The backend 'onnx' cannot write '{at.node.name}', which divides by a norm of order {m.p:g}.",
            "the backend torch or pt2",
        )
    length = at.op("ReduceL1" if m.p == 1 else "ReduceL2", x, part="length", axes=[m.dim], keepdims=1)
    return at.op("Div", x, at.op("Max", length, at.const("eps", m.eps), part="bound"))


def clip(at: EmitSite, m: curved.Clip, x: str) -> str:
    """Between bounds of which one may be open."""
    if m.low is None and m.high is None:
        return at.op("Identity", x)
    if m.low is not None:
        x = at.op("Max", x, at.const("low", m.low), part="" if m.high is None else "least")
    return x if m.high is None else at.op("Min", x, at.const("high", m.high))


def where(at: EmitSite, m: nn.Module, chosen: str, a: str, b: str) -> str:
    """A choice by a value of ones and zeros."""
    return at.op("Where", at.op("Greater", chosen, at.const("half", 0.5), part="chosen"), a, b)


def _operator(kind: str, *names: str, **renamed: str) -> Emitter:
    """One operator, of which some attributes are the module's."""
    table = {**dict.fromkeys(names), **renamed}

    def emitter(at: EmitSite, m: Any, *x: str) -> str:
        more: dict[str, Any] = {own: float(getattr(m, theirs or own)) for own, theirs in table.items()}
        return at.op(kind, *x, **more)

    return emitter


def _reduce(kind: str) -> Emitter:
    return lambda at, m, x: at.op(kind, x, axes=[int(d) for d in m.dims], keepdims=int(m.keepdim))


def _gated(inner: Callable[[EmitSite, str], str]) -> Emitter:
    """A value times a function of it."""
    return lambda at, m, x: at.op("Mul", x, inner(at, x))


def shrink(at: EmitSite, m: Any, x: str) -> str:
    """Both kinds."""
    return at.op("Shrink", x, lambd=float(m.lambd), bias=float(m.lambd) if isinstance(m, nn.Softshrink) else 0.0)


CURVED: dict[Kinds, Emitter | Refusal] = {
    nn.GELU: gelu,
    nn.SiLU: _gated(lambda at, x: at.op("Sigmoid", x, part="gate")),
    nn.Hardswish: _operator("HardSwish"),
    nn.Hardsigmoid: lambda at, m, x: at.op("HardSigmoid", x, alpha=1 / 6, beta=0.5),
    nn.Sigmoid: _operator("Sigmoid"),
    nn.Tanh: _operator("Tanh"),
    nn.ELU: _operator("Elu", "alpha"),
    nn.SELU: _operator("Selu"),
    nn.CELU: _operator("Celu", "alpha"),
    nn.Softplus: softplus,
    nn.Mish: _gated(lambda at, x: at.op("Tanh", at.op("Softplus", x, part="soft"), part="gate")),
    nn.LeakyReLU: _operator("LeakyRelu", alpha="negative_slope"),
    nn.PReLU: prelu,
    nn.LogSigmoid: lambda at, m, x: at.op("Neg", at.op("Softplus", at.op("Neg", x, part="less"), part="soft")),
    nn.Softsign: _operator("Softsign"),
    nn.Tanhshrink: lambda at, m, x: at.op("Sub", x, at.op("Tanh", x, part="tanh")),
    nn.Softshrink: shrink,
    nn.Hardshrink: shrink,
    nn.LayerNorm: layer_norm,
    nn.RMSNorm: rms_norm,
    nn.GroupNorm: group_norm,
    nn.LocalResponseNorm: response_norm,
    curved.Normalize: normalize,
    curved.Unary: unary,
    curved.Power: lambda at, m, x: at.op("Pow", x, at.const("exponent", m.exponent)),
    curved.Clip: clip,
    curved.Greatest: _reduce("ReduceMax"),
    curved.Least: _reduce("ReduceMin"),
    curved.Product: _operator("Mul"),
    curved.Quotient: _operator("Div"),
    curved.MatMul: _operator("MatMul"),
    curved.Maximum: _operator("Max"),
    curved.Minimum: _operator("Min"),
    curved.Where: where,
}
