"""An ONNX model as something to run, for the comparison with the graph that was read from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

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
Run = Callable[[Tensor], list[Tensor]]
Start = Callable[[onnx.ModelProto, str, int], Run]
R = TypeVar("R")
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
        network = Reference(
            _ordered(_first(run), shape, own), name, torch.zeros(()), batch, precision=precision,
            halves=name == "onnxruntime",
            values=_ordered(_named(model, start, entry.name, entry.kind), shape, own),
        )  # fmt: skip
        return compare(graph, network, shape, samples)
    return not_compared(f"nothing runs the model ({'; '.join(reasons)})"), None


def _ordered(run: Callable[[Tensor], R], told: Shape, own: Shape) -> Callable[[Tensor], R]:
    """Takes samples in the order that data have, as `laid_out` does."""
    if own != told and own == (*told[1:], told[0]):
        return lambda x: run(x.movedim(1, -1))
    return lambda x: run(x.reshape(len(x), *own))


def _first(run: Run) -> Callable[[Tensor], Tensor]:
    return lambda x: run(x)[0]


def _named(model: onnx.ModelProto, start: Start, entry: str, kind: int) -> Callable[[Tensor], dict[str, Tensor]]:
    """What gives every value of a model by its name: the model with all of them as outputs."""
    names = [name for node in model.graph.node for name in node.output if name]
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    del wide.graph.output[:]
    wide.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return lambda x: dict(zip(names, start(wide, entry, kind)(x), strict=True))


def _onnxruntime(model: onnx.ModelProto, name: str, kind: int) -> Run:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _QUIET
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = torch.get_num_threads()
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return _run(lambda x: session.run(None, {name: x}), kind)


def _reference(model: onnx.ModelProto, name: str, kind: int) -> Run:
    evaluator = ReferenceEvaluator(model)
    return _run(lambda x: evaluator.run(None, {name: x}), kind)


def _run(run: Callable[[np.ndarray], Any], kind: int) -> Run:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    return lambda x: [_tensor(one) for one in run(x.contiguous().numpy().astype(dtype))]


def _tensor(value: Any) -> Tensor:
    return torch.from_numpy(np.array(value, dtype=np.float32))
