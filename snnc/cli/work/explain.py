"""What `snnc explain` does."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from snnc.cli import show
from snnc.cli.blocks import Original, Running, Scored
from snnc.explain import explain
from snnc.explain.terms import OWN, TERMS

BATCH = 64


def run(
    snn: Path,
    original: Original,
    scored: Scored,
    output: str | None,
    running: Running,
    as_json: bool,
) -> None:
    """See the command."""
    if not original.given:
        raise click.UsageError("Give --ann, the original network, or --factory for one that builds all of it.")
    net = running.load(snn)
    ann = original.network()
    chosen = scored.samples(net).taking(net.inputs, net.inputs)
    track = partial(show.track, total=-(-len(chosen) // BATCH))
    found = explain(net, ann, chosen.batches(BATCH), track, output)
    content = {"snn": str(snn), "data": chosen.source, **found.to_dict()}
    if as_json:
        return show.as_json(content)
    whole = original.ann and not (original.factory or original.allow or original.key or original.leftover)
    return _say(content, str(original.ann) if whole else "MODEL")


def _say(found: Mapping[str, Any], model: str) -> None:
    show.say(f"Data: {found['data']}")
    show.say(f"Samples: {found['samples']}")
    if found["accuracy"] is not None:
        change = found["accuracy"] - found["ann_accuracy"]
        show.say(f"ANN: {found['ann_accuracy']:.2f} %")
        show.say(f"SNN: {found['accuracy']:.2f} % ({change:+.2f}) after {found['T']} steps")
    same = "" if found["agreement"] is None else f", the same class on {found['agreement']:.2f} % of the samples"
    show.say(f"Error of the output: {found['logit_error']:.1f} % of the ANN's{same}")
    whole = not found["calibrated"]
    effects, does = (("of output", "same class"), ", and what the layer's own error alone does to the output")
    show.table(
        f"Error of each layer in % of the ANN's activation{does * whole}",
        ("layer", "total", *TERMS, *effects * whole, "look first at", "largest own", "change"),
        [_row(layer, whole) for layer in found["layers"]],
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
    causes = [(name, *_effect(found["causes"][name])) for name in OWN if whole]
    show.table("Own errors of all layers, one kind at a time, in %", ("kind", "of output", "same class"), causes)
    for one in found["notes"]:
        show.say(one, "dim")
    show.say(found["summary"].replace("compile MODEL", f"compile {shlex.quote(model)}"), "bold")


def _row(layer: Mapping[str, Any], whole: bool) -> tuple[Any, ...]:
    sizes = [layer["total"], *(layer["terms"][name] for name in TERMS)]
    relative = ["-" if one["relative"] is None else f"{one['relative']:.1f}" for one in sizes]
    return (
        layer["name"],
        *relative,
        *(_effect(layer) if whole else ()),
        layer["source"],
        layer["cause"],
        layer["change"],
    )


def _effect(one: Mapping[str, Any]) -> tuple[str | None, ...]:
    return f"{one['logit_share']:.1f}", None if one["agreement"] is None else f"{one['agreement']:.1f}"
