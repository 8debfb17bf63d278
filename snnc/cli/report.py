"""`snnc report`."""

from __future__ import annotations

from pathlib import Path

import click

from snnc import api
from snnc.cli import show
from snnc.cli.config import configurable
from snnc.cli.options import COUNT, PATH, SPLIT, command_line, data_options, model_options, verb
from snnc.cli.sources import target, uncompiled
from snnc.data import read
from snnc.network import CHUNK
from snnc.report import report
from snnc.report.provenance import files


@click.command("report")
@click.argument("snn", type=PATH)
@click.option("--ann", type=PATH, help="The original network; '-' where --factory gives all of it.")
@click.option("--data", type=PATH, required=True, help="Data (.npz, idx, CIFAR, images); labels are used if there.")
@click.option(
    "--split", type=SPLIT, default="test", show_default=True, help="Split that is looked at, if DATA has several."
)
@data_options
@model_options
@click.option("--samples", type=COUNT, default=512, show_default=True, help="Samples drawn from it.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Seed of what is drawn.")
@click.option("--chunk", type=COUNT, default=CHUNK, show_default=True, help="Samples x steps in memory at once.")
@click.option("--title", help="Title of the page. [default: the name of SNN]")
@click.option("-o", "--out", type=PATH, help="Page to write. [default: the name of SNN with the suffix .html, here]")
@verb
@configurable
def report_(
    snn: Path,
    ann: Path | None,
    data: Path,
    split: str,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    raw: bool,
    factory: str | None,
    allow: tuple[str, ...],
    samples: int,
    seed: int,
    chunk: int,
    title: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Write a page that says how SNN does, why, and what it costs.

    SNN is a file that 'snnc compile' wrote, and --ann the network that it was made from. The page is one HTML file with
    pictures in it, which needs no network: accuracy against time, errors by layer, spikes, thresholds, latency, energy,
    passes, the graph, and what it takes to get the same again. --json prints the figures.
    """
    out = target(out or Path(f"{snn.stem}.html"), snn, ann, data)
    with show.busy(f"loading {snn}"):
        net = api.load(snn, chunk)
    original = uncompiled(ann, factory, allow) if ann or factory else None
    chosen = read(data, mean=mean, std=std, raw=raw, split=split).sample(samples, seed)
    found = report(
        net,
        chosen,
        original,
        out,
        samples=samples,
        seed=seed,
        title=title or snn.name,
        command=command_line(),
        files=files((snn, ann, data)),
        track=show.track,
    )
    if as_json:
        return show.as_json({"out": str(out), **found.to_dict()})
    scored = found.evaluation
    show.say(f"Data: {scored.samples} samples of {chosen.source}")
    if scored.ann_accuracy is not None:
        show.say(f"ANN: {scored.ann_accuracy:.2f} %")
    show.say(f"SNN: {scored.accuracy[-1]:.2f} % {found.measure}; latency: {show.timing(scored.latency)}")
    for line in found.missing:
        show.note(line)
    return show.say(f"Wrote {out} ({out.stat().st_size / 1000:,.0f} kB)", "green")
