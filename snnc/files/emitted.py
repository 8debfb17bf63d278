"""ONNX files that are spiking networks which snnc wrote: told from others, and read without trusting them.

Such a file calls the neurons as functions of its own and brings its history as JSON. Before a runtime sees it,
everything in it is held against what snnc writes: no data outside of the file, no operator and no domain but those,
functions that end, and a history of the right kinds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snnc.errors import LoadError
from snnc.files.onnxfile import parse_onnx

if TYPE_CHECKING:
    import onnx

KEY = "snnc"  # of the history in a model's metadata
DOMAIN = "snnc"  # of the functions
BATCH = "batch"  # the first dimension of input and output
# fmt: off
OPERATORS = frozenset({
    "Abs", "Add", "And", "Atan", "AveragePool", "Cast", "Celu", "Clip", "Concat", "Constant", "Conv", "ConvTranspose",
    "Cos", "CumSum", "DepthToSpace", "Div", "Elu", "Equal", "Erf", "Exp", "Expand", "Floor", "Gather",
    "GlobalAveragePool", "GlobalMaxPool", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity",
    "InstanceNormalization", "LRN", "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log", "LogSoftmax",
    "MatMul", "Max", "MaxPool", "Min", "Mul", "Neg", "PRelu", "Pad", "Pow", "Range", "Reciprocal", "ReduceL1",
    "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Reshape", "Resize", "Round", "Scan", "Selu",
    "Shape", "Shrink", "Sigmoid", "Sign", "Sin", "Slice", "Softmax", "Softplus", "Softsign", "Sqrt", "Sub", "Tanh",
    "Transpose", "Unsqueeze", "Where",
})
# fmt: on
_HISTORY_LIMIT = 2**22  # bytes: far more than any history needs
_NODE_LIMIT = 200_000  # with all functions written out
_MOST = 2**31  # of any number in a history
_HINT = "'snnc compile' on the original network"


def is_emitted(model: onnx.ModelProto) -> bool:
    """Whether a model says that it is a spiking network which snnc wrote."""
    return any(entry.key == KEY for entry in model.metadata_props)


def is_emitted_file(path: Path) -> bool:
    """The same for a file, which may be no ONNX file at all."""
    try:
        return is_emitted(parse_onnx(path))
    except LoadError:
        return False


def read_emitted(path: Path) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """The model and its history.

    Raises:
        LoadError: not a spiking network that snnc wrote, damaged, or one that holds something else.
    """
    model = parse_onnx(path)
    if not is_emitted(model):
        raise LoadError(
            f"'{path}' is an ONNX model, but not a spiking network that snnc wrote.", "'snnc compile' on it"
        )
    try:
        history = _history(next(entry.value for entry in model.metadata_props if entry.key == KEY))
        _check(model)
    except _Fault as fault:
        raise LoadError(f"'{path}' is refused: {fault}.", _HINT) from fault
    return model, history


class _Fault(Exception):
    """What is wrong with a file, as the end of "... is refused: "."""


def _history(text: str) -> dict[str, Any]:
    """The history, if all that snnc relies on is of the right kind."""
    if len(text) > _HISTORY_LIMIT:
        raise _Fault("its history is too long")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _Fault("its history is no JSON") from error
    latency = found.get("latency") if isinstance(found, dict) else None
    if not isinstance(latency, dict):
        raise _Fault("its history has no latency")
    if found.get("stage") not in ("SPIKING", "FIXED"):
        raise _Fault("its stage is not that of a spiking network")
    shape, rank, span = (found.get(k) for k in ("input_shape", "input_rank", "input_range"))
    if set(latency) != {"schedule", "T", "rho", "depth", "steps"} or not isinstance(latency["schedule"], str):
        raise _Fault("its latency is incomplete")
    if not _whole(latency["T"], 1) or not all(_whole(latency[k], 0) for k in ("rho", "depth", "steps")):
        raise _Fault("its latency is not in whole steps")
    if shape is not None and not (isinstance(shape, list) and all(_whole(size, 1) for size in shape)):
        raise _Fault("its input has no shape")
    if rank is not None and not _whole(rank, 1):
        raise _Fault("its input has no number of dimensions")
    if span is not None and not (isinstance(span, list) and len(span) == 2 and all(map(_finite, span))):
        raise _Fault("its input has no range")
    records, proof = found.get("records", []), found.get("proof", [])
    if not isinstance(records, list) or not all(map(_is_record, records)):
        raise _Fault("its records are not those of passes")
    if not isinstance(proof, list) or not all(map(_is_bound, proof)):
        raise _Fault("its proof is not one of bounds")
    return found


def _is_record(record: Any) -> bool:
    kinds: dict[str, Any] = {
        "name": str,
        "options": dict,
        "sites": int,
        "stage": str,
        "seconds": (int, float),
        "notes": list,
    }
    if not isinstance(record, dict) or not all(isinstance(record.get(k), kind) for k, kind in kinds.items()):
        return False
    return record.get("error") is None or _finite(record["error"])


def _is_bound(row: Any) -> bool:
    if not isinstance(row, dict) or not all(isinstance(row.get(k), str) for k in ("name", "module")):
        return False
    numbers = [row.get(k) for k in ("bits", "bound", "headroom")]
    flags = [row.get(k, 0) for k in ("tf32", "bf16")]
    return all(n is None or _finite(n) for n in numbers) and all(f in (None, True, False) for f in flags)


def _whole(value: Any, least: int) -> bool:
    return type(value) is int and least <= value < _MOST


def _finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _check(model: onnx.ModelProto) -> None:
    """Nothing in the model but what snnc writes."""
    domains = {entry.domain for part in (model, *model.functions) for entry in part.opset_import}
    if other := domains - {"", DOMAIN}:
        raise _Fault(f"it uses operators of '{min(other)[:60]}'")
    if len(model.training_info) or len(model.graph.sparse_initializer):
        raise _Fault("it holds more than a network")
    bodies = {f.name: list(f.node) for f in model.functions}
    if len(bodies) < len(model.functions) or any(f.domain != DOMAIN for f in model.functions):
        raise _Fault("its functions have names that are not theirs")
    tensors = list(model.graph.initializer)
    for node in _nodes([model.graph.node, *bodies.values()]):
        known = node.op_type in bodies if node.domain == DOMAIN else node.domain == "" and node.op_type in OPERATORS
        if not known:
            raise _Fault(f"it calls '{node.op_type[:60]}', which snnc never writes")
        if any(len(a.graphs) or len(a.sparse_tensor.dims) or len(a.tensors) for a in node.attribute):
            raise _Fault(f"'{node.op_type}' has attributes that snnc never writes")
        tensors += [a.t for a in node.attribute]
        tensors += [tensor for a in node.attribute for tensor in a.g.initializer]
    if any(tensor.external_data or tensor.data_location for tensor in tensors):
        raise _Fault("it keeps data outside of the file")
    _written_out(model.graph.node, bodies)


def _nodes(lists: Iterable[Iterable[onnx.NodeProto]]) -> Iterator[onnx.NodeProto]:
    """All nodes, those in bodies of loops included."""
    for nodes in lists:
        for node in nodes:
            yield node
            yield from _nodes(a.g.node for a in node.attribute if len(a.g.node))


def _written_out(main: Iterable[onnx.NodeProto], bodies: dict[str, list[onnx.NodeProto]]) -> None:
    """Refuses functions that call themselves, and few lines that stand for very many."""
    sizes: dict[str, int] = {}
    open_: set[str] = set()

    def size(name: str) -> int:
        if name in open_:
            raise _Fault(f"its function '{name[:60]}' calls itself")
        if name not in sizes:
            open_.add(name)
            sizes[name] = total(bodies[name])
            open_.remove(name)
        return sizes[name]

    def total(nodes: Iterable[onnx.NodeProto]) -> int:
        count = 0
        for node in _nodes([nodes]):
            count += size(node.op_type) if node.domain == DOMAIN else 1
            if count > _NODE_LIMIT:
                raise _Fault("its functions stand for too many operations")
        return count

    total(main)
