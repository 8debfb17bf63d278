"""An ONNX model as something to run, for the comparison with the graph that was read from it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, fx

from snnc.capture.comparison import Reference, compare, not_compared
from snnc.capture.onnx.input import sample_shape
from snnc.capture.onnx.model import read
from snnc.errors import Blocker
from snnc.structure import Samples, Shape, each, of, shapes_of

Session = Callable[[dict[str, Any]], Any]
_QUIET = 4  # onnxruntime's log
_KINDS = onnx.TensorProto
# What each type rounds to, relative; all else is float32.
_PRECISION: dict[Any, torch.dtype] = {_KINDS.FLOAT16: torch.float16, _KINDS.BFLOAT16: torch.bfloat16}


def compare_onnx(
    model: onnx.ModelProto, graph: fx.GraphModule, shape: Shape, samples: Samples | None
) -> tuple[dict[str, Any], Blocker | None]:
    """Runs a graph and the model that it was read from on the same batches; see `compare`.

    onnxruntime runs the model, or ONNX's own reference where that does not take it.
    """
    program = read(model)
    ends = [
        (entry, told, sample_shape(entry, told, len(program.entries) > 1))
        for entry, told in zip(program.entries, shapes_of(shape, len(program.entries)), strict=True)
    ]
    kinds: set[Any] = {
        *(entry.kind for entry in program.entries),
        *(weight.data_type for weight in program.weights.values()),
    }
    kinds |= {call.attributes.get("to") for call in program.calls}
    precision = max(torch.finfo(_PRECISION.get(kind, torch.float32)).eps for kind in kinds)
    reasons = []
    for name, start in (("onnxruntime", _onnxruntime), ("onnx.reference", _reference)):
        try:
            session = start(model)
            batch = program.entries[0].sizes[0] if program.entries[0].sizes else None

            def run(x: Samples, session: Session = session) -> Any:
                found = [_tensor(value) for value in session(_fed(ends, x))]
                return dict(zip(program.results, found, strict=True)) if len(found) > 1 else found[0]

            run(of([torch.zeros(batch or 1, *(told or ())) for _, told, _ in ends]))
        except Exception as error:  # both raise what they like
            reasons.append(f"{name}: {' '.join(str(error).split())[:200]}")
            continue
        values = partial(_values, model, start, ends)
        halves = name == "onnxruntime"
        network = Reference(run, name, torch.zeros(()), batch, precision=precision, halves=halves, values=values)
        return compare(graph, network, shape, samples)
    return not_compared(f"nothing runs the model ({'; '.join(reasons)})"), None


def _ordered(x: Tensor, told: Any, own: tuple[int, ...]) -> Tensor:
    """Samples in the order of the model, as `laid_out` has it."""
    if own != told and own == (*told[1:], told[0]):
        return x.movedim(1, -1)
    return x.reshape(len(x), *own)


def _values(model: onnx.ModelProto, start: Callable[[Any], Session], ends: list[Any], x: Samples) -> dict[str, Any]:
    """Every value of a model by its name: the model with all of them as outputs."""
    names = [name for node in model.graph.node for name in node.output if name]
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    del wide.graph.output[:]
    wide.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return dict(zip(names, map(_tensor, start(wide)(_fed(ends, x))), strict=True))


def _fed(ends: list[Any], x: Samples) -> dict[str, Any]:
    """Samples as the model takes them, by name."""
    return {
        entry.name: _ordered(one, told, own).contiguous().numpy().astype(_numpy(entry.kind))
        for (entry, told, own), one in zip(ends, each(x), strict=True)
    }


def _tensor(value: Any) -> Tensor:
    return torch.from_numpy(np.array(value, dtype=np.float32))


def _onnxruntime(model: onnx.ModelProto) -> Session:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _QUIET
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = torch.get_num_threads()
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda feed: session.run(None, feed)


def _reference(model: onnx.ModelProto) -> Session:
    evaluator = ReferenceEvaluator(model)
    return lambda feed: evaluator.run(None, feed)


def _numpy(kind: int) -> np.dtype[Any]:
    return helper.tensor_dtype_to_np_dtype(kind)
