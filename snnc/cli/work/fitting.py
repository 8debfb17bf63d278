"""What `snnc compile --target` does before and after the passes, and what `--vectors` writes."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import fx

from snnc import api
from snnc.backends import NirFile
from snnc.cli import show
from snnc.data import Dataset
from snnc.differences.recorded import record
from snnc.errors import SnncError, Unsupported
from snnc.files.vectors import write_vectors
from snnc.ir.shapes import every_shape
from snnc.ir.whole import noise
from snnc.measure.suits import LeftOut, price, reduced, reduced_candidates, suits
from snnc.networks.network import Network
from snnc.recipes import Recipe

PRICED = 256  # calibration samples


def chosen_for(graph: fx.GraphModule, target: str, T: int, shape: Any, data: bool) -> Recipe:
    """The recipe for a target where none is named."""
    return reduced_candidates(graph, target, T, shape, data)[0]


def require_fit(graph: fx.GraphModule, shape: Any, whole: Recipe, T: int, target: str) -> dict[str, Any]:
    """How the network will suit the target, as plain data.

    Raises:
        SnncError: nothing told the shape of the input.
        Unsupported: the target would not run it; everything that keeps it from that.
    """
    if not shape:
        raise SnncError(
            f"Whether the network suits '{target}' depends on the shape of its input, and nothing told it.",
            "--input-shape, such as --input-shape 3,32,32, or calibration data",
        )
    with show.busy(f"looking whether '{target}' can have it"):
        found = suits(graph, every_shape(graph, shape), whole, T, target)
    if not found.runs:
        blockers = [one.blocker for one in found.misfits if one.level == "unsupported"]
        listed = f": 'snnc check --target {target}' lists them"
        raise Unsupported.of(blockers, f"'{target}' cannot run this network: ", listed)
    return asdict(found)


def priced(
    graph: fx.GraphModule, net: Network, whole: Recipe, source: Any, T: int, data: Dataset, how: dict[str, Any]
) -> LeftOut | None:
    """What the passes that were left out would have brought, which takes compiling the network with them too."""
    left_out = reduced(whole, T)[1]
    if not left_out:
        return None
    with show.busy("compiling it with the passes that the target cannot have, to tell what they would bring"):
        other = api.compile(source, T, whole, data, **how)
    x, y = next(data.limit(PRICED).batches(PRICED))
    return price(graph, net, other, left_out, x, y)


def fit_of(net: Network, target: str, left_out: list[str]) -> dict[str, Any]:
    """How the network that was compiled suits the target, as plain data."""
    _, found = NirFile(target).drawn(net)
    return asdict(replace(found, left_out=left_out))


def write_beside(net: Network, out: Path, count: int, data: Dataset | None, seed: int, nirdata: bool) -> list[Path]:
    """Conformance vectors beside a file: as an `.npz`, and as NIRData where the file is of NIR.

    Raises:
        SnncError: a network of several inputs or outputs, or one whose input's shape nothing told.
    """
    if data:
        x = next(data.limit(count).batches(count))[0]
    else:
        shape = net.info.get("input_shape")
        if not shape:
            raise SnncError("Vectors need an input, and nothing told its shape.", "--input-shape or --calib DATA")
        show.note("No calibration data: the vectors are of random input.")
        x = noise(net.graph, count, tuple(shape), seed)
    if not isinstance(x, torch.Tensor):
        raise SnncError("Vectors are of one input, and the network has several.", "it without --vectors")
    if len(x) < count:
        show.note(f"The vectors are of {len(x)} samples: there are no more in the calibration data.")
    found = record(net, x)
    paths = [write_vectors(out.with_suffix(".vectors.npz"), found)]
    if nirdata:
        from snnc.backends.nir.data import write_nirdata

        paths.append(write_nirdata(out.with_suffix(".vectors.h5"), found, bool(net.frames)))
    return paths
