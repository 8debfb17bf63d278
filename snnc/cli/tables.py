"""Tables of any number of columns on a terminal of any width.

A number or a name is never broken. Where the columns do not fit side by side, the table is printed in parts, each with
the first column, as R and pandas do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.table import Table

GAP = 3  # between two columns
SHORT = 24  # longer cells may be broken between words
_NUMBER = re.compile(r"[-+]?[\d.,]*(e[-+]\d+)?")


def grids(columns: Sequence[str], rows: Sequence[Sequence[Any]], width: int | None) -> tuple[list[Table], int]:
    """A table as one or several that fit into `width`, and the width that it has in one piece.

    Args:
        columns: their headings.
        rows: at least one.
        width: of the terminal; None where nothing bounds it.
    """
    cells = [[cell(value) for value in row] for row in rows]
    tall = any(isinstance(value, list | tuple) for row in rows for value in row)
    found = [_Column(title, [row[i] for row in cells], not i) for i, title in enumerate(columns)]
    whole = sum(one.natural for one in found) + GAP * (len(found) - 1)
    parts = [list(range(len(found)))] if width is None or whole <= width else _parts(found, width)
    return [_grid([found[i] for i in part], width or whole, tall) for part in parts], whole


class _Column:
    """A column, the width that it would like, and the least that breaks no number and no name."""

    def __init__(self, title: str, cells: list[str], name: bool) -> None:
        self.title, self.cells = title, cells
        lines = [line for one in cells for line in one.split("\n")]
        longest = max(map(cell_len, lines))
        self.numeric = all(_NUMBER.fullmatch(one) for one in cells)
        self.whole = name or self.numeric or longest <= SHORT
        heading = max(map(cell_len, title.split()), default=0)
        words = max((cell_len(word) for line in lines for word in line.split()), default=0)
        self.least = max(heading, longest if self.whole else max(words, SHORT))
        self.natural = max(self.least, longest, cell_len(title))


def _parts(columns: list[_Column], width: int) -> list[list[int]]:
    """Which columns each part of a table has; the first column is in every part."""
    parts, used = [[0]], columns[0].least
    for i, one in enumerate(columns[1:], 1):
        if len(parts[-1]) > 1 and used + GAP + one.least > width:
            parts.append([0])
            used = columns[0].least
        parts[-1].append(i)
        used += GAP + one.least
    return parts


def _grid(columns: list[_Column], width: int, tall: bool) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, leading=int(tall))
    for one, wide in zip(columns, _widths(columns, width), strict=True):
        # Folded is what no width could hold, such as a long path.
        grid.add_column(one.title, justify="right" if one.numeric else "left", overflow="fold", width=wide)
    for row in zip(*(one.cells for one in columns), strict=True):
        grid.add_row(*row)
    return grid


def _widths(columns: list[_Column], width: int) -> list[int]:
    """Widths that add up to `width` at most: each what it needs, and the rest shared by those that would like more."""
    found = [one.least for one in columns]
    spare = width - sum(found) - GAP * (len(columns) - 1)
    while spare < 0 and max(found) > 1:  # one column alone is too wide
        found[found.index(max(found))] -= 1
        spare += 1
    wishes = sorted(range(len(columns)), key=lambda i: columns[i].natural - found[i])
    for left, i in zip(range(len(wishes), 0, -1), wishes, strict=True):
        more = min(columns[i].natural - found[i], max(spare, 0) // left)
        found[i] += more
        spare -= more
    return found


def cell(value: Any) -> str:
    """A value as text: lists on several lines, nothing as a dash."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return "\n".join(map(cell, value))
    return clean(str(value))


def clean(text: str) -> str:
    """Text without characters that drive a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
