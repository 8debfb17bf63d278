"""The Python interface: `compile`, `load`, `save`."""

from __future__ import annotations

import copy
import logging
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from snnc.backends import BACKENDS, Backend
from snnc.backends.nir.backend import load_nir
from snnc.calibrate.limit import limited
from snnc.capture import (
    Captured,
    blockers,
    captured,
    collect,
    counted_frames,
    fitted,
    framed_shape,
    in_order,
    misframed,
    one_frame,
    told_inputs,
    told_shape,
)
from snnc.checks import MOST, MOST_STEPS, one_of
from snnc.data import described, fingerprint, read
from snnc.defaults import CHUNK
from snnc.errors import DataError, LoadError, RecipeError, SnncError, Unsupported, WriteError
from snnc.files import atomic_buffer, load_torch, sniff
from snnc.files.history import Fault, check_history
from snnc.ir.frames import over_frames, takes_frames
from snnc.ir.graph import TIMED, Stage, entries
from snnc.ir.graphfile import pack_graph, unpack_graph
from snnc.ir.proof import prove
from snnc.ir.shapes import guess_input
from snnc.networks.base import SpikingNetwork, counted
from snnc.networks.exported import load_exported
from snnc.networks.inputs import ends
from snnc.networks.network import Network
from snnc.networks.onnx import load_emitted, named
from snnc.networks.staged import Staged
from snnc.passes import EncodeValues, InsertNeurons
from snnc.passes.choices import decide
from snnc.passes.pipeline import Callback, Context, Pipeline, Result, no_progress
from snnc.passes.trace import Trace
from snnc.plugins import needed
from snnc.processes import rank
from snnc.recipes import Recipe
from snnc.recipes.contest import contest
from snnc.recipes.default import candidates_of
from snnc.steady import steady
from snnc.structure import Samples, joined, listed, several_shapes, shape_of
from snnc.version import __version__

if TYPE_CHECKING:
    import onnx
    import onnxruntime

log = logging.getLogger(__name__)


@steady()
def compile(
    model: nn.Module | torch.export.ExportedProgram | onnx.ModelProto | Captured | Staged,
    T: int | None = None,
    recipe: str | Path | Recipe | Pipeline | Sequence[str | Path | Recipe] | None = None,
    calibration: Any = None,
    *,
    frames: str | None = None,
    samples: int = 512,
    input_shape: Any = None,
    seed: int = 0,
    chunk: int = CHUNK,
    memory: float | None = None,
    quick: bool = False,
    callbacks: Iterable[Callback] = (),
    track: Callable[..., Iterator[Any]] = no_progress,
) -> Network:
    """Compiles a trained network into a spiking one.

    Args:
        model: a trained module, an exported program, an ONNX model (`onnx.load`), what `snnc.capture` made of one, or a
            `Staged` network that `snnc.tune` gave. It is not changed.
        T: time steps, >= 1; None: 8, or over frames as many as there are.
        recipe: name, TOML file, `Recipe` or `Pipeline`. None: "telescoped" for a network with curved operations
            inside that are no activations, such as gates, normalisation or attention; "qcfs" for one trained with
            clip-quantised activations; "best" where there is calibration data; otherwise "data-free". Where there are
            curved operations inside and calibration data, that recipe is tried beside others that suit, and the
            first that does about as well as the best is taken (`snnc.recipes.contest`). So it is of a list of recipes.
        calibration: unlabelled or labelled input as in training, normalised: a loader that yields tensors, arrays,
            `(x, y)` or dicts; a tensor or array `[N, ...]`; or a `snnc.data.Dataset`. For several inputs a tuple of
            tensors, in the order of `forward`, or a dictionary by their names, in the place of `x`.
        frames: says that input changes in time: samples are `[B, T, ...]`, and one frame is read at each step. It is
            what the model was trained on: "mean" or "sum" of a sample's frames, or "each" where it ran on each frame
            and its outputs were averaged. The readout after a step is that of the frames up to it.
        samples: calibration samples used at most.
        input_shape: shape of one sample (over frames: of one frame), without batch; of several inputs one each, in a
            tuple or a dictionary. Needed only where nothing else tells it. Samples with their
            channels in front, or as maps, are brought into the order that an ONNX model takes.
        seed: seed of every random choice.
        chunk: rows (time steps x samples) that the network holds in memory at once.
        memory: GB that this process may hold while it calibrates; None: what it holds already, and half of what is
            free. What does not fit is packed, computed again or put into temporary files; the result is the same to
            the bit.
        quick: take the first of several recipes, and options as they stand. Otherwise recipes (`info["recipes"]`)
            and the options that one leaves open (`Recipe.choices`; `info["choices"]`) are chosen on calibration
            samples, where there are 64 or more.
        callbacks: called before the first pass and after each one.
        track: wraps iterables to show progress.

    Returns:
        An ordinary `nn.Module` in eval mode: `net(x)` gives `[B, classes]`, the readout of the mean over time. It takes
        and returns what the model does: several inputs by place or by name, and outputs in the model's containers.

    Raises:
        Unsupported: the model holds something that cannot be converted; lists every blocker.
        LoadError: an ONNX model is malformed.
        RecipeError: unknown recipe, pass or option.
        DataError: calibration data that cannot be used.
        PassFailed: a pass broke.
    """
    if isinstance(model, SpikingNetwork):
        raise RecipeError("The model is a spiking network already.", "the ANN that it came from")
    if T is not None or not frames:
        T = _steps("T", 8 if T is None else T, 1, "a whole number of time steps, 1 or more, such as 8", MOST_STEPS)
    samples = _steps("samples", samples, 1, "a whole number of calibration samples, 1 or more, such as 512", MOST)
    seed = _steps("seed", seed, 0, "a whole number, 0 or more")
    chunk, input_shape = counted(chunk), _shape(input_shape)
    tuned = model.info.get("tune") if isinstance(model, Staged) else None
    if isinstance(model, Staged):
        input_shape = input_shape or model.input_shape
    model = single(model)
    calibration = read(calibration) if isinstance(calibration, str | Path) else calibration
    batches, first = collect(calibration, samples, told_inputs(model)) if calibration is not None else (None, ())
    told = input_shape
    shown = batches[0] if batches else None
    T = counted_frames(shown, T) if frames else T or 8
    if frames and shown is not None:
        shown = one_frame(shown)
    if shown is not None:
        input_shape = input_shape or shape_of(shown)
    input_shape = input_shape or told_shape(model)
    try:
        source = captured(model, input_shape, shown)
    except Unsupported:
        if not told and batches and (wrong := misframed(model, shape_of(batches[0]), frames)):
            raise wrong from None
        if not told and first and not frames and not blockers(model, first):
            raise DataError(
                f"The calibration data come in shape {first}, which is that of one sample without a batch.",
                "x[None] of one sample, or torch.stack(x) of several",
            ) from None
        raise
    graph = source.graph.float()
    input_shape = in_order(input_shape, [str(node.target) for node in entries(graph)])
    if batches:
        batches = fitted(graph, batches)
    candidates = candidates_of(recipe, graph, bool(batches))
    guess = None if input_shape else guess_input(graph)
    rank = None if guess is None else guess.dim()
    if frames:
        candidates = [one.over_frames(T) for one in candidates]
        graph = over_frames(graph, T, frames)
        rank = rank and rank + 1
        input_shape = input_shape and framed_shape(input_shape, T)
    chosen: Recipe | Pipeline = candidates[0]
    pipeline = chosen if isinstance(chosen, Pipeline) else chosen.pipeline
    if isinstance(chosen, Recipe):
        require_calibration(chosen, bool(batches))
    log.info(
        "recipe %s, T = %d, %d calibration samples, seed %d",
        getattr(chosen, "name", "custom"), T, sum(map(len, batches or [])), seed,
    )  # fmt: skip
    limit = limited(memory, graph, batches, T)
    context = Context(T=T, calibration=batches, input_shape=input_shape, seed=seed, track=track, memory=limit)
    tried: dict[str, Any] = {}
    if len(candidates) > 1 and not quick:
        chosen, tried = contest([one for one in candidates if isinstance(one, Recipe)], graph, context)
        pipeline = chosen.pipeline
    open_ = chosen.choices if isinstance(chosen, Recipe) and not quick else {}
    pipeline, found = decide(pipeline, open_, graph, context)
    trace = Trace()
    result = pipeline.run(graph, context, callbacks=(trace, *callbacks))
    if result.stage not in TIMED:
        raise RecipeError(
            f"The recipe ends at stage {result.stage}, not SPIKING.", f"a recipe with {InsertNeurons.name}"
        )
    label = (
        chosen.settled(pipeline) if isinstance(chosen, Recipe) else Recipe("custom", "", "", bool(batches), pipeline)
    )
    made = {**history(label, result, context, batches), "input_rank": rank, "trace": trace.rows, **tried, **found}
    ceilings = (context.find(Context.ceilings) or {}).items()
    made["ceilings"] = {name: float(top.max()) for name, top in ceilings if bool(torch.isfinite(top).all())}
    made |= ends(graph)
    if frames:
        made["frames"] = {"of": frames, "T": T}
    made["compared"] = source.compared
    if brought := needed(pipeline, result.graph):
        made["plugins"] = brought
    made["calibration"] = described(calibration, joined(batches), bool(frames)) if batches else None
    if result.stage is Stage.FIXED:
        made["proof"] = [asdict(row) for row in prove(result.graph)]
    return Network(result.graph, made | ({"tune": tuned} if tuned else {}), chunk, result.stage)


def require_calibration(recipe: Recipe, there: bool) -> None:
    """Refuses a recipe that needs calibration data where there is none.

    Raises:
        RecipeError: says what to give.
    """
    if recipe.needs_data and not there:
        curved = any(isinstance(one, EncodeValues) for one in recipe.pipeline)
        hint = "some (--calib DATA, or calibration= in Python)"
        raise RecipeError(
            f"The recipe '{recipe.name}' needs calibration data and got none.",
            hint if curved else f"{hint}, or the recipe 'data-free'",
        )


def _steps(name: str, value: Any, least: int, hint: str, most: int = 2**63 - 1) -> int:
    try:
        if isinstance(value, bool) or operator.index(value) < least:
            raise TypeError
        if operator.index(value) > most:
            raise RecipeError(f"{name} is {value}.", f"{most} at most")
        return operator.index(value)
    except TypeError:
        raise RecipeError(f"{name} is {value!r}.", hint) from None


def _shape(sizes: Any) -> Any:
    """The shape of one sample as the user gives it: of several inputs one each."""
    hint = "the sizes of one sample, without the batch, such as (3, 32, 32)"
    if sizes is None:
        return None
    if isinstance(sizes, dict):
        return {name: _shape(one) for name, one in sizes.items()}
    if isinstance(sizes, tuple | list) and several_shapes(sizes):
        return tuple(map(_shape, sizes))
    if not isinstance(sizes, tuple | list):
        raise RecipeError(f"input_shape is {sizes!r}.", hint)
    return tuple(_steps(f"input_shape is {tuple(sizes)!r}, and a size in it", size, 1, hint) for size in sizes)


def single(model: Any) -> Any:
    """The model in float32, which is what snnc computes in; a copy where it was not."""
    if isinstance(model, nn.Module) and any(
        value.is_floating_point() and value.dtype != torch.float32 for value in (*model.parameters(), *model.buffers())
    ):
        return copy.deepcopy(model).float()
    return model


def history(label: Recipe, result: Result, context: Context, batches: list[Samples] | None) -> dict[str, Any]:
    """How a network was made, as plain data for its file."""
    span = context.find(Context.input_range)
    return {
        "recipe": label.name,
        "recipe_text": label.to_toml(),
        "T": context.T,
        "seed": context.seed,
        "calibration_samples": sum(map(len, batches or [])),
        "calibration_sha256": fingerprint(joined(batches), None) if batches else None,
        "input_shape": listed(context.input_shape) if context.input_shape else None,
        "input_range": list(span) if span else None,
        "versions": {"snnc": __version__, "torch": str(torch.__version__)},
        "records": [
            {
                "name": r.name,
                "options": r.options,
                "sites": r.sites,
                "stage": str(r.stage),
                "seconds": r.seconds,
                "error": r.error,
                "notes": list(r.notes),
            }
            for r in result.records
        ],
    }


@steady()
def save(network: Network | Staged, path: str | Path, backend: str | Backend | None = None) -> Path:
    """Writes a network, whole or not at all. Of processes that share the work the first alone writes.

    Args:
        network: what `snnc.compile` or `snnc.tune` gave.
        path: the file.
        backend: "torch" (graph file), "pt2" or "onnx", or a backend with options, such as
            `snnc.backends.OnnxModel(anytime=False)`; by the suffix of `path` where None. A `Staged` network is always a
            graph file, and `snnc compile` takes it.

    Returns:
        The path.

    Raises:
        RecipeError: no such backend.
        WriteError: the file cannot be written.
    """
    path = Path(path)
    if not isinstance(network, Network | Staged):
        raise WriteError(f"{type(network).__name__} is no network that can be written.", "what snnc.compile gave")
    if rank() > 0:
        return path
    if isinstance(network, Staged):
        with atomic_buffer(path) as buffer:
            torch.save(pack_graph(network.graph, network.stage, network.info), buffer)
        return path
    if backend is None:
        backend = next((b.name for b in BACKENDS.values() if b.suffix == path.suffix), "torch")
    if not isinstance(backend, Backend):
        backend = BACKENDS[one_of(backend, BACKENDS, "backend")]
    backend.emit(network, path)
    log.info("wrote %s", path)
    return path


@steady()
def load(
    path: str | Path,
    chunk: int = CHUNK,
    *,
    device: str | torch.device = "cpu",
    options: onnxruntime.SessionOptions | None = None,
) -> SpikingNetwork:
    """A spiking network from a file that `save` or `snnc compile` wrote.

    Args:
        path: a graph file, an emitted `.pt2` or `.onnx` (which run, but cannot be edited), or a NIR file,
            also one of others.
        chunk: rows (time steps x samples) in memory at once.
        device: where it is to run, "cpu", "cuda" or "cuda:1"; a `.pt2` runs on the CPU.
        options: of onnxruntime's session, for an `.onnx`; by default it has as many threads as torch.

    Raises:
        LoadError: not such a file, or broken.
        Unsupported: a NIR file that holds nodes that snnc has not.
        SnncError: a device that is not there, or a file that takes none.
    """
    path = Path(path)
    log.info("loading %s", path)
    kind = sniff(path)
    if kind == "onnx" or (kind == "unknown" and path.suffix == ".onnx"):
        return load_emitted(path, chunk, device, options)
    if kind == "hdf5":
        return placed(load_nir(path, chunk), device)
    if kind == "pt2" and named(device).type != "cpu":
        raise SnncError("An exported program runs on the CPU.", "the graph file (.snn) of the same network")
    if kind == "pt2":
        return load_exported(path, chunk)
    try:
        content = load_torch(path)
    except LoadError as error:
        if "refused" not in error.message:
            raise
        raise LoadError(f"'{path}' is not a compiled network.", "'snnc compile' on it") from error
    graph, stage, info = unpack_graph(content, f"'{path}'")
    try:
        check_history(info)
        if bool(info.get("frames")) != takes_frames(graph):
            raise Fault("its history and its graph do not say the same of frames")
    except Fault as fault:
        raise LoadError(f"'{path}' is refused: {fault}.", "'snnc compile' on the original network") from fault
    if len({v.dtype for v in graph.state_dict().values() if v.is_floating_point()}) > 1:
        graph = graph.float()  # made where a process had another default type, by a version that let that in
    if stage not in TIMED:
        raise LoadError(f"'{path}' holds a graph of stage {stage}, not a spiking network.", "'snnc compile' on it")
    return placed(Network(graph, info, chunk, stage), device)


def placed(network: Network, device: str | torch.device) -> Network:
    """The network on a device.

    Raises:
        SnncError: torch does not find it.
    """
    where = named(device)
    try:
        return network.to(where)
    except SnncError as error:
        raise SnncError(f"torch finds no device '{device}' here.", "--device cpu") from error
