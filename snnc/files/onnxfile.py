"""ONNX files: parsed within bounds, their weights taken only from inside the model's own folder.

A protobuf runs nothing when it is read, but it can claim sizes that it does not bear out, and name files that are none
of its business. Here each tensor's claim is held against the bytes behind it before anything is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

import numpy as np

from snnc.errors import LoadError

if TYPE_CHECKING:
    import onnx

LIMIT = 2**31  # bytes; protobuf's own
AGAIN = "save or copy it again"


def load_onnx(path: Path) -> onnx.ModelProto:
    """The model in a file, with its external data in it.

    Raises:
        LoadError: the file is too large or damaged, or its external data is missing, too short or not beside it.
    """
    model = parse_onnx(path)
    _take_in(model, path)
    return model


def parse_onnx(path: Path) -> onnx.ModelProto:
    """The model in a file, without what lies outside of it.

    Raises:
        LoadError: the file cannot be read, is too large or damaged.
    """
    import onnx  # slow to import, and few files get here

    try:
        if path.stat().st_size >= LIMIT:
            raise LoadError(f"{path} exceeds the 2 GB that an ONNX file can have.", "its weights as external data")
        return onnx.ModelProto.FromString(path.read_bytes())
    except OSError as exc:
        raise LoadError(f"{path} cannot be read: {exc.strerror or exc}.", "check the path and its permissions") from exc
    except LoadError:
        raise
    except Exception as exc:  # protobuf's errors share no base
        raise LoadError(f"{path} is no ONNX file, or is cut short or damaged.", AGAIN) from exc


def _take_in(model: onnx.ModelProto, path: Path) -> None:
    """Reads external data into the model."""
    sizes: dict[Path, int] = {}
    taken = 0
    for tensor in _tensors(model):
        if tensor.data_location != tensor.EXTERNAL:
            continue
        where = {str(entry.key): str(entry.value) for entry in tensor.external_data}
        file = _beside(path, where.get("location", ""), tensor.name)
        offset, length = _place(where.get("offset", "0"), tensor), count(tensor) * itemsize(tensor)
        if _place(where.get("length", str(length)), tensor) != length:
            raise LoadError(f"{path}: '{tensor.name}' needs {length} bytes, not the length it gives.", AGAIN)
        sizes[file] = file.stat().st_size
        taken += length
        if offset + length > sizes[file] or taken > sum(sizes.values()):
            raise LoadError(f"{path}: '{tensor.name}' asks for more than {file.name} holds.", AGAIN)
        with file.open("rb") as f:
            f.seek(offset)
            tensor.raw_data = f.read(length)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from model.graph.initializer
    for node in model.graph.node:
        yield from (attribute.t for attribute in node.attribute if attribute.HasField("t"))


def _beside(path: Path, location: str, name: str) -> Path:
    """The file with a tensor's data, which must lie in the model's folder, links followed."""
    folder = path.parent.resolve()
    parts = PurePosixPath(location).parts
    leaves = not parts or ".." in parts or "\\" in location or "\0" in location
    leaves = leaves or bool(PurePosixPath(location).root or PureWindowsPath(location).drive)
    file = folder if leaves else (folder / location).resolve()
    if leaves or not file.is_relative_to(folder):
        raise LoadError(
            f"{path}: the data of '{name}' lie at '{location}', outside the model's folder.",
            "the model and its data in one folder, without links out of it",
        )
    try:
        there = file.is_file()
    except OSError:  # a name that is longer than names can be
        there = False
    if not there:
        raise LoadError(f"{path}: the data of '{name}' are missing: there is no file '{location[:99]}'.", "copy it too")
    return file


def _place(text: str, tensor: onnx.TensorProto) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise LoadError(f"'{tensor.name}' gives '{text[:40]}' as a place in its file.", AGAIN)
    return int(text)


def plain(tensor: onnx.TensorProto) -> bool:
    """Whether a tensor holds ordinary numbers: floats of 16 to 64 bits, integers of 8 to 64, or bools."""
    t = type(tensor)
    kinds = (t.FLOAT, t.DOUBLE, t.FLOAT16, t.BFLOAT16, t.INT8, t.INT16, t.INT32, t.INT64)
    return tensor.data_type in (*kinds, t.UINT8, t.UINT16, t.UINT32, t.UINT64, t.BOOL)


def itemsize(tensor: onnx.TensorProto) -> int:
    """Bytes of one number."""
    from onnx import helper

    if not plain(tensor):
        raise LoadError(f"'{tensor.name}' is of a type that snnc does not read.", "float32 weights")
    return int(np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize)


def count(tensor: onnx.TensorProto) -> int:
    """How many numbers a tensor's shape speaks of."""
    if any(size < 0 for size in tensor.dims):
        raise LoadError(f"'{tensor.name}' has the shape {list(tensor.dims)[:8]}.", AGAIN)
    return math.prod(tensor.dims)


def array(tensor: onnx.TensorProto) -> np.ndarray:
    """The numbers of a tensor, floats as float32.

    Raises:
        LoadError: it does not hold what its shape says, or not ordinary numbers, or they lie in another file.
    """
    from onnx import helper, numpy_helper

    name, numbers, size = tensor.name or "a constant", count(tensor), itemsize(tensor)
    if tensor.data_location == tensor.EXTERNAL:
        raise LoadError(f"The data of '{name}' lie in another file.", "onnx.load, which reads that as well")
    if tensor.HasField("raw_data"):
        have = len(tensor.raw_data) / size
    else:
        have = len(getattr(tensor, helper.tensor_dtype_to_field(tensor.data_type)))
    if have != numbers or tensor.HasField("segment"):
        shape = list(tensor.dims)
        raise LoadError(f"'{name}' of shape {shape} needs {numbers} numbers and has {have:g}.", AGAIN)
    try:
        found = numpy_helper.to_array(tensor)
    except Exception as exc:  # whatever onnx makes of fields that do not fit together
        raise LoadError(f"'{name}' is damaged.", AGAIN) from exc
    if found.dtype.kind in "iub":
        return found
    with np.errstate(over="ignore"):  # what overflows is refused as infinite later
        return found.astype(np.float32)
