"""Running a spiking network and its ANN side by side, and adding up what differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
import torch
from torch import Tensor, fx, nn

from snnc.capture import capture
from snnc.data import Fit, maybe_labelled_batches, require_classes
from snnc.errors import SnncError
from snnc.explain.cures import advice
from snnc.explain.report import KEPT, Cause, Explanation, LayerError, calibrated, parts, percent, summary, term
from snnc.explain.sides import Perturbed, beside, observed, other
from snnc.explain.terms import OWN, Tally, split
from snnc.ir.frames import framed
from snnc.ir.graph import numbers, only, result, results, view
from snnc.ir.neurons import Neuron, OffsetIF, ResidualMaskIF
from snnc.networks.base import SpikingNetwork
from snnc.networks.frames import of_one_frame
from snnc.passes import PASSES, PiecewiseActivations
from snnc.passes.pipeline import Pass, no_progress
from snnc.passes.sweeping import SweepPass
from snnc.runtime.runner import Runner
from snnc.steady import steady
from snnc.structure import Samples, cast, each, shape_of, told

ROWS_PER_SAMPLE = 8  # at least: beside its time steps each sample holds sums, and all values of the ANN
SAME = 1e-3  # of the activation: what folding and rounding may change in a current that no neuron has touched
OTHER = 0.5  # of it: more than a calibration changes there


@steady()
@torch.no_grad()
def explain(
    network: SpikingNetwork,
    ann: nn.Module | torch.export.ExportedProgram,
    data: Any,
    track: Callable[..., Iterator[Any]] = no_progress,
    output: str | None = None,
) -> Explanation:
    """Splits the error of every neuron layer against the ANN into its causes, and follows each to the output.

    Args:
        network: a compiled network.
        ann: the network that it was compiled from.
        data: samples as in training, with labels or without: whatever calibration takes.
        track: wraps an iterable to show progress.
        output: name of the output that errors are followed to, where there are several. Layers that only others need
            are left out.

    Raises:
        SnncError: the network cannot be looked into, or was not compiled from this ANN.
        Unsupported: the ANN cannot be captured.
        DataError: no samples, or samples that do not fit.
    """
    network.require_inside()
    network = network.only(output)
    if network.frames == "each":
        raise SnncError(
            "The original network ran on each frame, so its activations are several for each neuron, one a frame.",
            "snnc eval, which compares the outputs",
        )
    like = numbers(network.graph)
    graph = framed(capture(ann, _shape(network)), network.T, network.frames)
    graph = _one_output(graph, output).to(like)
    fit = Fit(network.info, data)
    sites, graph = beside(network, graph)
    sums = _Sums(network, graph, sites, fit)
    for x, y in track(fit.watch(maybe_labelled_batches(data, (network.inputs, network.inputs))), "explaining"):
        parts_of_x = x.to(like.device).split(sums.rows)
        labels = [None] * len(parts_of_x) if y is None else y.to(like.device).split(sums.rows)
        for part, label in zip(parts_of_x, labels, strict=True):
            sums.add(part, label)
    return sums.report()


def _shape(network: SpikingNetwork) -> Any:
    info = of_one_frame(network.info, len(network.entries)) if network.frames else network.info
    shape = info.get("input_shape")
    return tuple(tuple(one) if isinstance(one, list) else one for one in shape) if shape else None


def _one_output(graph: fx.GraphModule, output: str | None) -> fx.GraphModule:
    """The ANN with the output alone that is followed."""
    if isinstance(result(graph), fx.Node):
        return graph
    if output not in results(graph):
        raise other(f"it returns {', '.join(results(graph))}, and no '{output}'")
    return only(graph, str(output))


@dataclass
class _Effect:
    """The effect of an error in the ANN on its output: product with the output's error, and classes kept."""

    product: float = 0.0
    same: int = 0


@dataclass
class _Sums:
    """Everything that is summed over samples. `sites`: the activation of each neuron layer, by name."""

    network: SpikingNetwork
    graph: fx.GraphModule
    sites: dict[str, fx.Node]
    fit: Fit
    samples: int = 0
    labelled: int = 0
    right: int = 0
    ann_right: int = 0
    same: int = 0
    square: float = 0.0
    size: float = 0.0
    classes: bool = True
    causes: dict[str, _Effect] = field(default_factory=lambda: {cause: _Effect() for cause in OWN})

    def __post_init__(self) -> None:
        self.neurons: dict[str, Neuron] = dict(self.network.neurons())
        self.passes = {record["name"] for record in self.network.info.get("records", []) if record["sites"]}
        self.calibrated = any(issubclass(PASSES.get(name, Pass), SweepPass) for name in self.passes)
        self.tallies = {name: Tally() for name in self.sites}
        self.alone = {name: _Effect() for name in self.sites}
        net = view(self.graph)
        self.after = {name: nx.descendants(net, site) | {site} for name, site in self.sites.items()}
        self.rows = max(1, self.network.chunk // max(Runner(self.network.graph).T, ROWS_PER_SAMPLE))

    def add(self, x: Samples, y: Tensor | None) -> None:
        """Adds at most `rows` samples: every layer's sums, and all values of the ANN, are held for them."""
        snn, seen = observed(self.network, x)
        plain = Perturbed(self.graph, {})
        try:
            ann = plain.run(*(cast(one, snn) for one in each(x)))
        except (RuntimeError, ValueError, IndexError) as reason:
            raise other(f"samples of shape {told(shape_of(x))} do not go through it") from reason
        if ann.shape != snn.shape:
            raise other(f"its output has shape {tuple(ann.shape[1:])}, not {tuple(snn.shape[1:])}")
        error = _centred(snn.double() - ann.double())
        found = {}
        for name, site in self.sites.items():
            a, layer = plain.env[site], seen[name]
            if layer.output is None or layer.current is None or layer.spikes is None or a.shape != layer.output.shape:
                raise other(f"'{name}' has another shape there, {tuple(a.shape[1:])}")
            activation = self.graph.get_submodule(str(site.target))
            one = split(self.neurons[name], activation, layer.current, layer.output, a, self.network.T)
            self.tallies[name].add(one, layer.spikes, a)
            found[site] = one.terms
            before = {node: value for node, value in plain.env.items() if node not in self.after[name]}
            changed = Perturbed(self.graph, {site: one.own}).run(initial_env=before)
            self._follow(self.alone[name], changed, ann, error)
        for cause, effect in self.causes.items():
            errors = {site: terms[cause] for site, terms in found.items()}
            inputs = (cast(one, snn) for one in each(x))
            self._follow(effect, Perturbed(self.graph, errors).run(*inputs), ann, error)
        self._score(snn, ann, y)
        self.square += float(error.square().sum())
        self.size += float(_centred(ann.double()).square().sum())

    def _follow(self, effect: _Effect, changed: Tensor, ann: Tensor, error: Tensor) -> None:
        effect.product += float(((changed.double() - ann.double()) * error).sum())
        if _classes(ann):
            effect.same += int((changed.argmax(1) == ann.argmax(1)).sum())

    def _score(self, snn: Tensor, ann: Tensor, y: Tensor | None) -> None:
        self.samples += len(ann)
        self.classes = _classes(ann)
        if not self.classes:
            return
        self.fit.classes(snn.argmax(1), y)
        self.same += int((snn.argmax(1) == ann.argmax(1)).sum())
        if y is not None:
            require_classes(y, ann.shape[1])
            self.labelled += len(y)
            self.right += int((snn.argmax(1) == y).sum())
            self.ann_right += int((ann.argmax(1) == y).sum())

    def report(self) -> Explanation:
        """All sums as figures and sentences."""
        share = {name: percent(effect.product, self.square) for name, effect in self.alone.items()}
        if self.calibrated:  # a layer's error alone says nothing of the output: the largest errors say where to look
            share = {name: term(self.tallies[name], "total").relative or 0.0 for name in self.sites}
        layers = [self._layer(name, share) for name in self.sites]
        agreement, scored = self._kept(self.same), self.classes and self.labelled == self.samples
        causes = {
            name: Cause(percent(effect.product, self.square), self._kept(effect.same))
            for name, effect in self.causes.items()
        }
        lost = agreement is None or agreement < 100
        told = summary(layers, causes, self.square, self.passes, self.network.info) if lost or not self.square else KEPT
        if self.calibrated and self.square:
            told = calibrated(layers, self.passes, self.network.info, lost)
        return Explanation(
            samples=self.samples,
            T=self.network.T,
            ann_accuracy=percent(self.ann_right, self.samples) if scored else None,
            accuracy=percent(self.right, self.samples) if scored else None,
            agreement=agreement,
            logit_error=percent(self.square**0.5, self.size**0.5),
            calibrated=self.calibrated,
            causes={} if self.calibrated else causes,
            layers=layers,
            summary=told,
            notes=self._notes(layers, share),
        )

    def _kept(self, same: int) -> float | None:
        return percent(same, self.samples) if self.classes else None

    def _layer(self, name: str, share: dict[str, float]) -> LayerError:
        neuron, site = self.neurons[name], self.sites[name]
        known = parts(self.tallies[name], self.network.T)
        earlier = [n for n, s in self.sites.items() if s is not site and site in self.after[n]]
        inherits = earlier and known["terms"]["inherited"].rms > known["own"].rms
        return LayerError(
            name=name,
            neuron=type(neuron).__name__,
            logit_share=None if self.calibrated else share[name],
            agreement=None if self.calibrated else self._kept(self.alone[name].same),
            source=max(earlier, key=lambda n: share[n]) if inherits else None,
            change=advice(known["cause"], neuron, self.passes, self.network.frames)
            if self._kept(self.same) != 100
            else "-",
            **known,
        )

    def _notes(self, layers: list[LayerError], share: dict[str, float]) -> list[str]:
        later = {name for name, site in self.sites.items() for n in share if n != name and site in self.after[n]}
        most = OTHER if self.calibrated else SAME  # a calibration changes weights there
        notes = [
            f"No neuron lies before '{layer.name}', and yet its current differs from the ANN's: a pass has changed "
            "weights before it, or this is another network."
            for layer in layers
            if layer.name not in later and layer.terms["inherited"].rms > most * layer.activation
        ]
        if PiecewiseActivations.name in self.passes:
            notes.append(
                f"The ANN here has the sums of ReLUs of '{PiecewiseActivations.name}' too: how far these are from its "
                "activations stands in the record of that pass, and is no error of a layer."
            )
        if late := Runner(self.network.graph).late:
            notes.append(
                f"The final readout leaves out the first {f'{late} steps' if late > 1 else 'step'}. The layers "
                "are given for all steps, so their errors do not add up to that of the output."
            )
        if any(isinstance(neuron, OffsetIF | ResidualMaskIF) for neuron in self.neurons.values()):
            notes.append(
                "Neurons are calibrated on each sample. An even current is judged from the nominal v0, so "
                "spikes that a calibration adds or takes beyond that count as unevenness."
            )
        if self.calibrated:
            notes.append(
                "Layers were calibrated one after the other against the ANN, and each makes up for errors before it. "
                "So what the error of one layer does to the output by itself is not told."
            )
            return notes + self.fit.notes()
        notes.append(
            f"Put into the ANN one at a time, the layers' own errors explain {sum(share.values()):.0f} % of the "
            "output's square error. Where the shares do not add up to 100, the kinds act on each other."
        )
        return notes + self.fit.notes()


def _classes(output: Tensor) -> bool:
    """Whether an output has one number for each of several classes, so that the largest gives the class."""
    return output.dim() == 2 and output.shape[1] > 1


def _centred(output: Tensor) -> Tensor:
    """An output minus the mean over the classes of each sample, which changes no class."""
    return output - output.mean(1, keepdim=True) if _classes(output) else output
