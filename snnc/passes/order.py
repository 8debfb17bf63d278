"""Whether passes can stand in an order: every stage is taken, and what a pass needs is there. Nothing runs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from snnc.errors import RecipeError
from snnc.ir.graph import Stage
from snnc.passes.base import GIVERS, Finding, Pass

STAGES = list(Stage)


def check(passes: Sequence[Pass], stage: Stage, held: Collection[Finding[Any]]) -> list[Stage]:
    """The stage after each pass.

    Args:
        passes: in their order.
        stage: of the graph that the first one is given.
        held: products that are there before it.

    Raises:
        RecipeError: names the pass that cannot stand where it does, the one that is missing or in its way, and what to
            do.
    """
    there, gone, found = set(held), dict[Finding[Any], str](), list[Stage]()
    for place, one in enumerate(passes):
        if stage not in one.takes:
            raise _wrong_stage(one, stage, passes[:place])
        for product in (*one.requires, *one.uses):
            if product in gone:
                raise RecipeError(
                    f"'{one.name}' needs {product.what}, and '{gone[product]}' before it leaves none that holds.",
                    f"'{one.name}' first, then '{gone[product]}'",
                )
        for product in one.requires:
            if product not in there:
                raise _missing(one, product, passes[place + 1 :])
        there.update(one.provides)
        gone.update(dict.fromkeys(one.spoils, one.name))
        for product in one.provides:
            gone.pop(product, None)
        stage = one.gives or stage
        found.append(stage)
    return found


def _missing(one: Pass, product: Finding[Any], rest: Sequence[Pass]) -> RecipeError:
    later = next((other.name for other in rest if product in other.provides), None)
    if later:
        return RecipeError(
            f"'{one.name}' needs {product.what}, which '{later}' provides, and that comes after it.",
            f"'{later}' first, then '{one.name}'",
        )
    providers = " or ".join(f"'{name}'" for name in product.providers)
    return RecipeError(
        f"'{one.name}' needs {product.what}, which {providers} provides, and that does not come before it.",
        product.remedy,
    )


def _wrong_stage(one: Pass, stage: Stage, before: Sequence[Pass]) -> RecipeError:
    giver = next((other.name for other in reversed(before) if other.gives), None)
    told = f", which '{giver}' gives" if giver else ""
    return RecipeError(
        f"'{one.name}' takes a graph of stage {' or '.join(one.takes)}, and here the stage is {stage}{told}.",
        _way(one, stage, before),
    )


def _way(one: Pass, stage: Stage, before: Sequence[Pass]) -> str:
    """What to do so that the pass finds a stage that it takes."""
    last = max(map(STAGES.index, one.takes))
    if STAGES.index(stage) > last:
        past = [other.name for other in before if other.gives and STAGES.index(other.gives) > last]
        if one.name in past:
            return f"'{one.name}' once"
        return f"'{one.name}' first, then '{past[0]}'" if past else f"a graph of stage {STAGES[last]}"
    chain: list[str] = []
    takes = one.takes
    while stage not in takes and (giver := GIVERS.get(takes[0])) and giver.name not in chain:
        chain.insert(0, giver.name)
        takes = giver.takes
    return f"{' and '.join(repr(name) for name in chain)} before it" if chain else "another order of passes"
