"""One reader for each form of event file. Nothing in a file can run, and a damaged one leaves as a `DataError`."""

from __future__ import annotations

import importlib
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from snnc.errors import DataError

AGAIN = "the file as it was published, or its events as np.savez(path, t=t, x=x, y=y, p=p)"
NMNIST = (34, 34)
OVERFLOW, TICK = 240, 2**13  # in N-MNIST's form: a row that marks 2^13 us that have passed
LONGEST = 2**42  # microseconds of a recording: times as many frames as a network can have, it is still an int64
POLARITY = 1  # a packet of AEDAT 3.1 that holds events
_PACKET = struct.Struct("<HHIIIIII")


@dataclass(frozen=True, eq=False)
class Recorded:
    """Events, whole numbers `[E]` each.

    Attributes:
        t: microseconds.
        x, y: column and row.
        p: polarity, 0 or 1.
        sensor: height and width, where the file says them.
    """

    t: np.ndarray
    x: np.ndarray
    y: np.ndarray
    p: np.ndarray
    sensor: tuple[int, int] | None = None

    def part(self, start: int, stop: int) -> Recorded:
        """The events of a range."""
        t, x, y, p = (one[start:stop] for one in (self.t, self.x, self.y, self.p))
        return Recorded(t, x, y, p, self.sensor)


Found = tuple[list[Recorded], np.ndarray | None]


def fitting(one: Recorded, height: int, width: int, path: Path) -> Recorded:
    """A recording whose events lie on the sensor, and within `LONGEST` of each other.

    Raises:
        DataError: they do not.
    """
    if len(one.t) and (span := int(one.t.max()) - int(one.t.min())) > LONGEST:
        raise DataError(f"{path}: a recording is {span:.3g} microseconds long.", "times in microseconds, of one clock")
    for name, value, size in (("y", one.y, height), ("x", one.x, width)):
        if len(value) and not (value.min() >= 0 and value.max() < size):
            raise DataError(
                f"{path}: events reach from {name} = {value.min()} to {value.max()} on a sensor of {height} x {width}.",
                "--sensor HEIGHT,WIDTH of the camera" if value.min() >= 0 else "columns and rows that count from 0",
            )
    return one


def npz_names(path: Path) -> list[str]:
    """The arrays in an .npz, by name; none where it is damaged, which who reads it will tell."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except Exception:  # a damaged archive can raise many kinds
        return []


def npz(path: Path) -> Found:
    """`t`, `x`, `y` and `p` of one recording; or `events` `[E, 4]`, of many with `first` and labels `y`."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            known = ("t", "x", "y", "p", "events", "first", "size")
            found = {name: archive[name] for name in archive.files if name in known}
    except Exception as exc:  # a damaged archive can raise many kinds
        raise DataError(f"{path} is damaged, or holds Python objects.", AGAIN) from exc
    if not all(isinstance(one, np.ndarray) for one in found.values()):  # numpy gives the bytes of what is no array
        raise DataError(f"{path} has members that are no arrays.", AGAIN)
    sensor = _size(path, found["size"]) if "size" in found else None
    if "events" not in found:
        if missing := [name for name in "txyp" if name not in found]:
            raise DataError(f"{path} holds no events: it has no array `{missing[0]}`.", "arrays t, x, y, p, or events")
        return [_recording(path, [found[name] for name in "txyp"], sensor)], None
    events = found["events"]
    if events.ndim != 2 or events.shape[1] != 4:
        raise DataError(f"{path}: `events` has shape {events.shape}, not (E, 4).", "columns t, x, y, p")
    whole = _recording(path, list(events.T), sensor)
    first = found.get("first", np.zeros(1, np.int64))
    ends = [*first[1:].tolist(), len(events)] if first.ndim == 1 and first.dtype.kind in "iu" else []
    starts = first.tolist() if ends else []
    if not starts or starts[0] != 0 or any(a > b for a, b in zip(starts, ends, strict=True)):
        raise DataError(
            f"{path}: `first` does not say where each recording begins in `events`.",
            "whole numbers that rise from 0, one for each recording",
        )
    return [whole.part(a, b) for a, b in zip(starts, ends, strict=True)], found.get("y")


def _size(path: Path, size: np.ndarray) -> tuple[int, int]:
    if size.shape != (2,) or size.dtype.kind not in "iu" or not (size > 0).all():
        raise DataError(f"{path}: `size` is {size.tolist()}.", "height and width, two whole numbers above 0")
    return int(size[0]), int(size[1])


def _recording(path: Path, given: list[Any], sensor: tuple[int, int] | None) -> Recorded:
    values = []
    for name, value in zip("txyp", given, strict=True):
        whole = value.dtype.kind in "iub" or (value.dtype.kind == "f" and bool((value == np.floor(value)).all()))
        whole = whole and bool((np.abs(value.astype(np.float64)) < 2.0**63).all())  # which leaves out infinities
        if value.ndim != 1 or len(value) != len(given[0]) or not whole:
            raise DataError(
                f"{path}: `{name}` has shape {value.shape} and dtype {value.dtype}, and is no whole number an event.",
                "arrays [E] of whole numbers: t in microseconds, x, y, and p 0 or 1",
            )
        values.append(value.astype(np.int64))
    if np.isin(values[3], (-1, 1)).all():
        values[3] = (values[3] > 0).astype(np.int64)
    if not np.isin(values[3], (0, 1)).all():
        raise DataError(f"{path}: `p` is neither 0 and 1 nor -1 and 1.", "one polarity an event")
    return Recorded(values[0], values[1], values[2], values[3], sensor)


def nmnist(path: Path) -> Found:
    """N-MNIST's form: 40 bits an event, column, row, polarity and 23 bits of time; a row of 240 marks an overflow."""
    data = np.frombuffer(path.read_bytes(), np.uint8)
    if data.size % 5:
        raise DataError(f"{path} has {data.size} bytes, no multiple of an event of 5.", AGAIN)
    rows = data.reshape(-1, 5).astype(np.int64)
    overflow = rows[:, 1] == OVERFLOW
    t = ((rows[:, 2] & 127) << 16) | (rows[:, 3] << 8) | rows[:, 4]
    t = t + TICK * np.cumsum(overflow)
    x, y, p = rows[:, 0], rows[:, 1], rows[:, 2] >> 7
    kept = ~overflow
    return [Recorded(t[kept], x[kept], y[kept], p[kept], NMNIST)], None


def aedat(path: Path) -> Found:
    """AEDAT 3.1, as of DVS Gesture, by its packets; AEDAT 4 by the package `aedat`."""
    with path.open("rb") as file:
        head = file.read(14)
    if head.startswith(b"#!AER-DAT3"):
        return _aedat3(path), None
    if head.startswith(b"#!AER-DAT4"):
        return _aedat4(path), None
    raise DataError(f"{path} is no AEDAT of version 3.1 or 4.", AGAIN)


def _aedat3(path: Path) -> list[Recorded]:
    data = path.read_bytes()
    place = data.find(b"#!END-HEADER\r\n")
    if place < 0:
        raise DataError(f"{path} has no end of its header.", AGAIN)
    place += len(b"#!END-HEADER\r\n")
    parts = []
    while place < len(data):
        if place + _PACKET.size > len(data):
            raise DataError(f"{path} is cut short.", AGAIN)
        kind, _, size, _, overflow, capacity, count, _ = _PACKET.unpack_from(data, place)
        place += _PACKET.size
        if count > capacity or place + size * count > len(data):
            raise DataError(f"{path} is damaged or cut short.", AGAIN)
        if kind == POLARITY and size == 8:
            words = np.frombuffer(data, "<u4", 2 * count, place).reshape(-1, 2).astype(np.int64)
            words[:, 1] += overflow << 31  # its clock has 31 bits
            parts.append(words[words[:, 0] & 1 == 1])
        place += size * count
    rows = np.concatenate([np.zeros((0, 2), np.int64), *parts])
    word, t = rows[:, 0], rows[:, 1]
    return [Recorded(t, word >> 17 & 0x7FFF, word >> 2 & 0x7FFF, word >> 1 & 1)]


def _aedat4(path: Path) -> list[Recorded]:
    try:
        library = importlib.import_module("aedat")
    except ImportError as missing:
        raise DataError(
            "Reading AEDAT 4 needs aedat, which is not installed.", "pip install 'snnc[events]'"
        ) from missing
    try:
        decoder = library.Decoder(str(path))
        streams = {key: one for key, one in decoder.id_to_stream().items() if one["type"] == "events"}
        if not streams:
            raise DataError(f"{path} holds no events.", "a recording of an event camera")
        first = min(streams)
        parts = [packet["events"] for packet in decoder if packet["stream_id"] == first]
    except DataError:
        raise
    except Exception as exc:  # what the decoder makes of a damaged file
        raise DataError(f"{path} is damaged or cut short ({exc}).", AGAIN) from exc
    sensor = (int(streams[first]["height"]), int(streams[first]["width"]))
    t, x, y, p = (
        np.concatenate([np.zeros(0, np.int64), *(part[name].astype(np.int64) for part in parts)])
        for name in ("t", "x", "y", "on")
    )
    return [Recorded(t, x, y, p, sensor)]


READERS: dict[str, Callable[[Path], Found]] = {".npz": npz, ".bin": nmnist, ".aedat": aedat, ".aedat4": aedat}
