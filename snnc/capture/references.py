"""The networks that graphs are compared with, as something to run."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.nn.modules import module as modules

from snnc.capture.comparison import SIZES, Reference, Values
from snnc.capture.copying import copied
from snnc.capture.exported import decomposed, entries
from snnc.errors import Blocker, Unsupported


def refuse_global_hooks() -> None:
    """Refuses to capture while hooks change what every module computes, since those of the graph are modules too.

    Raises:
        Unsupported: there are such hooks.
    """
    if modules._global_forward_hooks or modules._global_forward_pre_hooks:
        why = "is run with forward hooks that are registered for all modules of the process"
        raise Unsupported.of([Blocker("network", "network", why, "remove them (handle.remove()) before snnc runs")])


def of_module(model: nn.Module, sizes: tuple[int, ...] = SIZES) -> Reference:
    """A live module: a copy of it in eval mode, called as its user calls it, on batches of these sizes."""
    model = copied(model)
    floating = (p for p in (*model.parameters(), *model.buffers()) if p.is_floating_point())
    first = next(floating, torch.zeros(()))
    like = torch.empty((), dtype=first.dtype, device=first.device)
    return Reference(model, "the module", like, sizes=sizes, precision=float(torch.finfo(like.dtype).eps), module=model)


def of_program(program: ExportedProgram) -> Reference:
    """An exported program, run by torch."""
    value = entries(program)[0].meta["val"]
    device = next((v.device for v in program.state_dict.values()), value.device)
    like = torch.empty((), dtype=value.dtype, device=device)
    batch = value.shape[0] if isinstance(value.shape[0], int) else None
    precision = float(torch.finfo(value.dtype).eps)
    run = program.module()
    return Reference(
        run, "the exported program", like, batch, precision=precision, values=lambda x: _values(program, x)
    )


def _values(program: ExportedProgram, x: torch.Tensor) -> dict[str, Any]:
    """What each operation gives, by the names that the door for exported programs sees."""
    program = decomposed(program)
    held = {**program.state_dict, **program.constants}
    specs = program.graph_signature.input_specs
    given = entries(program)[0].name
    inputs = [
        x if spec.arg.name == given else held.get(str(spec.target), getattr(spec.arg, "value", None)) for spec in specs
    ]
    values = Values(program.graph_module)
    values.run(*inputs)
    return {node.name: value for node, value in values.found.items()}
