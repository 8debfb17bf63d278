"""Files that a command is to write, checked before any work is done."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click

from snnc.defaults import BACKENDS
from snnc.errors import WriteError

Form = tuple[Path, str]  # a file to write, and the backend that writes it


def destination(
    out: Path | None, backend: str | None, model: Path | None, factory: str | None, *others: str | Path | None
) -> tuple[Path, str]:
    """Where the result goes and in which form, checked before any work is done. Overwrites nothing that was given."""
    if backend is None:
        backend = _of_suffix(out) or "torch"
    if out is None:
        named = model.stem if model and str(model) != "-" else re.split("[:.]", (factory or "").partition("(")[0])[-1]
        out = Path(f"{named or 'model'}{BACKENDS[backend]}")
    target(out, model, *others)
    return out, backend


def folder(out: Path) -> Path:
    """A folder to write files to, checked before any work is done; it is made where there is none."""
    if out.exists() and not out.is_dir():
        raise WriteError(f"'{out}' is a file.", "the name of a folder")
    if not out.exists() and not out.parent.is_dir():
        raise WriteError(f"There is no folder '{out.parent}' to make '{out.name}' in.", f"mkdir -p {out.parent}")
    if not os.access(out if out.exists() else out.parent, os.W_OK):
        raise WriteError(f"The folder '{out}' cannot be written to.", "another folder, or its permissions")
    return out


def destinations(
    outs: tuple[Path, ...],
    backend: str | None,
    model: Path | None,
    factory: str | None,
    *others: str | Path | None,
    named: bool = False,
) -> list[Form]:
    """Where the result goes and in which forms, checked before any work is done.

    Args:
        outs: the files; none for one with a name of its own.
        backend: the form of the only file; None for those of the suffixes.
        model: the network that was given.
        factory: what builds it.
        others: what must not be overwritten either.
        named: whether each suffix has to be that of a form; otherwise another one is that of a graph file.

    Raises:
        WriteError: a file that cannot be written, or that was given twice.
    """
    if backend and len(outs) > 1:
        raise click.UsageError("--backend is for one file; with several each suffix says the form: leave it out.")
    if named and not backend and (odd := next((one for one in outs if not _of_suffix(one)), None)):
        known = ", ".join(BACKENDS.values())
        raise WriteError(f"The suffix of '{odd}' is that of no form.", f"one of {known}, or --backend with one file")
    found = [destination(one, backend, model, factory, *others) for one in outs or (None,)]
    places = [out.resolve() for out, _ in found]
    if double := next((out for (out, _), place in zip(found, places, strict=True) if places.count(place) > 1), None):
        raise WriteError(f"'{double}' is to be written twice.", "each -o with a name of its own")
    return found


def _of_suffix(out: Path | None) -> str | None:
    return next((name for name, suffix in BACKENDS.items() if out and suffix == out.suffix), None)


def target(out: Path, *given: str | Path | None) -> Path:
    """A file to write, checked before any work is done. Overwrites nothing that was given."""
    if not out.parent.is_dir():
        raise WriteError(f"There is no folder '{out.parent}' to write '{out.name}' to.", f"mkdir -p {out.parent}")
    if out.is_dir():
        raise WriteError(f"'{out}' is a folder.", "the name of a file")
    if out.exists() and not out.is_file():
        raise WriteError(f"'{out}' is not a regular file.", "the name of a file")
    if not os.access(out.parent, os.W_OK):
        raise WriteError(f"The folder '{out.parent}' cannot be written to.", "another folder, or its permissions")
    for one in given:
        if one and Path(one).exists() and out.exists() and out.samefile(one):
            raise WriteError(f"Writing '{out}' would overwrite what you gave.", "another file, with -o OUT")
    return out
