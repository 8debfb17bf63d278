"""A spiking network that was written as an exported program, read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snnc.errors import LoadError
from snnc.files import load_model
from snnc.files.history import Fault, read_history
from snnc.files.sniffing import open_zip
from snnc.networks.network import CHUNK, Latency, checked
from snnc.networks.onnx import OnnxNetwork
from snnc.runtime.exact import exact

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
        self.chunk = chunk

    @property
    def T(self) -> int:
        """Steps that are read out."""
        return self.latency.T

    def forward(self, x: Tensor) -> Tensor:
        """Output after T steps: `[B, ...]` to `[B, classes]`."""
        return torch.cat([one for one, _ in self._run(x)])

    def readout(self, x: Tensor) -> Tensor:
        """Output after each step: `[B, ...]` to `[T, B, classes]`."""
        return torch.cat([every for _, every in self._run(x)], 1)

    def _run(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        parts = checked(x, self.info).split(max(1, self.chunk // self.latency.simulated))
        with exact(x.device):
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
    return Portable(program, info, chunk)


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
