"""`snnc explain`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from snnc import api
from snnc.cli import show
from snnc.cli.config import configurable
from snnc.cli.options import COUNT, PATH, SPLIT, data_options, model_options, verb
from snnc.cli.sources import uncompiled
from snnc.data import read
from snnc.explain import explain
from snnc.explain.terms import OWN, TERMS
from snnc.network import CHUNK

BATCH = 64


@click.command("explain")
@click.argument("snn", type=PATH)
@click.option("--ann", type=PATH, help="The original network; '-' where --factory gives all of it.")
@click.option("--data", type=PATH, required=True, help="Data (.npz, idx, CIFAR, images); labels are used if there.")
@click.option(
    "--split",
    type=SPLIT,
    default="train",
    show_default=True,
    help="Split that is looked at, if DATA has several. What is found guides choices, so leave the test split alone.",
)
@data_options
@model_options
@click.option("--samples", type=COUNT, default=512, show_default=True, help="Samples drawn from it.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Seed of that draw.")
@click.option("--chunk", type=COUNT, default=CHUNK, show_default=True, help="Samples x steps in memory at once.")
@verb
@configurable
def explain_(
    snn: Path,
    ann: Path | None,
    data: Path,
    split: str,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    raw: bool,
    factory: str | None,
    allow: tuple[str, ...],
    samples: int,
    seed: int,
    chunk: int,
    as_json: bool,
) -> None:
    """Say where the error of SNN comes from, layer by layer.

    SNN is a file that 'snnc compile' wrote, and --ann the network that it was made from. The error of each neuron layer
    is split into what it inherits and its own clipping, quantisation and unevenness.
    """
    if ann is None and factory is None:
        raise click.UsageError("Give --ann, the original network, or --factory for one that builds all of it.")
    with show.busy(f"loading {snn}"):
        net = api.load(snn, chunk)
    original = uncompiled(ann, factory, allow)
    chosen = read(data, mean=mean, std=std, raw=raw, split=split).sample(samples, seed)
    found = explain(net, original, chosen.batches(BATCH), partial(show.track, total=-(-len(chosen) // BATCH)))
    content = {"snn": str(snn), "data": chosen.source, **found.to_dict()}
    if as_json:
        return show.as_json(content)
    return _say(content)


def _say(found: Mapping[str, Any]) -> None:
    show.say(f"Data: {found['data']}")
    show.say(f"Samples: {found['samples']}")
    if found["accuracy"] is not None:
        change = found["accuracy"] - found["ann_accuracy"]
        show.say(f"ANN: {found['ann_accuracy']:.2f} %")
        show.say(f"SNN: {found['accuracy']:.2f} % ({change:+.2f}) after {found['T']} steps")
    same = "" if found["agreement"] is None else f", the same class on {found['agreement']:.2f} % of the samples"
    show.say(f"Error of the output: {found['logit_error']:.1f} % of the ANN's{same}")
    show.table(
        "Error of each layer in % of the ANN's activation, and what the layer's own error alone does to the output",
        ("layer", "total", *TERMS, "of output", "same class", "look first at", "largest own", "change"),
        [_row(layer) for layer in found["layers"]],
    )
    show.table(
        "Neurons, in %",
        ("layer", "firing", "too many spikes", "too few", "clipped", "never fire", "and should", "mean error"),
        [
            (
                layer["name"],
                *(f"{value:.1f}" for value in (100 * layer["rate"], layer["over"], layer["under"], layer["clipped"])),
                *(f"{layer[name]:.1f}" for name in ("dead", "silenced")),
                f"{layer['total']['mean']:+.3g}",
            )
            for layer in found["layers"]
        ],
    )
    causes = [(name, *_effect(found["causes"][name])) for name in OWN]
    show.table("Own errors of all layers, one kind at a time, in %", ("kind", "of output", "same class"), causes)
    for one in found["notes"]:
        show.say(one, "dim")
    show.say(found["summary"], "bold")


def _row(layer: Mapping[str, Any]) -> tuple[Any, ...]:
    sizes = [layer["total"], *(layer["terms"][name] for name in TERMS)]
    relative = ["-" if one["relative"] is None else f"{one['relative']:.1f}" for one in sizes]
    return layer["name"], *relative, *_effect(layer), layer["source"], layer["cause"], layer["change"]


def _effect(one: Mapping[str, Any]) -> tuple[str | None, ...]:
    return f"{one['logit_share']:.1f}", None if one["agreement"] is None else f"{one['agreement']:.1f}"
