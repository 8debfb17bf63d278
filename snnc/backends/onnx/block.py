"""What an emitter writes into: a list of ONNX nodes that grows, with the numbers that they need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from torch import Tensor, fx, nn

from snnc.backends.onnx.functions import Library
from snnc.errors import SnncError
from snnc.files.emitted import DOMAIN

SHAPE_HINT = "--input-shape, such as --input-shape 3,32,32, or calibration data"


@dataclass
class Block:
    """Nodes of a graph or of a function, under construction.

    Attributes:
        constant: stores an array under a name: as an initialiser of a graph, or as a node in a function.
        nodes: what was written so far, in order.
        taken: names of values.
        stored: constants by the name that was asked for; asked for again, they are not written again.
    """

    constant: Callable[[Block, str, np.ndarray], None]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    stored: dict[str, str] = field(default_factory=dict)

    def name(self, wanted: str) -> str:
        """A name for a value that no other has."""
        while wanted in self.taken:
            wanted += "_"
        self.taken.add(wanted)
        return wanted

    def const(self, wanted: str, value: Tensor | np.ndarray | Sequence[int] | float) -> str:
        """Numbers, and the name that they got: whole ones as int64, others as float32."""
        if wanted in self.stored:
            return self.stored[wanted]
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        kind = np.int64 if array.dtype.kind in "iu" else np.float32
        return self.typed(wanted, array.astype(kind))

    def typed(self, wanted: str, array: np.ndarray) -> str:
        """Numbers of any type, and the name that they got."""
        if wanted not in self.stored:
            self.stored[wanted] = self.name(wanted)
            self.constant(self, self.stored[wanted], np.ascontiguousarray(array).reshape(array.shape))
        return self.stored[wanted]

    def op(self, kind: str, *inputs: str, out: str, label: str = "", domain: str = "", **attributes: Any) -> str:
        """One node; gives the name of its value, which is `out` or like it. `label` names the node itself."""
        return self.several(kind, *inputs, outs=(out,), label=label, domain=domain, **attributes)[0]

    def several(
        self, kind: str, *inputs: str, outs: Sequence[str], label: str = "", domain: str = "", **attributes: Any
    ) -> list[str]:
        """One node with several values."""
        made = [self.name(out) for out in outs]
        # Names of calls in the graph hold no dot, so those of other nodes do.
        label = label or (made[0] if "." in made[0] else f"{made[0]}.{kind}")
        self.nodes.append(helper.make_node(kind, inputs, made, name=label, domain=domain, **attributes))
        return made

    def call(self, function: str, *inputs: str, out: str, label: str = "", **attributes: Any) -> str:
        """One call of a function of `snnc`."""
        return self.op(function, *inputs, out=out, label=label, domain=DOMAIN, **attributes)


def initialiser(into: list[onnx.TensorProto]) -> Callable[[Block, str, np.ndarray], None]:
    """Constants of a graph."""

    def store(block: Block, name: str, array: np.ndarray) -> None:
        into.append(numpy_helper.from_array(array, name))

    return store


def constant_node(block: Block, name: str, array: np.ndarray) -> None:
    """Constants of a function, which has no initialisers."""
    value = numpy_helper.from_array(array)
    block.nodes.append(helper.make_node("Constant", [], [name], name=name, value=value))


@dataclass(frozen=True)
class EmitSite:
    """Where a module is called.

    Attributes:
        block: what is written into.
        node: the call in the graph.
        out: what the value should be called; values on the way are called after it.
        label: what the node that gives it is called.
        before: shape of one sample that comes in, or None where the shape of the network's input is not known.
        after: shape of one sample that goes out, likewise.
        rank: dimensions of the value that comes in, the batch included; known more often than its shape.
        library: the functions of the file.
    """

    block: Block
    node: fx.Node
    out: str
    label: str
    before: tuple[int, ...] | None
    after: tuple[int, ...] | None
    rank: int | None
    library: Library

    def call(self, function: str, *inputs: str, **attributes: Any) -> str:
        """One call of a function of `snnc`: the result."""
        return self.block.call(function, *inputs, out=self.out, label=self.label, **attributes)

    def op(self, kind: str, *inputs: str, part: str = "", **attributes: Any) -> str:
        """One node: the result, or with `part` a value on the way to it."""
        out = f"{self.out}.{part}" if part else self.out
        return self.block.op(kind, *inputs, out=out, label="" if part else self.label, **attributes)

    def const(self, part: str, value: Any) -> str:
        """Numbers that belong to this module."""
        return self.block.const(f"{self.node.name}.{part}", value)

    def take(self, x: str, index: Tensor, axis: int, part: str) -> str:
        """`x` at `index` along `axis`."""
        return self.op("Gather", x, self.const(f"index{axis}", index), part=part, axis=axis)

    def shape(self, module: nn.Module) -> tuple[int, ...]:
        """Shape of one sample that comes in.

        Raises:
            SnncError: not known.
        """
        if self.before is None:
            raise self._unknown(module)
        return self.before

    def dimensions(self, module: nn.Module) -> int:
        """Dimensions of the value that comes in, the batch included.

        Raises:
            SnncError: not known.
        """
        if self.rank is None:
            raise self._unknown(module)
        return self.rank

    def _unknown(self, module: nn.Module) -> SnncError:
        what = f"'{self.node.name}' ({type(module).__name__})"
        return SnncError(f"The backend 'onnx' needs the shape of the input to write {what}.", SHAPE_HINT)


def each(value: Any, dims: int, kind: Callable[[Any], Any] = int) -> list[Any]:
    """One number for each dimension, where a module may hold one for all."""
    return [kind(v) for v in value] if isinstance(value, (tuple, list)) else [kind(value)] * dims
