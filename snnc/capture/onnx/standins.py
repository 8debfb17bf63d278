"""Stand-ins for the results of refused ONNX operations. Their shapes come from ONNX's own inference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from torch import fx

from snnc.capture.lowering import Lowering
from snnc.capture.onnx.fold import SAMPLES, Varying
from snnc.capture.onnx.model import OWN_DOMAINS, Call
from snnc.capture.refusals import Reason
from snnc.capture.values import LOST

Shape = tuple[int, ...] | None


def results_of(lowering: Lowering, call: Call, inputs: Sequence[Any], opset: int, reason: Reason) -> tuple[Any, ...]:
    """Stand-ins for what a refused node gives; `LOST` where it depends on no sample."""
    nodes = tuple(v for v in inputs if isinstance(v, fx.Node))
    if not nodes or call.op in ("Shape", "Size"):
        return (LOST,) * len(call.outputs)
    shapes = _inferred(lowering, call, inputs, opset)
    if not shapes and reason.alike:
        shapes = [lowering.shapes.shape(nodes[0])]
    shapes += [None] * (len(call.outputs) - len(shapes))
    return tuple(lowering.stand_in(shape, None, nodes, reason) for shape in shapes)


def _inferred(lowering: Lowering, call: Call, inputs: Sequence[Any], opset: int) -> list[Shape]:
    """Shapes of one sample, if they are known: one for each result, or none at all."""
    if call.domain not in OWN_DOMAINS:
        return []
    kinds: dict[str, onnx.TypeProto] = {}
    data: dict[str, onnx.TensorProto] = {}
    for name, value in zip(call.inputs, inputs, strict=True):
        value = value.first if isinstance(value, Varying) else value
        if isinstance(value, fx.Node) and (shape := lowering.shapes.shape(value)) is not None:
            sizes = (SAMPLES[0], *shape)
            kinds[name] = helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, sizes)
        elif isinstance(value, np.ndarray):
            data[name] = numpy_helper.from_array(np.ascontiguousarray(value))
            kinds[name] = helper.make_tensor_type_proto(data[name].data_type, value.shape)
        elif name:
            return []
    try:
        schema = onnx.defs.get_schema(call.op, opset)
        imports = [helper.make_opsetid("", opset)]
        found = onnx.shape_inference.infer_node_outputs(schema, call.proto, kinds, data, opset_imports=imports)
    except Exception:  # whatever the file says of the node
        return []
    return [_sample(found.get(name)) for name in call.outputs]


def _sample(kind: onnx.TypeProto | None) -> Shape:
    """The shape of one sample of a value whose batch comes first."""
    if kind is None or not kind.tensor_type.HasField("shape"):
        return None
    first, *sizes = [d.dim_value or None for d in kind.tensor_type.shape.dim] or [None]
    whole = tuple(n for n in sizes if n is not None)
    return whole if first == SAMPLES[0] and len(whole) == len(sizes) else None
