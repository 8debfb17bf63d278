"""Weights corrected by what the neurons behind a layer emit, and the rows that this is learnt from."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from snnc.calibrate.feedback import Stepped
from snnc.calibrate.holding import Memory
from snnc.calibrate.rows import outputs, patches, positions
from snnc.ir.graph import calls
from snnc.ir.neurons import IF, Neuron
from snnc.ir.temporal import Decode, StepCurrent
from snnc.passes import CalibrateWeights, EvenCurrents, InsertNeurons, QuantizeActivations, ScaleThresholds
from snnc.passes.even_currents import departure
from snnc.passes.pipeline import Context, Pipeline
from snnc.passes.wait_for_input import steady
from snnc.processes import Shards
from tests.nets import NETS, folded, sample
from tests.passes.test_even_currents import currents

T = 4
START = (QuantizeActivations(), ScaleThresholds(), InsertNeurons())


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(5, 3), (5,)),
        (nn.Conv2d(4, 6, 3, padding=1), (4, 6, 5)),
        (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(0, 1), dilation=(1, 2), groups=2), (4, 7, 8)),
        (nn.Conv2d(4, 4, 3, groups=4, padding="valid"), (4, 6, 6)),
        (nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2), (4, 11)),
    ],
    ids=str,
)
def test_patches_times_weights_are_the_outputs(layer, shape):
    """On whole numbers, at every step of the same samples: equal."""
    generator = torch.Generator().manual_seed(0)
    layer.requires_grad_(False)
    layer.weight.copy_(torch.randint(-4, 5, layer.weight.shape, generator=generator))
    layer.bias.zero_()
    x = torch.randint(-4, 5, (T * 3, *shape), generator=generator).float()
    value = layer(x)
    (at,) = positions({0: value[:3]}, Shards((3,)), 12, generator).values()
    rows = patches(layer, x, at)
    weight = layer.weight.reshape(rows.shape[1], -1, rows.shape[2])
    assert torch.equal(torch.einsum("rgi,goi->rgo", rows, weight).flatten(1), outputs(value, at))


def one_layer(wrong):
    """A layer of spikes, `wrong` what it is to become, and neurons that emitted what the right one makes them."""
    torch.manual_seed(0)
    right = nn.Conv2d(3, 4, 3, padding=1).requires_grad_(False)
    source = torch.randint(0, 2, (T * 64, 3, 5, 5)).float()
    neuron = IF(T, torch.full((4, 1, 1), 0.5), torch.full((4, 1, 1), 0.25))
    read, layer = Decode(T, T), wrong(copy.deepcopy(right))
    shards = Shards.of(64, 32)
    parts = {i: one.flatten(0, 1) for i, one in enumerate(source.reshape(T, 64, 3, 5, 5).split(32, 1))}
    wanted = {i: read(neuron(right(one))) for i, one in parts.items()}
    at = {i: torch.arange(25).repeat(32, 1) for i in parts}
    x = {i: patches(layer, one, at[i]).unflatten(0, (T, -1)) for i, one in parts.items()}
    current = {i: layer(one) + 0.125 for i, one in parts.items()}  # something else comes in beside the layer
    wanted = {i: read(neuron(right(one) + 0.125)) for i, one in parts.items()}
    site = SimpleNamespace(
        module=neuron,
        inputs=[current],
        wanted=wanted,
        sweep=SimpleNamespace(decode=read, shards=shards, memory=Memory()),
    )
    return Stepped(layer, None, parts, at, x), site


def left(site, current):
    return sum(
        float((site.sweep.decode(site.module(one)) - site.wanted[i]).square().sum()) for i, one in current.items()
    )


def test_what_neurons_emit_wrongly_becomes_less():
    def halved(layer):
        layer.weight *= 0.5
        layer.bias -= 0.25
        return layer

    stepped, site = one_layer(halved)
    before, current = site.inputs[0], stepped.correct(site, 0.0, 6)
    assert left(site, current) < left(site, before) / 8
    for i, one in current.items():
        torch.testing.assert_close(one, stepped.layer(stepped.source[i]) + 0.125, rtol=0, atol=1e-5)


def test_where_nothing_is_missing_nothing_moves():
    stepped, site = one_layer(lambda layer: layer)
    before = copy.deepcopy(stepped.layer.state_dict())
    stepped.correct(site, 0.03, 2)
    assert all(torch.equal(value, before[name]) for name, value in stepped.layer.state_dict().items())


@pytest.mark.parametrize("net", NETS)
def test_currents_of_single_steps_stay_even(net):
    """The weights move after `even-currents` has run; on the calibration samples no step departs from the mean."""
    graph, shape = folded(net)
    x = sample(shape, 16, seed=5)
    passes = (*START, EvenCurrents(), CalibrateWeights(feedback=2))
    done = Pipeline(passes).run(graph, Context(T=T, calibration=[x]), next(iter(START)).takes[0])
    even = {node.name for node in steady(done.graph)}
    for name, current in currents(done.graph, x).items():
        if name not in even:
            found = departure({0: current}, T, Shards((len(x),)))
            assert found.abs().max() <= 1e-4 * current.abs().max().clamp_min(1)
    assert sum(1 for _ in calls(done.graph, StepCurrent)) == sum(1 for _ in calls(done.graph, Neuron)) - len(even)
