"""Everything that a report says, measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from snnc.data import fingerprint
from snnc.errors import SnncError
from snnc.explain import Explanation, explain
from snnc.ir.graph import Stage, numbers
from snnc.markup import table
from snnc.measure.evaluate import Evaluation, evaluate, shown_steps
from snnc.networks.base import SpikingNetwork
from snnc.passes.pipeline import no_progress
from snnc.passes.trace import Snapshot, snapshots
from snnc.report.drawing import Picture, picture, snapshot
from snnc.report.energy import Energy, account, left_out, runs_of
from snnc.report.limit import QuantisedLimit
from snnc.report.look import Channels, Raster, Scatter, Threshold, channels, rasters, scatters, thresholds
from snnc.report.provenance import Provenance, versions
from snnc.report.samples import BATCH, classes, confidences, gather
from snnc.report.schedule import Turn, timetable
from snnc.steady import steady
from snnc.structure import Samples, cast, each


@dataclass(frozen=True)
class Step:
    """What one pass did to the graph.

    Attributes:
        name: the pass.
        new, changed, gone: how many nodes it made, changed and removed.
        removed: the names of those.
        picture: the graph after it; None where it changed nothing.
    """

    name: str
    new: int
    changed: int
    gone: int
    removed: tuple[str, ...]
    picture: Picture | None


@dataclass(frozen=True)
class Findings:
    """What was measured, as plain data. Sections that could not be are None or empty, and `missing` says why.

    Attributes:
        title: of the page.
        info: how the network was made; `Network.info`.
        evaluation: accuracy after every step, spikes and operations.
        measure: what `evaluation` scores: accuracy, or without labels agreement with the ANN.
        limit: the same of the quantised limit, by number of steps.
        explanation: where the error comes from.
        thresholds, rasters, channels, scatters, turns: layer by layer.
        energy: operations and what they cost.
        pictures: the graph before and after conversion.
        steps: the graph after each pass, where the file says what it was.
        provenance: what it takes to get this again.
        missing: a sentence for each section that is not there, after what makes the figures doubtful.
        remarks: what the account of energy leaves out for this network.
    """

    title: str
    info: dict[str, Any]
    evaluation: Evaluation
    measure: str
    limit: dict[int, float]
    explanation: Explanation | None
    thresholds: list[Threshold]
    rasters: list[Raster]
    channels: list[Channels]
    scatters: list[Scatter]
    turns: list[Turn]
    energy: Energy | None
    pictures: list[Picture]
    steps: list[Step]
    provenance: Provenance
    missing: list[str]
    remarks: list[str]

    def _repr_html_(self) -> str:
        scored = self.evaluation
        rows = [
            (f"spiking network: {self.measure}, %", f"{scored.accuracy[-1]:.2f}"),
            ("ANN, %", None if scored.ann_accuracy is None else f"{scored.ann_accuracy:.2f}"),
            ("latency", str(scored.latency)),
            (
                "energy over the ANN's, without memory",
                self.energy and self.energy.prices[0].each / self.energy.prices[0].ann,
            ),
            ("error", self.explanation and self.explanation.summary),
            ("missing", self.missing),
        ]
        return table(f"{self.title}: {scored.samples} samples", ("what", "found"), rows)

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON; pictures are left out."""
        found = asdict(replace(self, pictures=[], steps=[]))
        del found["pictures"], found["steps"]
        return found


@steady()
@torch.no_grad()
def measure(
    network: SpikingNetwork,
    data: Any,
    ann: nn.Module | torch.export.ExportedProgram | None = None,
    *,
    samples: int = 512,
    seed: int = 0,
    title: str = "Spiking network",
    command: str = "snnc.report(...)",
    files: Mapping[str, str] | None = None,
    track: Callable[..., Iterator[Any]] = no_progress,
    output: str | None = None,
) -> Findings:
    """Measures everything that a report says. Arguments and errors are those of `snnc.report`."""
    network = network.only(output)
    chosen = gather(data, [network], ann, samples, output)
    hashed = fingerprint(chosen.x, chosen.labels)
    chosen = chosen.to(next(network.buffers(), torch.zeros(0)).device)
    x, graph, batches = chosen.x, chosen.graph, chosen.batches()
    missing: list[str] = []
    if ann is None:
        missing.append(
            "No ANN was given (--ann), so there is nothing to compare with: no error split, no scatter plots."
        )
    if chosen.labels is None:
        missing.append("The data has no labels, so agreement with the ANN stands where accuracy would.")
    known = partial(track, total=len(batches))
    found = evaluate(network, chosen.told(batches), chosen.ann, known, confidences(network, chosen))
    missing = [*found.notes, *missing]
    parts: dict[str, Any] = {
        "limit": {},
        "explanation": None,
        "thresholds": [],
        "rasters": [],
        "channels": [],
        "scatters": [],
    }
    parts |= {"turns": [], "energy": None}
    history = snapshots(network.info)
    pictures = [snapshot("Before conversion", one) for one in history[:1]]
    if graph is not None:
        pictures = [picture("Before conversion", graph, Stage.ANN)]
    if network.looks_inside:
        parts["limit"] = _limit(network, batches, found, track)
        parts["thresholds"], parts["turns"] = thresholds(network), timetable(network)
        parts["rasters"], shapes = rasters(network, x[:1])
        parts["channels"] = channels(network, x)
        if found.operations is not None and found.spikes is not None:
            parts["energy"] = account(
                network.graph, shapes, found.operations, found.spikes, network.T, runs_of(network)
            )
        pictures.append(picture("After conversion", network.graph, Stage.SPIKING))
        if graph is not None and ann is not None:
            try:
                given = x.split(BATCH) if chosen.labels is None else batches
                parts["explanation"] = explain(network, graph, chosen.told(given), known)
                parts["scatters"] = scatters(network, graph, x, seed)
            except SnncError as problem:
                missing.append(f"No error split and no scatter plots: {problem}")
    else:
        missing.append(
            f"{network.form} runs, but cannot be looked into: no quantised limit, layers, spikes, thresholds,"
            " energy or graph. The graph file (.snn) of the same network has them."
        )
    made = Provenance(command, chosen.source, len(x), hashed, seed, dict(files or {}), versions())
    remarks = left_out(network.graph) if network.looks_inside else []
    return Findings(
        title,
        network.info,
        found,
        chosen.measure,
        **parts,
        pictures=pictures,
        steps=[_step(one) for one in history[1:]],
        provenance=made,
        missing=missing,
        remarks=remarks,
    )


def _step(one: Snapshot) -> Step:
    counts = len(one.new), len(one.changed), len(one.gone)
    return Step(one.name, *counts, one.gone, snapshot(f"After {one.name}", one) if any(counts) else None)


def _limit(
    network: SpikingNetwork,
    batches: list[tuple[Samples, Tensor]],
    found: Evaluation,
    track: Callable[..., Iterator[Any]],
) -> dict[int, float]:
    right = dict.fromkeys(shown_steps(network.T), 0)
    like = numbers(network.graph)
    for x, y in track(batches, "measuring the quantised limit"):
        for t in right:
            right[t] += int(
                (
                    classes(QuantisedLimit(network.graph, t).run(*(cast(one, like.dtype) for one in each(x)))).cpu()
                    == y
                ).sum()
            )
    return {t: 100 * count / found.samples for t, count in right.items()}
