"""`snnc verify`."""

from __future__ import annotations

from typing import Any

import click

from snnc.cli.blocks import batch_option, original_options, running_options, scored_options
from snnc.cli.config import configurable
from snnc.cli.options import READ, verb


@click.command("verify")
@click.argument("a", type=READ)
@click.argument("b", type=READ, required=False)
@scored_options("test", "Split that is run, if DATA has several.", draw=False, needed=False)
@click.option("--stream", is_flag=True, help="Run B step by step; without B, A itself.")
@click.option("--strict", is_flag=True, help="Fail on any difference, also of float networks.")
@original_options("The original network beside them; '-' where --factory gives all of it.")
@batch_option
@running_options("Where B runs: cpu, cuda, cuda:1; A is on the CPU.")
@verb
@configurable
def verify_(**given: Any) -> None:
    """Count the spikes that differ between A and B.

    A and B are files that 'snnc compile' wrote: two forms of one network, or one network run in two ways. A is run on
    the CPU, a graph file by the reference. Fixed-point networks spike the same everywhere: where a spike differs
    between two forms of one, the exit code is 1. Float networks may differ by rounding, and 'verify' says where they
    part.

    B may also be a recording of what somebody else's simulator or chip did (.npz, or NIRData as .h5), in the form that
    'snnc compile --vectors' writes. It holds its own input, so no --data is needed.
    """
    from snnc.cli.work.verify import run

    run(**given)
