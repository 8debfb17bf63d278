"""A graph as a picture: layer under layer, edges that never cross a box.

Rows are networkx's topological generations. An edge that skips rows gets a place in each of them, so that it passes
beside the boxes; within a row, nodes are ordered by where their inputs stand (Sugiyama's method, one sweep).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import networkx as nx
from torch import fx

from snnc.ir.dialect import ACTIVATIONS, MAX_POOLS, WEIGHTED, ClipQuant
from snnc.ir.graph import SPEC, Stage, calls, phases
from snnc.ir.neurons import Neuron
from snnc.ir.temporal import Decode, Encode, Frames
from snnc.passes.trace import Snapshot

BOX, LANE, HIGH, GAP = 196, 14, 20, 14  # width of a box and of a passing edge, height of a box, space between rows
Item = str | tuple[str, str]  # in a row: a node, or an edge that passes it
_CLASSES = {cls.__name__: cls for kinds in SPEC.values() for cls in kinds}
SLICE = 24 * (HIGH + GAP)  # pixels that stand in one column: what fits a sheet of paper


@dataclass(frozen=True)
class Box:
    """A node: its place, its class of the style sheet, its name, what it is, and all of it in words."""

    x: float
    y: float
    kind: str
    name: str
    what: str
    title: str


@dataclass(frozen=True)
class Picture:
    """A graph with places, in pixels."""

    title: str
    width: int
    height: int
    boxes: list[Box]
    edges: list[str]


@dataclass(frozen=True)
class Spot:
    """A node that has no place yet: class of the style sheet, what it is, all of it in words, and what feeds it."""

    kind: str
    what: str
    title: str
    inputs: tuple[str, ...]


def picture(title: str, graph: fx.GraphModule, stage: Stage) -> Picture:
    """The picture of a graph."""
    modules = dict(calls(graph))
    where = phases(graph) if stage is Stage.SPIKING else {}
    spots = {}
    for node in graph.graph.nodes:
        module = modules.get(node)
        what = type(module).__name__ if module is not None else "input" if node.op == "placeholder" else "output"
        kind = f"{_kind(type(module))} {where.get(node, '')}".strip()
        phase = f", {where[node]} time" if node in where else ""
        inputs = tuple(source.name for source in node.all_input_nodes)
        spots[node.name] = Spot(kind, what, f"{node.name}: {module or what}{phase}", inputs)
    return laid_out(title, spots)


def snapshot(title: str, found: Snapshot) -> Picture:
    """The picture of a graph after one pass, with what it changed."""
    spots = {}
    for name, (what, inputs) in found.nodes.items():
        told = "new" if name in found.new else "changed" if name in found.changed else ""
        mark = "hit" if told and found.name else ""  # before the first pass everything is new
        words = f"{name}: {what}, {told}" if mark else f"{name}: {what}"
        spots[name] = Spot(f"{_kind(_CLASSES.get(what, object))} {mark}".strip(), what, words, inputs)
    return laid_out(title, spots)


def laid_out(title: str, spots: Mapping[str, Spot]) -> Picture:
    """Places for nodes, in the order that they are given."""
    net = nx.DiGraph((source, name) for name, spot in spots.items() for source in spot.inputs)
    net.add_nodes_from(spots)
    order = {name: i for i, name in enumerate(spots)}
    levels = list(nx.topological_generations(net))
    row = {node: i for i, level in enumerate(levels) for node in level}
    # A row as a list of boxes and of (source, target) pairs that pass by.
    places: list[list[Item]] = [[*sorted(level, key=order.__getitem__)] for level in levels]
    for source, target in sorted(net.edges, key=lambda e: (order[e[0]], order[e[1]])):
        for between in range(row[source] + 1, row[target]):
            places[between].append((source, target))
    left: dict[tuple[int, Item], float] = {}
    for i, level in enumerate(places):
        level.sort(key=lambda item: (_wish(item, i, row, net, left), isinstance(item, tuple)))
        x = 0.0
        for item in level:
            left[i, item] = x
            x += (LANE if isinstance(item, tuple) else BOX) + 8

    def at(i: int, item: Item) -> tuple[float, float]:
        return left[i, item] + (LANE if isinstance(item, tuple) else BOX) / 2, i * (HIGH + GAP)

    edges = []
    for source, target in net.edges:
        x, y = at(row[source], source)
        path = [f"M{x:g} {y + HIGH:g}"]
        y += HIGH
        for i in range(row[source] + 1, row[target] + 1):
            passing = i < row[target]
            x1, y1 = at(i, (source, target) if passing else target)
            path.append(f"C{x:g} {y + GAP / 2:g} {x1:g} {y1 - GAP / 2:g} {x1:g} {y1:g}")
            x, y = x1, y1 + HIGH
            if passing:
                path.append(f"V{y:g}")
        edges.append("".join(path))
    boxes = [
        Box(left[row[name], name], row[name] * (HIGH + GAP), spot.kind, name, spot.what, spot.title)
        for name, spot in spots.items()
    ]
    width = max(
        left[i, item] + (LANE if isinstance(item, tuple) else BOX) for i, level in enumerate(places) for item in level
    )
    return Picture(title, round(width), len(places) * (HIGH + GAP) - GAP, boxes, edges)


def _wish(item: Item, i: int, row: dict[str, int], net: nx.DiGraph, left: dict[tuple[int, Item], float]) -> float:
    """Where an item of row `i` would like to stand: under what leads to it."""
    if isinstance(item, tuple):
        return left[i - 1, item if (i - 1, item) in left else item[0]]
    before = [left[i - 1, s if row[s] == i - 1 else (s, item)] for s in net.predecessors(item)]
    return sum(before) / len(before) if before else 0.0


def _kind(cls: type) -> str:
    for name, kinds in (
        ("neuron", (Neuron,)),
        ("border", (Encode, Frames, Decode)),
        ("active", (*ACTIVATIONS, ClipQuant, *MAX_POOLS)),
        ("weights", WEIGHTED),
    ):
        if issubclass(cls, kinds):
            return name
    return "plain"
