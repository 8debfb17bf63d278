"""From a traced graph, whatever its dialect, to a graph of snnc's own modules.

Each node's operation has a name (`relu`, `add`, `conv2d` ...), the same for a module, a function, a method, an operator
and an ATen op; `operations` says what that name becomes, and `Lowering` holds what has been built. An operation that
cannot be converted is noted as a `Blocker`, and the walk goes on, so that all blockers are found at once.

Values on the way are nodes of the new graph (data), tensors and Python values (constants, folded as they are met), and
the sizes of `values`. The batch has no number here: an operation that would need one mixes samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from torch import Tensor, fx, nn

from snnc.capture.bounds import INTERVALS, anything
from snnc.capture.ranks import check_rank
from snnc.capture.refusals import OTHER, Reason, key
from snnc.capture.values import (
    LOST,
    ORIGIN,
    SHAPE_HINT,
    Batch,
    Dim,
    Refused,
    Sizes,
    Unknown,
    author_line,
)
from snnc.errors import Blocker
from snnc.ir import dialect
from snnc.ir.graph import GraphBuilder, flat
from snnc.ir.shapes import ALIKE, SHAPES, Shapes
from snnc.ir.whole import MOVES

Passes = Callable[[fx.Node, "nn.Module | None", Any, Any], bool]


@dataclass
class Cell:
    """What a tensor of the author's holds. In-place operations change it for every name the tensor has.

    Attributes:
        value: as of now.
        storage: alike for tensors that share memory.
        stale: an in-place operation on another view has changed it in a way that is not followed.
    """

    value: Any
    storage: object
    stale: bool = False


class StandIn(nn.Module):
    """Stands for the result of a refused operation while the rest is looked at. Only during capture.

    Args:
        shape: of one sample, or None.
        reason: why the operation is refused; None for a second input, and for several outputs.
    """

    def __init__(self, shape: tuple[int, ...] | None, reason: Reason | None) -> None:
        super().__init__()
        self.shape, self.reason = shape, reason

    def forward(self, *x: Tensor) -> Tensor:
        """A value of that shape, of as many samples."""
        return x[0].new_zeros((x[0].shape[0], *(self.shape or ())))


SHAPES.add(StandIn, ALIKE)
INTERVALS.add(StandIn, anything)


@dataclass
class Site:
    """One node on its way: what a spelling needs to know, and how it emits modules.

    Attributes:
        base: path of the `torch.nn` module that the node calls or comes from, "" for a function.
        leaf: that module's class name.
        scope: path of the author's module whose `forward` calls the function.
        inplace: set by a spelling whose call changes its first argument.
        trace: the stack of calls that led to it.
    """

    lowering: Lowering
    op: str
    base: str = ""
    leaf: str = ""
    scope: str = ""
    inplace: bool = False
    trace: str = ""

    def emit(self, module: nn.Module, *inputs: Any, part: str = "") -> fx.Node:
        """Applies `module`. `part` is a suffix for the name, for a spelling that emits several."""
        for value in inputs:
            if not isinstance(value, fx.Node):
                self.refuse("needs a value that depends on the input", "check the network on one sample")
        if isinstance(module, dialect.Pad) and self.leaf.startswith("Conv"):
            part = "pad"
        word = type(module).__name__.lower()
        reshapes = isinstance(module, (nn.Flatten, dialect.Reshape)) and "latten" not in self.leaf
        if self.base and not (reshapes and not part):
            # A Sequential's children are numbers; by itself a number is no name.
            base = f"{word}.{self.base}" if self.base[0].isdigit() else self.base
            name = f"{base}.{part}" if part else base
        else:
            name = f"{self.scope}.{word}".lstrip(".")
        return self.lowering.emit(name, module, inputs, self.trace)

    def apply(self, module: nn.Module, *x: Any) -> Any:
        """What a module of the author's becomes, that stands within the one that is being spelled."""
        return self.lowering.apply(self, module, *x)

    def alike(self, value: Tensor) -> bool:
        """Whether a constant is that of one sample, or of a batch whose size is written down, all samples alike."""
        fits = value.dim() > 0 and len(value) in (1, self.lowering.batch)
        return fits and bool((value == value[:1]).all())

    def rank(self, node: fx.Node) -> int | None:
        """Number of dimensions, the batch included, where it is known."""
        return self.lowering.shapes.rank(node)

    def sizes(self, node: fx.Node) -> tuple[int, ...] | None:
        """Shape of one sample, where it is known."""
        return self.lowering.shapes.shape(node)

    def known(self, node: fx.Node) -> tuple[int, ...]:
        """Shape of one sample; refuses where it is not known."""
        sizes = self.sizes(node)
        if sizes is None:
            raise Refused("depends on the shape of its input, which is not known", SHAPE_HINT, shape=True)
        return sizes

    def axis(self, node: fx.Node, dim: Any) -> int:
        """`dim` counted from the front; refuses the batch."""
        dim = self.integer(dim)
        rank = self.rank(node)
        if dim < 0 and rank is None:
            raise Refused("counts dimensions from the back of a value of unknown rank", SHAPE_HINT, shape=True)
        if rank is not None and not -rank <= dim < rank:
            self.refuse(f"uses dimension {dim} of a value with {rank}", "check the network on one sample")
        dim += rank if dim < 0 and rank is not None else 0
        if dim == 0:
            self.refuse("works along the batch", "keep samples apart: use dimension 1 or higher")
        return dim

    def integer(self, value: Any) -> int:
        """A Python integer; refuses a size that is not known."""
        if isinstance(value, Tensor) and value.numel() == 1:
            value = value.item()
        if isinstance(value, Dim) or (isinstance(value, Unknown) and value.shape):
            raise Refused("uses a size that is not known", SHAPE_HINT, shape=True)
        if isinstance(value, (Batch, Unknown)):
            self.refuse(
                "uses the number of samples",
                "write a constant in its place, so that samples stay apart",
            )
        if not isinstance(value, (int, float)) or int(value) != value:
            self.refuse(f"needs an integer, not {value!r}", "write a constant")
        return int(value)

    def refuse(self, why: str, hint: str) -> NoReturn:
        """Stops this operation with a blocker."""
        raise Refused(why, hint)


def _nothing(site: Site, module: nn.Module, *x: Any) -> Any:
    """A walk through a network says what modules become."""
    raise NotImplementedError


class Lowering:
    """Builds the new graph; `blockers` tells what went wrong, `live` whether a module was exported here.

    Args:
        input_shape: shape of one sample, or None; of several inputs one shape each.
        rank: of the one input, the batch included, where only that is known.
        like: a tensor with the network's dtype and device.
        names: of the inputs. One alone is called "x" in all graphs, whatever its author calls it.

    Attributes:
        entries: the inputs.
        whole: values that are whole numbers, places in a table: inputs, and what is moved or counted from them.
        elsewhere: what this way of capturing cannot read and the other one may.
        unsure: whether it has to be tried which of `elsewhere` the other one can read.
        lost: stand-ins whose shape is unknown, and everything computed from them.
        passes: tells whether the other door reads an operation (its node, module and arguments), where there is one.
    """

    def __init__(
        self, input_shape: Sequence[Any] | None, rank: int | None, like: Tensor, names: Sequence[str] = ("x",)
    ) -> None:
        self.build = GraphBuilder()
        self.blockers: list[Blocker] = []
        self.elsewhere: list[Blocker] = []
        self.unsure = self.live = False
        self.lost: set[fx.Node] = set()
        self.passes: Passes | None = None
        self.cells: dict[fx.Node, Cell] = {}
        self.whole: set[fx.Node] = set()
        self.like = like
        self.batch: int | None = None
        self.apply: Callable[..., Any] = _nothing
        self.entries = [self.build.input(name) for name in (names if len(names) > 1 else ("x",))]
        root = self.build.root
        self.shapes = Shapes(lambda node: root.get_submodule(str(node.target)), self.entries, input_shape, rank, like)

    def emit(self, name: str, module: nn.Module, inputs: tuple[fx.Node, ...], trace: str = "") -> fx.Node:
        """A node that applies `module`, with its shape where that is known."""
        for value in inputs:
            check_rank(module, self.shapes.rank(value))
        node = self.build.call(name, module.eval(), *inputs)
        node.meta["stack_trace"] = trace
        self.shapes.rank(node)  # refused here, if at all
        if isinstance(module, MOVES) and self.whole.issuperset(inputs):
            self.whole.add(node)
        if self.shapes.shape(node) is None and self.lost.intersection(inputs):
            self.lost.add(node)
        return node

    @property
    def shaped(self) -> bool:
        """Whether the shape of a sample is known."""
        return all(self.shapes.shape(entry) is not None for entry in self.entries)

    def stand_in(
        self, shape: tuple[int, ...] | None, rank: int | None = None, inputs: Sequence[fx.Node] = (),
        reason: Reason | None = None,
    ) -> fx.Node:  # fmt: skip
        """A node instead of a refused operation, so that operations that read its result are examined too."""
        node = self.build.call("standin", StandIn(shape, reason), *(inputs or self.entries[:1]))
        self.shapes.give(node, shape, rank)
        if shape is None and (self.shaped or rank is None or self.lost.intersection(inputs)):
            self.lost.add(node)
        return node

    def part_of(self, name: str, values: Sequence[Any]) -> Reason | None:
        """Why something before it is refused, where that refusal takes the operation called `name` with it."""
        for node in (v for v in values if isinstance(v, fx.Node)):
            module = self.module(node)
            if isinstance(module, StandIn) and module.reason and key(name) in module.reason.parts:
                last = key(name) in ("div", "divide", "truediv", "mul", "multiply")
                return replace(module.reason, alike=True, parts=frozenset()) if last else module.reason
        return None

    def module(self, node: fx.Node) -> nn.Module | None:
        """The module that a node of the new graph calls."""
        return self.build.root.get_submodule(str(node.target)) if node.op == "call_module" else None

    def is_lost(self, values: Sequence[Any]) -> bool:
        """Whether one of `values` comes from a refused operation of whose result too little is known."""
        return any(
            v is LOST
            or (isinstance(v, fx.Node) and v in self.lost)
            or (isinstance(v, (Dim, Sizes)) and v.node in self.lost)
            or (isinstance(v, Unknown) and v.lost)
            for v in values
        )

    def note(self, node: fx.Node, op: str, refused: Refused, name: str = "") -> None:
        """Notes a blocker, once for each module of the author's."""
        hint = OTHER.hint if refused.hint == SHAPE_HINT and self.shaped else refused.hint
        blocker = Blocker(flat(name or node.name), op, refused.why, hint, author_line(node))
        found = self.elsewhere if refused.shape and self.passes else self.blockers
        if all((b.node, b.op, b.why) != (blocker.node, op, refused.why) for b in found):
            found.append(blocker)

    def load(self, value: Any) -> Any:
        """Arguments of the old graph as values of the new one."""
        if isinstance(value, fx.Node):
            cell = self.cells[value]
            if cell.stale:
                raise Refused(
                    f"reads '{value.name}', which an in-place operation on a view of it has changed",
                    "write that operation out of place, such as F.relu(x) for x.relu_()",
                    shape=True,
                )
            return cell.value
        if isinstance(value, (list, tuple)):
            return type(value)(self.load(v) for v in value)
        if isinstance(value, dict):
            return {k: self.load(v) for k, v in value.items()}
        if isinstance(value, slice):
            return slice(self.load(value.start), self.load(value.stop), self.load(value.step))
        return value

    def trace_back(self, value: Any, name: str) -> None:
        """Notes which value of the network a node stands for, so that the two can be compared."""
        if isinstance(value, fx.Node) and value not in self.entries:
            value.meta.setdefault(ORIGIN, name)

    def bind(self, node: fx.Node, value: Any, inplace: bool, copies: bool, views: bool) -> None:
        """Stores a result, and follows what in-place operations do to other names of the same tensor."""
        sources = [self.cells[n] for n in node.all_input_nodes]
        if inplace and sources:
            for cell in self.cells.values():
                followed = isinstance(value, Tensor) and isinstance(cell.value, Tensor)  # constants: torch did it
                cell.stale |= cell.storage is sources[0].storage and cell is not sources[0] and not followed
            sources[0].value = value
            self.cells[node] = sources[0]
            return
        same = [c for c in sources if c.value is value and isinstance(value, fx.Node)]
        if same and not copies:
            self.cells[node] = same[0]
        else:
            self.cells[node] = Cell(value, sources[0].storage if sources and views else object())
