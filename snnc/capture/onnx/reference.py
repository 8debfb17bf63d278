"""An ONNX model as something to run, for the comparison with the graph that was read from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, fx

from snnc.capture.comparison import Reference, compare, not_compared
from snnc.capture.onnx.input import only_entry, sample_shape
from snnc.capture.onnx.model import read
from snnc.errors import Blocker

Shape = tuple[int, ...]
_QUIET = 4  # onnxruntime's log
_KINDS = onnx.TensorProto
# What each type rounds to, relative; all else is float32.
_PRECISION: dict[Any, torch.dtype] = {_KINDS.FLOAT16: torch.float16, _KINDS.BFLOAT16: torch.bfloat16}


def compare_onnx(
    model: onnx.ModelProto, graph: fx.GraphModule, shape: Shape, samples: Tensor | None
) -> tuple[dict[str, Any], Blocker | None]:
    """Runs a graph and the model that it was read from on the same batches; see `compare`.

    onnxruntime runs the model, or ONNX's own reference where that does not take it.
    """
    program = read(model)
    entry, _ = only_entry(program)
    own = sample_shape(entry, shape)
    kinds: set[Any] = {entry.kind, *(weight.data_type for weight in program.weights.values())}
    kinds |= {call.attributes.get("to") for call in program.calls}
    precision = max(torch.finfo(_PRECISION.get(kind, torch.float32)).eps for kind in kinds)
    reasons = []
    for name, start in (("onnxruntime", _onnxruntime), ("onnx.reference", _reference)):
        try:
            run = start(model, entry.name, entry.kind)
            batch = entry.sizes[0] if entry.sizes else None
            run(torch.zeros(batch or 1, *own))
        except Exception as error:  # both raise what they like
            reasons.append(f"{name}: {' '.join(str(error).split())[:200]}")
            continue
        halves = name == "onnxruntime"
        network = Reference(_ordered(run, shape, own), name, torch.zeros(()), batch, precision=precision, halves=halves)
        return compare(graph, network, shape, samples)
    return not_compared(f"nothing runs the model ({'; '.join(reasons)})"), None


def _ordered(run: Callable[[Tensor], Tensor], told: Shape, own: Shape) -> Callable[[Tensor], Tensor]:
    """Takes samples in the order that data have, as `laid_out` does."""
    if own != told and own == (*told[1:], told[0]):
        return lambda x: run(x.movedim(1, -1))
    return lambda x: run(x.reshape(len(x), *own))


def _onnxruntime(model: onnx.ModelProto, name: str, kind: int) -> Callable[[Tensor], Tensor]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _QUIET
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = torch.get_num_threads()
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return _run(lambda x: session.run(None, {name: x}), kind)


def _reference(model: onnx.ModelProto, name: str, kind: int) -> Callable[[Tensor], Tensor]:
    evaluator = ReferenceEvaluator(model)
    return _run(lambda x: evaluator.run(None, {name: x}), kind)


def _run(run: Callable[[np.ndarray], Any], kind: int) -> Callable[[Tensor], Tensor]:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    return lambda x: torch.from_numpy(np.array(run(x.contiguous().numpy().astype(dtype))[0], dtype=np.float32))
