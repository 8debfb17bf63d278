"""From a traced graph, whatever its dialect, to a graph of snnc's own modules.

`Lowering` walks a graph node by node. Each node's operation has a name (`relu`, `add`, `conv2d` ...), the same for a
module, a function, a method, an operator and an ATen op; `snnc.spellings` says what that name becomes. What cannot be
converted is noted as a `Blocker` and the walk goes on, so that all of them are found at once.

Values on the way are nodes of the new graph (data), tensors and Python values (constants, folded as they are met), and the
sizes below. The batch has no number here: an operation that would need one mixes samples.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from snnc import dialect
from snnc.errors import Blocker
from snnc.graph import GraphBuilder, flat

SHAPE_HINT = "pass --input-shape (input_shape= in Python), the shape of one sample, such as 3,32,32"


class Refused(Exception):
    """An operation cannot be converted. `shape` is True where knowing the input's shape may help."""

    def __init__(self, why: str, hint: str, shape: bool = False) -> None:
        super().__init__(why)
        self.why, self.hint, self.shape = why, hint, shape


@dataclass(frozen=True)
class Batch:
    """The number of samples."""


@dataclass(frozen=True)
class Dim:
    """A size that is not known without the input's shape: `node.shape[index]`."""

    node: fx.Node
    index: int


@dataclass(frozen=True)
class Sizes:
    """A run of sizes of a value whose rank is not known: `node.shape[part]`."""

    node: fx.Node
    part: slice = field(default_factory=lambda: slice(None))


@dataclass(frozen=True)
class Unknown:
    """What was calculated from a `Dim` (`shape` is True) or from the batch."""

    shape: bool


@dataclass(frozen=True)
class Filled:
    """One number all over: `sizes` are those of one sample."""

    sizes: tuple[int, ...]
    number: float


class _Lost:
    """The result of a refused operation: nothing more is said about what reads it."""


LOST = _Lost()


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


@dataclass
class Site:
    """One node on its way: what a spelling needs to know, and how it emits modules.

    Attributes:
        base: path of the `torch.nn` module that the node calls or comes from, "" for a function.
        leaf: that module's class name.
        scope: path of the author's module whose `forward` calls the function.
        inplace: set by a spelling whose call changes its first argument.
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
                self.refuse(
                    "needs a value that depends on the input", "fold the constant into the next layer"
                )
        if isinstance(module, dialect.Pad) and self.leaf.startswith("Conv"):
            part = "pad"
        if self.base:
            name = f"{self.base}.{part}" if part else self.base
        else:
            name = f"{self.scope}.{_word(module)}".lstrip(".")
        return self.lowering.emit(name, module, inputs, self.trace)

    def rank(self, node: fx.Node) -> int | None:
        """Number of dimensions, the batch included, where it is known."""
        return self.lowering.ranks.get(node)

    def sizes(self, node: fx.Node) -> tuple[int, ...] | None:
        """Shape of one sample, where it is known."""
        fake = self.lowering.fakes.get(node)
        return None if fake is None else tuple(int(n) for n in fake.shape[1:])

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
            raise Refused(
                "counts dimensions from the back of a value of unknown rank", SHAPE_HINT, shape=True
            )
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
                "write -1 or flatten(1) in its place, so that samples stay apart",
            )
        if not isinstance(value, (int, float)) or int(value) != value:
            self.refuse(f"needs an integer, not {value!r}", "write a constant")
        return int(value)

    def refuse(self, why: str, hint: str) -> NoReturn:
        """Stops this operation with a blocker."""
        raise Refused(why, hint)


def _word(module: nn.Module) -> str:
    """What a module is called where its author gave no name."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(module).__name__).lower().replace("_pool", "pool")


class Lowering:
    """Builds the new graph; `blockers` tells what went wrong.

    Args:
        input_shape: shape of one sample, or None.
        rank: of the input, the batch included, where only that is known.
        like: a tensor with the network's dtype and device.
    """

    def __init__(self, input_shape: Sequence[int] | None, rank: int | None, like: Tensor) -> None:
        self.build = GraphBuilder()
        self.fakes: dict[fx.Node, Tensor] = {}
        self.ranks: dict[fx.Node, int | None] = {}
        self.blockers: list[Blocker] = []
        self.wants_shape = False
        self.cells: dict[fx.Node, Cell] = {}
        self.like = like
        self.batch: int | None = None
        self.mode = FakeTensorMode(allow_non_fake_inputs=True) if input_shape is not None else None
        self.x = self.build.input()
        self.ranks[self.x] = rank if input_shape is None else 1 + len(input_shape)
        if self.mode is not None and input_shape is not None:
            with self.mode:
                self.fakes[self.x] = torch.empty((2, *input_shape), dtype=like.dtype, device=like.device)

    def emit(self, name: str, module: nn.Module, inputs: tuple[fx.Node, ...], trace: str = "") -> fx.Node:
        """A node that applies `module`, with its shape where that is known."""
        node = self.build.call(name, module.eval(), *inputs)
        node.meta["stack_trace"] = trace
        if all(i in self.fakes for i in inputs) and self.mode is not None:
            shapes = ", ".join(str(tuple(self.fakes[i].shape[1:])) for i in inputs)
            try:
                with self.mode, torch.no_grad():
                    self.fakes[node] = module(*(self.fakes[i] for i in inputs))
            except (RuntimeError, ValueError, IndexError, TypeError) as error:
                line = str(error).split("\n", maxsplit=1)[0].rstrip(".")
                raise Refused(
                    f"does not take samples of shape {shapes} ({line})", "check --input-shape"
                ) from error
            if self.fakes[node].shape[:1] != (2,):
                raise Refused("mixes samples", "keep the batch as the first dimension")
            self.ranks[node] = self.fakes[node].dim()
        else:
            self.ranks[node] = rank_after(module, [self.ranks.get(i) for i in inputs])
        return node

    def note(self, node: fx.Node, op: str, refused: Refused, name: str = "") -> None:
        """Notes a blocker."""
        self.wants_shape |= refused.shape
        where = author_line(node)
        self.blockers.append(Blocker(flat(name or node.name), op, refused.why, refused.hint, where))

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

    def bind(self, node: fx.Node, value: Any, inplace: bool, copies: bool, views: bool) -> None:
        """Stores a result, and follows what in-place operations do to other names of the same tensor."""
        sources = [self.cells[n] for n in node.all_input_nodes]
        if inplace and sources:
            for cell in self.cells.values():
                cell.stale |= cell.storage is sources[0].storage and cell is not sources[0]
            sources[0].value = value
            self.cells[node] = sources[0]
            return
        same = [c for c in sources if c.value is value and isinstance(value, fx.Node)]
        if same and not copies:
            self.cells[node] = same[0]
        else:
            self.cells[node] = Cell(value, sources[0].storage if sources and views else object())


def rank_after(module: nn.Module, ranks: list[int | None]) -> int | None:
    """Rank of a module's output; the last character of a class like `Conv2d` tells where the inputs' do not."""
    if isinstance(module, (dialect.Reshape, dialect.Permute)):
        return 1 + len(module.shape) if isinstance(module, dialect.Reshape) else len(module.dims)
    found: int | None = next((r for r in ranks if r is not None), None)
    spatial = re.search(r"(Conv|ConvTranspose|Pool|BatchNorm)([23])d$", type(module).__name__)
    if spatial:
        return 2 + int(spatial[2])
    if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)) or type(module).__name__.endswith("Pool1d"):
        return 3
    if isinstance(module, nn.Flatten):
        if module.end_dim == -1:
            return int(module.start_dim) + 1
        return found and found - (module.end_dim - module.start_dim)
    if isinstance(module, dialect.Mean) and not module.keepdim:
        return found and found - len(module.dims)
    return found


def author_line(node: fx.Node) -> str:
    """Where the author wrote a node, as `file:line`, or ""."""
    return innermost(str(node.meta.get("stack_trace") or ""))


def innermost(trace: str) -> str:
    """The innermost `file:line` of a stack trace that is neither torch's nor snnc's, or ""."""
    own = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
    place = ""
    for file, line in re.findall(r'File "([^"]+)", line (\d+)', trace):
        if not file.startswith((*own, "<")):
            place = f"{file}:{line}"
    return place


Spelling = Callable[..., Any]
