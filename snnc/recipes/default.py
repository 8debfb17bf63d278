"""Which recipe a network gets where none is named."""

from __future__ import annotations

from typing import Any

from torch import fx

from snnc.calibrate.pointwise import find, rest
from snnc.calibrate.ramps import exactly
from snnc.errors import RecipeError
from snnc.ir.accounting import curved_inside
from snnc.ir.dialect import ACTIVATIONS
from snnc.ir.graph import calls
from snnc.passes.pipeline import Pipeline
from snnc.recipes import Recipe, recipe
from snnc.recipes.contest import contenders

REASONS = {  # for the recipe that is taken where none is named: see `default_recipe`
    "telescoped": "there are curved operations inside, such as gates, normalisation or attention",
    "qcfs": "the network brings its own clip bounds",
    "best": "there is calibration data",
    "data-free": "there is no calibration data",
}


def default_recipe(graph: fx.GraphModule, data: bool) -> str:
    """The recipe for a network when the user names none."""
    curved = curved_inside(graph)
    fitted = not data and any(exactly(site.module, 2) is None for site in find(graph))
    if curved and (rest(graph) or fitted):
        return "telescoped"  # which says that it needs data
    if not curved and not any(calls(graph, *ACTIVATIONS)):
        return "qcfs"
    return "best" if data else "data-free"


def candidates_of(chosen: Any, graph: fx.GraphModule, data: bool) -> list[Recipe | Pipeline]:
    """The recipes that may be taken, the first where none is tried."""
    if isinstance(chosen, Pipeline):
        return [chosen]
    if chosen is None:
        first = default_recipe(graph, data)
        return list(map(recipe, dict.fromkeys((first, *(contenders(graph) if data else ())))))
    several = chosen if isinstance(chosen, list | tuple) else [chosen]
    if not several:
        raise RecipeError("The list of recipes is empty.", "one or more, such as ['best', 'telescoped']")
    return list(map(recipe, several))
