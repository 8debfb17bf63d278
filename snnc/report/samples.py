"""The samples that a report or a comparison looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.capture import capture, one_frame
from snnc.data import Dataset, ReadBatches, maybe_labelled_batches, read
from snnc.errors import DataError
from snnc.ir.frames import framed
from snnc.ir.graph import only, results
from snnc.measure.evaluate import CONFIDENCES, ann_outputs
from snnc.networks.base import SpikingNetwork
from snnc.networks.inputs import bound, checked
from snnc.structure import Samples as Given
from snnc.structure import joined, shape_of

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

    x: Given
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

    def batches(self) -> list[tuple[Given, Tensor]]:
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
    output: str | None = None,
) -> Samples:
    """The first `most` samples of some data. `output` names the one of the ANN's that is meant, if it has several.

    Raises:
        DataError: no samples, samples that a network does not take, or neither labels nor an ANN.
        Unsupported: the ANN cannot be captured.
    """
    if most < 1:
        raise DataError(f"{most} samples say nothing.", "1 or more")
    data = read(data) if isinstance(data, str | Path) else data
    xs, ys = [], []
    first = networks[0].inputs if networks else ()
    for x, y in maybe_labelled_batches(data, (first, first)):
        xs.append(x)
        ys.append(y)
        if sum(map(len, xs)) >= most:
            break
    inputs = joined(xs)[:most]
    way = frames_of(networks)
    for network in networks:
        checked(network.entries, bound(network.entries, (inputs,), {}), network.info)
    shape = shape_of(one_frame(inputs) if way else inputs)
    graph = None if ann is None else one_output(framed(capture(ann, shape), networks[0].T, way), output)
    module = graph if output or way or not isinstance(ann, nn.Module) else ann
    known = [y for y in ys if y is not None]
    kept = data if isinstance(data, Dataset) else None
    source = kept.source if kept is not None else type(data).__name__
    if len(known) == len(ys):
        return Samples(inputs, torch.cat(known)[:most], ACCURACY, source, module, graph, kept)
    if module is None:
        raise DataError("Neither labels nor an ANN: there is nothing to measure.", "data with `y`, or --ann MODEL")
    guessed = torch.cat([classes(alone(ann_outputs(module, part))) for part in inputs.split(BATCH)])
    return Samples(inputs, guessed, AGREEMENT, source, module, graph, kept)


def frames_of(networks: Sequence[SpikingNetwork]) -> str:
    """What the original network did with frames, which is the same for all that are compared.

    Raises:
        DataError: it is not.
    """
    ways = {network.frames for network in networks}
    if len(ways) > 1:
        told = " and ".join(sorted(f"'{way}' of frames" if way else "input that is constant in time" for way in ways))
        raise DataError(f"The networks take {told}, and no sample is both.", "networks that take the same samples")
    return ways.pop() if ways else ""


def one_output(graph: fx.GraphModule, output: str | None) -> fx.GraphModule:
    """The graph with one of its outputs alone."""
    return only(graph, output) if output and output in results(graph) and len(results(graph)) > 1 else graph


def alone(found: dict[str, Tensor]) -> Tensor:
    """The only one of a network's outputs.

    Raises:
        DataError: there are several.
    """
    if len(found) > 1:
        raise DataError(
            f"The network has several outputs: {', '.join(found)}.",
            f"the one that is meant: --output {next(iter(found))}",
        )
    return next(iter(found.values()))


def classes(output: Tensor) -> Tensor:
    """The class of each sample, `[B, classes]` to `[B]`."""
    if output.dim() != 2:
        raise DataError(f"The network's output has shape {tuple(output.shape[1:])}, not [B, classes].", "a classifier")
    return output.argmax(1)
