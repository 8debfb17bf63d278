"""What a backend is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import fx

from snnc.errors import SnncError
from snnc.networks.network import Network
from snnc.passes.pipeline import Pipeline


@dataclass(frozen=True)
class Backend:
    """One way to write a spiking network to a file.

    Class attributes:
        name: what the user asks for.
        suffix: what the file is called.
        summary: one line.
        loads: whether snnc reads such a file again.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    summary: ClassVar[str]
    loads: ClassVar[bool] = True

    def accept(self, pipeline: Pipeline, T: int, graph: fx.GraphModule, shape: tuple[int, ...] | None) -> None:
        """Refuses, before any pass runs, what `emit` could not write afterwards.

        Args:
            pipeline: the passes that are to run.
            T: time steps.
            graph: the network before them.
            shape: of one sample, where it is known.

        Raises:
            SnncError: what cannot be written, and what to try. Not all can be told so early.
        """

    def emit(self, network: Network, path: Path) -> None:
        """Writes `path`, whole or not at all.

        Raises:
            WriteError: the file cannot be written; what was there before is untouched.
        """
        raise NotImplementedError(f"{type(self).__name__}.emit")


def told(shape: Any, backend: str) -> tuple[int, ...]:
    """The shape of one sample, for a backend that needs it.

    Raises:
        SnncError: nothing told it.
    """
    if not shape:
        raise SnncError(
            f"The backend '{backend}' needs the shape of the input, and nothing told it.",
            "--input-shape, such as --input-shape 3,32,32, or calibration data",
        )
    return tuple(shape)
