"""What `snnc compile` does with `--max-drop`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from snnc.cli.options import COUNT, options, recipe_names


class Names(click.ParamType):
    """Names with commas between them, as a tuple."""

    name = "a,b"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        found = tuple(part.strip() for part in (value.split(",") if isinstance(value, str) else value))
        if not all(found):
            self.fail(f"{value!r} is not {self.name}.", param, ctx)
        return found

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The recipes that the last of the names may be."""
        before, comma, last = incomplete.rpartition(",")
        found = recipe_names(ctx, param, last)
        return [CompletionItem(f"{before}{comma}{one.value}", one.type, one.help) for one in found]


search_options = options(
    click.option(
        "--max-drop",
        type=click.FloatRange(0, 100),
        metavar="POINTS",
        help="Search for the fewest steps that lose no more accuracy than this, on samples held out of --calib; "
        "without labels, no more of the ANN's classes.",
    ),
    click.option(
        "--recipes", type=Names(), metavar="NAME,NAME", help="Recipes that --max-drop tries, if not all that apply."
    ),
    click.option("--output", metavar="NAME", help="Output whose classes --max-drop counts, if there are several."),
    click.option(
        "--holdout",
        type=COUNT,
        default=1000,
        show_default=True,
        help="Samples of --calib held out for --max-drop; half of all if there are too few.",
    ),
)


def check_search(
    max_drop: float | None,
    calib: Path | None,
    recipe: str | None,
    recipes: tuple[str, ...] | None,
    changes: Sequence[Any],
    output: str | None = None,
) -> None:
    """Refuses options that make no sense together."""
    if max_drop is None and output:
        raise click.UsageError("--output says which classes --max-drop counts: give --max-drop; all outputs are kept.")
    if max_drop is None and recipes:
        raise click.UsageError("--recipes says what --max-drop tries: give --max-drop, or --recipe for one recipe.")
    if max_drop is None:
        return
    if calib is None:
        raise click.UsageError("--max-drop measures on data: give --calib.")
    if recipe and recipes:
        raise click.UsageError("Give --recipe for one candidate, or --recipes for several.")
    if changes and not recipe:
        raise click.UsageError("With --max-drop, --set changes one recipe: give it with --recipe.")
