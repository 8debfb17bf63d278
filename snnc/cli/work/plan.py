"""What `--dry-run` says: everything that can be found out before the work begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import fx

from snnc.api import require_calibration
from snnc.cli import show
from snnc.cli.targets import Form
from snnc.cli.work.export import written
from snnc.data import Dataset, require_classes
from snnc.ir.curved import BENT
from snnc.ir.dialect import ACTIVATIONS, WEIGHTED, ClipQuant
from snnc.ir.neurons import Neuron
from snnc.markup import listed
from snnc.measure.check import tally
from snnc.networks.base import SpikingNetwork
from snnc.networks.network import Network
from snnc.recipes import Recipe
from snnc.report.samples import ACCURACY, Samples
from snnc.structure import each
from snnc.tune.run import Start

TRIAL = 16  # samples that calibrate the conversion which a training would start from


def compilation(
    graph: fx.GraphModule,
    candidates: Sequence[Recipe],
    why: str,
    data: Dataset | None,
    samples: int,
    T: int,
    forms: Sequence[Form],
    as_json: bool,
) -> None:
    """Of `snnc compile`: everything that can be said before a pass has run.

    Raises:
        RecipeError: a recipe needs calibration data and there is none, or its passes are in an order that cannot be.
    """
    for one in candidates:
        require_calibration(one, data is not None)
        one.pipeline.check()
    layers, kinds = tally(graph, WEIGHTED), tally(graph, (*ACTIVATIONS, ClipQuant, *BENT))
    recipes = [
        {"name": r.name, "summary": r.summary, "passes": [{"name": p.name, "options": p.options} for p in r.pipeline]}
        for r in candidates
    ]
    used = min(samples, len(data)) if data else 0
    content: dict[str, Any] = {
        "dry_run": True,
        **written(forms),
        "T": T,
        "why": why,
        "layers": layers,
        "activations": kinds,
        "calibration_samples": used,
        "recipes": recipes,
    }
    if as_json:
        return show.as_json(content)
    show.say("A dry run: nothing is compiled, and nothing is written.")
    show.say(f"Layers with weights: {listed(layers)}. Activations: {listed(kinds)}.")
    if data:
        show.say(f"Calibration: {used} samples of {data.source}")
    for one in candidates:
        show.say(f"Recipe: {one.name} ({why}). {one.summary}")
        rows = [(p.name, ", ".join(f"{k}={v}" for k, v in p.options.items())) for p in one.pipeline]
        show.table(f"Passes, for T = {T}", ("pass", "options"), rows)
    return show.say(f"It would write {', '.join(f'{out} ({backend})' for out, backend in forms)}.")


def training(
    start: Start, data: Dataset, samples: int, resume: bool, out: Path, checkpoint: Path, as_json: bool
) -> None:
    """Of `snnc tune`: everything that can be said before the first step.

    Args:
        start: what the training would start from, calibrated with `TRIAL` samples.
        data: all samples.
        samples: how many would calibrate it; 0 where nothing is converted.
        resume: whether it goes on from a checkpoint, which `start` has taken.
        out: what it would write.
        checkpoint: what it would write until then.
        as_json: whether JSON is printed.
    """
    work, spiking = start.work, isinstance(start.first, Network)
    options, progress, size = asdict(work.options), work.progress, work.batches.steps
    layers = tally(start.first.graph, WEIGHTED)
    kinds = tally(start.first.graph, (Neuron, ClipQuant))
    content: dict[str, Any] = {
        "dry_run": True,
        "out": str(out),
        "checkpoint": str(checkpoint),
        "data": data.source,
        "T": start.first.info.get("T"),
        "recipe": start.first.info.get("recipe"),
        "layers": layers,
        "activations": kinds,
        "samples": len(work.batches.data),
        "held_out": len(start.held) if start.held else 0,
        "calibration_samples": min(samples, len(work.batches.data)),
        "steps_per_epoch": size,
        "steps": None if options["minutes"] else options["epochs"] * size,
        "resumes_at": {"epoch": progress.epoch + 1, "step": progress.step + 1} if resume else None,
        "options": options,
    }
    if as_json:
        return show.as_json(content)
    show.say("A dry run: nothing is trained, and nothing is written.")
    show.say(f"Layers with weights: {listed(layers)}. Activations: {listed(kinds)}.")
    made = f"compiled with {content['recipe']}" if spiking else f"as {content['recipe']} has it before its neurons"
    show.say(f"{'Time steps' if spiking else 'Levels'}: {content['T']}, {made}.")
    if samples:
        show.say(f"Calibration: {content['calibration_samples']} samples; {TRIAL} at most were tried.")
    show.say(f"Data: {data.source}; {content['samples']} samples to train on, {content['held_out']} held out")
    show.table("Options", ("option", "value"), [(name.replace("_", "-"), value) for name, value in options.items()])
    each = f"{size} steps of {work.batches.size} samples"
    if options["minutes"]:
        show.say(f"It would train for {options['minutes']:g} minutes; an epoch has {each}.")
    else:
        show.say(f"It would train for {options['epochs']} epochs of {each}.")
    if resume:
        show.say(f"It would go on with step {progress.step + 1} of epoch {progress.epoch + 1}.")
    return show.say(f"It would write {out}, and until then {checkpoint}.")


@torch.no_grad()
def comparison(
    networks: Mapping[str, SpikingNetwork],
    candidates: Sequence[Recipe],
    T: int,
    samples: Samples,
    calibration: Dataset | None,
    out: Sequence[Path],
    as_json: bool,
) -> None:
    """Of `snnc compare`: everything that can be said before a network is compiled or measured.

    Raises:
        DataError: a label that one of the networks has no class for.
    """
    one = samples.x[:1]
    outputs = [net.readout(one.to(next(net.buffers(), one).device)) for net in networks.values()]
    for output in outputs + ([samples.graph(*each(one))] if samples.graph else []):
        require_classes(samples.y, output.shape[-1])
    rows = [{"name": name, "recipe": net.info.get("recipe"), "T": net.T} for name, net in networks.items()]
    rows += [{"name": None, "recipe": one.name, "T": T} for one in candidates]
    used = len(calibration) if calibration else 0
    content: dict[str, Any] = {
        "dry_run": True,
        **files_of(out),
        "networks": rows,
        "data": samples.source,
        "samples": len(samples.x),
        "measure": samples.measure,
        "calibration_samples": used,
    }
    if as_json:
        return show.as_json(content)
    show.say("A dry run: nothing is compiled, nothing is measured, and nothing is written.")
    show.say(f"Data: {len(samples.x)} samples of {samples.source}")
    if calibration:
        show.say(f"Calibration: {used} samples of {calibration.source}")
    cells = [(row["name"] or "to be compiled", row["recipe"], row["T"]) for row in rows]
    labels = "their labels" if samples.measure == ACCURACY else "the classes of the ANN, since they have no labels"
    show.table(f"To be measured against {labels}", ("network", "recipe", "T"), cells)
    names = ", ".join(map(str, out))
    return show.say(f"It would write {names}." if out else "It would print a table, and write nothing.")


def files_of(out: Sequence[Path]) -> dict[str, Any]:
    """The files that `snnc compare` writes, as JSON: the first, and all."""
    return {"out": str(out[0]) if out else None, "files": list(map(str, out))}
