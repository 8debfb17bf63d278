"""The structure of an ONNX model, checked: what is malformed leaves as one sentence, before anything is built."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import onnx
from onnx import helper

from snnc.errors import LoadError, Unsupported
from snnc.files.emitted import is_emitted

OWN_DOMAINS = ("", "ai.onnx")
OLDEST = 7  # older ones broadcast by attributes
MOST_NODES = 100_000
AGAIN = "export it again, and let onnx.checker.check_model look at it"


@dataclass(frozen=True)
class Call:
    """One node. `name` is the author's, or that of its first result; "" among `inputs` is one left out."""

    op: str
    name: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    proto: onnx.NodeProto

    @property
    def label(self) -> str:
        """The operation, with its domain where that is not ONNX's own."""
        return self.op if self.domain in OWN_DOMAINS else f"{self.domain}.{self.op}"


@dataclass(frozen=True)
class Entry:
    """An input: its sizes, None where they are left open, the batch first; None where even their number is."""

    name: str
    kind: int
    sizes: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Program:
    """A model with nothing amiss in its structure.

    Attributes:
        opset: version of ONNX's own operations.
        entries: inputs that are not initialisers.
        weights: initialisers by name.
        calls: nodes, each after those that it reads.
        results: names of the outputs.
        functions: operations that the model itself defines, as `domain.name`.
    """

    opset: int
    entries: tuple[Entry, ...]
    weights: dict[str, onnx.TensorProto]
    calls: tuple[Call, ...]
    results: tuple[str, ...]
    functions: frozenset[str] = field(default_factory=frozenset)

    @property
    def read(self) -> set[str]:
        """Names of all values that something reads."""
        return {name for call in self.calls for name in call.inputs} | set(self.results)


def read(model: onnx.ModelProto) -> Program:
    """The structure of a model.

    Raises:
        LoadError: it is malformed, or a spiking network.
        Unsupported: its version of ONNX is not one that snnc reads.
    """
    if is_emitted(model):
        raise LoadError("The ONNX model is a spiking network already.", "the network it was made from")
    graph = model.graph
    if not graph.node or not graph.output:
        raise LoadError("The ONNX model holds no network.", AGAIN)
    if len(graph.node) > MOST_NODES:
        raise LoadError(f"The ONNX model has {len(graph.node)} nodes, more than {MOST_NODES}.", "a smaller network")
    if graph.sparse_initializer:
        raise LoadError("The ONNX model has sparse initialisers.", "dense ones")
    if any(not isinstance(text, str) for text in _texts(graph)):
        raise LoadError("The ONNX model has a name that is no text.", AGAIN)
    _check_domains(model)
    weights = {tensor.name: tensor for tensor in graph.initializer}
    entries = [entry for entry in graph.input if entry.name not in weights]
    calls = tuple(_call(node) for node in graph.node)
    _check_names(graph, [entry.name for entry in entries], weights, calls)
    return Program(
        _opset(model),
        tuple(map(_entry, entries)),
        weights,
        calls,
        tuple(value.name for value in graph.output),
        frozenset(f"{f.domain}.{f.name}" for f in model.functions),
    )


def kind_name(kind: int) -> str:
    """What ONNX calls a type of number."""
    kinds = onnx.TensorProto.DataType
    return str(kinds.Name(kind)).lower() if kind in kinds.values() else f"number {kind}"


def _texts(graph: onnx.GraphProto) -> Iterator[str]:
    """All names; protobuf gives bytes where they are no UTF-8."""
    for value in (*graph.input, *graph.output, *graph.initializer):
        yield value.name
    for node in graph.node:
        yield from (node.op_type, node.name, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)


def _check_domains(model: onnx.ModelProto) -> None:
    """Each set of operators is imported once, and ONNX's own are not redefined."""
    domains = ["" if entry.domain in OWN_DOMAINS else entry.domain for entry in model.opset_import]
    if len(set(domains)) < len(domains):
        twice = next(domain for place, domain in enumerate(domains) if domain in domains[:place])
        name = f"the domain '{twice}'" if twice else "ONNX's own domain"
        raise LoadError(f"The ONNX model imports {name} twice.", AGAIN)
    if own := [function.name for function in model.functions if function.domain in OWN_DOMAINS]:
        raise LoadError(f"The ONNX model defines '{own[0]}' in ONNX's own domain.", "a domain of its own for it")


def _opset(model: onnx.ModelProto) -> int:
    opset = next((o.version for o in model.opset_import if o.domain in OWN_DOMAINS), 1)
    newest = onnx.defs.onnx_opset_version()
    if opset < OLDEST:
        raise Unsupported(
            f"The ONNX model is written for opset {opset}, and snnc reads {OLDEST} to {newest}.",
            "onnx.version_converter.convert_version(model, 13)",
        )
    if opset > newest:
        raise Unsupported(
            f"The ONNX model is written for opset {opset}, which onnx {onnx.__version__} does not know.",
            "pip install -U onnx, or export it for an older opset",
        )
    return int(opset)


def _call(node: onnx.NodeProto) -> Call:
    outputs = tuple(node.output)
    name = node.name or next(filter(None, outputs), node.op_type)
    if any(a.type == a.UNDEFINED or a.ref_attr_name for a in node.attribute):
        raise LoadError(f"Node '{name}' has an attribute without a value.", AGAIN)
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if len(attributes) < len(node.attribute):
        raise LoadError(f"Node '{name}' has an attribute twice.", AGAIN)
    plain = {k: v.decode(errors="replace") if isinstance(v, bytes) else v for k, v in attributes.items()}
    return Call(node.op_type, name, node.domain, tuple(node.input), outputs, plain, node)


def _entry(value: onnx.ValueInfoProto) -> Entry:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        raise LoadError(f"Input '{value.name}' is no tensor.", "a network that takes one tensor")
    if not kind.HasField("shape"):
        return Entry(value.name, kind.elem_type, None)
    sizes = tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
    if any(size is not None and size < 0 for size in sizes[1:]):
        raise LoadError(f"Input '{value.name}' has the shape {list(sizes)}.", AGAIN)
    # Some exporters write 0 or -1 for a batch of any size.
    first = tuple(None if size is not None and size < 1 else size for size in sizes[:1])
    return Entry(value.name, kind.elem_type, (*first, *sizes[1:]))


def _check_names(
    graph: onnx.GraphProto, entries: list[str], weights: dict[str, onnx.TensorProto], calls: tuple[Call, ...]
) -> None:
    """Each value has one source, and stands after it."""
    if not all((*entries, *weights)):
        raise LoadError("The ONNX model has an input or initialiser without a name.", AGAIN)
    if len(weights) < len(graph.initializer) or len(set(entries)) < len(entries):
        raise LoadError("The ONNX model gives a name to two inputs or initialisers.", AGAIN)
    made = [name for call in calls for name in call.outputs if name]
    everything = {*entries, *weights, *made}
    if len(everything) < len(entries) + len(weights) + len(made):
        seen = {*entries, *weights}
        twice = next(name for name in made if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise LoadError(f"The ONNX model gives the name '{twice}' to two values.", AGAIN)
    known = {*entries, *weights}
    for call in calls:
        for name in filter(None, call.inputs):
            if name in known:
                continue
            why = (
                "of a later node: they are out of order, or form a cycle"
                if name in everything
                else "that nothing gives"
            )
            raise LoadError(f"Node '{call.name}' ({call.op}) reads '{name}', a value {why}.", AGAIN)
        known |= set(call.outputs)
    if len({value.name for value in graph.output}) < len(graph.output):
        raise LoadError("The ONNX model gives a result twice.", AGAIN)
    for value in graph.output:
        if value.name not in known:
            raise LoadError(f"The output '{value.name}' is a value that nothing gives.", AGAIN)
