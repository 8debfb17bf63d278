"""`snnc report`."""

from __future__ import annotations

from typing import Any

import click

from snnc.cli.blocks import original_options, output_option, running_options, scored_options
from snnc.cli.config import configurable
from snnc.cli.options import PATH, READ, verb


@click.command("report")
@click.argument("snn", type=READ)
@original_options()
@scored_options("test", "Split that is looked at, if DATA has several.", draw=True)
@output_option
@running_options()
@click.option("--title", help="Title of the page. [default: the name of SNN]")
@click.option("-o", "--out", type=PATH, help="Page to write. [default: the name of SNN with the suffix .html, here]")
@click.option(
    "--figures", type=PATH, metavar="DIR", help="Folder to write every chart to as a file, for papers, and a table."
)
@click.option(
    "--figure-form", type=click.Choice(["svg", "pdf", "png"]), default="svg", show_default=True, help="Form of these."
)
@verb
@configurable
def report_(**given: Any) -> None:
    """Write a page that says how SNN does, why, and what it costs.

    SNN is a file that 'snnc compile' wrote, and --ann the network that it was made from. The page is one HTML file with
    pictures in it, which needs no network: accuracy against time, errors by layer, spikes, thresholds, latency, energy,
    passes, the graph, and what it takes to get the same again. --json prints the figures.
    """
    from snnc.cli.work.report import run

    run(**given)
