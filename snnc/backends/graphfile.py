"""The graph file, snnc's own format: see `snnc.ir.graphfile`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from snnc.backends.base import Backend
from snnc.files import atomic_buffer
from snnc.ir.graphfile import pack_graph
from snnc.networks.network import Network


@dataclass(frozen=True)
class GraphFile(Backend):
    """Rows and modules as plain data: needs no example input, stays editable, runs no code when it is read."""

    name = "torch"
    suffix = ".snn"
    summary = "graph file, read back by snnc.load; stays editable (default)"

    def emit(self, network: Network, path: Path) -> None:
        content = pack_graph(network.graph, network.stage, network.info)
        with atomic_buffer(path) as buffer:
            torch.save(content, buffer)
