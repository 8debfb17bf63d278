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

from snnc.capture.canonical import finish, remaining
from snnc.capture.exported import export, lower_exported, own_shape
from snnc.capture.layout import MOVED, Laid
from snnc.capture.lowering import Lowering
from snnc.capture.symbolic import from_error, input_rank, private, trace
from snnc.capture.trial import Trial, along_one_path
from snnc.capture.values import LOST, Refused
from snnc.capture.walk import walk
from snnc.errors import Blocker, Unsupported, VerifyError
from snnc.ir.graph import Stage, verify
from snnc.networks.staged import Staged
from snnc.steady import steady

if TYPE_CHECKING:
    import onnx

Network = Union[nn.Module, ExportedProgram, fx.GraphModule, "onnx.ModelProto"]


@steady()
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


@steady()
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
    """The symbolic door first; the other one where that refuses only what the other may read."""
    graph, found, needs_export = _symbolic(model, shape)
    if graph is not None or not needs_export or shape is None:
        return graph, found
    live, like = private(model)
    try:
        program = export(live, shape, like)
    except Exception as error:
        return None, [*found, from_error(error, live, known=True), *along_one_path(live, shape, like)]
    return _exported(program, shape)


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
    """The symbolic door. The last value tells whether the other one may read the network."""
    live, like = private(model)
    try:
        traced = trace(live)
    except Exception as error:
        return None, [] if shape else [from_error(error, live, known=False)], True
    entries = traced.find_nodes(op="placeholder")
    if not entries:
        return None, [Blocker("input", "input", "the network has no input", "give forward one tensor")], False
    rank = input_rank(traced, live)
    lowering = Lowering(shape, rank, like)
    lowering.passes = Trial(lowering)
    second = {node.name: lowering.stand_in(None) for node in entries[1:]}
    hint = "wrap the network in a module with one input"
    lowering.blockers += [Blocker(name, "input", "is a second input", hint) for name in second]
    result = walk(lowering, traced, live, second)
    graph, found = _finish(lowering, result, shape, rank)
    if shape is None:
        return graph, found + lowering.elsewhere, False
    needs_export = bool(lowering.elsewhere) and (lowering.unsure or not found)
    return graph, [] if needs_export else found, needs_export


def _finish(lowering: Lowering, result: Any, shape: tuple[int, ...] | None, rank: int | None) -> Outcome:
    """Looks up the output of a traced graph, then does what all doors do last."""
    found = list(lowering.blockers)
    value: Any = result
    try:
        value = lowering.load(result)
    except Refused as refused:
        found.append(Blocker("output", "output", refused.why, refused.hint))
    return _whole(lowering, value, found, shape, rank)


def _whole(
    lowering: Lowering, value: Any, found: list[Blocker], shape: tuple[int, ...] | None, rank: int | None
) -> Outcome:
    """Checks the output, then what all doors do last."""
    if isinstance(value, Laid):
        found.append(Blocker("output", "output", *MOVED))
    elif not isinstance(value, fx.Node) and value is not LOST:
        several = isinstance(value, (tuple, list, dict))
        why = "is not one tensor" if several else "does not depend on the input"
        found.append(Blocker("output", "output", why, "return the logits alone"))
    if found or lowering.elsewhere:
        ends = tuple(node for node in lowering.build.graph.nodes if not node.users)
        rest = lowering.build.finish(lowering.stand_in(None, None, ends))
        return None, found + [b for b in remaining(rest, rank) if b not in found]
    graph = lowering.build.finish(value)
    try:
        found = finish(graph, shape, rank)
    except Unsupported as error:
        found = _blockers_of(error)
    if found:
        return None, found
    verify(graph, Stage.ANN)
    return graph, []
