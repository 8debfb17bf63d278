"""What a module means to a part of the program: one row in that part's table, keyed by type.

    MOMENTS: Table[Moment] = Table("moments", __name__, {WEIGHTED: layer, Add: join, HEADS: Refusal(why, hint)})

    MOMENTS(module)         the row of a module; raises `Refused` where the row is a `Refusal`
    MOMENTS.add(Mine, row)  a row for a module of one's own

A table stands in the file of its part, under its name in capitals. A subclass has the row of its nearest base, except
for the classes that a table names as `exact`. There a row describes what a class computes, and a subclass may compute
something else.
`tests/ir/test_rows.py` looks up each module of the dialect in every table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import fx, nn

from snnc.errors import SnncError
from snnc.ir.dialect import CONFIG

Kinds = type[nn.Module] | tuple[type[nn.Module], ...]
R = TypeVar("R")


class Refused(Exception):
    """An operation that cannot be converted.

    Attributes:
        why: one clause that goes on after the operation's name.
        hint: what to try.
        shape: whether knowing the input's shape may help.
        reason: the row of the capture's refusals that says so, where there is one.
        node: where it was found, once that is known.
    """

    node: fx.Node | None = None

    def __init__(self, why: str, hint: str, shape: bool = False, reason: Any = None) -> None:
        super().__init__(why)
        self.why, self.hint, self.shape, self.reason = why, hint, shape, reason


@dataclass(frozen=True)
class Refusal:
    """A row that says no: one clause that goes on after the module's name, and what to try."""

    why: str
    hint: str


class MissingRow(SnncError):
    """A module that a table has no row for."""


class Table(Generic[R]):
    """Rows by type. If a class is given two rows, as by a group and by itself, the later one counts.

    Attributes:
        name: what its rows say of a module.
        file: where they stand.
        exact: classes whose rows do not hold for their subclasses.
    """

    def __init__(self, name: str, home: str, rows: Mapping[Kinds, R | Refusal], exact: Kinds = ()) -> None:
        self.name, self.home, self.exact = name, home, exact
        self.file = home.replace(".", "/") + ".py"
        self._rows: dict[type[nn.Module], R | Refusal] = {}
        for kinds, row in rows.items():
            self.add(kinds, row)

    def add(self, kinds: Kinds, row: R | Refusal) -> None:
        """Enters a row for a class, or for each of several."""
        self._rows.update(dict.fromkeys(kinds if isinstance(kinds, tuple) else (kinds,), row))

    def row(self, kind: type[nn.Module]) -> R | Refusal:
        """The row of a class, refusals included.

        Raises:
            MissingRow: names the file that lacks it.
        """
        for base in self._bases(kind):
            if base in self._rows:
                return self._rows[base]
        raise MissingRow(
            f"'{kind.__name__}' has no row in the table '{self.name}' of {self.file}.",
            f"a row there, or {self.home}.{self.name.upper()}.add({kind.__name__}, ...) where the module is your own",
        )

    def __call__(self, module: nn.Module) -> R:
        """The row of a module.

        Raises:
            Refused: the row says no.
            MissingRow: there is none.
        """
        row = self.row(type(module))
        if isinstance(row, Refusal):
            raise Refused(row.why, row.hint)
        return row

    def at(self, name: str, module: nn.Module, error: type[SnncError] = SnncError) -> R:
        """The row of the module of the node called `name`.

        Raises:
            SnncError: the row says no; of the class that is given.
        """
        try:
            return self(module)
        except Refused as refused:
            raise error(f"'{name}' ({type(module).__name__}) {refused.why}.", refused.hint) from refused

    def missing(self, kinds: Iterable[type[nn.Module]] = CONFIG) -> list[type[nn.Module]]:
        """Those of some classes, by default of the dialect, that have no row."""
        return [kind for kind in kinds if not any(base in self._rows for base in self._bases(kind))]

    def _bases(self, kind: type[nn.Module]) -> tuple[type, ...]:
        return (kind,) if issubclass(kind, self.exact) else kind.__mro__
