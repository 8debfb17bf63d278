"""A spiking network whose thresholds mean nothing: what can be told of one before a minute of calibration is spent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import fx

from snnc.ir.graph import entries, numbers
from snnc.ir.whole import noise as random_samples
from snnc.passes import FixedPoint, InsertNeurons, PiecewiseActivations, ScaleThresholds, SetInitialPotential
from snnc.passes.pipeline import Context, Pipeline, Result
from snnc.recipes import Recipe
from snnc.structure import Shape, cast, changed

Shapes = dict[fx.Node, tuple[int, ...]]


def rough(graph: fx.GraphModule, shapes: Shapes, chosen: Recipe, T: int = 1) -> Result:
    """The passes that decide what a network is made of, on noise, since bounds and errors do not matter here.

    Raises:
        SnncError: a pass that cannot work on this network.
    """
    passes = [one for one in chosen.pipeline if not isinstance(one, ScaleThresholds)]
    end = next(i for i, one in enumerate(passes) if isinstance(one, InsertNeurons)) + 1
    several = [replace(one, pieces=1, per="layer") if isinstance(one, PiecewiseActivations) else one for one in passes]
    several[end:] = [one for one in passes[end:] if isinstance(one, SetInitialPotential)]
    shape = entered(graph, shapes)
    like = numbers(graph)
    noise = changed(lambda one: cast(one, like), random_samples(graph, 2, shape))
    found = Pipeline(tuple(several)).run(graph, _context(T, shape, [noise]))
    if fixed := tuple(one for one in chosen.pipeline if isinstance(one, FixedPoint)):
        found = Pipeline(fixed).run(found.graph, _context(T, shape, None), found.stage)
    return found


def entered(graph: fx.GraphModule, shapes: Shapes) -> Any:
    """The shape of one sample of the input, of several one each."""
    given = tuple(shapes[node] for node in entries(graph))
    return given if len(given) > 1 else given[0]


def _context(T: int, shape: Shape, data: Any) -> Context:
    return Context(T=T, calibration=data, input_shape=shape)
