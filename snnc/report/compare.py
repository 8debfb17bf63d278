"""Several networks beside each other."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from snnc.data import fingerprint
from snnc.errors import RecipeError
from snnc.files import atomic_write
from snnc.markup import table
from snnc.measure.evaluate import EarlyExit, Evaluation, evaluate
from snnc.networks.base import SpikingNetwork
from snnc.passes.pipeline import no_progress
from snnc.report import figure, tabular
from snnc.report.chart import Chart
from snnc.report.charts import comparison, frontier, interval
from snnc.report.energy import Energy, measured
from snnc.report.page import environment
from snnc.report.provenance import Provenance, versions
from snnc.report.samples import confidences, gather
from snnc.steady import steady

COLUMNS = ("network", "recipe", "T", "schedule", "step", "latency", "score", "agreement")
SURE = 0.9  # confidence of the early exit in tables


@dataclass(frozen=True)
class ComparedRow:
    """One network. Percentages are 0..100.

    Attributes:
        name: what it is called here.
        recipe: what it was compiled with.
        evaluation: as `snnc.evaluate` gives it; `accuracy` is agreement with the ANN where there are no labels.
        interval: 95 % interval of the last accuracy.
        rate: spikes per neuron and step, in %; like `energy` None for an emitted file.
        energy: of one sample over that of the ANN, 45 nm convention, everything counted and no memory.
        account: operations and energy in full.
    """

    name: str
    recipe: str
    evaluation: Evaluation
    interval: tuple[float, float]
    rate: float | None
    energy: float | None
    account: Energy | None = None

    def by_step(self) -> list[tuple[int, int, float, float | None]]:
        """Step, steps from the input to its readout, accuracy, and agreement with the ANN."""
        latency, same = self.evaluation.latency, self.evaluation.agreement
        late = latency.steps - latency.T
        return [
            (t, late + t, score, same[t - 1] if same else None) for t, score in enumerate(self.evaluation.accuracy, 1)
        ]

    @property
    def early(self) -> EarlyExit | None:
        """What samples have that are each read out when they are sure by `SURE`, where there is a confidence."""
        return next((one for one in self.evaluation.exits if one.confidence == SURE), None)

    def by_confidence(self) -> list[tuple[float, float]]:
        """Mean steps and accuracy, where each sample is read out when it is sure, for several confidences."""
        return [(one.steps, one.accuracy) for one in self.evaluation.exits]


@dataclass(frozen=True)
class Comparison:
    """Several networks, measured on the same samples.

    Attributes:
        rows: in the order that they were given.
        measure: what is scored: accuracy, or agreement with the ANN.
        samples: how many.
        ann_accuracy: of the ANN, or None.
        provenance: what it takes to get this again.
    """

    rows: list[ComparedRow]
    measure: str
    samples: int
    ann_accuracy: float | None
    provenance: Provenance

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return asdict(self)

    def _repr_html_(self) -> str:
        columns = (
            "network",
            "recipe",
            "T",
            "latency in steps",
            "schedule",
            f"{self.measure}, %",
            "firing, %",
            "energy",
        )
        rows = []
        for row in self.rows:
            one = row.evaluation.latency
            score = f"{row.evaluation.accuracy[-1]:.2f}"
            rows.append((row.name, row.recipe, one.T, one.steps, one.schedule, score, row.rate, row.energy))
        return table(f"{len(rows)} networks on {self.samples} samples", columns, rows)

    def to_csv(self) -> str:
        """One line for each network and step."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in self.rows:
            latency = row.evaluation.latency
            writer.writerows((row.name, row.recipe, latency.T, latency.schedule, *one) for one in row.by_step())
        return text.getvalue()

    def chart(self, width: int = 420, height: int = 280) -> Chart:
        """Accuracy against latency."""
        return comparison(self.rows, self.ann_accuracy, self.measure, width, height)

    def save(self, path: str | Path) -> Path:
        """Writes what was found, whole or not at all, in the form of the suffix.

        Args:
            path: `.svg`, `.pdf` or `.png` for the chart; `.md`, `.tex` or `.csv` for a table of one row a network;
                anything else for a page.

        Raises:
            WriteError: the file cannot be written.
            SnncError: matplotlib is not installed, and is needed.
        """
        path = Path(path)
        if path.suffix in figure.FORMS:
            return figure.save(self.chart(figure.WIDTH, figure.HEIGHT), path)
        table = path.suffix in tabular.FORMS
        text = tabular.table(self.rows, self.ann_accuracy, self.measure, path.suffix) if table else self.to_html()
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return path

    def to_html(self) -> str:
        """One picture and one table, as a page that needs nothing else."""
        return (
            environment()
            .get_template("compare.html")
            .render(c=self, chart=self.chart(), frontiers=[frontier(*one, self.ann_accuracy) for one in self._costs()])
        )

    def _costs(self) -> list[tuple[str, str, list[tuple[str, float, float]]]]:
        """What accuracy costs, of each kind: title, label, and name, cost and score of the networks that tell it."""
        if len(self.rows) < 2:
            return []
        scores = [(row, row.evaluation.accuracy[-1]) for row in self.rows]
        known = [(row, score, row.account) for row, score in scores if row.account is not None]
        steps = [(row.name, float(row.evaluation.latency.steps), score) for row, score in scores]
        spikes = [(row.name, row.evaluation.spikes or 0.0, score) for row, score, _ in known]
        energy = [(row.name, row.energy or 0.0, score) for row, score, _ in known]
        return [
            ("Latency", "steps to the last readout", steps),
            *([("Spikes", "spikes a sample", spikes)] if known else []),
            *([("Energy", "energy over the ANN's", energy)] if known else []),
        ]


@steady()
@torch.no_grad()
def compare(
    networks: Mapping[str, SpikingNetwork],
    data: Any,
    ann: nn.Module | torch.export.ExportedProgram | None = None,
    path: str | Path | None = None,
    *,
    samples: int = 512,
    seed: int = 0,
    command: str = "snnc.compare(...)",
    files: Mapping[str, str] | None = None,
    track: Callable[..., Iterator[Any]] = no_progress,
) -> Comparison:
    """Measures several networks on the same samples.

    Args:
        networks: by name.
        data: samples as in training; without labels the ANN's classes count.
        ann: the network that they were compiled from.
        path: file to write, whole or not at all, as `Comparison.save` does; None writes nothing.
        samples: the first so many are used.
        seed: what the page says that samples were drawn with.
        command: what the page says it was made with.
        files: SHA-256 of files that the page should name.
        track: wraps iterables to show progress.

    Raises:
        RecipeError: no network.
        DataError: neither labels nor an ANN, no samples, or samples that do not fit.
        WriteError: the file cannot be written.
    """
    if not networks:
        raise RecipeError("There is no network to compare.", "one or more")
    chosen = gather(data, list(networks.values()), ann, samples)
    rows = []
    for name, network in networks.items():
        found = evaluate(
            network,
            chosen.told(chosen.batches()),
            chosen.ann,
            lambda items, what, name=name: track(items, f"{what} {name}", total=len(chosen.batches())),
            confidences(network, chosen),
        )
        rate = energy = None
        cost = measured(network, found, chosen.x.shape[1:])
        if cost is not None:
            rate, energy = 100 * cost.rate, cost.prices[0].each / cost.prices[0].ann
        recipe = str(network.info.get("recipe", "-"))
        rows.append(ComparedRow(name, recipe, found, interval(found.accuracy[-1], found.samples), rate, energy, cost))
    hashed = fingerprint(chosen.x, chosen.labels)
    made = Provenance(command, chosen.source, len(chosen.x), hashed, seed, dict(files or {}), versions())
    result = Comparison(rows, chosen.measure, len(chosen.x), rows[0].evaluation.ann_accuracy, made)
    if path is not None:
        result.save(path)
    return result
