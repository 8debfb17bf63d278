"""Accuracy and agreement on held-out samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from snnc.data import Dataset

BATCH = 100


class Scorer:
    """Scores networks on held-out samples.

    Attributes:
        data: the samples, or None, which gives empty scores.
        teacher: the original network, or None.
    """

    def __init__(self, data: Dataset | None, teacher: Callable[[Tensor], Tensor] | None) -> None:
        self.data = data
        self.wanted: list[Tensor] = []
        if data and teacher:
            with torch.no_grad():
                self.wanted = [teacher(x).argmax(-1) for x, _ in data.batches(BATCH)]

    @torch.no_grad()
    def __call__(self, run: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """Percentages for a function from a batch to `[T, B, classes]`: after each step, or None where unknown."""
        if self.data is None:
            return {"accuracy": None, "agreement": None}
        hits: Any = 0
        same: Any = 0
        for i, (x, y) in enumerate(self.data.batches(BATCH)):
            classes = run(x).argmax(-1)
            if y is not None:
                hits = hits + (classes == y).sum(1)
            if self.wanted:
                same = same + (classes == self.wanted[i]).sum(1)
        return {"accuracy": self._percent(hits), "agreement": self._percent(same)}

    def _percent(self, counts: Any) -> list[float] | None:
        if self.data is None or not isinstance(counts, Tensor):
            return None
        return [round(100 * int(count) / len(self.data), 2) for count in counts]
