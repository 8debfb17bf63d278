"""From a trained network to a graph of the dialect: the doors for live modules, exported programs and ONNX models.

A live module is traced symbolically, which needs no example input and keeps its modules. What that refuses, because
Python code looks at shapes, is exported instead, where the input's shape is known. All doors end in the same graph.
"""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard, Union

import torch
from torch import fx, nn
from torch.export import ExportedProgram

from snnc.capture.calling import Calling, accepted, arranged, calling, few, in_order
from snnc.capture.comparison import MANY, SIZES, not_compared
from snnc.capture.copying import private
from snnc.capture.exported import (
    SAMPLES,
    SAMPLES_HINT,
    decides_by_batch,
    export,
    fixes_batch,
    lower_exported,
    own_shape,
)
from snnc.capture.exported import entries as exported_entries
from snnc.capture.lowering import Lowering
from snnc.capture.outcome import Outcome, blockers_of, checked_end, ended
from snnc.capture.references import of_module, of_program, refuse_global_hooks
from snnc.capture.refusals import OTHER, key, no_network, reason
from snnc.capture.symbolic import ASKED, MENDED, from_error, input_rank, looked_up, trace
from snnc.capture.trial import Trial, along_one_path
from snnc.capture.walk import walk
from snnc.errors import Blocker, Unsupported, VerifyError
from snnc.ir.dialect import BATCHNORMS, WEIGHTED
from snnc.ir.graph import GraphBuilder, Stage, entries, flat, validate
from snnc.ir.shapes import guess_input
from snnc.networks.staged import Staged
from snnc.steady import steady
from snnc.structure import Inputs, Samples, Shape, each, several_shapes, shapes_of
from snnc.structure import told as spelt

if TYPE_CHECKING:
    import onnx

Network = Union[nn.Module, ExportedProgram, fx.GraphModule, "onnx.ModelProto", "Captured"]


@dataclass(frozen=True)
class Captured:
    """A graph, and how it was compared with its network.

    Attributes:
        graph: of stage `ANN`.
        compared: plain data: "with" what, on which "samples" of which "shape", in which "batches", the largest "error"
            and the "bound" that rounding explains. "with" is None where nothing was run, and "why" says why.
    """

    graph: fx.GraphModule
    compared: dict[str, Any]


def capture(model: Network, input_shape: Any = None, samples: Samples | None = None) -> fx.GraphModule:
    """The network as a graph of stage `ANN`: the same function in eval mode, with its own copies of all weights.

    The two are run on the same samples and compared.

    Args:
        model: a module, an exported program, an ONNX model, or a graph that was captured before (bare, `Captured` or
            `Staged`). It is not changed.
        input_shape: shape of one sample, such as `(3, 32, 32)`; of several inputs one each, in the order of `forward`
            or by name. Needed where the network's own code depends on it. An ONNX model that has its channels last, or
            takes a map in a row, may be given the shape that data have.
        samples: a few real samples to compare on; random ones where None.

    Raises:
        LoadError: an ONNX model is malformed.
        Unsupported: the network holds something that cannot be converted, `blockers` lists all of it; or its own
            result is another than the graph's.
    """
    return captured(model, input_shape, samples).graph


@steady()
def captured(model: Network, input_shape: Any = None, samples: Samples | None = None) -> Captured:
    """What `capture` gives, and how it was compared. Arguments and errors are those of `capture`."""
    outcome = _capture(model, input_shape, samples)
    if outcome.graph is None:
        raise Unsupported.of(outcome.blockers)
    return Captured(outcome.graph, outcome.compared)


def told_inputs(model: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the inputs that a network needs, and of all that it takes, as data are to bring them; () if unknown."""
    if isinstance(model, ExportedProgram):
        names = tuple(str(entry.target) for entry in exported_entries(model))
        return names, names
    if is_onnx(model):
        from snnc.capture.onnx import input as onnx_input

        names = onnx_input.names(model)
        return names, names
    if graph := _graph_of(model):
        names = tuple(str(node.target) for node in entries(graph))
        return names, names
    try:
        return calling(model).names, accepted(model)
    except Exception:  # told where the model is captured
        return (), ()


def _graph_of(model: Any) -> fx.GraphModule | None:
    """The graph in a model that was captured before."""
    if isinstance(model, (Captured, Staged)):
        return model.graph
    return model if isinstance(model, fx.GraphModule) and _is_captured(model) else None


def told_shape(model: Any) -> Shape | None:
    """The shape of one sample, if the network itself holds it, as most exported programs and ONNX models do."""
    if isinstance(model, ExportedProgram):
        return own_shape(model)
    if not is_onnx(model):
        return None
    from snnc.capture.onnx import input as onnx_input

    return onnx_input.own_shape(model)


def is_onnx(model: Any) -> TypeGuard[onnx.ModelProto]:
    """Whether this is an ONNX model. Does not import onnx, which is slow: a model has imported it already."""
    return "onnx" in sys.modules and isinstance(model, sys.modules["onnx"].ModelProto)


@steady()
def blockers(model: Network, input_shape: Any = None) -> list[Blocker]:
    """Everything that keeps a network from being converted; empty where nothing does."""
    return _capture(model, input_shape, None).blockers


def _capture(model: Network, input_shape: Any, samples: Samples | None) -> Outcome:
    if not (isinstance(model, (nn.Module, ExportedProgram, Captured, Staged)) or is_onnx(model)):
        return Outcome(None, [no_network(model)])
    if isinstance(model, Captured):
        return Outcome(copy.deepcopy(model.graph), compared=model.compared)
    if graph := _graph_of(model):
        return Outcome(copy.deepcopy(graph), compared=not_compared("it is a graph already"))
    try:
        refuse_global_hooks()
        if isinstance(model, ExportedProgram) or is_onnx(model):
            names, _ = told_inputs(model)
            shape, samples = in_order(input_shape, names), arranged(samples, names)
            if is_onnx(model):
                return _onnx(model, shape, samples)
            return _exported(model, shape).against(lambda: of_program(model), own_shape(model), samples)
        return _live(model, input_shape, samples)
    except Unsupported as error:
        return Outcome(None, blockers_of(error))


def _live(model: nn.Module, told: Any, samples: Samples | None) -> Outcome:
    """The symbolic door first; the other one where that refuses what the other may read, or gives something else."""
    how = _called(model, told, samples)
    if not how.names:
        return Outcome(None, [Blocker("input", "input", "the network has no input", "give forward one tensor")])
    shape, samples = in_order(told, how.names), arranged(samples, how.names)
    first, needs_export, whole = _symbolic(model, how, shape)
    differs = first.graph is not None
    first = first.against(lambda: of_module(model, how), shape, samples)
    if first.graph is not None or shape is None or not (needs_export or differs):
        return first
    live, like = private(model)
    given = [
        torch.zeros((SAMPLES, *(one or ())), dtype=torch.int64 if k in whole else like.dtype, device=like.device)
        for k, one in enumerate(shapes_of(shape, len(how.names)))
    ]
    if samples is not None:
        given = [a.long() if not b.is_floating_point() else a for a, b in zip(given, each(samples), strict=True)]
    try:
        program = export(live, how, given)
    except Exception as error:
        if not needs_export:
            return first
        behind, through = along_one_path(lambda: how.call(live, few(given)))
        stopped = from_error(error, live, MENDED[through])
        return Outcome(None, _joined(stopped, first.blockers, behind))
    if why := decides_by_batch(program):
        return Outcome(None, [Blocker(flat(type(live).__name__), "forward", why, SAMPLES_HINT)])
    sizes = MANY if fixes_batch(program) else SIZES
    second = _exported(program, shape, live=True).against(lambda: of_module(model, how, sizes), shape, samples)
    return second if second.graph is not None or needs_export else first


def _called(model: nn.Module, told: Any, samples: Samples | None) -> Calling:
    """How a live module is called with what there is."""
    given: Any = None
    if isinstance(told, dict):
        given = tuple(told)
    elif isinstance(samples, Inputs):
        given = samples.names or len(samples.values)
    elif told and several_shapes(told):
        given = len(told)
    try:
        return calling(model, given)
    except (TypeError, ValueError):  # a `forward` that Python has no signature of
        return Calling(("x",), 1)


def _is_captured(graph: fx.GraphModule) -> bool:
    try:
        validate(graph, Stage.ANN)
    except VerifyError:
        return False
    return True


def _exported(program: ExportedProgram, told: Shape | None, live: bool = False) -> Outcome:
    try:
        lowering, result, shape = lower_exported(program, live)
    except Unsupported as error:
        return Outcome(None, blockers_of(error))
    if told and told != shape:
        wanted = spelt(shape)
        why = f"takes samples of shape {wanted}, not {spelt(told)}"
        hint = f"samples of shape {wanted}, or the program exported for the others"
        return Outcome(None, [Blocker("input", "input", why, hint)])
    return ended(lowering, result, shape, None)


def _onnx(model: onnx.ModelProto, shape: Shape | None, samples: Samples | None) -> Outcome:
    from snnc.capture.onnx.door import lower_onnx

    lowering, value, known = lower_onnx(model, shape)
    outcome = checked_end(lowering, value, list(lowering.blockers), known, None)
    if outcome.graph is not None:
        from snnc.capture.onnx.reference import compare_onnx  # imports onnxruntime, which is slow

        outcome.compared, wrong = compare_onnx(model, outcome.graph, known, samples)
        return outcome if wrong is None else Outcome(None, [wrong])
    return outcome


def _symbolic(model: nn.Module, how: Calling, shape: Shape | None) -> tuple[Outcome, bool, set[int]]:
    """Capture by symbolic tracing.

    Returns:
        The graph or its blockers; whether `torch.export` may read the network; the inputs of whole numbers, by place.
    """
    live, like = private(model)
    traced, stopped = trace(live, how)
    rank = input_rank(traced, live)
    lowering = Lowering(shape, rank, like, how.names)
    lowering.passes = Trial(lowering)
    whole = looked_up(traced, live)
    lowering.whole |= {lowering.entries[k] for k in whole}
    result = walk(lowering, traced, live, {})
    if stopped:
        return Outcome(None, lowering.blockers if shape else _without_shape(lowering, stopped, live, how)), True, whole
    outcome = ended(lowering, result, shape, rank)
    if shape is None:
        outcome.blockers += lowering.elsewhere
        return outcome, False, whole
    needs_export = bool(lowering.elsewhere) and (lowering.unsure or not outcome.blockers)
    if needs_export:
        outcome.blockers = []
    return outcome, needs_export, whole


def _without_shape(lowering: Lowering, stopped: Exception, live: nn.Module, how: Calling) -> list[Blocker]:
    """What is known where tracing stopped: why, what came before, and what one batch of some shape meets."""
    ends = tuple(node for node in lowering.build.graph.nodes if not node.users)
    guess = guess_input(lowering.build.finish(lowering.stand_in(None, None, ends)))
    first = next((m for m in live.modules() if isinstance(m, (*WEIGHTED, *BATCHNORMS))), None)
    if guess is None and first is not None and len(how.names) == 1:
        build = GraphBuilder()
        guess = guess_input(build.finish(build.call("first", copy.deepcopy(first), build.input())))
    behind: list[Blocker] = []
    if guess is not None:
        x = guess.to(lowering.like)
        behind, _ = along_one_path(lambda: how.call(live, few([x])))
    return _joined(from_error(stopped, live, ASKED), lowering.blockers, behind)


def _joined(stopped: Blocker, before: list[Blocker], behind: list[Blocker]) -> list[Blocker]:
    """What stopped a capture, and what else is wrong, without what is the same operation in the same line."""
    apart = [b for b in before if not stopped.where or b.where != stopped.where]
    before = apart + [
        b for b in before if b not in apart and reason(b.op) is not OTHER and key(b.op) != key(stopped.op)
    ]
    known = {(key(b.op), b.where) for b in before}
    return [stopped, *before, *(b for b in behind if (key(b.op), b.where) not in known)]
