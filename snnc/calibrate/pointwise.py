"""Functions of one number in a graph: curved operations, alone or several that read one value.

`x * sigmoid(b * x)` is written as three operations, and is one function of x. What is looked for are the largest such
functions that end in a curved operation.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import networkx as nx
from torch import Tensor, fx

from snnc.ir.curved import BILINEAR, CURVED, POINTWISE, Maximum, Minimum, Product, Quotient, Where
from snnc.ir.dialect import ACTIVATIONS, MAX_POOLS, WEIGHTED, Add, Affine, Sub
from snnc.ir.graph import calls, module_of, view

ENDS = (*POINTWISE, Product, Quotient, Maximum, Minimum, Where)
MEMBERS = (*ENDS, *ACTIVATIONS, Affine, Add, Sub)  # of which a function may be made


class Pointwise:
    """A function of each number of a value.

    Attributes:
        node: its end.
        root: the value that it is a function of.
        module: the only module that it is made of; None where it is made of several.
        kind: its name for people.
    """

    def __init__(self, graph: fx.GraphModule, node: fx.Node, root: fx.Node, members: Iterable[fx.Node]) -> None:
        self.node, self.root = node, root
        self.steps = [(one, copy.deepcopy(module_of(graph, one)).double()) for one in members]
        self.module: Any = self.steps[0][1] if len(self.steps) == 1 else None
        self.kind = "composite" if self.module is None else getattr(self.module, "kind", type(self.module).__name__)

    def __call__(self, x: Tensor) -> Tensor:
        """Its value for any numbers, in float64; infinite or NaN where it has none."""
        values = {self.root: x.double()}
        for node, module in self.steps:
            values[node] = module(*(values[source] for source in node.args))  # type: ignore[index]
        return values[self.node]


def find(graph: fx.GraphModule) -> list[Pointwise]:
    """The functions of one number that have layers before and behind them, in the order of the graph."""
    return _found(graph)[0]


def rest(graph: fx.GraphModule) -> list[fx.Node]:
    """Curved operations with layers before and behind them, max pools apart, that are no functions of one number."""
    return _found(graph)[1]


def _found(graph: fx.GraphModule) -> tuple[list[Pointwise], list[fx.Node]]:
    net = view(graph)
    layers = [node for node, _ in calls(graph, *WEIGHTED)]
    read = set().union(*(nx.ancestors(net, node) for node, _ in calls(graph, *WEIGHTED, *BILINEAR)))
    fed = set().union(*(nx.descendants(net, node) for node in layers))
    roots: dict[fx.Node, fx.Node] = {}
    for node in graph.graph.nodes:
        module = module_of(graph, node) if node.op == "call_module" else None
        found = {roots[source] for source in node.all_input_nodes}
        roots[node] = found.pop() if len(found) == 1 and _shared(module) else node
        if roots[node] is not node and roots[node] not in fed | set(layers):
            roots[node] = node  # a function of the input acts once
    ends: list[Pointwise] = []
    covered: set[fx.Node] = set()
    for node in reversed(list(graph.graph.nodes)):
        module = module_of(graph, node) if node.op == "call_module" else None
        root = roots[node] if roots[node] is not node else _alone(node, module)
        inside = node in covered and all(user in covered for user in node.users)
        if root is None or inside or not isinstance(module, ENDS) or node not in read & fed:
            continue
        between = {node} | (nx.ancestors(net, node) & nx.descendants(net, root))
        covered |= between
        ends.append(Pointwise(graph, node, root, [one for one in graph.graph.nodes if one in between]))
    bent = [node for node, module in calls(graph, *CURVED) if not isinstance(module, MAX_POOLS)]
    return ends[::-1], [node for node in bent if node in read & fed and node not in covered]


def _shared(module: Any) -> bool:
    """Whether a module is the same function of each number."""
    parameters = [] if module is None else module.state_dict().values()
    return isinstance(module, MEMBERS) and all(value.numel() == 1 for value in parameters)


def _alone(node: fx.Node, module: Any) -> fx.Node | None:
    """The input of a function that differs by channel."""
    return node.all_input_nodes[0] if isinstance(module, POINTWISE) else None
