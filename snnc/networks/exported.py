"""A spiking network that was written as an exported program, read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snnc.errors import LoadError
from snnc.files import load_model
from snnc.files.sniffing import open_zip
from snnc.networks.network import CHUNK, Latency, checked, counted
from snnc.networks.onnx import OnnxNetwork
from snnc.steady import exact

INFO_FILE = "snnc.json"


def emitted_kind(network: Portable | OnnxNetwork) -> str:
    """What a network that cannot be looked into was read from, as a sentence begins."""
    return "An exported program" if isinstance(network, Portable) else "An ONNX file"


class Portable(nn.Module):
    """Runs an emitted `.pt2` with the interface of `Network`: `net(x)`, `net.readout(x)`, `T`, `latency`, `info`.

    There is no graph to look into: no spike counts, no streaming.
    """

    def __init__(self, program: torch.export.ExportedProgram, info: dict[str, Any], chunk: int = CHUNK) -> None:
        super().__init__()
        self.program = program.module()
        self.info = info
        self.latency = Latency(**info["latency"])
        self.chunk = counted(chunk)

    @property
    def T(self) -> int:
        """Steps that are read out."""
        return self.latency.T

    def forward(self, x: Tensor | np.ndarray) -> Tensor:
        """Output after T steps: `[B, ...]` to `[B, classes]`."""
        return torch.cat([one for one, _ in self._run(x)])

    def readout(self, x: Tensor | np.ndarray) -> Tensor:
        """Output after each step: `[B, ...]` to `[T, B, classes]`."""
        return torch.cat([every for _, every in self._run(x)], 1)

    def _run(self, x: Tensor | np.ndarray) -> list[tuple[Tensor, Tensor]]:
        with exact():
            parts = checked(x, self.info).split(max(1, counted(self.chunk) // self.latency.simulated))
            return [self.program(part) for part in parts]


def has_history(path: Path) -> bool:
    """Whether a `.pt2` was emitted by snnc, and not just exported from an ANN."""
    with open_zip(path) as archive:
        return any(name.endswith(f"/{INFO_FILE}") for name in archive.namelist())


def load_portable(path: Path, chunk: int = CHUNK) -> Portable:
    """An emitted `.pt2`.

    Raises:
        LoadError: not one that snnc wrote, or broken.
    """
    program = load_model(path)
    if not isinstance(program, torch.export.ExportedProgram):
        raise LoadError(f"'{path}' is not an exported program.", "a file that 'snnc compile' wrote")
    try:
        with open_zip(path) as archive:
            name = next(n for n in archive.namelist() if n.endswith(f"/{INFO_FILE}"))
            info = json.loads(archive.read(name))
        return Portable(program, info, chunk)
    except (StopIteration, KeyError, TypeError, ValueError) as error:
        raise LoadError(
            f"'{path}' is an exported program, but not a spiking network that snnc wrote.",
            "'snnc compile' on it",
        ) from error
