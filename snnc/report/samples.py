"""The samples that a report or a comparison looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.capture import capture
from snnc.data import Dataset, ReadBatches, maybe_labelled_batches, read
from snnc.errors import DataError
from snnc.measure.evaluate import CONFIDENCES
from snnc.networks.base import SpikingNetwork, checked

BATCH = 64
ACCURACY, AGREEMENT = "accuracy", "agreement with the ANN"


@dataclass(frozen=True)
class Samples:
    """Samples with the classes that count as right.

    Attributes:
        x: `[N, ...]`.
        y: `[N]`: labels, or the ANN's classes where there are none.
        measure: what a score is: accuracy, or agreement with the ANN.
        source: where they came from.
        ann: the ANN as a module, or None.
        graph: the ANN as a graph, or None.
        data: the data set that they come from, which knows how they were read, or None.
    """

    x: Tensor
    y: Tensor
    measure: str
    source: str
    ann: nn.Module | None
    graph: fx.GraphModule | None
    data: Dataset | None = None

    @property
    def labels(self) -> Tensor | None:
        """The labels, where the data has any."""
        return self.y if self.measure == ACCURACY else None

    def to(self, device: torch.device) -> Samples:
        """The samples, and the graph, on a device; classes stay on the CPU."""
        return replace(self, x=self.x.to(device), graph=self.graph and self.graph.to(device))

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """Batches of samples and classes."""
        return list(zip(self.x.split(BATCH), self.y.split(BATCH), strict=True))

    def told(self, batches: Any) -> Any:
        """Batches of these samples for what measures a network, and wants to know how they were read."""
        return ReadBatches(self.data, iter(batches)) if self.data is not None else batches


def confidences(network: SpikingNetwork, chosen: Samples) -> Sequence[float]:
    """Those at which samples leave early; none where there is one step, or one score."""
    if network.T == 1:
        return ()
    first = network.readout(chosen.x[:1].to(next(network.buffers(), torch.zeros(0)).device))
    return CONFIDENCES if first.shape[-1] > 1 else ()


def gather(
    data: Any,
    networks: Sequence[SpikingNetwork],
    ann: nn.Module | torch.export.ExportedProgram | None,
    most: int,
) -> Samples:
    """The first `most` samples of some data.

    Raises:
        DataError: no samples, samples that a network does not take, or neither labels nor an ANN.
        Unsupported: the ANN cannot be captured.
    """
    if most < 1:
        raise DataError(f"{most} samples say nothing.", "1 or more")
    data = read(data) if isinstance(data, str | Path) else data
    xs, ys = [], []
    for x, y in maybe_labelled_batches(data):
        xs.append(x)
        ys.append(y)
        if sum(map(len, xs)) >= most:
            break
    inputs = torch.cat(xs)[:most]
    for network in networks:
        checked(inputs, network.info)
    graph = None if ann is None else capture(ann, tuple(inputs.shape[1:]))
    module = ann if isinstance(ann, nn.Module) else graph
    known = [y for y in ys if y is not None]
    kept = data if isinstance(data, Dataset) else None
    source = kept.source if kept is not None else type(data).__name__
    if len(known) == len(ys):
        return Samples(inputs, torch.cat(known)[:most], ACCURACY, source, module, graph, kept)
    if module is None:
        raise DataError("Neither labels nor an ANN: there is nothing to measure.", "data with `y`, or --ann MODEL")
    guessed = torch.cat([classes(module(part)) for part in inputs.split(BATCH)])
    return Samples(inputs, guessed, AGREEMENT, source, module, graph, kept)


def classes(output: Tensor) -> Tensor:
    """The class of each sample, `[B, classes]` to `[B]`."""
    if output.dim() != 2:
        raise DataError(f"The network's output has shape {tuple(output.shape[1:])}, not [B, classes].", "a classifier")
    return output.argmax(1)
