"""The mean of what a `Telescoped` emits is its function of the means of what it got, after every step."""

import pytest
import torch
from torch import Tensor, nn

from snnc.ir import curved
from snnc.ir.graph import GraphBuilder, Stage, validate
from snnc.ir.neurons import BipolarIF, SignedIF
from snnc.ir.temporal import Decode, Encode, Restart, RunningMax, Telescoped
from snnc.runtime.runner import Runner
from tests.ir.test_graphfile import ONE

BODIES = [kind for kind in curved.CURVED if kind in ONE]


def inputs(kind: type[nn.Module], T: int, positive: bool = True) -> list[Tensor]:
    """Dyadic currents `[T, B, ...]`, in float64."""
    generator = torch.Generator().manual_seed(T)
    low = 1 if positive else -32
    return [torch.randint(low, 32, (T, 2, *s), generator=generator).double() / 16 for s in ONE[kind][1]]


@pytest.mark.parametrize("kind", BODIES, ids=lambda kind: kind.__name__)
def test_means_of_any_function(kind):
    for T in (1, 5):
        body = ONE[kind][0]().eval().double()
        steps = inputs(kind, T)
        with torch.no_grad():
            output = Telescoped(T, body)(*(x.flatten(0, 1) for x in steps)).unflatten(0, (T, 2))
            for t in range(1, T + 1):
                want = body(*(x[:t].mean(0) for x in steps))
                torch.testing.assert_close(output[:t].mean(0), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [nn.MaxPool2d, nn.LeakyReLU, curved.Product, curved.MatMul, curved.Maximum])
def test_exactly_where_numbers_are_dyadic(kind):
    T = 4 if curved.DEGREE[kind] == 1 else 2  # a third of a sum is not dyadic
    body, steps = ONE[kind][0]().eval().double(), inputs(kind, T, positive=False)
    with torch.no_grad():
        output = Telescoped(T, body)(*(x.flatten(0, 1) for x in steps)).unflatten(0, (T, 2))
        for t in (1, 2, T):
            assert torch.equal(output[:t].sum(0) / t, body(*(x[:t].sum(0) / t for x in steps)))


def test_a_running_maximum_is_one():
    x = torch.randint(-8, 8, (6 * 2, 3, 8, 8)) / 4
    pool = nn.MaxPool2d(2)
    assert issubclass(RunningMax, Telescoped)
    assert torch.equal(RunningMax(6, pool)(x), Telescoped(6, pool)(x))


@pytest.mark.parametrize("width", [1, 2, 3])
def test_windows_and_restarts(width):
    """Any cut of the steps gives the same output; a second pass starts anew."""
    module = Telescoped(6, curved.Product())
    a, b = (torch.randint(-8, 8, (6, 2, 3)).float() / 4 for _ in range(2))
    whole = module(a.flatten(0, 1), b.flatten(0, 1))
    state, parts = None, []
    for x, y in zip(a.split(width), b.split(width), strict=True):
        state, part = module.walk(state, x.flatten(0, 1), width, y.flatten(0, 1))
        parts.append(part)
    assert torch.equal(torch.cat(parts), whole)
    again = Restart(6, module, 4)(a.flatten(0, 1), b.flatten(0, 1)).unflatten(0, (6, 2))
    short = Telescoped(2, curved.Product())(a[4:].flatten(0, 1), b[4:].flatten(0, 1)).unflatten(0, (2, 2))
    assert torch.equal(again[4:], short)


def test_a_graph_with_a_value_that_is_constant_in_time():
    """A factor that stands before time is repeated at each step; the product is that of the means."""
    build = GraphBuilder()
    x = build.input()
    steps = build.call("encode", Encode(4), x)
    spikes = build.call("spikes", BipolarIF(4, torch.tensor(0.5), torch.tensor(0.25)), steps)
    product = build.call("product", Telescoped(4, curved.Product()), spikes, steps)
    graph = build.finish(build.call("decode", Decode(4, 4), product))
    validate(graph, Stage.SPIKING)
    x = torch.randint(-16, 16, (3, 5)) / 8
    rate = graph.spikes(graph.encode(x)).unflatten(0, (4, 3)).mean(0)
    assert torch.equal(graph(x), rate * x)
    assert torch.equal(Runner(graph).run(x, window=1), graph(x))


def test_an_encoder_follows_its_input_within_half_a_threshold():
    theta = torch.tensor([0.5, 1.0, 2.0])
    for units in (1, 3):
        neuron = BipolarIF(8, theta, theta / 2, units)
        room = units * theta
        x = torch.randint(-8, 9, (8, 4, 5, 3)) / 8 * room  # as much as a step can emit, at most
        out = neuron(x.flatten(0, 1)).unflatten(0, (8, 4))
        assert (out / theta == (out / theta).round()).all()
        assert (out.abs() <= room).all()
        assert ((x - out).cumsum(0).abs() <= theta / 2).all()


def test_a_rectified_one_is_the_signed_neuron():
    x = torch.randint(-16, 16, (8 * 4, 3)) / 8
    theta, v0 = torch.tensor(0.5), torch.tensor(0.25)
    assert torch.equal(BipolarIF(8, theta, v0, 1, rectified=True)(x), SignedIF(8, theta, v0)(x))
    assert (BipolarIF(8, theta, v0, 5, rectified=True)(x).unflatten(0, (8, 4)).cumsum(0) >= 0).all()
