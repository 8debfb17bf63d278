"""`snnc report`."""

from __future__ import annotations

from pathlib import Path

import click

from snnc.cli import show
from snnc.cli.blocks import Original, Running, Scored, original_options, running_options, scored_options
from snnc.cli.config import configurable
from snnc.cli.options import PATH, command_line, verb
from snnc.cli.sources import target
from snnc.report import report
from snnc.report.provenance import files


@click.command("report")
@click.argument("snn", type=PATH)
@original_options()
@scored_options("test", "Split that is looked at, if DATA has several.", draw=True)
@running_options()
@click.option("--title", help="Title of the page. [default: the name of SNN]")
@click.option("-o", "--out", type=PATH, help="Page to write. [default: the name of SNN with the suffix .html, here]")
@verb
@configurable
def report_(
    snn: Path,
    original: Original,
    scored: Scored,
    running: Running,
    title: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Write a page that says how SNN does, why, and what it costs.

    SNN is a file that 'snnc compile' wrote, and --ann the network that it was made from. The page is one HTML file with
    pictures in it, which needs no network: accuracy against time, errors by layer, spikes, thresholds, latency, energy,
    passes, the graph, and what it takes to get the same again. --json prints the figures.
    """
    out = target(out or Path(f"{snn.stem}.html"), snn, original.ann, scored.data)
    net = running.load(snn)
    ann = original.network()
    chosen = scored.samples()
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
    )
    if as_json:
        return show.as_json({"out": str(out), **found.to_dict()})
    result = found.evaluation
    show.say(f"Data: {result.samples} samples of {chosen.source}")
    if result.ann_accuracy is not None:
        show.say(f"ANN: {result.ann_accuracy:.2f} %")
    show.say(f"SNN: {result.accuracy[-1]:.2f} % {found.measure}; latency: {show.timing(result.latency)}")
    for line in found.missing:
        show.note(line)
    return show.wrote(out)
