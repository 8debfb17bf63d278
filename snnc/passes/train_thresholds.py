"""Thresholds against the mean unevenness of every channel."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from snnc.calibrate.sweep import channel_sums
from snnc.checks import MOST, MOST_ROUNDS
from snnc.ir.exchange import set_time, swap_neurons
from snnc.ir.graph import Stage, calls
from snnc.ir.neurons import IF, AverageIF, Neuron
from snnc.passes.normalize_thresholds import multiply_behind
from snnc.passes.pipeline import Context, Pass
from snnc.processes import Shards
from snnc.structure import Samples, each

LEAST = 0.05  # of the height of a spike; a threshold at zero would fire for ever
PART = 16  # samples of a batch that a process takes at a time


@dataclass(frozen=True)
class TrainThresholds(Pass):
    """Makes every neuron a streaming `IF`, and trains its thresholds until it fires as often as an `AverageIF`.

    Two networks with the same weights see the same batch: one of `AverageIF` neurons, fed by each other, which knows
    no unevenness, and one of `IF` neurons. After each batch, in every layer and channel at once,

        theta_c <- theta_c - eta (mean of the first's output - mean of the second's)

    over samples, positions and steps: channel-wise threshold training (CTT), without gradients and labels. In the
    paper's unit, spikes a step, the difference is diff_c times the height of a spike, M = T / N.

    Only the point where a neuron fires moves, and what is subtracted then. Its spikes keep their height: a
    factor height / theta_c goes into the weights behind, or stays as an `Affine` where no layer can take it. What is
    found holds at this T alone. At T = 1 both networks are one.

    Options:
        eta: step size; the paper's is 0.01 to 0.1, over a whole training set.
        epochs: passes over the calibration data; the paper's is 1.
    """

    name = "train-thresholds"
    takes = (Stage.SPIKING,)
    spoils = (Context.reference,)  # it is in the unit that was, and no calibration may compare with it
    neuron = IF
    changes_units = "spikes"
    source = "CTT: Yan, Zhou, Wong (arXiv 2211.08410), rule of the released code"

    eta: float = 0.1
    epochs: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("eta", 0 < self.eta < math.inf, "a number above 0, such as 0.1")
        self.require("epochs", 1 <= self.epochs <= MOST_ROUNDS, f"1 to {MOST_ROUNDS}")

    def rows(self, context: Context) -> int:
        return self.epochs * context.seen(MOST) * context.T

    def apply(self, graph: fx.GraphModule, context: Context) -> int:
        batches = context.data(f"Pass '{self.name}'")
        set_time(graph, context.T)
        swap_neurons(graph, lambda node, theta, v0: IF(context.T, theta, v0))
        even = copy.deepcopy(graph)
        swap_neurons(even, lambda node, theta, v0: AverageIF(context.T, theta, v0))
        height = {node.name: neuron.theta for node, neuron in calls(graph, Neuron)}
        wanted = [_Outputs(even, height).of(x) for x in context.track(batches, "average spike generation")]
        rounds = [pair for _ in range(self.epochs) for pair in zip(batches, wanted, strict=True)]
        run, missed = _Outputs(graph, height), []
        for x, goal in context.track(rounds, "training thresholds"):
            found = run.of(x)
            for node, neuron in calls(graph, Neuron):
                short = goal[node.name] - found[node.name]
                neuron.theta = torch.maximum(neuron.theta - self.eta * short, height[node.name] * LEAST)
            missed.append(sum(float((goal[k] - found[k]).abs().mean()) for k in goal) / len(goal))
        moved = 0
        for node, neuron in calls(graph, Neuron):
            gain = height[node.name] / neuron.theta
            if (gain == 1).all():
                neuron.theta = height[node.name]
                continue
            multiply_behind(graph, node, gain)
            moved += 1
        count = len(batches)
        first, last = (sum(part) / count for part in (missed[:count], missed[-count:]))
        context.notes.append(
            f"mean error of a channel's output: {first:.2g} in the first pass over {sum(map(len, batches))} samples, "
            f"{last:.2g} in the last"
        )
        return moved


class _Outputs(fx.Interpreter):
    """Runs a spiking graph whose spikes have the heights given, whatever the thresholds are."""

    def __init__(self, graph: fx.GraphModule, height: dict[str, Tensor]) -> None:
        super().__init__(graph)
        self.height = height
        self.sums: list[Tensor] = []

    def of(self, x: Samples) -> dict[str, Tensor]:
        """Mean output of every channel `[C, 1, ...]`, by neuron layer; processes share the batch."""
        shards = Shards.of(len(x), PART)
        parts = shards.deal(x)

        def sums(i: int) -> tuple[Tensor, ...]:
            self.sums = []
            self.run(*each(parts[i]))
            return tuple(self.sums)

        found = shards.total(sums)
        totals, counts, likes = found[::3], found[1::3], found[2::3]
        named = zip(self.height, totals, counts, likes, strict=True)
        return {name: (total / count).to(like) for name, total, count, like in named}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self.height:
            value = value * (self.height[n.name] / self.fetch_attr(str(n.target)).theta)
            self.sums.extend(channel_sums(value))
        return value
