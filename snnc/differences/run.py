"""Runs two networks on the same input."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.data.fit import Fit
from snnc.data.loaders import maybe_labelled_batches
from snnc.differences.count import Count, Trains
from snnc.differences.report import Differences
from snnc.errors import SnncError
from snnc.ir.dialect import HEADS
from snnc.ir.graph import Stage, calls, steps
from snnc.measure.evaluate import ann_classes
from snnc.networks.exported import Portable
from snnc.networks.network import Network
from snnc.networks.onnx import OnnxNetwork
from snnc.passes.pipeline import no_progress
from snnc.runtime.runner import Runner
from snnc.steady import steady

Artefact = Network | Portable | OnnxNetwork


@steady()
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
    rounded = any(isinstance(one, Network) and any(calls(one.graph, *HEADS)) for one in (a, b))
    count = Count(_exact(a) and _exact(b), rounded, _heights(a), _heights(b))
    # Spikes of all steps are held, so one part is what a network itself would hold.
    part = max(1, min(a.chunk, b.chunk) // max(_simulated(a), _simulated(b)))
    fit = Fit(a.info, data)
    for x, y in track(fit.watch(maybe_labelled_batches(data)), "comparing"):
        labels: list[Tensor | None] = [None] * len(x) if y is None else list(y.split(part))
        for samples, label in zip(x.split(part), labels, strict=False):
            count.add(emitted(a, samples), emitted(b, samples, stream), label)
            if count.classes:
                fit.classes(count.classes[0], label)
            if ann is not None:
                count.beside(ann_classes(ann, samples), label)
    return count.report(fit.notes())


def emitted(network: Artefact, x: Tensor, stream: bool = False) -> tuple[Tensor, Trains | None]:
    """What a network gives for a few samples.

    Returns:
        The output after each step `[read, B, ...]`, and what every neuron layer emits `[steps, B, ...]`; None where the
        network cannot be looked into.

    Raises:
        SnncError: a network that cannot run step by step was to.
    """
    if isinstance(network, Network):
        output, trains = _observed(network, x.to(next(network.graph.buffers()).device), stream)
        return output.cpu(), {name: train.cpu() for name, train in trains.items()}
    if stream:
        raise SnncError(
            "Only a graph file can run step by step; this network was written as a whole.", "the .snn file of it"
        )
    if isinstance(network, Portable):
        return network.readout(x), None
    trains = {name: train.unflatten(0, (-1, len(x))) for name, train in network.spikes(x).items()}
    return network.readout(x) if "by_step" in network.outputs else network(x)[None], trains


def _observed(network: Network, x: Tensor, stream: bool) -> tuple[Tensor, Trains]:
    seen: dict[str, list[Tensor]] = {name: [] for name, _ in network.neurons()}

    def see(node: fx.Node, value: Tensor, width: int) -> None:
        if node.name in seen:
            seen[node.name].append(value.reshape(width, -1, *value.shape[1:]))

    if stream:
        outputs = Runner(network.graph).run(network.entry(x), window=1, anytime=True, observe=see)
    else:
        outputs = network.readout(x, observe=see)
    return outputs, {name: _joined(parts, steps(network.graph)) for name, parts in seen.items()}


def _joined(parts: list[Tensor], T: int) -> Tensor:
    """Windows `[steps, b, ...]` of one round after the other, T steps each, as `[T, B, ...]`."""
    rounds: list[Tensor] = []
    held: list[Tensor] = []
    for part in parts:
        held.append(part)
        if sum(map(len, held)) == T:
            rounds.append(torch.cat(held))
            held = []
    return torch.cat(rounds, 1)


def _simulated(network: Artefact) -> int:
    return network.latency.simulated


def _exact(network: Artefact) -> bool:
    """Whether it is a fixed-point network."""
    if isinstance(network, Network | OnnxNetwork):
        return network.stage is Stage.FIXED
    records = network.info.get("records") or [{}]
    return bool(records[-1].get("stage") == Stage.FIXED)


def _heights(network: Artefact) -> Trains:
    """Height of one spike of every layer; of none where the network cannot be looked into."""
    if isinstance(network, Network):
        return {name: neuron.height.cpu() for name, neuron in network.neurons()}
    return network.heights() if isinstance(network, OnnxNetwork) else {}
