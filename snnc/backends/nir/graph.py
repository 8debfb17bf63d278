"""A spiking graph, one step of it, as nodes and edges of NIR.

Every module becomes nodes that all readers know: `Affine`, `Conv1d`, `Conv2d`, `AvgPool2d`, `Flatten`, `IF`. Where NIR
has no node (joining, slicing, padding, factors) a fixed kernel of zeros and ones does the same. Several edges into one
node add up, so a sum needs no node of its own.

Shapes are those of one sample, `[C, H, W]`, `[C, N]` or `[F]`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor, fx

from snnc.backends.squared import Axis, square
from snnc.errors import Blocker
from snnc.ir import dialect
from snnc.ir.graph import module_of
from snnc.ir.rows import Refused

Shape = tuple[int, ...]
Rule = Callable[["NirLowering", fx.Node, Any], "NirValue"]


@dataclass(frozen=True)
class NirValue:
    """What a node of the graph gives: the sum of what some NIR nodes give."""

    sources: tuple[str, ...]
    shape: Shape


class NirLowering:
    """Builds the NIR nodes and edges of a graph whose spikes have height 1 and whose encoders are gone.

    Attributes:
        rule: how each kind of module is lowered.
        nodes, edges: of the NIR graph.
        blockers: what could not be said.
        grid: how the reader has to round its input, as metadata; empty where it need not.
        sums: whether pools that add up are `SumPool2d`, where the reader computes these exactly; else kernels of ones.
        total: whether an `I` node has to stand behind the readout, where the reader gives out neurons alone.
        rounded: neurons whose thresholds moved into weights and rounded these.
    """

    def __init__(
        self,
        graph: fx.GraphModule,
        shapes: dict[fx.Node, Shape],
        rule: Callable[[Any], Rule],
        sums: bool = False,
        total: bool = False,
        rounded: frozenset[str] = frozenset(),
    ) -> None:
        self.graph, self.shapes, self.rule = graph, shapes, rule
        self.sums, self.total, self.rounded = sums, total, rounded
        self.nodes: dict[str, nir.NIRNode] = {}
        self.edges: list[tuple[str, str]] = []
        self.blockers: list[Blocker] = []
        self.grid: dict[str, Any] = {}
        self.values: dict[fx.Node, NirValue] = {}

    def run(self) -> None:
        """Lowers every node."""
        for node in self.graph.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self.put("input", nir.Input(np.array(self.shapes[node])), (), self.shapes[node])
            elif node.op == "output":
                self.finish(self.values[node.all_input_nodes[0]])
            elif not self.merged(node):
                self.values[node] = self.lowered(node)

    def lowered(self, node: fx.Node) -> NirValue:
        """The value of one call; where it is refused, a value to go on with."""
        module = module_of(self.graph, node)
        try:
            return self.rule(module)(self, node, module)
        except Refused as refusal:
            self.blockers.append(Blocker(node.name, type(module).__name__, refusal.why, refusal.hint))
            return NirValue(("input",), self.shapes[node])

    def merged(self, node: fx.Node) -> bool:
        """Whether this is padding of a map that the convolutions behind it take."""
        pads = self.padding(node)
        users = [module_of(self.graph, user) if user.op == "call_module" else None for user in node.users]
        inner = pads is not None and len(pads) < len(self.shapes[node])
        return inner and all(isinstance(user, dialect.CONVOLUTIONS) for user in users)

    def padding(self, node: fx.Node) -> list[tuple[int, int]] | None:
        """Zeros that a node puts before and after each of the last dimensions, where that is what it does."""
        module = module_of(self.graph, node) if node.op == "call_module" else None
        if not isinstance(module, dialect.Pad) or module.mode != "constant" or module.value != 0:
            return None
        return list(zip(module.pads[::2], module.pads[1::2], strict=True))[::-1]

    def put(self, name: str, node: nir.NIRNode, sources: tuple[str, ...], shape: Shape) -> NirValue:
        """One NIR node that reads `sources`."""
        free = name
        while free in self.nodes or (free in ("input", "output") and not isinstance(node, nir.Input | nir.Output)):
            free = f"{free}_"
        self.nodes[free] = node
        self.edges += [(source, free) for source in sources]
        return NirValue((free,), shape)

    def finish(self, value: NirValue) -> None:
        """The output, which reads one node alone."""
        if len(value.sources) > 1:
            value = self.mixed("readout", value, torch.eye(value.shape[0]))
        if self.total and not isinstance(self.nodes[value.sources[0]], nir.IF):
            value = self.put("total", nir.I(np.ones(value.shape, np.float32)), value.sources, value.shape)
        self.put("output", nir.Output(np.array(value.shape)), value.sources, value.shape)

    def mixed(self, name: str, value: NirValue, matrix: Tensor, shift: Tensor | None = None) -> NirValue:
        """Channels mixed by a matrix `[out, in]`, with `shift` `[out]`, at each place of a map alike."""
        if len(value.shape) > 1:
            axes = tuple(Axis(size, size) for size in value.shape[1:])
            return self.convolved(name, value, matrix.reshape(*matrix.shape, *[1] * len(axes)), axes, shift)
        bias = torch.zeros(len(matrix)) if shift is None else shift
        return self.put(name, nir.Affine(array(matrix), array(bias)), value.sources, (len(matrix),))

    def convolved(
        self, name: str, value: NirValue, weight: Tensor, axes: tuple[Axis, ...], bias: Tensor | None
    ) -> NirValue:
        """A convolution of one group."""
        found = square(weight.detach(), axes)
        if found is None:
            raise Refused(
                "no square kernel with the same padding on both sides, which is what NIR has, reads the same",
                "padding on both sides alike, and a square kernel",
            )
        kernel = array(found.weight)
        offset = array(torch.zeros(len(weight)) if bias is None else bias)
        sizes = tuple(axis.size for axis in axes)
        if len(axes) == 1:
            (stride,), (padding,), (dilation,) = found.stride, found.padding, found.dilation
            node = nir.Conv1d(sizes[0], kernel, stride, padding, dilation, 1, offset)
        else:
            node = nir.Conv2d(sizes, kernel, found.stride, found.padding, found.dilation, 1, offset)
        return self.put(name, node, value.sources, (len(weight), *(axis.out for axis in axes)))

    def placed(self, name: str, value: NirValue, channels: range, axes: tuple[Axis, ...]) -> NirValue:
        """Parts of a value at other places: output channel `i` is channel `channels[i]`, or 0 where there is none."""
        matrix = torch.zeros(len(channels), value.shape[0])
        for row, channel in enumerate(channels):
            if 0 <= channel < value.shape[0]:
                matrix[row, channel] = 1
        if not axes:
            return self.mixed(name, value, matrix)
        return self.convolved(name, value, matrix.reshape(*matrix.shape, *[1] * len(axes)), axes, None)

    def added(self, name: str, *values: NirValue) -> NirValue:
        """The sum. NIR cannot have two edges between the same nodes, so a value that is added twice is copied."""
        sources: list[str] = []
        for value in values:
            for source in value.sources:
                if source in sources:
                    one = NirValue((source,), value.shape)
                    (source,) = self.mixed(f"{name}_again", one, torch.eye(value.shape[0])).sources
                sources.append(source)
        return NirValue(tuple(sources), values[0].shape)


def array(values: Tensor) -> np.ndarray[Any, Any]:
    """Numbers as NIR takes them: float32."""
    return values.detach().to(torch.float32).contiguous().numpy()
