"""The proof: what it refuses, and that its bounds are reached."""

import pytest
import torch
from torch import nn

from snnc.errors import VerifyError
from snnc.ir.dialect import Affine, Grid
from snnc.ir.graph import GraphBuilder, Stage, validate
from snnc.ir.neurons import IF, AverageIF, GradedIF, Neuron, OffsetIF, ResidualMaskIF, SignedIF
from snnc.ir.proof import prove
from snnc.ir.spans import LIMIT
from snnc.ir.temporal import Decode, Encode

T = 4


def layer(weight, bias):
    """A linear layer of these numbers."""
    found = nn.Linear(len(weight[0]), len(weight))
    found.weight = nn.Parameter(torch.tensor(weight), requires_grad=False)
    found.bias = nn.Parameter(torch.tensor(bias), requires_grad=False)
    return found


def net(weight=((3.0, -5.0, 2.0),), bias=(-4.0,), *, neuron=None, first=(7.0, 2.0), end=None):
    """Three inputs of -2..6, three neurons, and a layer that is read out."""
    build = GraphBuilder()
    theta, v0 = (torch.tensor(v) for v in first)
    x = build.call("grid", Grid(torch.tensor(1.0), -2, 6), build.input())
    x = build.call("encode", Encode(T), x)
    x = build.call("neuron", neuron or IF(T, theta, v0, unit=True), x)
    x = build.call("fc", layer(weight, bias), x)
    x = build.call("decode", Decode(T, T), x)
    for i, module in enumerate(end or ()):
        x = build.call(f"end{i}", module, x)
    return build.finish(x)


def bound(graph, name):
    return next(row.bound for row in prove(graph) if row.name == name)


def refused(graph, words):
    with pytest.raises(VerifyError, match=words):
        validate(graph, Stage.FIXED)


def test_bounds_by_hand():
    """A layer: the larger of all positive products and all negative ones, the bias with either."""
    graph = net()
    assert bound(graph, "neuron") == 2 + T * 6
    assert bound(graph, "fc") == 5 + 4  # -5 and the bias; 3 + 2 on the other side
    assert bound(graph, "decode") == T * 9
    row = next(row for row in prove(graph) if row.name == "fc")
    assert (row.module, row.bits, row.tf32, row.bf16) == ("Linear", 4, True, True)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_bound_is_reached(sign):
    """Some input drives a sum and a potential to what was proved."""
    graph = net(weight=((3.0 * sign, -5.0 * sign, 2.0 * sign),), bias=(6.0 * sign,), first=(26.0, 2.0))
    neuron = graph.neuron
    x = torch.full((1, 3), 9.0)  # clipped to 6
    assert float((neuron.v0 + T * graph.grid(x)).max()) == bound(graph, "neuron")
    spikes = torch.tensor([[1.0, 0.0, 1.0]])
    assert float(graph.fc(spikes).abs()) == bound(graph, "fc") == 11


def test_a_bound_holds_for_any_sum():
    """No input, and no order of the sum, passes it."""
    graph, most = net(), bound(net(), "fc")
    inputs = torch.cartesian_prod(*[torch.arange(2.0)] * 3)
    terms = torch.cat([inputs[:, None] * graph.fc.weight, graph.fc.bias.expand(8, 1, 1)], 2)
    for order in ([0, 1, 2, 3], [3, 1, 0, 2], [1, 3, 2, 0], [2, 0, 3, 1]):
        partial = terms[:, :, order].cumsum(2).abs().max()
        assert partial <= most


def test_a_weight_that_is_too_large():
    validate(net(weight=((2.0**21, 1.0, 1.0),)), Stage.FIXED)
    refused(net(weight=((2.0**22, 1.0, 1.0),), bias=(0.0,)), "'decode' may reach 16,777,224")
    refused(net(weight=((2.0**24, 1.0, 1.0),)), "'fc.weight' holds numbers that are no integers below 2")


@pytest.mark.parametrize("number", [0.5, 1 + 2.0**-20, 1e-30])
def test_numbers_that_are_no_integers(number):
    refused(net(weight=((number, 1.0, 1.0),)), "'fc.weight'")
    refused(net(bias=(number,)), "'fc.bias'")
    refused(net(first=(number, 0.0)), "'neuron.theta'")
    refused(net(first=(1.0, number)), "'neuron.v0'")


def test_the_last_integer():
    """The bound itself must stay below 2^24."""
    assert bound(net(first=(1.0, LIMIT - 1.0 - T * 6)), "neuron") == LIMIT - 1
    refused(net(first=(1.0, LIMIT - 0.0 - T * 6)), "'neuron' may reach 16,777,216")


@pytest.mark.parametrize(
    ("neuron", "most"),
    [
        (SignedIF(T, torch.tensor(50.0), torch.tensor(2.0), unit=True), 50 + T * 6),
        (GradedIF(T, torch.tensor(50.0), torch.tensor(2.0), 3, unit=True), 7 * 50),
        (AverageIF(T, torch.tensor(5.0), torch.tensor(2.0), unit=True), T * 2 + T * T * 6),
    ],
)
def test_neurons(neuron: Neuron, most):
    assert bound(net(neuron=neuron), "neuron") == most


@pytest.mark.parametrize("theta", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("guard", [True, False])
def test_shifts_of_an_initial_potential_stay_below_the_bound(theta, guard):
    """Each of several; of a threshold of 1 one shift may add two spikes, and the next one meets a saturated neuron."""
    neuron = OffsetIF(5, torch.tensor(theta), torch.tensor(2.0), 4, 3, guard, unit=True)
    currents = torch.cartesian_prod(*[torch.arange(-2.0, 3.0)] * 4).T  # [rho, samples]
    start = neuron.calibrated(currents[..., None]).abs().max()
    assert start <= neuron.charge(neuron.theta, neuron.v0, torch.tensor(2.0))


def test_a_margin_that_is_no_integer_is_refused():
    for unit in (True, False):
        graph = net(neuron=OffsetIF(T, torch.tensor(7.0), torch.tensor(2.0), 2, unit=unit))
        if unit:
            validate(graph, Stage.FIXED)
        else:
            refused(graph, "'neuron' shifts potentials by a margin that is no integer")


def test_a_mask_compares_with_thresholds_of_twenty_bits():
    def masked(theta):
        build = GraphBuilder()
        x = build.call("encode", Encode(T), build.call("grid", Grid(torch.tensor(1.0), -2, 6), build.input()))
        x = build.call("neuron", ResidualMaskIF(T, torch.tensor(theta), torch.tensor(0.0), 2, unit=True), x)
        return build.finish(build.call("decode", Decode(T, 2, 2), x))

    validate(masked(2.0**20 - 1), Stage.FIXED)
    refused(masked(2.0**20), "'neuron' may reach")
    v = torch.arange(0.0, 2000.0)
    for theta in (1000.0, 999_000.0, 1_048_575.0, 1_048_001.0):
        single, double = (v > torch.tensor(theta) * 1e-3), (v.double() > torch.tensor(theta).double() * 1e-3)
        assert torch.equal(single, double)


def test_what_leaves_the_integers():
    build = GraphBuilder()
    x = build.call("encode", Encode(T), build.input())
    raw = build.finish(
        build.call("decode", Decode(T, T), build.call("n", IF(T, torch.tensor(1.0), torch.tensor(0.0)), x))
    )
    refused(raw, "'encode' reads the analog input")
    one, zero = torch.tensor(0.5), torch.tensor(0.0)
    validate(net(end=(Affine(one, zero), nn.Softmax(1))), Stage.FIXED)
    refused(net(end=(Affine(one, one),)), r"'end0' \(Affine\) computes with what is read out")
    refused(net(end=(layer(((1.0,),), (0.0,)),)), r"'end0' \(Linear\) computes with what is read out")


def test_wide_operands_are_told():
    """Eight bits for bfloat16, eleven for TF32: from the first to the last 1."""
    rows = {
        w: next(r for r in prove(net(weight=((w, 0.0, 0.0),))) if r.name == "fc")
        for w in (255.0, 257.0, 2049.0, 2560.0)
    }
    assert [(r.tf32, r.bf16) for r in rows.values()] == [(True, True), (True, False), (False, False), (True, True)]
