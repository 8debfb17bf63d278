"""What `snnc compile --dry-run` says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import fx

from snnc.api import require_calibration
from snnc.cli import describe, show
from snnc.data import Dataset
from snnc.dialect import ACTIVATIONS, WEIGHTED, ClipQuant
from snnc.recipes import Recipe


def plan(
    graph: fx.GraphModule,
    candidates: Sequence[Recipe],
    why: str,
    data: Dataset | None,
    samples: int,
    T: int,
    out: Path,
    backend: str,
    as_json: bool,
) -> None:
    """Everything that can be said before a pass has run.

    Raises:
        RecipeError: a recipe needs calibration data and there is none, or its passes are in an order that cannot be.
    """
    for one in candidates:
        require_calibration(one, data is not None)
        one.pipeline.stages()
    layers, kinds = describe.counts(graph, WEIGHTED), describe.counts(graph, (*ACTIVATIONS, ClipQuant))
    recipes = [
        {"name": r.name, "summary": r.summary, "passes": [{"name": p.name, "options": p.options} for p in r.pipeline]}
        for r in candidates
    ]
    used = min(samples, len(data)) if data else 0
    content: dict[str, Any] = {
        "dry_run": True,
        "out": str(out),
        "backend": backend,
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
    show.say(f"Layers with weights: {show.counts(layers)}. Activations: {show.counts(kinds)}.")
    if data:
        show.say(f"Calibration: {used} samples of {data.source}")
    for one in candidates:
        show.say(f"Recipe: {one.name} ({why}). {one.summary}")
        rows = [(p.name, ", ".join(f"{k}={v}" for k, v in p.options.items())) for p in one.pipeline]
        show.table(f"Passes, for T = {T}", ("pass", "options"), rows)
    return show.say(f"It would write {out} ({backend}).")
