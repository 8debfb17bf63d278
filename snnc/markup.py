"""Small tables in HTML, for notebooks, every text escaped; and lists and energies in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A heading line and a table."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row)}</tr>" for row in rows)
    return f"<p><b>{escape(title)}</b></p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def records_table(title: str, records: Iterable[Mapping[str, Any]]) -> str:
    """Pass records, as plain data, as a table for notebooks."""
    columns = {"pass": "name", "sites": "sites", "stage": "stage", "seconds": "seconds", "error, if exact": "error"}
    columns |= {"options": "options", "notes": "notes"}
    return table(title, list(columns), [[record.get(key) for key in columns.values()] for record in records])


def listed(found: Mapping[str, int]) -> str:
    """`3 Conv2d, 1 Linear`."""
    return ", ".join(f"{n} {kind}" for kind, n in found.items()) or "none"


def counted(count: int, noun: str) -> str:
    """`1 class`, `2 classes`."""
    many = f"{noun}es" if noun.endswith(("s", "ch")) else f"{noun}s"
    return f"{count:,} {noun if count == 1 else many}"


def joule(value: float) -> str:
    """An energy."""
    for size, letter in ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n")):
        if value >= size:
            return f"{value / size:.3g} {letter}J"
    return f"{value / 1e-12:.3g} pJ"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):
        return escape(", ".join(f"{key}={one}" for key, one in value.items()))
    if isinstance(value, list | tuple):
        return "<br>".join(escape(str(one)) for one in value)
    return escape(f"{value:.3g}" if isinstance(value, float) else str(value))
