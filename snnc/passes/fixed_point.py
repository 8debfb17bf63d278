"""Every current on an integer grid, so that spikes are the same wherever they are computed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from snnc.errors import SnncError
from snnc.integers.lowering import IntegerLowering
from snnc.integers.populations import Populations
from snnc.integers.prepare import prepare
from snnc.integers.roles import ROLES
from snnc.ir.dialect import Affine, Grid
from snnc.ir.frames import takes_frames
from snnc.ir.graph import Stage, calls, enters, entries, module_of
from snnc.ir.neurons import Neuron
from snnc.ir.proof import bounded, prove
from snnc.ir.shapes import Shape, every_shape
from snnc.ir.spans import LIMIT, Row
from snnc.ir.temporal import Restart
from snnc.ir.whole import places
from snnc.passes.pipeline import Context, Pass, no_progress
from snnc.structure import joined, shape_of

LEAST_BITS = 2
UNKNOWN = 4.0  # inputs without data are taken to lie in -4..4, as normalised ones do
TIE = 1e-3  # of a unit: nearer than this to the middle between two points, rounding errors decide


@dataclass(frozen=True)
class FixedPoint(Pass):
    """Makes every number of a spiking network an integer, in float32 and below 2^24: fixed point.

    Weights have `bits` bits, sign included, and a grid for each output channel; a layer absorbs the grid of its
    input. Biases, thresholds and initial potentials are integers on the grid of their current, and neurons emit the
    number of their spikes. Where that grid would be coarse (a threshold of less than 256 units), the weights of an
    output are integers of `bits` bits times a power of two. The operands of a join share a grid: identity branches
    are multiplied by an integer of 15 bits at most. Average pools become sums. The input lies on a grid as fine as
    8-bit images are. What is linear behind the last neuron moves into time; the readout is a sum of integers, one
    division and one factor for each class.

    With calibration data weights are rounded one after the other, so that those left make up for the error of those
    before, and the mean error of every current, on the spikes that reach the layer, goes into its bias, and what is
    less than one unit into the initial potential. Without, each number is rounded by itself.

    That no integer reaches 2^24 is proved from the graph (`snnc.ir.proof`). Where it fails the layers that feed the sum
    have coarser units first, and then fewer bits; the record says which have fewer.

    Options:
        bits: of a weight, 4 to 16.
        input_bits: of the input, over the range of the calibration data.
        samples: calibration samples at most.
        positions: equations for each layer, drawn over samples and positions.
    """

    name = "fixed-point"
    takes = (Stage.SPIKING,)
    gives = Stage.FIXED
    uses = (Context.input_range,)
    changes_units = "currents"
    source = "ours; rounding: GPTQ (arXiv 2210.17323); bias correction: Nagel et al., ICCV 2019 (arXiv 1906.04721)"

    bits: int = 8
    input_bits: int = 8
    samples: int = 256
    positions: int = 20000

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("bits", 4 <= self.bits <= 16, "4 to 16")
        self.require("input_bits", 2 <= self.input_bits <= 11, "2 to 11")
        self.require("samples", self.samples >= 1, "1 or more")
        self.require("positions", self.positions >= 2, "2 or more")

    def rows(self, context: Context) -> int:
        return (context.seen(self.samples) if context.calibration else 1) * context.T

    def apply(self, graph: fx.GraphModule, context: Context) -> int:
        for node, module in calls(graph, Restart):
            ROLES.at(node.name, module.body)  # refuses what starts anew and is no max pool
        if len(entries(graph)) > 1 or places(graph):
            raise SnncError(
                "the network has several inputs, or one of whole numbers, and integers have one grid for the input.",
                "the network without --fixed-point",
            )
        x: Any = context.example(graph)
        if x is None:
            raise SnncError("the shape of the input is unknown.", "--input-shape, such as --input-shape 3,32,32")
        prepare(graph, x)
        known = {node.name: shape for node, shape in every_shape(graph, shape_of(x)).items()}
        grid = self._input(graph, context, known)
        less: dict[str, int] = {}
        coarser: dict[str, int] = {}
        found = self._lowered(graph, (x[:1], known, grid, False), less, coarser, no_progress, context)
        if context.calibration:
            data: Any = joined(context.calibration)[: self.samples]
            context.notes.append(f"on {len(data)} samples")
            found = self._lowered(graph, (data, known, grid, True), less, coarser, context.track, context)
        become(graph, found.graph)
        rows = prove(graph)
        self._tell(rows, found, less, context)
        return len(rows)

    def _lowered(
        self,
        graph: fx.GraphModule,
        given: tuple[Tensor, dict[str, Shape], Grid, bool],
        less: dict[str, int],
        coarser: dict[str, int],
        track: Callable[..., Iterator[Any]],
        context: Context,
    ) -> IntegerLowering:
        """Lowers a copy until all bounds hold: layers have coarser units (`coarser`), then fewer bits (`less`)."""
        x, known, grid, data = given
        while True:
            work = copy.deepcopy(graph)
            walk = IntegerLowering(
                work, known, copy.deepcopy(grid), x, data, self.bits, less, coarser, self.positions, context.seed,
                context.memory,
            )  # fmt: skip
            walk.run(track)
            large = {row.name: row.bound for row in bounded(work) if row.bound >= LIMIT}
            if not large:
                return walk
            nodes = {node.name: node for node in work.graph.nodes}
            multiplied = {node.name for node, multiple in walk.populations.multiple.items() if (multiple > 1).any()}
            fewer: set[str] = set()
            halved: set[str] = set()
            for name, bound in large.items():
                feeding = set(_feeding(work, nodes[name], {node.name for node in walk.most}))
                if feeding & multiplied:
                    halved |= feeding & multiplied
                    continue
                spare = [one for one in feeding if self.bits - less.get(one, 0) > LEAST_BITS]
                if not spare:
                    raise SnncError(
                        f"'{name}' may reach {bound:,} with {LEAST_BITS} bits for each weight before it; float32 is "
                        f"exact below 2^24 = {LIMIT:,}.",
                        "fewer time steps, or a recipe that streams",
                    )
                fewer.update(spare)
            coarser.update({one: coarser.get(one, 0) + 1 for one in halved})
            less.update({one: less.get(one, 0) + 1 for one in fewer})

    def _input(self, graph: fx.GraphModule, context: Context, known: dict[str, Shape]) -> Grid:
        """The grid of the input: one a channel where channels stay apart, over the range that the data has."""
        node = next(node for node, module in calls(graph, Affine) if enters(graph, node.all_input_nodes[0]))
        points = 2**self.input_bits - 1
        if not context.calibration:
            start, end = context.find(Context.input_range) or (-UNKNOWN, UNKNOWN)
            context.notes.append(f"no data was seen: the input is taken to lie in {start:g}..{end:g}")
            ends = torch.tensor([start, end], dtype=torch.float64)
            return _grid(points / (ends[1] - ends[0]), ends[0], ends[1])
        batches: list[Any] = list(context.calibration)
        if takes_frames(graph):
            batches = [x.flatten(0, 1) for x in batches]
        dims = batches[0].dim()
        apart = dims > 2 and not Populations(graph, known, torch.tensor(1.0)).mixed(node)

        def rows(x: Tensor) -> Tensor:
            return x.double().transpose(0, 1).flatten(1) if apart else x.double().flatten()[None]

        least = torch.stack([rows(x).amin(1) for x in batches]).amin(0)
        most = torch.stack([rows(x).amax(1) for x in batches]).amax(0)
        low, high, span = least.clamp_max(0), most.clamp_min(0), most - least
        scale = points / torch.where(span > 0, span, torch.maximum(high - low, torch.ones_like(low)))
        ties = sum(int((((rows(x) * scale[:, None]).frac().abs() - 0.5).abs() < TIE).sum()) for x in batches)
        if ties > 0.1 * sum(x.numel() for x in batches):
            scale = 2 * scale
            context.notes.append("the input is half-way between points of its grid, which is made twice as fine")
        shape = (-1, *[1] * (dims - 2)) if apart else ()
        return _grid(scale.reshape(shape), low.reshape(shape), high.reshape(shape))

    def _tell(self, rows: list[Row], found: IntegerLowering, less: dict[str, int], context: Context) -> None:
        worst = min(rows, key=lambda row: row.headroom)
        context.notes.append(
            f"proved: no integer of {len(rows)} layers reaches 2^24; the largest is {worst.bound:,} at '{worst.name}' "
            f"({worst.headroom:.1f} bits below)"
        )
        fewer = {name: bits for name, bits in less.items() if bits}
        if fewer:
            first = next(iter(fewer))
            context.notes.append(
                f"{len(fewer)} layers have fewer than {self.bits} bits, so that the bound holds (the first: "
                f"'{first}', {self.bits - fewer[first]})"
            )
        name = min(found.thetas, key=lambda one: found.thetas[one])
        context.notes.append(f"the least threshold is {found.thetas[name]} units, at '{name}'")


def _grid(scale: Tensor, low: Tensor, high: Tensor) -> Grid:
    ends = (low.double() * scale).round().min(), (high.double() * scale).round().max()
    return Grid(scale.float(), min(0, int(ends[0])), max(0, int(ends[1])))


def _feeding(graph: fx.GraphModule, node: fx.Node, layers: set[str]) -> list[str]:
    """Layers and factors whose integers add up to a node's, its own included; neurons before it end the way back."""
    module = module_of(graph, node) if node.op == "call_module" else None
    widens = node.name in layers or (isinstance(module, Affine) and bool((module.scale.abs() > 1).any()))
    before = [one for one in node.all_input_nodes if one.op == "call_module"]
    found = [one for one in before if not isinstance(module_of(graph, one), Neuron)]
    return [node.name] * widens + [name for one in found for name in _feeding(graph, one, layers)]


def become(graph: fx.GraphModule, other: fx.GraphModule) -> None:
    """Gives `graph` the nodes and modules of `other`, which is not used again."""
    for name, _ in list(graph.named_children()):
        delattr(graph, name)
    for name, module in other.named_children():
        graph.add_module(name, module)
    graph.graph = other.graph
