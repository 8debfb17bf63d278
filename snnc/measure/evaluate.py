"""Measuring a spiking network: its accuracy on labelled data, and how far its outputs are from the ANN's."""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.capture import calling
from snnc.data import Fit, maybe_labelled_batches, require_classes
from snnc.errors import DataError, Unsupported
from snnc.ir.frames import takes_frames
from snnc.ir.meter import Meter
from snnc.networks.base import Latency, SpikingNetwork
from snnc.networks.early import gone
from snnc.passes.pipeline import no_progress
from snnc.processes import agree, digest, from_all, rank, world
from snnc.steady import steady
from snnc.structure import OUTPUT, Inputs, Samples, cast, changed, each, named, told

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
class OutputError:
    """How far one output is from the ANN's, after each step.

    Attributes:
        name: of the output.
        shape: of one sample.
        error: root of the mean square difference over that of the ANN's output, over all samples, in percent.
        agreement: share of the samples and places whose largest entry is the same as the ANN's, in percent: along the
            channels of a map `[C, H, W]` or larger, else along the last dimension. None where there is one entry alone.
    """

    name: str
    shape: tuple[int, ...]
    error: list[float]
    agreement: list[float] | None


@dataclass(frozen=True)
class Evaluation:
    """What was measured. Percentages are 0..100; lists run over the steps 1..T.

    Attributes:
        samples: how many were scored.
        accuracy: top-1 of the spiking network, read out after each step; empty where no class scores were asked for.
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
        output: name of the output that holds the class scores, or None.
        outputs: every output beside the ANN's; empty without an ANN.
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
    output: str | None = None
    outputs: list[OutputError] = field(default_factory=list)

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
    output: str | None = None,
) -> Evaluation:
    """Scores a network after every step, and the ANN if one is given, on the device where the network is.

    Processes that share the work (`snnc.distributed`) take turns in scoring batches; all get the same result.

    The accuracy after step t < T is that of this network read early; a network compiled for that t may do better, since
    thresholds and calibration depend on T.

    Class scores `[B, classes]` need labels. Every output is also compared with the ANN's, where that is given, by
    relative error and agreement (`OutputError`); of outputs that are no class scores that is all there is to measure.

    Args:
        network: a compiled network.
        data: labelled data: a `snnc.data.Dataset`, or a loader of `(x, y)` pairs or dicts. Where no class scores are
            measured labels are not needed.
        ann: the original network.
        track: wraps an iterable to show progress.
        exits: confidences at which samples leave early, see `SpikingNetwork.exit`.
        output: name of the output that holds the class scores, where there are several; None measures no accuracy then.

    Raises:
        DataError: no labels, no samples, samples that do not fit, or labels that the network has no class for.
        SnncError: no such output.
    """
    scored = network.chosen(output) if output is not None or len(network.outputs) == 1 else None
    if scored is None and ann is None:
        network.chosen(None)
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
    beside = Beside(network.T)
    names = (network.inputs, network.inputs)
    for number, (x, y) in enumerate(track(fit.watch(maybe_labelled_batches(data, names)), "evaluating")):
        if world() > 1:
            seen.update(digest(*each(x), y).encode())
        if number % world() != rank():
            continue
        x = x.to(device)
        found = named(network.readout(x, observe=meter))
        samples += len(x)
        wanted = None if ann is None else ann_outputs(ann, x, network.frames)
        if wanted is not None:
            beside.add(found, wanted)
        guess = None if scored is None else found[scored]
        if scored is None or guess is None:
            continue
        if (guess.dim() != 3 or y is None) and output is None and wanted is not None:
            scored = None  # no class scores, or no labels: what there is to say, the comparison with the ANN says
            continue
        if guess.dim() != 3:
            what = "network's output" if scored == OUTPUT else f"output '{scored}'"
            raise DataError(
                f"The {what} has shape {tuple(guess.shape[1:])} per step, not [B, classes].",
                "--ann and no --output, to compare it with the original network",
            )
        if y is None:
            raise DataError(f"Batch {number} has no labels.", "batches of the form (inputs, labels)")
        require_classes(y, guess.shape[-1])
        classes = guess.argmax(-1).cpu()
        fit.classes(classes[-1], y)
        correct += (classes == y).sum(1)
        sure = network.certainty(guess) if exits else guess
        for i, confidence in enumerate(exits):
            gone_ = gone(guess, sure, confidence, before)
            left[i] += torch.stack([(gone_.output.argmax(-1).cpu() == y).sum(), gone_.steps.sum().cpu()])
        if wanted is not None:
            right = wanted[scored].argmax(-1).cpu()
            ann_correct += int((right == y).sum())
            same += (classes == right).sum(1)
    if exits and scored is None:
        raise DataError(
            "Samples leave early by the class that is sure, and no output of class scores is named.", "--output"
        )
    agree("was given other data or another network", seen.hexdigest(), *network.state_dict().values())
    own = (
        correct,
        same,
        left,
        ann_correct,
        samples,
        dict(fit.guesses),
        dict(fit.labels),
        beside.sums,
        *((meter.spikes, meter.sites, meter.operations) if meter else ()),
    )
    correct, same, left, ann_correct, samples, guesses, labels, sums, *counts = (
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
        accuracy=[] if scored is None else [100 * int(c) / samples for c in correct],
        ann_accuracy=None if ann is None or scored is None else 100 * ann_correct / samples,
        agreement=None if ann is None or scored is None else [100 * int(c) / samples for c in same],
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
        output=scored,
        outputs=beside.report(sums, from_all(beside.shapes)[0]),
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


class Beside:
    """Sums of what differs between the outputs of two networks, after each step.

    Attributes:
        sums: by name of the output and what is summed: "error" and "agreement" `[T]`, "size", "places".
        shapes: of one sample.
    """

    def __init__(self, T: int) -> None:
        self.T = T
        self.sums: dict[str, Any] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}

    def add(self, found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
        """Some samples: outputs after each step `[T, B, ...]`, and the ANN's `[B, ...]`.

        Raises:
            DataError: the two return other things.
        """
        if list(found) != list(wanted) or any(found[name].shape[1:] != wanted[name].shape for name in found):
            told = [", ".join(f"{k} {list(v.shape[d:])}" for k, v in x.items()) for d, x in ((2, found), (1, wanted))]
            raise DataError(
                f"The network returns {told[0]}, and the ANN returns {told[1]}.", "the network that was compiled"
            )
        for name, value in found.items():
            ann = wanted[name].to(value)
            self.shapes[name] = tuple(ann.shape[1:])
            error = torch.stack([(one.double() - ann.double()).square().sum() for one in value]).cpu()
            self._sum(f"{name} error", error)
            self._sum(f"{name} size", ann.double().square().sum().cpu())
            dim = 1 if ann.dim() > 3 else -1
            if ann.dim() > 1 and ann.shape[dim] > 1:
                best = ann.argmax(dim)
                self._sum(f"{name} agreement", torch.stack([(one.argmax(dim) == best).sum() for one in value]).cpu())
                self._sum(f"{name} places", torch.tensor(best.numel()))

    def _sum(self, name: str, value: Tensor) -> None:
        self.sums[name] = self.sums[name] + value if name in self.sums else value

    def report(self, sums: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> list[OutputError]:
        """The figures, of the sums of all processes."""
        found = []
        for name, shape in shapes.items():
            size = max(float(sums[f"{name} size"]), 1e-30)
            error = [100 * (float(one) / size) ** 0.5 for one in sums[f"{name} error"]]
            same, places = sums.get(f"{name} agreement"), sums.get(f"{name} places")
            agreement = None if same is None else [100 * float(one) / float(places or 1) for one in same]
            found.append(OutputError(name, shape, error, agreement))
        return found


def ann_outputs(ann: nn.Module, x: Samples, frames: str = "") -> dict[str, Tensor]:
    """What the original network gives, by name; the input is cast to the numbers that it computes with.

    Args:
        ann: the original network, or its graph.
        x: samples.
        frames: what it did with their frames, see `SpikingNetwork.frames`.

    Raises:
        DataError: the input does not go through it.
    """
    if frames and not takes_frames(ann):
        return _over_frames(ann, x, frames)
    like = next((v for v in (*ann.parameters(), *ann.buffers()) if v.is_floating_point()), torch.zeros(()))
    try:
        values = [cast(one, like.dtype) for one in each(x)]
        if isinstance(ann, fx.GraphModule):
            return named(ann(*values))
        how = calling(ann, x.names or len(values)) if isinstance(x, Inputs) else None
        if how is None:
            return named(ann(*values))
        by_name = dict(zip(x.names if isinstance(x, Inputs) and x.names else how.names, values, strict=True))
        return named(how.call(ann, [by_name[name] for name in how.names]))
    except (RuntimeError, ValueError, IndexError, TypeError, AttributeError, KeyError, Unsupported) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise DataError(
            f"A batch of shape {told([one.shape for one in each(x)])} does not go through the ANN: {reason}.",
            "the network that was compiled",
        ) from error


def _over_frames(ann: nn.Module, x: Samples, way: str) -> dict[str, Tensor]:
    if way != "each":
        return ann_outputs(ann, changed(lambda one: one.mean(1) if way == "mean" else one.sum(1), x))
    found = ann_outputs(ann, changed(lambda one: one.flatten(0, 1), x))
    return {name: value.unflatten(0, (len(x), -1)).mean(1) for name, value in found.items()}


def ann_classes(ann: nn.Module, x: Samples, frames: str = "") -> Tensor:
    """The class that the original network gives each sample, `[B]`.

    Raises:
        DataError: the input does not go through it, or it has several outputs.
    """
    found = ann_outputs(ann, x, frames)
    if len(found) > 1:
        raise DataError(f"The ANN has several outputs: {', '.join(found)}.", "the output that is meant, --output")
    return next(iter(found.values())).argmax(-1)
