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
from torch import Tensor, fx

from snnc.ir.graph import output
from snnc.runtime.cpu.scan import last
from snnc.runtime.fast import FastRunner
from snnc.runtime.plan import Plan
from snnc.runtime.runner import Observer
from snnc.structure import Inputs, Samples, Tree

KEPT, MOST = 4, 16  # recordings that a runner holds, each with the memory of a run, and that it ever makes
log = logging.getLogger("snnc")
_one = threading.Lock()  # CUDA records one run at a time in a process


class Recording:
    """One run of one shape.

    Attributes:
        graph: what CUDA recorded.
        entry, exit: the input and the output that it reads and writes.
    """

    def __init__(self, run: Callable[[Tensor], Tensor], x: Tensor, stream: Any, pool: Any) -> None:
        before = torch.cuda.current_stream(x.device)
        # Made in inference mode, the entry could not be written to outside of it.
        with _one, torch.inference_mode(False), torch.no_grad():
            self.entry = torch.empty_like(x).copy_(x)
            self.graph = torch.cuda.CUDAGraph()
            try:
                # Other threads may go on allocating; only what this one does wrong ends the recording.
                with torch.cuda.graph(self.graph, pool, stream, capture_error_mode="thread_local"):
                    self.exit = run(self.entry)
            finally:
                torch.cuda.set_stream(before)  # which a recording that fails may leave undone

    def __call__(self, x: Tensor) -> Tensor:
        """The output for an input of the same shape, in memory of its own."""
        self.entry.copy_(x)
        self.graph.replay()
        return self.exit.clone()


class ReplayRunner(FastRunner):
    """A `FastRunner` on a GPU that records a run when its shape comes a second time, and replays it from then on.

    A recording is taken if it gives the bits that a run without it gives, on the input that it is made for, and with no
    layer in one kernel with its neurons: what the check at load saw were a few samples. A network of several inputs or
    outputs is launched anew each time.
    """

    def __init__(self, made: Plan, whole: bool = False, once: bool = False) -> None:
        super().__init__(made, whole, once)
        self.returned = output(made.graph).args[0]
        self.seen: set[Any] = set()
        self.kept: OrderedDict[Any, tuple[Recording, dict[str, Tensor]]] = OrderedDict()
        self.left = MOST
        self.place: Any = None  # a stream and memory of this runner's own
        self.lock = threading.Lock()  # two threads would write one input

    def _run(self, x: Samples, most: int, anytime: bool, observe: Observer | None) -> Tree:
        if isinstance(x, Inputs) or not isinstance(self.returned, fx.Node):  # a recording has one entry and one exit
            with self.lock:
                return super()._run(x, most, anytime, observe)
        key = (x.shape, x.stride(), x.dtype, x.device, most, anytime)
        with self.lock, torch.cuda.device_of(x):
            if observe or not (last(x) or x.is_contiguous()):
                return super()._run(x, most, anytime, observe)
            if key in self.kept:
                return self._replay(key, x)
            result = super()._run(x, most, anytime, observe)  # compiles, and makes what is kept from run to run
            if key in self.seen and self.left:
                self._record(key, x, most, anytime)
            self.seen.add(key)
            return result

    def _replay(self, key: Any, x: Tensor) -> Tensor:
        self.kept.move_to_end(key)
        recording, finite = self.kept[key]
        result = recording(x)
        for name, flag in finite.items():
            self._check(name, flag)  # waits for the run, so that the next one may write where this one read
        return result

    def _record(self, key: Any, x: Tensor, most: int, anytime: bool) -> None:
        """Records a run, or gives up recording."""
        finite: dict[str, Tensor] = {}
        self.left -= 1
        try:
            self.place = self.place or (torch.cuda.Stream(x.device), torch.cuda.graph_pool_handle())
            self.flags = finite
            recording = Recording(lambda entry: FastRunner._run(self, entry, most, anytime, None), x, *self.place)
            self.flags = None
            recording.exit.fill_(torch.nan)
            self.one = False
            want = super()._run(x, most, anytime, None)
            same, reason = torch.equal(recording(x), want), "a replay gave another output"
        except RuntimeError as error:  # a run that waits for the GPU on its way, for one
            same, reason = False, (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        finally:
            self.flags = self.one = None
        if not same:
            self.left = 0
            log.warning("Runs on the GPU are launched one by one: %s.", reason)
            return
        self.kept[key] = recording, finite
        if len(self.kept) > KEPT:
            self.seen.discard(self.kept.popitem(last=False)[0])
