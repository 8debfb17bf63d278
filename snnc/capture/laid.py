"""Operations on values whose batch stands elsewhere than in front, or shares a dimension: see `layout`.

What acts on single numbers, or on the last dimensions, acts on the value itself and keeps its author's view.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from snnc.capture import constants, gathering, layout, norms, routes
from snnc.capture.layout import MOVED, Laid, canonical, index, route_of, settled, single
from snnc.capture.lowering import Site
from snnc.capture.values import Batch, ManyBatches, Spelling
from snnc.ir import dialect

# How many of the last dimensions an operation works on; all others, the batch among them, it treats alike.
LAST: dict[str, int] = {
    **dict.fromkeys(("add", "sub", "rsub", "mul", "multiply", "div", "divide", "true_divide", "truediv", "neg"), 0),
    **dict.fromkeys(("relu", "gelu", "silu", "sigmoid", "tanh", "hardswish", "hardsigmoid", "leaky_relu", "elu"), 0),
    **dict.fromkeys(("mish", "softplus", "clamp", "hardtanh", "relu6", "exp", "abs", "sqrt", "pow", "square"), 0),
    **dict.fromkeys(("contiguous", "clone", "detach", "to", "float", "type_as", "dropout", "alias", "_to_copy"), 0),
    **dict.fromkeys(("masked_fill", "where", "clamp_min", "clamp_max", "maximum", "minimum", "rsqrt", "reciprocal"), 0),
    **dict.fromkeys(("log", "log1p", "expm1", "erf", "sin", "cos", "sign", "celu", "selu", "softsign", "lerp"), 0),
    **dict.fromkeys(("Identity", "Dropout", "ReLU", "GELU", "SiLU", "Sigmoid", "Tanh", "Hardswish", "LeakyReLU"), 0),
    **dict.fromkeys(("linear", "Linear", "LayerNorm", "RMSNorm", "native_layer_norm", "layer_norm", "rms_norm"), 1),
    **dict.fromkeys(("matmul", "bmm", "mm", "baddbmm", "addmm", "scaled_dot_product_attention"), 2),
}
ALONG = frozenset({"softmax", "log_softmax", "_softmax", "_log_softmax", "Softmax"})
REDUCED = frozenset({"mean", "sum", "amax", "amin"})
NEW = frozenset({"new_zeros", "new_ones", "new_full"})  # which ask for the type alone
# These treat each channel, the author's dimension 1, by itself, and all other dimensions alike.
CHANNELS = frozenset({"BatchNorm1d", "BatchNorm2d", "batch_norm", "_native_batch_norm_legit_no_training", "PReLU"})


def dispatch(at: Site, name: str, spelling: Spelling | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An operation on values of which some are `Laid`."""
    if moved := route_of(name):
        x, *rest = args
        return moved(at, x, *rest, **kwargs)
    values = [v for v in _inside(args) if isinstance(v, Laid)]
    if spelling is None:
        at.refuse(*MOVED)
    if name in ALONG:
        laid = canonical(at, values[0])
        place = [i for i, v in enumerate(args) if isinstance(v, int) and not isinstance(v, bool)]
        dim = args[place[0]] if place else kwargs.get("dim", -1)
        a = single(at, laid, dim)
        fed = [laid.node if isinstance(v, Laid) else v for v in args]
        if place:
            fed[place[0]] = a
            return settled(at, Laid(spelling(at, *fed, **kwargs), laid.dims))
        return settled(at, Laid(spelling(at, *fed, **{**kwargs, "dim": a}), laid.dims))
    if name in REDUCED:
        return _reduced(at, spelling, canonical(at, values[0]), *args[1:], **kwargs)
    if name in ("cat", "concat", "concatenate"):
        return _joined(at, args[0], args[1] if len(args) > 1 else kwargs.get("dim", 0))
    if name in NEW:
        return spelling(at, values[0].node, *args[1:], **kwargs)
    if name in CHANNELS:
        return _by_channels(at, spelling, values[0], args, kwargs)
    if name in OTHERS:
        return OTHERS[name](at, canonical(at, values[0]), *args[1:], **kwargs)
    if name not in LAST:
        at.refuse(*MOVED)
    laids = {id(v): canonical(at, v) for v in values}
    first = next(iter(laids.values()))
    matrix = name in ("matmul", "mm", "addmm") and isinstance(args[-1], Tensor) and args[-1].dim() == 2
    last = LAST["linear"] if matrix else LAST[name]
    whole = len(first.dims) - last
    for laid in laids.values():
        if laid.dims != first.dims or any(len(d) != 1 or d == (0,) for d in laid.dims[whole:]):
            at.refuse(*MOVED)
    behind = len(first.dims) - 1 - max(i for i, d in enumerate(first.dims) if 0 in d or len(d) != 1)
    for v in _inside((args, kwargs)):
        if isinstance(v, fx.Node) or (isinstance(v, Tensor) and last != 1 and _leading_ones(v) > behind):
            at.refuse(*MOVED)
    fed, named = _swapped(args, laids), _swapped(kwargs, laids)
    result = spelling(at, *fed, **named)
    tupled = isinstance(result, tuple)
    node = result[0] if tupled else result
    if not isinstance(node, fx.Node):
        at.refuse(*MOVED)
    made = settled(at, Laid(node, first.dims))
    return (made,) if tupled else made


def _leading_ones(value: Tensor) -> int:
    """Dimensions of a constant behind those in front of size one."""
    sizes = list(value.shape)
    while sizes and sizes[0] == 1:
        del sizes[0]
    return len(sizes)


def _swapped(value: Any, laids: dict[int, Laid]) -> Any:
    if isinstance(value, Laid):
        return laids[id(value)].node
    if isinstance(value, (tuple, list)):
        return type(value)(_swapped(v, laids) for v in value)
    if isinstance(value, dict):
        return {k: _swapped(v, laids) for k, v in value.items()}
    return value


def _inside(value: Any) -> list[Any]:
    if isinstance(value, (tuple, list)):
        return [v for item in value for v in _inside(item)]
    if isinstance(value, dict):
        return _inside(list(value.values()))
    return [value]


def _reduced(at: Site, spelling: Spelling, laid: Laid, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Any:
    if dim is None:
        at.refuse("reduces the batch as well", "name the dimensions")
    given = [d % len(laid.dims) for d in (dim if isinstance(dim, (tuple, list)) else (dim,))]
    node = spelling(at, laid.node, tuple(single(at, laid, d) for d in given), True)
    made = Laid(node, laid.dims)
    return (
        settled(at, made)
        if keepdim
        else index(at, made, tuple(0 if d in given else slice(None) for d in range(len(laid.dims))))
    )


def _joined(at: Site, values: Any, dim: Any) -> Any:
    if not all(isinstance(v, Laid) for v in values):
        at.refuse(*MOVED)
    laids = [canonical(at, v) for v in values]
    if any(laid.dims != laids[0].dims for laid in laids):
        at.refuse(*MOVED)
    node = at.emit(dialect.Concat(single(at, laids[0], dim)), *(laid.node for laid in laids))
    return settled(at, Laid(node, laids[0].dims))


def _by_channels(at: Site, spelling: Spelling, x: Laid, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An operation on `[B, C, ...]`: the value is brought into that order, and its other dimensions are joined."""
    laid = canonical(at, x)
    a, sizes = single(at, laid, 1), at.known(laid.node)
    order = (0, a, *(d for d in range(1, len(sizes) + 1) if d != a))
    node = routes.permute(at, laid.node, order)
    moved = at.known(node)
    spare = max(len(laid.dims) - 3, 0)
    node = routes.reshape(at, node, Batch(), moved[0], math.prod(moved[1:]), *[1] * spare)
    fed, named = _swapped(args, {id(x): Laid(node, ())}), _swapped(kwargs, {id(x): Laid(node, ())})
    result = spelling(at, *fed, **named)
    tupled = isinstance(result, tuple)
    node = routes.reshape(at, result[0] if tupled else result, Batch(), *moved)
    made = settled(at, Laid(node, tuple(tuple(order.index(d) for d in dim) for dim in laid.dims)))
    return (made,) if tupled else made


def _norm(at: Site, laid: Laid, p: Any = 2, dim: Any = None, keepdim: bool = False, **_: Any) -> Any:
    """ATen's `linalg_vector_norm`."""

    def spelling(at: Site, x: fx.Node, dims: Any, keep: bool) -> Any:
        return norms.norm(at, x, p, dims, keep)

    return _reduced(at, spelling, laid, dim, keepdim)


def _normalize(at: Site, laid: Laid, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Any = None) -> Any:
    """`F.normalize`."""
    return settled(at, Laid(norms.normalize(at, laid.node, p, single(at, laid, dim), eps), laid.dims))


def _pad(at: Site, laid: Laid, pads: Any, mode: str = "constant", value: Any = None) -> Any:
    """Constants around some of the last dimensions."""
    if mode != "constant":
        at.refuse(*MOVED)
    numbers = [at.integer(p) for p in pads]
    flat = [0] * (2 * len(at.known(laid.node)))
    for place in range(len(numbers) // 2):
        pair = numbers[2 * place : 2 * place + 2]
        if any(pair):
            behind = len(at.known(laid.node)) - single(at, laid, len(laid.dims) - 1 - place)
            flat[2 * behind : 2 * behind + 2] = pair
    return settled(at, Laid(routes.pad(at, laid.node, flat, "constant", value), laid.dims))


def _constant_pad(at: Site, laid: Laid, pads: Any, value: Any = 0) -> Any:
    """ATen's."""
    return _pad(at, laid, pads, "constant", value)


def _expand(at: Site, laid: Laid, *sizes: Any) -> Any:
    """Dimensions of size one over more."""
    run = tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
    own = layout.shape(at, laid)
    if len(run) != len(own):
        at.refuse(*MOVED)
    wanted = [-1] * (len(at.known(laid.node)) + 1)
    for dim, (new, old) in enumerate(zip(run, own, strict=True)):
        if new not in (-1, old, _counted(at, old)):
            wanted[single(at, laid, dim)] = at.integer(new)
    return settled(at, Laid(gathering.moved(at, laid.node, lambda v: v.expand(wanted)), laid.dims))


def _counted(at: Site, size: Any) -> Any:
    """A size in numbers, where the number of samples is written down."""
    if at.lowering.batch is None or not isinstance(size, (Batch, ManyBatches)):
        return size
    return at.lowering.batch * (size.times if isinstance(size, ManyBatches) else 1)


def _filled(number: float) -> Callable[..., Any]:
    """`torch.zeros_like` and `torch.ones_like`."""

    def filled(at: Site, laid: Laid, **_: Any) -> Any:
        sample = torch.full(at.known(laid.node), number)
        return settled(at, Laid(constants.value(at, sample), laid.dims))

    return filled


OTHERS: dict[str, Callable[..., Any]] = {
    "zeros_like": _filled(0.0),
    "ones_like": _filled(1.0),
    "pad": _pad,
    "constant_pad_nd": _constant_pad,
    "expand": _expand,
    "linalg_vector_norm": _norm,
    "normalize": _normalize,
}
