"""The fewest time steps, and the recipe, that stay within a bound on the accuracy that is lost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.api import compile
from snnc.capture import Captured, captured, told_inputs
from snnc.data import Dataset, maybe_labelled_batches, read, read_as
from snnc.defaults import CHUNK
from snnc.errors import DataError, OutOfReach, PassFailed, RecipeError, SnncError
from snnc.ir.graph import results
from snnc.networks.base import Latency
from snnc.networks.network import Network
from snnc.passes.pipeline import no_progress
from snnc.recipes import Recipe, names
from snnc.recipes import recipe as find_recipe
from snnc.steady import steady
from snnc.structure import Samples, each, joined, named, shape_of, told

log = logging.getLogger(__name__)
STEPS = (1, 2, 4, 8, 16, 32, 64)
AIDS = ("baseline", "data-free")  # recipes to compare with, and for where there is no data
BATCH = 50


@dataclass(frozen=True)
class Candidate:
    """One network of a search. Percentages are 0..100.

    Attributes:
        recipe: its name.
        T: steps that are read out.
        latency: steps from input to readout, and the schedule.
        drop: accuracy lost on the held-out labels, in points; without labels the share of samples whose class is not
            the ANN's.
        error: standard error of `drop`, in points.
        agreement: share of samples on which the network and the ANN predict the same class.
        samples: held-out samples that were looked at: fewer than all where the bound was out of reach before the end.
        within: whether `drop` stays within the bound.
    """

    recipe: str
    T: int
    latency: Latency
    drop: float
    error: float
    agreement: float
    samples: int
    within: bool


@dataclass(frozen=True)
class Search:
    """What a search found.

    Attributes:
        network: the chosen network; `network.info["search"]` holds the rest as plain data.
        chosen: its row of the frontier.
        frontier: every network that was measured, in order.
        max_drop: the bound.
        labels: whether accuracy was measured, or agreement with the ANN.
        ann_accuracy: of the ANN on the held-out samples; None without labels.
        notes: what the user should know.
    """

    network: Network
    chosen: Candidate
    frontier: list[Candidate]
    max_drop: float
    labels: bool
    ann_accuracy: float | None
    notes: list[str]


@steady()
@torch.no_grad()
def search(
    model: nn.Module | torch.export.ExportedProgram | Captured,
    calibration: Any,
    max_drop: float = 1.0,
    *,
    recipes: Sequence[str | Path | Recipe] | None = None,
    without: Collection[str] = (),
    steps: Iterable[int] = STEPS,
    samples: int = 512,
    holdout: int = 1000,
    input_shape: tuple[int, ...] | None = None,
    seed: int = 0,
    chunk: int = CHUNK,
    memory: float | None = None,
    quick: bool = False,
    track: Callable[..., Iterator[Any]] = no_progress,
    output: str | None = None,
) -> Search:
    """Compiles for more and more time steps, until a recipe stays within a bound on the accuracy that is lost.

    At each T every recipe is compiled for that T, and read at that T alone, since thresholds depend on it. Of those
    within the bound the one with the lowest latency is taken, and of equals the one that loses least. The search stops
    at the first T that has one, and slower ones are not measured there. A network that cannot come back within the
    bound is given up early.

    Args:
        model: a trained module or exported program.
        calibration: data as for `compile`, with labels or without. `holdout` samples are drawn from it and held out,
            half of all where there are too few, and the rest calibrates. Without labels the ANN's classes count.
        max_drop: the bound, in points of accuracy.
        recipes: candidates; None: those that ship with snnc and whose spikes are binary, where they apply, except
            "baseline" and "data-free".
        without: names of recipes that are not tried where none are named.
        steps: values of T to try.
        samples: calibration samples used at most.
        holdout: held-out samples at most.
        input_shape: shape of one sample, without batch; the data tells it.
        seed: seed of every random choice, and of what is held out.
        chunk: rows (time steps x samples) that the network holds in memory at once.
        memory: GB that calibration may take, as for `compile`.
        quick: take the options of recipes as they stand, and choose none on the data.
        track: wraps iterables to show progress.
        output: name of the output that holds the class scores, where there are several; networks have all of them.

    Raises:
        OutOfReach: no candidate stays within the bound; carries the frontier.
        Unsupported, RecipeError, DataError, PassFailed: as `compile` does.
    """
    wanted = sorted(set(steps))
    if not 0 <= max_drop <= 100 or not wanted:
        raise RecipeError(
            f"max_drop is {max_drop!r} and steps {wanted!r}.", "0 to 100 points, and some numbers of steps"
        )
    calibration = read(calibration) if isinstance(calibration, str | Path) else calibration
    given, (x, y) = _split(calibration, samples, holdout, seed, told_inputs(model))
    source = captured(model, input_shape or shape_of(x), x[:3])
    source = Captured(source.graph.float(), source.compared)
    held = _HeldOut(_classes(source.graph, x, track, output), x, y, max_drop, output)
    tried = [one for one in searchable() if one not in without] if recipes is None else recipes
    candidates = [find_recipe(one) for one in tried]
    frontier: list[Candidate] = []
    failed: list[dict[str, Any]] = []
    notes: list[str] = []
    for T in wanted:
        compiled: list[tuple[int, str, Network]] = []
        for one in list(candidates):
            try:
                network = compile(
                    source, T, one, given, samples=samples, input_shape=input_shape, seed=seed, chunk=chunk,
                    memory=memory, quick=quick, track=track,
                )  # fmt: skip
            except PassFailed as problem:
                if recipes is not None:
                    raise
                candidates.remove(one)  # it asks for something that this network does not have
                failed.append({"recipe": one.name, "T": T, "why": problem.message})
                notes.append(f"Recipe '{one.name}' failed at T = {T} and was not tried again: {problem.message}")
                continue
            compiled.append((network.latency.steps, one.name, network))
        found: list[tuple[Candidate, Network]] = []
        for latency, name, network in sorted(compiled, key=lambda each: each[0]):
            if found and latency > found[0][0].latency.steps:
                break  # it could not win
            candidate = held.measure(network, name, track)
            frontier.append(candidate)
            log.info("%s at T = %d loses %.2f points", name, T, candidate.drop)
            if candidate.within:
                found.append((candidate, network))
        if found:
            chosen, network = min(found, key=lambda pair: pair[0].drop)
            notes += held.doubts(chosen)
            network.info["calibration"] |= read_as(calibration)  # which the samples themselves do not tell
            network.info["search"] = held.history(frontier, failed, notes)
            return Search(network, chosen, frontier, max_drop, y is not None, held.ann_accuracy, notes)
    if not frontier:
        raise RecipeError("No recipe applies to this network.", "a recipe by name, to see why it does not")
    best = min(frontier, key=lambda one: one.drop)
    raise OutOfReach(
        f"No recipe stays within {max_drop:g} points up to T = {wanted[-1]}. The best is '{best.recipe}' at "
        f"T = {best.T}: it loses {best.drop:.2f} +- {best.error:.2f} on {best.samples} held-out samples.",
        "a larger bound, more steps, or other recipes ('snnc explain' says where the error comes from)",
        held.history(frontier, failed, notes),
    )


def _split(
    calibration: Any, samples: int, holdout: int, seed: int, names: Any
) -> tuple[Samples, tuple[Samples, Tensor | None]]:
    """Samples to calibrate with, and others with labels, where there are any, to measure on."""
    if samples < 1 or holdout < 1:
        raise RecipeError(f"{samples} samples and {holdout} held out are too few.", "1 or more of each")
    if isinstance(calibration, Dataset):
        calibration = calibration.sample(samples + holdout, seed)
    inputs: list[Samples] = []
    labels: list[Tensor | None] = []
    for x, y in maybe_labelled_batches(calibration, names):
        inputs.append(x)
        labels.append(y)
        if sum(map(len, inputs)) >= samples + holdout:
            break
    x = joined(inputs)[: samples + holdout]
    if len(x) < 2:
        raise DataError("One sample cannot be both calibrated with and held out.", "more data")
    known = [one for one in labels if one is not None]
    y = torch.cat(known)[: len(x)] if len(known) == len(labels) else None
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    cut = holdout if len(x) >= samples + holdout else min(holdout, len(x) // 2)
    held, rest = order[:cut], order[cut:]
    return x[rest][:samples], (x[held], None if y is None else y[held])


def searchable() -> list[str]:
    """The recipes that a search tries if none are named: aids left out, and spikes of several bits, for few chips."""
    return [name for name in names() if name not in AIDS and find_recipe(name).pipeline.spikes == "binary"]


def _classes(graph: fx.GraphModule, x: Samples, track: Callable[..., Iterator[Any]], output: str | None) -> Tensor:
    """The ANN's classes, once for all candidates."""
    known = list(results(graph))
    if (output is None and len(known) > 1) or (output is not None and output not in known):
        said = "has several outputs" if output is None else f"has no output '{output}'"
        raise SnncError(
            f"The network {said}: {', '.join(known)}.", f"the one of class scores, such as --output {known[0]}"
        )
    try:
        parts = [named(graph(*each(part))) for part in track(x.split(BATCH), "measuring the ANN")]
        outputs = torch.cat([part[output or known[0]] for part in parts])
    except (RuntimeError, ValueError, IndexError) as problem:
        raise DataError(
            f"Samples of shape {told(shape_of(x))} do not go through the network.",
            "samples of the shape that the network was trained on",
        ) from problem
    if outputs.dim() != 2:
        raise DataError(f"The network's output has shape {tuple(outputs.shape[1:])}, not [B, classes].", "a classifier")
    return outputs.argmax(1)


@dataclass
class _HeldOut:
    """The held-out samples, what the ANN makes of them, and the bound."""

    ann: Tensor
    x: Samples
    y: Tensor | None
    max_drop: float
    output: str | None = None

    @property
    def target(self) -> Tensor:
        """The classes that count as right: the labels, or else the ANN's own."""
        return self.ann if self.y is None else self.y

    @property
    def ann_accuracy(self) -> float | None:
        """In %; None without labels."""
        return None if self.y is None else 100 * float((self.ann == self.y).double().mean())

    def measure(self, network: Network, name: str, track: Callable[..., Iterator[Any]]) -> Candidate:
        """Runs the held-out samples until all are done, or the bound cannot be met any more."""
        lost = torch.zeros(0)  # for each sample: 1 where only the ANN is right, -1 where only the network is
        same = 0
        good = (self.ann == self.target).double()
        rest = torch.flip(torch.cumsum(torch.flip(1 - good, [0]), 0), [0])  # what later samples can give back, at most
        allowed = self.max_drop * len(self.x) / 100
        for part in track(self.x.split(BATCH), f"{name} at T = {network.T}"):
            done = len(lost)
            here = slice(done, done + len(part))
            classes = named(network(part))[network.chosen(self.output)].argmax(1)
            lost = torch.cat([lost, good[here] - (classes == self.target[here]).double()])
            same += int((classes == self.ann[here]).sum())
            back = float(rest[len(lost)]) if len(lost) < len(rest) else 0.0
            if float(lost.sum()) - back > allowed:
                break
        n = len(lost)
        drop = float(lost.mean())
        # One more sample that differs: where none was seen the error is not zero.
        variance = (float(lost.square().sum()) + 1) / n - drop**2
        within = n == len(self.x) and float(lost.sum()) <= allowed
        error = 100 * (max(variance, 0) / n) ** 0.5
        return Candidate(name, network.T, network.latency, 100 * drop, error, 100 * same / n, n, within)

    def doubts(self, chosen: Candidate) -> list[str]:
        """How far the choice may be due to chance."""
        if self.max_drop - chosen.drop >= 2 * chosen.error:
            return []
        return [
            f"The bound of {self.max_drop:g} points lies within two standard errors of the measured "
            f"{chosen.drop:.2f} +- {chosen.error:.2f}: {chosen.samples} other samples might say no. More held-out data "
            "decides it."
        ]

    def history(self, frontier: list[Candidate], failed: list[dict[str, Any]], notes: list[str]) -> dict[str, Any]:
        """The search as plain data."""
        return {
            "max_drop": float(self.max_drop),
            "measure": "disagreement with the ANN" if self.y is None else "accuracy lost",
            "held_out": len(self.x),
            "ann_accuracy": self.ann_accuracy,
            "frontier": [asdict(one) for one in frontier],
            "failed": failed,
            "notes": list(notes),
        }
