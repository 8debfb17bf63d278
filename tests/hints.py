"""Every hint of the program, read from its source: the words that follow "Try:"."""

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "snnc"
# Which argument is the hint, by what is called. Errors and `Reason` have it second.
PLACES = {"refuse": 1, "Refused": 1, "Reason": 1, "Blocker": 3, "Unsupported": 1, "fail": 1, "_unfit": 2}


@dataclass(frozen=True)
class Hint:
    """A hint as the source has it: `{}` stands for what is filled in."""

    text: str
    file: str
    line: int


def hints() -> list[Hint]:
    """All hints, in the order of the files. A constant or variable that holds one is followed to its text."""
    return [hint for path in sorted(PACKAGE.rglob("*.py")) for hint in _hints(path)]


def _hints(path: Path) -> Iterator[Hint]:
    names = _names(path)
    for call in ast.walk(_tree(path)):
        if isinstance(call, ast.Call):
            value = _hint(call)
            for text in _texts(value, names) if value is not None else ():
                yield Hint(text, str(path.relative_to(PACKAGE)), call.lineno)


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _assigned(path: Path) -> dict[str, ast.expr]:
    found: dict[str, ast.expr] = {}
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Assign):
            found |= {target.id: node.value for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            found[node.target.id] = node.value
    return found


def _names(path: Path) -> dict[str, ast.expr]:
    """What a file gives a name, or imports from the file of this package that does."""
    found: dict[str, ast.expr] = {}
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("snnc."):
            home = PACKAGE.parent.joinpath(*node.module.split("."))
            theirs = _assigned(home / "__init__.py" if home.is_dir() else home.with_suffix(".py"))
            found |= {one.asname or one.name: theirs[one.name] for one in node.names if one.name in theirs}
    return found | _assigned(path)


def _hint(call: ast.Call) -> ast.expr | None:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    place = PLACES.get(name, 1 if name.endswith("Error") else None)
    named = next((word.value for word in call.keywords if word.arg == "hint"), None)
    if named is not None or place is None:
        return named
    return call.args[place] if len(call.args) > place else None


def _texts(value: ast.expr, names: dict[str, ast.expr], depth: int = 3) -> Iterator[str]:
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        yield value.value
    elif isinstance(value, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in value.values)
    elif isinstance(value, ast.IfExp):
        yield from _texts(value.body, names, depth)
        yield from _texts(value.orelse, names, depth)
    elif isinstance(value, ast.Name) and value.id in names and depth:
        yield from _texts(names[value.id], names, depth - 1)
    elif isinstance(value, ast.Subscript) and isinstance(value.value, ast.Name) and depth:
        yield from _entries(names.get(value.value.id), value.slice, names, depth - 1)


def _entries(table: ast.expr | None, place: ast.expr, names: dict[str, ast.expr], depth: int) -> Iterator[str]:
    """The entry of a pair, or all that a dictionary may give."""
    if isinstance(table, ast.Tuple) and isinstance(place, ast.Constant):
        yield from _texts(table.elts[place.value], names, depth)
    elif isinstance(table, ast.Tuple | ast.Dict):
        for one in table.values if isinstance(table, ast.Dict) else table.elts:
            yield from _texts(one, names, depth)
