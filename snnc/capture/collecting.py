"""Calibration data as a network takes them: few enough, in batches, and in its own order and types."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from snnc.capture.calling import arranged
from snnc.data import as_batches, floats, wholes
from snnc.ir.graph import entries
from snnc.ir.whole import places
from snnc.structure import Samples, Shape, each, joined, of, shape_of


def collect(
    calibration: Any, samples: int, names: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
) -> tuple[list[Samples], Shape]:
    """At most `samples` samples of calibration data as batches, and the shape of the first batch that came.

    `names` are those of the inputs that a network needs, and of all that it takes.
    """
    found: list[Samples] = []
    first: Shape = ()
    for batch in as_batches(calibration, names=names):
        first = first or ((len(batch), *shape_of(batch)) if isinstance(batch, Tensor) else ())
        found.append(batch[: samples - sum(map(len, found))])
        if sum(map(len, found)) >= samples:
            break
    # Small equal batches keep the sweep's memory flat whatever the loader's batch size was.
    return list(joined(found).split(64)), first


def fitted(graph: fx.GraphModule, batches: list[Samples]) -> list[Samples]:
    """Samples in the order and the types that a graph takes.

    Raises:
        DataError: whole numbers for an input that takes amounts, or the other way round.
    """
    nodes, table = entries(graph), places(graph)
    names = [str(node.target) for node in nodes]
    found = []
    for batch in batches:
        values = []
        for node, value in zip(nodes, each(arranged(batch, names)), strict=True):
            what = "The data" if len(nodes) == 1 else f"The data of '{node.target}'"
            values.append(wholes(value, what) if node in table else floats(value, what).to(torch.float32))
        found.append(of(values, names))
    return found
