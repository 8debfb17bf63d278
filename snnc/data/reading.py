"""Which files and folders `read` takes, and which part of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from snnc.data.dataset import Dataset
from snnc.data.events import Binning, is_events, read_events
from snnc.data.formats import cifar_binary, cifar_python, decode_images, idx, npz
from snnc.errors import DataError
from snnc.markup import counted

ACCEPTED = (
    "an .npz with `x` (and `y`), or an array for each input by its name, MNIST-style idx images (also .gz) with their "
    "labels beside them, CIFAR-10 or -100 batches (binary or python), a folder of either, or a folder of images with "
    "one subfolder per class"
)
_Read = tuple[np.ndarray, np.ndarray | None, str]
_IDX_IMAGES = re.compile(r"images(?=[-.]idx\d)")
_CIFAR_TRAIN = re.compile(r"data_batch_\d+(\.bin)?|train(\.bin)?")
_CIFAR_TEST = re.compile(r"test_batch(\.bin)?|test(\.bin)?")
_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".ppm"}
_HELD_OUT = ("test", "val", "valid", "validation")


def read(
    path: str | Path,
    *,
    mean: float | Iterable[float] | None = None,
    std: float | Iterable[float] | None = None,
    raw: bool = False,
    split: str | None = None,
    frames: bool = False,
    time_first: bool = False,
    bins: Binning | None = None,
) -> Dataset:
    """Read a data set from a file or folder.

    Args:
        path: one of `ACCEPTED`.
        mean: subtracted from the values after scaling (0..1 for uint8), one number or one per channel.
        std: divided by after that.
        raw: keep uint8 values at 0..255 instead of dividing by 255.
        split: "train" or "test", for folders that hold both. None takes the only one there, else test, and
            says so in `source`. A single file is read whatever its split.
        frames: samples change in time: `[N, T, ...]`, or recordings of events (`snnc.data.events`).
        time_first: they are stored as `[T, N, ...]`.
        bins: how events become frames; by default 8 of equal length.

    Raises:
        DataError: when the path is missing, not one of the accepted layouts, damaged, or holds unusable data.
    """
    path = Path(path)
    if split not in (None, "train", "test"):
        raise DataError(f"There is no split '{split}'.", "train or test")
    if not path.exists():
        raise DataError(f"{path} does not exist.", "check the path")
    if not frames and path.suffix in (".npz", ".aedat", ".aedat4") and is_events(path):
        raise DataError(
            f"{path} holds events, which become frames.",
            "snnc compile --frames mean, sum or each, and its network; or frames as an array `x`",
        )
    if frames and is_events(path, split):
        return read_events(path, bins or Binning(), _numbers(mean), _numbers(std), split)
    try:
        if not path.is_dir() and _is_npz(path):
            arrays, y = npz(path)
            name, x = next(iter(arrays.items()))
            source, others = str(path), {key: array for key, array in arrays.items() if key != name}
        else:
            x, y, source = _read_folder(path, split) if path.is_dir() else _read_file(path)
            name, others = "x", {}
    except OSError as exc:
        raise DataError(
            f"{path} could not be read: {exc.strerror or exc}.", "check the path and its permissions"
        ) from exc
    if time_first:
        if x.ndim < 3:
            raise DataError(
                f"{source}: `{name}` has shape {x.shape}, which is no [T, N, ...].", "--time-first left out"
            )
        x, others = x.swapaxes(0, 1), {key: array.swapaxes(0, 1) for key, array in others.items() if array.ndim > 2}
    scale = 255.0 if x.dtype == np.uint8 and not raw else 1.0
    return Dataset(x, y, _numbers(mean), _numbers(std), scale, source, name, others, raw, frames=frames)


def _numbers(values: float | Iterable[float] | None) -> tuple[float, ...] | None:
    if values is None:
        return None
    return tuple(float(v) for v in values) if isinstance(values, Iterable) else (float(values),)


def _is_npz(path: Path) -> bool:
    with path.open("rb") as f:
        head = f.read(2)
    return bool(head) and path.suffix != ".bin" and (path.suffix == ".npz" or head == b"PK")


def _read_file(path: Path) -> _Read:
    with path.open("rb") as f:
        head = f.read(4)
    if not head:
        raise DataError(f"{path} is empty.", ACCEPTED)
    if path.suffix == ".bin":  # before idx: a CIFAR record may begin with the same bytes
        return *cifar_binary(path), f"{path} (CIFAR binary)"
    if "idx" in path.name or head[:2] in (b"\0\0", b"\x1f\x8b"):
        return _idx_pair(path)
    if head[:1] == b"\x80":
        return *cifar_python(path), f"{path} (CIFAR python)"
    raise DataError(f"{path} has no layout that snnc knows.", ACCEPTED)


def _read_folder(path: Path, split: str | None) -> _Read:
    files = sorted(p for p in path.iterdir() if p.is_file())
    images = [p for p in files if _IDX_IMAGES.search(p.name)]
    if images:
        test = [p for p in images if re.search("t10k|test", p.name)]
        part, note = _choose(path, split, [p for p in images if p not in test], test)
        x, y, source = _idx_pair(part[0])  # sorted: an unpacked file comes before its .gz
        return x, y, source + note
    train, test = ([p for p in files if name.fullmatch(p.name)] for name in (_CIFAR_TRAIN, _CIFAR_TEST))
    if train or test:
        part, note = _choose(path, split, train, test)
        parts = [cifar_binary(p) if p.suffix == ".bin" else cifar_python(p) for p in part]
        x, y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return x, y, f"{path} ({', '.join(p.name for p in part)}){note}"
    return _image_folder(path, split)


def _choose(path: Path, split: str | None, train: list[Path], test: list[Path]) -> tuple[list[Path], str]:
    part = {"train": train, "test": test, None: test or train}[split]
    if not part:
        raise DataError(f"{path} holds no {split} split.", "the other split")
    return part, ", the test split" if train and test and split is None else ""


def _idx_pair(path: Path) -> _Read:
    if re.search(r"labels[-.]idx\d", path.name):
        raise DataError(f"{path} holds labels, not images.", "the images file; its labels are found beside it")
    x = idx(path)
    if x.ndim == 3:
        x = x[:, None]  # [N, H, W] grey images: the network sees one channel
    name = re.sub(r"images([-.]idx)\d", r"labels\g<1>1", path.name).removesuffix(".gz")
    beside = (path.with_name(n) for n in (name, name + ".gz"))
    labels = next((p for p in beside if _IDX_IMAGES.search(path.name) and p.is_file()), None)
    return x, None if labels is None else idx(labels), str(path)


def _image_folder(path: Path, split: str | None) -> _Read:
    classes, note = _folders(path), ""
    parts = {p.name.lower(): p for p in classes}
    if parts and set(parts) <= {"train", *_HELD_OUT}:
        held_out = [parts[name] for name in _HELD_OUT if name in parts]
        part, note = _choose(path, split, [parts["train"]] if "train" in parts else [], held_out)
        path = part[0]
        classes = _folders(path)
    groups = [_images(p) for p in classes or [path]]
    for folder, group in zip(classes or [path], groups, strict=True):
        if not group:
            raise DataError(f"{folder} holds nothing that snnc can read.", ACCEPTED)
    y = np.repeat(np.arange(len(groups)), [len(g) for g in groups]) if classes else None
    files = [f for group in groups for f in group]
    what = counted(len(files), "image") + (f", {counted(len(classes), 'class')}" if classes else "")
    return decode_images(files), y, f"{path} ({what}){note}"


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _images(path: Path) -> list[Path]:
    found = (p for p in path.iterdir() if p.suffix.lower() in _IMAGE_SUFFIXES and p.is_file())
    return sorted(p for p in found if not p.name.startswith("."))
