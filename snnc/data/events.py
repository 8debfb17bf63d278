"""Recordings of event cameras: single events, and how they are binned to frames.

A file holds one recording or many; a folder with a subfolder for each class holds a recording a file. Binned they are
frames `[N, T, 2, H, W]`, the number of events of either polarity (off, on) at each pixel.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from snnc.data.dataset import Dataset
from snnc.data.recordings import READERS, Recorded, fitting, npz_names
from snnc.errors import DataError
from snnc.markup import counted

MOST = 2**31  # values of all frames
HELD_OUT = ("test", "val", "valid", "validation")


@dataclass(frozen=True)
class Binning:
    """How events become frames.

    Attributes:
        T: frames of a recording.
        by: "time", frames of one length, or "count", frames of one number of events.
        size: microseconds of a frame, or its events; None divides each recording into T equal parts. With a size, what
            comes after frame T is left out, and frames after the end of a recording are blank.
        sensor: height and width in pixels; None: what the files say, or as far as the events reach.
    """

    T: int = 8
    by: str = "time"
    size: int | None = None
    sensor: tuple[int, int] | None = None

    def __str__(self) -> str:
        unit = {"time": "us", "count": "events"}[self.by]
        size = f"{self.size} {unit} each" if self.size else "equal parts"
        sensor = "" if self.sensor is None else " of {} x {} pixels".format(*self.sensor)
        return f"{self.T} frames{sensor} by {self.by}, {size}"

    @property
    def rule(self) -> str:
        """How they are binned, as `parse` takes it."""
        return f"{self.by}={self.size}" if self.size else self.by

    def by_rule(self, text: str) -> Binning:
        """The same by another rule: "time", "count", "time=10000" (microseconds) or "count=500" (events).

        Raises:
            DataError: no such rule.
        """
        by, equals, size = text.partition("=")
        if by not in ("time", "count") or bool(equals) != (size.isdecimal() and 0 < int(size) < 2**63):
            raise DataError(f"'{text}' is no way to bin events.", "time, count, time=10000 (us) or count=500 (events)")
        return replace(self, by=by, size=int(size) if size else None)

    def plain(self) -> dict[str, Any]:
        """As plain data for a file."""
        return {**asdict(self), "sensor": list(self.sensor) if self.sensor else None}

    @classmethod
    def of(cls, found: Any) -> Binning | None:
        """What `plain` gave; None where a file holds something else."""
        if not isinstance(found, Mapping) or found.get("by") not in ("time", "count"):
            return None
        T, size, sensor = found.get("T"), found.get("size"), found.get("sensor")
        whole = [one for one in (T, *([] if size is None else [size])) if type(one) is not int or one < 1]
        pair = isinstance(sensor, list | tuple) and len(sensor) == 2 and all(type(s) is int and s > 0 for s in sensor)
        if whole or type(T) is not int or not (sensor is None or pair):
            return None
        return cls(T, str(found["by"]), size, (sensor[0], sensor[1]) if sensor else None)

    def frames(self, one: Recorded) -> tuple[np.ndarray, int]:
        """Frames `[T, 2, H, W]` of a recording, and how many of its events are in none of them."""
        assert self.sensor is not None
        height, width = self.sensor
        place = self._places(one)
        inside = place < self.T
        index = ((place * 2 + one.p) * height + one.y) * width + one.x
        found = np.bincount(index[inside], minlength=self.T * 2 * height * width)
        return found.reshape(self.T, 2, height, width), int(len(place) - inside.sum())

    def _places(self, one: Recorded) -> np.ndarray:
        """The frame of each event, which may lie behind the last."""
        if not len(one.t):
            return np.zeros(0, np.int64)
        if self.by == "count":
            rank = np.empty(len(one.t), np.int64)
            rank[np.argsort(one.t, kind="stable")] = np.arange(len(one.t))
            return rank // self.size if self.size else rank * self.T // len(rank)
        passed = one.t - one.t.min()
        if self.size:
            return passed // self.size
        span = int(passed.max())
        return np.minimum(passed * self.T // span, self.T - 1) if span else passed  # the last event in the last frame


def is_events(path: Path, split: str | None = None) -> bool:
    """Whether this is a recording, or a folder of recordings."""
    if path.is_dir():
        return any(one.suffix in READERS for one in _files(path, split)[0][:1])
    if path.suffix == ".npz" or zipfile.is_zipfile(path):
        names = npz_names(path)
        return "events" in names or {"t", "x", "y", "p"} <= set(names)
    return path.suffix in READERS


def read_events(
    path: Path,
    how: Binning,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    split: str | None = None,
) -> Dataset:
    """Recordings as frames.

    Raises:
        DataError: a damaged file, events outside of the sensor, or frames that would not fit into memory.
    """
    if path.is_dir():
        files, y, note = _files(path, split)
        recordings: list[Recorded] = [one for file in files for one in READERS[file.suffix](file)[0]]
    else:
        recordings, y = READERS[path.suffix if path.suffix in READERS else ".npz"](path)
        note = ""
    how = replace(how, sensor=how.sensor or _sensor(recordings))
    height, width = how.sensor or (1, 1)
    if len(recordings) * how.T * 2 * height * width > MOST:
        raise DataError(
            f"{path} gives {len(recordings)} x {how.T} frames of 2 x {height} x {width} values, too many at once.",
            "fewer recordings in a file, fewer frames, or --sensor HEIGHT,WIDTH if it is not that large",
        )
    x = np.zeros((len(recordings), how.T, 2, height, width), np.uint16)
    left = 0
    for place, one in enumerate(recordings):
        found, beyond = how.frames(fitting(one, height, width, path))
        if found.max(initial=0) > np.iinfo(np.uint16).max:
            raise DataError(f"{path}: a pixel has {found.max()} events in a frame.", "more frames, or shorter ones")
        x[place] = found
        left += beyond
    total = sum(len(one.t) for one in recordings)
    told = f"{path}{note} ({counted(len(recordings), 'recording')}, {counted(total, 'event')}; {how})"
    if left:
        told += f", {100 * left / total:.3g} % of the events after the last frame"
    return Dataset(x, y, mean, std, 1.0, told, frames=True, binning=how.plain())


def _sensor(recordings: Sequence[Recorded]) -> tuple[int, int]:
    """Height and width: what the files say, or as far as the events reach."""
    said = [one.sensor for one in recordings if one.sensor]
    if said:
        return max(size[0] for size in said), max(size[1] for size in said)
    reach = [(int(one.y.max()) + 1, int(one.x.max()) + 1) for one in recordings if len(one.t)] or [(1, 1)]
    return max(y for y, _ in reach), max(x for _, x in reach)


def _files(path: Path, split: str | None) -> tuple[list[Path], np.ndarray | None, str]:
    """Recordings in a folder, their labels where it has a subfolder for each class, and which part was taken."""
    note, named = "", [path]
    parts = {one.name.lower(): one for one in _folders(path)}
    if parts and set(parts) <= {"train", *HELD_OUT}:
        held = next((parts[name] for name in HELD_OUT if name in parts), None)
        chosen = {"train": parts.get("train"), "test": held, None: held or parts.get("train")}[split]
        if chosen is None:
            raise DataError(f"{path} holds no {split} split.", "the other split")
        path, note, named = chosen, f", {chosen.name}", list(parts.values())
    classes = sorted({one.name for part in named for one in _folders(part)})  # of all splits: one may lack a class
    folders = [path / name for name in classes] or [path]
    groups = [sorted(f for f in one.glob("*") if f.suffix in READERS) for one in folders]
    y = np.repeat(np.arange(len(groups)), [len(group) for group in groups]) if classes else None
    return [file for group in groups for file in group], y, note


def _folders(path: Path) -> list[Path]:
    return sorted(one for one in path.iterdir() if one.is_dir() and not one.name.startswith("."))
