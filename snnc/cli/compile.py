"""`snnc compile`."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from snnc import api
from snnc.backends import BACKENDS, OnnxModel
from snnc.capture import told_shape
from snnc.cli import show
from snnc.cli.blocks import Model, Reading, model_options, reading_options, shape_option, threads_option
from snnc.cli.config import configurable
from snnc.cli.options import COUNT, PATH, SEED, Setting, dry_run_option, recipe_names, verb
from snnc.cli.plan import compilation
from snnc.cli.search import check_search, search_options, searched, unwritable
from snnc.cli.sources import captured, destination
from snnc.measure.search import STEPS, searchable
from snnc.networks.staged import Staged
from snnc.passes import FixedPoint
from snnc.recipes import Recipe, parse, require_pass
from snnc.recipes import recipe as find_recipe

GUESSED = (
    "No calibration data: thresholds are guessed from batch-norm statistics and weights. Expect lower accuracy, "
    "most at few time steps; --calib DATA gives better ones."
)


@click.command("compile")
@click.argument("model", type=PATH, required=False)
@click.option(
    "--T", "--time-steps", "T", type=COUNT, help="Time steps; with --max-drop the most to try. [default: 8, or 64]"
)
@click.option(
    "--recipe",
    metavar="NAME|FILE.toml",
    shell_complete=recipe_names,
    help="Recipe; 'snnc list recipes'. Chosen by what there is, if not given.",
)
@click.option("--set", "changes", type=Setting(), multiple=True, help="Change an option of the recipe. Repeatable.")
@click.option(
    "--calib", type=PATH, metavar="DATA", help="Calibration data (.npz, idx, CIFAR, images); needs no labels."
)
@click.option("--calib-samples", type=COUNT, default=512, show_default=True, help="Samples drawn from it.")
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
@click.option("--single-output", is_flag=True, help="ONNX: leave out the second output, the readout after each step.")
@model_options
@shape_option
@threads_option
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of random choices.")
@click.option("-o", "--out", type=PATH, help="File to write. [default: MODEL's name with the backend's suffix, here]")
@dry_run_option
@verb
@configurable
def compile_(
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
    dry_run: bool,
    as_json: bool,
) -> None:
    """Compile MODEL into a spiking network.

    MODEL is an exported program (.pt2), an ONNX model, a pickled module of torch.nn layers, or weights (with
    --factory). With --max-drop, the fewest time steps are searched for at which a recipe loses no more than that.
    """
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
        net = searched(graph, data, max_drop, candidates, without, T, calib_samples, holdout, seed, as_json)
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
            source, T or 8, chosen, data, samples=calib_samples, input_shape=shape, seed=seed, track=show.track
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
    pipeline = chosen.pipeline
    for name, option, value in changes:
        require_pass(chosen, name)
        pipeline = pipeline.set(name, **{option: value})
    return replace(chosen, name=f"{chosen.name}, changed", pipeline=pipeline) if changes else chosen
