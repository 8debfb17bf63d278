"""Whether a NIR graph suits a target: everything that does not fit, at once, and what to change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import nir
import numpy as np

from snnc.backends.nir.speck import over
from snnc.backends.nir.targets import TARGETS, Target
from snnc.errors import Blocker

Level = Literal["approximate", "unsupported"]
WEIGHTS = (nir.Affine, nir.Linear, nir.Conv1d, nir.Conv2d)


@dataclass(frozen=True)
class Mismatch:
    """One thing that a target does not do as the network means it.

    Attributes:
        level: "approximate", if the file runs there and gives other spikes; "unsupported", if it does not run.
        node: of the NIR graph; of all that are alike the first.
        op: its kind.
        why: one clause.
        hint: what to change.
        more: other nodes of which the same is true.
    """

    level: Level
    node: str
    op: str
    why: str
    hint: str
    more: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.node} ({self.op}): {self.why}"

    @property
    def blocker(self) -> Blocker:
        """The same, as what keeps a file from being written."""
        return Blocker(self.node, self.op, self.why, self.hint)


@dataclass(frozen=True)
class Suitability:
    """How a network suits a target.

    Attributes:
        target: its name.
        tried: what the target's row was checked with.
        faithful: nodes that the target takes as they are meant, by kind.
        misfits: all others, the unsupported first.
        left_out: passes of the recipe that the target cannot have, in order.
    """

    target: str
    tried: str
    faithful: dict[str, int]
    misfits: list[Mismatch]
    left_out: list[str] = field(default_factory=list)

    @property
    def runs(self) -> bool:
        """Whether the target runs the network at all."""
        return all(one.level != "unsupported" for one in self.misfits)


def fit(graph: nir.NIRGraph, target: Target, more: list[Mismatch] | None = None) -> Suitability:
    """Everything that does not fit; `more` is what could not be written into the graph in the first place."""
    found = [*(more or []), *_misfits(graph, target)]
    found.sort(key=lambda one: one.level == "approximate")
    odd = {name for one in found for name in (one.node, *one.more)}
    kinds = Counter(type(node).__name__ for name, node in graph.nodes.items() if name not in odd)
    return Suitability(target.name, target.tried, dict(sorted(kinds.items())), found)


def elsewhere(graph: nir.NIRGraph) -> str:
    """A hint: the targets that do all that this graph asks for."""
    rules = [rule for rule in RULES if rule is not _rounded]
    able = [one.name for one in TARGETS.values() if one.reader and not any(any(rule(graph, one, "")) for rule in rules)]
    return f"--target {' or '.join(able)}" if able else "--target nir, and a reader of your own"


def _misfits(graph: nir.NIRGraph, target: Target) -> Iterator[Mismatch]:
    other = elsewhere(graph)
    for rule in RULES:
        yield from rule(graph, target, other)


def _of(graph: nir.NIRGraph, *kinds: type) -> list[tuple[str, Any]]:
    return [(name, node) for name, node in graph.nodes.items() if isinstance(node, kinds)]


def _alike(level: Level, nodes: list[tuple[str, Any]], why: str, hint: str) -> Iterator[Mismatch]:
    """One row for nodes of which the same is true: the first, and how many more."""
    if nodes:
        (name, node), *rest = nodes
        told = f"; so do {len(rest)} more" if rest else ""
        yield Mismatch(level, name, type(node).__name__, f"{why}{told}", hint, tuple(other for other, _ in rest))


def _kinds(graph: nir.NIRGraph, target: Target, other: str) -> Iterator[Mismatch]:
    for name, node in graph.nodes.items():
        # An `I` is written for targets that ask for it alone (`Target.total`).
        if type(node).__name__ not in target.reads and not isinstance(node, nir.I):
            yield Mismatch("unsupported", name, type(node).__name__, f"{target.name} reads no such node", other)


def _thresholds(graph: nir.NIRGraph, target: Target, other: str) -> Iterator[Mismatch]:
    if target.threshold == "layer":
        several = [(name, node) for name, node in _of(graph, nir.IF) if np.unique(node.v_threshold).size > 1]
        why = f"its neurons have several thresholds, and {target.name} takes one a layer"
        yield from _alike("unsupported", several, why, "no --fixed-point: then every threshold is 1")


def _reset(graph: nir.NIRGraph, target: Target, other: str) -> Iterator[Mismatch]:
    if target.reset == "zero":
        why = f"a spike takes the threshold from its potential, and {target.name} sets it to 0"
        yield from _alike("approximate", _of(graph, nir.IF), why, other)


def _start(graph: nir.NIRGraph, target: Target, other: str) -> Iterator[Mismatch]:
    if not target.start:
        begun = [(name, node) for name, node in _of(graph, nir.IF) if np.any(node.metadata.get("v0", 0))]
        why = f"its potentials start above 0, and {target.name} starts all at 0"
        integers = "no --fixed-point, and " if any((node.v_threshold != 1).any() for _, node in begun) else ""
        yield from _alike("approximate", begun, why, f"{integers}--recipe opi --set set-initial-potential.rule=zero")


def _rounded(graph: nir.NIRGraph, target: Target, other: str) -> Iterator[Mismatch]:
    moved = [(name, node) for name, node in _of(graph, nir.IF) if node.metadata.get("rounded")]
    why = "its thresholds moved into float weights, which rounds these: a spike in thousands may differ"
    # Fixed point puts what its grid leaves over into the potentials at the start.
    whole = target.threshold == "neuron" and target.start
    exact = "--fixed-point" if whole else "--set insert-neurons.powers=true"
    yield from _alike("approximate", moved, why, exact)


def _branches(graph: nir.NIRGraph, target: Target, other: str) -> Iterator[Mismatch]:
    if target.branches:
        return
    for place, what in ((0, "feeds"), (1, "reads")):
        for name, many in Counter(edge[place] for edge in graph.edges).items():
            if many > 1:
                why = f"it {what} {many} nodes, and {target.name} takes chains"
                yield Mismatch("unsupported", name, type(graph.nodes[name]).__name__, why, other)


def _bias(graph: nir.NIRGraph, target: Target, other: str) -> Iterator[Mismatch]:
    if not target.conv_bias:
        shifted = [(name, node) for name, node in _of(graph, nir.Conv1d, nir.Conv2d) if np.any(node.bias)]
        yield from _alike("unsupported", shifted, f"it has a bias, and {target.name} takes none there", other)


def _bits(graph: nir.NIRGraph, target: Target, other: str) -> Iterator[Mismatch]:
    if target.bits is None:
        return
    top = 2 ** (target.bits - 1)
    wide = [(n, one) for n, one in _of(graph, *WEIGHTS) if np.abs(one.weight).max() >= top or np.any(one.weight % 1)]
    why = f"its weights are no integers of {target.bits} bits, and {target.name} rounds them"
    hint = f"--fixed-point {target.bits}" if target.threshold == "neuron" else other
    yield from _alike("approximate", wide, why, hint)


def _ends(graph: nir.NIRGraph, target: Target, other: str) -> Iterator[Mismatch]:
    fed = {name: [b for a, b in graph.edges if a == name] for name in graph.nodes}
    if not target.analog:
        why = f"it feeds numbers into {' and '.join(fed['input'])}, and {target.name} takes spikes"
        yield Mismatch("unsupported", "input", "Input", why, other)
    if not target.readout:
        last = [a for a, b in graph.edges if b == "output" and not isinstance(graph.nodes[a], nir.IF)]
        why = f"it stands behind the last neuron, and {target.name} gives spikes out"
        yield from _alike("unsupported", [(name, graph.nodes[name]) for name in last], why, other)


def _stacked(graph: nir.NIRGraph, target: Target, other: str) -> Iterator[Mismatch]:
    if target.stacked:
        return
    for a, b in graph.edges:
        if isinstance(graph.nodes[a], WEIGHTS) and isinstance(graph.nodes[b], WEIGHTS):
            why = f"its weights follow those of '{a}' without a neuron between, which {target.name} refuses"
            yield Mismatch("unsupported", b, type(graph.nodes[b]).__name__, why, other)


def _maps(graph: nir.NIRGraph, target: Target, other: str) -> Iterator[Mismatch]:
    if not target.maps:
        flat = [(name, node) for name, node in _of(graph, nir.IF) if node.v_threshold.ndim > 1]
        yield from _alike("unsupported", flat, f"its neurons are a map, and {target.name} takes vectors", other)


def _memory(graph: nir.NIRGraph, target: Target, other: str) -> Iterator[Mismatch]:
    if target.memory:
        for name, node in _of(graph, nir.Conv2d):
            for why in over(node):
                yield Mismatch("unsupported", name, "Conv2d", why, "fewer channels, or a smaller input")


Rule = Callable[[nir.NIRGraph, Target, str], Iterator[Mismatch]]
RULES: tuple[Rule, ...] = (
    _kinds, _thresholds, _branches, _bias, _ends, _stacked, _maps, _memory, _reset, _start, _bits, _rounded,
)  # fmt: skip
