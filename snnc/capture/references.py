"""The networks that graphs are compared with, as something to run."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.nn.modules import module as modules
from torch.utils._pytree import tree_unflatten

from snnc.capture.calling import Calling
from snnc.capture.comparison import SIZES, Reference, Values
from snnc.capture.copying import copied
from snnc.capture.exported import decomposed, entries, like_of
from snnc.errors import Blocker, Unsupported
from snnc.structure import Samples, each


def refuse_global_hooks() -> None:
    """Refuses to capture while hooks change what every module computes, since those of the graph are modules too.

    Raises:
        Unsupported: there are such hooks.
    """
    if modules._global_forward_hooks or modules._global_forward_pre_hooks:
        why = "is run with forward hooks that are registered for all modules of the process"
        raise Unsupported.of([Blocker("network", "network", why, "remove them (handle.remove()) before snnc runs")])


def of_module(model: nn.Module, how: Calling, sizes: tuple[int, ...] = SIZES) -> Reference:
    """A live module: a copy of it in eval mode, called as its user calls it, on batches of these sizes."""
    model = copied(model)
    floating = (p for p in (*model.parameters(), *model.buffers()) if p.is_floating_point())
    first = next(floating, torch.zeros(()))
    like = torch.empty((), dtype=first.dtype, device=first.device)
    precision = float(torch.finfo(like.dtype).eps)
    return Reference(
        lambda x: how.call(model, each(x)), "the module", like, sizes=sizes, precision=precision, module=model
    )


def of_program(program: ExportedProgram) -> Reference:
    """An exported program, run by torch."""
    given, like, module = entries(program), like_of(program), program.module()
    names = {node.name for node in given}
    specs = [spec.arg for spec in program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT]

    def run(x: Samples) -> Any:
        values = iter(each(x))
        found = [next(values) if spec.name in names else getattr(spec, "value", None) for spec in specs]
        args, kwargs = tree_unflatten(found, program.call_spec.in_spec)
        return module(*args, **kwargs)

    first = given[0].meta["val"].shape[0]
    batch = first if isinstance(first, int) else None
    precision = float(torch.finfo(like.dtype).eps)
    return Reference(
        run, "the exported program", like, batch, precision=precision, values=lambda x: _values(program, x)
    )


def _values(program: ExportedProgram, x: Samples) -> dict[str, Any]:
    """What each operation gives, by the names that the door for exported programs sees."""
    program = decomposed(program)
    held = {**program.state_dict, **program.constants}
    given = dict(zip((node.name for node in entries(program)), each(x), strict=True))
    specs = program.graph_signature.input_specs
    inputs = [
        given[spec.arg.name] if spec.arg.name in given else held.get(str(spec.target), getattr(spec.arg, "value", None))
        for spec in specs
    ]
    values = Values(program.graph_module)
    values.run(*inputs)
    return {node.name: value for node, value in values.found.items()}
