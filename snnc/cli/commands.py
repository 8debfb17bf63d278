"""The commands."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from torch import nn

from snnc import api
from snnc.backends import BACKENDS, OnnxModel
from snnc.capture import blockers, capture, told_shape
from snnc.cli import describe, show
from snnc.cli.config import configurable
from snnc.cli.options import (
    COUNT,
    PATH,
    SPLIT,
    Commands,
    Setting,
    data_options,
    model_options,
    recipe_names,
    shape_option,
    verb,
)
from snnc.cli.plan import plan
from snnc.cli.search import check_search, search_options, searched
from snnc.cli.sources import captured, compiled, destination, uncompiled
from snnc.cli.tune import tune
from snnc.data import read, require_labels
from snnc.dialect import ACTIVATIONS, WEIGHTED, ClipQuant
from snnc.evaluate import evaluate
from snnc.files import sniff
from snnc.graph import Stage
from snnc.network import CHUNK, Network
from snnc.passes import PASSES, FixedPoint
from snnc.pipeline import choose
from snnc.portable import emitted_kind
from snnc.recipes import Recipe, parse
from snnc.recipes import recipe as find_recipe
from snnc.runtime.choice import RUNTIMES
from snnc.search import STEPS, searchable
from snnc.staged import Staged
from snnc.version import __version__

GUESSED = (
    "No calibration data: thresholds are guessed from batch-norm statistics and weights. Expect lower accuracy, "
    "most at few time steps; --calib DATA gives better ones."
)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="snnc")
def main() -> None:
    """Compile trained neural networks into spiking networks that need few time steps."""


@main.command("compile")
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
@click.option(
    "--split", type=SPLIT, default="train", show_default=True, help="Split that calibrates, if DATA has several."
)
@search_options
@click.option(
    "--fixed-point",
    is_flag=False,
    flag_value=8,
    type=click.IntRange(4, 16),
    metavar="[BITS]",
    help="Integers everywhere, weights of BITS bits (8 if not given): the same spikes on every machine.",
)
@data_options
@click.option(
    "--backend", type=click.Choice(list(BACKENDS)), help="Output form; by OUT's suffix if not given, else torch."
)
@click.option("--single-output", is_flag=True, help="ONNX: leave out the second output, the readout after each step.")
@model_options
@shape_option
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Seed of random choices.")
@click.option("-o", "--out", type=PATH, help="File to write. [default: MODEL's name with the backend's suffix, here]")
@click.option("--dry-run", is_flag=True, help="Read everything and say what would be done; write nothing.")
@verb
@configurable
def compile_(
    model: Path | None,
    T: int | None,
    recipe: str | None,
    changes: tuple[tuple[str, str, Any], ...],
    calib: Path | None,
    calib_samples: int,
    split: str,
    max_drop: float | None,
    recipes: tuple[str, ...] | None,
    holdout: int,
    fixed_point: int | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    raw: bool,
    backend: str | None,
    single_output: bool,
    factory: str | None,
    allow: tuple[str, ...],
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
    out, backend = destination(out, backend, model, factory, calib, recipe, *(recipes or ()))
    if single_output and backend != OnnxModel.name:
        raise click.UsageError(f"--single-output is for ONNX files, and '{out}' is to be another.")
    chosen = find_recipe(recipe) if recipe else None
    network = uncompiled(model, factory, allow)
    data = None
    if calib:
        drawn = calib_samples + (holdout if max_drop is not None else 0)
        data = read(calib, mean=mean, std=std, raw=raw, split=split).sample(drawn, seed)
    graph = captured(network, data, input_shape)
    shape = input_shape or (None if data else told_shape(network))
    why = "as asked for"
    if max_drop is not None and data:
        candidates: Any = (_changed(chosen, changes, fixed_point),) if chosen else recipes
        if fixed_point and recipes:
            candidates = tuple(_changed(find_recipe(one), (), fixed_point) for one in recipes)
        if dry_run:
            tried = list(map(find_recipe, searchable() if candidates is None else candidates))
            return plan(graph, tried, "to be tried", data, calib_samples, T or STEPS[-1], out, backend, as_json)
        net = searched(graph, data, max_drop, candidates, T, calib_samples, holdout, seed, as_json)
        chosen, why = (
            parse(net.info["recipe_text"], "the file"),
            f"the fewest steps that lose {max_drop:g} points at most",
        )
    else:
        if chosen is None:
            chosen = find_recipe(api.default_recipe(graph, data is not None))
            why = {
                "qcfs": "the network brings its own clip bounds",
                "best": "there is calibration data",
                "data-free": "there is no calibration data",
            }[chosen.name]
            if chosen.name == "data-free":
                show.note(GUESSED)
        if data and not chosen.needs_data:
            show.note(f"Recipe '{chosen.name}' takes nothing from the calibration data but the shape of the input.")
        chosen = _changed(chosen, changes, fixed_point)
        if dry_run:
            return plan(graph, [chosen], why, data, calib_samples, T or 8, out, backend, as_json)
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
        choose(name, PASSES, "pass")
        pipeline = pipeline.set(name, **{option: value})
    return replace(chosen, name=f"{chosen.name}, changed", pipeline=pipeline) if changes else chosen


@main.command()
@click.argument("model", type=PATH, required=False)
@model_options
@shape_option
@verb
def check(
    model: Path | None, factory: str | None, allow: tuple[str, ...], input_shape: tuple[int, ...] | None, as_json: bool
) -> None:
    """Say whether MODEL converts.

    If not, lists everything that keeps it from converting, and exits with code 1.
    """
    network = uncompiled(model, factory, allow)
    with show.busy("reading the network"):
        found = blockers(network, input_shape)
        graph = None if found else capture(network, input_shape)
    if graph is None:
        if as_json:
            show.as_json({"converts": False, "blockers": [asdict(b) for b in found]})
        else:
            show.blockers([asdict(b) for b in found])
        click.get_current_context().exit(1)
    layers, kinds = describe.counts(graph, WEIGHTED), describe.counts(graph, (*ACTIVATIONS, ClipQuant))
    if as_json:
        return show.as_json(
            {"converts": True, "stage": Stage.ANN, "layers": layers, "activations": kinds, "blockers": []}
        )
    show.say("It converts.", "green")
    show.say(f"Layers with weights: {show.counts(layers)}")
    return show.say(f"Activations: {show.counts(kinds)}")


@main.command()
@click.argument("file", type=PATH, required=False)
@model_options
@shape_option
@verb
def inspect(
    file: Path | None, factory: str | None, allow: tuple[str, ...], input_shape: tuple[int, ...] | None, as_json: bool
) -> None:
    """Show what FILE holds.

    For a spiking network how it was made, its neurons and its graph; for any other the graph that snnc reads.
    """
    net = compiled(file)
    if net is None:
        graph = captured(uncompiled(file, factory, allow), None, input_shape)
        rows = describe.graph_rows(graph, Stage.ANN)
        if as_json:
            return show.as_json({"kind": "ann", "stage": Stage.ANN, "graph": rows})
        show.say("Not compiled yet: an ANN, as snnc reads it.")
        return show.graph(rows)
    content = {**net.info, "kind": "snn", "latency": asdict(net.latency), "neurons": [], "graph": []}
    if isinstance(net, Network):
        content["neurons"] = [describe.neuron_row(name, neuron) for name, neuron in net.neurons()]
        content["graph"] = describe.graph_rows(net.graph, net.stage)
    if as_json:
        return show.as_json(content)
    show.made(net.info, show.timing(net.latency))
    show.records(net.info.get("records", []))
    show.proof(net.info.get("proof", []))
    show.neurons(content["neurons"])
    show.graph(content["graph"])
    if not isinstance(net, Network):
        show.say(f"{emitted_kind(net)}: it runs, but its graph cannot be looked into.")
    return None


@main.command("eval")
@click.argument("snn", type=PATH)
@click.option("--data", type=PATH, required=True, help="Labelled data (.npz, idx, CIFAR, image folder).")
@click.option(
    "--split", type=SPLIT, default="test", show_default=True, help="Split that is scored, if DATA has several."
)
@data_options
@click.option("--ann", type=PATH, help="The original network, for comparison; '-' where --factory gives all of it.")
@model_options
@click.option("--limit", type=COUNT, help="Score the first so many samples alone.")
@click.option("--batch", type=COUNT, default=100, show_default=True, help="Samples at a time.")
@click.option("--chunk", type=COUNT, default=CHUNK, show_default=True, help="Samples x steps in memory at once.")
@click.option("--device", default="cpu", show_default=True, help="Where to run: cpu, cuda, cuda:1.")
@click.option("--threads", type=COUNT, help="Threads. [default: torch's]")
@click.option(
    "--runtime", type=click.Choice(RUNTIMES), default="auto", show_default=True, help="What runs it; the spikes agree."
)
@verb
@configurable
def eval_(
    snn: Path,
    data: Path,
    split: str,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    raw: bool,
    ann: Path | None,
    factory: str | None,
    allow: tuple[str, ...],
    limit: int | None,
    batch: int,
    chunk: int,
    device: str,
    threads: int | None,
    runtime: str,
    as_json: bool,
) -> None:
    """Measure SNN after every time step.

    SNN is a file that 'snnc compile' wrote. With --ann, the original network is measured beside it, run by torch: an
    exported program or an ONNX model as the graph that snnc reads in it.
    """
    if threads:
        torch.set_num_threads(threads)  # onnxruntime takes as many
    if runtime != "auto" and sniff(snn) in ("pt2", "onnx"):  # before a load that takes seconds
        raise click.UsageError(
            f"An emitted file runs as it was written: --runtime {runtime} is for graph files (.snn)."
        )
    with show.busy(f"loading {snn}"):
        net = api.load(snn, chunk, device=device)
    if isinstance(net, Network):
        net.runtime = runtime
    original = uncompiled(ann, factory, allow) if ann or factory else None
    samples = read(data, mean=mean, std=std, raw=raw, split=split)
    if original is not None and not isinstance(original, nn.Module):
        original = capture(original, samples.input_shape)
    samples = samples.limit(limit) if limit else samples
    require_labels(samples, "to measure accuracy")
    total = -(-len(samples) // batch)
    found = evaluate(net, samples.batches(batch), original, partial(show.track, total=total))
    content = {
        "snn": str(snn),
        "data": samples.source,
        "T": net.T,
        "runtime": net.runs_by if isinstance(net, Network) else emitted_kind(net).removeprefix("An "),
        **found.to_dict(),
        "latency_text": show.timing(net.latency),
    }
    if as_json:
        return show.as_json(content)
    show.say(f"Data: {samples.source}")
    show.evaluation(content)
    if not isinstance(net, Network):
        show.say(f"{emitted_kind(net)} cannot be looked into: no spikes or operations counted. The .snn file has them.")
    return None


@main.command("list")
@click.argument("kind", type=click.Choice(["passes", "recipes", "backends", "neurons"]), required=False)
@click.argument("name", required=False)
@verb
def list_(kind: str | None, name: str | None, as_json: bool) -> None:
    """List passes, recipes, backends and neurons.

    With KIND, lists one of these; with NAME, tells all about one of them: 'snnc list recipes cos' prints
    TOML to start a recipe of your own from.
    """
    known = {
        "passes": describe.passes(),
        "recipes": describe.recipes(),
        "backends": describe.backends(),
        "neurons": describe.neurons(),
    }
    if kind and name:
        one = {row["name"]: row for row in known[kind]}[
            choose(name, [row["name"] for row in known[kind]], kind.removesuffix("es" if kind == "passes" else "s"))
        ]
        return show.as_json(one) if as_json else show.say(one["text"].rstrip())
    chosen = {kind: known[kind]} if kind else known
    if as_json:
        return show.as_json(chosen)
    for title, rows in chosen.items():
        show.listing(title, rows)
    return None


main.add_command(tune)
