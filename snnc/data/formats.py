"""One reader per file format. Nothing in a file can run, and a damaged one leaves as a `DataError`."""

from __future__ import annotations

import gzip
import importlib
import io
import math
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from snnc.errors import DataError

AGAIN = "download it again"
_IDX_DTYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_CIFAR_PIXELS = 3 * 32 * 32
_IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "PPM")  # pillow would try all that it knows


def npz(path: Path) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """The arrays of numbers that can be inputs, by name, `x` first; and, where there is one, `y`."""
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is not an .npz file, or is cut short.", "np.savez(path, x=inputs, y=labels)")
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = archive.files
            y = archive["y"] if "y" in names else None
            found = {name: archive[name] for name in ("x", *names) if name in names and name != "y"}
    except Exception as exc:  # a damaged archive can raise many kinds
        why = "holds Python objects" if "allow_pickle" in str(exc) else "is damaged"
        raise DataError(f"{path} {why}.", "plain numeric arrays, saved with np.savez") from exc
    first = found.get("x", next((array for array in found.values() if _numeric(array)), None))
    if first is None:
        raise DataError(f"{path} has no array `x`, only {names}.", "np.savez(path, x=inputs, y=labels)")
    if not all(isinstance(array, np.ndarray) for array in (first, y) if array is not None):  # numpy gives their bytes
        raise DataError(f"{path} has members that are no arrays.", "plain numeric arrays, saved with np.savez")
    fits = {name: array for name, array in found.items() if _numeric(array) and array.shape[:1] == first.shape[:1]}
    return {"x": first, **fits} if "x" in found else fits, y


def _numeric(array: Any) -> bool:
    return isinstance(array, np.ndarray) and array.dtype.kind in "buif" and array.ndim > 0


def idx(path: Path) -> np.ndarray:
    """The array of an idx file, plain or gzipped: `0 0 type ndim`, the sizes, then the values, big-endian."""
    with path.open("rb") as f:
        packed = f.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if packed else path.open("rb") as f:
            magic = f.read(4)
            known = len(magic) == 4 and magic[:2] == b"\0\0" and magic[2] in _IDX_DTYPES
            if not known or not 1 <= magic[3] <= 4:
                raise DataError(f"{path} is not an idx file: it starts with '{magic.hex(' ')}'.", AGAIN)
            head = f.read(4 * magic[3])
            if len(head) < 4 * magic[3]:
                raise DataError(f"{path} is cut short within its header.", AGAIN)
            shape, dtype = struct.unpack(f">{magic[3]}I", head), np.dtype(_IDX_DTYPES[magic[2]])
            size = math.prod(shape) * dtype.itemsize
            data = _up_to(f.read, size + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
        raise DataError(f"{path} is damaged or cut short.", AGAIN) from exc
    if len(data) != size:
        more = "more" if len(data) > size else "less"
        raise DataError(f"{path} holds {more} data than its header's shape {shape} says.", AGAIN)
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _up_to(read: Callable[[int], bytes], count: int) -> bytes:
    """At most `count` bytes, in pieces: a damaged header must not make us allocate what it claims."""
    out = bytearray()
    while len(out) < count and (piece := read(min(1 << 20, count - len(out)))):
        out += piece
    return bytes(out)


def cifar_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Records of one label byte (CIFAR-10) or a coarse and a fine one (CIFAR-100), then 3x32x32 values."""
    data = np.frombuffer(path.read_bytes(), np.uint8)
    named = {"train.bin": 2, "test.bin": 2}.get(path.name, 1 if "_batch" in path.name else 0)
    labels = named or next((n for n in (1, 2) if data.size % (n + _CIFAR_PIXELS) == 0), 1)
    record = labels + _CIFAR_PIXELS
    if data.size == 0 or data.size % record:
        raise DataError(f"{path} has {data.size} bytes, no multiple of a CIFAR record of {record}.", AGAIN)
    rows = data.reshape(-1, record)
    return _cifar(path, rows[:, labels:], rows[:, labels - 1].astype(np.int64), 10 if labels == 1 else 100)


def cifar_python(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A pickled batch: a dict with `data` `[N, 3072]` and a list of `labels` or `fine_labels`."""
    try:
        content = path.read_bytes()
        for _ in pickletools.genops(
            content
        ):  # refuses a length that the file does not bear out, before memory is taken
            pass
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
    except DataError as exc:
        raise DataError(f"{path} {exc.message}", exc.hint) from exc
    except Exception as exc:  # a damaged pickle can raise anything
        raise DataError(f"{path} is damaged or no CIFAR batch ({type(exc).__name__}).", AGAIN) from exc
    if not isinstance(batch, dict) or not isinstance(batch.get("data"), np.ndarray):
        raise DataError(f"{path} is no CIFAR batch: it has no array `data`.", "the publisher's file")
    y = batch.get("labels", batch.get("fine_labels"))
    if not isinstance(y, list) or not all(isinstance(v, int) for v in y):
        raise DataError(f"{path} has no list of `labels` or `fine_labels`.", "the publisher's file")
    return _cifar(path, batch["data"], np.array(y, dtype=np.int64), 10 if "labels" in batch else 100)


def _cifar(path: Path, x: np.ndarray, y: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    if x.dtype != np.uint8 or x.ndim != 2 or x.shape[1] != _CIFAR_PIXELS or len(x) != len(y):
        raise DataError(f"{path} is no CIFAR batch: {x.shape} {x.dtype} values, {len(y)} labels.", AGAIN)
    if len(y) and not 0 <= y.min() <= y.max() < classes:
        raise DataError(f"{path} is no CIFAR-{classes} file: labels from {y.min()} to {y.max()}.", AGAIN)
    return x.reshape(-1, 3, 32, 32), y


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles containers, numbers, text and numpy arrays; refuses every other name, so nothing can run."""

    def find_class(self, module: str, name: str) -> Any:
        """The object that the file names, if it is one that makes an array."""
        match module, name:
            case "numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct":
                return np.zeros(0).__reduce__()[0]  # numpy's own, wherever this version keeps it
            case "numpy", "ndarray" | "dtype":
                return getattr(np, name)
            case "_codecs", "encode":
                return super().find_class(module, name)
        raise DataError(
            f"asks for {module}.{name}, which a CIFAR batch does not need; it was not run.",
            "the publisher's own file, or its binary version",
        )


def decode_images(files: list[Path]) -> np.ndarray:
    """Images `[N, 1, H, W]` when all are grey, else `[N, 3, H, W]`, uint8."""
    try:
        pil = importlib.import_module("PIL.Image")
    except ImportError as exc:
        raise DataError("Reading images needs pillow, which is not installed.", 'pip install "snnc[images]"') from exc
    images: list[np.ndarray] = []
    for file in files:
        try:
            with pil.open(file, formats=_IMAGE_FORMATS) as image:
                mode = image.mode
                pixels = np.asarray(image.convert("L" if mode in ("1", "L") else "RGB"))
        except Exception as exc:  # pillow's decoders raise many kinds on damaged files
            raise DataError(f"{file} is damaged or not an image.", "remove or replace it") from exc
        if mode.startswith(("I", "F")):  # the conversion above would clip these to 255
            raise DataError(f"{file} has more than 8 bits per value.", "an .npz file with float32 `x`")
        images.append(pixels)
        if pixels.shape[:2] != images[0].shape[:2]:
            size, first = ("x".join(map(str, a.shape[:2])) for a in (pixels, images[0]))
            raise DataError(f"{file} is {size}, {files[0].name} is {first} (height x width).", "one size for all")
    if all(a.ndim == 2 for a in images):
        return np.stack(images)[:, None]
    colour = [a if a.ndim == 3 else np.repeat(a[..., None], 3, axis=2) for a in images]
    return np.ascontiguousarray(np.stack(colour).transpose(0, 3, 1, 2))
