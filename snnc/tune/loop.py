"""The training loop: steps, schedule, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional

from snnc.dialect import ACTIVATIONS, ClipQuant
from snnc.errors import DataError, LoadError
from snnc.graph import calls
from snnc.neurons import IF
from snnc.tune import checkpoint as files
from snnc.tune.checkpoint import Progress
from snnc.tune.forward import Forward
from snnc.tune.norms import Running
from snnc.tune.options import TuneOptions
from snnc.tune.parameters import Floor, groups
from snnc.tune.samples import Batches

SMOOTH = 0.98  # of the running mean of the loss
SETTLE = 20  # batches that the statistics of normalisations are taken from at the end


class Training:
    """Trains an opened graph in place.

    Attributes:
        graph: the opened graph, on the device of the options.
        forward: its forward pass with a gradient.
        teacher: the original network on the same device, or None.
        batches: training data.
        options: all of it.
        same: names of the neurons that are matched to an activation of the teacher; see `matched`.
        progress: how far it has come.
    """

    def __init__(
        self,
        graph: fx.GraphModule,
        forward: Forward,
        teacher: fx.GraphModule | None,
        batches: Batches,
        options: TuneOptions,
        same: frozenset[str] = frozenset(),
    ) -> None:
        self.graph, self.forward, self.teacher = graph, forward, Forward(teacher) if teacher else None
        self.batches, self.options = batches, options
        found = groups(graph, options.weight_decay, options.decay_bounds, options.bound_lr)
        kinds: dict[str, Callable[[], torch.optim.Optimizer]] = {
            "adam": lambda: torch.optim.AdamW(found, options.lr),
            "sgd": lambda: torch.optim.SGD(found, options.lr, momentum=0.9, nesterov=True),
        }
        self.optimiser = kinds[options.optimiser]()
        self.floor = Floor(graph)
        self.same = same if options.match and options.loss != "labels" else frozenset()
        self.progress = Progress()
        self.told = files.fingerprint(graph, options, batches.data, teacher)

    def resume(self, path: Path) -> None:
        """Goes on where a checkpoint stopped.

        Raises:
            LoadError: no such file, or a checkpoint of something else.
        """
        if not path.is_file():
            raise LoadError(f"There is no checkpoint '{path}' to resume from.", "a run without --resume")
        self.progress = files.restore(path, self.told, self.graph, self.optimiser)

    def run(
        self,
        check: Callable[[], dict[str, Any]],
        path: Path | None = None,
        track: Callable[..., Iterator[Any]] | None = None,
    ) -> None:
        """Trains to the end.

        Args:
            check: what to note of the network after each epoch.
            path: checkpoint file, or None.
            track: wraps an iterable to show progress.

        Raises:
            DataError: the loss is NaN or infinite.
        """
        p, o = self.progress, self.options
        began = saved = time.monotonic()
        before = p.seconds
        todo = None if o.minutes else (o.epochs - p.epoch) * self.batches.steps - p.step
        steps = self._steps()
        for x, y in track(steps, "tuning", todo) if track else steps:
            self._step(x, y)
            p.step += 1
            p.seconds = before + time.monotonic() - began
            if p.step == self.batches.steps:
                self._require_finite()
                p.rows.append({"epoch": p.epoch + 1, "seconds": round(p.seconds, 1), "loss": p.loss, **check()})
                p.epoch, p.step = p.epoch + 1, 0
                p.seconds = before + time.monotonic() - began
            if path and (not p.step or time.monotonic() - saved > o.save_seconds):
                files.write(path, self.told, self.graph, self.optimiser, p)
                saved = time.monotonic()
        self._require_finite()
        self.settle()

    @property
    def done(self) -> float:
        """Share of the training that is done, by the clock or by steps."""
        p, o = self.progress, self.options
        if o.minutes:
            return min(1.0, p.seconds / (60 * o.minutes))
        return min(1.0, (p.epoch + p.step / self.batches.steps) / o.epochs)

    def _steps(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        while self.done < 1:
            for batch in self.batches.epoch(self.progress.epoch, self.progress.step):
                yield batch
                if self.done >= 1:
                    return

    def _step(self, x: Tensor, y: Tensor | None) -> None:
        o = self.options
        x = x.to(o.device)
        for group in self.optimiser.param_groups:
            group["lr"] = o.lr * group["factor"] * 0.5 * (1 + math.cos(math.pi * self.done))
        with torch.autocast(torch.device(o.device).type, torch.bfloat16, enabled=o.amp):
            out, rates = seen(self.forward, x, self.same)
            with torch.no_grad():
                teacher = self.teacher if o.loss != "labels" else None
                wanted, activations = seen(teacher, x, self.same) if teacher else (None, {})
        loss = loss_of(out.float(), wanted, None if y is None else y.to(o.device), o)
        if activations:
            loss = loss + o.match * mismatch(rates, activations)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self._diverged(f"The loss is {value}")
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.floor()
        known = self.progress.loss
        self.progress.loss = value if known is None else SMOOTH * known + (1 - SMOOTH) * value

    def _require_finite(self) -> None:
        if not all(torch.isfinite(value).all() for value in self.graph.state_dict().values()):
            raise self._diverged("A weight is NaN or infinite")

    def _diverged(self, what: str) -> DataError:
        p = self.progress
        return DataError(
            f"{what} at step {p.step} of epoch {p.epoch + 1}.", f"a lower learning rate than {self.options.lr:g}"
        )

    @torch.no_grad()
    def settle(self) -> None:
        """Takes the statistics of normalisations anew, from training samples as they are."""
        normed = [module for module in self.graph.modules() if isinstance(module, Running)]
        for module in normed:
            module.forget()
        for x, _ in self.batches.plain(SETTLE if normed else 0):
            self.forward.run(x.to(self.options.device))


def matched(graph: fx.GraphModule, teacher: fx.GraphModule) -> frozenset[str]:
    """Names of the neurons that stand where the original network has an activation: conversion keeps them."""
    activations = {node.name for node, _ in calls(teacher, *ACTIVATIONS, ClipQuant)}
    return frozenset(node.name for node, _ in calls(graph, IF, ClipQuant) if node.name in activations)


def seen(forward: Forward, x: Tensor, names: frozenset[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """The output for `x`, and the values `[B, ...]` of the nodes of these names: rates inside time."""
    found: dict[str, Tensor] = {}

    def see(node: fx.Node, value: Tensor) -> None:
        if node.name in names:  # `InTime` shows every step
            found[node.name] = value.unflatten(0, (-1, len(x))).mean(0) if len(value) > len(x) else value

    forward.see = see
    try:
        return forward.run(x), found
    finally:
        forward.see = None


def mismatch(rates: dict[str, Tensor], activations: dict[str, Tensor]) -> Tensor:
    """Mean over layers of the square error of rates, over the variance of the activation (Romero et al. 2015).

    The outputs alone tell a layer little through many coarse ones; this tells each what it was meant to say.
    """
    errors = [
        functional.mse_loss(rates[name].float(), wanted.float()) / wanted.float().var().clamp_min(1e-12)
        for name, wanted in activations.items()
    ]
    return torch.stack(errors).mean()


def loss_of(out: Tensor, wanted: Tensor | None, y: Tensor | None, options: TuneOptions) -> Tensor:
    """The loss of outputs `[B, classes]`.

    Distillation is the Kullback-Leibler divergence of the softened outputs, times the temperature squared (Hinton et
    al. 2015, arXiv 1503.02531).

    Args:
        out: of the network in training.
        wanted: of the original network, for losses "distil" and "both".
        y: labels `[B]`, for losses "labels" and "both".
        options: loss, temperature, alpha.
    """
    share = {"distil": 1.0, "labels": 0.0, "both": options.alpha}[options.loss]
    loss = out.new_zeros(())
    if share > 0 and wanted is not None:
        t = options.temperature
        soft, target = (functional.log_softmax(v / t, 1) for v in (out, wanted.float()))
        loss = loss + share * t * t * functional.kl_div(soft, target, log_target=True, reduction="batchmean")
    if share < 1 and y is not None:
        loss = loss + (1 - share) * functional.cross_entropy(out, y)
    return loss
