"""What `snnc report` does."""

from __future__ import annotations

from pathlib import Path

from snnc.cli import show
from snnc.cli.blocks import Original, Running, Scored
from snnc.cli.options import command_line
from snnc.cli.targets import folder, target
from snnc.report import report
from snnc.report.figure import require
from snnc.report.figures import write
from snnc.report.provenance import files


def run(
    snn: Path,
    original: Original,
    scored: Scored,
    output: str | None,
    running: Running,
    title: str | None,
    out: Path | None,
    figures: Path | None,
    figure_form: str,
    as_json: bool,
) -> None:
    """See the command."""
    out = target(out or Path(f"{snn.stem}.html"), snn, original.ann, scored.data)
    if figures:
        folder(figures)
        require(f".{figure_form}")
    net = running.load(snn)
    ann = original.network()
    chosen = scored.samples(net)
    found = report(
        net,
        chosen,
        ann,
        out,
        samples=len(chosen),
        seed=scored.seed or 0,
        title=title or snn.name,
        command=command_line(),
        files=files((snn, original.ann, scored.data)),
        track=show.track,
        output=output,
    )
    drawn = write(found, figures, figure_form) if figures else []
    if as_json:
        return show.as_json({"out": str(out), "figures": list(map(str, drawn)), **found.to_dict()})
    result = found.evaluation
    show.say(f"Data: {result.samples} samples of {chosen.source}")
    if result.ann_accuracy is not None:
        show.say(f"ANN: {result.ann_accuracy:.2f} %")
    show.say(f"SNN: {result.accuracy[-1]:.2f} % {found.measure}; latency: {show.timing(result.latency)}")
    for line in found.missing:
        show.note(line)
    if figures:
        show.say(f"Wrote {len(drawn)} files to {figures}: {', '.join(one.name for one in drawn)}", "green")
    return show.wrote(out)
