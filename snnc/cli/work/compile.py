"""What `snnc compile` does."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from snnc import api
from snnc.backends import BACKENDS, OnnxModel
from snnc.capture import told_shape
from snnc.cli import show
from snnc.cli.blocks import Model, Reading
from snnc.cli.search import check_search
from snnc.cli.targets import destination
from snnc.cli.work.plan import compilation
from snnc.cli.work.search import searched, unwritable
from snnc.cli.work.sources import captured
from snnc.measure.search import STEPS, searchable
from snnc.networks.staged import Staged
from snnc.passes import FixedPoint
from snnc.recipes import Recipe, parse, require_pass
from snnc.recipes import recipe as find_recipe

GUESSED = (
    "No calibration data: thresholds are guessed from batch-norm statistics and weights. Expect lower accuracy, "
    "most at few time steps; --calib DATA gives better ones."
)


def run(
    model: Path | None,
    T: int | None,
    recipe: str | None,
    changes: tuple[tuple[str, str, Any], ...],
    calib: Path | None,
    calib_samples: int,
    reading: Reading,
    max_drop: float | None,
    recipes: tuple[str, ...] | None,
    holdout: int,
    fixed_point: int | None,
    backend: str | None,
    single_output: bool,
    how: Model,
    input_shape: tuple[int, ...] | None,
    seed: int,
    out: Path | None,
    quick: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """See the command."""
    check_search(max_drop, calib, recipe, recipes, changes)
    if fixed_point and max_drop is not None and not (recipe or recipes):
        raise click.UsageError("--fixed-point with --max-drop needs recipes to put it behind: give --recipe.")
    out, backend = destination(out, backend, model, how.factory, calib, recipe, *(recipes or ()))
    if single_output and backend != OnnxModel.name:
        raise click.UsageError(f"--single-output is for ONNX files, and '{out}' is to be another.")
    chosen = find_recipe(recipe) if recipe else None
    network = how.load(model)
    data = None
    if calib:
        drawn = calib_samples + (holdout if max_drop is not None else 0)
        data = reading.read(calib).sample(drawn, seed)
    graph = captured(network, data, input_shape)
    shape = input_shape or (None if data else told_shape(network))
    why = "as asked for"
    if max_drop is not None and data:
        candidates: Any = (_changed(chosen, changes, fixed_point),) if chosen else recipes
        if fixed_point and recipes:
            candidates = tuple(_changed(find_recipe(one), (), fixed_point) for one in recipes)
        most = T or STEPS[-1]
        without = unwritable(BACKENDS[backend], candidates, most, graph, data.input_shape)
        if dry_run:
            names = [one for one in searchable() if one not in without] if candidates is None else candidates
            tried = list(map(find_recipe, names))
            return compilation(graph, tried, "to be tried", data, calib_samples, most, out, backend, as_json)
        net = searched(graph, data, max_drop, candidates, without, T, calib_samples, holdout, seed, quick, as_json)
        chosen, why = (
            parse(net.info["recipe_text"], "the file"),
            f"the fewest steps that lose {max_drop:g} points at most",
        )
    else:
        if chosen is None:
            chosen = find_recipe(api.default_recipe(graph, data is not None))
            why = {
                "telescoped": "there are curved operations inside, such as GELU, gates or attention",
                "qcfs": "the network brings its own clip bounds",
                "best": "there is calibration data",
                "data-free": "there is no calibration data",
            }[chosen.name]
            if chosen.name == "data-free":
                show.note(GUESSED)
        if data and not chosen.needs_data:
            show.note(f"Recipe '{chosen.name}' takes nothing from the calibration data but the shape of the input.")
        chosen = _changed(chosen, changes, fixed_point)
        if not chosen.needs_data or data:  # otherwise that is what is wrong
            known = data.input_shape if data else network.input_shape if isinstance(network, Staged) else None
            BACKENDS[backend].accept(chosen.pipeline, T or 8, graph, shape or known)
        if dry_run:
            return compilation(graph, [chosen], why, data, calib_samples, T or 8, out, backend, as_json)
        source = network if isinstance(network, Staged) else graph  # what it was trained with goes into the file
        net = api.compile(
            source,
            T or 8,
            chosen,
            data,
            samples=calib_samples,
            input_shape=shape,
            seed=seed,
            quick=quick,
            track=show.track,
        )
    with show.busy(f"writing {out}"):
        api.save(net, out, OnnxModel(anytime=False) if single_output else backend)
    latency = show.timing(net.latency)
    if as_json:
        parts = {"out": str(out), "backend": backend, "why": why, "latency_text": latency}
        return show.as_json({**parts, "latency": asdict(net.latency), **net.info})
    show.say(f"Recipe: {chosen.name} ({why}). {chosen.summary}")
    if data:
        show.say(f"Calibration: {net.info['calibration_samples']} samples of {data.source}")
    show.records(net.info["records"])
    show.choices(net.info.get("choices", []))
    show.proof(net.info.get("proof", []))
    show.say(f"Latency: {latency}")
    show.wrote(out)
    if BACKENDS[backend].loads:
        show.say(f"To measure it: snnc eval {out} --data DATA", "dim")
    return None


def _changed(chosen: Recipe, changes: tuple[tuple[str, str, Any], ...], bits: int | None = None) -> Recipe:
    """The recipe with fixed point behind it, and the options of `--set`; its name says that it is not the original."""
    if bits:
        chosen = replace(
            chosen, name=f"{chosen.name}, {bits} bits", pipeline=chosen.pipeline.insert(FixedPoint(bits=bits))
        )
    name = f"{chosen.name}, changed" if changes else chosen.name
    for which, option, value in changes:
        require_pass(chosen, which)
        chosen = chosen.set(which, **{option: value})
    return replace(chosen, name=name)
