"""Runs of the same shape again without launching anew: CUDA graphs.

A network of twenty layers takes longer to launch than to compute on a GPU, at least where batches are small. CUDA
records what one run launches, and replays all of it in one call, on the memory that the record was made with.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from snnc.runtime.fast import FastRunner
from snnc.runtime.runner import Observer

KEPT = 4  # records of one network: each holds the memory of a run
log = logging.getLogger("snnc")


class Recording:
    """One run of one shape.

    Attributes:
        graph: what CUDA recorded.
        entry, exit: the input and the output that it reads and writes.
    """

    def __init__(self, run: Callable[[Tensor], Tensor], x: Tensor, pool: Any) -> None:
        self.entry = torch.empty_like(x).copy_(x)
        self.graph = torch.cuda.CUDAGraph()
        # Another thread may allocate meanwhile, which only this thread may not be disturbed by.
        with torch.cuda.graph(self.graph, pool=pool, capture_error_mode="thread_local"):
            self.exit = run(self.entry)

    def __call__(self, x: Tensor) -> Tensor:
        """The output for an input of the same shape, in memory of its own."""
        self.entry.copy_(x)
        self.graph.replay()
        return self.exit.clone()


class ReplayRunner(FastRunner):
    """A `FastRunner` on a GPU that records a run when its shape comes a second time, and replays it from then on."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.seen: set[Any] = set()
        self.kept: OrderedDict[Any, tuple[Recording, dict[str, Tensor]]] = OrderedDict()
        self.pool: Any = None
        self.records = True
        self.lock = threading.Lock()  # two threads would write one input

    def _run(self, x: Tensor, most: int, anytime: bool, observe: Observer | None) -> Tensor:
        if observe or not self.records:
            return super()._run(x, most, anytime, observe)
        key = (x.shape, x.stride(), x.dtype, x.device, most, anytime)
        with self.lock, torch.cuda.device_of(x):
            if key not in self.kept:
                if key not in self.seen:  # which compiles, and allocates what is kept from run to run
                    self.seen.add(key)
                    return super()._run(x, most, anytime, observe)
                self._record(key, x, most, anytime)
            if key not in self.kept:
                return super()._run(x, most, anytime, observe)
            self.kept.move_to_end(key)
            recording, finite = self.kept[key]
            result = recording(x)
            for name, flag in finite.items():
                self._check(name, flag)  # waits for the run, so that the next one may write where this one read
            return result

    def _record(self, key: Any, x: Tensor, most: int, anytime: bool) -> None:
        """Records a run, or gives up recording: a run that asks the GPU for a number on its way cannot be recorded."""
        finite: dict[str, Tensor] = {}
        try:
            self.pool = self.pool or torch.cuda.graph_pool_handle()
            self.flags = finite
            recording = Recording(
                lambda entry: super(ReplayRunner, self)._run(entry, most, anytime, None), x, self.pool
            )
            self.kept[key] = recording, finite
        except RuntimeError as error:
            self.records = False
            log.info("Runs are launched one by one: %s.", str(error).strip().splitlines()[0])
        finally:
            self.flags = None
        while len(self.kept) > KEPT:
            self.kept.popitem(last=False)
