"""Where two spiking networks, or two ways to run one, differ: spikes by layer and step, outputs, predictions.

A threshold turns a rounding difference into a whole spike, so nothing here has a tolerance: a spike is there or it is
not, and outputs are compared to the bit.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.data.loaders import maybe_labelled_batches
from snnc.errors import DataError, SnncError
from snnc.evaluate import ann_classes
from snnc.graph import Stage
from snnc.network import Network, checked
from snnc.pipeline import no_progress
from snnc.portable import Portable
from snnc.runtime.runner import Runner

Artefact = Network | Portable
Trains = dict[str, Tensor]


@dataclass(frozen=True)
class LayerDifference:
    """One neuron layer, over all samples and steps.

    Attributes:
        name: of the layer.
        differ: places (neurons x steps x samples) where the two do not emit the same.
        places: how many there are.
        spikes: places where the first network emits something.
        step: the first step, from 1, at which they differ in some sample, or None.
    """

    name: str
    differ: int
    places: int
    spikes: int
    step: int | None


@dataclass(frozen=True)
class Differences:
    """What differs between two networks on the same input. Lists run over the steps that are read out.

    Attributes:
        samples: how many were compared.
        exact: both are fixed-point forms of one network, so that nothing may differ.
        layers: every neuron layer in order; None where spikes cannot be compared.
        spikes: places where a spike differs, over all layers, or None.
        places: places that were compared, or None.
        first: layer and step where they part: the earliest step, and of its layers the first; or None.
        touched: samples with any difference in spikes or outputs.
        outputs: numbers of the output that differ in any bit, after each step.
        logits: largest difference of an output, at any step.
        predictions: samples whose class differs, after each step; None where outputs are no classes.
        accuracy: top-1 of the two after the last step, or None without labels.
        ann_accuracy: top-1 of the original network, or None.
        ann_predictions: samples on which each differs from the original network, after the last step, or None.
        notes: what could not be compared, and why.
    """

    samples: int
    exact: bool
    layers: list[LayerDifference] | None
    spikes: int | None
    places: int | None
    first: tuple[str, int] | None
    touched: int
    outputs: list[int]
    logits: float
    predictions: list[int] | None
    accuracy: tuple[float, float] | None
    ann_accuracy: float | None
    ann_predictions: tuple[int, int] | None
    notes: list[str]

    @property
    def same(self) -> bool:
        """Whether nothing differs: no spike where spikes can be compared, and no output."""
        return not self.spikes and not any(self.outputs)

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return {**asdict(self), "same": self.same}


@torch.no_grad()
def differences(
    a: Artefact,
    b: Artefact,
    data: Any,
    ann: nn.Module | None = None,
    stream: bool = False,
    track: Callable[..., Iterator[Any]] = no_progress,
) -> Differences:
    """Runs two networks on the same input and counts what differs.

    Args:
        a: a network.
        b: another, the same in another form, or `a` itself.
        data: input, labelled or not: a `snnc.data.Dataset`, a loader, a tensor.
        ann: the original network.
        stream: run `b` step by step, as a chip does, and not all steps at once.
        track: wraps an iterable to show progress.

    Raises:
        DataError: input or labels that do not fit.
        SnncError: outputs that cannot be compared, or a network that cannot run step by step.
    """
    if ann is not None and any(module.training for module in ann.modules()):
        ann = copy.deepcopy(ann).eval()
    count = _Count(_exact(a) and _exact(b), _exact(a) == _exact(b), _heights(a), _heights(b))
    # Spikes of all steps are held, so one part is what a network itself would hold.
    part = max(1, min(a.chunk, b.chunk) // max(_simulated(a), _simulated(b)))
    for x, y in track(maybe_labelled_batches(data), "comparing"):
        labels: list[Tensor | None] = [None] * len(x) if y is None else list(y.split(part))
        for samples, label in zip(x.split(part), labels, strict=False):
            count.add(emitted(a, samples), emitted(b, samples, stream), label)
            if ann is not None:
                count.beside(ann_classes(ann, samples), label)
    return count.report()


def emitted(network: Artefact, x: Tensor, stream: bool = False) -> tuple[Tensor, Trains | None]:
    """What a network gives for a few samples.

    Returns:
        The output after each step `[read, B, ...]`, and what every neuron layer emits `[steps, B, ...]`; None where the
        network cannot be looked into.

    Raises:
        SnncError: a network that cannot run step by step was to.
    """
    if isinstance(network, Network):
        return _observed(network, x, stream)
    if stream:
        raise SnncError(
            "Only a graph file can run step by step; this network was written as a whole.", "the .snn file of it"
        )
    spikes = getattr(network, "spikes", None)
    trains = None if spikes is None else {name: train.unflatten(0, (-1, len(x))) for name, train in spikes(x).items()}
    if "by_step" in getattr(network, "outputs", ["by_step"]):
        return network.readout(x), trains
    return network(x)[None], trains


def _observed(network: Network, x: Tensor, stream: bool) -> tuple[Tensor, Trains]:
    seen: dict[str, list[Tensor]] = {name: [] for name, _ in network.neurons()}

    def see(node: fx.Node, value: Tensor, steps: int) -> None:
        if node.name in seen:
            seen[node.name].append(value.reshape(steps, -1, *value.shape[1:]))

    if stream:
        x = checked(x, network.info, next(network.graph.buffers()).dtype)
        outputs = Runner(network.graph).run(x, window=1, anytime=True, observe=see)
    else:
        outputs = network.readout(x, observe=see)
    return outputs, {name: torch.cat(parts) for name, parts in seen.items()}


def _simulated(network: Artefact) -> int:
    return network.latency.simulated


def _exact(network: Artefact) -> bool:
    """Whether it is a fixed-point network."""
    if isinstance(network, Network):
        return network.stage is Stage.FIXED
    records = network.info.get("records") or [{}]
    return bool(records[-1].get("stage") == Stage.FIXED)


def _heights(network: Artefact) -> Trains | None:
    """Height of one spike of every layer, where that can be told."""
    return {name: neuron.height for name, neuron in network.neurons()} if isinstance(network, Network) else None


@dataclass
class _Layer:
    differ: int = 0
    places: int = 0
    spikes: int = 0
    step: int | None = None


@dataclass
class _Count:
    """Sums over samples."""

    exact: bool
    alike: bool
    a_heights: Trains | None
    b_heights: Trains | None
    samples: int = 0
    layers: dict[str, _Layer] | None = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    touched: int = 0
    outputs: Tensor | None = None
    logits: float = 0.0
    predictions: Tensor | None = None
    right: list[int] = field(default_factory=lambda: [0, 0, 0])
    apart: list[int] = field(default_factory=lambda: [0, 0])
    labelled: int = 0
    ann: bool = False
    classes: tuple[Tensor, Tensor] | None = None

    def add(self, a: tuple[Tensor, Trains | None], b: tuple[Tensor, Trains | None], y: Tensor | None) -> None:
        """Some more samples."""
        mine, yours = self._aligned(a[0], b[0])
        n = mine.shape[1]
        self.samples += n
        touched = (mine != yours).movedim(1, 0).flatten(1).any(1)
        differ = (mine != yours).flatten(1).sum(1)
        self.outputs = differ if self.outputs is None else self.outputs + differ
        self.logits = max(self.logits, float((mine.double() - yours.double()).abs().max()))
        if mine.dim() == 3 and mine.shape[-1] > 1:
            guesses = mine.argmax(-1), yours.argmax(-1)
            other = (guesses[0] != guesses[1]).sum(1)
            self.predictions = other if self.predictions is None else self.predictions + other
            self.classes = guesses[0][-1], guesses[1][-1]
            if y is not None:
                self._score(y, mine.shape[-1])
        self._compare(a[1], b[1], touched)
        self.touched += int(touched.sum())

    def _aligned(self, mine: Tensor, yours: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs after the same steps."""
        if mine.shape[1:] != yours.shape[1:]:
            shapes = f"{tuple(mine.shape[2:])} and {tuple(yours.shape[2:])}"
            raise SnncError(
                f"The two networks give outputs of shapes {shapes}, which cannot be compared.",
                "two forms of one network, or two networks for one task",
            )
        if len(mine) != len(yours):
            self._note(f"One is read out after {len(mine)} steps and the other after {len(yours)}: only the last "
                       "outputs are compared.")  # fmt: skip
            return mine[-1:], yours[-1:]
        return mine, yours

    def _score(self, y: Tensor, classes: int) -> None:
        if int(y.max()) >= classes:
            raise DataError(
                f"A label is {int(y.max())}, and the networks have {classes} classes.", "labels from 0 to classes - 1"
            )
        self.labelled += len(y)
        for index, guess in enumerate(self.classes or ()):
            self.right[index] += int((guess == y).sum())

    def beside(self, wanted: Tensor, y: Tensor | None) -> None:
        """What the original network says of the samples that came last."""
        if self.classes is None:
            return
        self.ann = True
        for index, guess in enumerate(self.classes):
            self.apart[index] += int((guess != wanted).sum())
        if y is not None:
            self.right[2] += int((wanted == y).sum())

    def _compare(self, a: Trains | None, b: Trains | None, touched: Tensor) -> None:
        """Spikes; marks the samples in which any differs."""
        if self.layers is None:
            return
        if a is None or b is None:
            self.layers = None
            self._note(
                "An exported program cannot be looked into, so no spikes were counted; outputs were compared to the "
                "bit, after every step."
            )
            return
        if list(a) != list(b) or any(a[name].shape != b[name].shape for name in a):
            self.exact = False
            self.layers = None
            self._note("The two have other neuron layers, so they are different networks: only outputs were compared.")
            return
        for name, mine in a.items():
            apart = self._apart(name, mine, b[name])
            layer = self.layers.setdefault(name, _Layer())
            layer.places += mine.numel()
            layer.spikes += int(torch.count_nonzero(mine))
            if not apart.any():
                continue
            layer.differ += int(apart.sum())
            touched |= apart.movedim(1, 0).flatten(1).any(1)
            step = 1 + int(apart.flatten(1).any(1).int().argmax())
            layer.step = step if layer.step is None else min(layer.step, step)

    def _apart(self, name: str, mine: Tensor, yours: Tensor) -> Tensor:
        """Where two layers emit another number of spikes. Heights may differ: thresholds can stand in the weights."""
        if self.a_heights is not None and self.b_heights is not None:
            return torch.round(mine / self.a_heights[name]) != torch.round(yours / self.b_heights[name])
        return mine != yours if self.alike else mine.sign() != yours.sign()

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def report(self) -> Differences:
        """All sums as figures."""
        layers = self.layers
        found = None if layers is None else [LayerDifference(name, **vars(one)) for name, one in layers.items()]
        parted = [one for one in found or [] if one.step is not None]
        first = min(parted, key=lambda one: one.step or 0, default=None)
        scored = self.predictions is not None and self.labelled == self.samples
        share = [100 * right / self.samples for right in self.right]
        return Differences(
            samples=self.samples,
            exact=self.exact,
            layers=found,
            spikes=None if found is None else sum(one.differ for one in found),
            places=None if found is None else sum(one.places for one in found),
            first=None if first is None or first.step is None else (first.name, first.step),
            touched=self.touched,
            outputs=[] if self.outputs is None else self.outputs.tolist(),
            logits=self.logits,
            predictions=None if self.predictions is None else self.predictions.tolist(),
            accuracy=(share[0], share[1]) if scored else None,
            ann_accuracy=share[2] if scored and self.ann else None,
            ann_predictions=(self.apart[0], self.apart[1]) if self.ann else None,
            notes=self.notes,
        )
