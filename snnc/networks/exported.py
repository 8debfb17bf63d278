"""A spiking network that was written as an exported program, read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export.graph_signature import OutputKind, TensorArgument
from torch.utils._pytree import tree_unflatten

from snnc.defaults import CHUNK
from snnc.errors import LoadError
from snnc.files import load_model
from snnc.files.history import Fault, read_history
from snnc.files.sniffing import open_zip
from snnc.ir.graph import Stage
from snnc.networks.base import SpikingNetwork, counted
from snnc.networks.chosen import OneOutput
from snnc.networks.inputs import Input, bound, checked, told_entries
from snnc.runtime.runner import Observer
from snnc.steady import exact
from snnc.structure import OUTPUT, Tree, each, mapped, names_in, several_shapes, shapes_of, titled

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

    def forward(self, *x: Input, **named: Input) -> Any:
        """Output after T steps: `[B, ...]` to `[B, classes]`; of several outputs each."""
        return mapped(lambda *parts: torch.cat(parts), *(one for one, _ in self._run(x, named)))

    def readout(self, *x: Input, observe: Observer | None = None, **named: Input) -> Any:
        if observe is not None:
            self.require_inside()
        return mapped(lambda *parts: torch.cat(parts, 1), *(every for _, every in self._run(x, named)))

    def _alone(self, name: str) -> SpikingNetwork:
        return OneOutput(self, name)

    def _run(self, x: Any, named: Any) -> list[tuple[Tree, Tree]]:
        with exact():
            given = checked(self.entries, bound(self.entries, x, named), self.info)
            parts = given.split(max(1, counted(self.chunk) // self._simulated))
            return [self.program(*each(part)) for part in parts]


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
    """The program takes and returns what its history says, the second half of it for each of T steps."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    signature = program.graph_signature
    entries, results = (
        [value for name in names if isinstance(value := values.get(str(name)), Tensor)]
        for names in (signature.user_inputs, signature.user_outputs)
    )
    known, structure = told_entries(info), info.get("outputs") or OUTPUT
    many = len(names_in(structure))
    if len(entries) != len(known) or len(results) != 2 * many:
        raise Fault(f"it does not take {_tensors(len(known))} and give {_tensors(2 * many)}")
    shape = info.get("input_shape")
    shapes = shapes_of(shape, len(known)) if _fits(shape, len(known)) else [None]
    if any(one is None or tuple(entry.shape[1:]) != one for entry, one in zip(entries, shapes, strict=False)):
        raise Fault(f"its history says that it takes samples of shape {shape}, and its program does not")
    if any(entry.dtype.is_floating_point == one.whole for entry, one in zip(entries, known, strict=True)):
        raise Fault("its history says which inputs are whole numbers, and its program has others")
    if any(result.shape[:1] != (info["latency"]["T"],) for result in results[many:]):
        raise Fault(f"its history says T = {info['latency']['T']}, and its program does not")
    specs = [spec.arg for spec in signature.output_specs if spec.kind is OutputKind.USER_OUTPUT]
    all_of_it = [
        values.get(one.name) if isinstance(one, TensorArgument) else getattr(one, "value", None) for one in specs
    ]
    given = tree_unflatten(all_of_it, program.call_spec.out_spec)
    if info.get("outputs") and (not isinstance(given, tuple) or len(given) != 2 or titled(given[0]) != structure):
        raise Fault("its history says what it returns, and its program returns something else")


def _fits(shape: Any, many: int) -> bool:
    return bool(shape) and (len(shape) if several_shapes(shape) else 1) == many


def _tensors(count: int) -> str:
    return "one tensor" if count == 1 else f"{'two' if count == 2 else count} tensors"
