"""Several processes that share one piece of work, with the same result as one process, to the bit.

Floating-point sums depend on their order, and results of a layer may depend on how many samples it is given at once.
So neither may depend on the number of processes. Work is cut into shards by sizes that are always the same; shard i is
done by process i % world; and sums over samples are sums within each shard, added up in the order of the shards, on
every process. All processes hold the same data, the same network and the same sums. Each computes everything else from
the sums for itself; `agree` makes sure that all have the same.

If nothing is shared, the world is one process, and the same code does all shards.

Processes exchange tensors and plain data, written by `torch.save` and read with its safe loader, over gloo. Gradients
on GPUs travel over nccl if every process has a GPU of its own.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from snnc.errors import ProcessError
from snnc.launched import launched
from snnc.structure import Samples

Found = TypeVar("Found")
S = TypeVar("S", bound=Samples)
Pieces = Mapping[int, Tensor]  # shards of one value that a process holds, by number

TIMEOUT = "SNNC_DIST_TIMEOUT"  # environment variable: seconds that a process waits for the others
PATIENCE = 1800.0
APART = "machines with the same kind of processor, and the same versions of snnc and torch"


@dataclass(frozen=True)
class _Group:
    """The processes that share the work.

    Attributes:
        rank: number of this one.
        world: how many there are.
        plain: torch's group for tensors in main memory.
        cuda: the one for tensors on GPUs, where there is one.
    """

    rank: int
    world: int
    plain: Any
    cuda: Any


_ALONE = _Group(0, 1, None, None)
_group = _ALONE
_store: Any = None  # what all processes of a launch can write to, for as long as it lasts


def rank() -> int:
    """Number of this process among those that share the work; 0 where there is one."""
    return _group.rank


def world() -> int:
    """How many processes share the work."""
    return _group.world


@contextmanager
def distributed() -> Iterator[None]:
    """Within it `compile`, `tune` and `evaluate` share their work among all processes of a `torchrun`.

    Every process calls the same functions with the same arguments and the same data, and gets the same result; the
    first alone writes files. A process group that is there already is used; otherwise one is made from torchrun's
    environment. Without either nothing is shared.

    Raises:
        ProcessError: the processes do not find each other, or do not compute with the same number of threads.
    """
    global _group
    if _group is not _ALONE or not dist.is_available() or not (dist.is_initialized() or launched()):
        yield
        return
    made = not dist.is_initialized()
    patience = timedelta(seconds=_patience())
    with _lost():
        if made:
            _join(patience)
        # Groups of our own, so that the caller's operations in the default group stay separate.
        own = _own_gpu()
        plain = dist.new_group(backend="gloo", timeout=patience)
        cuda = dist.new_group(backend="nccl", timeout=patience) if own else None
    _group = _Group(dist.get_rank(), dist.get_world_size(), plain, cuda)
    try:
        agree("computes with another number of threads", torch.get_num_threads(), hint="OMP_NUM_THREADS=1 for all")
        yield
        from_all(None)  # no process leaves before all are done, so every file is written by then
    except BaseException:
        _group = _ALONE  # the others may hang in a collective of the group: taking it down would wait for them
        raise
    _group = _ALONE
    for group in (None,) if made else filter(None, (plain, cuda)):  # None: all of them
        dist.destroy_process_group(group)


def _join(patience: timedelta) -> None:
    global _store
    if _own_gpu():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    _store, number, size = next(rendezvous("env://", timeout=patience))
    dist.init_process_group("gloo", store=_store, rank=number, world_size=size, timeout=patience)


def _own_gpu() -> bool:
    """Whether every process of this machine has a GPU for itself."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "0"))
    return 0 < here <= torch.cuda.device_count() and dist.is_nccl_available()


def _patience() -> float:
    text = os.environ.get(TIMEOUT, "") or str(PATIENCE)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise ProcessError(f"{TIMEOUT} is '{text}'.", "seconds, such as 600")
    return seconds


def speaks() -> bool:
    """Whether this process is the one that tells the user what went wrong: the first to ask, in all of the launch."""
    try:
        return _store is None or int(_store.add("snnc-told", 1)) == 1
    except RuntimeError:  # the process that kept the store is gone, and perhaps had no time to say anything
        return True


@contextmanager
def _lost() -> Iterator[None]:
    """What torch says when the others do not answer, in a sentence."""
    try:
        yield
    except (RuntimeError, ValueError) as problem:
        raise ProcessError(
            "Another process of this run has ended or does not answer, so the run ends.",
            f"{TIMEOUT}=SECONDS, where it was only slow",
        ) from problem


def from_all(value: Found) -> list[Found]:
    """The values that all processes gave, in their order. Tensors in main memory, and plain data.

    Raises:
        ProcessError: another process has ended or does not answer.
    """
    if _group.world == 1:
        return [value]
    buffer = io.BytesIO()
    torch.save(value, buffer)
    mine = torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)
    sizes = [int(size) for size in gather(torch.tensor(len(mine)))]
    padded = torch.zeros(max(sizes), dtype=torch.uint8)
    padded[: len(mine)] = mine
    parts = zip(gather(padded), sizes, strict=True)
    return [torch.load(io.BytesIO(part[:size].numpy().tobytes()), weights_only=True) for part, size in parts]


def gather(value: Tensor) -> list[Tensor]:
    """A tensor of every process, in their order; all have the same shape. On the device of `value`.

    Raises:
        ProcessError: another process has ended or does not answer.
    """
    if _group.world == 1:
        return [value]
    near = value if value.is_cuda and _group.cuda is not None else value.cpu()
    found = [torch.empty_like(near) for _ in range(_group.world)]
    with _lost():
        dist.all_gather(found, near.contiguous(), group=_group.cuda if near.is_cuda else _group.plain)
    return [one.to(value.device) for one in found]


def dealt(count: int, compute: Callable[[int], Found]) -> Iterator[Found]:
    """`compute(0)` to `compute(count - 1)`, in order, each computed by one process and given to all."""
    for start in range(0, count, _group.world):
        mine = start + _group.rank
        found: list[Any] = from_all(compute(mine) if mine < count else None)
        yield from found[: count - start]


def agree(what: str, *parts: Any, hint: str = "the same command with the same files on every machine") -> None:
    """Makes sure that all processes have the same, tensors to the bit.

    Args:
        what: what is wrong with a process that has something else, such as "was given other data".
        parts: tensors, arrays and plain data.
        hint: what to try.

    Raises:
        ProcessError: some have something else; names the first of them.
    """
    if _group.world == 1:
        return
    digests = from_all(digest(*parts))
    for number, one in enumerate(digests):
        if one != digests[0]:
            raise ProcessError(f"Process {number} {what} than process 0.", hint)


def digest(*parts: Any) -> str:
    """SHA-256 of tensors and arrays, to the bit, and of plain data."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            found.update(repr((part.dtype, tuple(part.shape))).encode())
            found.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(part, np.ndarray):
            found.update(repr((part.dtype, part.shape)).encode())
            found.update(np.ascontiguousarray(part).data)
        else:
            found.update(repr(part).encode())
    return found.hexdigest()


@dataclass(frozen=True)
class Shards:
    """Samples, or other rows, cut into shards.

    Attributes:
        sizes: samples of each shard, of all processes.
    """

    sizes: tuple[int, ...]

    @classmethod
    def of(cls, samples: int, size: int) -> Shards:
        """`samples` in shards of `size`; the last may be smaller."""
        return cls(tuple(min(size, samples - start) for start in range(0, samples, size)))

    @property
    def samples(self) -> int:
        """All samples."""
        return sum(self.sizes)

    @property
    def mine(self) -> list[int]:
        """Numbers of the shards that this process holds.

        One that has nothing to do holds the first as well, uncounted, so that it knows the shapes of things.
        """
        return list(range(_group.rank, len(self.sizes), _group.world)) or [0]

    def deal(self, x: S) -> dict[int, S]:
        """The pieces of `[N, ...]` that this process holds."""
        parts: Any = x.split(list(self.sizes))
        return {i: parts[i] for i in self.mine}

    def total(self, compute: Callable[[int], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Sums over all shards, of tensors that `compute` gives for the number of one, in shapes that all have."""
        count, sums, parts = len(self.sizes), tuple[Tensor, ...](), tuple[Tensor, ...]()
        for start in range(0, count, _group.world):
            i = start + _group.rank
            if i < count or not parts:
                parts = compute(i if i < count else self.mine[0])
            for found in list(zip(*map(gather, parts), strict=True))[: count - start]:
                sums = tuple(a + b for a, b in zip(sums, found, strict=True)) if sums else found
        return sums
