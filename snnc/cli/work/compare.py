"""What `snnc compare` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from snnc import api
from snnc.api import require_calibration
from snnc.cli import show
from snnc.cli.blocks import Original, Running, Scored, binning_of
from snnc.cli.options import command_line
from snnc.cli.targets import target
from snnc.cli.work.plan import comparison, files_of
from snnc.cli.work.sources import captured
from snnc.recipes import recipe as find_recipe
from snnc.report import Comparison, compare
from snnc.report.figure import require
from snnc.report.provenance import files
from snnc.report.samples import frames_of, gather


def run(
    snns: tuple[Path, ...],
    recipes: tuple[str, ...] | None,
    T: int,
    calib: Path | None,
    calib_samples: int,
    memory: float | None,
    original: Original,
    scored: Scored,
    output: str | None,
    running: Running,
    as_csv: bool,
    out: tuple[Path, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """See the command."""
    if not snns and not recipes:
        raise click.UsageError("Give SNNs, or --recipes to compile --ann with.")
    if recipes and not original.given:
        raise click.UsageError("--recipes compiles the original network: give --ann, or --factory for all of it.")
    if as_csv and as_json:
        raise click.UsageError("Give --csv or --json.")
    if as_csv and dry_run:
        raise click.UsageError("A dry run measures nothing that --csv could print: give --json.")
    for path in out:
        target(path, *snns, original.ann, scored.data, calib, *(recipes or ()))
        require(path.suffix)
    if double := next((path for path in out if out.count(path) > 1), None):
        raise click.UsageError(f"'{double}' is to be written twice.")
    candidates = [find_recipe(name) for name in recipes or ()]
    for one in candidates:  # before the first of them is compiled
        require_calibration(one, calib is not None)
        one.pipeline.check()
    network = original.network()
    networks: dict[str, Any] = {str(path): running.load(path) for path in snns}
    first, way = next(iter(networks.values()), None), frames_of([*networks.values()])
    if first and way:
        candidates, T = [one.over_frames(first.T) for one in candidates], first.T
    chosen, seed = scored.samples(first), scored.seed or 0
    given = scored.read(calib, "train", binning_of(first)).sample(calib_samples, seed) if candidates and calib else None
    source = captured(network, given or chosen, None) if candidates else network
    if dry_run:
        networks = {name: net.only(output) for name, net in networks.items()}
        samples = gather(chosen, [*networks.values()], network, len(chosen), output)
        return comparison(networks, candidates, T, samples, given, out, as_json)
    for one in candidates:
        net = api.compile(
            source, T, one, given, frames=way or None, samples=calib_samples, seed=seed, memory=memory, track=show.track
        )
        networks[_free(one.name, networks)] = running.place(net)
    found = compare(
        networks,
        chosen,
        network,
        samples=len(chosen),
        seed=seed,
        command=command_line(),
        files=files((*snns, original.ann, scored.data, calib)),
        track=show.track,
        output=output,
    )
    for path in out:
        found.save(path)
    for row in found.rows:
        for note in row.evaluation.notes:
            show.note(f"{row.name}: {note}")
    if as_json:
        return show.as_json({**files_of(out), **found.to_dict()})
    if as_csv:
        show.out.file.write(found.to_csv())
        return None
    return _say(found, out)


def _free(name: str, taken: dict[str, Any]) -> str:
    """`name`, with a number where two recipes or files share it."""
    number = 2
    free = name
    while free in taken:
        free, number = f"{name} ({number})", number + 1
    return free


def _say(found: Comparison, out: Sequence[Path]) -> None:
    show.say(f"Data: {found.samples} samples of {found.provenance.data}")
    if found.ann_accuracy is not None:
        show.say(f"ANN: {found.ann_accuracy:.2f} %")
    rows = []
    for row in found.rows:
        one, (low, high) = row.evaluation, row.interval
        same = None if one.agreement is None else f"{one.agreement[-1]:.2f}"
        rows.append(
            (
                row.name,
                one.latency.T,
                one.latency.steps,
                one.latency.schedule,
                f"{one.accuracy[-1]:.2f}",
                f"{low:.1f} to {high:.1f}",
                same,
                None if row.early is None else f"{row.early.accuracy:.2f} at {row.early.steps:.2f}",
                None if row.rate is None else f"{row.rate:.1f}",
                None if row.energy is None else f"{row.energy:.3f}",
            )
        )
    columns = (
        "network",
        "T",
        "latency",
        "schedule",
        "score %",
        "between",
        "same class %",
        "early exit",
        "firing %",
        "energy",
    )
    show.table(f"{found.measure.capitalize()}, latency in steps, energy over the ANN's without memory", columns, rows)
    for path in out:
        show.wrote(path)
