"""Accuracy and agreement on held-out samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from snnc.data import Dataset
from snnc.processes import Shards

BATCH = 100


class Scorer:
    """Scores networks on held-out samples.

    Attributes:
        data: the samples, or None, which gives empty scores.
        teacher: the original network, or None.
    """

    def __init__(self, data: Dataset | None, teacher: Callable[[Tensor], Tensor] | None) -> None:
        self.data = data
        self.wanted: dict[int, Tensor] = {}
        if data and teacher:
            with torch.no_grad():
                self.wanted = {i: teacher(x).argmax(-1) for i, x, _ in self._own(data)}

    @staticmethod
    def _own(data: Dataset) -> Iterator[tuple[int, Tensor, Tensor | None]]:
        """The batches that this process scores, with their numbers."""
        shards = Shards.of(len(data), BATCH)
        for i in shards.mine:
            x: Any
            x, y = next(data.take(slice(i * BATCH, (i + 1) * BATCH)).batches(BATCH))
            yield i, x, y

    @torch.no_grad()
    def __call__(self, run: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """Percentages for a function from a batch to `[T, B, classes]`: after each step; None where there are none."""
        if self.data is None:
            return {"accuracy": None, "agreement": None}
        shards = Shards.of(len(self.data), BATCH)
        counts: dict[int, tuple[Tensor, ...]] = {}
        for i, x, y in self._own(self.data):
            steps = run(x)
            classes = steps.argmax(-1)
            goals = (y, self.wanted.get(i)) if steps.dim() == 3 else ()  # a map has no class
            counts[i] = tuple((classes == goal).sum(1) for goal in goals if goal is not None)
        found = list(shards.total(counts.__getitem__))
        hits = found.pop(0) if found and self.data.y is not None else None
        same = found.pop(0) if found else None
        return {"accuracy": self._percent(hits), "agreement": self._percent(same)}

    def _percent(self, counts: Tensor | None) -> list[float] | None:
        if self.data is None or counts is None:
            return None
        return [round(100 * int(count) / len(self.data), 2) for count in counts]
