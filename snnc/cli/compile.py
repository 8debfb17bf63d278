"""`snnc compile`."""

from __future__ import annotations

from typing import Any

import click

from snnc.cli.blocks import (
    frames_option,
    memory_option,
    model_options,
    reading_options,
    shape_option,
    target_option,
    threads_option,
)
from snnc.cli.config import configurable
from snnc.cli.options import COUNT, PATH, READ, SEED, Setting, dry_run_option, recipe_names, verb
from snnc.cli.search import search_options
from snnc.defaults import BACKENDS


@click.command("compile")
@click.argument("model", type=READ, required=False)
@click.option(
    "--T",
    "--time-steps",
    "T",
    type=COUNT,
    help="Time steps, or frames; with --max-drop the most to try. [default: 8, or 64, or the frames of DATA]",
)
@frames_option
@click.option(
    "--recipe",
    metavar="NAME|FILE.toml",
    shell_complete=recipe_names,
    help="Recipe; see 'snnc list recipes'. If not given, it follows from the network and the data.",
)
@click.option("--set", "changes", type=Setting(), multiple=True, help="Change an option of the recipe. Repeatable.")
@click.option(
    "--calib", type=READ, metavar="DATA", help="Calibration data (.npz, idx, CIFAR, images); needs no labels."
)
@click.option("--calib-samples", type=COUNT, default=512, show_default=True, help="Samples drawn from it.")
@memory_option
@reading_options("train", "Split that calibrates, if DATA has several.")
@search_options
@click.option(
    "--fixed-point",
    is_flag=False,
    flag_value=8,
    type=click.IntRange(4, 16),
    metavar="[BITS]",
    help="Integers everywhere, weights of BITS bits (8 if not given): the same spikes on every machine.",
)
@click.option(
    "--backend", type=click.Choice(list(BACKENDS)), help="Output form; by OUT's suffix if not given, else torch."
)
@target_option
@click.option(
    "--vectors",
    type=COUNT,
    metavar="N",
    help="Write beside OUT what every neuron does at each step on N samples: OUT's name with .vectors.npz.",
)
@click.option("--single-output", is_flag=True, help="ONNX: leave out the second output, the readout after each step.")
@model_options
@shape_option
@threads_option
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of random choices.")
@click.option(
    "-o",
    "--out",
    type=PATH,
    multiple=True,
    help="File to write. Repeatable, for several forms. [default: MODEL's name with the backend's suffix, here]",
)
@click.option("--quick", is_flag=True, help="Keep the options of the recipe; choose none on the data.")
@dry_run_option
@verb
@configurable
def compile_(**given: Any) -> None:
    """Compile MODEL into a spiking network.

    MODEL is an exported program (.pt2), an ONNX model, a pickled module of torch.nn layers, or weights (with
    --factory). With --max-drop, the fewest time steps are searched for at which a recipe loses no more than that.
    """
    from snnc.cli.work.compile import run

    run(**given)
