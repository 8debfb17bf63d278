"""Measuring a spiking network on labelled data."""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from snnc.data import Fit, labelled_batches, require_classes
from snnc.errors import DataError
from snnc.ir.meter import Meter
from snnc.networks.base import Latency, SpikingNetwork
from snnc.networks.early import gone
from snnc.passes.pipeline import no_progress
from snnc.processes import agree, digest, from_all, rank, world
from snnc.steady import steady

MANY_STEPS = 16


def shown_steps(T: int) -> list[int]:
    """The steps of a run of T that tables show: all of a short one; of a longer one powers of two, and the last."""
    return list(range(1, T + 1)) if T <= MANY_STEPS else sorted({*(2**k for k in range(T.bit_length())), T})


CONFIDENCES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999)  # of a curve of accuracy against mean steps


@dataclass(frozen=True)
class EarlyExit:
    """Accuracy and latency of samples that are each read out as soon as they are sure.

    Attributes:
        confidence: what was enough.
        accuracy: in percent.
        steps: from the input to the readout, mean over all samples.
    """

    confidence: float
    accuracy: float
    steps: float


@dataclass(frozen=True)
class Evaluation:
    """What was measured. Percentages are 0..100; lists run over the steps 1..T.

    Attributes:
        samples: how many were scored.
        accuracy: top-1 of the spiking network, read out after each step.
        ann_accuracy: top-1 of the original network, or None.
        agreement: share of samples on which both predict the same class, after each step, or None.
        rates: spikes per neuron and step, by neuron layer; like the next three, empty or None for an exported program
            or an ONNX file, which cannot be looked into.
        spikes: spikes per sample over the whole run.
        operations: synaptic operations per sample over the whole run.
        macs: multiply-accumulates of the same layers in the ANN, per sample.
        latency: steps from input to readout.
        exits: the results if samples leave early, one for each confidence that was asked for.
        notes: what makes the figures doubtful: data unlike those of the calibration, or one class for everything.
    """

    samples: int
    accuracy: list[float]
    ann_accuracy: float | None
    agreement: list[float] | None
    rates: dict[str, float]
    spikes: float | None
    operations: float | None
    macs: float | None
    latency: Latency
    exits: list[EarlyExit] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return asdict(self)


@steady()
@torch.no_grad()
def evaluate(
    network: SpikingNetwork,
    data: Any,
    ann: nn.Module | None = None,
    track: Callable[..., Iterator[Any]] = no_progress,
    exits: Sequence[float] = (),
) -> Evaluation:
    """Scores a network after every step, and the ANN if one is given, on the device where the network is.

    Processes that share the work (`snnc.distributed`) take turns in scoring batches; all get the same result.

    The accuracy after step t < T is that of this network read early; a network compiled for that t may do better, since
    thresholds and calibration depend on T.

    Args:
        network: a compiled network.
        data: labelled data: a `snnc.data.Dataset`, or a loader of `(x, y)` pairs or dicts.
        ann: the original network.
        track: wraps an iterable to show progress.
        exits: confidences at which samples leave early, see `SpikingNetwork.exit`.

    Raises:
        DataError: no labels, no samples, samples that do not fit, or labels that the network has no class for.
    """
    device = next(network.buffers(), torch.zeros(0)).device
    if ann is not None and not _ready(ann, device):
        ann = copy.deepcopy(ann).eval().to(device)  # batch statistics and dropout would score another network
    meter = Meter(network.graph) if network.looks_inside else None
    correct = torch.zeros(network.T, dtype=torch.long)
    same = torch.zeros(network.T, dtype=torch.long)
    left = torch.zeros(len(exits), 2, dtype=torch.long)  # right, and steps taken, for each confidence
    before = network.latency.steps - network.T
    ann_correct = samples = 0
    seen, fit = hashlib.sha256(), Fit(network.info, data)
    for number, (x, y) in enumerate(track(fit.watch(labelled_batches(data)), "evaluating")):
        if world() > 1:
            seen.update(digest(x, y).encode())
        if number % world() != rank():
            continue
        x = x.to(device)
        guess = network.readout(x, observe=meter)
        if guess.dim() != 3:
            raise DataError(f"The network's output has shape {tuple(guess.shape[1:])} per step, not [B, classes].")
        require_classes(y, guess.shape[-1])
        classes = guess.argmax(-1).cpu()
        fit.classes(classes[-1], y)
        correct += (classes == y).sum(1)
        samples += len(y)
        sure = network.certainty(guess) if exits else guess
        for i, confidence in enumerate(exits):
            found = gone(guess, sure, confidence, before)
            left[i] += torch.stack([(found.output.argmax(-1).cpu() == y).sum(), found.steps.sum().cpu()])
        if ann is not None:
            wanted = ann_classes(ann, x).cpu()
            ann_correct += int((wanted == y).sum())
            same += (classes == wanted).sum(1)
    agree("was given other data or another network", seen.hexdigest(), *network.state_dict().values())
    own = (
        correct,
        same,
        left,
        ann_correct,
        samples,
        dict(fit.guesses),
        dict(fit.labels),
        *((meter.spikes, meter.sites, meter.operations) if meter else ()),
    )
    correct, same, left, ann_correct, samples, guesses, labels, *counts = (
        _sum(parts) for parts in zip(*from_all(own), strict=True)
    )
    fit.guesses, fit.labels = Counter(guesses), Counter(labels)
    if meter:
        meter.spikes, meter.sites, meter.operations = counts
        meter.macs = from_all(meter.macs)[0]  # of one sample, which the first process has seen if there is any
    if not samples:
        raise DataError("The data holds no sample.", "a data set with at least one sample")
    return Evaluation(
        samples=samples,
        accuracy=[100 * int(c) / samples for c in correct],
        ann_accuracy=None if ann is None else 100 * ann_correct / samples,
        agreement=None if ann is None else [100 * int(c) / samples for c in same],
        rates=meter.rates() if meter else {},
        spikes=sum(meter.spikes.values()) / samples if meter else None,
        operations=sum(meter.operations.values()) / samples if meter else None,
        macs=sum(meter.macs.values()) if meter else None,
        latency=network.latency,
        exits=[
            EarlyExit(confidence, 100 * int(right) / samples, int(steps) / samples)
            for confidence, (right, steps) in zip(exits, left, strict=True)
        ],
        notes=fit.notes(),
    )


def _sum(parts: tuple[Any, ...]) -> Any:
    """The sum of counts, of tensors of counts, or of counts by name. All are whole numbers, and so exact."""
    if not isinstance(parts[0], dict):
        return sum(parts[1:], parts[0])
    return {name: sum(part.get(name, 0) for part in parts) for part in parts for name in part}


def _ready(ann: nn.Module, device: torch.device) -> bool:
    """Whether a network can be measured as it is."""
    values = (*ann.parameters(), *ann.buffers())
    return not any(m.training for m in ann.modules()) and all(value.device == device for value in values)


def ann_classes(ann: nn.Module, x: Tensor) -> Tensor:
    """The class that the original network gives each sample, `[B]`; the input is cast to the numbers it computes with.

    Raises:
        DataError: the input does not go through it.
    """
    own = next((v.dtype for v in (*ann.parameters(), *ann.buffers()) if v.is_floating_point()), x.dtype)
    try:
        return ann(x.to(own)).argmax(-1)
    except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise DataError(
            f"A batch of shape {tuple(x.shape)} does not go through the ANN: {reason}.",
            "the network that was compiled",
        ) from error
