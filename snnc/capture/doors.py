"""From a trained network to a graph of the dialect: the doors for live modules, exported programs and ONNX models.

A live module is traced symbolically, which needs no example input and keeps its modules. What that refuses, because
Python code looks at shapes, is exported instead, where the input's shape is known. All doors end in the same graph.
"""

from __future__ import annotations

import copy
import sys
from typing import TYPE_CHECKING, Any, TypeGuard, Union

from torch import fx, nn
from torch.export import ExportedProgram

from snnc.capture.canonical import finish
from snnc.capture.exported import export, lower_exported, own_shape
from snnc.capture.layout import MOVED, Laid
from snnc.capture.lowering import Lowering
from snnc.capture.symbolic import from_error, input_rank, private, trace
from snnc.capture.values import Refused
from snnc.capture.walk import walk
from snnc.errors import Blocker, Unsupported, VerifyError
from snnc.ir.graph import Stage, verify
from snnc.networks.staged import Staged

if TYPE_CHECKING:
    import onnx

Network = Union[nn.Module, ExportedProgram, fx.GraphModule, "onnx.ModelProto"]


def capture(model: Network, input_shape: tuple[int, ...] | None = None) -> fx.GraphModule:
    """The network as a graph of stage `ANN`: the same function in eval mode, with its own copies of all weights.

    Args:
        model: a module, an exported program, an ONNX model, or a graph that was captured before (`Staged` or bare). It
            is not changed.
        input_shape: shape of one sample, such as `(3, 32, 32)`. Needed where the network's own code depends on it. An
            ONNX model that has its channels last, or takes a map in a row, may be given the shape that data have.

    Raises:
        LoadError: an ONNX model is malformed.
        Unsupported: the network holds something that cannot be converted; `blockers` lists all of it.
    """
    graph, found = _capture(model, input_shape)
    if graph is None:
        raise Unsupported.of(found)
    return graph


def told_shape(model: Any) -> tuple[int, ...] | None:
    """The shape of one sample, where the network itself tells it: exported programs and ONNX models do as a rule."""
    if isinstance(model, ExportedProgram):
        return own_shape(model)
    if not is_onnx(model):
        return None
    from snnc.capture.onnx import input as onnx_input

    return onnx_input.own_shape(model)


def is_onnx(model: Any) -> TypeGuard[onnx.ModelProto]:
    """Whether this is an ONNX model. Does not import onnx, which is slow: whoever has a model has done so."""
    return "onnx" in sys.modules and isinstance(model, sys.modules["onnx"].ModelProto)


def blockers(model: Network, input_shape: tuple[int, ...] | None = None) -> list[Blocker]:
    """Everything that keeps a network from being converted; empty where nothing does."""
    return _capture(model, input_shape)[1]


Outcome = tuple[fx.GraphModule | None, list[Blocker]]


def _capture(model: Network, input_shape: tuple[int, ...] | None) -> Outcome:
    shape = None if input_shape is None else tuple(int(n) for n in input_shape)
    if isinstance(model, ExportedProgram):
        return _exported(model, shape)
    if is_onnx(model):
        return _onnx(model, shape)
    if isinstance(model, Staged):
        return copy.deepcopy(model.graph), []
    if isinstance(model, fx.GraphModule) and _is_captured(model):
        return copy.deepcopy(model), []
    try:
        return _live(model, shape)
    except Unsupported as error:
        return None, _blockers_of(error)


def _live(model: nn.Module, shape: tuple[int, ...] | None) -> Outcome:
    """The symbolic door first; the other one where that refuses and the shape is known."""
    graph, found, needs_export = _symbolic(model, shape)
    if graph is not None:
        return graph, []
    if shape is None:
        return None, found
    live, like = private(model)
    try:
        program = export(live, shape, like)
    except Exception as error:
        return None, [from_error(error, live, known=True)] if needs_export else found
    graph, more = _exported(program, shape)
    return graph, more if graph is not None or needs_export else found


def _blockers_of(error: Unsupported) -> list[Blocker]:
    return list(error.blockers) or [Blocker("network", "network", error.message.rstrip("."), error.hint)]


def _is_captured(graph: fx.GraphModule) -> bool:
    try:
        verify(graph, Stage.ANN)
    except VerifyError:
        return False
    return True


def _exported(program: ExportedProgram, told: tuple[int, ...] | None) -> Outcome:
    try:
        lowering, result, shape = lower_exported(program)
    except Unsupported as error:
        return None, _blockers_of(error)
    if told and told != shape:
        wanted = ",".join(map(str, shape))
        why = f"takes samples of shape {wanted}, not {','.join(map(str, told))}"
        hint = f"samples of shape {wanted}, or the program exported for the others"
        return None, [Blocker("input", "input", why, hint)]
    return _finish(lowering, result, shape, None)


def _onnx(model: onnx.ModelProto, shape: tuple[int, ...] | None) -> Outcome:
    from snnc.capture.onnx.door import lower_onnx

    try:
        lowering, value, known = lower_onnx(model, shape)
    except Unsupported as error:
        return None, _blockers_of(error)
    return _whole(lowering, value, list(lowering.blockers), known, None)


def _symbolic(model: nn.Module, shape: tuple[int, ...] | None) -> tuple[fx.GraphModule | None, list[Blocker], bool]:
    """The symbolic door. The last value tells whether tracing itself failed or wanted the shape."""
    live, like = private(model)
    try:
        traced = trace(live)
    except Exception as error:
        return None, [from_error(error, live, known=shape is not None)], True
    entries = traced.find_nodes(op="placeholder")
    extra = [
        Blocker(node.name, "input", "is a second input", "wrap the network in a module with one input")
        for node in entries[1:]
    ]
    if extra or not entries:
        none = Blocker("input", "input", "the network has no input", "give forward one tensor")
        return None, extra or [none], False
    rank = input_rank(traced, live)
    lowering = Lowering(shape, rank, like)
    result = walk(lowering, traced, live, {})
    graph, found = _finish(lowering, result, shape, rank)
    return graph, found, lowering.wants_shape


def _finish(lowering: Lowering, result: Any, shape: tuple[int, ...] | None, rank: int | None) -> Outcome:
    """Looks up the output of a traced graph, then does what all doors do last."""
    found = list(lowering.blockers)
    value: Any = result
    if isinstance(result, fx.Node):
        try:
            value = lowering.load(result)
        except Refused as refused:
            found.append(Blocker("output", "output", refused.why, refused.hint))
    return _whole(lowering, value, found, shape, rank)


def _whole(
    lowering: Lowering, value: Any, found: list[Blocker], shape: tuple[int, ...] | None, rank: int | None
) -> Outcome:
    """Checks the output, then what all doors do last."""
    if found:
        return None, found
    if isinstance(value, Laid):
        return None, [Blocker("output", "output", *MOVED)]
    if not isinstance(value, fx.Node):
        several = isinstance(value, (tuple, list, dict))
        why = "is not one tensor" if several else "does not depend on the input"
        return None, [Blocker("output", "output", why, "return the logits alone")]
    graph = lowering.build.finish(value)
    try:
        found = finish(graph, shape, rank)
    except Unsupported as error:
        found = _blockers_of(error)
    if found:
        return None, found
    verify(graph, Stage.ANN)
    return graph, []
