"""Batches from whatever Python users pass as data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data import Dataset as TorchDataset

from snnc.data.dataset import Dataset, class_numbers
from snnc.data.reading import read
from snnc.data.values import floats
from snnc.errors import DataError

_CHUNK = 128  # samples per batch where the caller's data comes in one piece
_INPUT_KEYS = ("x", "image", "images", "pixel_values", "input", "inputs", "data")
_LABEL_KEYS = ("y", "label", "labels", "target", "targets")


def as_batches(loader: Any, device: torch.device | str | None = None) -> Iterator[Tensor]:
    """Input batches `[B, ...]` float32 from whatever a user passes as calibration data.

    Args:
        loader: a `Dataset`, a path that `read` takes, a tensor or array `[N, ...]`, a pair `(x, y)` or a dict
            of those, a torch map-style data set, or any iterable (a DataLoader, a generator) of batches. A
            batch is a tensor, an array, a tuple or list that starts with one, or a dict with a usual key such
            as `x` or `pixel_values`. Numbers are floats; a data set of integers is a `Dataset`, which says what
            turns them into input.
        device: where the batches go; None leaves them where they are.

    Raises:
        DataError: while iterating: nothing there, NaN or infinity (naming the batch), shapes that differ
            between batches, or items that hold no tensor.
    """
    for x, _ in _pairs(loader):
        yield x.to(device) if device is not None else x


def labelled_batches(loader: Any, device: torch.device | str | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """As `as_batches`, with labels `[B]` int64.

    Raises:
        DataError: also when labels are missing, are not class numbers from 0, or are too few or too many.
    """
    for index, (x, labels) in enumerate(maybe_labelled_batches(loader)):
        if labels is None:
            raise DataError(f"Batch {index} has no labels.", "batches of the form (inputs, labels)")
        yield (x, labels) if device is None else (x.to(device), labels.to(device))


def maybe_labelled_batches(loader: Any) -> Iterator[tuple[Tensor, Tensor | None]]:
    """As `labelled_batches`, with None for the labels of a batch that has none."""
    for index, (x, y) in enumerate(_pairs(loader)):
        yield x, None if y is None else torch.from_numpy(class_numbers(_as_array(y), len(x), f"batch {index}"))


def _pairs(loader: Any) -> Iterator[tuple[Tensor, Any]]:
    shape: torch.Size | None = None
    for index, item in enumerate(_items(loader)):
        x, y = _unpack(item, index)
        x = _float32(x, index)
        if shape is not None and x.shape[1:] != shape:
            raise DataError(
                f"Batch {index} holds samples of shape {tuple(x.shape[1:])}, the ones before {tuple(shape)}.",
                "resize or crop all samples to one shape",
            )
        shape = x.shape[1:]
        yield x, y
    if shape is None:
        raise DataError("The loader gave no batches.", "data with at least one sample; a generator runs only once")


def _items(loader: Any) -> Iterable[Any]:
    if isinstance(loader, (str, Path)):
        loader = read(loader)
    if isinstance(loader, Dataset):
        return loader.batches(_CHUNK)
    if isinstance(loader, (Tensor, np.ndarray, Mapping)) or _is_pair(loader):
        x, y = _unpack(loader, 0)
        x = floats(x, "The data")
        if x.ndim < 2:
            raise DataError(f"The data has shape {tuple(x.shape)}.", "a tensor (N, C, H, W) or (N, features)")
        return ((x[i : i + _CHUNK], None if y is None else y[i : i + _CHUNK]) for i in range(0, len(x), _CHUNK))
    if isinstance(loader, TorchDataset) and not isinstance(loader, IterableDataset):
        return DataLoader(loader, batch_size=_CHUNK)  # it yields samples; what is wanted here are batches
    if isinstance(loader, Iterable):
        return loader
    raise DataError(
        f"Data of type {type(loader).__name__} cannot be read.", "a tensor or an array (N, ...), a DataLoader or a path"
    )


def _is_pair(value: Any) -> bool:
    """Whether this is `(all inputs, all labels)`, not two batches."""
    if not (isinstance(value, (tuple, list)) and len(value) == 2 and isinstance(value[0], (Tensor, np.ndarray))):
        return False
    x, y = value
    if isinstance(y, (tuple, list)):
        return x.ndim >= 2 and len(y) > 0 and all(isinstance(one, int | float | str) for one in y)
    if not isinstance(y, (Tensor, np.ndarray)) or x.ndim < 2:
        return False
    if y.ndim < x.ndim:  # batches would have samples of one shape
        return y.ndim == 1 or len(x) == len(y)
    both = x.ndim == y.ndim == 2 and len(x) == len(y)
    return both and (x.shape[1] != y.shape[1] == 1 or (_one_hot(y) and not _one_hot(x)))


def _one_hot(y: Tensor | np.ndarray) -> bool:
    """Whether a row has one number for each class, which is 1 for one of them."""
    y = _as_array(y)
    return y.dtype.kind in "iufb" and bool(((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all())


def _unpack(item: Any, index: int) -> tuple[Any, Any]:
    if isinstance(item, (Tensor, np.ndarray)):
        return item, None
    if isinstance(item, (tuple, list)) and item:
        return item[0], item[1] if len(item) > 1 else None
    if isinstance(item, Mapping):
        x = next((item[k] for k in _INPUT_KEYS if k in item), None)
        if x is not None:
            return x, next((item[k] for k in _LABEL_KEYS if k in item), None)
        raise DataError(f"Batch {index} has no input among its keys {list(item)}.", f"one of {', '.join(_INPUT_KEYS)}")
    raise DataError(f"Batch {index} is a {type(item).__name__}.", "batches that are tensors, (x, y) or dicts")


def _float32(value: Any, index: int) -> Tensor:
    value = floats(value, f"Batch {index}")
    if value.ndim < 2 or value.numel() == 0:
        raise DataError(f"Batch {index} has shape {tuple(value.shape)}.", "batches (B, C, H, W) or (B, features)")
    value = value.detach().to(torch.float32)
    if not torch.isfinite(value).all():
        raise DataError(f"Batch {index} holds NaN or infinity.", "clean the data, or check its normalisation")
    return value.clone() if value.is_inference() else value  # others record no gradient through one of inference mode


def _as_array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
