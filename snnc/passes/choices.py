"""Options chosen on data: each by what the network's output then differs from the ANN's, on samples held out.

A recipe lists values for options of its passes (`Recipe.choices`). They are tried one option after another, with the
best values of those before it. The first value stands unless another is better by more than a standard error, so that
chance decides nothing. The graph that an option does not touch is kept: an option of the last pass costs no sweep. The
final network calibrates on all samples again. No labels.
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
SAMPLES = 128  # that a trial calibrates on
HELD = 192  # that networks are compared on
LEAST = 64  # of both together: fewer tell nothing apart
BATCH = 32


@dataclass(frozen=True)
class Chosen:
    """One option, and what was found.

    Attributes:
        option: "PASS.OPTION".
        values: what was tried.
        errors: how far the outputs are from the ANN's, mean over the held-out samples, one for each value: see `apart`.
        chosen: the first value, or the one of least error if that is better by more than a standard error.
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
    given, held = divided(x)
    trials = Trials(graph, context, given, held, sorted({places.index(name) for name, _, _ in open_}))
    found = []
    for name, option, values in context.track(open_, "choosing options"):
        start = time.perf_counter()
        candidates = [pipeline.set(name, **{option: value}) for value in values]
        errors = torch.stack([trials.errors(candidate) for candidate in candidates])
        best = int(errors.mean(1).argmin())
        gain = errors[0] - errors[best]
        if gain.mean() <= gain.std() / len(held) ** 0.5:
            best = 0
        pipeline = candidates[best]
        seconds = time.perf_counter() - start
        found.append(Chosen(f"{name}.{option}", values, errors.mean(1).tolist(), values[best], len(held), seconds))
    heat = trials.heat(pipeline)
    more = {"exit": {"temperatures": heat, "samples": len(held)}} if heat else {}
    return pipeline, {"choices": [asdict(one) for one in found], **more}


def divided(x: Tensor) -> tuple[Tensor, Tensor]:
    """Samples that trials calibrate on, and others that they are compared on."""
    given = min(SAMPLES, len(x) // 2)
    return x[:given], x[-min(HELD, len(x) - given) :]


class Trials:
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
        self.known: dict[Pipeline, Tensor] = {}

    def network(self, pipeline: Pipeline) -> Network:
        """The network that a pipeline makes of the samples that are not held out."""
        integers = [*pipeline.check(), Stage.FIXED].index(Stage.FIXED)  # they come last, if at all
        graph, stage, _ = self._made(pipeline.passes[:integers])
        return Network(graph, {}, stage=stage, runtime="reference")  # to choose a faster one would take longer

    @torch.no_grad()
    def errors(self, pipeline: Pipeline) -> Tensor:
        """How far the output of each held-out sample is from the ANN's."""
        if pipeline not in self.known:
            network = self.network(pipeline)
            found = torch.cat([network(part) for part in self.held.split(BATCH)])
            self.known[pipeline] = apart(found.double(), self.wanted.double())
        return self.known[pipeline]

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


def apart(found: Tensor, wanted: Tensor) -> Tensor:
    """How far each sample's output is from what is wanted, `[B]`.

    Class scores `[B, C]`, two classes or more: the divergence (Kullback, Leibler) from the classes of the ANN. A square
    error would prefer networks that have the scores a little better and the classes worse. Any other output: the square
    error over the variance.
    """
    if wanted.dim() == 2 and wanted.shape[1] > 1:
        right = wanted.log_softmax(1)
        return (right.exp() * (right - found.log_softmax(1))).sum(1)
    spread = (wanted - wanted.mean(0)).square().mean().clamp_min(1e-30)
    return (found - wanted).square().flatten(1).mean(1) / spread
