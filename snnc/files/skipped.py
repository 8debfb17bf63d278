"""Stand-ins for everything in a file besides the weights. They accept what the pickle gives them, and ignore it."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snnc.files.pickled import DICT, LIST, Outline


class Skipped:
    """An object that was neither imported nor made."""

    def __new__(cls, *_: Any) -> Skipped:
        """Takes whatever the pickle would have called the class with."""
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        """Takes whatever the pickle would have set."""


class _Type(Skipped):
    """`getattr`, with which pickles name nested classes: gives a stand-in for the class."""

    def __new__(cls, *_: Any) -> Any:
        return Skipped


class _Dict(Skipped):
    """A dict of another class, such as defaultdict: what is set in it may be the weights, so it is kept."""

    def __new__(cls, *_: Any) -> Any:
        return OrderedDict()


class _List(Skipped):
    """A list of another class."""

    def __new__(cls, *_: Any) -> Any:
        return []


class _DType(Skipped):
    """A numpy dtype by its name and byte order."""

    name = order = ""

    def __init__(self, *given: Any) -> None:
        self.name = given[0]

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]


class Array(Skipped):
    """A numpy array, as the shape, the type and the bytes that the pickle gives."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def tensor(self) -> Tensor | None:
        """Its numbers; None where it holds something else."""
        try:
            _, shape, kind, fortran, content = self.state
            if kind.name not in _NUMBERS:
                return None
            dtype = np.dtype(kind.name).newbyteorder("S" if kind.order == _SWAPPED else "=")
            array = np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
            return torch.from_numpy(array.astype(dtype.newbyteorder("="), order="C"))
        except (TypeError, ValueError, AttributeError, OverflowError):  # no array, or one that is damaged
            return None


_NUMBERS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1")
_SWAPPED = ">" if np.little_endian else "<"
_NUMPY = {"numpy.dtype": _DType} | {f"numpy.{core}.multiarray._reconstruct": Array for core in ("core", "_core")}


def stand_ins(names: list[str], plan: Outline) -> list[tuple[Any, str]]:
    """What takes the place of each name, by what the pickle does with the objects it makes."""
    known = {"builtins.getattr": _Type} | dict.fromkeys(plan.subclasses, Tensor) | _NUMPY
    for name, how in plan.filled:
        if how in (DICT, LIST):
            known.setdefault(name, _Dict if how == DICT else _List)
    return [(known.get(name, Skipped), name) for name in names]
