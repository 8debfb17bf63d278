"""Inputs that are whole numbers: places in a table, which an `Embedding` looks up.

Such an input is the same at all steps, and never becomes a current. In a graph its numbers are floats or integers as
they come, below 2^24, which float32 holds.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from snnc.ir import dialect
from snnc.ir.embedding import Embedding
from snnc.ir.graph import calls, entries, module_of
from snnc.structure import Samples, Shape, of, shapes_of

LIMIT = 2**24
# What may stand between such an input and the table, as long as its numbers stay whole.
MOVES = (*(cls for cls in dialect.ROUTES if cls is not nn.Upsample), dialect.Affine, dialect.Add, dialect.Sub)


def places(graph: fx.GraphModule) -> dict[fx.Node, int]:
    """The inputs that a table is read by, each with the number of rows of the smallest one."""
    found: dict[fx.Node, int] = {}
    for node, module in calls(graph, Embedding):
        pending = list(node.all_input_nodes)
        while pending:
            source = pending.pop()
            if source.op == "placeholder":
                found[source] = min(len(module.weight), found.get(source, LIMIT))
            pending += source.all_input_nodes
    return found


def misread(graph: fx.GraphModule) -> tuple[fx.Node, str] | None:
    """A node at which whole numbers would not stay what they are, and why; None where there is none."""
    pending = list(places(graph))
    seen = set(pending)
    for node, module in calls(graph, Embedding):
        if not any(source in seen for source in _back(node)):
            return node, f"({type(module).__name__}) is read by what is computed, and not by an input"
    while pending:
        source = pending.pop()
        for user in source.users:
            module = module_of(graph, user) if user.op == "call_module" else None
            if isinstance(module, Embedding) or user in seen:
                continue
            if not isinstance(module, MOVES) or not _whole(module):
                what = "is an output" if module is None else f"is read by '{user.name}' ({type(module).__name__})"
                return source, f"{what}, and holds places in a table (an Embedding reads it)"
            seen.add(user)
            pending.append(user)
    return None


def _back(node: fx.Node) -> set[fx.Node]:
    """The inputs behind a node."""
    pending, found = [node], set()
    while pending:
        one = pending.pop()
        if one.op == "placeholder":
            found.add(one)
        pending += one.all_input_nodes
    return found


def _whole(module: nn.Module) -> bool:
    """Whether a module gives whole numbers for whole ones."""
    numbers = module.buffers() if isinstance(module, dialect.Affine) else ()
    own = all(bool((value == value.round()).all()) for value in numbers)
    return own and not (isinstance(module, dialect.Pad) and module.value != round(module.value))


def noise(graph: fx.GraphModule, samples: int, shape: Shape, seed: int = 0) -> Samples:
    """Random samples that a graph takes: normal numbers, and places in the tables that it has."""
    chance, table = torch.Generator().manual_seed(seed), places(graph)
    found: list[Tensor] = []
    nodes = entries(graph)
    for node, one in zip(nodes, shapes_of(shape, len(nodes)), strict=True):
        size = (samples, *(one or ()))
        if node in table:
            found.append(torch.randint(0, table[node], size, generator=chance))
        else:
            found.append(torch.randn(size, generator=chance, device="cpu"))
    return of(found)
