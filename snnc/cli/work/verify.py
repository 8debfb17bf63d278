"""What `snnc verify` does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from snnc.cli import show
from snnc.cli.blocks import Original, Running, Scored
from snnc.differences import against, verify
from snnc.differences.recorded import is_recording, read_recording
from snnc.measure.evaluate import shown_steps


def run(
    a: Path,
    b: Path | None,
    scored: Scored,
    stream: bool,
    strict: bool,
    original: Original,
    batch: int,
    running: Running,
    as_json: bool,
) -> None:
    """See the command."""
    if b is None and not stream and running.device == "cpu" and running.runtime == "auto":
        raise click.UsageError(
            "Give B, the network to compare A with, or another way to run A: --stream, --device or --runtime."
        )
    if stream and running.runtime == "fast":
        raise click.UsageError("Step by step the reference runs: leave out --stream, or --runtime.")
    if b is not None and is_recording(b):
        return _recorded(a, b, scored, stream, strict, original, running, as_json)
    one, two = replace(running, device="cpu", runtime="auto").load(a), running.load(b or a)
    one.runtime = "reference"
    samples = scored.samples(one).taking(one.inputs, one.inputs)
    ann = original.module(samples.frame_shape)
    total = -(-len(samples) // batch)
    found = verify(one, two, samples.batches(batch), ann, stream, partial(show.track, total=total))
    failed = (found.exact and not found.same) or (strict and not (found.same and not any(found.outputs)))
    ways = (", step by step" if stream else "") + ("" if running.device == "cpu" else f", on {running.device}")
    ways += "" if running.runtime == "auto" else f", by the runtime '{running.runtime}'"
    names = {"a": str(a), "b": f"{b or a}{ways}"}
    return _end({**names, "data": samples.source, "T": one.T, **found.to_dict(), "failed": failed}, as_json)


def _recorded(
    a: Path, b: Path, scored: Scored, stream: bool, strict: bool, original: Original, running: Running, as_json: bool
) -> None:
    """Counts what differs in a recording."""
    if scored.data or stream or original.given or running.device != "cpu" or running.runtime != "auto":
        raise click.UsageError(f"'{b}' is a recording: it holds its own input, and is not run. Give it alone beside A.")
    one = replace(running, device="cpu", runtime="auto").load(a)
    if one.looks_inside:
        one.runtime = "reference"
    recorded = read_recording(b)
    found = against(one, recorded)
    failed = (found.exact and not found.same) or (strict and not (found.same and not any(found.outputs)))
    by = f" ({recorded.made_by})" if recorded.made_by else ""
    names = {"a": str(a), "b": f"{b}, a recording{by}", "data": f"the input in {b}"}
    _end({**names, "T": one.T, **found.to_dict(), "failed": failed}, as_json)


def _end(content: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        show.as_json(content)
    else:
        _say(content)
    if content["failed"]:
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
    if outputs:
        show.say(f"Outputs that differ in any bit: {sum(outputs):,}; largest difference {found['logits']:.3g}")
    if predictions is not None:
        show.say(f"Predictions that differ: {predictions[-1]} of {samples} after the last step")
        if any(predictions[:-1]):
            by_step = [(t, predictions[t - 1]) for t in shown_steps(len(predictions))]
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
