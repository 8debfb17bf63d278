"""An exported program, which runs where snnc is not installed.

    logits, by_step = torch.export.load("model.pt2").module()(x)

`logits` `[B, classes]` is the readout after T steps, `by_step` `[T, B, classes]` that after each step. Any
batch size; all `T * B` rows are in memory at once, so the batch size bounds the memory.
"""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from snnc.backends.base import Backend, told
from snnc.errors import WriteError
from snnc.files import atomic_buffer
from snnc.ir.graph import calls, insert, phases, replace, tidy
from snnc.ir.temporal import Decode, Encode
from snnc.networks.exported import INFO_FILE
from snnc.networks.network import Network
from snnc.passes.pipeline import Pipeline


class _Running(nn.Module):
    """A `Decode` that gives the mean after each step."""

    def __init__(self, decode: Decode) -> None:
        super().__init__()
        self.decode = decode

    def forward(self, x: Tensor) -> Tensor:
        return self.decode.running(x)


class _Unrolled(nn.Module):
    """The network as a plain module with two outputs."""

    def __init__(self, graph: fx.GraphModule, read: int) -> None:
        super().__init__()
        self.net, self.read = graph, read  # not "graph": an exported program has that itself

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        folded = self.net(x)
        by_step = folded.reshape(self.read, -1, *folded.shape[1:])
        return by_step[-1], by_step


def unrolled(network: Network) -> nn.Module:
    """The network as a module of torch operations alone: `x` to `(logits, by_step)`."""
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
    return _Unrolled(tidy(graph), network.T).eval()


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
        example = torch.zeros(2, *shape)
        batch = torch.export.Dim("batch", min=1)
        try:
            with torch.no_grad():
                program = torch.export.export(unrolled(network), (example,), dynamic_shapes=({0: batch},))
        except Exception as error:  # torch raises what it likes
            reason = str(error).strip().split("\n", maxsplit=1)[0].rstrip(".")
            raise WriteError(
                f"torch.export does not take the network ({reason}).", "the backend torch or onnx"
            ) from error
        info = {**network.info, "latency": asdict(network.latency)}
        with atomic_buffer(path) as buffer:
            torch.export.save(program, buffer, extra_files={INFO_FILE: json.dumps(info)})
