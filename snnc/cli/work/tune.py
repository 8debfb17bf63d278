"""What `snnc tune` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from torch import nn

from snnc.capture import capture
from snnc.cli import show
from snnc.cli.blocks import Original, Reading
from snnc.cli.targets import destination
from snnc.cli.work.plan import TRIAL, training
from snnc.cli.work.sources import compiled
from snnc.errors import LoadError
from snnc.measure.evaluate import shown_steps
from snnc.networks.network import Network
from snnc.tune.options import TuneOptions
from snnc.tune.run import prepare
from snnc.tune.run import tune as train


def run(
    model: Path | None,
    data: Path,
    T: int,
    recipe: str | None,
    reading: Reading,
    original: Original,
    calib_samples: int,
    memory: float | None,
    resume: bool,
    out: Path | None,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """See the command."""
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
            network,
            samples,
            T,
            recipe,
            teacher,
            samples=min(calib_samples, TRIAL),
            memory=memory,
            track=show.track,
            **options,
        )
        if resume:
            ready.work.resume(saved, trial=True)
        ready.work.rehearse()
        return training(ready, samples, calib_samples if ready.first is not network else 0, resume, out, saved, as_json)
    result = train(
        network, samples, T, recipe, teacher=teacher, samples=calib_samples, checkpoint=saved, resume=resume, out=out,
        memory=memory, track=show.track, report=None if as_json else _told, **options,
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
