"""The data set: arrays as stored, normalised batch by batch.

Images stay uint8, a quarter of their size as float32, until a batch is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snnc.errors import DataError
from snnc.structure import Inputs, Samples


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples as stored, with what turns them into the network's input.

    Attributes:
        x: `[N, C, H, W]` (or `[N, features]`, ...), any integer, bool or float dtype.
        y: `[N]` int64 class numbers from 0, or None.
        mean: subtracted after scaling; one number, or one per channel (axis 1, of frames axis 2). None: nothing.
        std: divided by after `mean`; likewise.
        scale: what integer values are divided by; 255 makes uint8 images 0..1. Floats are taken as they are.
        source: where the data came from, for reports.
        name: of `x`.
        others: further arrays of as many samples, by name, which are inputs where a network takes them (`taking`).
        raw: 8-bit values of the others stay as they are, instead of being divided by 255.
        takes: names of the inputs, where there are several.
        frames: samples change in time, `[N, T, ...]`.
        binning: how events became frames, as plain data, see `snnc.data.events.Binning`; None where there were none.

    Raises:
        DataError: on construction, when the arrays cannot be used together.
    """

    x: np.ndarray
    y: np.ndarray | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scale: float = 1.0
    source: str = "data"
    name: str = "x"
    others: Mapping[str, np.ndarray] = field(default_factory=dict)
    raw: bool = False
    takes: tuple[str, ...] = ()
    frames: bool = False
    binning: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        x, where = self.x, self.source
        if x.dtype.kind not in "buif":
            raise DataError(
                f"{where}: `{self.name}` has dtype {x.dtype}, which is not numeric.", "store uint8 or float32"
            )
        if x.ndim < 2:
            raise DataError(
                f"{where}: `{self.name}` has shape {x.shape}, without a batch axis.", "store it as (N, C, H, W)"
            )
        if x.size == 0:
            raise DataError(f"{where}: no samples: `{self.name}` has shape {x.shape}.", "give at least one")
        bad = _first_nonfinite(x) if x.dtype.kind == "f" else None
        if bad is not None:
            raise DataError(f"{where}: sample {bad} holds NaN or infinity (in float32).", "clean the data")
        if self.frames and x.ndim < 3:
            raise DataError(
                f"{where}: `{self.name}` has shape {x.shape}, and samples of frames are [N, T, ...].",
                "store T frames for each sample, or leave --frames out",
            )
        channels = x.shape[1 + self.frames]
        if self.frames and self.y is not None and len(self.y) == x.shape[1] != len(x):
            raise DataError(
                f"{where}: {len(x)} inputs but {len(self.y)} labels, as many as `{self.name}` has frames.",
                "--time-first, if frames stand first: [T, N, ...]",
            )
        if self.y is not None:
            object.__setattr__(self, "y", class_numbers(self.y, len(x), where))
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is None:
                continue
            if len(values) not in (1, channels) or not all(map(math.isfinite, values)):
                raise DataError(
                    f"{where}: {name} {values} does not fit {channels} channels.",
                    "give one number, or one each",
                )
            if name == "std" and min(values) <= 0:
                raise DataError(f"{where}: std {values} is not positive.", "give the standard deviation per channel")
        if not (self.scale > 0 and math.isfinite(self.scale)):
            raise DataError(f"{where}: scale {self.scale} is not positive.", "255 for uint8 images, 1 for raw values")

    def __len__(self) -> int:
        return len(self.x)

    @property
    def input_shape(self) -> tuple[Any, ...]:
        """Shape of one sample, without the batch axis; of several inputs one each."""
        if self.takes:
            return tuple(tuple(self._array(name).shape[1:]) for name in self.takes)
        return tuple(self.x.shape[1:])

    @property
    def frame_shape(self) -> tuple[Any, ...]:
        """Shape of one frame; of a sample that is constant in time all of it. Of several inputs one each."""
        if not self.frames:
            return self.input_shape
        return tuple(one[1:] for one in self.input_shape) if self.takes else self.input_shape[1:]

    def _array(self, name: str) -> np.ndarray:
        return self.x if name == self.name else self.others[name]

    def taking(self, needed: Sequence[str], known: Sequence[str] = ()) -> Dataset:
        """The same for a network, with the arrays that are its inputs, by their names.

        Args:
            needed: names of the inputs that it needs.
            known: of all that it takes.

        Raises:
            DataError: an array is not there.
        """
        there = {self.name: self.x, **self.others}
        if len(needed) < 2:
            alone = needed[0] if needed else self.name
            more = [name for name in known if name in there and name != alone]
            if alone in there and (more or alone != self.name):
                return self._of([name for name in known if name in (alone, *more)] or [alone])
            if self.name == "x" or len(there) == 1:
                return self
            needed = [alone]
        if missing := [name for name in needed if name not in there]:
            hint = f"np.savez(path, {', '.join(f'{name}=...' for name in needed)}, y=labels)"
            raise DataError(f"{self.source} has {', '.join(there)}, and no array `{missing[0]}`.", hint)
        return self._of([name for name in (known or needed) if name in there])

    def _of(self, names: Sequence[str]) -> Dataset:
        there = {self.name: self.x, **self.others}
        if len(names) == 1:
            return replace(self, x=there[names[0]], name=names[0], others={}, takes=())
        if self.mean is not None or self.std is not None:
            raise DataError(
                f"{self.source} holds several inputs, and --mean and --std do not tell which they are for.",
                "data that are normalised already",
            )
        for name in names:
            bad = _first_nonfinite(there[name]) if there[name].dtype.kind == "f" else None
            if bad is not None:
                raise DataError(f"{self.source}: sample {bad} of `{name}` holds NaN or infinity.", "clean the data")
        return replace(self, takes=tuple(names))

    def batches(self, size: int) -> Iterator[tuple[Samples, Tensor | None]]:
        """Batches in order: inputs `[B, ...]` float32, normalised, and labels `[B]` int64 or None.

        Args:
            size: samples per batch; the last may be smaller.
        """
        return ReadBatches(self, self._batches(size))

    def _several(self, part: slice) -> Inputs:
        """The inputs of some samples, each in float32, or whole numbers as int64."""
        found = []
        for name in self.takes:
            stored = self._array(name)[part]
            whole = stored.dtype.kind in "ui" and stored.dtype.itemsize >= 4
            value = torch.from_numpy(np.array(stored, dtype=np.int64 if whole else np.float32))
            eight = stored.dtype == np.uint8 and not self.raw
            found.append(value / 255 if eight else value)
        return Inputs(found, self.takes)

    def _batches(self, size: int) -> Iterator[tuple[Samples, Tensor | None]]:
        if size < 1:
            raise DataError(f"A batch of {size} samples is empty.", "a size of 1 or more")
        if self.takes:
            for i in range(0, len(self), size):
                y = None if self.y is None else torch.from_numpy(np.array(self.y[i : i + size]))
                yield self._several(slice(i, i + size)), y
            return
        before = 1 + self.frames
        per_channel = (1,) * before + (-1,) + (1,) * (self.x.ndim - before - 1)
        mean, std = (
            None if v is None else torch.tensor(v, dtype=torch.float32).view(per_channel) for v in (self.mean, self.std)
        )
        for i in range(0, len(self), size):
            # np.array copies, so no caller can change the stored data through a batch.
            x = torch.from_numpy(np.array(self.x[i : i + size], dtype=np.float32))
            if self.x.dtype.kind != "f" and self.scale != 1:
                x.div_(self.scale)
            if mean is not None:
                x.sub_(mean)
            if std is not None:
                x.div_(std)
            yield x, None if self.y is None else torch.from_numpy(np.array(self.y[i : i + size]))

    def limit(self, n: int) -> Dataset:
        """The first `n` samples, or all where there are fewer."""
        if n < 1:
            raise DataError(f"A limit of {n} leaves no samples.", "a limit of 1 or more")
        return self.take(slice(n))

    def sample(self, n: int, seed: int = 0) -> Dataset:
        """`n` samples drawn without replacement, in their stored order; all where there are fewer.

        The same `seed` draws the same samples.
        """
        if n >= len(self):
            return self
        if n < 1:
            raise DataError(f"A sample of {n} is empty.", "a sample of 1 or more")
        return self.take(np.sort(np.random.default_rng(seed).choice(len(self), n, replace=False)))

    def take(self, index: slice | np.ndarray) -> Dataset:
        """The samples of an index, in its order."""
        others = {name: array[index] for name, array in self.others.items()}
        return replace(self, x=self.x[index], y=None if self.y is None else self.y[index], others=others)


@dataclass(frozen=True)
class ReadBatches(Iterator[Any]):
    """Batches that still tell which data set they are of."""

    dataset: Dataset
    batches: Iterator[Any]

    def __next__(self) -> Any:
        return next(self.batches)


def require_labels(data: Dataset, why: str) -> np.ndarray:
    """The labels `[N]` int64.

    Args:
        data: the data set.
        why: what needs them, as the end of "labels are needed ...", such as "to measure accuracy".

    Raises:
        DataError: when there are none.
    """
    if data.y is None:
        raise DataError(f"{data.source} has no labels, and labels are needed {why}.", "data with `y`")
    return data.y


def require_classes(y: np.ndarray | Tensor, count: int) -> None:
    """Refuses labels `[N]` that a network with `count` classes has no class for.

    Raises:
        DataError: names the label.
    """
    if len(y) and int(y.max()) >= count:
        raise DataError(
            f"A label is {int(y.max())}, and the network has {count} classes.", "labels from 0 to classes - 1"
        )


def class_numbers(y: np.ndarray, count: int, where: str) -> np.ndarray:
    """Labels `[count]` as int64, or a `DataError` that begins with `where` and says why they cannot be."""
    if y.dtype.kind not in "iufb":
        raise DataError(
            f"{where}: labels have dtype {y.dtype}, which is not numeric.", "class numbers from 0, as int64"
        )
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2 and len(y) == count:
        raise DataError(f"{where}: labels have shape {y.shape}, one number for each class.", "y.argmax(1)")
    if y.ndim != 1:
        raise DataError(f"{where}: labels have shape {y.shape}, not (N,).", "one class number from 0 for each input")
    if y.dtype.kind in "fb":
        whole = bool(np.isfinite(y).all() and (y == np.floor(y)).all())
        hint = (
            'y.astype("int64"), or y.long() of a tensor'
            if whole
            else "class numbers from 0: this is no classifier's label"
        )
        raise DataError(f"{where}: labels have dtype {y.dtype}, not an integer one.", hint)
    if len(y) != count:
        raise DataError(f"{where}: {count} inputs but {len(y)} labels.", "one label per input")
    if y.size and y.min() < 0:
        raise DataError(f"{where}: a label is negative ({y.min()}).", "class numbers from 0")
    return y.astype(np.int64)


def _first_nonfinite(x: np.ndarray) -> int | None:
    """Index of the first sample that is not finite as float32, which is what the network will see."""
    with np.errstate(over="ignore"):
        good = np.isfinite(x.astype(np.float32, copy=False))
    if good.all():
        return None
    return int(good.reshape(len(x), -1).all(axis=1).argmin())
