"""Options chosen on data: each by what the network's output then differs from the ANN's, on samples held out.

A recipe lists values for options of its passes (`Recipe.choices`). They are tried one option after another, with the
best values of those before it. The graph that an option does not touch is kept, so an option of the last pass costs
no sweep. Half of what is given at most is held out, and the final network calibrates on all of it again. No labels.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, fx

from snnc.ir.graph import Stage
from snnc.networks.early import temperatures
from snnc.networks.network import Network
from snnc.passes.pipeline import Context, Pass, Pipeline, no_progress

Choices = Mapping[str, Mapping[str, Sequence[Any]]]  # values by pass and option
SAMPLES = 192  # that a trial calibrates on, and as many to compare on
LEAST = 64  # of both together: fewer would choose by chance
BATCH = 32


@dataclass(frozen=True)
class Chosen:
    """One option, and what was found.

    Attributes:
        option: "PASS.OPTION".
        values: what was tried.
        errors: mean square difference of the outputs, over the variance of the ANN's, one for each value.
        chosen: the value of least error.
        samples: held-out samples.
        seconds: how long it took.
    """

    option: str
    values: list[Any]
    errors: list[float]
    chosen: Any
    samples: int
    seconds: float


def decide(
    pipeline: Pipeline, choices: Choices, graph: fx.GraphModule, context: Context
) -> tuple[Pipeline, dict[str, Any]]:
    """The pipeline with the options that do best on held-out calibration samples, and what was found, as plain data.

    The latter is empty where nothing was tried. Otherwise "choices" holds a `Chosen` for each option, and "exit" the
    temperatures of the readouts of class scores (`snnc.networks.early`), for which samples must be held out as well.

    Args:
        pipeline: what is to run; its options are where the trials start from.
        choices: values to try. Options of passes that the pipeline has not are left alone.
        graph: the network, of stage ANN.
        context: T and calibration data; it is not changed.
    """
    places = [one.name for one in pipeline]
    open_ = [
        (name, option, list(values))
        for name in dict.fromkeys(places)
        for option, values in choices.get(name, {}).items()
    ]
    x = torch.cat(context.calibration or [torch.zeros(0)])
    if not open_ or len(x) < LEAST:
        return pipeline, {}
    half = min(SAMPLES, len(x) // 2)
    trials = _Trials(graph, context, x[:half], x[-half:], sorted({places.index(name) for name, _, _ in open_}))
    found = []
    for name, option, values in context.track(open_, "choosing options"):
        start = time.perf_counter()
        candidates = [pipeline.set(name, **{option: value}) for value in values]
        errors = [trials.error(candidate) for candidate in candidates]
        best = min(range(len(values)), key=errors.__getitem__)
        pipeline = candidates[best]
        seconds = time.perf_counter() - start
        found.append(Chosen(f"{name}.{option}", values, errors, values[best], half, seconds))
    heat = trials.heat(pipeline)
    more = {"exit": {"temperatures": heat, "samples": half}} if heat else {}
    return pipeline, {"choices": [asdict(one) for one in found], **more}


class _Trials:
    """Runs pipelines, and keeps what several of them share: what stands before a pass that is chosen for."""

    def __init__(
        self, graph: fx.GraphModule, context: Context, given: Tensor, held: Tensor, borders: list[int]
    ) -> None:
        self.context = context.fork(calibration=list(given.split(64)), track=no_progress)
        self.held, self.borders = held, borders
        with torch.no_grad():
            self.wanted = torch.cat([graph(part) for part in held.split(BATCH)])
        self.kept: dict[tuple[Pass, ...], tuple[fx.GraphModule, Stage, Context]] = {
            (): (graph, Stage.ANN, self.context)
        }
        self.errors: dict[Pipeline, float] = {}

    def network(self, pipeline: Pipeline) -> Network:
        """The network that a pipeline makes of the samples that are not held out."""
        integers = [*pipeline.check(), Stage.FIXED].index(Stage.FIXED)  # they come last, if at all
        graph, stage, _ = self._made(pipeline.passes[:integers])
        return Network(graph, {}, stage=stage)

    @torch.no_grad()
    def error(self, pipeline: Pipeline) -> float:
        """Mean square difference from the ANN's outputs, over their variance."""
        if pipeline not in self.errors:
            network = self.network(pipeline)
            off = torch.cat([network(part) for part in self.held.split(BATCH)]) - self.wanted
            spread = (self.wanted - self.wanted.mean(0)).double().square().mean()
            self.errors[pipeline] = float(off.double().square().mean() / spread.clamp_min(1e-30))
        return self.errors[pipeline]

    @torch.no_grad()
    def heat(self, pipeline: Pipeline) -> list[float] | None:
        """Temperatures of the readouts after each step; None where they are no class scores."""
        if self.wanted.dim() != 2 or self.wanted.shape[1] < 2:
            return None
        network = self.network(pipeline)
        by_step = torch.cat([network.readout(part) for part in self.held.split(BATCH)], 1)
        return None if network.ends_in_head else temperatures(by_step, self.wanted.argmax(1))

    def _made(self, passes: tuple[Pass, ...]) -> tuple[fx.GraphModule, Stage, Context]:
        """What the passes give, from the longest beginning that is known."""
        if passes not in self.kept:
            cut = max((border for border in self.borders if border < len(passes)), default=0)
            graph, stage, context = self._made(passes[:cut])
            own = context.fork()
            result = Pipeline(passes[cut:]).run(graph, own, stage)
            self.kept[passes] = (result.graph, result.stage, own)
        return self.kept[passes]
