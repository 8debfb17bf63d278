"""What each pass did to the graph: the class of each node, and what feeds it. Small enough for every file.

A trace is plain data, one row for the graph before the first pass and one for each pass: under `set` the nodes that are
new, or of another class, or fed by others, as `[class, *inputs]`; under `touched` those that got another module or
other parameters; under `gone` those that it removed.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import networkx as nx
from torch import fx, nn

from snnc.ir.graph import calls

Nodes = dict[str, tuple[str, tuple[str, ...]]]  # class and inputs, by name
MOST = 20_000  # nodes of all snapshots of a network together


class Trace:
    """A callback of `Pipeline.run` that notes what every pass changes; `rows` is plain data."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._nodes: dict[str, list[str]] = {}
        self._marks: dict[str, int] = {}

    def __call__(self, one: Any, graph: fx.GraphModule, stage: Any, record: Any) -> None:
        modules = dict(calls(graph))
        nodes = {
            node.name: [type(modules[node]).__name__ if node in modules else _end(node)]
            + [source.name for source in node.all_input_nodes]
            for node in graph.graph.nodes
        }
        marks = {node.name: _mark(module) for node, module in modules.items()}
        changed = {name: row for name, row in nodes.items() if self._nodes.get(name) != row}
        touched = [name for name, mark in marks.items() if name in self._nodes and self._marks[name] != mark]
        gone = [name for name in self._nodes if name not in nodes]
        self.rows.append({"set": changed, "touched": touched, "gone": gone})
        self._nodes, self._marks = nodes, marks


def _end(node: fx.Node) -> str:
    return "input" if node.op == "placeholder" else "output"


def _mark(module: nn.Module) -> int:
    """A checksum of a module's options and numbers."""
    found = zlib.crc32(str(module).encode())
    for value in module.state_dict().values():
        found = zlib.crc32(value.detach().cpu().contiguous().reshape(-1).numpy(), found)
    return found


@dataclass(frozen=True)
class Snapshot:
    """The graph after one pass.

    Attributes:
        name: the pass; empty for the graph before the first.
        nodes: all of them.
        new: nodes that were not there before.
        changed: nodes that are another module, or have other parameters. One that is fed by others is not.
        gone: nodes that are no longer there.
    """

    name: str
    nodes: Nodes
    new: frozenset[str]
    changed: frozenset[str]
    gone: tuple[str, ...]


def snapshots(info: Mapping[str, Any]) -> list[Snapshot]:
    """The graph before the first pass and after each, from a network's history.

    Trusts nothing in it: where it has no trace, or one that is damaged or too large to draw, there are none.
    """
    rows, records = info.get("trace"), info.get("records")
    if not isinstance(rows, list) or not isinstance(records, list) or len(rows) != len(records) + 1:
        return []
    found: list[Snapshot] = []
    nodes: Nodes = {}
    total = 0
    try:
        for name, row in zip(["", *(str(record["name"]) for record in records)], rows, strict=True):
            changed = {_text(key): (_text(what), tuple(map(_text, rest))) for key, (what, *rest) in row["set"].items()}
            touched, gone = (tuple(map(_text, row[key])) for key in ("touched", "gone"))
            new = frozenset(changed.keys() - nodes.keys())
            nodes = {key: node for key, node in (nodes | changed).items() if key not in gone}
            total += len(nodes)
            if total > MOST or not _is_dag(nodes) or not nodes.keys() >= set(touched):
                return []
            found.append(Snapshot(name, nodes, new, frozenset(touched), gone))
    except (KeyError, TypeError, ValueError, AttributeError):
        return []
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a {type(value).__name__} for a name")
    return value


def _is_dag(nodes: Nodes) -> bool:
    """Whether every input is a node, and none depends on itself."""
    edges = [(source, name) for name, (_, inputs) in nodes.items() for source in inputs]
    return all(source in nodes for source, _ in edges) and nx.is_directed_acyclic_graph(nx.DiGraph(edges))
