"""A spiking network that was written as an exported program, read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snnc.defaults import CHUNK
from snnc.errors import LoadError
from snnc.files import load_model
from snnc.files.history import Fault, read_history
from snnc.files.sniffing import open_zip
from snnc.ir.graph import Stage
from snnc.networks.base import Input, SpikingNetwork, checked, counted
from snnc.runtime.runner import Observer
from snnc.steady import exact

INFO_FILE = "snnc.json"


class ExportedNetwork(SpikingNetwork):
    """Runs an emitted `.pt2`. There is no graph to look into: no spike counts, no streaming."""

    form = "An exported program"

    def __init__(self, program: torch.export.ExportedProgram, info: dict[str, Any], chunk: int = CHUNK) -> None:
        super().__init__()
        self.program = program.module()
        self.info = info
        self.stage = Stage((info.get("records") or [{}])[-1].get("stage", Stage.SPIKING))
        self.chunk = counted(chunk)
        self._simulated = self.latency.simulated  # read once here: a history that lacks it is refused

    def forward(self, x: Input) -> Tensor:
        """Output after T steps: `[B, ...]` to `[B, classes]`."""
        return torch.cat([one for one, _ in self._run(x)])

    def readout(self, x: Input, observe: Observer | None = None) -> Tensor:
        if observe is not None:
            self.require_inside()
        return torch.cat([every for _, every in self._run(x)], 1)

    def _run(self, x: Input) -> list[tuple[Tensor, Tensor]]:
        with exact():
            parts = checked(x, self.info).split(max(1, counted(self.chunk) // self._simulated))
            return [self.program(part) for part in parts]


def has_history(path: Path) -> bool:
    """Whether a `.pt2` was emitted by snnc, and not just exported from an ANN."""
    with open_zip(path) as archive:
        return any(name.endswith(f"/{INFO_FILE}") for name in archive.namelist())


def load_exported(path: Path, chunk: int = CHUNK) -> ExportedNetwork:
    """An emitted `.pt2`.

    Raises:
        LoadError: not one that snnc wrote, or broken.
    """
    program = load_model(path)
    if not isinstance(program, torch.export.ExportedProgram):
        raise LoadError(f"'{path}' is not an exported program.", "a file that 'snnc compile' wrote")
    with open_zip(path) as archive:
        name = next((n for n in archive.namelist() if n.endswith(f"/{INFO_FILE}")), None)
        text = None if name is None else archive.read(name)
    if text is None:
        raise LoadError(
            f"'{path}' is an exported program, but not a spiking network that snnc wrote.",
            "'snnc compile' on it",
        )
    try:
        info = read_history(text, staged=False)
        _check_program(program, info)
    except Fault as fault:
        raise LoadError(f"'{path}' is refused: {fault}.", "'snnc compile' on the original network") from fault
    return ExportedNetwork(program, info, chunk)


def _check_program(program: torch.export.ExportedProgram, info: dict[str, Any]) -> None:
    """The program takes what its history says, and gives two results, the last for each of T steps."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    signature = program.graph_signature
    entries, results = (
        [value for name in names if isinstance(value := values.get(str(name)), Tensor)]
        for names in (signature.user_inputs, signature.user_outputs)
    )
    if len(entries) != 1 or len(results) != 2:
        raise Fault("it does not take one tensor and give two")
    shape = info.get("input_shape")
    if shape is None or list(entries[0].shape[1:]) != shape:
        raise Fault(f"its history says that it takes samples of shape {shape}, and its program does not")
    if results[1].shape[:1] != (info["latency"]["T"],):
        raise Fault(f"its history says T = {info['latency']['T']}, and its program does not")
