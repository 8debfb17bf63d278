"""Files of safetensors: a header in JSON, then the tensors' bytes, one after the other."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snnc.errors import LoadError

_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_LARGEST = 10**8  # bytes of a header, as the format has it


def is_safetensors(path: Path, head: bytes) -> bool:
    """Whether the file begins as one: the header's length in 8 bytes, and a brace."""
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= min(path.stat().st_size - 8, _LARGEST)


def load_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors by name, on the CPU.

    Raises:
        LoadError: the file is damaged, or holds a type of numbers that is not known.
    """
    with path.open("rb") as f:
        try:
            header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
            entries = {name: _entry(one) for name, one in header.items() if name != "__metadata__"}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
            reason = f"{type(exc).__name__}: {exc}".rstrip(".")
            raise LoadError(
                f"{path} is damaged: its header cannot be read ({reason}).", "save or copy it again"
            ) from exc
        data = bytearray(f.read())
    found = {}
    end = 0
    for name, (dtype, shape, start, stop) in sorted(entries.items(), key=lambda one: one[1][2:]):
        if start != end or stop - start != math.prod(shape) * dtype.itemsize or stop > len(data):
            raise LoadError(
                f"{path} is damaged: the bytes of '{name}' are not where they should be.", "save or copy it again"
            )
        count = math.prod(shape)
        flat = torch.frombuffer(data, dtype=dtype, count=count, offset=start) if count else torch.empty(0, dtype=dtype)
        found[name] = flat.reshape(shape)
        end = stop
    if end != len(data):
        raise LoadError(f"{path} is damaged: {len(data) - end} bytes belong to no tensor.", "save or copy it again")
    return {name: found[name] for name in entries}


def _entry(one: dict[str, Any]) -> tuple[torch.dtype, list[int], int, int]:
    numbers = [*one["shape"], *one["data_offsets"]]
    if len(one["data_offsets"]) != 2 or any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError("a size is no number")
    if one["dtype"] not in _TYPES:
        raise ValueError(f"'{one['dtype']}' is no type of numbers that snnc reads")
    return _TYPES[one["dtype"]], one["shape"], *one["data_offsets"]
