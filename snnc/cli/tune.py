"""The command `tune`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click
from torch import nn

from snnc.capture import capture
from snnc.cli import show
from snnc.cli.blocks import Original, Reading, original_options, reading_options, threads_option
from snnc.cli.config import configurable
from snnc.cli.options import COUNT, PATH, dry_run_option, recipe_names, verb
from snnc.cli.plan import TRIAL, training
from snnc.cli.sources import compiled, destination
from snnc.errors import LoadError
from snnc.measure.evaluate import shown_steps
from snnc.networks.network import Network
from snnc.tune import TuneOptions, prepare
from snnc.tune import tune as train

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
@click.argument("model", type=PATH, required=False)
@click.option("--data", type=PATH, required=True, help="Training data (.npz, idx, CIFAR, images).")
@click.option("--T", "--time-steps", "T", type=COUNT, default=8, show_default=True, help="Time steps, or levels.")
@click.option(
    "--recipe",
    metavar="NAME|FILE.toml",
    shell_complete=recipe_names,
    help="Recipe that it is converted with before; 'snnc list recipes'.",
)
@reading_options("train", "Split to train on, if DATA has several.")
@original_options("Network to distil from, where MODEL is a spiking network.")
@click.option("--calib-samples", type=COUNT, default=512, show_default=True, help="Samples that calibrate it.")
@tune_options
@threads_option
@click.option("--resume", is_flag=True, help="Go on where an interrupted run stopped.")
@click.option("-o", "--out", type=PATH, help="File to write. [default: MODEL's name with the suffix .snn, here]")
@dry_run_option
@verb
@configurable
def tune(
    model: Path | None,
    data: Path,
    T: int,
    recipe: str | None,
    reading: Reading,
    original: Original,
    calib_samples: int,
    resume: bool,
    out: Path | None,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train MODEL for spikes.

    MODEL is a network as 'snnc compile' takes it, or a spiking network that it wrote. The result is a spiking network,
    or with --kind quantised one to compile. An interrupted run leaves OUT.checkpoint; --resume goes on from there.
    """
    out, _ = destination(out, "torch", model, original.factory, data, original.ann, recipe)
    saved = out.with_name(f"{out.name}.checkpoint")
    if saved.exists() and not resume:
        raise LoadError(f"'{saved}' is of a run that did not end.", f"--resume to go on with it, or rm {saved}")
    TuneOptions(**options)  # before anything is loaded
    start = compiled(model)
    if start is None:
        if original.ann:
            raise click.UsageError(f"--ann teaches a spiking MODEL; '{model or original.factory}' learns from itself.")
        network, teacher = original.load(model), None
    else:
        network, teacher = start, original.network()
    samples = reading.read(data)
    if teacher is not None and not isinstance(teacher, nn.Module):
        teacher = capture(teacher, samples.input_shape)
    if dry_run:
        ready = prepare(
            network, samples, T, recipe, teacher, samples=min(calib_samples, TRIAL), track=show.track, **options
        )
        if resume:
            ready.work.resume(saved, trial=True)
        ready.work.rehearse()
        return training(ready, samples, calib_samples if ready.first is not network else 0, resume, out, saved, as_json)
    result = train(
        network, samples, T, recipe, teacher=teacher, samples=calib_samples, checkpoint=saved, resume=resume, out=out,
        track=show.track, report=None if as_json else _told, **options,
    )  # fmt: skip
    found = result.info["tune"]
    if as_json:
        return show.as_json({"out": str(out), "data": samples.source, **found})
    show.say(f"Data: {samples.source}; {found['samples']} samples trained, {found['held_out']} held out")
    show.say(f"Trained: {found['steps']} steps in {found['seconds']:.0f} s")
    _table(found["table"], isinstance(result, Network))
    show.wrote(out)
    next_step = f"snnc eval {out} --data DATA" if isinstance(result, Network) else f"snnc compile {out} --T {T}"
    return show.say(f"What next: {next_step}", "dim")


def _told(row: dict[str, Any]) -> None:
    parts = [f"{row[key]:.2f} % {key}" for key in ("accuracy", "agreement") if row[key] is not None]
    loss = f"loss {row['loss']:.4f}"
    show.say(f"Epoch {row['epoch']} ({row['seconds']:.0f} s): {', '.join([loss, *parts])}", "", show.err)


def _table(table: dict[str, Any], spiking: bool) -> None:
    """Accuracy and agreement with the original, before and after, at each step."""
    before, after = table["before"], table["after"]
    kinds = [kind for kind in ("accuracy", "agreement") if after[kind] is not None]
    if not kinds:
        return
    ann = (table["ann"] or {}).get("accuracy")
    if ann:
        show.say(f"Original network: {ann[0]:.2f} % accuracy on the held-out samples")
    columns = [f"{kind} % {when}" for kind in kinds for when in ("before", "after")]
    shown = shown_steps(len(after[kinds[0]]))
    rows = [[t if spiking else "-", *(f"{w[k][t - 1]:.2f}" for k in kinds for w in (before, after))] for t in shown]
    show.table(
        "Held-out samples, read out after each step" if spiking else "Held-out samples", ("step", *columns), rows
    )
