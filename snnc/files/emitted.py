"""ONNX files that are spiking networks which snnc wrote: told from others, and read without trusting them.

A file of this kind defines the neurons as functions, and holds its history as JSON. Before a runtime sees it, all of it
must be something that snnc writes: no data outside the file, only known operators and domains, functions that end, and
a history of the right types.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snnc.errors import LoadError
from snnc.files.history import Fault, read_history
from snnc.files.onnxfile import parse_onnx
from snnc.structure import OUTPUT, names_in

if TYPE_CHECKING:
    import onnx

KEY = "snnc"  # of the history in a model's metadata
DOMAIN = "snnc"  # of the functions
COUNTING = ("Conv", "Linear", "Join", "Sum", "Steady")  # before a neuron's name: functions that give counts of spikes
LOGITS, BY_STEP = "logits", "by_step"  # the readout after all steps and after each, of a network with one output
BATCH = "batch"  # the first dimension of input and output
# fmt: off
OPERATORS = frozenset({
    "Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "AveragePool", "Cast", "Celu", "Clip",
    "Concat", "Constant", "Conv", "ConvTranspose", "Cos", "Cosh", "CumSum", "DepthToSpace", "DequantizeLinear",
    "Div", "Elu", "Equal", "Erf", "Exp", "Expand", "Floor", "Gather", "GlobalAveragePool", "GlobalMaxPool",
    "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "InstanceNormalization", "LRN",
    "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log", "LogSoftmax", "MatMul", "MatMulInteger", "Max",
    "MaxPool", "Min", "Mul", "Neg", "PRelu", "Pad", "Pow", "QLinearConv", "QuantizeLinear", "Range", "Reciprocal",
    "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Reshape", "Resize", "Round",
    "Scan", "Selu", "Shape", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Slice", "Softmax", "Softplus", "Softsign",
    "Split", "Sqrt", "Squeeze", "Sub", "Tan", "Tanh", "Transpose", "Unsqueeze", "Where",
})
# fmt: on
_NODE_LIMIT = 200_000  # with all functions written out
_INT64 = 7  # as ONNX counts types
_HINT = "'snnc compile' on the original network"


def output_names(outputs: Sequence[str], inputs: Sequence[str]) -> list[str]:
    """What the file calls the outputs of a network, by their names and those of its inputs: no value has two."""
    if len(outputs) == 1:
        return [LOGITS]
    taken, found = set(inputs), []
    for name in outputs:
        while name in taken or by_step(name) in taken or name in (LOGITS, BY_STEP):
            name += "_"
        taken |= {name, by_step(name)}
        found.append(name)
    return found


def by_step(name: str) -> str:
    """What the file calls an output after each step."""
    return BY_STEP if name == LOGITS else f"{name}_{BY_STEP}"


def neuron_of(function: str, neurons: Iterable[str]) -> tuple[str, str] | None:
    """The neuron that a function is, and what stands before its name: "", "Unit" or one of `COUNTING`.

    Args:
        function: such as "IF", "UnitIF", "ConvSignedIF_2".
        neurons: names of neurons.
    """
    name = function.partition("_")[0]
    found = ((name.removeprefix(before), before) for before in ("", "Unit", *COUNTING) if name.startswith(before))
    return next((one for one in found if one[0] in neurons), None)


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
        history = read_history(next(entry.value for entry in model.metadata_props if entry.key == KEY), staged=True)
        _check(model)
        _check_steps(model, history["latency"]["T"])
        _check_ends(model, history)
    except Fault as fault:
        raise LoadError(f"'{path}' is refused: {fault}.", _HINT) from fault
    return model, history


def _check_steps(model: onnx.ModelProto, T: int) -> None:
    """The readout after each step has as many steps as the history says."""
    for output in model.graph.output:
        first = next(iter(output.type.tensor_type.shape.dim), None)
        if output.name.endswith(BY_STEP) and first is not None and first.dim_value not in (0, T):
            raise Fault(f"its history says T = {T}, and its output has {first.dim_value} steps")


def _check_ends(model: onnx.ModelProto, history: dict[str, Any]) -> None:
    """The file takes and gives what its history says."""
    entries, ends = history.get("inputs") or [{"name": "x", "whole": False}], names_in(history.get("outputs") or OUTPUT)
    kinds = [entry.type.tensor_type.elem_type for entry in model.graph.input]
    if [kind == _INT64 for kind in kinds] != [entry["whole"] for entry in entries]:
        raise Fault("its history says what it takes, and it takes something else")
    if not {output.name for output in model.graph.output}.issuperset(
        output_names(ends, [entry["name"] for entry in entries])
    ):
        raise Fault("its history says what it returns, and it returns something else")


def _check(model: onnx.ModelProto) -> None:
    """Nothing in the model but what snnc writes."""
    domains = {entry.domain for part in (model, *model.functions) for entry in part.opset_import}
    if other := domains - {"", DOMAIN}:
        raise Fault(f"it uses operators of '{min(other)[:60]}'")
    if len(model.training_info) or len(model.graph.sparse_initializer):
        raise Fault("it holds more than a network")
    bodies = {f.name: list(f.node) for f in model.functions}
    if len(bodies) < len(model.functions) or any(f.domain != DOMAIN for f in model.functions):
        raise Fault("its functions have names that are not theirs")
    tensors = list(model.graph.initializer)
    for node in _nodes([model.graph.node, *bodies.values()]):
        known = node.op_type in bodies if node.domain == DOMAIN else node.domain == "" and node.op_type in OPERATORS
        if not known:
            raise Fault(f"it calls '{node.op_type[:60]}', which snnc never writes")
        if any(len(a.graphs) or len(a.sparse_tensor.dims) or len(a.tensors) for a in node.attribute):
            raise Fault(f"'{node.op_type}' has attributes that snnc never writes")
        tensors += [a.t for a in node.attribute]
        tensors += [tensor for a in node.attribute for tensor in a.g.initializer]
    if any(tensor.external_data or tensor.data_location for tensor in tensors):
        raise Fault("it keeps data outside of the file")
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
            raise Fault(f"its function '{name[:60]}' calls itself")
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
                raise Fault("its functions stand for too many operations")
        return count

    total(main)
