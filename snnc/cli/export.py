"""`snnc export`."""

from __future__ import annotations

from typing import Any

import click

from snnc.cli.blocks import shape_option
from snnc.cli.config import configurable
from snnc.cli.options import PATH, READ, verb
from snnc.defaults import BACKENDS


@click.command("export")
@click.argument("net", type=READ)
@click.option(
    "-o", "--out", type=PATH, multiple=True, required=True, help="File to write; its suffix says the form. Repeatable."
)
@click.option(
    "--backend", type=click.Choice(list(BACKENDS)), help="Form of the only OUT, where its suffix says none or another."
)
@click.option("--single-output", is_flag=True, help="ONNX: leave out the second output, the readout after each step.")
@shape_option
@verb
@configurable
def export_(**given: Any) -> None:
    """Write NET in other forms, without compiling anew.

    NET is a graph file (.snn) that 'snnc compile' or 'snnc tune' wrote. OUT is an exported program (.pt2), an ONNX
    model (.onnx), a file for other simulators and chips (.nir), or another graph file.
    """
    from snnc.cli.work.export import run

    run(**given)
