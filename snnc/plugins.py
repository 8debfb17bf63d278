"""Plug-ins: passes, neurons and recipes from outside.

A plug-in is a Python module. Whatever it holds of these is entered under its own name:

- passes: its subclasses of `Pass` that have a `name`;
- neurons: its subclasses of `Neuron` with `@register`;
- recipes: the TOML files that its `RECIPES` lists, by paths from its folder.

It is loaded by name (`snnc.plugin`, `--plugin`), or from the entry-point group `snnc.plugins` of what is installed. No
file loads one: a file that needs a plug-in names it, and is refused until the user has loaded it.
"""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from torch import fx, nn

from snnc.errors import RecipeError, SnncError
from snnc.files.torchfile import current_folder_importable
from snnc.ir.dialect import CONFIG, PLUGGED
from snnc.ir.graph import SPEC, TIMED
from snnc.ir.neurons import Neuron
from snnc.passes import PASSES
from snnc.passes.pipeline import Pass, Pipeline
from snnc.recipes import ADDED, names, recipe

GROUP = "snnc.plugins"
NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True)
class Plugin:
    """What a plug-in brought, by name."""

    name: str
    passes: tuple[str, ...]
    neurons: tuple[str, ...]
    recipes: tuple[str, ...]


_loaded: dict[str, Plugin] = {}
_looked = False


def plugin(name: str) -> Plugin:
    """Loads a plug-in: `snnc.plugin("mypackage.mypasses")`. Its code runs.

    Args:
        name: of a module that Python finds, also in the current folder.

    Raises:
        SnncError: there is no such module, it fails, or it brings nothing.
        RecipeError: a pass or recipe in it has a name that is taken, or a recipe is wrong. Nothing is entered then.
    """
    if name not in _loaded:
        known = name in sys.modules
        module = _imported(name)
        try:
            _loaded[name] = _entered(name, module)
        except SnncError:
            if not known:
                sys.modules.pop(name, None)  # once it is mended it is read anew
            raise
    return _loaded[name]


def installed(say: Callable[[str], None] = warnings.warn) -> None:
    """Loads the plug-ins that installed packages announce, once; one that fails is told and left out."""
    global _looked
    if _looked:
        return
    _looked = True  # first: a plug-in imports snnc
    for one in entry_points(group=GROUP):
        try:
            plugin(one.value)
        except SnncError as problem:
            say(f"The installed plug-in '{one.name}' was left out. {problem.message}")


def needed(pipeline: Pipeline, graph: fx.GraphModule) -> list[str]:
    """The plug-ins that passes or modules come from, by name."""
    kinds = {type(one) for one in (*pipeline, *graph.modules())}
    return sorted({PLUGGED[kind] for kind in kinds if kind in PLUGGED})


def _imported(name: str) -> ModuleType:
    if not NAME.fullmatch(name) or name.endswith(".py"):
        hint = (
            name.removesuffix(".py").replace("/", ".") if name.endswith(".py") else "a name such as mypackage.mypasses"
        )
        raise SnncError(f"'{name}' is not the name of a module.", hint)
    try:
        with current_folder_importable():
            return importlib.import_module(name)
    except Exception as problem:  # importing runs the user's own code
        raise SnncError(
            f"The plug-in '{name}' could not be imported: {type(problem).__name__}: {problem}.",
            "check its name and PYTHONPATH",
        ) from problem


def _entered(name: str, module: ModuleType) -> Plugin:
    own = [
        one for one in vars(module).values() if isinstance(one, type) and f"{one.__module__}.".startswith(f"{name}.")
    ]
    passes = {one.name: one for one in own if issubclass(one, Pass) and "name" in vars(one)}
    neurons = [one for one in own if issubclass(one, Neuron) and one in CONFIG]
    files = [Path(module.__file__ or "").parent / str(one) for one in getattr(module, "RECIPES", ())]
    if not (passes or neurons or files):
        raise SnncError(f"The plug-in '{name}' brings no pass, neuron or recipe.", "a module that defines one")
    if double := next((one for one in passes if one in PASSES), None):
        raise RecipeError(f"The plug-in '{name}' has a pass '{double}', and there is one already.", "another name")
    PASSES.update(passes)
    brought: dict[str, Path] = {}
    try:
        for file in files:
            label = recipe(file).name
            if label in brought or label in names():
                raise RecipeError(
                    f"The plug-in '{name}' has a recipe '{label}', and there is one already.", "another name"
                )
            brought[label] = file
    except SnncError:
        for one in passes:
            del PASSES[one]
        raise
    ADDED.update(brought)
    for stage in TIMED:
        SPEC[stage] |= set(neurons)
    kinds: list[type[Pass] | type[nn.Module]] = [*passes.values(), *neurons]
    PLUGGED.update(dict.fromkeys(kinds, name))
    return Plugin(name, tuple(passes), tuple(one.__name__ for one in neurons), tuple(brought))
