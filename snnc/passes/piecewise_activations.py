"""Curved activations to sums of ReLUs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, fx, nn

from snnc.calibrate.nearest import fitted
from snnc.calibrate.observe import histograms_of
from snnc.calibrate.pointwise import Pointwise, find
from snnc.calibrate.ramps import Ramps, exactly
from snnc.errors import SnncError
from snnc.ir.dialect import CONVOLUTIONS, TRANSPOSED, Add, Affine
from snnc.ir.graph import Stage, insert, module_of
from snnc.ir.shapes import every_shape
from snnc.passes.pipeline import Context, Pass
from snnc.structure import shape_of

LAST, WHOLE = "last", "whole"  # where channels lie, other than in dimension 1
MOST_PIECES = 64


@dataclass(frozen=True)
class PiecewiseActivations(Pass):
    """Puts a sum of ReLUs in the place of every curved function of one number that has layers before and behind it.

    A ramp, `clip(x - start, 0, width)`, is one ReLU, clipped where it has an end. A function that is piecewise linear
    is exactly a sum of ramps, one for each piece that is not flat: leaky and parametric ReLU, clamps, hard sigmoid,
    `abs`, soft shrink. Any other continuous one is approximated, with least square error over the values that the
    calibration data gives it; the record has the largest error, and the root of the mean square.

    Everything behind this pass sees ReLUs, factors and sums alone. So neurons can be binary and stream, and fixed
    point and NIR take the network.

    What an author wrote as several operations on one value, such as `x * sigmoid(b * x)`, is one function. Functions
    that jump, and those of several values, such as a gate or a normalisation, stay. So does what stands before the
    first layer or behind the last, which acts once.

    Options:
        pieces: ramps for each function that is approximated, and so its neurons for each value.
        per: a function for each "channel" or one for a "layer".
    """

    name = "piecewise-activations"
    takes = (Stage.FOLDED,)
    source = "ours; knots: de Boor, A Practical Guide to Splines (1978), chapter XII, then Gauss-Newton steps"

    pieces: int = 5
    per: Literal["channel", "layer"] = "channel"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("pieces", 1 <= self.pieces <= MOST_PIECES, f"1..{MOST_PIECES}")

    def apply(self, graph: fx.GraphModule, context: Context) -> int:
        sites = find(graph)
        if not sites:
            return 0
        example = context.example(graph)
        if example is None:
            raise SnncError(
                f"the shape at '{sites[0].node.name}' is unknown.", "--input-shape, such as --input-shape 3,32,32"
            )
        shapes = every_shape(graph, shape_of(example))
        known = [(site, exactly(site.module, 1 + len(shapes[site.node]))) for site in sites]
        found = {site: made for site, made in known if made is not None}
        found |= self._fitted(graph, [site for site in sites if site not in found], shapes, context)
        values = neurons = 0
        errors: dict[str, list[Ramps]] = defaultdict(list)
        for site, made in found.items():
            values += math.prod(shapes[site.node])
            neurons += math.prod(shapes[site.node]) * len(made.ramps)
            errors[site.kind].append(made)
            _lower(graph, site, made)
        context.notes += [_said(kind, errors[kind]) for kind in sorted(errors)]
        if found:
            context.notes.append(f"{neurons} neurons for the {values} values of these activations")
        return len(found)

    def _fitted(
        self, graph: fx.GraphModule, sites: list[Pointwise], shapes: Mapping[fx.Node, tuple[int, ...]], context: Context
    ) -> dict[Pointwise, Ramps]:
        """Approximations, from one sweep over the data."""
        if not sites:
            return {}
        if not context.calibration:
            raise SnncError(
                f"'{sites[0].node.name}' ({sites[0].kind}) needs calibration data, to which its ReLUs are fitted.",
                "some (--calib DATA, or calibration= in Python)",
            )
        roots: dict[fx.Node, list[str]] = defaultdict(list)
        for site in sites:
            roots[site.root].append(site.node.name)
        places = {root: self._place(graph, root, len(shapes[root])) for root in roots}

        def look(node: fx.Node, value: Tensor) -> Tensor:
            place = places[node]
            value = value.movedim(-1, 1) if place == LAST else value.flatten(1)[:, None] if place == WHOLE else value
            return torch.cat([value, -value], 1)  # a histogram is of positive values

        seen = histograms_of(graph, dict(roots), context.track(context.calibration, "observing activations"), look)
        found = {}
        for site in sites:
            made = fitted(site, seen[site.node.name], self.pieces)
            if made is None:
                context.notes.append(f"'{site.node.name}' ({site.kind}) jumps, or is infinite, and stays as it is")
            else:
                found[site] = made.behind(0 if places[site.root] in (LAST, WHOLE) else len(shapes[site.root]) - 1)
        return found

    def _place(self, graph: fx.GraphModule, root: fx.Node, rank: int) -> str:
        """Where the channels of a value lie: in dimension 1 behind a convolution, in the last behind a linear layer."""
        module = module_of(graph, root) if root.op == "call_module" else None
        if self.per == "layer":
            return WHOLE
        if isinstance(module, nn.Linear):
            return LAST
        return "" if rank == 1 or isinstance(module, (*CONVOLUTIONS, *TRANSPOSED)) else WHOLE


def _said(kind: str, made: list[Ramps]) -> str:
    """What a record says of all functions of one kind."""
    counts = sorted({len(one.ramps) for one in made})
    ramps = f"{' or '.join(map(str, counts))} ReLU{'' if counts == [1] else 's'}"
    largest, rms = (
        max(float(v.max()) for v in values) for values in zip(*((m.largest, m.rms) for m in made), strict=True)
    )
    error = f"largest error {largest:.2g}, rms {rms:.2g} over the data" if rms else "exactly"
    return f"{len(made)} {kind} by {ramps}, {error}"


def _lower(graph: fx.GraphModule, site: Pointwise, made: Ramps) -> None:
    """Puts ramps that read the root in the place of a function."""
    end = site.node

    def put(name: str, module: nn.Module, *sources: fx.Node) -> fx.Node:
        return insert(graph, f"{end.name}_{name}", module, *sources, before=end)

    def line(name: str, source: fx.Node, scale: Tensor, shift: Tensor) -> fx.Node:
        scale, shift = scale.float(), shift.float()
        plain = bool((scale == 1).all()) and not shift.any()
        return source if plain else put(name, Affine(scale, shift), source)

    total: fx.Node | None = None
    for i, one in enumerate(made.ramps):
        endless, single = bool(torch.isinf(one.width).any()), one.width.numel() == 1
        unit = torch.ones_like(one.width) if endless or single else one.width  # where widths differ, ramps end at 1
        scale = one.direction / unit
        x = line(f"in{i}", site.root, scale, -one.start * scale)
        top = float(one.width) if single else 1.0
        x = put(f"ramp{i}", nn.ReLU() if endless else nn.Hardtanh(0.0, top), x)
        x = line(f"out{i}", x, one.slope * unit, made.constant if i == 0 else torch.zeros_like(made.constant))
        total = x if total is None else put(f"sum{i}", Add(), total, x)
    assert total is not None
    end.replace_all_uses_with(total)
    graph.graph.erase_node(end)
