"""`snnc eval`."""

from __future__ import annotations

from typing import Any

import click

from snnc.cli.blocks import batch_option, original_options, output_option, running_options, scored_options
from snnc.cli.config import configurable
from snnc.cli.options import READ, verb


@click.command("eval")
@click.argument("snn", type=READ)
@scored_options("test", "Split that is scored, if DATA has several.", draw=False, labelled=True)
@original_options("The original network, for comparison; '-' where --factory gives all of it.")
@click.option(
    "--exit",
    "confidence",
    type=click.FloatRange(0, 1, min_open=True),
    help="Read each sample out at the first step at which its class has this confidence, such as 0.9.",
)
@output_option
@batch_option
@running_options()
@verb
@configurable
def eval_(**given: Any) -> None:
    """Measure SNN after every time step.

    SNN is a file that 'snnc compile' wrote. With --ann, the original network is measured beside it, run by torch: an
    exported program or an ONNX model as the graph that snnc reads in it. Every output is then compared with its: where
    none holds class scores, or there are several and --output names none, that is what is measured.
    """
    from snnc.cli.work.evaluate import run

    run(**given)
