"""Files that a command is to write, checked before any work is done."""

from __future__ import annotations

import os
import re
from pathlib import Path

from snnc.defaults import BACKENDS
from snnc.errors import WriteError


def destination(
    out: Path | None, backend: str | None, model: Path | None, factory: str | None, *others: str | Path | None
) -> tuple[Path, str]:
    """Where the result goes and in which form, checked before any work is done. Overwrites nothing that was given."""
    if backend is None:
        backend = next((name for name, suffix in BACKENDS.items() if out and suffix == out.suffix), "torch")
    if out is None:
        named = model.stem if model and str(model) != "-" else re.split("[:.]", (factory or "").partition("(")[0])[-1]
        out = Path(f"{named or 'model'}{BACKENDS[backend]}")
    target(out, model, *others)
    return out, backend


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
