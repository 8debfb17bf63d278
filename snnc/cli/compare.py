"""`snnc compare`."""

from __future__ import annotations

from typing import Any

import click

from snnc.cli.blocks import memory_option, original_options, output_option, running_options, scored_options
from snnc.cli.config import configurable
from snnc.cli.options import COUNT, PATH, READ, dry_run_option, verb
from snnc.cli.search import Names


@click.command("compare")
@click.argument("snns", type=READ, nargs=-1, metavar="[SNN]...")
@click.option("--recipes", type=Names(), metavar="NAME,NAME", help="Recipes to compile --ann with, besides SNNs.")
@click.option("--T", "--time-steps", "T", type=COUNT, default=8, show_default=True, help="Time steps of --recipes.")
@click.option("--calib", type=READ, metavar="DATA", help="Calibration data of --recipes; its training split.")
@click.option("--calib-samples", type=COUNT, default=512, show_default=True, help="Samples drawn from it.")
@memory_option
@original_options()
@scored_options("test", "Split that is scored, if DATA has several.", draw=True)
@output_option
@running_options()
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, one line for each network and step, and nothing else.")
@click.option(
    "-o",
    "--out",
    type=PATH,
    multiple=True,
    help="File to write: a page (.html), its picture (.svg, .pdf, .png) or its table (.md, .tex, .csv). Repeatable.",
)
@dry_run_option
@verb
@configurable
def compare_(**given: Any) -> None:
    """Compare several SNNs, or several recipes, on the same data.

    Each SNN is a file that 'snnc compile' wrote. With --recipes, --ann is compiled with each of them, for --T steps.
    """
    from snnc.cli.work.compare import run

    run(**given)
