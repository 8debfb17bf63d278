"""The part of a fixed-point network that an ONNX file computes with integers: counts of spikes, in bytes.

A value inside time may be written in three forms, all `[T * B, ...]`:

    steps     what a step gives, float32; images have their channels first. The form of all other files.
    counts    how many spikes there were up to a step, bytes from 0 to 127; images have their channels last.
    sums      the sum of a current up to a step, float32; images have their channels last. What is added whatever the
              input is (biases, currents of steps) is kept beside it.

Layers are linear and so is a sum over time, so a layer makes sums out of counts as it makes currents out of spikes. A
neuron makes counts out of sums (`count_texts`): its sum in 8 bits is all that it needs (`levels`), which is what
`QLinearConv` gives, the fastest convolution that onnxruntime has on a CPU. Products have bytes of at most 127 on either
side, so that processors which add two of them in 16 bits are exact as well.

Sums are written when somebody asks for them. What has no form here is written as steps, as in any file.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.backends.onnx import count_layers as layers
from snnc.backends.onnx.block import Block
from snnc.backends.onnx.count_joins import Summand, merged
from snnc.backends.onnx.count_layers import CountSite
from snnc.backends.onnx.count_neurons import kind_of
from snnc.backends.onnx.functions import Library
from snnc.backends.onnx.levels import levels
from snnc.errors import VerifyError
from snnc.ir import dialect
from snnc.ir.graph import module_of, steps
from snnc.ir.neurons import Neuron, WaitingIF
from snnc.ir.proof import bounded
from snnc.ir.shapes import Shapes
from snnc.ir.spans import LIMIT
from snnc.ir.temporal import Encode, RunningMax, StepCurrent
from snnc.runtime.counts import COUNTS, MOVES
from snnc.runtime.cpu.integer import MOST

Emit = Callable[[fx.Node, list[str], str, str], str]  # writes a module on the values given; its name and label


@dataclass(frozen=True)
class Counted:
    """A value in counts: its name, and the largest count."""

    name: str
    most: int


@dataclass(frozen=True)
class Sums:
    """A value in sums.

    Attributes:
        write: writes it and gives its name, the second time the same.
        charge: what is still to be added up to each step, float64 `[T, C]`; None where nothing is.
        terms: the layers and factors that it is the sum of, where it is one of them and nobody else reads it.
        steady: writes the current of one step `[B, ...]`, where all steps have the same.
    """

    write: Callable[[], str]
    charge: Tensor | None = None
    terms: tuple[Summand, ...] = ()
    steady: Callable[[], str] | None = None

    def charged(self, more: Tensor) -> Sums:
        """The same with more that is to be added."""
        return replace(self, charge=more if self.charge is None else self.charge + more)


class Counting:
    """Which values of one network are counts or sums, as a file is written.

    Args:
        graph: the network.
        shapes: of its values.
        block: what is written into.
        library: the functions of the file.
        source: gives the name of a value from before time.
        step: gives the name of a value by step, for one of those that read it.
        emit: writes a module as in any file.
    """

    def __init__(
        self,
        graph: fx.GraphModule,
        shapes: Shapes,
        block: Block,
        library: Library,
        source: Callable[[fx.Node], str],
        step: Callable[[fx.Node, fx.Node], str],
        emit: Emit,
    ) -> None:
        self.graph, self.shapes, self.block, self.library = graph, shapes, block, library
        self.source, self.step, self.emit = source, step, emit
        self.T = steps(graph)
        self.counts: dict[fx.Node, Counted] = {}
        self.sums: dict[fx.Node, Sums] = {}
        try:
            self.bounds = {row.name: row.bound for row in bounded(graph)}
        except VerifyError:  # no network of integers: nothing is counted
            self.bounds = {}

    def take(self, node: fx.Node, out: str) -> bool:
        """Writes a node's value as counts, or keeps in mind how to write it as sums; False if it has neither form."""
        shape = self.shapes.shape(node)
        row = next((row for kinds, row in FORMS.items() if isinstance(module_of(self.graph, node), kinds)), None)
        return bool(self.bounds) and shape is not None and row is not None and row(self, node, out)

    def steps_of(self, node: fx.Node, out: str) -> str:
        """A value of either form, by step."""
        name = self.counts[node].name if node in self.counts else self._whole(node)
        return self.turned(node, self.block.call("Spikes", name, out=out, T=self.T), first=True)

    def turned(self, node: fx.Node, name: str, first: bool) -> str:
        """A value with its channels first, of one that has them last, or the other way; only images have any."""
        if len(self.shapes.shape(node) or ()) != 3:
            return name
        perm, word = ([0, 3, 1, 2], "first") if first else ([0, 2, 3, 1], "last")
        return self.block.op("Transpose", name, out=f"{name}.{word}", perm=perm)

    def channels(self, node: fx.Node) -> int:
        """How many channels or features a sample has."""
        return (self.shapes.shape(node) or (0,))[0]

    def fits(self, node: fx.Node) -> bool:
        """Whether its sums over all steps are proved to be exact, and its samples have one of the usual forms."""
        bound = self.bounds.get(node.name, LIMIT)
        return bound * self.T < LIMIT and len(self.shapes.shape(node) or ()) in (1, 3)

    def summed(self, node: fx.Node) -> Sums | None:
        """A value in sums, if it has that form or is counts."""
        if node not in self.counts:
            return self.sums.get(node)
        one = self.counts[node].name
        write = functools.cache(lambda: self.block.op("Cast", one, out=f"{node.name}.sums", to=1))
        return Sums(write, terms=self.factor(node, torch.ones(self.channels(node), dtype=torch.float64)))

    def added(self, node: fx.Node, reader: fx.Node) -> Sums | None:
        """A current that has no other form than that of steps, summed."""
        if not self.fits(node):
            return None

        def write() -> str:
            last = self.turned(node, self.step(node, reader), first=False)
            steps = self.block.call("Unfold", last, out=f"{node.name}.steps", T=self.T)
            return self.block.call("Sums", steps, out=f"{node.name}.sums")

        return Sums(functools.cache(write))

    def factor(self, node: fx.Node, scale: Tensor) -> tuple[Summand, ...]:
        """Counts times a factor `[C]`, as a layer."""
        shape, given = self.shapes.shape(node) or (), self.counts[node]
        return (Summand(given.name, given.most, shape, torch.diag(scale)[:, :, None, None]),) if len(shape) == 3 else ()

    def _whole(self, node: fx.Node) -> str:
        """Sums with all that belongs to them."""
        found = self.sums[node]
        if found.charge is None:
            return found.write()
        charge = self.block.const(f"{node.name}.charges", self.spread(node, found.charge))
        return self.block.call("StepCurrent", found.write(), charge, out=f"{node.name}.charged", T=self.T)

    def spread(self, node: fx.Node, per_channel: Tensor) -> Tensor:
        """Numbers `[T, C]` so that they broadcast to `[T, B, ...]` without the batch."""
        ones = [1] * (len(self.shapes.shape(node) or ()) - 1)
        return per_channel.reshape(self.T, *ones, -1)

    def call(self, node: fx.Node, out: str) -> CountSite:
        """Where a layer is written."""
        sizes = self.shapes.shape(node) or ()
        sample = [*sizes[1:], sizes[0]]
        return CountSite(self.block, self.library, node.name, out, self.T, sample)


def _neuron(all: Counting, node: fx.Node, out: str) -> bool:
    m, (source,) = module_of(all.graph, node), node.all_input_nodes
    kind, shape = kind_of(m), all.shapes.shape(node) or ()
    current = all.summed(source) or all.added(source, node)
    if kind is None or current is None or len(shape) not in (1, 3) or kind[0] * m.T > MOST:
        return False
    theta, v0 = (_per_channel(value, all.channels(node), len(shape)) for value in (m.theta, m.v0))
    if theta is None or v0 is None or (found := levels(theta, kind[0] * m.T)) is None:
        return False
    scale, offset = found
    charge = v0 + offset + (0 if current.charge is None else current.charge) + torch.zeros(m.T, 1)
    clock = torch.arange(1, m.T + 1)
    if isinstance(m, WaitingIF):
        clock = (clock + m.wait).clamp_max(m.T)
        charge = charge[clock - 1]
    call = replace(all.call(node, out), neuron=type(m).__name__, kind=kind, scale=scale, charge=charge, clock=clock)
    if current.terms and (whole := merged(current.terms)):
        name = layers.layer(call, whole)
    elif current.steady and bool((charge == charge[0]).all()) and not isinstance(m, WaitingIF):
        name = layers.steady(replace(call, charge=charge[:1]), current.steady())
    else:
        name = layers.neurons(call, current.write())
    all.counts[node] = Counted(name, kind[0] * m.T)
    return True


def _per_channel(value: Tensor, channels: int, rank: int) -> Tensor | None:
    """Numbers `[]` or `[C, 1, ...]` as float64 `[C]`; None for others."""
    value = value.detach().cpu().double()
    if value.numel() == 1:
        return value.reshape(1).expand(channels)
    return value.flatten() if value.shape == (channels, *[1] * (rank - 1)) else None


def _weighted(all: Counting, node: fx.Node, out: str) -> bool:
    m, (source,) = module_of(all.graph, node), node.all_input_nodes
    given = all.counts.get(source)
    if given is None or not all.fits(node) or not layers.takes(m, all.shapes.shape(source) or ()):
        return False
    most = COUNTS(m)(m, [given.most])
    if isinstance(m, nn.Conv2d) and m.bias is None and most is not None and most <= MOST:
        all.counts[node] = Counted(layers.bytes_of(all.call(node, out), m, given.name), most)
        return True
    ramp = None
    if m.bias is not None and bool(m.bias.any()):
        ramp = torch.arange(1, all.T + 1)[:, None] * m.bias.detach().cpu().double()
    call, sizes = all.call(node, f"{out}.sums"), all.shapes.shape(source) or ()
    all.sums[node] = Sums(
        functools.cache(lambda: layers.sums_of(call, m, given.name, sizes)),
        ramp,
        layers.terms(m, given.name, given.most, sizes) if len(node.users) == 1 else (),
    )
    return True


def _encoded(all: Counting, node: fx.Node, out: str) -> bool:
    (source,) = node.all_input_nodes
    if all.bounds.get(source.name, LIMIT) * all.T >= LIMIT or len(all.shapes.shape(node) or ()) not in (1, 3):
        return False
    last = functools.cache(lambda: all.turned(node, all.source(source), first=False))
    call = all.call(node, f"{out}.sums")
    all.sums[node] = Sums(functools.cache(lambda: layers.ramp(call, last())), steady=last)
    return True


def _stepped(all: Counting, node: fx.Node, out: str) -> bool:
    m, (source,) = module_of(all.graph, node), node.all_input_nodes
    current = all.summed(source)
    shape = all.shapes.shape(node) or ()
    rows = [_per_channel(one, all.channels(node), len(shape)) for one in m.shift]
    if current is None or not all.fits(node) or any(row is None for row in rows):
        return False
    found = current.charged(torch.stack([row for row in rows if row is not None]).cumsum(0))
    all.sums[node] = found if len(node.users) == 1 else replace(found, terms=())
    return True


def _joined(all: Counting, node: fx.Node, out: str) -> bool:
    a, b = (all.summed(source) for source in node.args if isinstance(source, fx.Node))
    if a is None or b is None or not all.fits(node):
        return False
    kind = type(module_of(all.graph, node)).__name__
    charges = [one.charge for one in (a, b)]
    if kind == "Sub" and charges[1] is not None:
        charges[1] = -charges[1]
    here = [charge for charge in charges if charge is not None]
    write = functools.cache(lambda: all.block.op(kind, a.write(), b.write(), out=f"{out}.sums"))
    terms = (*a.terms, *b.terms) if kind == "Add" and a.terms and b.terms and len(node.users) == 1 else ()
    all.sums[node] = Sums(write, sum(here[1:], here[0]) if here else None, terms)
    return True


def _scaled(all: Counting, node: fx.Node, out: str) -> bool:
    m, (source,) = module_of(all.graph, node), node.all_input_nodes
    current = all.summed(source)
    scale = _per_channel(m.scale, all.channels(node), len(all.shapes.shape(node) or ()))
    if current is None or scale is None or bool(m.shift.any()) or not all.fits(node):
        return False
    charge = None if current.charge is None else current.charge * scale
    call = all.call(node, f"{out}.sums")
    given = all.counts.get(source)
    if given is None:
        all.sums[node] = Sums(functools.cache(lambda: layers.scaled(call, current.write(), scale)), charge)
    else:
        terms = all.factor(source, scale) if len(node.users) == 1 else ()
        all.sums[node] = Sums(functools.cache(lambda: layers.scaled_counts(call, given.name, scale)), terms=terms)
    return True


def _moved(all: Counting, node: fx.Node, out: str) -> bool:
    m, sources = module_of(all.graph, node), [n for n in node.args if isinstance(n, fx.Node)]
    if isinstance(m, dialect.Pad) and (m.mode != "constant" or m.value):
        return False

    def write(name: str, given: list[str]) -> str:
        turned = [all.turned(source, one, first=True) for source, one in zip(sources, given, strict=True)]
        images = len(all.shapes.shape(node) or ()) == 3
        made = all.emit(node, turned, f"{name}.moved" if images else name, f"{name}.moved" if images else name)
        return all.turned(node, made, first=False)

    if all_counts := [all.counts[source] for source in sources if source in all.counts]:
        if len(all_counts) < len(sources):
            return False
        all.counts[node] = Counted(write(out, [one.name for one in all_counts]), max(one.most for one in all_counts))
        return True
    if any(source not in all.sums for source in sources):
        return False
    all.sums[node] = Sums(functools.cache(lambda: write(f"{out}.sums", [all._whole(source) for source in sources])))
    return True


def _highest(all: Counting, node: fx.Node, out: str) -> bool:
    """The maximum of the sums is what a `RunningMax` emits in sum."""
    m, (source,) = module_of(all.graph, node), node.all_input_nodes
    given = all.counts.get(source)
    if given is None or not isinstance(m.pool, nn.MaxPool2d) or m.pool.ceil_mode or m.pool.dilation not in (1, (1, 1)):
        return False
    all.counts[node] = Counted(layers.highest(all.call(node, out), m.pool, given.name), given.most)
    return True


FORMS: dict[Any, Callable[[Counting, fx.Node, str], bool]] = {
    Neuron: _neuron,
    (nn.Conv2d, nn.Linear): _weighted,
    Encode: _encoded,
    StepCurrent: _stepped,
    (dialect.Add, dialect.Sub): _joined,
    dialect.Affine: _scaled,
    (*MOVES, dialect.Pad): _moved,
    RunningMax: _highest,
}
