"""Every error that snnc raises on purpose.

    SnncError
    ├── LoadError        a file could not be read, or must not be
    ├── WriteError       a file could not be written
    ├── DataError        calibration or evaluation data that cannot be used
    ├── Unsupported      a network that holds something snnc cannot convert; carries every blocker
    ├── VerifyError      a graph that breaks a rule of its stage
    ├── RecipeError      a recipe, a pass or an option that does not exist or does not fit
    ├── PassFailed       a pass broke; carries its name and the records of the passes before it
    ├── ProcessError     processes that share the work have lost each other, or were given different work
    └── OutOfReach       no network of a search stays within the bound; carries what was searched

A message is one sentence that says what was wrong and where; `hint` says what to try.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class SnncError(Exception):
    """Base of all errors that snnc raises on purpose."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} Try: {self.hint}" if self.hint else self.message


class LoadError(SnncError):
    """A file could not be read, or is refused because reading it could run code."""


class WriteError(SnncError):
    """A file could not be written; what was there before is untouched."""


class DataError(SnncError):
    """Calibration or evaluation data that cannot be used."""


class VerifyError(SnncError):
    """A graph breaks a rule of the stage that it claims."""


class RecipeError(SnncError):
    """A recipe, pass or option that does not exist or does not fit."""


class ProcessError(SnncError):
    """Processes that share the work have lost each other, or were given different work."""


@dataclass(frozen=True)
class Blocker:
    """One thing that keeps a network from being converted.

    Attributes:
        node: name of the graph node.
        op: what the node does, in the words of the network's author.
        why: one clause that says what is wrong with it.
        hint: what to try.
        where: `file:line` in the author's code, or "" where it is not known.
    """

    node: str
    op: str
    why: str
    hint: str
    where: str = ""

    def __str__(self) -> str:
        place = f" at {self.where}" if self.where else ""
        return f"{self.node} ({self.op}){place}: {self.why}."


class Unsupported(SnncError):
    """A network that snnc cannot convert. `blockers` lists every reason at once."""

    def __init__(self, message: str, hint: str = "", blockers: tuple[Blocker, ...] = ()) -> None:
        super().__init__(message, hint)
        self.blockers = blockers

    @classmethod
    def of(cls, blockers: list[Blocker], said: str = "", listed: str = ": `snnc check` lists them all") -> Unsupported:
        """The error for a non-empty list of blockers: what to say before the first, and where all are listed."""
        first, *rest = blockers
        more = f" And {len(rest)} more{listed}." if rest else ""
        return cls(f"{said}{first}{more}", first.hint, tuple(blockers))


class PassFailed(SnncError):
    """A pass broke. `records` holds what the passes before it did."""

    def __init__(self, name: str, cause: BaseException, records: tuple[Any, ...] = ()) -> None:
        first = (str(cause).strip().splitlines() or [""])[0]  # torch.fx appends its own traceback to a message
        text = cause.message if isinstance(cause, SnncError) else f"{type(cause).__name__}: {first}"
        hint = cause.hint if isinstance(cause, SnncError) else "run again with --debug and report the traceback"
        super().__init__(f"Pass '{name}' failed: {text}", hint)
        self.name = name
        self.records = records


class OutOfReach(SnncError):
    """No network of a search stays within the bound. `searched` holds what was tried, as plain data."""

    def __init__(self, message: str, hint: str, searched: dict[str, Any]) -> None:
        super().__init__(message, hint)
        self.searched = searched
