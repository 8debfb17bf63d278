"""Networks over frames: what the original network did with the frames of a sample, and where they enter time.

A sample is `[T, ...]`, T frames. What a network that is not spiking yet made of them stands in its graph:

    mean    a `FrameMean` behind each input
    sum     that, and a factor T
    each    `Frames` behind each input, and `Decode`, the mean over frames, before each output

`insert-neurons` then has `begin` put `Frames` in their place, so that each frame enters at its own step.
"""

from __future__ import annotations

import networkx as nx
import torch
from torch import fx, nn

from snnc.defaults import WAYS
from snnc.errors import RecipeError, SnncError
from snnc.ir.curved import BENT
from snnc.ir.dialect import HEADS, MAX_POOLS, Affine
from snnc.ir.graph import calls, entries, insert, module_of, output, remove, replace, tidy, view
from snnc.ir.temporal import Decode, FrameMean, Frames, StepMax
from snnc.ir.whole import places

WAYS_HINT = (
    "'mean' or 'sum' where the network was trained on the mean or the sum of a sample's frames, 'each' where it ran on "
    "each frame and its outputs were averaged"
)


def over_frames(graph: fx.GraphModule, T: int, way: str) -> fx.GraphModule:
    """A network of single frames as one of samples `[B, T, ...]`, in place; returns its argument.

    Args:
        graph: of stage ANN.
        T: frames of a sample.
        way: what becomes of them, one of `WAYS`.

    Raises:
        RecipeError: no such way.
        SnncError: an input of whole numbers, which has no mean.
    """
    if way not in WAYS:
        raise RecipeError(f"frames is {way!r}.", WAYS_HINT)
    if places(graph):
        raise SnncError(
            "The network looks whole numbers up in a table, and currents of frames are amounts.",
            "the network compiled without frames",
        )
    for entry in entries(graph):
        users = list(entry.users)
        node = insert(graph, f"{entry.name}_frames", Frames(T) if way == "each" else FrameMean(T), entry)
        if way == "sum":
            node = insert(graph, f"{entry.name}_sum", Affine(torch.tensor(float(T)), torch.tensor(0.0)), node)
        for user in users:
            user.replace_input_with(entry, node)
    if way == "each":
        end = output(graph)
        for source in end.all_input_nodes:
            end.replace_input_with(source, insert(graph, f"{source.name}_over_frames", Decode(T, T), source))
    return tidy(graph)


def framed(graph: fx.GraphModule, T: int, way: str) -> fx.GraphModule:
    """`over_frames` of a graph that may be that already; as it is for input that is constant in time, `way` empty."""
    return over_frames(graph, T, way) if way and not takes_frames(graph) else graph


def takes_frames(network: nn.Module) -> bool:
    """Whether a network is a graph over frames."""
    return any(isinstance(module, FrameMean | Frames) for module in network.modules())


def folded(graph: fx.GraphModule) -> set[fx.Node]:
    """The nodes of a network that ran on each frame whose values are `[T * B, ...]`, a row for each frame."""
    found: set[fx.Node] = set()
    for node in graph.graph.nodes:
        module = module_of(graph, node) if node.op == "call_module" else None
        if isinstance(module, Frames) or (found.intersection(node.all_input_nodes) and not isinstance(module, Decode)):
            found.add(node)
    return found


def begin(graph: fx.GraphModule, neurons: set[fx.Node]) -> set[fx.Node]:
    """Lets frames enter time one after the other, in place; gives the nodes where they do, none without frames.

    Args:
        graph: with neurons, and no borders of time yet.
        neurons: their nodes.

    Raises:
        SnncError: the network ran on each frame, and holds a curved operation: its mean over frames is another thing
            than its value for means, which is what time gives.
    """
    for node, module in calls(graph, FrameMean):
        replace(graph, node, Frames(module.T))
    found = {node for node, _ in calls(graph, Frames)}
    ends = [node for node, _ in calls(graph, Decode)]
    if ends:
        _refuse_curved(graph)
        behind = neurons.union(*(nx.descendants(view(graph), node) for node in neurons))
        for node, pool in calls(graph, *MAX_POOLS):
            if node not in behind:  # the values of single frames, whose maximum it is
                replace(graph, node, StepMax(next(module.T for _, module in calls(graph, Frames)), pool))
    for node in ends:
        remove(graph, node)
    return found


def _refuse_curved(graph: fx.GraphModule) -> None:
    for node, module in calls(graph, *BENT, *HEADS):
        kind = type(module).__name__
        ends_here = isinstance(module, HEADS)
        hint = "the network up to its class scores" if ends_here else "--frames mean, or a network of ReLUs"
        raise SnncError(
            f"'{node.name}' is a {kind}, and the network ran on each frame: its mean over frames is not its value for "
            "their mean, which is all that steps can give.",
            hint,
        )
