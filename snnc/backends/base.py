"""What a backend is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from snnc.network import Network


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

    def emit(self, network: Network, path: Path) -> None:
        """Writes `path`, whole or not at all.

        Raises:
            WriteError: the file cannot be written; what was there before is untouched.
        """
        raise NotImplementedError(f"{type(self).__name__}.emit")
