"""Conformance vectors: inputs, and the spikes of every neuron at every step, as a file that any program can write.

A NumPy archive (`.npz`) with these arrays, N samples and T steps:

    input           [N, ...]       what goes in, the same at every step; [N, T, ...] for a network over frames
    spikes/NAME     [T, N, ...]    0 or 1, for each layer of neurons; NAME as in the NIR file
    output          [T, N, ...]    the readout after each step, which is a mean; may be left out
    made_by         text; may be left out
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from snnc.errors import DataError, LoadError
from snnc.files.writing import atomic_buffer

SPIKES = "spikes/"
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Vectors:
    """What went into a network, and what its neurons did.

    Attributes:
        input: `[N, ...]`.
        spikes: `[T, N, ...]` of booleans, by layer.
        output: `[T, N, ...]`, or None.
        made_by: who says so.
        stepped: whether the input is told for each step, `[N, T, numbers]`, as NIRData does.
    """

    input: Array
    spikes: Mapping[str, Array]
    output: Array | None = None
    made_by: str = ""
    stepped: bool = False


def write_vectors(path: str | Path, found: Vectors) -> Path:
    """Writes them to an `.npz` file, whole or not at all.

    Raises:
        WriteError: the file cannot be written.
    """
    arrays: dict[str, Any] = {"input": found.input, "made_by": np.array(found.made_by)}
    arrays |= {SPIKES + name: np.asarray(train, bool) for name, train in found.spikes.items()}
    if found.output is not None:
        arrays["output"] = found.output
    with atomic_buffer(path) as buffer:
        np.savez_compressed(buffer, **arrays)
    return Path(path)


def read_vectors(path: str | Path) -> Vectors:
    """What somebody's simulator or chip recorded.

    Raises:
        LoadError: no such file, or an array that is missing; names those that are there.
        DataError: no samples, what is no array of numbers, spikes that are other numbers than 0 and 1, or lengths that
            do not fit.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise LoadError(
            f"'{path}' cannot be read as a NumPy archive ({type(error).__name__}).", "a file of np.savez"
        ) from error
    if "input" not in arrays or not any(name.startswith(SPIKES) for name in arrays):
        there = ", ".join(arrays) or "nothing"
        raise LoadError(
            f"'{path}' holds no vectors: it holds {there}.", f"the arrays 'input' and '{SPIKES}NAME' of each layer"
        )
    spikes = {name.removeprefix(SPIKES): array for name, array in arrays.items() if name.startswith(SPIKES)}
    return checked(path, Vectors(arrays["input"], spikes, arrays.get("output"), str(arrays.get("made_by", ""))))


def checked(path: str | Path, found: Vectors) -> Vectors:
    """What a file holds, its spikes as booleans.

    Raises:
        DataError: as in `read_vectors`.
    """
    trains = {SPIKES + name: train for name, train in found.spikes.items()}
    others = {"input": found.input} | ({} if found.output is None else {"output": found.output})
    for name, array in (others | trains).items():
        if not (isinstance(array, np.ndarray) and array.dtype.kind in "buif" and array.size):
            raise DataError(f"'{name}' in '{path}' is no array of numbers, or an empty one.", "samples, one or more")
    samples = found.input.shape[0] if found.input.ndim else 0
    for name, train in trains.items():
        if train.ndim < 2 or train.shape[1] != samples:
            raise DataError(
                f"'{name}' in '{path}' has shape {train.shape}, and there are {samples} samples.",
                "[T, N, ...], the steps first",
            )
        if not np.isin(train, (0, 1)).all():
            raise DataError(f"'{name}' in '{path}' holds other numbers than 0 and 1.", "1 for a spike, else 0")
    return replace(found, spikes={name: train.astype(bool) for name, train in found.spikes.items()})


def is_vectors(path: Path) -> bool:
    """Whether a file is an archive of them, or an `.npz` that is to be one: no network is."""
    try:
        with np.load(path, allow_pickle=False) as content:
            return path.suffix == ".npz" or any(name.startswith(SPIKES) for name in content.files)
    except Exception:  # whatever else it is
        return False
