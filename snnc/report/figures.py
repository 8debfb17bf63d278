"""Every chart of a report as a file by itself, and its figures as a table."""

from __future__ import annotations

from pathlib import Path

from snnc.files import atomic_write
from snnc.report import figure, tabular
from snnc.report.charts import interval
from snnc.report.compare import ComparedRow
from snnc.report.findings import Findings
from snnc.report.page import drawn


def write(found: Findings, folder: str | Path, form: str = "svg") -> list[Path]:
    """Writes what a report shows into a folder, which is made where there is none.

    Args:
        found: what `snnc.report` gave.
        folder: to write to.
        form: "svg", "pdf" or "png".

    Returns:
        The files: a chart each, named by what it shows and its layer, and `table` as Markdown, LaTeX and CSV.

    Raises:
        SnncError: matplotlib is not installed, and is needed.
        WriteError: a file cannot be written.
    """
    folder = Path(folder)
    figure.require(f".{form}")
    folder.mkdir(exist_ok=True)
    written = []
    for name, charts in drawn(found).items():
        several = isinstance(charts, list)
        for chart in charts if several else [charts]:
            label = f"{name.removesuffix('s')}-{chart.title}" if several else name
            written.append(figure.save(chart, folder / f"{label}.{form}"))
    scored, cost = found.evaluation, found.energy
    ends = interval(scored.accuracy[-1], scored.samples)
    row = ComparedRow(found.title, str(found.info.get("recipe", "-")), scored, ends, None, None, cost)
    for suffix in tabular.FORMS:
        path = folder / f"table{suffix}"
        with atomic_write(path) as temporary:
            text = tabular.table([row], scored.ann_accuracy, found.measure, suffix)
            temporary.write_text(text, encoding="utf-8")
        written.append(path)
    return written
