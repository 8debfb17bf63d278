"""Fixed-point networks: every value up to the readout is an integer, and the same wherever it is computed."""

import copy

import pytest
import torch

from snnc.artifact import pack_graph, unpack_graph
from snnc.dialect import Grid, pack, unpack
from snnc.errors import SnncError, VerifyError
from snnc.graph import GraphBuilder, Stage, verify
from snnc.neurons import IF, NEURONS, GradedIF, OffsetIF, ResidualMaskIF, WaitingIF
from snnc.passes import UseSignedNeurons
from snnc.pipeline import Context
from snnc.temporal import Decode, Encode

T = 6
MORE = {GradedIF: (2,), WaitingIF: (2,), OffsetIF: (4,), ResidualMaskIF: (2,)}


def neuron(cls, unit=True):
    """A neuron of each model, one threshold a channel."""
    theta = torch.tensor([4.0, 7.0])[:, None]
    return cls(T, theta, torch.tensor([2.0, 3.0])[:, None], *MORE.get(cls, ()), unit=unit)


def graph_of(*modules):
    build = GraphBuilder()
    x = build.input()
    for i, module in enumerate(modules):
        x = build.call(f"m{i}", module, x)
    return build.finish(x)


# What the stage is made of


@pytest.mark.parametrize("cls", NEURONS)
def test_a_unit_counts_its_spikes(cls):
    """The same spikes, each of height 1."""
    current = torch.randint(-6, 9, (T * 3, 2, 5), generator=torch.Generator().manual_seed(0)).float()
    high, low = neuron(cls, False), neuron(cls)
    if cls is OffsetIF:
        high.eps = 0.25  # of theta = 4, which is the 1 of a unit
        current[:, 1] = 0
    assert (low(current) != 0).any()
    assert torch.equal(low(current) * low.theta, high(current))
    assert torch.equal(low.height, torch.ones_like(low.theta))
    assert torch.equal(high.height, high.theta)
    assert "unit" in str(low)
    assert "unit" not in str(high)


@pytest.mark.parametrize("cls", NEURONS)
def test_older_files_hold_no_units(cls):
    packed = pack(neuron(cls, False))
    del packed["config"]["unit"]
    assert unpack(packed).unit is False
    assert unpack(pack(neuron(cls))).unit is True


def test_an_offset_of_whole_potentials_is_whole():
    """A margin of 0.001 theta would leave the grid."""
    current = torch.tensor([7.0, -5.0, 0.0, -4.0, 0.0, 0.0])[:, None]
    one = OffsetIF(T, torch.tensor(4.0), torch.tensor(1.0), 4, unit=True)
    start = one.calibrated(current.reshape(T, 1, 1)[:4])
    assert torch.equal(start, start.round())
    assert start.item() == 1 - (8 - 4 + 1)


def test_a_grid_rounds_halves_to_even():
    grid = Grid(torch.tensor([2.0, 4.0])[:, None], -3, 5)
    x = torch.tensor([[[0.25, 0.75, -9.0, 9.0], [0.125, 0.375, 0.3, -0.125]]])
    assert grid(x).tolist() == [[[0, 2, -3, 5], [0, 2, 1, 0]]]


def test_grids_are_of_fixed_point_networks_alone():
    graph = graph_of(Grid(torch.tensor(2.0), -3, 5), Encode(T), neuron(IF), Decode(T, T))
    verify(graph, Stage.FIXED)
    with pytest.raises(VerifyError, match="'m0' is a Grid, which stage SPIKING must not contain"):
        verify(graph, Stage.SPIKING)


@pytest.mark.parametrize(("low", "high"), [(1, 5), (-3, -1), (-3.0, 5), (0, True)])
def test_a_grid_has_whole_ends_around_zero(low, high):
    graph = graph_of(Grid(torch.tensor(2.0), low, high), Encode(T), neuron(IF), Decode(T, T))
    with pytest.raises(VerifyError, match="'m0' clips to"):
        verify(graph, Stage.FIXED)


def test_a_file_says_the_stage():
    graph = graph_of(Grid(torch.tensor(2.0), -3, 5), Encode(T), neuron(IF), Decode(T, T))
    again, stage, _ = unpack_graph(pack_graph(graph, Stage.FIXED, {}))
    x = torch.randn(3, 2, 5)
    assert stage is Stage.FIXED
    assert torch.equal(graph(x), again(x))


def test_neurons_that_count_are_not_exchanged():
    """What they emit is no longer their threshold, which another model would take from it."""
    graph = graph_of(Encode(T), neuron(IF), Decode(T, T))
    before = copy.deepcopy(graph)
    with pytest.raises(SnncError, match="the spikes of 'm1' are counts"):
        UseSignedNeurons().apply(graph, Context(T))
    assert str(before) == str(graph)
