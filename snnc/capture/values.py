"""What stands for values that have no number during capture, and how an operation refuses."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import fx

from snnc.ir.rows import Refused as Refused

Spelling = Callable[..., Any]
ORIGIN = "origin"  # in the meta of a node: the name of the value of the network that it stands for
INPUT = "whole numbers as an input of their own, of type int64, that embeddings alone read"
PLAIN_HINT = "return a plain tuple, list or dictionary of tensors, such as {'a': out.a} or tuple(out)"
SHAPE_HINT = "pass --input-shape (input_shape= in Python), the shape of one sample, such as 3,32,32"
RUN_HINT = "run the network on a batch of such samples, and mend what it says"


@dataclass(frozen=True)
class Batch:
    """The number of samples."""


@dataclass(frozen=True)
class Dim:
    """A size that is not known without the input's shape: `node.shape[index]`."""

    node: fx.Node
    index: int


@dataclass(frozen=True)
class Sizes:
    """A run of sizes of a value whose rank is not known: `node.shape[part]`."""

    node: fx.Node
    part: slice = field(default_factory=lambda: slice(None))


@dataclass(frozen=True)
class Unknown:
    """What was calculated from a `Dim` (`shape` is True) or from the batch.

    `lost` is True where it comes from the result of a refused operation.
    """

    shape: bool
    lost: bool = False


@dataclass(frozen=True)
class ManyBatches(Unknown):
    """The number of samples times a whole number: a dimension that the batch shares with others."""

    shape: bool = False
    times: int = 1


@dataclass(frozen=True)
class Filled:
    """One number all over: `sizes` are those of one sample."""

    sizes: tuple[int, ...]
    number: float


@dataclass(frozen=True, eq=False)
class Repeated:
    """A constant of one sample, the same for every sample: what `token.expand(len(x), -1, -1)` gives."""

    sample: torch.Tensor


@dataclass(frozen=True)
class Truth:
    """A comparison of values: `node` is 1 where it holds and 0 elsewhere. Only what chooses by it may read it."""

    node: fx.Node


class _Lost:
    """The result of a refused operation that is no value of a sample: nothing more is said about what reads it."""


LOST = _Lost()


class _Places:
    """The positions of maxima. No spike rate expresses them, so every operation that reads them is refused."""


PLACES = _Places()


def author_line(node: fx.Node) -> str:
    """Where the author wrote a node, as `file:line`, or ""."""
    return innermost(str(node.meta.get("stack_trace") or ""))


def innermost(trace: str) -> str:
    """The innermost `file:line` of a stack trace that is neither torch's nor snnc's, or ""."""
    own = (str(Path(torch.__file__).parent), str(Path(__file__).parent.parent))
    place = ""
    for file, line in re.findall(r'File "([^"]+)", line (\d+)', trace):
        if not file.startswith((*own, "<")):
            place = f"{file}:{line}"
    return place
