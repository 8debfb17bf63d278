"""The names of ONNX's operations and what each becomes: the torch functions of the same meaning."""

from __future__ import annotations

import functools
import math
from typing import Any

import onnx
import torch
from torch import Tensor, fx, nn

from snnc.capture import layers, pools, spellings
from snnc.capture.onnx import attending, curved
from snnc.capture.onnx import layers as onnx_layers
from snnc.capture.onnx import routes as onnx_routes
from snnc.capture.onnx import scaling as onnx_scaling
from snnc.capture.onnx.model import kind_name
from snnc.capture.onnx.site import OnnxSite
from snnc.capture.refusals import CONTROL, Reason, reason
from snnc.capture.values import Spelling, Truth

LEAST, MOST = float(torch.finfo(torch.float32).min), float(torch.finfo(torch.float32).max)
FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


def clip(at: OnnxSite, x: fx.Node, low: Any = None, high: Any = None) -> Any:
    """`Clip`. Attributes that say no bound hold the least and the greatest float."""
    least = at.real(low, at.get("min"))
    most = at.real(high, at.get("max"))
    least = None if least is None or least <= LEAST else least
    return spellings.clamp(at, x, least, None if most is None or most >= MOST else most)


def dropout(at: OnnxSite, x: fx.Node, ratio: Any = None, training: Any = None) -> Any:
    """`Dropout`: nothing, unless it drops at inference too."""
    on = training is not None and (not isinstance(training, Tensor) or bool(training.any()))
    return spellings.dropout(at, x, 0.5, on)


def cast(at: OnnxSite, x: fx.Node, like: Any = None) -> Any:
    """`Cast` between kinds of floats: all compute in float32 here."""
    to = at.get("to")
    if isinstance(x, fx.Node) and x in at.lowering.whole:
        return x  # it is looked up, and whole numbers stay what they are in any type
    if to is not None and to not in FLOATS:
        at.refuse(f"casts data to {kind_name(to)}", "keep data in floating point")
    if isinstance(like, Tensor) and not like.is_floating_point():
        at.refuse("casts data to integers", "keep data in floating point")
    x = x.node if isinstance(x, Truth) else x
    return x.float() if isinstance(x, Tensor) else x


def head(cls: Any) -> Spelling:
    """`Softmax` and `LogSoftmax`. Before opset 13 they take all dimensions from `axis` on as one."""

    def spelling(at: OnnxSite, x: fx.Node) -> Any:
        if at.sizes(x) is None:  # after a refused operation, whose shape is unknown
            return at.emit(cls(-1), x)
        axis = at.axis(x, at.get("axis", -1 if at.opset >= 13 else 1))
        sizes = at.known(x)[axis - 1 :]
        if at.opset < 13 and math.prod(sizes) != max(sizes):
            at.refuse("takes the softmax over several dimensions at once", "flatten before it")
        if at.opset < 13:
            axis += sizes.index(max(sizes))
        return spellings.head(cls)(at, x, axis)

    return spelling


def many(spelling: Any) -> Spelling:
    """An operation on two values, for any number of them."""

    def spelled(at: OnnxSite, *values: Any) -> Any:
        return functools.reduce(lambda a, b: spelling(at, a, b), values)

    return spelled


def mean(at: OnnxSite, *values: Any) -> Any:
    """`Mean` of several values."""
    total = many(spellings.add)(at, *values)
    return total if len(values) == 1 else spellings.mul(at, total, 1 / len(values))


OPERATIONS: dict[str, Spelling] = {
    # activations and rounding
    "Relu": spellings.relu,
    "Clip": clip,
    "Max": many(spellings.maximum),
    "Min": many(spellings.minimum),
    "Floor": spellings.floor,
    "Round": spellings.round_,
    "Softmax": head(nn.Softmax),
    "LogSoftmax": head(nn.LogSoftmax),
    # arithmetic
    "Add": spellings.add,
    "Sub": spellings.sub,
    "Neg": spellings.neg,
    "Sum": many(spellings.add),
    "Mean": mean,
    "MatMul": onnx_layers.matmul,
    "Gemm": onnx_layers.gemm,
    **curved.OPERATIONS,
    "Attention": attending.attention,
    "RotaryEmbedding": attending.rotary,
    # layers
    "Conv": onnx_layers.conv,
    "ConvTranspose": onnx_layers.conv_transpose,
    "BatchNormalization": onnx_layers.batch_norm,
    "MaxPool": onnx_layers.max_pool,
    "AveragePool": onnx_layers.average_pool,
    "GlobalAveragePool": onnx_layers.global_pool(pools.ADAPTIVE_AVERAGE),
    "GlobalMaxPool": onnx_layers.global_pool(pools.ADAPTIVE_MAXIMUM),
    "ReduceMean": onnx_layers.reduced(pools.mean),
    "ReduceSum": onnx_layers.reduced(pools.sum_),
    "ReduceMax": onnx_layers.reduced(pools.amax),
    "Upsample": onnx_scaling.upsample,
    "Resize": onnx_scaling.resize,
    "CumSum": onnx_scaling.cumsum,
    "GridSample": onnx_scaling.grid_sample,
    "DepthToSpace": onnx_routes.depth_to_space,
    "SpaceToDepth": onnx_routes.space_to_depth,
    # routes
    "Reshape": onnx_routes.reshape,
    "Flatten": onnx_routes.flatten,
    "Squeeze": onnx_routes.squeeze,
    "Unsqueeze": onnx_routes.unsqueeze,
    "Transpose": onnx_routes.transpose,
    "Concat": onnx_routes.concat,
    "Split": onnx_routes.split,
    "Slice": onnx_routes.slice_,
    "Gather": onnx_routes.gather,
    "GatherElements": onnx_routes.gather_elements,
    "ScatterElements": onnx_routes.scatter_elements,
    "ScatterND": onnx_routes.scatter_nd,
    "Col2Im": onnx_routes.col2im,
    "Tile": onnx_routes.tile,
    "Trilu": onnx_routes.trilu,
    "Expand": onnx_routes.expand,
    "Pad": onnx_routes.pad,
    # sizes
    "Shape": onnx_routes.shape,
    "Size": onnx_routes.size,
    # nothing, at inference
    "Identity": layers.keep,
    "Dropout": dropout,
    "Cast": cast,
    "CastLike": cast,
}
# Those that know what to do with sizes that depend on the number of samples.
SIZED = frozenset({"Reshape", "Slice", "Expand", "Concat", "Resize", "ScatterND", "ScatterElements"})

# Those that broadcast: a constant that every sample has alike may have the batch's size.
SHARED = frozenset(
    {"Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Where", "Equal", "Less", "Greater", "LessOrEqual"}
    | {"GreaterOrEqual", "And", "Or", "GatherElements", "GridSample", "Attention", "RotaryEmbedding", "MatMul"}
)


def refusal(op: str) -> Reason:
    """Why an operation is refused; `If` has the name of a neuron too."""
    return CONTROL if op == "If" else reason(op)
