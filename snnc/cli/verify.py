"""`snnc verify`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click
from torch import nn

from snnc import api
from snnc.capture import capture
from snnc.cli import show
from snnc.cli.options import COUNT, PATH, SPLIT, data_options, model_options, verb
from snnc.cli.sources import uncompiled
from snnc.data import read
from snnc.differences import differences
from snnc.network import CHUNK


@click.command("verify")
@click.argument("a", type=PATH)
@click.argument("b", type=PATH, required=False)
@click.option("--data", type=PATH, required=True, help="Data (.npz, idx, CIFAR, images); labels are used if there.")
@click.option("--split", type=SPLIT, default="test", show_default=True, help="Split that is run, if DATA has several.")
@data_options
@click.option("--stream", is_flag=True, help="Run B step by step; B is A where it is not given.")
@click.option("--strict", is_flag=True, help="Fail on any difference, of float networks too.")
@click.option("--ann", type=PATH, help="The original network beside them; '-' where --factory gives all of it.")
@model_options
@click.option("--limit", type=COUNT, help="Run the first so many samples alone.")
@click.option("--batch", type=COUNT, default=100, show_default=True, help="Samples at a time.")
@click.option("--chunk", type=COUNT, default=CHUNK, show_default=True, help="Samples x steps in memory at once.")
@click.option("--device", default="cpu", show_default=True, help="Where B runs: cpu, cuda, cuda:1; A is on the CPU.")
@verb
def verify_(
    a: Path,
    b: Path | None,
    data: Path,
    split: str,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    raw: bool,
    stream: bool,
    strict: bool,
    ann: Path | None,
    factory: str | None,
    allow: tuple[str, ...],
    limit: int | None,
    batch: int,
    chunk: int,
    device: str,
    as_json: bool,
) -> None:
    """Count the spikes that differ between A and B.

    A and B are files that 'snnc compile' wrote: two forms of one network, or one network run in two ways. Fixed-point
    networks spike the same everywhere: where a spike differs between two forms of one, the exit code is 1. Float
    networks may differ by rounding, and 'verify' says where they part.
    """
    if b is None and not stream:
        raise click.UsageError("Give B, the network to compare A with, or --stream to run A step by step beside it.")
    with show.busy(f"loading {a}"):
        one = api.load(a, chunk)
        two = one if b is None and device == "cpu" else api.load(b or a, chunk, device=device)
    original = uncompiled(ann, factory, allow) if ann or factory else None
    samples = read(data, mean=mean, std=std, raw=raw, split=split)
    if original is not None and not isinstance(original, nn.Module):
        original = capture(original, samples.input_shape)
    samples = samples.limit(limit) if limit else samples
    total = -(-len(samples) // batch)
    found = differences(one, two, samples.batches(batch), original, stream, partial(show.track, total=total))
    failed = (found.exact and not found.same) or (strict and not (found.same and not any(found.outputs)))
    names = {"a": str(a), "b": str(b or a) + (", step by step" if stream else "")}
    content = {**names, "data": samples.source, "T": one.T, **found.to_dict(), "failed": failed}
    if as_json:
        show.as_json(content)
    else:
        _say(content)
    if failed:
        click.get_current_context().exit(1)


def _say(found: Mapping[str, Any]) -> None:
    samples, layers, predictions = found["samples"], found["layers"], found["predictions"]
    show.say(f"A: {found['a']}")
    show.say(f"B: {found['b']}")
    show.say(f"Data: {found['data']}; {samples} samples, T = {found['T']}")
    for note in found["notes"]:
        show.say(note, "yellow")
    if layers is not None:
        spikes, places = found["spikes"], found["places"]
        parted = f"; they part at step {found['first'][1]} in '{found['first'][0]}'" if spikes else ""
        show.say(f"Spikes that differ: {spikes:,} of {places:,} places ({_share(spikes, places)}){parted}")
        rows = [
            (one["name"], f"{one['differ']:,}", _share(one["differ"], one["places"]), f"{one['spikes']:,}", one["step"])
            for one in layers
            if one["differ"]
        ]
        show.table("Layers that differ", ("layer", "spikes", "of all places", "spikes in A", "first at step"), rows)
    outputs = found["outputs"]
    show.say(f"Outputs that differ in any bit: {sum(outputs):,}; largest difference {found['logits']:.3g}")
    if predictions is not None:
        show.say(f"Predictions that differ: {predictions[-1]} of {samples} after the last step")
        if any(predictions[:-1]):
            by_step = [(t, predictions[t - 1]) for t in show.shown_steps(len(predictions))]
            show.table("Predictions that differ after each step", ("step", "samples"), by_step)
    show.say(f"Samples that differ: {found['touched']} of {samples}")
    if found["accuracy"]:
        told = "".join(f", {name} {value:.2f} %" for name, value in zip("AB", found["accuracy"], strict=True))
        beside = "" if found["ann_accuracy"] is None else f", ANN {found['ann_accuracy']:.2f} %"
        show.say(f"Accuracy: {told[2:]}{beside}")
    if found["ann_predictions"]:
        a, b = found["ann_predictions"]
        show.say(f"Predictions that differ from the ANN's: A {a}, B {b}")
    if found["same"]:
        what = "no output differs in any bit" if layers is None else "no spike and no prediction differs"
        rounded = "; outputs do by rounding, in the readout" if layers is not None and any(outputs) else ""
        show.say(f"The same: {what}{rounded}.", "green")
    elif found["exact"]:
        show.say("NOT the same, and these are fixed-point networks, which must be.", "bold red")
    else:
        show.say("Not the same. Float networks differ where a rounding difference meets a threshold.", "yellow")


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.3g} %" if whole else "-"
