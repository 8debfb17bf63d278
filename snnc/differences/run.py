"""Runs two networks on the same input."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snnc.data.fit import Fit
from snnc.data.loaders import maybe_labelled_batches
from snnc.differences.count import Count
from snnc.differences.recorded import against, read_recording
from snnc.differences.report import Differences
from snnc.errors import SnncError
from snnc.files.vectors import Vectors
from snnc.ir.graph import Stage
from snnc.measure.evaluate import ann_classes
from snnc.networks.base import SpikingNetwork
from snnc.passes.pipeline import no_progress
from snnc.steady import steady


@steady()
@torch.no_grad()
def verify(
    a: SpikingNetwork,
    b: SpikingNetwork | Vectors | str | Path,
    data: Any = None,
    ann: nn.Module | None = None,
    stream: bool = False,
    track: Callable[..., Iterator[Any]] = no_progress,
) -> Differences:
    """Runs two networks on the same input and counts what differs.

    Args:
        a: a network.
        b: another, the same in another form, or `a` itself; or what somebody else's simulator or chip did, as vectors
            or as their file, which hold their own input.
        data: input, labelled or not: a `snnc.data.Dataset`, a loader, a tensor; none for a recording.
        ann: the original network.
        stream: run `b` step by step, as a chip does, and not all steps at once.
        track: wraps an iterable to show progress.

    Raises:
        DataError: input or labels that do not fit.
        SnncError: outputs that cannot be compared, or a network that cannot run step by step.
    """
    if not isinstance(b, SpikingNetwork):
        if data is not None or ann is not None or stream:
            raise SnncError("A recording holds its own input, and is not run.", "snnc.verify(a, recording)")
        return against(a, b if isinstance(b, Vectors) else read_recording(Path(b)))
    if data is None:
        raise SnncError("Nothing says on which input the two are to be compared.", "data=, a tensor or a loader")
    if ann is not None and any(module.training for module in ann.modules()):
        ann = copy.deepcopy(ann).eval()
    rounded = a.ends_in_head or b.ends_in_head
    if a.frames != b.frames:
        raise SnncError(
            "One network takes frames and the other does not, or they stand for other things made of frames.",
            "two forms of one network",
        )
    count = Count(a.stage is b.stage is Stage.FIXED, rounded, a.heights(), b.heights())
    # Spikes of all steps are held, so one part is what a network itself would hold.
    part = max(1, min(a.chunk, b.chunk) // max(a.latency.simulated, b.latency.simulated))
    fit = Fit(a.info, data)
    names = (a.inputs, a.inputs)
    for x, y in track(fit.watch(maybe_labelled_batches(data, names)), "comparing"):
        labels: list[Tensor | None] = [None] * len(x) if y is None else list(y.split(part))
        for samples, label in zip(x.split(part), labels, strict=False):
            count.add(a.emitted(samples), b.emitted(samples, stream), label)
            if count.classes:
                fit.classes(count.classes[0], label)
            if ann is not None:
                count.beside(ann_classes(ann, samples, a.frames), label)
    return count.report(fit.notes())
