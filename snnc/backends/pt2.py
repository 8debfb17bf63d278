"""An exported program, which runs where snnc is not installed.

    logits, by_step = torch.export.load("model.pt2").module()(x)

`logits` `[B, classes]` is the readout after T steps, `by_step` `[T, B, classes]` that after each step. Of several
outputs both are the containers that the network returns. Several inputs are passed in their order. Any batch size; all
`T * B` rows are in memory at once, so the batch size bounds the memory.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.backends.base import Backend, told
from snnc.errors import WriteError
from snnc.files import atomic_buffer
from snnc.ir.graph import calls, insert, output, phases, replace, result, tidy
from snnc.ir.temporal import Decode, Encode
from snnc.networks.exported import INFO_FILE
from snnc.networks.network import Network
from snnc.passes.pipeline import Pipeline
from snnc.structure import mapped, shapes_of


class _Running(nn.Module):
    """A `Decode` that gives the mean after each step."""

    def __init__(self, decode: Decode) -> None:
        super().__init__()
        self.decode = decode

    def forward(self, x: Tensor) -> Tensor:
        return self.decode.running(x)


class _Unfold(nn.Module):
    """A readout that is folded into the batch, as one for each step."""

    def __init__(self, read: int) -> None:
        super().__init__()
        self.read = read

    def forward(self, x: Tensor) -> Tensor:
        # Of a readout that is a view torch.export would ask for batches of one size alone; a copy has no such past.
        return x.clone(memory_format=torch.contiguous_format).reshape(self.read, -1, *x.shape[1:])


class _Last(nn.Module):
    """The readout after the last step."""

    def forward(self, x: Tensor) -> Tensor:
        return x[-1]


def unrolled(network: Network) -> nn.Module:
    """The network as a module of torch operations alone: its inputs to `(logits, by_step)`."""
    graph = copy.deepcopy(network.graph)
    phase = phases(graph)
    for node in list(graph.graph.nodes):
        late = [user for user in node.users if phase[node] == "before" and phase[user] == "after"]
        if late:  # running readouts are folded into the batch, so what they meet is repeated
            repeat = insert(graph, f"{node.name}_repeat", Encode(network.T), node)
            for user in late:
                user.replace_input_with(node, repeat)
    for node, module in calls(graph, Decode):
        replace(graph, node, _Running(module))
    for value in (*graph.parameters(), *graph.buffers()):
        # torch writes the memory behind a tensor, and would have to guess it where that is another one's as well.
        value.data = value.detach().clone(memory_format=torch.contiguous_format)
    end = output(graph)
    by_step = {node: insert(graph, f"{node.name}_by_step", _Unfold(network.T), node) for node in end.all_input_nodes}
    last = {node: insert(graph, f"{node.name}_last", _Last(), node) for node in by_step.values()}
    tree = result(graph)
    end.args = ((mapped(lambda node: last[by_step[node]], tree), mapped(lambda node: by_step[node], tree)),)
    return _named(tidy(graph), network.inputs).eval()


def _named(graph: fx.GraphModule, names: Sequence[str]) -> nn.Module:
    """A graph as a plain module, since torch.export gives the containers of a graph as kinds of its own."""
    part = "net"  # not "graph", which an exported program has itself; nor may torch find an input of that name
    while part in names:
        part += "_"

    class Unrolled(nn.Module):
        def forward(self, *inputs: Tensor, **named: Tensor) -> Any:
            return mapped(lambda value: value, getattr(self, part)(*inputs, **named))

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind) for name in ("self", *names)]
    Unrolled.forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    made = Unrolled()
    made.add_module(part, graph)
    return made


@dataclass(frozen=True)
class ExportedProgram(Backend):
    """`torch.export` of the unrolled network, with its history as a JSON member of the archive."""

    name = "pt2"
    suffix = ".pt2"
    summary = "exported program: runs with torch alone, where snnc is not installed"

    def accept(self, pipeline: Pipeline, T: int, graph: fx.GraphModule, shape: tuple[int, ...] | None) -> None:
        told(shape, self.name)

    def emit(self, network: Network, path: Path) -> None:
        shape = told(network.info.get("input_shape"), self.name)
        example = tuple(
            torch.zeros(2, *(one or ()), dtype=torch.int64 if entry.whole else torch.float32)
            for entry, one in zip(network.entries, shapes_of(shape, len(network.entries)), strict=True)
        )
        batch = torch.export.Dim("batch", min=1)
        try:
            with torch.no_grad():
                program = torch.export.export(unrolled(network), example, dynamic_shapes=({0: batch},) * len(example))
        except Exception as error:  # torch raises what it likes
            reason = str(error).strip().split("\n", maxsplit=1)[0].rstrip(".")
            raise WriteError(
                f"torch.export does not take the network ({reason}).", "the backend torch or onnx"
            ) from error
        info = {**network.info, "latency": asdict(network.latency)}
        with atomic_buffer(path) as buffer:
            torch.export.save(program, buffer, extra_files={INFO_FILE: json.dumps(info)})
