"""Shapes and ranks of values, from the modules alone: nothing is computed, and no time steps are run.

A shape is that of one sample; a rank counts the batch too. If no shape is known, ranks are found as far as possible.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.errors import SnncError
from snnc.ir import dialect
from snnc.ir.curved import BENT, Greatest, Least
from snnc.ir.embedding import Embedding
from snnc.ir.graph import calls, entries, module_of, numbers
from snnc.ir.neurons import Neuron
from snnc.ir.rows import Refused, Table
from snnc.ir.temporal import Decode, Encode, FrameMean, Frames, Restart, StepCurrent, Telescoped, TemporalMax
from snnc.structure import shapes_of

Shape = tuple[int, ...]
Ranks = Sequence[int | None]

PROBE = 2  # samples in a batch that is only run for its shape
MOST_VALUES = 2**26  # numbers in one sample of any value


def _same(module: Any, ranks: Ranks) -> int | None:
    return next((rank for rank in ranks if rank is not None), None)


def _flattened(module: nn.Flatten, ranks: Ranks) -> int | None:
    if module.start_dim >= 0 and module.end_dim == -1:
        return int(module.start_dim) + 1
    found = _same(module, ranks)
    return found and found - (module.end_dim % found - module.start_dim % found)


def _averaged(module: Any, ranks: Ranks) -> int | None:
    found = _same(module, ranks)
    return found if module.keepdim else found and found - len(module.dims)


def _itself(module: nn.Module) -> nn.Module | None:
    return module


class _OneFrame(nn.Module):
    """The first frame of a sample."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0]


@dataclass(frozen=True)
class Form:
    """How a module's output is shaped.

    Attributes:
        rank: of the output, by the module and the ranks of its inputs.
        still: the module that shapes one step as this one does; None where a step keeps the shape of the first input.
    """

    rank: Callable[[Any, Ranks], int | None] = _same
    still: Callable[[Any], nn.Module | None] = _itself


def _map(rank: int) -> Form:
    """Of modules for maps of one number of dimensions."""
    return Form(lambda module, ranks: rank)


ALIKE = Form()  # has the rank of its input
IN_TIME = Form(still=lambda module: None)

# Further modules: those of capture enter themselves.
SHAPES: Table[Form] = Table(
    "shapes",
    __name__,
    {
        (nn.Conv1d, nn.ConvTranspose1d): _map(3),
        (nn.AvgPool1d, nn.AdaptiveAvgPool1d, nn.MaxPool1d, nn.AdaptiveMaxPool1d): _map(3),
        (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, dialect.OwnSizeAvgPool2d): _map(4),
        (nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.MaxPool2d, nn.AdaptiveMaxPool2d): _map(4),
        (nn.Conv3d, nn.ConvTranspose3d, nn.BatchNorm3d): _map(5),
        (nn.AvgPool3d, nn.AdaptiveAvgPool3d, nn.MaxPool3d, nn.AdaptiveMaxPool3d): _map(5),
        (nn.Linear, nn.BatchNorm1d, dialect.Add, dialect.Sub, dialect.Affine, dialect.Grid): ALIKE,
        (dialect.Concat, dialect.Pad, dialect.Slice, dialect.Take, dialect.Mix): ALIKE,
        (nn.Upsample, nn.PixelShuffle): ALIKE,
        (*dialect.ACTIVATIONS, dialect.ClipQuant, dialect.SignedQuant, *dialect.HEADS): ALIKE,
        BENT: ALIKE,
        (Greatest, Least): Form(lambda module, ranks: _averaged(module, ranks)),
        Embedding: Form(lambda module, ranks: None if ranks[0] is None else ranks[0] + 1),
        dialect.Reshape: Form(lambda module, ranks: 1 + len(module.shape)),
        dialect.Permute: Form(lambda module, ranks: len(module.dims)),
        nn.Flatten: Form(_flattened),
        dialect.Mean: Form(_averaged),
        TemporalMax: Form(lambda module, ranks: rank_after(module.pool, ranks), lambda module: module.pool),
        Telescoped: Form(lambda module, ranks: rank_after(module.body, ranks), lambda module: module.body),
        Restart: Form(
            lambda module, ranks: rank_after(module.body, ranks), lambda module: SHAPES(module.body).still(module.body)
        ),
        (Encode, Decode, StepCurrent, Neuron): IN_TIME,
        Frames: Form(lambda module, ranks: ranks[0] and ranks[0] - 1, lambda module: _OneFrame()),
    },
)


ONE_TYPE = "keep all of it in one floating-point type"


def shape_after(module: nn.Module, shapes: Sequence[Shape], like: Tensor) -> Shape:
    """Shape of a module's output. Nothing is computed and nothing allocated, whatever a file claims.

    Args:
        module: of the dialect.
        shapes: of its inputs.
        like: has the type of its inputs.

    Raises:
        Refused: the module does not take samples of such shapes, mixes them, or makes too large ones.
        MissingRow: nothing says how it shapes them.
    """
    still = SHAPES(module).still(module)
    if still is None:
        return tuple(shapes[0])
    empty = [torch.empty((PROBE, *shape), dtype=like.dtype, device="meta") for shape in shapes]
    state = {name: torch.empty_like(value, device="meta") for name, value in still.state_dict().items()}
    try:
        with torch.no_grad():
            after = torch.func.functional_call(still, state, tuple(empty)).shape
    except (RuntimeError, ValueError, IndexError, TypeError, ArithmeticError) as error:
        line = str(error).split("\n", maxsplit=1)[0].strip().rstrip(".")
        sizes = ", ".join(map(str, shapes))
        kinds = {value.dtype for value in state.values() if value.is_floating_point()}
        if kinds - {like.dtype}:
            raise Refused(f"holds numbers of another type than {like.dtype} ({line})", ONE_TYPE) from error
        raise Refused(
            f"does not take samples of shape {sizes} ({line})",
            "check the data (channels stand first), or --input-shape",
        ) from error
    if after[:1] != (PROBE,):
        raise Refused("mixes samples", "keep the batch as the first dimension")
    if (count := math.prod(after[1:])) > MOST_VALUES:
        raise Refused(f"makes a sample of {count} values", "check its sizes: no network needs so many")
    return tuple(after[1:])


def rank_after(module: nn.Module, ranks: Ranks) -> int | None:
    """Rank of a module's output, where its class or the ranks of its inputs tell it."""
    return SHAPES(module).rank(module, ranks)


class Shapes:
    """Shapes and ranks of a graph's values, found as they are asked for, since the graph may change meanwhile.

    Args:
        module: what a node calls.
        entries: the inputs.
        shape: of one sample, where that is known; of several inputs one shape each.
        rank: of the one input, where only that is known.
        like: has the type of the values.
    """

    def __init__(
        self,
        module: Callable[[fx.Node], nn.Module],
        entries: Sequence[fx.Node],
        shape: Sequence[Any] | None,
        rank: int | None = None,
        like: Tensor | None = None,
    ) -> None:
        self._module, self._like = module, torch.zeros(()) if like is None else like
        self._found: dict[fx.Node, tuple[Shape | None, int | None]] = {}
        for entry, one in zip(entries, shapes_of(shape, len(entries)), strict=True):
            self.give(entry, one, rank if len(entries) == 1 else None)

    @classmethod
    def of(cls, graph: fx.GraphModule, shape: Sequence[Any] | None, rank: int | None = None) -> Shapes:
        """Those of a whole graph."""
        return cls(lambda node: module_of(graph, node), entries(graph), shape, rank, numbers(graph))

    def shape(self, node: fx.Node) -> Shape | None:
        """Shape of one sample of a node's value, where it is known.

        Raises:
            Refused: a module does not take what comes; `node` tells which.
        """
        return self._find(node)[0]

    def rank(self, node: fx.Node) -> int | None:
        """Dimensions of a node's value, the batch included, where they are known."""
        return self._find(node)[1]

    def give(self, node: fx.Node, shape: Shape | None, rank: int | None) -> None:
        """Sets the value of a node, instead of the result of its module."""
        self._found[node] = shape, rank if shape is None else 1 + len(shape)

    def forget(self, node: fx.Node) -> None:
        """Has the shape of a node found anew, which has got another module."""
        self._found.pop(node, None)

    def _find(self, node: fx.Node) -> tuple[Shape | None, int | None]:
        pending = [node]
        while node not in self._found:  # a long way back would be too deep for recursion
            if missing := [source for source in pending[-1].all_input_nodes if source not in self._found]:
                pending += missing
            else:
                last = pending.pop()
                self._found[last] = self._after(last)
        return self._found[node]

    def _after(self, node: fx.Node) -> tuple[Shape | None, int | None]:
        inputs = [self._found[source] for source in node.args if isinstance(source, fx.Node)]
        shapes = [shape for shape, _ in inputs if shape is not None]
        module = self._module(node)
        try:
            if len(shapes) < len(inputs):
                return None, rank_after(module, [rank for _, rank in inputs])
            shape = shape_after(module, shapes, self._like)
        except Refused as refused:
            refused.node = node
            raise
        return shape, 1 + len(shape)


def every_shape(graph: fx.GraphModule, shape: Sequence[Any]) -> dict[fx.Node, Shape]:
    """The shape of every value of a graph, for samples of one shape, see `snnc.structure.shape_of`.

    Raises:
        SnncError: the graph does not take it.
    """
    shapes = Shapes.of(graph, shape)
    try:
        return {node: shapes.shape(node) or () for node in graph.graph.nodes if node.op != "output"}
    except Refused as refused:
        at = refused.node
        where = "" if at is None else f"'{at.name}' ({type(module_of(graph, at)).__name__})"
        raise SnncError(f"{where} {refused.why}.", refused.hint) from refused


def guess_input(graph: fx.GraphModule) -> Tensor | None:
    """Random input of some shape that the graph accepts, or None.

    Good for checking that two graphs are the same function; never for deciding what a network means.
    """
    first = next((m for _, m in calls(graph, *dialect.WEIGHTED, *dialect.BATCHNORMS)), None)
    if first is None or len(entries(graph)) > 1:
        return None
    channels = int(getattr(first, "in_channels", 0) or getattr(first, "num_features", 0) or first.in_features)
    dims = next((d for d in (1, 2, 3) if type(first).__name__.endswith(f"{d}d")), 0)
    T = next((module.T for _, module in calls(graph, FrameMean, Frames)), None)
    front = () if T is None else (T,)
    sizes = itertools.chain([()] if isinstance(first, nn.BatchNorm1d) else [], _likely_sizes(dims))
    for size in sizes:
        try:
            every_shape(graph, (*front, channels, *size))
        except SnncError:
            continue
        return torch.randn((PROBE, *front, channels, *size), generator=torch.Generator().manual_seed(0))
    return None


def _likely_sizes(dims: int) -> Iterator[tuple[int, ...]]:
    """Sizes of images, of sequences, and of spectrograms, the usual ones first."""
    squares = (32, 28, 8, 16, 64, 224, 96, 128, 48, 56, 112, 160, 192, 256, 299, 384, 512, 100, 1000)
    yield from ((size,) * dims for size in squares[: 1 if dims == 0 else None])
    if dims in (1, 2):
        yield from ((size,) * dims for size in range(1, 128))
    if dims == 2:
        sides = (1, 2, 3, 4, 5, 8, 10, 12, 13, 16, 20, 24, 25, 32, 40, 49, 50, 61, 64, 80, 98, 99, 100, 101, 128, 256)
        yield from itertools.product(sides, sides)
