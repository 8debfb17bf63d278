"""Training data: whatever users call a loader as one data set, split, and drawn by seed, epoch and step alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snnc.data import Dataset, maybe_labelled_batches, read
from snnc.errors import DataError
from snnc.tune.augment import augment
from snnc.tune.options import TuneOptions


def gathered(data: Any) -> Dataset:
    """All samples in memory. A `Dataset` or a path keeps its 8-bit images; a loader is run once.

    Raises:
        DataError: nothing there, or what cannot be used.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, str | Path):
        return read(data)
    inputs: list[Any] = []
    labels: list[Tensor | None] = []
    for x, y in maybe_labelled_batches(data):
        inputs.append(x)
        labels.append(y)
    known = [y for y in labels if y is not None]
    if known and len(known) < len(labels):
        raise DataError("Some batches have labels and some have none.", "labels for all, or for none")
    return Dataset(torch.cat(inputs).numpy(), torch.cat(known).numpy() if known else None)


def split(data: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset | None]:
    """Training samples and held-out ones, drawn by `seed`; None if the share is less than one sample."""
    count = int(len(data) * share)
    if not count:
        return data, None
    order = np.random.default_rng([seed, 1]).permutation(len(data))
    return data.take(np.sort(order[count:])), data.take(np.sort(order[:count]))


class Batches:
    """Augmented training batches. What step k of epoch e gives depends on the seed, e and k, and on nothing before."""

    def __init__(self, data: Dataset, options: TuneOptions) -> None:
        self.data, self.options = data, options
        self.size = min(options.batch, len(data))
        self.steps = len(data) // self.size  # the rest waits for another epoch: every batch has the same size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Batches of one epoch from step `start` on: inputs `[B, ...]` and labels `[B]`."""
        o = self.options
        order = np.random.default_rng([o.seed, 2, epoch]).permutation(len(self.data))
        for step in range(start, self.steps):
            part = self.data.take(order[step * self.size : (step + 1) * self.size])
            x: Any
            x, y = next(part.batches(self.size))
            draws = np.random.SeedSequence([o.seed, 3, epoch, step]).generate_state(1)
            yield augment(x, torch.Generator().manual_seed(int(draws[0])), o.crop, o.flip, o.cutout), y

    def plain(self, count: int) -> list[Dataset]:
        """At most `count` batches without augmentation, the same for each call."""
        count = min(
            count, self.steps
        )  # whole batches: statistics of a rest would weigh as much, and of one sample fail
        part = self.data.sample(count * self.size, self.options.seed) if count else self.data
        return [part.take(slice(i * self.size, (i + 1) * self.size)) for i in range(count)]
