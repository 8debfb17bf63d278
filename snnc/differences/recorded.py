"""Conformance vectors: what a network does, as a file, and what somebody else's simulator or chip did instead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snnc.differences.count import Count
from snnc.differences.report import Differences
from snnc.errors import DataError, LoadError, SnncError
from snnc.files.vectors import Vectors, is_vectors, read_vectors
from snnc.ir.graph import Stage
from snnc.networks.base import SpikingNetwork, Trains
from snnc.steady import steady

NIRDATA = (".h5", ".hdf5")


def is_recording(path: Path) -> bool:
    """Whether a file holds vectors and no network."""
    return path.suffix in NIRDATA or is_vectors(path)


def read_recording(path: Path) -> Vectors:
    """Vectors from an `.npz` file, or from NIRData.

    Raises:
        LoadError: it holds none; or the package nir is not installed, which NIRData needs.
    """
    if path.suffix not in NIRDATA:
        return read_vectors(path)
    try:
        from snnc.backends.nir.data import read_nirdata
    except ImportError as missing:
        raise LoadError(
            f"'{path}' needs the package {missing.name} to be read.", "pip install 'snnc[nir]'"
        ) from missing
    return read_nirdata(path)


def _parts(network: SpikingNetwork, samples: int) -> Iterator[slice]:
    """Samples of which the spikes of all steps are held at once."""
    size = max(1, network.chunk // network.latency.simulated)
    yield from (slice(start, start + size) for start in range(0, samples, size))


@steady()
@torch.no_grad()
def record(network: SpikingNetwork, x: Tensor) -> Vectors:
    """The spikes of every neuron at every step, and the readout after each step.

    Args:
        network: a graph file, as `snnc.compile` gives it.
        x: input `[N, ...]`.

    Raises:
        SnncError: a network that cannot be looked into, or of several inputs or outputs.
    """
    network.require_inside()
    if not isinstance(x, Tensor) or len(network.outputs) > 1:
        raise SnncError("Vectors are of one input and one output, and the network has several.", "it without --vectors")
    trains: dict[str, list[Tensor]] = {}
    outputs: list[Tensor] = []
    for part in _parts(network, len(x)):
        output, found = network.emitted(x[part])
        outputs.append(output)
        for name, train in (found or {}).items():
            trains.setdefault(name, []).append(train != 0)
    spikes = {name: torch.cat(parts, 1).numpy() for name, parts in trains.items()}
    return Vectors(x.numpy(), spikes, torch.cat(outputs, 1).numpy(), "snnc")


@steady()
@torch.no_grad()
def against(network: SpikingNetwork, recorded: Vectors) -> Differences:
    """Counts what differs in a recording from what the network does on the input that it names.

    Args:
        network: a graph file, as `snnc.compile` gives it.
        recorded: by another simulator or a chip.

    Raises:
        DataError: layers that are missing or unknown, or arrays of another shape; each is named.
        SnncError: a network that cannot be looked into.
    """
    network.require_inside()
    x = torch.from_numpy(np.asarray(recorded.input, np.float32))
    shape = network.info.get("input_shape")
    if recorded.stepped and not network.frames:
        if (x != x[:, :1]).any():
            raise DataError(
                "The recorded input changes from step to step, and the network takes the same at every step.",
                "a recording of the same input at every step, or a network over frames",
            )
        x = x[:, 0]
    if recorded.stepped and shape and prod(shape) == prod(x.shape[1:]):
        x = x.reshape(-1, *shape)
    heights = network.heights()
    count = Count(network.stage is Stage.FIXED, True, heights, {name: torch.tensor(1.0) for name in heights})
    trains: Trains | None = None
    for part in _parts(network, len(x)):
        output, mine = network.emitted(x[part])
        if trains is None:
            trains = _fitting(recorded, {name: tuple(train.shape) for name, train in (mine or {}).items()}, len(x))
        theirs: Any = output if recorded.output is None else _output(recorded.output, output, len(x))[:, part]
        count.add((output, mine), (theirs, {name: train[:, part] for name, train in trains.items()}), None)
    found = count.report([])
    if recorded.output is not None:
        return found
    note = "The recording holds no output, so spikes alone were compared."
    return replace(found, outputs=[], predictions=None, notes=[*found.notes, note])


def _fitting(recorded: Vectors, shapes: dict[str, tuple[int, ...]], samples: int) -> Trains:
    """The recorded spikes in the network's shapes, of which the samples are those of one part."""
    missing, unknown = sorted(shapes.keys() - recorded.spikes.keys()), sorted(recorded.spikes.keys() - shapes.keys())
    if missing or unknown:
        said = [f"lacks {', '.join(map(repr, missing))}"] * bool(missing)
        said += [f"has {', '.join(map(repr, unknown))}, which the network has not"] * bool(unknown)
        raise DataError(f"The recording {' and '.join(said)}.", f"these layers: {', '.join(shapes)}")
    found = {}
    for name, (steps, _, *shape) in shapes.items():
        train = recorded.spikes[name]
        if train.shape not in ((steps, samples, *shape), (steps, samples, prod(shape))):
            raise DataError(
                f"The recorded spikes of '{name}' have shape {train.shape}; the network's are "
                f"{(steps, samples, *shape)}: steps, samples, neurons.",
                f"that shape, or {(steps, samples, prod(shape))}",
            )
        found[name] = torch.from_numpy(train.reshape(steps, samples, *shape)).float()
    return found


def _output(recorded: Any, mine: Any, samples: int) -> Tensor:
    """The recorded readouts, where they have the network's shape."""
    wanted = (len(mine), samples, *mine.shape[2:])
    if recorded.shape != wanted:
        raise DataError(
            f"The recorded 'output' has shape {recorded.shape}; the network's readouts have {wanted}.",
            "an output of that shape, or none",
        )
    return torch.from_numpy(np.asarray(recorded, np.float32))
