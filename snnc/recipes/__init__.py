"""Recipes: ordered lists of passes with options, as TOML files.

A whole recipe:

    name = "opi"
    summary = "one line"
    source = "paper"
    needs_data = true

    [[pass]]
    name = "fold-batchnorm"

Or what it changes in another: one that ships with snnc, or a file, "other.toml", in the same folder or by a path from
there. Changes are made in this order:

    base = "cos"
    remove = ["set-initial-potential"]

    [set.calibrate-offset]
    rho = 8

    [[insert]]
    name = "normalize-thresholds"
    before = "insert-neurons"

Either may list values for options, which are then chosen on calibration data (`snnc.passes.choices`):

    [choices.delay-readout]
    share = [0.0, 0.25]
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

from snnc.checks import one_of
from snnc.errors import RecipeError
from snnc.passes import PASSES
from snnc.passes.pipeline import Pass, Pipeline

_LABELS = {"name": str, "summary": str, "source": str, "needs_data": bool}
_EDITS = {"remove": list, "set": dict, "insert": list}
ADDED: dict[str, Path] = {}  # recipes of plug-ins, by name: see `snnc.plugins`
_KEYS = {**_LABELS, "pass": list, "base": str, **_EDITS, "choices": dict}


@dataclass(frozen=True)
class Recipe:
    """A named pipeline.

    Attributes:
        name, summary, source: for people.
        needs_data: whether a pass needs calibration data.
        pipeline: the passes.
        choices: values of options by pass and option, of which the best on calibration data is taken.
    """

    name: str
    summary: str
    source: str
    needs_data: bool
    pipeline: Pipeline
    choices: dict[str, dict[str, list[Any]]] = field(default_factory=dict)

    def settled(self, pipeline: Pipeline) -> Recipe:
        """The recipe with other passes or options, none of which is open any more."""
        return replace(self, pipeline=pipeline, choices={})

    def set(self, name: str, /, **options: Any) -> Recipe:
        """With options of the named pass changed, which are then not chosen on data."""
        rest = {key: value for key, value in self.choices.get(name, {}).items() if key not in options}
        others = {key: value for key, value in self.choices.items() if key != name}
        return replace(
            self, pipeline=self.pipeline.set(name, **options), choices=others | ({name: rest} if rest else {})
        )

    def remove(self, name: str) -> Recipe:
        """Without a pass, and without what was to be chosen for it."""
        left = {key: value for key, value in self.choices.items() if key != name}
        return replace(self, pipeline=self.pipeline.remove(name), choices=left)

    def over_frames(self, T: int) -> Recipe:
        """The recipe for input that changes in time, see `Pipeline.over_frames`."""
        pipeline = self.pipeline.over_frames(T)
        left = {one.name for one in pipeline}
        choices = {name: options for name, options in self.choices.items() if name in left}
        return replace(self, pipeline=pipeline, choices=choices)

    def to_toml(self) -> str:
        """The recipe as a TOML file with every option spelled out; `parse` reads it back."""
        lines = [f"{key} = {toml(getattr(self, key))}" for key in ("name", "summary", "source", "needs_data")]
        for one in self.pipeline:
            lines += ["", "[[pass]]", f"name = {toml(one.name)}"]
            lines += [f"{key} = {toml(value)}" for key, value in one.options.items()]
        for name, options in self.choices.items():
            lines += ["", f"[choices.{name}]", *(f"{key} = {toml(values)}" for key, values in options.items())]
        return "\n".join(lines) + "\n"


def toml(value: Any) -> str:
    """A value as TOML: text, a number, true or false, or a list of these."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # TOML escapes as JSON does, and DEL besides.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def names() -> list[str]:
    """The recipes that ship with snnc, and those of plug-ins."""
    own = [f.name.removesuffix(".toml") for f in resources.files(__name__).iterdir() if f.name.endswith(".toml")]
    return sorted([*own, *ADDED])


def recipe(which: str | Path | Recipe) -> Recipe:
    """A recipe by name, or from a TOML file.

    Raises:
        RecipeError: no such recipe; or an unknown key, pass or option in the file, with the nearest name.
    """
    if isinstance(which, Recipe):
        return which
    if not isinstance(which, str | Path):
        raise RecipeError(f"The recipe is {which!r}.", "a name such as 'best', a TOML file, a Recipe or a Pipeline")
    path = Path(which)
    if path.suffix == ".toml" or str(which) in ADDED:
        return _read(ADDED.get(str(which), path), ())
    text = (resources.files(__name__) / f"{one_of(str(which), names(), 'recipe')}.toml").read_text(encoding="utf-8")
    return parse(text, str(which))


def _read(path: Path, inner: tuple[Path, ...]) -> Recipe:
    """A recipe from a file; `inner` are the files that start from it, the last one directly.

    Raises:
        RecipeError: it cannot be read, or starts from itself.
    """
    if path.resolve() in inner:
        raise RecipeError(
            f"Recipe '{inner[-1]}' starts from '{path}', which starts from it.",
            f"passes, or a base that ships with snnc, in one of them: {', '.join(names())}",
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"Recipe file '{path}' cannot be read: {error}.", "a TOML file") from error
    return parse(text, str(path), (*inner, path.resolve()))


def require_pass(which: Recipe, name: str) -> None:
    """Refuses to change a pass that a recipe does not have.

    Raises:
        RecipeError: says which recipe has it, or that there is no such pass.
    """
    one_of(name, PASSES, "pass")
    if any(one.name == name for one in which.pipeline):
        return
    having = next((one for one in names() if any(p.name == name for p in recipe(one).pipeline)), None)
    own = f"a recipe of your own with that pass: 'snnc list recipes {names()[0]}' prints one to start from"
    raise RecipeError(
        f"The recipe '{which.name}' has no pass '{name}'.", f"--recipe {having}, which has it" if having else own
    )


def parse(text: str, where: str, files: tuple[Path, ...] = ()) -> Recipe:
    """A recipe from TOML text.

    Args:
        text: the file.
        where: its name or path; a base that is a file is looked for from there.
        files: those that are being read: this one last, and before it those that start from it.

    Raises:
        RecipeError: a key, pass, option or value that does not exist or fit; a base that cannot be read.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"Recipe '{where}' is not TOML: {error}.", "the form that 'snnc list' shows") from error
    for key, value in content.items():
        one_of(key, _KEYS, f"key in recipe '{where}'")
        if not isinstance(value, _KEYS[key]):
            raise RecipeError(f"Key '{key}' of recipe '{where}' is {value!r}, not a {_KEYS[key].__name__}.")
    if bool(content.get("pass")) == bool(content.get("base")):
        raise RecipeError(f"Recipe '{where}' needs either passes or a base.", '[[pass]] tables, or base = "cos"')
    if "base" in content:
        start = _edited(_base(content["base"], where, files), content, where)
    elif edits := [key for key in _EDITS if key in content]:
        raise RecipeError(f"Key '{edits[0]}' of recipe '{where}' edits a base, and there is none.", 'base = "cos"')
    else:
        start = Recipe("", "", "", True, Pipeline(tuple(_pass(entry, where) for entry in content["pass"])))
    labels = {"name": Path(where).stem, **{key: content[key] for key in _LABELS if key in content}}
    choices = content.get("choices", start.choices)
    if odd := [name for name, options in choices.items() if not isinstance(options, dict)]:
        raise RecipeError(f"'choices.{odd[0]}' of recipe '{where}' is no table.", f"a table [choices.{odd[0]}]")
    for name, options in choices.items():
        for option, values in options.items():
            if not isinstance(values, list) or not values:
                raise RecipeError(
                    f"The choice '{name}.{option}' of recipe '{where}' is {values!r}.", "a list of values"
                )
            for value in values:
                start.pipeline.set(name, **{option: value})  # refuses what does not fit
    return replace(start, **labels, choices=choices)


def _base(which: str, where: str, files: tuple[Path, ...]) -> Recipe:
    if which.endswith(".toml"):
        return _read(Path(where).parent / which, files)
    return recipe(one_of(which, names(), "recipe"))


def _edited(base: Recipe, content: dict[str, Any], where: str) -> Recipe:
    """`base` with the edits of a recipe file."""
    for name in map(str, content.get("remove", [])):
        base = base.remove(name)
    for name, options in content.get("set", {}).items():
        if not isinstance(options, dict):
            raise RecipeError(f"'set.{name}' of recipe '{where}' is {options!r}.", f"a table [set.{name}]")
        require_pass(base, name)
        base = base.set(name, **options)
    pipeline = base.pipeline
    for entry in content.get("insert", []):
        place = {key: str(entry[key]) for key in ("before", "after") if isinstance(entry, dict) and key in entry}
        rest = {key: value for key, value in entry.items() if key not in place} if isinstance(entry, dict) else entry
        pipeline = pipeline.insert(_pass(rest, where), **place)
    return replace(base, pipeline=pipeline)


def _pass(entry: Any, where: str) -> Pass:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise RecipeError(f"A [[pass]] of recipe '{where}' has no name.", 'name = "fold-batchnorm", for instance')
    options = {key: value for key, value in entry.items() if key != "name"}
    return make(entry["name"], options)


def make(name: str, options: dict[str, Any]) -> Pass:
    """A pass by name, with options.

    Raises:
        RecipeError: no such pass or option, or a value that does not fit.
    """
    cls = PASSES[one_of(name, PASSES, "pass")]
    for option in options:
        one_of(option, [field.name for field in fields(cls)], f"option of '{name}'")
    return cls(**options)
