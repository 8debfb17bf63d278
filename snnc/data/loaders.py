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
from snnc.structure import Inputs, Samples, Shape, of, shape_of

_CHUNK = 128  # samples per batch where the caller's data comes in one piece
_INPUT_KEYS = ("x", "image", "images", "pixel_values", "input", "inputs", "data")
_LABEL_KEYS = ("y", "label", "labels", "target", "targets")


Names = tuple[tuple[str, ...], tuple[str, ...]]  # of the inputs that a network needs, and of all that it takes


def as_batches(loader: Any, device: torch.device | str | None = None, names: Names = ((), ())) -> Iterator[Samples]:
    """Input batches `[B, ...]` float32 from whatever a user passes as calibration data.

    Args:
        loader: a `Dataset`, a path that `read` takes, a tensor or array `[N, ...]`, a pair `(x, y)` or a dict
            of those, a torch map-style data set, or any iterable (a DataLoader, a generator) of batches. A
            batch is a tensor, an array, a tuple or list that starts with one, or a dict with a usual key such
            as `x` or `pixel_values`. Numbers are floats; a data set of integers is a `Dataset`, which says what
            turns them into input. For several inputs a tuple of tensors, or a dict by their names, is in the place
            of one tensor; whole numbers of 32 bits or more stay what they are, for tables.
        names: of the inputs that the network needs, and of all that it takes; one input where nothing is told.
        device: where the batches go; None leaves them where they are.

    Raises:
        DataError: while iterating: nothing there, NaN or infinity (naming the batch), shapes that differ
            between batches, or items that hold no tensor.
    """
    for x, _ in _pairs(loader, names):
        yield x.to(device) if device is not None else x


def labelled_batches(
    loader: Any, device: torch.device | str | None = None, names: Names = ((), ())
) -> Iterator[tuple[Samples, Tensor]]:
    """As `as_batches`, with labels `[B]` int64.

    Raises:
        DataError: also when labels are missing, are not class numbers from 0, or are too few or too many.
    """
    for index, (x, labels) in enumerate(maybe_labelled_batches(loader, names)):
        if labels is None:
            raise DataError(f"Batch {index} has no labels.", "batches of the form (inputs, labels)")
        yield (x, labels) if device is None else (x.to(device), labels.to(device))


def maybe_labelled_batches(loader: Any, names: Names = ((), ())) -> Iterator[tuple[Samples, Tensor | None]]:
    """As `labelled_batches`, with None for the labels of a batch that has none."""
    for index, (x, y) in enumerate(_pairs(loader, names)):
        yield x, None if y is None else torch.from_numpy(class_numbers(_as_array(y), len(x), f"batch {index}"))


def _pairs(loader: Any, names: Names) -> Iterator[tuple[Samples, Any]]:
    shape: Shape | None = None
    for index, item in enumerate(_items(loader, names)):
        given, y = _unpack(item, f"Batch {index}", names)
        x = _samples(given, f"Batch {index}", names)
        if shape is not None and shape_of(x) != shape:
            raise DataError(
                f"Batch {index} holds samples of shape {shape_of(x)}, the ones before {shape}.",
                "resize or crop all samples to one shape",
            )
        shape = shape_of(x)
        yield x, y
    if shape is None:
        raise DataError("The loader gave no batches.", "data with at least one sample; a generator runs only once")


def _items(loader: Any, names: Names) -> Iterable[Any]:
    if isinstance(loader, (str, Path)):
        loader = read(loader)
    if isinstance(loader, Dataset):
        return (loader.taking(*names) if names[0] else loader).batches(_CHUNK)
    if isinstance(loader, (Tensor, np.ndarray, Mapping, Inputs)) or _is_pair(loader) or _is_whole(loader, names):
        given, y = _unpack(loader, "The data", names)
        plain = isinstance(given, (Tensor, np.ndarray)) and not getattr(given, "is_nested", False)
        if plain and given.ndim and not len(given):
            return ()
        x = _samples(given, "The data", names)
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


def _is_whole(value: Any, names: Names) -> bool:
    """Whether this is all data of several inputs: a tuple of tensors, one each, and perhaps labels behind them."""
    if len(names[0]) < 2 or not isinstance(value, tuple) or not value:
        return False
    if isinstance(value[0], (tuple, Mapping, Inputs)):
        return True
    return len(value) >= len(names[0]) and all(isinstance(v, (Tensor, np.ndarray)) for v in value)


def _unpack(item: Any, what: str, names: Names) -> tuple[Any, Any]:
    """Inputs and labels of a batch, or of all data."""
    needed, known = names
    if isinstance(item, (Tensor, np.ndarray, Inputs)):
        return item, None
    if isinstance(item, (tuple, list)) and item:
        if len(needed) > 1 and isinstance(item[0], (Tensor, np.ndarray)):
            return tuple(item[: len(needed)]), item[len(needed)] if len(item) > len(needed) else None
        if isinstance(item[0], Mapping):
            return _named(item[0], known), item[1] if len(item) > 1 else None
        return item[0], item[1] if len(item) > 1 else None
    if isinstance(item, Mapping):
        labels = next((item[k] for k in _LABEL_KEYS if k in item and k not in known), None)
        if set(needed) <= set(item) and needed:
            return _named(item, known), labels
        x = next((item[k] for k in _INPUT_KEYS if k in item), None)
        others = [key for key in item if key not in _LABEL_KEYS]
        if x is None and needed and len(others) == 1:  # whatever it is called, it is all that there is
            x = item[others[0]]
        if x is not None and len(needed) < 2:
            return x, labels
        hint = ", ".join(needed) if len(needed) > 1 else f"one of {', '.join(_INPUT_KEYS)}"
        lacks = next((name for name in needed if name not in item), "") if len(needed) > 1 else ""
        wrong = f"no '{lacks}'" if lacks else "no input"
        raise DataError(f"{what} has {wrong} among its keys {list(item)}.", hint)
    raise DataError(f"{what} is a {type(item).__name__}.", "batches that are tensors, (x, y) or dicts")


def _named(item: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    """The inputs in a dictionary, by name."""
    return {name: item[name] for name in known if name in item} or dict(item)


def _samples(given: Any, what: str, names: Names) -> Samples:
    """Inputs of a batch as samples: a tensor, or several by name or in order."""
    if isinstance(given, Inputs):
        given = dict(zip(given.names, given.values, strict=True)) if given.names else given.values
        if len(names[0]) < 2:  # a file may hold more than the network takes
            alone = next(iter(names[0]), "x")
            given = given.get(alone, given.get("x", given)) if isinstance(given, dict) else given
    if not isinstance(given, (Mapping, tuple, list)):
        if len(names[0]) > 1:
            hint = "a tuple of tensors, one each, a dictionary by these names, or an .npz with arrays of these names"
            raise DataError(f"{what} holds one tensor, and the network takes {', '.join(names[0])}.", hint)
        return _numbers(given, what, 2, bool(names[0]))
    by_name = dict(given) if isinstance(given, Mapping) else {}
    values = list(by_name.values()) if by_name else list(given)
    found = [
        _numbers(value, what if len(values) == 1 else f"{what}, input {name}", 1 if len(values) > 1 else 2, True)
        for name, value in zip(by_name or range(1, len(values) + 1), values, strict=True)
    ]
    if len({len(one) for one in found}) > 1:
        counts = ", ".join(str(len(one)) for one in found)
        raise DataError(f"{what} holds inputs of different numbers of samples: {counts}.", "one batch, of all alike")
    return of(found, tuple(by_name))


def _numbers(value: Any, what: str, least: int, told: bool) -> Tensor:
    """One input: floats in float32, or, where a network is told of, whole numbers of 32 bits or more as they are."""
    if told and isinstance(value, np.ndarray) and value.dtype in (np.int32, np.int64):
        value = torch.from_numpy(np.array(value, dtype=np.int64, order="C"))
    whole = told and isinstance(value, Tensor) and value.dtype in (torch.int32, torch.int64)
    value = value if whole else floats(value, what)
    if value.ndim < least or value.numel() == 0:
        raise DataError(f"{what} has shape {tuple(value.shape)}.", "batches (B, C, H, W) or (B, features)")
    value = value.detach() if whole else value.detach().to(torch.float32)
    if not whole and not torch.isfinite(value).all():
        raise DataError(f"{what} holds NaN or infinity.", "clean the data, or check its normalisation")
    return value.clone() if value.is_inference() else value  # others record no gradient through one of inference mode


def _as_array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
