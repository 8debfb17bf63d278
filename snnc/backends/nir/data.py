"""Conformance vectors as NIRData, which nir 1.0.8 writes and reads: spikes on a grid of time steps, by node."""

from __future__ import annotations

from pathlib import Path

import nir
import numpy as np

from snnc.errors import LoadError
from snnc.files.vectors import Vectors, checked
from snnc.files.writing import atomic_write


def write_nirdata(path: Path, found: Vectors, framed: bool = False) -> Path:
    """Writes the input and the spikes of each layer; neurons of maps stand in one row, as NIRData asks for.

    Args:
        path: the file.
        found: what to write.
        framed: whether its input has a frame for each step.

    Raises:
        WriteError: the file cannot be written.
    """
    steps = len(next(iter(found.spikes.values())))
    rows = found.input.reshape(len(found.input), steps if framed else 1, -1)
    given = rows if framed else np.repeat(rows, steps, 1)
    nodes = {"input": nir.NIRNodeData({"values": nir.TimeGriddedData(given, 1.0)})}
    for name, train in found.spikes.items():
        grid = np.moveaxis(np.asarray(train, bool), 0, 1)
        nodes[name] = nir.NIRNodeData({"spikes": nir.TimeGriddedData(grid.reshape(*grid.shape[:2], -1), 1.0)})
    with atomic_write(path) as temporary:
        nir.write_data(str(temporary), nir.NIRGraphData(nodes))
    return path


def read_nirdata(path: Path) -> Vectors:
    """What somebody's simulator or chip recorded: spikes on a grid, or as events with steps of 1.

    Raises:
        LoadError: it is no NIRData with the values of 'input' and the spikes of other nodes.
        DataError: its arrays do not fit together, or several spikes in one step.
    """
    try:
        nodes = nir.read_data(str(path)).nodes
        grids = {name: _grid(node.observables) for name, node in nodes.items()}
        given = grids.pop("input")
    except Exception as error:
        raise LoadError(
            f"'{path}' is no NIRData that vectors can be read from ({type(error).__name__}).",
            "a node 'input' with values, and nodes with spikes",
        ) from error
    return checked(path, Vectors(given, {name: np.moveaxis(grid, 0, 1) for name, grid in grids.items()}, stepped=True))


def _grid(observables: dict[str, nir.TimeGriddedData | nir.EventData]) -> np.ndarray:
    """The only observable, `[N, T, neurons]`; of events, how many there are, which nir's own grid does not tell."""
    (one,) = observables.values()
    if isinstance(one, nir.TimeGriddedData):
        grid: np.ndarray = one.data
        return grid
    counts = np.zeros((one.n_samples, int(one.t_max), one.n_neurons), np.int64)
    places = np.nonzero(one.idx != -1)
    np.add.at(counts, (places[0], np.floor(one.time[places]).astype(int), one.idx[places]), 1)
    return counts
