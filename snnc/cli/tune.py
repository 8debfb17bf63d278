"""The command `tune`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click

from snnc.cli.blocks import memory_option, original_options, reading_options, threads_option
from snnc.cli.config import configurable
from snnc.cli.options import COUNT, PATH, READ, dry_run_option, recipe_names, verb
from snnc.tune.options import TuneOptions

# One line for each option of `TuneOptions`; types and defaults come from there.
HELP = {
    "kind": "Train the spiking network itself, or the clip-quantised one that is compiled afterwards.",
    "gradient": "Of the spiking network: of its rates, or through every step.",
    "surrogate": "Shape of the derivative of a spike, for --kind spiking.",
    "norms": "Batch normalisation during training: aimed at the original's moments, at the conversion's own, or none.",
    "loss": "Distil from the original network, learn from labels, or both.",
    "temperature": "Of the distillation.",
    "alpha": "Share of distillation in --loss both.",
    "match": "Weight of the error of every neuron's rate against the original network's activation.",
    "optimiser": "AdamW, or SGD with momentum 0.9.",
    "lr": "Highest learning rate; a cosine leads from it to 0.",
    "bound_lr": "Factor of the learning rate of bounds, thresholds and potentials.",
    "weight_decay": "Weight decay of weights.",
    "decay_bounds": "Decay bounds, thresholds and potentials too.",
    "batch": "Samples a step.",
    "shards": "Parts that a batch is cut into, for several processes to share.",
    "epochs": "Passes over the training data.",
    "minutes": "Time budget in place of --epochs.",
    "crop": "Pixels that images are shifted by at most.",
    "flip": "Mirror half of the images left to right.",
    "cutout": "Side of a square that is zeroed; 0 for none.",
    "held_out": "Share of the data that is kept from training, for the tables.",
    "amp": "Compute in bfloat16 where that is safe.",
    "device": "Where to train: cpu, cuda.",
    "seed": "Seed of data order, augmentation and split.",
    "save_seconds": "Seconds between checkpoints within an epoch.",
}


def tune_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Every option of `TuneOptions` as one of the command line, spelled with dashes."""
    hints = get_type_hints(TuneOptions)
    for option in reversed(fields(TuneOptions)):
        kind, name = hints[option.name], f"--{option.name.replace('_', '-')}"
        more: dict[str, Any] = {}
        if get_origin(kind) is Literal:
            more["type"] = click.Choice(get_args(kind))
        elif kind is bool:
            name += f"/--no-{name[2:]}"
        else:
            more["type"] = float if kind == float | None else kind
        command = click.option(
            name,
            option.name,
            default=option.default,
            show_default=option.default is not None,
            help=HELP[option.name],
            **more,
        )(command)
    return command


@click.command()
@click.argument("model", type=READ, required=False)
@click.option("--data", type=READ, required=True, help="Training data (.npz, idx, CIFAR, images).")
@click.option("--T", "--time-steps", "T", type=COUNT, default=8, show_default=True, help="Time steps, or levels.")
@click.option(
    "--recipe",
    metavar="NAME|FILE.toml",
    shell_complete=recipe_names,
    help="Recipe of the conversion before training; see 'snnc list recipes'.",
)
@reading_options("train", "Split to train on, if DATA has several.")
@original_options("Network to distil from, where MODEL is a spiking network.")
@click.option("--calib-samples", type=COUNT, default=512, show_default=True, help="Samples that calibrate it.")
@memory_option
@tune_options
@threads_option
@click.option("--resume", is_flag=True, help="Go on where an interrupted run stopped.")
@click.option("-o", "--out", type=PATH, help="File to write. [default: MODEL's name with the suffix .snn, here]")
@dry_run_option
@verb
@configurable
def tune(**given: Any) -> None:
    """Train MODEL for spikes.

    MODEL is a network as 'snnc compile' takes it, or a spiking network that it wrote. The result is a spiking network,
    or with --kind quantised one to compile. An interrupted run leaves OUT.checkpoint; --resume goes on from there.
    """
    from snnc.cli.work.tune import run

    run(**given)
