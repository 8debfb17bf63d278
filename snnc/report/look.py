"""A close look at a few samples: shapes, spike trains, and what the neurons make of the ANN's activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from snnc.calibrate.observe import watch
from snnc.explain.sides import Perturbed, beside, observed
from snnc.ir.graph import calls, numbers
from snnc.ir.neurons import Neuron
from snnc.networks.base import SpikingNetwork
from snnc.structure import Samples, cast, each

NEURONS = 16  # of a layer in its raster
STEPS = 128  # in a raster, at most
POINTS = 240  # of a layer in its scatter plot
SAMPLES = 8  # that a scatter plot and the rates of channels are drawn from


@dataclass(frozen=True)
class Threshold:
    """The parameters of one neuron layer.

    Attributes:
        name: of the layer.
        neuron: class of its neurons.
        parameters: how many thresholds it has: 1, or one a channel.
        theta: least, median and largest threshold, in the unit of the activation.
        start: least, median and largest initial potential, in thresholds.
    """

    name: str
    neuron: str
    parameters: int
    theta: tuple[float, float, float]
    start: tuple[float, float, float]


@dataclass(frozen=True)
class Raster:
    """Spikes of some neurons of one layer, for one sample.

    Attributes:
        name: of the layer.
        neurons: which, as indices into the layer's flat output.
        size: neurons of the layer.
        steps: steps that are shown.
        spikes: (row, step from 0, units), one for each that is not 0.
    """

    name: str
    neurons: list[int]
    size: int
    steps: int
    spikes: list[tuple[int, int, int]]


@dataclass(frozen=True)
class Channels:
    """How often the neurons of each channel of one layer fire, on a few samples.

    Attributes:
        name: of the layer.
        rates: spikes per neuron and step of each channel, in %, the highest first. Negative spikes count.
    """

    name: str
    rates: list[float]


@dataclass(frozen=True)
class Scatter:
    """Activation of the ANN and mean output of the neurons, both over the largest output of one step (clip bound).

    Attributes:
        name: of the layer.
        points: (activation, rate) of some neurons on some samples, those where both are 0 left out.
        silent: share of the neurons, over these samples, where both are 0, in %.
        beyond: share of them whose activation is above the clip bound, in %.
    """

    name: str
    points: list[tuple[float, float]]
    silent: float
    beyond: float


def thresholds(network: SpikingNetwork) -> list[Threshold]:
    """The parameters of every neuron layer."""

    def three(values: Tensor) -> tuple[float, float, float]:
        values = values.flatten().double()
        return float(values.min()), float(values.median()), float(values.max())

    return [
        Threshold(name, type(n).__name__, n.theta.numel(), three(n.theta), three(n.v0 / n.theta))
        for name, n in network.neurons()
    ]


def rasters(network: SpikingNetwork, x: Samples) -> tuple[list[Raster], dict[fx.Node, tuple[int, ...]]]:
    """Spike trains of one sample `[1, ...]`, and the shape of a sample's value at every node."""
    shapes: dict[fx.Node, tuple[int, ...]] = {}
    found: list[Raster] = []
    neurons = dict(calls(network.graph, Neuron))

    def see(node: fx.Node, value: Tensor) -> None:
        shapes[node] = tuple(value.shape[1:])
        if node in neurons:
            found.append(_raster(node.name, neurons[node], value))

    watch(network.graph, x, see)
    return found, shapes


def channels(network: SpikingNetwork, x: Samples) -> list[Channels]:
    """The rates of the channels of every layer on the first few samples. A layer without maps has one neuron each."""
    found: list[Channels] = []
    neurons = dict(calls(network.graph, Neuron))

    def see(node: fx.Node, value: Tensor) -> None:
        if node in neurons and value.dim() > 1:
            rates = value.ne(0).double().transpose(0, 1).flatten(1).mean(1)
            found.append(Channels(node.name, (100 * rates).sort(descending=True).values.tolist()))

    watch(network.graph, x[:SAMPLES], see)
    return found


def _raster(name: str, neuron: Neuron, value: Tensor) -> Raster:
    """Neurons spread evenly over those that fire, or over all where none does."""
    units = (value / neuron.theta).round().long().flatten(1).cpu()
    alive = units.ne(0).any(0).nonzero().flatten()
    among = alive if len(alive) else torch.arange(units.shape[1])
    chosen = among[torch.linspace(0, len(among) - 1, min(NEURONS, len(among))).round().long()]
    shown = units[:STEPS, chosen]
    spikes = [(int(row), int(step), int(shown[step, row])) for step, row in shown.nonzero()]
    return Raster(name, chosen.tolist(), units.shape[1], len(shown), spikes)


def scatters(network: SpikingNetwork, ann: fx.GraphModule, x: Samples, seed: int) -> list[Scatter]:
    """Activations and rates of the first few samples, layer by layer.

    Raises:
        SnncError: the layers of the two networks do not belong to each other.
    """
    like = numbers(network.graph)
    sites, ann = beside(network, ann)
    ann = ann.to(like)
    neurons = dict(network.neurons())
    a: dict[str, list[Tensor]] = {name: [] for name in sites}
    phi: dict[str, list[Tensor]] = {name: [] for name in sites}
    for one in x[:SAMPLES].split(1):
        _, seen = observed(network, one)
        plain = Perturbed(ann, {})
        plain.run(*(cast(part, like) for part in each(one)))
        for name, site in sites.items():
            top = neurons[name].binary()[0]
            output: Any = seen[name].output
            a[name].append((plain.env[site] / top).flatten().cpu())
            phi[name].append((output / network.T / top).flatten().cpu())
    generator = torch.Generator().manual_seed(seed)
    found = []
    for name in sites:
        x_, y_ = torch.cat(a[name]).double(), torch.cat(phi[name]).double()
        active = ((x_ != 0) | (y_ != 0)).nonzero().flatten()
        chosen = active[torch.randperm(len(active), generator=generator)[:POINTS]]
        found.append(
            Scatter(
                name,
                list(zip(x_[chosen].tolist(), y_[chosen].tolist(), strict=True)),
                silent=100 * (1 - len(active) / len(x_)),
                beyond=100 * float((x_ > 1).double().mean()),
            )
        )
    return found
