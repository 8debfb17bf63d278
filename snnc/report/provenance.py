"""Everything that is needed to get the same figures again."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from snnc.version import __version__


@dataclass(frozen=True)
class Provenance:
    """How a report was made.

    Attributes:
        command: the command line, or the call in Python.
        data: where the samples came from.
        samples: how many.
        data_hash: SHA-256 of the samples as the network sees them, and of their labels.
        seed: of what was drawn.
        files: SHA-256 of the files that went in, by name.
        versions: of snnc, of what computes, and of the machine.
    """

    command: str
    data: str
    samples: int
    data_hash: str
    seed: int
    files: dict[str, str]
    versions: dict[str, str]


def files(paths: Iterable[Path | None]) -> dict[str, str]:
    """SHA-256 of those of `paths` that are files."""
    found = {}
    for path in paths:
        if path and path.is_file():
            with path.open("rb") as f:
                found[str(path)] = hashlib.file_digest(f, "sha256").hexdigest()
    return found


def versions() -> dict[str, str]:
    """Of snnc and of what decides how floats are added up."""
    return {
        "snnc": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "Python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": str(torch.get_num_threads()),
    }
