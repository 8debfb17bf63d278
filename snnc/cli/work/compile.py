"""What `snnc compile` does."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
from torch import fx

from snnc import api
from snnc.backends import BACKENDS, NirFile
from snnc.capture import Captured, counted_frames, told_inputs, told_shape
from snnc.cli import show
from snnc.cli.blocks import Model, Reading
from snnc.cli.search import check_search
from snnc.cli.targets import Form, destinations
from snnc.cli.work.export import require_nir, require_onnx, write, written
from snnc.cli.work.fitting import chosen_for, fit_of, priced, require_fit, write_beside
from snnc.cli.work.plan import compilation
from snnc.cli.work.search import searched, unwritable
from snnc.cli.work.sources import captured
from snnc.data import Binning, Dataset
from snnc.errors import SnncError
from snnc.measure.search import STEPS, searchable
from snnc.measure.suits import reduced
from snnc.networks.network import Network
from snnc.networks.staged import Staged
from snnc.passes import FixedPoint
from snnc.recipes import Recipe, parse, require_pass
from snnc.recipes import recipe as find_recipe
from snnc.recipes.contest import contenders
from snnc.recipes.default import REASONS, default_recipe
from snnc.structure import Shape

GUESSED = (
    "No calibration data: thresholds are guessed from batch-norm statistics and weights. Expect lower accuracy, "
    "most at few time steps; --calib DATA gives better ones."
)


@dataclass(frozen=True)
class Wish:
    """The options of `snnc compile`, as the command line has them."""

    model: Path | None
    T: int | None
    frames: str | None
    recipe: str | None
    changes: tuple[tuple[str, str, Any], ...]
    calib: Path | None
    calib_samples: int
    memory: float | None
    reading: Reading
    max_drop: float | None
    recipes: tuple[str, ...] | None
    output: str | None
    holdout: int
    fixed_point: int | None
    backend: str | None
    target: str | None
    vectors: int | None
    single_output: bool
    how: Model
    input_shape: Shape | None
    seed: int
    out: tuple[Path, ...]
    quick: bool
    dry_run: bool
    as_json: bool


@dataclass(frozen=True)
class CompilePlan:
    """What is known before a pass runs: where the result goes, the network as a graph, and the data.

    Attributes:
        forms: the files to write, and the backend of each.
        network: as it was loaded.
        source: the graph that snnc read from it, and how the two were compared.
        data: for calibration, and held out for a search; None where there is none.
        shape: of one sample, where the data does not tell it.
        named: the recipe that was asked for.
    """

    forms: list[Form]
    network: Any
    source: Captured
    data: Dataset | None
    shape: Shape | None
    named: Recipe | None

    @property
    def graph(self) -> fx.GraphModule:
        """The network as snnc reads it."""
        return self.source.graph


def run(**options: Any) -> None:
    """See the command."""
    wish = Wish(**options)
    plan = _plan(wish)
    made = _search(wish, plan) if wish.max_drop is not None and plan.data else _build(wish, plan)
    if made:
        _write(wish, plan, *made)


def _plan(wish: Wish) -> CompilePlan:
    """Checks the options against each other, and loads what they name."""
    check_search(wish.max_drop, wish.calib, wish.recipe, wish.recipes, wish.changes, wish.output)
    if wish.frames and wish.max_drop is not None:
        raise click.UsageError("--max-drop searches for the number of steps, and frames fix it: give --frames alone.")
    if wish.fixed_point and wish.max_drop is not None and not (wish.recipe or wish.recipes):
        raise click.UsageError("--fixed-point with --max-drop needs recipes to put it behind: give --recipe.")
    if wish.target and wish.max_drop is not None:
        raise click.UsageError("--target takes one recipe: leave out --max-drop.")
    given = (wish.calib, wish.recipe, *(wish.recipes or ()))
    backend = wish.backend or (NirFile.name if wish.target and not wish.out else None)
    forms = destinations(wish.out, backend, wish.model, wish.how.factory, *given)
    require_onnx(wish.single_output, forms)
    require_nir(wish.target, forms)
    named = find_recipe(wish.recipe) if wish.recipe else None
    network = wish.how.load(wish.model)
    data = None
    if wish.calib:
        drawn = wish.calib_samples + (wish.holdout if wish.max_drop is not None else 0)
        binning = Binning(wish.T or 8) if wish.frames else None
        data = wish.reading.read(wish.calib, binning=binning).sample(drawn, wish.seed).taking(*told_inputs(network))
    source = captured(network, data, wish.input_shape)
    shape = wish.input_shape or (None if data else told_shape(network))
    return CompilePlan(forms, network, source, data, shape, named)


Made = tuple[Network, Recipe, str]  # the network, its recipe, and why that one


def _search(wish: Wish, plan: CompilePlan) -> Made | None:
    """The fewest steps that stay within `--max-drop`; None where this is a dry run, which says what would be tried."""
    assert plan.data is not None
    assert wish.max_drop is not None
    candidates: Any = (_changed(plan.named, wish.changes, wish.fixed_point),) if plan.named else wish.recipes
    if wish.fixed_point and wish.recipes:
        candidates = tuple(_changed(find_recipe(one), (), wish.fixed_point) for one in wish.recipes)
    most = wish.T or STEPS[-1]
    without = unwritable(
        [BACKENDS[name] for _, name in plan.forms], candidates, most, plan.graph, plan.data.input_shape
    )
    if wish.dry_run:
        names = [one for one in searchable() if one not in without] if candidates is None else candidates
        _rehearse(wish, plan, list(map(find_recipe, names)), "to be tried", most)
        return None
    net = searched(
        plan.source, plan.data, wish.max_drop, candidates, without, wish.T, wish.calib_samples, wish.holdout, wish.seed,
        wish.memory, wish.quick, wish.as_json, wish.output,
    )  # fmt: skip
    why = f"the fewest steps that lose {wish.max_drop:g} points at most"
    return net, parse(net.info["recipe_text"], "the file"), why


def _build(wish: Wish, plan: CompilePlan) -> Made | None:
    """The network by one recipe; None where this is a dry run."""
    data = plan.data
    first = next(data.limit(1).batches(1))[0] if data else None
    T = counted_frames(first, wish.T) if wish.frames else wish.T or 8
    if wish.target:
        return _shaped(wish, plan, wish.target, T)
    chosen, why = (plan.named, "as asked for") if plan.named else _default(plan)
    if data and not chosen.needs_data:
        show.note(f"Recipe '{chosen.name}' takes nothing from the calibration data but the shape of the input.")
    chosen = _changed(chosen, wish.changes, wish.fixed_point)
    if wish.frames:
        chosen = chosen.over_frames(T)
    staged = plan.network if isinstance(plan.network, Staged) else None
    if not chosen.needs_data or data:  # otherwise that is what is wrong
        known = data.frame_shape if data else staged.input_shape if staged else None
        for _, backend in plan.forms:
            BACKENDS[backend].accept(chosen.pipeline, T, plan.graph, plan.shape or known)
    several = [chosen] if plan.named or wish.changes or wish.fixed_point else _several(plan, chosen, T)
    if wish.dry_run:
        _rehearse(wish, plan, several[:1] if wish.quick else several, why, T)
        return None
    source = staged or plan.source  # what it was trained with goes into the file
    net = api.compile(
        source, T, several, data, frames=wish.frames, samples=wish.calib_samples, input_shape=plan.shape,
        seed=wish.seed, memory=wish.memory, quick=wish.quick, track=show.track,
    )  # fmt: skip
    if tried := [row["recipe"] for row in net.info.get("recipes", ()) if row["chosen"]]:
        return net, find_recipe(tried[0]), "chosen on calibration data"
    return net, chosen, why


def _shaped(wish: Wish, plan: CompilePlan, target: str, T: int) -> Made | None:
    """The network by the recipe without the passes that the target cannot have; None where this is a dry run."""
    data, staged = plan.data, plan.network if isinstance(plan.network, Staged) else None
    shape = plan.shape or (data.frame_shape if data else staged.input_shape if staged else None)
    whole, why = plan.named, "as asked for"
    if whole is None:
        whole, why = chosen_for(plan.graph, target, T, shape, data is not None), f"the first that '{target}' can have"
    if not data and not whole.needs_data:
        show.note(GUESSED)
    whole = _changed(whole, wish.changes, wish.fixed_point)
    if wish.frames:
        whole = whole.over_frames(T)
    api.require_calibration(whole, data is not None)
    found = require_fit(plan.graph, shape, whole, T, target)
    chosen, left_out = reduced(whole, T)
    if wish.dry_run:
        _rehearse(wish, plan, [chosen], why, T)
        if not wish.as_json:
            show.fit(found)
        return None
    how = {"frames": wish.frames, "samples": wish.calib_samples, "input_shape": plan.shape, "seed": wish.seed}
    how["quick"] = wish.quick
    net = api.compile(staged or plan.source, T, chosen, data, **how, track=show.track)  # type: ignore[arg-type]
    net.info["fit"] = fit_of(net, target, left_out)
    if (
        data
        and not (wish.quick or wish.frames)
        and (cost := priced(plan.graph, net, whole, staged or plan.source, T, data, how))
    ):
        net.info["price"] = {**asdict(cost), "said": str(cost)}
    return net, chosen, why


def _several(plan: CompilePlan, first: Recipe, T: int) -> list[Recipe]:
    """The recipes that are tried where none was named and nothing was set; the backends can write their networks."""
    found = [first]
    for one in map(find_recipe, contenders(plan.graph) if plan.data else ()):
        with contextlib.suppress(SnncError):
            for _, backend in plan.forms:
                BACKENDS[backend].accept(one.pipeline, T, plan.graph, plan.data.frame_shape if plan.data else None)
            found += [one] if one.name != first.name else []
    return found


def _default(plan: CompilePlan) -> tuple[Recipe, str]:
    """The recipe for a network where none was named, and why that one."""
    chosen = find_recipe(default_recipe(plan.graph, plan.data is not None))
    if chosen.name == "data-free":
        show.note(GUESSED)
    return chosen, REASONS[chosen.name]


def _rehearse(wish: Wish, plan: CompilePlan, tried: list[Recipe], why: str, T: int) -> None:
    compilation(plan.graph, tried, why, plan.data, wish.calib_samples, T, plan.forms, wish.as_json)


def _write(wish: Wish, plan: CompilePlan, net: Network, chosen: Recipe, why: str) -> None:
    """Writes the network, and says what was done."""
    write(net, plan.forms, wish.single_output, wish.target)
    latency = show.timing(net.latency)
    beside = []
    if wish.vectors:
        nirdata = any(backend == NirFile.name for _, backend in plan.forms)
        beside = write_beside(net, plan.forms[0][0], wish.vectors, plan.data, wish.seed, nirdata)
    if wish.as_json:
        parts = {**written(plan.forms), "vectors": list(map(str, beside)), "why": why, "latency_text": latency}
        show.as_json({**parts, "latency": asdict(net.latency), **net.info})
        return
    show.say(f"Recipe: {chosen.name} ({why}). {chosen.summary}")
    if plan.data:
        show.say(f"Calibration: {net.info['calibration_samples']} samples of {plan.data.source}")
    show.compared(net.info["compared"])
    show.records(net.info["records"])
    show.recipes(net.info.get("recipes", []))
    show.choices(net.info.get("choices", []))
    show.proof(net.info.get("proof", []))
    show.say(f"Latency: {latency}")
    if "fit" in net.info:
        show.fit(net.info["fit"])
    if "price" in net.info:
        show.say(net.info["price"]["said"], "yellow")
    for out in [*(path for path, _ in plan.forms), *beside]:
        show.wrote(out)
    if known := next((out for out, backend in plan.forms if BACKENDS[backend].loads), None):
        show.say(f"To measure it: snnc eval {known} --data DATA", "dim")


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
