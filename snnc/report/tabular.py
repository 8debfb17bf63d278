"""Networks as a table for a paper: Markdown, LaTeX and CSV, one row a network."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any

from snnc.report.energy import CONVENTIONS

SHORT = ("45 nm", "chip vs GPU")  # the conventions of energy, in their order
COLUMNS = (
    "network", "recipe", "T", "latency", "schedule", "{measure} %", "to ANN", "rate %", "spikes a neuron",
    "synaptic operations", *(f"{what}, {one}" for one in SHORT for what in ("µJ", "of ANN")),
)  # fmt: skip
FORMS = (".md", ".tex", ".csv")
_ESCAPES = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "µ": r"\textmu{}"}
)  # fmt: skip


def table(rows: Sequence[Any], ann: float | None, measure: str, suffix: str) -> str:
    """A table of `ComparedRow`s, the ANN first, in the form of a suffix of `FORMS`."""
    columns = [one.format(measure=measure) for one in COLUMNS]
    known = next((row.account for row in rows if row.account), None)
    cells = [_row(row, ann) for row in rows]
    if ann is not None:
        price = [x for p in known.prices for x in (f"{p.ann * 1e6:.4g}", "1")] if known else ["", ""] * len(CONVENTIONS)
        cells.insert(0, ["ANN", "", "", "", "", f"{ann:.2f}", "", "", "", "", *price])
    forms: dict[str, Callable[..., str]] = {".md": _markdown, ".tex": _latex, ".csv": _csv}
    return forms[suffix](columns, cells)


def _row(row: Any, ann: float | None) -> list[str]:
    found, cost = row.evaluation, row.account
    latency, score = found.latency, found.accuracy[-1]
    cells = [row.name, row.recipe, f"{latency.T}", f"{latency.steps}", latency.schedule, f"{score:.2f}"]
    cells.append("" if ann is None else f"{score - ann:+.2f}")
    if cost is None:
        return [*cells, *[""] * (len(COLUMNS) - len(cells))]
    cells += [f"{100 * cost.rate:.2f}", f"{cost.rate * cost.simulated:.3f}", f"{found.operations:.0f}"]
    return [*cells, *(x for p in cost.prices for x in (f"{p.each * 1e6:.4g}", f"{p.each / p.ann:.3f}"))]


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    sides = "|".join("---" if i in (0, 1, 4) else "--:" for i in range(len(columns)))
    return "\n".join([line(columns), f"|{sides}|", *map(line, rows), ""])


def _latex(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return " & ".join(cell.translate(_ESCAPES) for cell in cells) + r" \\"

    sides = "".join("l" if i in (0, 1, 4) else "r" for i in range(len(columns)))
    body = [line(columns), r"\midrule", *map(line, rows)]
    head = ["% needs booktabs", rf"\begin{{tabular}}{{{sides}}}", r"\toprule"]
    return "\n".join([*head, *body, r"\bottomrule", r"\end{tabular}", ""])


def _csv(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue()
