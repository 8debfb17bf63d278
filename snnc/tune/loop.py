"""The training loop: steps, schedule, checkpoints.

Processes that share the work take turns with the shards of a batch. Gradients, losses and batch statistics of all
shards are added up in the order of the shards, in every process, and every process takes the same step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional

from snnc.errors import DataError, LoadError, RecipeError
from snnc.processes import APART, Shards, agree, dealt, from_all, rank
from snnc.tune import checkpoint as files
from snnc.tune.checkpoint import Progress
from snnc.tune.forward import Forward
from snnc.tune.match import mismatch, seen
from snnc.tune.norms import RunningNorm
from snnc.tune.options import TuneOptions
from snnc.tune.parameters import RoundDown, groups
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
        same: names of the neurons that are matched to an activation of the teacher; see `snnc.tune.match`.
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
        self.floor = RoundDown(graph)
        self.trained = [value for group in found for value in group["params"]]
        self.same = same if options.match and options.loss != "labels" else frozenset()
        self.running = [module for module in graph.modules() if isinstance(module, RunningNorm)]
        if options.shards > batches.size:
            raise RecipeError(
                f"Option 'shards' of 'tune' is {options.shards}, and a batch has {batches.size} samples.",
                "fewer shards",
            )
        self.shards = Shards(tuple(len(part) for part in torch.arange(batches.size).tensor_split(options.shards)))
        self.progress = Progress()
        self.told = files.identity(graph, options, batches.data, teacher)
        agree("was given other data, another network or other options", self.told, batches.data.x, batches.data.y)

    def resume(self, path: Path, trial: bool = False) -> None:
        """Goes on where a checkpoint stopped.

        Args:
            path: the checkpoint.
            trial: whether the conversion was calibrated with fewer samples than in the run, so that its numbers differ.

        Raises:
            LoadError: no such file, or a checkpoint of something else.
        """
        if rank() == 0 and not path.is_file():
            raise LoadError(f"There is no checkpoint '{path}' to resume from.", "a run without --resume")
        told = self.told | ({"network": None} if trial else {})
        self.progress = files.restore(path, told, self.graph, self.optimiser)

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
            p.seconds = self._clock(before + time.monotonic() - began)
            if p.step == self.batches.steps:
                self._require_finite()
                agree("came to another network", *self.graph.state_dict().values(), hint=APART)
                p.rows.append({"epoch": p.epoch + 1, "seconds": round(p.seconds, 1), "loss": p.loss, **check()})
                p.epoch, p.step = p.epoch + 1, 0
                p.seconds = self._clock(before + time.monotonic() - began)
            if path and rank() == 0 and (not p.step or time.monotonic() - saved > o.save_seconds):
                files.write(path, self.told, self.graph, self.optimiser, p)
                saved = time.monotonic()
        self._require_finite()
        self.settle()

    def _clock(self, seconds: float) -> float:
        """The time of the first process, where the learning rate follows the clock."""
        return from_all(seconds)[0] if self.options.minutes else seconds

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
        for group in self.optimiser.param_groups:
            group["lr"] = self.options.lr * group["factor"] * 0.5 * (1 + math.cos(math.pi * self.done))
        found = self._batch(x, y)
        value = float(found[0])
        sizes = [one.numel() for one in self.trained] + [one.fresh.numel() for one in self.running]
        pieces = iter(found[1:].split(sizes))
        for one in self.trained:
            grad = next(pieces).reshape(one.shape)
            one.grad = None if one.grad is None else grad  # what the loss does not depend on stays as it is
        for module in self.running:
            module.note(next(pieces).reshape(module.fresh.shape))
        self.optimiser.step()
        self.floor()
        known = self.progress.loss
        self.progress.loss = value if known is None else SMOOTH * known + (1 - SMOOTH) * value

    def rehearse(self) -> None:
        """Runs one batch forward and back, and takes no step.

        Raises:
            DataError: the loss is NaN or infinite, or a batch is too small to be normalised.
        """
        self._batch(*next(self.batches.epoch(0)))

    def _batch(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Loss, gradients and batch statistics of a batch as one vector."""
        parts = self.shards.deal(x)
        labels = {} if y is None else self.shards.deal(y)
        (found,) = self.shards.total(lambda i: (self._learnt(parts[i], labels.get(i), len(parts[i]) / len(x)),))
        if not math.isfinite(float(found[0])):
            raise self._diverged(f"The loss is {float(found[0])}")
        return found

    def _learnt(self, x: Tensor, y: Tensor | None, share: float) -> Tensor:
        """Loss, gradients and batch statistics of one shard as one vector, times its share of the batch."""
        o = self.options
        x = x.to(o.device)
        with torch.autocast(torch.device(o.device).type, torch.bfloat16, enabled=o.amp):
            out, rates = seen(self.forward, x, self.same)
            with torch.no_grad():
                teacher = self.teacher if o.loss != "labels" else None
                wanted, activations = seen(teacher, x, self.same) if teacher else (None, {})
        loss = loss_of(out.float(), wanted, None if y is None else y.to(o.device), o)
        if activations:
            loss = loss + o.match * mismatch(rates, activations)
        self.optimiser.zero_grad()
        loss.backward()
        grads = [torch.zeros_like(one) if one.grad is None else one.grad for one in self.trained]
        parts = [loss.detach(), *grads, *(module.fresh for module in self.running)]
        return torch.cat([part.flatten() for part in parts]) * share

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
        for module in self.running:
            module.forget()
        batches = self.batches.plain(SETTLE if self.running else 0)

        def measured(i: int) -> list[Tensor]:
            x, _ = next(batches[i].batches(self.batches.size))
            self.forward.run(x.to(self.options.device))
            return [module.fresh.cpu() for module in self.running]

        # All are measured before one is noted: currents of single steps act on the layers behind them.
        for found in list(dealt(len(batches), measured)):
            for module, fresh in zip(self.running, found, strict=True):
                module.note(fresh.to(module.fresh))


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
