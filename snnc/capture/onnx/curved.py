"""ONNX's curved operations, by way of torch's functions, and values whose batch is not in front."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from snnc.capture import choices, curved, formulas, layers, layout, norms, pools, products, spellings
from snnc.capture.laid import dispatch
from snnc.capture.layout import Laid
from snnc.capture.onnx.site import OnnxSite
from snnc.capture.values import Batch, ManyBatches, Spelling
from snnc.ir.curved import Greatest, Least, Normalize, Unary

DECIMALS = 6  # of an attribute that the author wrote as a decimal and the file holds in float32


def decimal(value: float) -> float:
    """A number as its author wrote it."""
    return float(f"{value:.{DECIMALS}g}")


def gelu(at: OnnxSite, x: Any) -> Any:
    """`Gelu`."""
    return curved.gelu(at, x, _text(at.get("approximate", "none")))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def hard_sigmoid(at: OnnxSite, x: Any) -> Any:
    """`HardSigmoid`: `clip(alpha x + beta, 0, 1)`."""
    alpha, beta = at.get("alpha", 0.2), at.get("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return at.emit(nn.Hardsigmoid(), x)
    line = spellings.add(at, spellings.mul(at, x, decimal(alpha)), decimal(beta))
    return spellings.clamp(at, line, 0.0, 1.0)


def selu(at: OnnxSite, x: Any) -> Any:
    """`Selu`."""
    alpha, gamma = at.get("alpha", 1.67326319), at.get("gamma", 1.05070102)
    if abs(alpha - 1.6732632) < 1e-5 and abs(gamma - 1.050701) < 1e-5:
        return at.emit(nn.SELU(), x)
    return spellings.mul(at, at.emit(nn.ELU(float(alpha)), x), float(gamma))


def swish(at: OnnxSite, x: Any) -> Any:
    """`Swish`: `x sigmoid(alpha x)`."""
    alpha = at.get("alpha", 1.0)
    if alpha == 1.0:
        return at.emit(nn.SiLU(), x)
    return products.product(at, x, at.emit(nn.Sigmoid(), spellings.mul(at, x, decimal(alpha))))


def prelu(at: OnnxSite, x: Any, slope: Any) -> Any:
    """`PRelu` with one slope, or one for each channel."""
    if not isinstance(slope, Tensor):
        at.refuse("takes its slope from data", "a constant slope")
    channels, *rest = at.known(x)
    shape = list(slope.shape)
    while len(shape) > len(rest) + 1 and shape[0] == 1:
        del shape[0]
    if slope.numel() != 1 and shape != [channels, *[1] * len(rest)]:
        at.refuse("has a slope for each position", "one slope, or one for each channel")
    return curved.prelu(at, x, slope)


def shaped(at: OnnxSite, x: Any, weight: Any, bias: Any) -> tuple[tuple[int, ...], Any, Any]:
    """The shape that a normalisation covers, and its weights in that shape."""
    axis = at.axis(x, at.get("axis", -1))
    shape = at.known(x)[axis - 1 :]
    norms._constants(at, weight, bias)
    weight, bias = (None if v is None else v.expand(shape).contiguous() for v in (weight, bias))
    return shape, weight, bias


def layer_norm(at: OnnxSite, x: Any, weight: Any = None, bias: Any = None) -> Any:
    """`LayerNormalization`."""
    shape, weight, bias = shaped(at, x, weight, bias)
    return norms.layer_norm(at, x, shape, weight, bias, decimal(at.get("epsilon", 1e-5)))


def rms_norm(at: OnnxSite, x: Any, weight: Any = None) -> Any:
    """`RMSNormalization`."""
    shape, weight, _ = shaped(at, x, weight, None)
    return norms.rms_norm(at, x, shape, weight, decimal(at.get("epsilon", 1e-5)))


def group_norm(at: OnnxSite, x: Any, weight: Any, bias: Any) -> Any:
    """`GroupNormalization`: weights are of groups before opset 21, of channels from then on."""
    groups, channels = int(at.get("num_groups", 1)), at.known(x)[0]
    norms._constants(at, weight, bias)
    if at.opset < 21:
        weight, bias = (v.repeat_interleave(channels // groups) for v in (weight, bias))
    return norms.group_norm(at, x, groups, weight, bias, decimal(at.get("epsilon", 1e-5)))


def instance_norm(at: OnnxSite, x: Any, weight: Any, bias: Any) -> Any:
    """`InstanceNormalization`."""
    return norms.instance_norm(at, x, None, None, weight, bias, True, eps=decimal(at.get("epsilon", 1e-5)))


def response_norm(at: OnnxSite, x: Any) -> Any:
    """`LRN`, whose window torch places alike where its size is odd."""
    size = int(at.get("size", 1))
    if size % 2 == 0:
        at.refuse("normalises over an even number of channels, which torch places otherwise", "an odd size")
    alpha, beta, k = (
        decimal(at.get(name, default)) for name, default in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    )
    return norms.local_response_norm(at, x, size, alpha, beta, k)


def lp_norm(at: OnnxSite, x: Any) -> Any:
    """`LpNormalization`."""
    return at.emit(Normalize(float(at.get("p", 2)), at.axis(x, at.get("axis", -1)), 1e-12), x)


def reduced(spelling: Callable[..., Any]) -> Spelling:
    """A function over axes, which are an attribute or an input."""

    def spelled(at: OnnxSite, x: Any, axes: Any = None) -> Any:
        return spelling(at, x, at.numbers(axes, "axes"), bool(at.get("keepdims", 1)))

    return spelled


def _sum_of(kind: str) -> Callable[..., Any]:
    return lambda at, x, dims, keep: pools.sum_(at, at.emit(Unary(kind), x), dims, keep)


def where(at: OnnxSite, condition: Any, x: Any, other: Any) -> Any:
    """`Where`; a constant mask comes as whole numbers."""
    return choices.where(at, condition != 0 if isinstance(condition, Tensor) else condition, x, other)


def logical(spelling: Spelling) -> Spelling:
    """`And`, `Or`; a constant mask comes as whole numbers."""
    return lambda at, a, b: spelling(at, *(v != 0 if isinstance(v, Tensor) else v for v in (a, b)))


def einsum(at: OnnxSite, *values: Any) -> Any:
    """`Einsum`."""
    return formulas.einsum(at, _text(at.get("equation", "")), *values)


def power(at: OnnxSite, x: Any, exponent: Any) -> Any:
    """`Pow`."""
    return curved.power(at, x, exponent)


OPERATIONS: dict[str, Spelling] = {
    "Gelu": gelu,
    "Sigmoid": curved.SPELLINGS["sigmoid"],
    "Tanh": curved.SPELLINGS["tanh"],
    "HardSwish": curved.SPELLINGS["hardswish"],
    "HardSigmoid": hard_sigmoid,
    "Elu": lambda at, x: at.emit(nn.ELU(decimal(at.get("alpha", 1.0))), x),
    "Selu": selu,
    "Celu": lambda at, x: at.emit(nn.CELU(decimal(at.get("alpha", 1.0))), x),
    "Swish": swish,
    "Softplus": curved.SPELLINGS["softplus"],
    "Mish": curved.SPELLINGS["mish"],
    "LeakyRelu": lambda at, x: at.emit(nn.LeakyReLU(decimal(at.get("alpha", 0.01))), x),
    "PRelu": prelu,
    "Softsign": curved.SPELLINGS["softsign"],
    **{name: curved.unary(name.lower()) for name in ("Abs", "Exp", "Log", "Sqrt", "Reciprocal", "Sin", "Cos", "Erf")},
    **{name: curved.unary(name.lower()) for name in ("Sign", "Atan", "Tan", "Sinh", "Cosh")},
    **{name: curved.unary(name.lower()) for name in ("Asin", "Acos", "Asinh", "Acosh", "Atanh")},
    "Pow": power,
    "LayerNormalization": layer_norm,
    "RMSNormalization": rms_norm,
    "GroupNormalization": group_norm,
    "InstanceNormalization": instance_norm,
    "LRN": response_norm,
    "LpNormalization": lp_norm,
    "ReduceMin": reduced(lambda at, x, dims, keep: norms.largest(Least)(at, x, dims, keep)),
    "ReduceL1": reduced(_sum_of("abs")),
    "ReduceSumSquare": reduced(_sum_of("square")),
    "ReduceL2": reduced(lambda at, x, dims, keep: norms.norm(at, x, 2, dims, keep)),
    "ReduceLogSumExp": reduced(curved.logsumexp),
    "ReduceProd": reduced(products.prod),
    "Greater": choices.compare("positive"),
    "GreaterOrEqual": choices.compare("not_negative"),
    "Less": choices.compare("positive", swapped=True),
    "LessOrEqual": choices.compare("not_negative", swapped=True),
    "Equal": choices.compare("is_zero"),
    "Not": choices.logical_not,
    "And": logical(choices.logical_and),
    "Or": logical(choices.logical_or),
    **dict.fromkeys(("IsNaN", "IsInf"), choices.never),
    "Where": where,
    "Mul": products.product,
    "Div": products.quotient,
    "Einsum": einsum,
}

# Operations on values whose batch is not in front, by the names that `layout` knows.
POINTWISE = frozenset(
    {"Relu", "Gelu", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "Elu", "Selu", "Swish", "Softplus", "Mish", "Erf"}
    | {"Add", "Sub", "Mul", "Div", "Sqrt", "Exp", "Abs", "Pow", "Neg", "Clip", "LeakyRelu", "Where", "Reciprocal"}
)
REDUCED: dict[str, Spelling] = {
    "ReduceMean": pools.mean,
    "ReduceSum": pools.sum_,
    "ReduceMax": norms.largest(Greatest),
    "ReduceMin": norms.largest(Least),
    "ReduceL1": lambda at, x, dims, keep: norms.norm(at, x, 1, dims, keep),
    "ReduceL2": lambda at, x, dims, keep: norms.norm(at, x, 2, dims, keep),
}
KEPT = frozenset({"Cast", "CastLike", "Identity", "Dropout"})


def laid(at: OnnxSite, spelling: Spelling, values: tuple[Any, ...]) -> Any:
    """An operation on values of which some are `Laid`."""
    op, x = at.op, values[0]
    if op in KEPT:
        return x
    if op == "ScatterND":
        return spelling(at, *values)
    if op in POINTWISE:
        return dispatch(at, "add", spelling, values, {})
    if op == "MatMul":
        constant = isinstance(values[1], Tensor)
        return dispatch(at, "linear" if constant else "matmul", spelling, values, {})
    if op == "Gemm" and isinstance(values[1], Tensor) and not at.get("transA", 0):
        weight = (values[1] if at.get("transB", 0) else values[1].t()) * at.get("alpha", 1.0)
        bias = values[2] * at.get("beta", 1.0) if len(values) > 2 and values[2] is not None else None
        return dispatch(at, "linear", layers.linear, (x, weight, bias), {})
    if op in ("LayerNormalization", "RMSNormalization") and at.get("axis", -1) in (-1, len(x.dims) - 1):
        at.attributes = {**at.attributes, "axis": -1}
        return dispatch(at, "layer_norm", spelling, values, {})
    if op in ("Softmax", "LogSoftmax"):
        head = spellings.head(nn.Softmax if op == "Softmax" else nn.LogSoftmax)
        axis = at.get("axis", -1 if at.opset >= 13 else 1) % len(x.dims)
        if at.opset < 13 and axis != len(x.dims) - 1:
            at.refuse(*layout.MOVED)
        return dispatch(at, "softmax", head, (x, axis), {})
    if reduce := REDUCED.get(op):
        dims = at.numbers(values[1] if len(values) > 1 else None, "axes")
        return dispatch(at, "mean", reduce, (x, tuple(dims or ()), bool(at.get("keepdims", 1))), {})
    if op == "BatchNormalization":
        return dispatch(at, "batch_norm", spelling, values, {})
    if op == "Pad" and isinstance(x, Laid):
        amounts, rank = at.numbers(values[1] if len(values) > 1 else None, "pads") or [], len(x.dims)
        if len(values) > 3 or len(amounts) != 2 * rank or _text(at.get("mode", "constant")) != "constant":
            at.refuse(*layout.MOVED)
        flat = [n for pair in zip(amounts[rank - 1 :: -1], amounts[: rank - 1 : -1], strict=True) for n in pair]
        return dispatch(
            at, "pad", spelling, (x, flat, "constant", at.real(values[2] if len(values) > 2 else None, 0.0)), {}
        )
    if op == "Expand" and isinstance(x, Laid):
        wanted, own = at.numbers(values[1]) or [], layout.shape(at, x)
        if len(wanted) != len(own):
            at.refuse(*layout.MOVED)
        run = [-1 if new == 1 else new for new in wanted]
        return dispatch(at, "expand", spelling, (x, run), {})
    if op == "Concat":
        return dispatch(at, "cat", None if not values else spelling, (list(values), at.get("axis", 1)), {})
    if not isinstance(x, Laid):
        return at.refuse(*layout.MOVED)
    return _moved(at, op, x, values[1:])


def _moved(at: OnnxSite, op: str, x: Laid, rest: tuple[Any, ...]) -> Any:
    """Dimensions moved, joined and split."""
    rank = len(x.dims)
    if op == "Transpose":
        return layout.permute(at, x, at.get("perm", list(range(rank))[::-1]))
    if op == "Reshape":
        own = layout.shape(at, x)
        wanted = at.numbers(rest[0] if rest else None, "shape") or []
        if not at.get("allowzero", 0):
            wanted = [own[i] if s == 0 else s for i, s in enumerate(wanted)]
        return layout.reshape(at, x, wanted)
    if op in ("Squeeze", "Unsqueeze"):
        dims = at.numbers(rest[0] if rest else None, "axes") or []
        if op == "Squeeze":
            return layout.route("squeeze")(at, x, dims or None)
        for dim in sorted(d % (rank + len(dims)) for d in dims):
            x = layout.of(at, x)
            x = layout.route("unsqueeze")(at, x, dim)
        return x
    if op == "Gather":
        axis, place = at.get("axis", 0) % rank, rest[0]
        if not isinstance(place, Tensor) or place.numel() != 1:
            return at.refuse("picks several entries where the batch is not in front", "one entry at a time")
        item: Any = int(place) if place.dim() == 0 else slice(int(place), int(place) + 1 or None)
        return layout.index(at, x, tuple(item if d == axis else slice(None) for d in range(rank)))
    if op == "Slice":
        first, last, dims, steps = (
            [
                *(at.numbers(v) or [None]),
            ]
            for v in (*rest, *[None] * (4 - len(rest)))
        )
        items = [slice(None)] * rank
        for k, start in enumerate(first):
            axis = dims[k] % rank if dims[0] is not None else k
            stop = at.integer(last[k])
            items[axis] = slice(start, None if stop >= 2**31 - 1 else stop, steps[k] if steps[0] is not None else None)
        return layout.index(at, x, tuple(items))
    if op == "Split":
        axis = at.get("axis", 0) % rank
        total = at.integer(layout.shape(at, x)[axis])
        sizes = at.numbers(rest[0] if rest else None, "split") or [-(-total // at.results)] * at.results
        return layout.route("split")(at, x, sizes, axis)
    return at.refuse(*layout.MOVED)


def sizes(at: OnnxSite, x: Laid, samples: int) -> list[int]:
    """Sizes of a value whose batch is not in front, for a number of samples."""
    found = layout.shape(at, x)
    return [
        samples * (n.times if isinstance(n, ManyBatches) else 1) if isinstance(n, (Batch, ManyBatches)) else n
        for n in found
    ]
