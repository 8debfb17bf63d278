"""What counts as numbers: tensors and arrays of floats. Everything else is refused in a sentence that helps."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from snnc.errors import DataError

WHOLE = (
    "x.float() / 255 for 8-bit images, normalised as in training; x.float() for values that training took as they are"
)
OTHERS = {
    "bool": "x.float()",
    "complex": "real values, such as x.real or x.abs()",
}


def floats(value: Any, what: str) -> Tensor:
    """A tensor or an array as a dense tensor of floats, in the type that it has.

    Integers are refused, since nothing tells whether training divided them by 255.

    Args:
        value: whatever a user passes.
        what: how a sentence about it begins: "The input", "Batch 3".

    Raises:
        DataError: says what it is, and what to pass.
    """
    if isinstance(value, np.ndarray):
        value = _of_array(value, what)
    if not isinstance(value, Tensor):
        raise DataError(f"{what} is {_named(value)}, not a tensor or an array.", _instead(value))
    for wrong, is_, hint in (
        (value.is_nested, "a nested tensor", "x.to_padded_tensor(0.0), or samples of one shape"),
        (value.layout is not torch.strided, f"of layout {value.layout}", "x.to_dense()"),
        (value.is_meta, "on the device 'meta', which holds no numbers", "a tensor on the CPU or a GPU"),
        (value.is_quantized, "quantised", "x.dequantize()"),
        (value.is_complex(), "complex", OTHERS["complex"]),
        (value.dtype == torch.bool, "of type bool", OTHERS["bool"]),
        (not value.is_floating_point(), f"{value.dtype}, not floating-point", WHOLE),
    ):
        if wrong:
            raise DataError(f"{what} is {is_}.", hint)
    return value


MOST_PLACES = 2**24  # whole numbers below it are floats without rounding


def wholes(value: Any, what: str) -> Tensor:
    """Places in a table, a tensor or an array, as int64; floats are taken where they are whole.

    Raises:
        DataError: says what it is, and what to pass.
    """
    whole = "x.long(), whole numbers from 0"
    if isinstance(value, np.ndarray) and value.dtype.kind in "ui":
        value = torch.from_numpy(np.array(value, dtype=np.int64, order="C"))
    elif not (isinstance(value, Tensor) and not value.is_floating_point() and value.layout is torch.strided):
        value = floats(value, what)
    if value.is_complex() or value.dtype == torch.bool or value.is_meta or value.is_quantized:
        raise DataError(f"{what} is {value.dtype}, and not whole numbers.", whole)
    if value.is_floating_point() and not bool((value == value.round()).all()):
        raise DataError(f"{what} holds numbers that are not whole, and a table is looked up by them.", whole)
    if value.numel() and not (int(value.min()) >= 0 and int(value.max()) < MOST_PLACES):
        raise DataError(
            f"{what} goes from {int(value.min())} to {int(value.max())}, and a table is looked up by it.", whole
        )
    return value.long()


def _of_array(value: np.ndarray, what: str) -> Tensor:
    if isinstance(value, np.ma.MaskedArray):
        raise DataError(f"{what} is a masked array.", "x.filled(0.0), or another number for the masked values")
    if value.dtype.kind not in "buifc":
        raise DataError(
            f"{what} has dtype {value.dtype}, which is not numeric.", "x.astype('float32'), samples of one shape"
        )
    if value.dtype.kind == "c":
        raise DataError(f"{what} is complex.", OTHERS["complex"])
    if value.dtype.kind in "bui":
        hint = OTHERS["bool"] if value.dtype.kind == "b" else WHOLE
        raise DataError(
            f"{what} is {value.dtype}, not floating-point.", hint.replace("x.float()", "x.astype('float32')")
        )
    # A copy: torch takes no other byte order, no negative strides and no memory that cannot be written.
    kind = np.float32 if value.dtype.itemsize <= 4 else np.float64
    return torch.from_numpy(np.array(value, dtype=kind, order="C"))


def _named(value: Any) -> str:
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _instead(value: Any) -> str:
    if isinstance(value, list | tuple) and value and all(isinstance(one, Tensor) for one in value):
        return "torch.stack(x) of samples, or torch.cat(x) of batches"
    if isinstance(value, list | tuple) and value and all(isinstance(one, np.ndarray) for one in value):
        return "numpy.stack(x) of samples, or numpy.concatenate(x) of batches"
    if isinstance(value, list | tuple | int | float):
        return "torch.tensor(x, dtype=torch.float32), a batch of samples"
    if isinstance(value, dict):
        return "the tensor in it alone, such as x['image']"
    return "a torch tensor or a numpy array of floats, a batch of samples"
