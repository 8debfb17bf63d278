"""Where a calibration keeps its values: in memory, packed, in a temporary file, or nowhere, to be computed again.

A sweep needs the values of a few nodes at a time, over all samples and steps. How each is held follows from the memory
that it may take, and from nothing else; whichever way, reading it gives the same bits. So what is learnt from sums
over shards does not depend on the memory either.

Files are temporary and have no name (on Windows, a name until they are closed), so none is left behind whatever
ends the process.
"""

from __future__ import annotations

import copy
import math
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from snnc.calibrate.coding import Coded, dense, plain, spikes
from snnc.calibrate.limit import allowed, least
from snnc.errors import SnncError
from snnc.ir.dialect import ACTIVATIONS, ROUTES, Add, Affine, ClipQuant, Grid, Sub
from snnc.ir.neurons import Neuron
from snnc.ir.temporal import Decode, Encode, Frames, StepCurrent
from snnc.processes import Pieces

LIGHT = (*ACTIVATIONS, *ROUTES, Add, Affine, ClipQuant, Decode, Encode, Frames, Grid, StepCurrent, Sub)
READ, RUN = 1, 10  # price of a value that is read back, and of one that a layer with weights computes
CHEAP = 3 * READ  # what a value may cost each time without being worth a file
DEAR = CHEAP + 2 * RUN  # the same where there is no room for files


class Held(Mapping[int, Tensor]):
    """The shards of one value that a process holds, by number.

    Attributes:
        shape: of the first.
        price: of reading one.
        resident: bytes of main memory for all.
    """

    def __init__(
        self, keys: Iterable[int], read: Callable[[int], Tensor], shape: torch.Size, price: int, resident: int = 0
    ) -> None:
        self._keys, self._read = list(keys), read
        self.shape, self.price, self.resident = shape, price, resident

    def __getitem__(self, i: int) -> Tensor:
        return self._read(i)

    def __iter__(self) -> Iterator[int]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    __hash__ = object.__hash__  # of values that are held none is another


class Memory:
    """What the values of one calibration may take up.

    Args:
        room: bytes of main memory for values; without, as many as there are.
        folder: of temporary files.
    """

    def __init__(self, room: float = math.inf, folder: str | None = None) -> None:
        self.room = room
        self.folder = folder or _folder()
        self._live: weakref.WeakSet[Held] = weakref.WeakSet()

    @classmethod
    def of(cls, limit: float | None, largest: int) -> Memory:
        """Room for the values of a calibration that begins now.

        Args:
            limit: bytes that the process may hold; None: what it holds, and half of what is free.
            largest: bytes of the largest value of a shard.
        """
        return cls(max(0.0, allowed(limit) - least(largest)))

    @property
    def resident(self) -> int:
        """Bytes of main memory that values take up now."""
        return sum(one.resident for one in self._live)

    def each(self, module: Any, *inputs: Pieces) -> Held:
        """A module's value, by the module as it is now, whatever becomes of it later."""
        now = frozen(module)
        unit = module.height if isinstance(module, Neuron) else None
        return self.hold(
            lambda i: now(*(one[i] for one in inputs)), *inputs, unit=unit, light=isinstance(module, LIGHT)
        )

    def hold(
        self, make: Callable[[int], Tensor], *inputs: Pieces, unit: Tensor | None = None, light: bool = False
    ) -> Held:
        """A value that is computed shard by shard.

        Args:
            make: computes a shard; the same bits whenever it is called.
            inputs: values that it reads.
            unit: height of a spike, of values that are spikes.
            light: whether it takes hardly more time than to read its inputs.
        """
        keys = list(inputs[0])
        price = sum(one.price for one in inputs if isinstance(one, Held)) + (0 if light else RUN)
        first = dense(make(keys[0]))
        shape, sizes = first.shape, (len(keys) * first.nbytes, _packed_size(len(keys), first, unit))
        way = self._way(*sizes, price)
        if way == "computed":
            found = Held(keys, lambda i: dense(make(i)), shape, max(price, READ))
        else:
            file = _File(self.folder) if way == "filed" else None
            found = self._stored(keys, _pieces(make, keys, first), shape, None if way == "kept" else unit, file)
        self._live.add(found)
        return found

    def _way(self, size: int, packed: int | None, price: int) -> str:
        """How a value of so many bytes is held, that takes so many packed; None where it cannot be."""
        if self.resident + size <= self.room / 2:  # the other half is for what is packed
            return "kept"
        if packed is not None and self.resident + packed <= self.room:
            return "packed"
        filed = shutil.disk_usage(self.folder).free / 2 > size
        if packed is not None:
            return "filed" if filed else "packed"
        if price <= (CHEAP if filed else DEAR):
            return "computed"
        return "filed" if filed else "kept"

    def _stored(
        self, keys: list[int], pieces: Iterator[Tensor], shape: torch.Size, unit: Tensor | None, file: _File | None
    ) -> Held:
        kept: dict[int, Callable[[], Tensor]] = {}
        taken = 0
        for i, piece in zip(keys, pieces, strict=True):
            coded = (None if unit is None else spikes(piece, unit)) or plain(piece)
            kept[i] = partial(coded.value, coded.raw) if file is None else file.put(coded)
            taken += coded.raw.nbytes if file is None else 0
        price = 0 if file is None and unit is None else READ
        return Held(keys, lambda i: kept[i](), shape, price, taken)


class _File:
    """Values in a temporary file, which is gone as soon as nothing reads it any more."""

    def __init__(self, folder: str) -> None:
        self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  open for as long as anything reads it
        weakref.finalize(self, self.file.close)
        self.folder, self.end = folder, 0

    def put(self, coded: Coded) -> Callable[[], Tensor]:
        """Writes a value; gives what reads it."""
        start, size, value = self.end, coded.raw.nbytes, coded.value
        try:
            self.file.seek(start)
            self.file.write(coded.raw.numpy().data)
            self.file.flush()
        except OSError as problem:
            raise SnncError(
                f"Calibration cannot write its temporary file in {self.folder}: {problem.strerror}.",
                "more --memory, fewer --calib-samples, or TMPDIR=FOLDER with room",
            ) from problem
        self.end += size

        def read() -> Tensor:
            raw = torch.empty(size, dtype=torch.uint8)
            self.file.seek(start)
            self.file.readinto(raw.numpy().data)
            return value(raw)

        return read


def _pieces(make: Callable[[int], Tensor], keys: list[int], first: Tensor) -> Iterator[Tensor]:
    yield first
    del first
    for i in keys[1:]:
        yield dense(make(i))


def _packed_size(count: int, first: Tensor, unit: Tensor | None) -> int | None:
    coded = None if unit is None else spikes(first, unit)
    return None if coded is None else count * coded.raw.nbytes


def frozen(module: Any) -> Any:
    """A copy of a module that stays what it is; it shares the numbers, which are replaced and never written to."""
    if not isinstance(module, nn.Module):
        return module
    shared = {id(value): value for value in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, shared)


def size_of(pieces: Pieces) -> torch.Size:
    """Shape of the first shard of a value, which is not computed for that."""
    return pieces.shape if isinstance(pieces, Held) else next(iter(pieces.values())).shape


def _folder() -> str:
    """Where temporary files go that may be large; many machines have /tmp in memory."""
    told = any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    large = "/var/tmp"
    return large if not told and os.access(large, os.W_OK) else tempfile.gettempdir()
