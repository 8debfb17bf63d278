"""A network that snnc has taken apart and not yet made spiking: a graph of an earlier stage, with its history."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx, nn

from snnc.errors import LoadError
from snnc.ir.graph import TIMED, Stage, validate
from snnc.ir.graphfile import unpack_graph
from snnc.markup import records_table


class Staged(nn.Module):
    """An ordinary `nn.Module` around a graph of stage ANN, FOLDED or QUANTIZED. `snnc.compile` takes it.

    What such a graph holds a graph of stage ANN may hold too, so every recipe runs on it from its first pass; a pass
    that finds nothing left to do does nothing, and trained bounds are kept.

    Attributes:
        graph: the graph; `graph(x)` is the network's output.
        stage: its stage.
        info: how it was made, as plain data: "input_shape" where it is known, "tune" where it was trained.
    """

    def __init__(self, graph: fx.GraphModule, stage: Stage, info: dict[str, Any]) -> None:
        super().__init__()
        validate(graph, stage)
        self.graph, self.stage, self.info = graph, stage, info
        self.eval()

    def forward(self, *x: Tensor, **named: Tensor) -> Any:
        """`[B, ...]` to `[B, classes]`; of several inputs and outputs what the network took and gave."""
        return self.graph(*x, **named)

    def _repr_html_(self) -> str:
        title = f"Network of stage {self.stage}: recipe {self.info.get('recipe', 'unknown')}"
        return records_table(title, self.info.get("records", []))

    @property
    def input_shape(self) -> tuple[Any, ...] | None:
        """Shape of one sample, where it is known; of several inputs one each."""
        shape = self.info.get("input_shape")
        return tuple(tuple(one) if isinstance(one, list) else one for one in shape) if shape else None


def staged(content: Any, where: str) -> Staged:
    """The network in the content of a graph file.

    Raises:
        LoadError: the content does not describe a graph, or a spiking one.
    """
    graph, stage, info = unpack_graph(content, where)
    if stage in TIMED:
        raise LoadError(f"{where} is a spiking network already.", "the network it was made from")
    return Staged(graph, stage, info)
