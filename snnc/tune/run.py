"""Training of networks that are, or are to be, spiking: `tune`.

There are two kinds. *Quantisation-aware* training runs the clip-quantised network, and its result is compiled
afterwards. It is cheap, and does not see the order of the spikes. *Spike-aware* training runs the spiking network
itself, starting from its conversion, and its result is a spiking network. See `docs/tuning.md`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, fx, nn

from snnc import api
from snnc.capture import capture, captured, told_inputs
from snnc.data import Dataset, require_classes
from snnc.errors import DataError, RecipeError
from snnc.ir.dialect import SignedQuant
from snnc.ir.graph import Stage, calls, entries, output
from snnc.ir.whole import places
from snnc.networks.base import SpikingNetwork
from snnc.networks.network import Network
from snnc.networks.staged import Staged
from snnc.passes import PASSES, QuantizeActivations
from snnc.passes.pipeline import Context, Pipeline, no_progress
from snnc.processes import rank
from snnc.recipes import Recipe
from snnc.recipes import recipe as find_recipe
from snnc.steady import steady
from snnc.tune.forward import require_trainable
from snnc.tune.loop import Training
from snnc.tune.match import matched
from snnc.tune.norms import evened, removed
from snnc.tune.options import TuneOptions, tune_options
from snnc.tune.parameters import closed, opened
from snnc.tune.samples import Batches, gathered, split
from snnc.tune.score import Scorer
from snnc.tune.start import akin, default, forward_of, normalise, until_quantised

__all__ = ["Start", "TuneOptions", "prepare", "tune"]

ALONE = "the network without training, or a module around it with one input and one output"


@dataclass(frozen=True)
class Start:
    """A training that can begin.

    Attributes:
        first: the network that it starts from: the conversion.
        original: the network to distil from, as a graph, or None.
        held: held-out samples, or None.
        work: the loop, with training data and options.
    """

    first: Network | Staged
    original: fx.GraphModule | None
    held: Dataset | None
    work: Training


@steady()
def tune(
    model: Any,
    data: Any,
    T: int = 8,
    recipe: str | Path | Recipe | Pipeline | None = None,
    *,
    teacher: nn.Module | None = None,
    samples: int = 512,
    input_shape: tuple[int, ...] | None = None,
    memory: float | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    out: str | Path | None = None,
    track: Callable[..., Iterator[Any]] = no_progress,
    report: Callable[[dict[str, Any]], None] | None = None,
    **options: Any,
) -> Network | Staged:
    """Trains a network for spikes.

    Args:
        model: a trained network, as `snnc.compile` takes it; or a spiking `Network`, which is trained from where it is.
            It is not changed.
        data: training data, as `snnc.compile` takes calibration data, with labels where the loss needs them. All of it
            is held in memory; a `snnc.data.Dataset` and paths keep 8-bit images as they are.
        T: time steps; the levels L of kind "quantised". A spiking `Network` brings its own.
        recipe: what the network is converted with before. None: "qcfs" where it brings its own bounds, else "best" with
            all steps read out. Kind "quantised" takes the passes before insert-neurons.
        teacher: the network to distil from; None: `model`, unless it is spiking. For a spiking `model` it is taken for
            the network that this came from, where layers of the same name have the same shapes; else its outputs alone
            count, and norms "original" are "own".
        samples: training samples that calibrate the conversion, at most.
        input_shape: shape of one sample, where nothing else tells it.
        memory: GB that the calibration of the conversion may take, as for `compile`.
        checkpoint: file that an interrupted run can go on from, or None. It is removed at the end.
        resume: go on from `checkpoint`.
        out: file to write the result to, as `snnc.save` does, before the checkpoint is removed; None: no file.
        track: wraps iterables to show progress.
        report: called with what was found after each epoch.
        **options: those of `TuneOptions`.

    Returns:
        Kind "spiking": a `Network`. Kind "quantised": a `Staged` network, which `snnc.compile` takes. `info["tune"]`
        tells how it went.

    Raises:
        RecipeError: an option that does not exist or does not fit; a network that this kind cannot train.
        DataError: data that cannot be used, or lacks the labels that the loss needs; a loss that is not finite.
        LoadError: a checkpoint to resume from that is not there, or of another run.
        Unsupported, PassFailed: the conversion failed.
    """
    path = None if checkpoint is None else Path(checkpoint)
    if resume and path is None:
        raise RecipeError("There is no checkpoint file to resume from.", "checkpoint=, as in the run before")
    start = prepare(model, data, T, recipe, teacher, samples, input_shape, memory, track, **options)
    first, original, work = start.first, start.original, start.work
    graph, o = work.graph, work.options
    if resume and path:
        work.resume(path)
    score = Scorer(start.held, original)

    def check() -> dict[str, Any]:
        found = score(_by_step(_finished(first, graph)))
        row = {k: v and v[-1] for k, v in found.items()}
        if report:
            p = work.progress
            report({"epoch": p.epoch + 1, "seconds": p.seconds, "loss": p.loss, **row})
        return row

    work.run(check, path, track)
    result = _finished(first, graph)
    table = {"ann": score(lambda x: original(x)[None]) if original is not None else None}
    table |= {"before": score(_by_step(first)), "after": score(_by_step(result))}
    result.info["tune"] = {
        "options": asdict(o),
        "samples": len(work.batches.data),
        "held_out": len(start.held) if start.held else 0,
        "steps": work.progress.epoch * work.batches.steps + work.progress.step,
        "seconds": round(work.progress.seconds, 1),
        "epochs": work.progress.rows,
        "table": table,
    }
    if out is not None:
        api.save(result, out)
    if path and rank() == 0:
        path.unlink(missing_ok=True)
    return result


@steady()
def prepare(
    model: Any,
    data: Any,
    T: int = 8,
    recipe: str | Path | Recipe | Pipeline | None = None,
    teacher: nn.Module | None = None,
    samples: int = 512,
    input_shape: tuple[int, ...] | None = None,
    memory: float | None = None,
    track: Callable[..., Iterator[Any]] = no_progress,
    **options: Any,
) -> Start:
    """Everything that `tune` does before its first step: it reads, converts and checks, and trains nothing.

    Arguments are those of `tune`, and so is what it raises.
    """
    o = tune_options(options)
    _require_one(model, teacher)
    everything = gathered(data)
    training, held = split(everything, o.held_out, o.seed)
    original = _original(model, teacher, input_shape or everything.input_shape)
    _require_signal(o, everything, original)
    _require_alone(model, original)
    first = _converted(model, original, T, recipe, training, samples, memory, track, o)
    _require_fit(first, training)
    batches: list[Any] = [x for x, _ in training.sample(samples, o.seed).batches(o.batch)]
    graph = opened(first.graph)
    evened(graph)
    like = _like(first, original)
    if (
        like is not None
        and teacher is not None
        and not (isinstance(model, Network) and akin(graph, like, batches[0], o))
    ):
        like = None  # a teacher of another making has outputs to learn from, and no layers to compare with
    normalise(graph, like, batches, o)
    graph.to(o.device)
    master = copy.deepcopy(original).to(o.device) if original is not None else None
    same = matched(graph, like) if like is not None else frozenset()
    return Start(first, original, held, Training(graph, forward_of(graph, o), master, Batches(training, o), o, same))


def _original(model: Any, teacher: Any, shape: tuple[int, ...]) -> fx.GraphModule | None:
    """The network to distil from, as a graph."""
    if isinstance(model, SpikingNetwork) and not model.looks_inside:
        raise RecipeError(f"{model.form} cannot be trained: its graph is not there.", "the .snn file of it")
    if isinstance(model, SpikingNetwork) and model.frames:
        raise RecipeError(
            "The network takes input that changes in time, which training does not.",
            "the original network trained further as it is, and compiled over frames again",
        )
    source = teacher if teacher is not None else model
    if isinstance(source, Network):
        return None
    return capture(api.single(source), shape)


def _require_one(*models: Any) -> None:
    """Refuses models that are known to take several inputs, before their data are read."""
    for one in models:
        names = one.inputs if isinstance(one, SpikingNetwork) else () if one is None else told_inputs(one)[0]
        if len(names) > 1:
            raise RecipeError(f"The network has several inputs ({', '.join(names)}), and training knows one.", ALONE)


def _require_alone(*networks: Any) -> None:
    """Refuses networks of several inputs or outputs: there is one loss, on class scores of one input."""
    for one in networks:
        graph = one.graph if isinstance(one, (Network, Staged)) else one
        if not isinstance(graph, fx.GraphModule) or not entries(graph):
            continue
        many = len(entries(graph)) > 1 or places(graph)
        if many or not isinstance(output(graph).args[0], fx.Node):
            what = "several inputs, or one of whole numbers" if many else "several outputs"
            raise RecipeError(f"The network has {what}, and training knows one input of amounts and one output.", ALONE)


def _require_signal(o: TuneOptions, data: Dataset, original: fx.GraphModule | None) -> None:
    if o.loss != "distil" and data.y is None:
        raise DataError(f"{data.source} has no labels, and loss '{o.loss}' needs them.", "data with `y`, or 'distil'")
    if o.loss != "labels" and original is None:
        raise RecipeError(
            f"There is nothing to distil from, and loss '{o.loss}' needs it.",
            "the original network (--ann FILE, or teacher= in Python), or loss 'labels' with labelled data",
        )


def _converted(
    model: Any,
    original: fx.GraphModule | None,
    T: int,
    recipe: Any,
    training: Dataset,
    samples: int,
    memory: float | None,
    track: Any,
    o: TuneOptions,
) -> Network | Staged:
    """Where training starts."""
    calibration = training.sample(samples, o.seed)
    if isinstance(model, Network):
        if o.kind == "quantised":
            raise RecipeError("A spiking network cannot be trained as a quantised one.", "the network it came from")
        require_trainable(model.graph)
        return model
    source = captured(api.single(model), training.input_shape)
    graph = source.graph
    chosen = recipe if recipe is not None else default(graph)
    if o.kind == "spiking":
        network = api.compile(source, T, chosen, calibration, samples=samples, seed=o.seed, memory=memory, track=track)
        require_trainable(network.graph)
        return network
    label = Recipe("custom", "", "", True, chosen) if isinstance(chosen, Pipeline) else find_recipe(chosen)
    pipeline = until_quantised(label.pipeline)
    shape = training.input_shape
    context = Context(T, [x for x, _ in calibration.batches(64)], shape, o.seed, track)
    result = pipeline.run(graph, context)
    if result.stage is not Stage.QUANTIZED:
        raise RecipeError(
            f"Before its neurons the recipe ends at stage {result.stage}.", f"one with {QuantizeActivations.name}"
        )
    if encoded := [node.name for node, _ in calls(result.graph, SignedQuant)]:
        raise RecipeError(
            f"'{encoded[0]}' encodes a value of either sign, and its rounding has no gradient here.",
            "a recipe without encode-values, such as 'best'",
        )
    return Staged(result.graph, result.stage, api.history(label, result, context, context.calibration))


def _require_fit(network: Network | Staged, data: Dataset) -> None:
    """Refuses data that the network does not take, before any training."""
    x, _ = next(data.limit(1).batches(1))
    classes = network(x).shape[-1]
    if data.y is not None:
        require_classes(data.y, classes)


def _like(first: Network | Staged, original: fx.GraphModule | None) -> fx.GraphModule | None:
    """The original network, unless a pass has changed the units of its layers."""
    made = [PASSES.get(record["name"]) for record in first.info.get("records", ())]
    return None if any(one and one.changes_units == "currents" for one in made) else original


def _finished(first: Network | Staged, graph: fx.GraphModule) -> Network | Staged:
    """The network in training as it would be if it ended now, on the CPU."""
    graph = copy.deepcopy(graph).cpu()
    removed(graph)
    info = {key: value for key, value in first.info.items() if key != "tune"}
    if isinstance(first, Network):
        return Network(closed(graph), info, first.chunk)
    return Staged(closed(graph), first.stage, info)


def _by_step(network: Network | Staged) -> Callable[[Tensor], Tensor]:
    return network.readout if isinstance(network, Network) else lambda x: network(x)[None]
