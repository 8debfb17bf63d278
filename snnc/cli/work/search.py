"""What `snnc search` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import fx

from snnc.backends import Backend
from snnc.capture import Captured
from snnc.cli import show
from snnc.data import Dataset
from snnc.errors import OutOfReach, SnncError
from snnc.measure.search import STEPS, search, searchable
from snnc.networks.network import Network
from snnc.recipes import Recipe
from snnc.recipes import recipe as find_recipe


def unwritable(
    backends: Sequence[Backend],
    named: Sequence[str | Recipe] | None,
    T: int,
    graph: fx.GraphModule,
    shape: tuple[int, ...],
) -> list[str]:
    """The recipes that a search may leave out, since a backend cannot write their networks.

    Raises:
        SnncError: it cannot write one that was named, or none at all.
    """
    left: dict[str, str] = {}
    tried = searchable() if named is None else named
    for one in map(find_recipe, tried):
        for backend in backends:
            try:
                backend.accept(one.pipeline, T, graph, shape)
            except SnncError:
                left.setdefault(one.name, backend.name)
                if named is not None or len(left) == len(tried):
                    raise
    for backend in backends:
        if without := ", ".join(name for name, why in left.items() if why == backend.name):
            show.note(f"Not tried, since the backend '{backend.name}' cannot write their networks: {without}.")
    return list(left)


def searched(
    source: Captured,
    data: Dataset,
    max_drop: float,
    candidates: Sequence[str | Recipe] | None,
    without: Sequence[str],
    most: int | None,
    samples: int,
    holdout: int,
    seed: int,
    memory: float | None,
    quick: bool,
    as_json: bool,
    output: str | None = None,
) -> Network:
    """The network that a search chose; shows the frontier, also where nothing was found."""
    steps = STEPS if most is None else [*(T for T in STEPS if most > T), most]
    try:
        found = search(
            source,
            data,
            max_drop,
            recipes=candidates,
            without=without,
            steps=steps,
            samples=samples,
            holdout=holdout,
            seed=seed,
            memory=memory,
            quick=quick,
            track=show.track,
            output=output,
        )
    except OutOfReach as problem:
        if as_json:
            show.as_json({"out": None, "search": problem.searched})
        else:
            frontier(problem.searched)
        raise
    if not as_json:
        frontier(found.network.info["search"], (found.chosen.recipe, found.chosen.T))
    return found.network


def frontier(found: Mapping[str, Any], chosen: tuple[str, int] | None = None) -> None:
    """Every network that a search measured."""
    rows = [
        (
            row["recipe"],
            row["T"],
            row["latency"]["steps"],
            row["latency"]["schedule"],
            f"{row['drop']:.2f}",
            f"{row['error']:.2f}",
            f"{row['agreement']:.2f}",
            row["samples"],
            "chosen" if (row["recipe"], row["T"]) == chosen else _verdict(row, found["held_out"]),
        )
        for row in found["frontier"]
    ]
    at = {(one["recipe"], one["T"]) for one in found.get("failed", ())}
    rows += [(name, T, *["-"] * 6, "failed: see below") for name, T in sorted(at, key=lambda one: one[1])]
    ann = "" if found["ann_accuracy"] is None else f", where the ANN has {found['ann_accuracy']:.2f} %"
    what = f"{found['measure']} on {found['held_out']} held-out samples{ann}"
    show.table(
        f"Searched for {found['max_drop']:g} points at most: {what}",
        ("recipe", "T", "latency in steps", "schedule", "lost", "+-", "agreement %", "samples", ""),
        rows,
    )
    for one in found["notes"]:
        show.say(one, "yellow")


def _verdict(row: Mapping[str, Any], held_out: int) -> str:
    if row["within"]:
        return "within"
    return "too much" if row["samples"] == held_out else "given up"
