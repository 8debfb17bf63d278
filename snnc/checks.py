"""Checks of names and options that users give."""

from __future__ import annotations

import difflib
import math
import types
import typing
from collections.abc import Iterable
from typing import Any, Literal

from snnc.errors import RecipeError

# Beyond these a network needs more memory than any machine has, or takes for ever.
MOST_STEPS = 2**20  # of a network, and levels of an activation: more than any is run for
MOST_ROUNDS = 2**16  # over the calibration data
MOST = 2**31 - 1  # of any whole number among options


def check_option(owner: str, name: str, kind: Any, value: Any, most: int = 2**63 - 1) -> None:
    """Refuses an option's value that is not of the annotated type, not finite, or a whole number beyond `most`.

    Raises:
        RecipeError: names the option, its owner and what it takes.
    """
    said = f"Option '{name}' of '{owner}' is"
    if not _fits(kind, value):
        raise RecipeError(f"{said} {value!r}; it takes {_spell(kind)}.")
    if isinstance(value, int) and abs(value) > most:
        text = f"{value:.3g}" if abs(value) < 10**300 else "far too large"
        raise RecipeError(f"{said} {text}.", f"{most} at most")
    if isinstance(value, float) and not math.isfinite(value):
        raise RecipeError(f"{said} {value!r}.", "a finite number")


def _fits(kind: Any, value: Any) -> bool:
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return any(_fits(k, value) for k in typing.get_args(kind))
    if typing.get_origin(kind) is Literal:
        return value in typing.get_args(kind)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _spell(kind: Any) -> str:
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return " or ".join(_spell(k) for k in typing.get_args(kind))
    if typing.get_origin(kind) is Literal:
        return " or ".join(repr(v) for v in typing.get_args(kind))
    return {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}.get(
        kind.__name__, kind.__name__
    )


NEAR = 0.75  # of 1: what looks like a name that was mistyped, and not like another name
NEAR_SHORT = 0.66  # the same for up to 4 letters, of which one may be wrong or two may be exchanged


def one_of(name: str, among: Iterable[str], what: str) -> str:
    """`name` itself, if it is one of `among`.

    Raises:
        RecipeError: it is not; names the nearest.
    """
    names = sorted(among)
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, 1, NEAR if len(name) > 4 else NEAR_SHORT)
    raise RecipeError(f"There is no {what} '{name}'.", f"'{near[0]}'" if near else f"one of {', '.join(names)}")
