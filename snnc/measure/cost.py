"""What compiling will take, before it is done: time and memory, from the network's shapes and a few samples."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import fx

from snnc.calibrate.limit import BESIDE, allowed, sharded
from snnc.ir.graph import entries, numbers
from snnc.ir.whole import noise
from snnc.passes.choices import HELD, LEAST, SAMPLES
from snnc.passes.sweeping import SweepPass
from snnc.recipes import Recipe
from snnc.structure import cast, each

Shape = tuple[int, ...]

# In runs of the ANN over the same samples. Measured on ResNet-8 and ResNet-20 (CIFAR-10) and DS-CNN (keywords), on one
# core: the sums are within a factor of two.
STATISTICS = 6.0  # bounds and thresholds
SWEEP, SWEEP_STEP = 6.0, 2.5  # a sweep, and each time step of it
HELD_STEP = 1.5  # a step of a spiking network that is only run
ALONE = 0.4e9  # bytes that torch and snnc take before the first sample
RUNS, PATIENCE = 8, 1.0  # runs of the ANN that are timed, and seconds for all of them
TIMED = 2**22  # values of the largest layer in such a run, at most
BATCH = 64  # samples of the ANN in memory at once


@dataclass(frozen=True)
class Estimate:
    """What a compilation takes, to within a factor of about two.

    Attributes:
        recipe: by name.
        T: time steps.
        samples: calibration samples.
        seconds: on this machine, with the threads that torch has now.
        bytes: of memory, at the most; that of values not beyond half of what is free, where `snnc.compile` is not told
            otherwise.
    """

    recipe: str
    T: int
    samples: int
    seconds: float
    bytes: float


def estimate(graph: fx.GraphModule, shapes: Mapping[fx.Node, Shape], recipe: Recipe, T: int, samples: int) -> Estimate:
    """Estimates what `snnc.compile` takes.

    Args:
        graph: the network, of stage `ANN`.
        shapes: of every value, for one sample.
        recipe: that is to be taken.
        T: time steps.
        samples: calibration samples; those of a recipe without data are none.
    """
    sweeps = [one for one in recipe.pipeline if isinstance(one, SweepPass)]
    once_through = _seconds(graph, shapes)
    largest = 4 * max(map(math.prod, shapes.values()))
    samples = samples if recipe.needs_data else 0
    once = len(sweeps) * (SWEEP + SWEEP_STEP * T)
    runs = STATISTICS * max(samples, 1) + once * samples
    if samples >= LEAST and recipe.choices:
        given = min(SAMPLES, samples // 2)
        held = min(HELD, samples - given)
        tried = sum(len(values) for options in recipe.choices.values() for values in options.values())
        resweeps = sum(
            len(values) for name, options in recipe.choices.items() for values in options.values()
            if any(one.name == name for one in sweeps)
        )  # fmt: skip
        runs += resweeps * once * given + tried * HELD_STEP * T * held
    weights = 4 * sum(value.numel() for value in (*graph.parameters(), *graph.buffers()))
    alone, alive = ALONE + 4 * weights, 4 * _alive(graph, shapes)
    taken = alone + BESIDE * largest * max(1, min(samples, BATCH))
    if sweeps and samples:
        shard = sharded(samples, T * largest).sizes[0]
        taken = max(taken, alone + BESIDE * T * largest * shard)
        taken += min(alive * samples * (T + 1), max(0.0, allowed(None) - taken))
    return Estimate(recipe.name, T, samples, once_through * runs, taken)


def _seconds(graph: fx.GraphModule, shapes: Mapping[fx.Node, Shape]) -> float:
    """Seconds that one sample takes in the ANN."""
    like, nodes = numbers(graph), entries(graph)
    count = max(1, min(BATCH, TIMED // max(map(math.prod, shapes.values()))))
    given = tuple(shapes[node] for node in nodes)
    x = [cast(one, like) for one in each(noise(graph, count, given if len(given) > 1 else given[0]))]
    took: list[float] = []
    with torch.no_grad():
        while (
            len(took) < RUNS and sum(took) < PATIENCE
        ):  # the least: the first warms up, and others may want the machine
            start = time.perf_counter()
            graph(*x)
            took.append(time.perf_counter() - start)
    return min(took) / count


def _alive(graph: fx.GraphModule, shapes: Mapping[fx.Node, Shape]) -> int:
    """Numbers of one sample that have to be kept at once, where the graph is walked node by node."""
    last = {source: node for node in graph.graph.nodes for source in node.all_input_nodes}
    alive: dict[fx.Node, int] = {}
    most = 0
    for node in graph.graph.nodes:
        if node.op != "output":
            alive[node] = math.prod(shapes[node])
        most = max(most, sum(alive.values()))
        for source in node.all_input_nodes:
            if last[source] is node:
                del alive[source]
    return most
