"""What a network takes: names and kinds of its inputs, and whether what is passed can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from snnc.data import floats, wholes
from snnc.errors import DataError
from snnc.ir.graph import entries as entries_of
from snnc.ir.graph import output
from snnc.ir.whole import places
from snnc.networks.frames import fault, told_frames
from snnc.structure import Inputs, Samples, of, shapes_of, titled

ROUNDING = 1e-5  # of an input's range: pixels over 255 in float32
Input = Tensor | np.ndarray | Inputs


@dataclass(frozen=True)
class Port:
    """One input.

    Attributes:
        name: what it is passed by.
        whole: whether it is whole numbers, places in a table.
    """

    name: str = "x"
    whole: bool = False


def told_entries(info: Mapping[str, Any]) -> list[Port]:
    """The inputs that a history tells of: "inputs", where there are several or they are whole numbers."""
    return [Port(one["name"], one["whole"]) for one in info.get("inputs") or ()] or [Port()]


def ends(graph: fx.GraphModule) -> dict[str, Any]:
    """What a history tells of inputs and outputs; nothing of one alone, unless it is whole numbers."""
    table, nodes = places(graph), entries_of(graph)
    inputs = [{"name": str(node.target), "whole": node in table} for node in nodes]
    tree = output(graph).args[0]
    told = {"inputs": inputs} if len(nodes) > 1 or table else {}
    return told if isinstance(tree, fx.Node) else {**told, "outputs": titled(tree)}


def bound(entries: Sequence[Port], given: Sequence[Any], named: Mapping[str, Any]) -> list[Any]:
    """One value for each input, of what was passed by place and by name.

    Raises:
        DataError: too many, too few, or one that has no such name.
    """
    names = [entry.name for entry in entries]
    if len(given) == 1 and isinstance(given[0], Inputs) and not named:
        batch = given[0]
        by_name = dict(zip(batch.names or names, batch.values, strict=False))
        if len(batch.values) >= len(names) and set(names) <= set(by_name):
            return [by_name[name] for name in names]
        have = batch.names or [f"{len(batch.values)} inputs without names"]
        raise DataError(f"The network takes {_listed(names)}, and the samples hold {', '.join(have)}.", _HINT)
    if len(names) == 1 and len(given) + len(named) == 1:
        return [*given, *named.values()]
    values = dict(zip(names, given, strict=False))
    twice, other = sorted(set(values) & set(named)), sorted(set(named) - set(names))
    values |= named
    missing = [name for name in names if name not in values]
    if len(given) > len(names) or twice or other or missing:
        wrong = f"'{twice[0]}' twice" if twice else f"'{other[0]}'" if other else ""
        wrong = wrong or (f"no '{missing[0]}'" if missing else f"{len(given)} inputs")
        raise DataError(f"The network takes {_listed(names)}, and was given {wrong}.", _HINT)
    return [values[name] for name in names]


_HINT = "one tensor for each input, by its place or by its name"


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "one input"


def checked(
    entries: Sequence[Port], values: Sequence[Any], info: Mapping[str, Any], dtype: torch.dtype = torch.float32
) -> Samples:
    """A network's inputs in its own precision, if they can be trusted; whole numbers as int64.

    Args:
        entries: what the network takes.
        values: one for each, a tensor or an array.
        info: history of the network: "input_shape" where it is known, "input_rank" where it had to be guessed.
        dtype: of the network.

    Raises:
        DataError: an input is no dense tensor or array of floats (or of whole numbers), is empty, holds NaN or
            infinity, or is of another shape than the network takes.
    """
    shapes = shapes_of(info.get("input_shape") or None, len(entries))
    found = []
    for entry, value, shape in zip(entries, values, shapes, strict=True):
        what = "The input" if len(entries) == 1 else f"The input '{entry.name}'"
        x = wholes(value, what) if entry.whole else floats(value, what)
        _check_shape(what, x, shape, info.get("input_rank") if len(entries) == 1 else None, bool(told_frames(info)))
        found.append(x if entry.whole else _finite(what, x.to(dtype), info))
    counts = [len(x) for x in found]
    if len(set(counts)) > 1:
        told = ", ".join(f"{count} of '{entry.name}'" for count, entry in zip(counts, entries, strict=True))
        raise DataError(f"The inputs hold different numbers of samples: {told}.", "one batch, of all inputs alike")
    return of(found, [entry.name for entry in entries])


def _check_shape(what: str, x: Tensor, shape: Any, rank: int | None, framed: bool) -> None:
    if (shape and tuple(x.shape) == tuple(shape)) or (rank and x.dim() == rank - 1) or not x.dim():
        raise DataError(f"{what} of shape {tuple(x.shape)} is one sample, without a batch.", "x[None]")
    if shape is not None and tuple(x.shape[1:]) != tuple(shape) and (wrong := fault(shape, x, framed)):
        raise DataError(f"{what} of shape {tuple(x.shape)} {wrong[0]}.", wrong[1])
    if shape is not None and tuple(x.shape[1:]) != tuple(shape):
        raise DataError(
            f"{what} has shape {tuple(x.shape)}; the network takes [{', '.join(['B', *map(str, shape)])}].",
            "a batch dimension in front, and samples of the shape that the network was trained on",
        )
    if rank and x.dim() != rank:
        raise DataError(
            f"{what} has shape {tuple(x.shape)}; the network was compiled without a shape, for {rank} dimensions.",
            f"a batch dimension in front, or compile with --input-shape {','.join(map(str, x.shape[1:])) or 'SHAPE'}",
        )
    if not len(x):
        raise DataError(f"{what} is an empty batch.", "at least one sample")


def _finite(what: str, x: Tensor, info: Mapping[str, Any]) -> Tensor:
    # NaN never reaches a threshold: the neuron would stay silent and nobody would notice. Of float64, numbers that
    # float32 does not hold have become infinite.
    if not torch.isfinite(x).all():
        raise DataError(f"{what} holds NaN or infinity.", "clean data")
    if bounds := info.get("input_range"):
        low, high = float(x.min()), float(x.max())
        if low < bounds[0] - ROUNDING or high > bounds[1] + ROUNDING:
            raise DataError(
                f"{what} goes from {low:.3g} to {high:.3g}; spikes stand for {bounds[0]:g} to {bounds[1]:g} here.",
                "the data as the network was compiled with, without --mean/--std",
            )
    return x
