"""The graph: one `torch.fx.GraphModule` from capture to emission, its stages, and the rules that `verify` checks.

A graph has a `placeholder` for each input, one `output`, and between them `call_module` nodes only. The output is a
tree of nodes (`snnc.structure`), built as the author's network builds what it returns. Each module of the dialect
stands under a flat name equal to its node's name and has exactly one call site, so a pass may change a module without
asking who else uses it (stock `torch.fx` fusion corrupts a shared convolution; here there are none).
"""

from __future__ import annotations

import copy
import enum
import keyword
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import networkx as nx
import torch
from torch import Tensor, fx, nn

from snnc.errors import SnncError, VerifyError
from snnc.ir import dialect
from snnc.ir.curved import CURVED
from snnc.ir.dialect import is_count
from snnc.ir.embedding import Embedding
from snnc.ir.neurons import NEURONS
from snnc.ir.proof import prove
from snnc.ir.rows import Table
from snnc.ir.temporal import (
    Decode,
    Encode,
    FrameMean,
    Frames,
    Restart,
    StepCurrent,
    Telescoped,
    Temporal,
    TemporalMax,
)
from snnc.ir.values import faults
from snnc.markup import table
from snnc.structure import fault as tree_fault
from snnc.structure import leaves, mapped, named


class Stage(enum.StrEnum):
    """How far a network has been lowered. `SPEC` says what each stage may contain.

    FIXED is a spiking network in which every value up to its readouts is an integer.
    """

    ANN = "ANN"
    FOLDED = "FOLDED"
    QUANTIZED = "QUANTIZED"
    SPIKING = "SPIKING"
    FIXED = "FIXED"


_ALWAYS = (*dialect.LINEAR, Embedding, *CURVED)
_QUANTISERS = (dialect.ClipQuant, dialect.SignedQuant)
_TEMPORAL_MAX = tuple(cls for cls in dialect.CONFIG if issubclass(cls, TemporalMax))
_IN_TIME = (Encode, Frames, Decode, Restart, StepCurrent, Telescoped, *_TEMPORAL_MAX)
_OVER_FRAMES = (FrameMean, Frames, Decode)  # what a network has that ran on frames: on their mean, or on each
SPEC: dict[Stage, frozenset[type[nn.Module]]] = {
    Stage.ANN: frozenset((*_ALWAYS, *_OVER_FRAMES, *dialect.BATCHNORMS, *dialect.ACTIVATIONS, *_QUANTISERS)),
    Stage.FOLDED: frozenset((*_ALWAYS, *_OVER_FRAMES, *dialect.ACTIVATIONS, *_QUANTISERS)),
    Stage.QUANTIZED: frozenset((*_ALWAYS, *_OVER_FRAMES, *_QUANTISERS)),
    Stage.SPIKING: frozenset((*_ALWAYS, *NEURONS, *_IN_TIME)),
}
_NOT_FIXED = {*dialect.AVERAGE_POOLS, dialect.Mean, dialect.Mix, Embedding, Telescoped, *CURVED} - {
    *dialect.MAX_POOLS,
    *dialect.HEADS,
}
SPEC[Stage.FIXED] = SPEC[Stage.SPIKING] - _NOT_FIXED | {dialect.Grid}
TIMED = (Stage.SPIKING, Stage.FIXED)  # stages of spiking networks


class GraphBuilder:
    """Builds a graph node by node.

    Example:
        >>> build = GraphBuilder()
        >>> x = build.input()
        >>> x = build.call("relu", nn.ReLU(), x)
        >>> graph = build.finish(x)
    """

    def __init__(self) -> None:
        self.root = nn.Module()
        self.graph = fx.Graph()

    def input(self, name: str = "x") -> fx.Node:
        """One input of the network. Its name is what a caller passes it by, the `target` of its node.

        Raises:
            ValueError: `name` is no identifier. torch writes it into source text as it stands, and runs that.
        """
        if not name.isidentifier() or keyword.iskeyword(name) or name == "self":
            raise ValueError(f"the input's name {name!r} is no identifier")
        return self.graph.placeholder(name)

    def call(self, name: str, module: nn.Module, *inputs: fx.Node) -> fx.Node:
        """A module applied to `inputs`. The node is called `name`, or like it where the name is taken."""
        node = self.graph.create_node("call_module", "pending", tuple(inputs), name=flat(name))
        node.target = node.name
        self.root.add_module(node.name, module)
        return node

    def finish(self, result: Any) -> fx.GraphModule:
        """The graph whose output is `result`, a tree of nodes, in eval mode and without nodes that nothing uses."""
        self.graph.output(result)
        return tidy(fx.GraphModule(self.root, self.graph).eval())


_TAKEN = {"self", *dir(fx.GraphModule), *vars(fx.GraphModule(nn.Module(), fx.Graph()))}


def flat(name: str) -> str:
    """A module path as one identifier: `layer1.0.conv1` to `layer1_0_conv1`.

    It is never the name of something that an `nn.Module` already has, such as `half`, since that would hide a method.
    Nor is it a keyword of Python, such as `None`, which no source text could call.
    """
    name = re.sub(r"[^0-9a-zA-Z_]+", "_", name)
    return f"{name}_" if name in _TAKEN or keyword.iskeyword(name) else name


def _html(graph: fx.GraphModule) -> str:
    """A graph as a table, for notebooks."""
    rows = [(node.name, str(module), tuple(n.name for n in node.all_input_nodes)) for node, module in calls(graph)]
    return table(f"Graph of {len(rows)} nodes", ("name", "module", "inputs"), rows)


def tidy(graph: fx.GraphModule) -> fx.GraphModule:
    """Drops nodes and modules that nothing uses, and recompiles. In place; returns its argument."""
    graph.graph.eliminate_dead_code()
    used = {node.target for node in graph.graph.nodes if node.op == "call_module"}
    for name in [name for name, _ in graph.named_children() if name not in used]:
        delattr(graph, name)
    graph.graph.lint()
    graph.recompile()
    # torch makes a class for every graph, so this is for ours alone.
    setattr(type(graph), "_repr_html_", _html)  # noqa: B010
    return graph


def calls(graph: fx.GraphModule, *kinds: type[nn.Module]) -> Iterator[tuple[fx.Node, Any]]:
    """Every node that calls a module (of one of `kinds`, where given), in topological order.

    Modules are typed Any: torch types every attribute of a module as `Tensor | Module`, which is true of none.
    """
    for node in list(graph.graph.nodes):
        if node.op == "call_module":
            module = module_of(graph, node)
            if not kinds or isinstance(module, kinds):
                yield node, module


def module_of(graph: fx.GraphModule, node: fx.Node) -> Any:
    """The module that a node calls."""
    return graph.get_submodule(str(node.target))


def entries(graph: fx.GraphModule) -> list[fx.Node]:
    """The inputs, in the order in which a caller passes them."""
    return [node for node in graph.graph.nodes if node.op == "placeholder"]


def enters(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node is an input as the first operation sees it: all of it, or its frames."""
    return node.op == "placeholder" or (node.op == "call_module" and isinstance(module_of(graph, node), Frames))


def output(graph: fx.GraphModule) -> fx.Node:
    """The node that stands for what the graph returns."""
    return next(iter(reversed(graph.graph.nodes)))


def result(graph: fx.GraphModule) -> Any:
    """What the graph returns, as a tree of nodes in plain containers."""
    return mapped(lambda node: node, output(graph).args[0])


def results(graph: fx.GraphModule) -> dict[str, fx.Node]:
    """The outputs by name, see `snnc.structure.named`; one node may have several names."""
    return named(output(graph).args[0])


def only(graph: fx.GraphModule, name: str) -> fx.GraphModule:
    """A copy of the graph that gives one of its outputs, without what only the others need; all inputs stay.

    Raises:
        SnncError: no such output.
    """
    copied = copy.deepcopy(graph)
    known = results(copied)
    if name not in known:
        raise SnncError(f"The network has no output '{name}'.", f"one of {', '.join(known)}")
    output(copied).args = (known[name],)
    return tidy(copied)


def numbers(graph: fx.GraphModule) -> Tensor:
    """A tensor of a graph that has the type and device of its values; buffers that hold places have another type."""
    found = (value for value in (*graph.buffers(), *graph.parameters()) if value.is_floating_point())
    return next(found, torch.zeros(()))


def replace(graph: fx.GraphModule, node: fx.Node, module: nn.Module) -> None:
    """Puts `module` in the place of the one that `node` calls."""
    setattr(graph, str(node.target), module.eval())


def insert(
    graph: fx.GraphModule, name: str, module: nn.Module, *sources: fx.Node, before: fx.Node | None = None
) -> fx.Node:
    """A new node that applies `module` to `sources`; nobody uses it yet.

    It is placed right after the first source, or right before the node given.
    """
    place = graph.graph.inserting_after(sources[0]) if before is None else graph.graph.inserting_before(before)
    with place:
        node = graph.graph.create_node("call_module", "pending", sources, name=flat(name))
    node.target = node.name
    graph.add_module(node.name, module.eval())
    return node


def remove(graph: fx.GraphModule, node: fx.Node) -> None:
    """Takes out a node with one input; its users read that input instead."""
    node.replace_all_uses_with(node.all_input_nodes[0])
    graph.graph.erase_node(node)
    delattr(graph, str(node.target))


def view(graph: fx.GraphModule) -> nx.DiGraph:
    """The graph as a `networkx.DiGraph` over its nodes."""
    return nx.DiGraph((source, node) for node in graph.graph.nodes for source in node.all_input_nodes)


BEFORE, IN, AFTER = "before", "in", "after"


@dataclass(frozen=True)
class Place:
    """Where in time a module may stand, and where its output does.

    Attributes:
        takes: the one phase that its input has to be in, or "" for any.
        gives: the phase of its output, or "" for that of its input.
        blind: whether it may act on the single steps of a value. It may if its output for their mean is the mean of its
            outputs.
    """

    takes: str = ""
    gives: str = ""
    blind: bool = True


PLACES: Table[Place] = Table(
    "places",
    __name__,
    {
        (*dialect.LINEAR, *dialect.TRAINED, dialect.Grid): Place(),
        CURVED: Place(blind=False),
        Embedding: Place(BEFORE),
        Temporal: Place(IN, IN),
        (Encode, Frames): Place(BEFORE, IN),
        FrameMean: Place(BEFORE),
        Decode: Place(IN, AFTER),
    },
)


def phases(graph: fx.GraphModule) -> dict[fx.Node, str]:
    """For each node of a spiking graph, where its value stands: "before", "in" or "after" time.

    Raises:
        VerifyError: values of different phases meet, or a module stands in a phase where it does not belong.
    """
    phase: dict[fx.Node, str] = {}
    for node in graph.graph.nodes:
        found = {phase[source] for source in node.all_input_nodes}
        found = {AFTER} if found == {BEFORE, AFTER} else found
        if len(found) > 1:
            raise VerifyError(f"At '{node.name}' a value {min(found)} time meets one {max(found)} time.")
        here = found.pop() if found else BEFORE
        module = module_of(graph, node) if node.op == "call_module" else None
        place = Place() if module is None else PLACES.at(node.name, module, VerifyError)
        if place.takes not in ("", here):
            raise VerifyError(f"'{node.name}' ({type(module).__name__}) stands {here} time, not {place.takes} time.")
        if here == IN and not place.blind:
            raise VerifyError(f"'{node.name}' ({type(module).__name__}) acts on single steps; that is not its rate.")
        phase[node] = place.gives or here
    return phase


def steps(graph: fx.GraphModule) -> int:
    """The T that every temporal module of a spiking graph simulates."""
    found = {int(module.T) for _, module in calls(graph, Encode, Frames, Decode, Temporal)}
    if len(found) != 1:
        raise VerifyError(f"A spiking graph has one T; this one has {sorted(found) or 'none'}.")
    return found.pop()


def validate(graph: fx.GraphModule, stage: Stage) -> None:
    """Checks every rule of `stage`.

    Raises:
        VerifyError: names the node and the rule.
    """
    try:
        graph.graph.lint()
    except (RuntimeError, AssertionError) as error:
        raise VerifyError(f"The graph does not lint: {error}") from error
    _verify_form(graph)
    seen: dict[int, str] = {}
    for node, module in calls(graph):
        if type(module) not in SPEC[stage]:
            raise VerifyError(f"'{node.name}' is a {type(module).__name__}, which stage {stage} must not contain.")
        if id(module) in seen:
            raise VerifyError(f"'{node.name}' and '{seen[id(module)]}' share a module; each call site owns its own.")
        seen[id(module)] = node.name
        if module.training:
            raise VerifyError(f"'{node.name}' is in training mode.")
        for fault in faults(node.name, module):
            raise VerifyError(fault)
    if stage in TIMED:
        _verify_spiking(graph)
    if stage is Stage.FIXED:
        prove(graph)


def _verify_form(graph: fx.GraphModule) -> None:
    """Inputs, an output, and modules only, each with one call site under the name of its node."""
    kinds = [node.op for node in graph.graph.nodes]
    if not kinds.count("placeholder") or kinds.count("output") != 1:
        raise VerifyError("A graph has an input, one or more, and one node for its output.")
    tree = output(graph).args[0]
    if why := tree_fault(tree):
        raise VerifyError(f"The output {why}.")
    if not leaves(tree) or not all(isinstance(leaf, fx.Node) for leaf in leaves(tree)):
        raise VerifyError("The output holds something that is no value of the network.")
    if odd := [n.name for n in graph.graph.nodes if n.op not in ("placeholder", "call_module", "output")]:
        raise VerifyError(f"'{odd[0]}' is not a call of a module.")
    for node in graph.graph.nodes:
        if node.op == "call_module" and (node.kwargs or not all(isinstance(a, fx.Node) for a in node.args)):
            raise VerifyError(f"'{node.name}' takes something besides the values of other nodes.")
    targets = [str(node.target) for node in graph.graph.nodes if node.op == "call_module"]
    if len(set(targets)) < len(targets):
        twice = next(t for t in targets if targets.count(t) > 1)
        raise VerifyError(f"Module '{twice}' has more than one call site; each call site owns its own.")
    if unused := set(dict(graph.named_children())) - set(targets):
        raise VerifyError(f"Module '{min(unused)}' is never called.")


def _verify_spiking(graph: fx.GraphModule) -> None:
    _verify_readouts(graph)
    phase = phases(graph)
    if (where := phase[output(graph)]) != AFTER:
        raise VerifyError(f"The output stands {where} time: no Decode on its path.")
    if any(calls(graph, Frames)):
        _verify_frames(graph)


def _verify_frames(graph: fx.GraphModule) -> None:
    """The readout after a step is that of the frames up to it: nothing waits, and nothing comes in another way."""
    for entry in entries(graph):
        if odd := [user.name for user in entry.users if not isinstance(_module(graph, user), Frames)]:
            raise VerifyError(f"'{odd[0]}' reads all frames of '{entry.name}' at once.")
    for node, module in calls(graph, Temporal, Decode):
        if isinstance(module, Decode):
            waits = module.late or module.skip or module.read != module.T
        else:
            waits = not module.streaming or module.tau
        if waits:
            raise VerifyError(f"'{node.name}' ({type(module).__name__}) waits, and frames are read as they come.")


def _module(graph: fx.GraphModule, node: fx.Node) -> Any:
    return module_of(graph, node) if node.op == "call_module" else None


def _verify_readouts(graph: fx.GraphModule) -> None:
    """All readouts read the same steps; a first pass, which they skip, is one for everything with a state."""
    T, decodes = steps(graph), list(calls(graph, Decode))
    read, skip, late = next(((m.read, m.skip, m.late) for _, m in decodes), (1, 0, 0))
    for node, module in decodes:
        if not is_count(module.read) or not module.read == read <= T:
            raise VerifyError(f"'{node.name}' reads {module.read!r} steps; all readouts read the same 1..T = {T}.")
        if type(module.skip) is not int or module.skip != skip or not 0 <= skip <= T - read:
            raise VerifyError(f"'{node.name}' skips {module.skip!r} steps; all readouts skip the same 0..{T - read}.")
        if type(module.late) is not int or module.late != late or not 0 <= late < read:
            raise VerifyError(f"'{node.name}' leaves out {module.late!r} steps; all readouts the same 0..{read - 1}.")
    for node, module in calls(graph, Temporal):
        if module.tau != skip:
            raise VerifyError(f"'{node.name}' has a first pass of {module.tau!r} steps; the readouts skip {skip}.")
