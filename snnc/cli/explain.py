"""`snnc explain`."""

from __future__ import annotations

from typing import Any

import click

from snnc.cli.blocks import original_options, output_option, running_options, scored_options
from snnc.cli.config import configurable
from snnc.cli.options import READ, verb


@click.command("explain")
@click.argument("snn", type=READ)
@original_options()
@scored_options(
    "train",
    "Split that is looked at, if DATA has several. What is found guides choices, so leave the test split alone.",
    draw=True,
)
@output_option
@running_options()
@verb
@configurable
def explain_(**given: Any) -> None:
    """Say where the error of SNN comes from, layer by layer.

    SNN is a file that 'snnc compile' wrote, and --ann the network that it was made from. The error of each neuron layer
    is split into what it inherits and its own clipping, quantisation and unevenness.
    """
    from snnc.cli.work.explain import run

    run(**given)
