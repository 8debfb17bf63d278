"""The group of all commands, and those that look at files: `check`, `inspect`, `list`."""

from __future__ import annotations

from typing import Any

import click

from snnc.cli.blocks import model_options, shape_option, target_option
from snnc.cli.options import READ, Commands, verb
from snnc.version import __version__


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="snnc")
def main() -> None:
    """Compile trained neural networks into spiking networks that need few time steps."""


@main.command()
@click.argument("model", type=READ, required=False)
@model_options
@shape_option
@target_option
@verb
def check(**given: Any) -> None:
    """Say whether MODEL converts.

    If not, lists everything that keeps it from converting, and exits with code 1. With --target, lists too what that
    simulator or chip would do otherwise, and what to change; where it would not run the network, the code is 1.
    """
    from snnc.cli.work.look import check

    check(**given)


@main.command()
@click.argument("file", type=READ, required=False)
@model_options
@shape_option
@verb
def inspect(**given: Any) -> None:
    """Show what FILE holds.

    For a spiking network how it was made, its neurons and its graph; for any other the graph that snnc reads.
    """
    from snnc.cli.work.look import inspect

    inspect(**given)


@main.command("list")
@click.argument("kind", type=click.Choice(["passes", "recipes", "backends", "neurons", "targets"]), required=False)
@click.argument("name", required=False)
@verb
def list_(**given: Any) -> None:
    """List passes, recipes, backends, neurons and targets.

    With KIND, lists one of these; with NAME, tells all about one of them: 'snnc list recipes cos' prints
    TOML to start a recipe of your own from.
    """
    from snnc.cli.work.look import list_

    list_(**given)
