"""Which of several recipes suits a network: each is tried on calibration samples, and measured on others held out.

They stand in an order, from the plainest spikes to the richest, and the first that stays close to the best is taken.
How good a recipe is says the share of the held-out samples whose class is the ANN's; where the output is no class
scores, or there are several outputs, the error of `snnc.passes.choices`. Close is what lies within one point, or
within one standard error if that is more, so that chance decides nothing. No labels.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from snnc.calibrate.pointwise import rest
from snnc.errors import PassFailed
from snnc.ir.accounting import curved_inside, share
from snnc.ir.meter import Meter
from snnc.ir.shapes import every_shape
from snnc.passes.choices import BATCH, LEAST, Trials, divided
from snnc.passes.pipeline import Context
from snnc.recipes import Recipe
from snnc.structure import each, joined, leaves, mapped, shape_of

TOLERANCE = 0.01  # of the samples, or of the variance
PRICE = 5.0  # of a multiply-accumulate, in additions


@dataclass(frozen=True)
class Tried:
    """A recipe, and what was found.

    Attributes:
        recipe: its name.
        agreement: percentage of held-out samples whose class is the ANN's; None where the output is no class scores.
        error: how far the outputs are from the ANN's, mean over the held-out samples: see `snnc.passes.choices.apart`.
        cost: of the arithmetic for a sample, in additions: one for each spike and connection and for each neuron and
            step, and five for a multiply-accumulate that no spike drives (4.6 against 0.9 pJ: Horowitz, ISSCC 2014).
        samples: held-out samples.
        seconds: how long it took.
        failed: why nothing came of it; then the figures are infinite. Empty as a rule.
        chosen: whether it was taken.
    """

    recipe: str
    agreement: float | None
    error: float
    cost: float
    samples: int
    seconds: float
    failed: str = ""
    chosen: bool = False


def contenders(graph: fx.GraphModule) -> tuple[str, ...]:
    """The recipes among which a network with calibration data chooses; the first is taken where none is tried."""
    if not curved_inside(graph):
        return ()
    return (
        ("telescoped", "piecewise", "telescoped-graded") if rest(graph) else ("best", "telescoped", "telescoped-graded")
    )


def contest(candidates: Sequence[Recipe], graph: fx.GraphModule, context: Context) -> tuple[Recipe, dict[str, Any]]:
    """The recipe that suits a network best, and what was found, as plain data: "recipes", a `Tried` for each.

    With fewer than two candidates or 64 samples nothing is tried, and the first is taken; so it is where all fail.

    Args:
        candidates: one or more, those that are preferred first; their options are taken as they stand.
        graph: the network, of stage ANN.
        context: T and calibration data; it is not changed.
    """
    if len(candidates) < 2 or sum(map(len, context.calibration or ())) < LEAST:
        return candidates[0], {}
    x = joined(context.calibration or ())
    given, held = divided(x)
    trials = Trials(graph, context, given, held, [])
    found, scores = [], []
    for one in context.track(candidates, "choosing a recipe"):
        start = time.perf_counter()
        score, made = _tried(trials, one)
        found.append(replace(made, seconds=time.perf_counter() - start))
        scores.append(score)
    if all(one.failed for one in found):
        return candidates[0], {}
    best = max(range(len(found)), key=lambda i: float(scores[i].mean()))
    loss = [scores[best] - score for score in scores]
    close = [bool(one.mean() <= max(TOLERANCE, float(one.std()) / len(held) ** 0.5)) for one in loss]
    chosen = close.index(True)
    rows = [asdict(replace(one, chosen=i == chosen)) for i, one in enumerate(found)]
    return candidates[chosen], {"recipes": rows}


@torch.no_grad()
def _tried(trials: Trials, one: Recipe) -> tuple[Tensor, Tried]:
    """How well a recipe does on each held-out sample, more being better."""
    held, wanted = trials.held, trials.wanted[0]
    infinite = float("inf")
    try:
        network = trials.network(one.pipeline)
    except PassFailed as problem:
        return torch.full((len(held),), -infinite), Tried(
            one.name, None, infinite, infinite, len(held), 0, str(problem)
        )
    meter = Meter(network.graph)
    parts = [network.readout(*each(part), observe=meter) for part in held.split(BATCH)]
    outputs = [by_step[-1] for by_step in leaves(mapped(lambda *found: torch.cat(found, 1), *parts))]
    error = trials.apart(outputs)
    classes = len(outputs) == 1 and wanted.dim() == 2 and wanted.shape[1] > 1
    same = (outputs[0].argmax(1) == wanted.argmax(1)).double() if classes else None
    agreement = None if same is None else 100 * float(same.mean())
    work = share(network.graph, every_shape(network.graph, shape_of(held)))
    added = sum(meter.operations.values()) + sum(meter.sites.values())
    cost = added / len(held) + PRICE * (network.T * (work.dense + work.curved) + work.once)
    return -error if same is None else same, Tried(one.name, agreement, float(error.mean()), cost, len(held), 0.0)
