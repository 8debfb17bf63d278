"""Sequential calibration: the sweep, least squares, shifted currents, and the passes made of them."""

import copy

import pytest
import torch
from torch import nn

from snnc.calibrate.holding import Memory
from snnc.calibrate.observe import watch
from snnc.calibrate.regression import refit
from snnc.calibrate.relevance import counts, relevance
from snnc.calibrate.sweep import Sweep, SweepSite, add_current, average, shift_for
from snnc.errors import PassFailed, RecipeError
from snnc.ir.dialect import Add, Affine, ClipQuant, Slice
from snnc.ir.graph import GraphBuilder, Stage, calls, insert, validate
from snnc.ir.neurons import IF, Neuron
from snnc.networks.network import Network
from snnc.passes import (
    CalibrateBias,
    CalibrateOffset,
    CalibratePotential,
    CalibrateWeights,
    FoldBatchNorm,
    InsertNeurons,
    NormalizeThresholds,
    QuantizeActivations,
    ScaleThresholds,
)
from snnc.passes.pipeline import Context, Pipeline, no_progress
from snnc.processes import Shards
from tests.nets import NETS, folded, quantized, sample

nets = pytest.mark.parametrize("net", NETS)
CALIBRATIONS = (CalibrateBias(), CalibratePotential(), CalibrateWeights())
each = pytest.mark.parametrize("one", CALIBRATIONS, ids=lambda one: one.name)


def values(graph, x):
    found = {}
    watch(graph, x, lambda node, value: found.update({node.name: value}))
    return found


def channel_mean(value):
    return average(Shards((len(value),)), lambda _: value)


def context(shape, T=4, samples=24):
    return Context(T=T, calibration=[sample(shape, samples, seed=3)])


# The reference, and the sweep


@nets
def test_the_reference_is_the_network_before_conversion(net):
    """Every activation, in the unit that it had; through bounds that were moved into the weights, the same output."""
    graph, shape = folded(net)
    x = sample(shape)
    wanted = values(graph, x)
    for more in ((), (NormalizeThresholds(),)):
        one = context(shape)
        passes = (QuantizeActivations(), ScaleThresholds(), *more, InsertNeurons())
        Pipeline(passes).run(graph, one, Stage.FOLDED)
        found = values(one.reference, x)
        if more:
            last = next(iter(reversed(graph.graph.nodes))).all_input_nodes[0].name
            torch.testing.assert_close(found[last], wanted[last], rtol=1e-4, atol=1e-4)
        else:
            assert found.keys() == wanted.keys()
            assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@nets
def test_a_sweep_is_the_graph_and_its_reference(net):
    """Each node once, in order, with the values that both graphs have there; nothing stays in memory."""
    graph, shape = quantized(net)
    one = Context(T=4)
    snn = Pipeline((InsertNeurons(),)).run(graph, one, Stage.QUANTIZED).graph
    x = sample(shape)
    spiking, wanted = values(snn, x), values(one.reference, x)
    seen = []

    def visit(site):
        seen.append(site.node.name)
        assert torch.equal(site.wanted[0], wanted[site.node.name])
        for source, value in zip(site.node.args, site.inputs, strict=True):
            assert torch.equal(value[0], spiking[source.name])

    sweep = Sweep(snn, one.reference, x)
    sweep.run(visit, no_progress)
    twins = {node.name for node in one.reference.graph.nodes}
    assert seen == [node.name for node, _ in calls(snn) if node.name in twins]
    assert len(sweep.values) <= 1  # the output's source
    assert len(sweep.wanted) <= 1


# Least squares


def refitted(layer, x, wanted, *rest):
    shards = Shards.of(len(x), 64)
    return refit(layer, shards.deal(x), shards.deal(wanted), shards, *rest)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(5, 3), (5,)),
        (nn.Linear(5, 3, bias=False), (7, 5)),
        (nn.Conv2d(4, 6, 3, padding=1), (4, 6, 5)),
        (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(0, 1), dilation=(1, 2), groups=2, bias=False), (4, 7, 8)),
        (nn.Conv2d(4, 4, 3, groups=4, padding="valid"), (4, 6, 6)),
        (nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2), (4, 11)),
    ],
    ids=str,
)
def test_least_squares_find_the_weights(layer, shape):
    """What another layer of the same kind computes, without a pull and in double precision: that layer."""
    torch.manual_seed(0)
    layer, x = layer.double().requires_grad_(False), torch.randn(400, *shape, dtype=torch.float64)
    other = copy.deepcopy(layer)
    for value in other.parameters():
        value.copy_(torch.randn_like(value))
    # The pull of few rows is 1 / 1000 at most here; it vanishes where the weights are right.
    for _ in range(12):
        assert refitted(layer, x, other(x) + 0.5, 0.0, 10**6, torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer.weight, other.weight, rtol=0, atol=1e-9)
    torch.testing.assert_close(layer(x), other(x) + 0.5, rtol=0, atol=1e-8)


@pytest.mark.parametrize("rows", [3, 6, 7, 30])
def test_the_solution_with_few_equations_and_with_many(rows):
    """In both forms the one that the gradient says, with its pull; the bias gives the mean."""
    torch.manual_seed(0)
    layer, x = nn.Linear(6, 2).double().requires_grad_(False), torch.randn(rows, 6, dtype=torch.float64)
    wanted, before = torch.randn(rows, 2, dtype=torch.float64), layer.weight.clone()
    assert refitted(layer, x, wanted, 0.25, 100, torch.Generator())
    centred = x - x.mean(0)
    strength = centred.square().mean() * (0.25 + 6 / rows)
    slope = centred.T @ (layer(x) - wanted) / rows + strength * (layer.weight - before).T
    assert slope.abs().max() < 1e-12
    torch.testing.assert_close(layer(x).mean(0), wanted.mean(0), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(nn.Linear(5, 3), (4, 5)), (nn.Conv2d(4, 2, 1, groups=2), (4, 2, 2)), (nn.Conv1d(2, 2, 1), (2, 4))],
    ids=str,
)
def test_positions_that_do_not_count_are_as_good_as_absent(layer, shape):
    """Of four positions two count, so all is as if the other two were not there."""
    torch.manual_seed(0)
    layer, x = layer.double().requires_grad_(False), torch.randn(50, *shape, dtype=torch.float64)
    wanted, alone = torch.randn_like(layer(x)), copy.deepcopy(layer)
    keep = (slice(None), slice(0, 2)) if isinstance(layer, nn.Linear) else (..., slice(0, 2))
    counted = torch.tensor([2.0, 2.0, 0.0, 0.0])
    if x.dim() == 4:
        keep, counted = (..., slice(0, 1)), torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    assert refitted(layer, x, wanted, 0.0, 10**6, torch.Generator(), counted)
    # The pull is relative to the number of rows, of which the weighted ones are twice as many.
    assert refitted(alone, x[keep].repeat(2, *[1] * len(shape)), wanted[keep].repeat(2, *[1] * len(shape)), 0.0,
                    10**6, torch.Generator())  # fmt: skip
    torch.testing.assert_close(layer.weight, alone.weight, rtol=0, atol=1e-12)
    torch.testing.assert_close(layer.bias, alone.bias, rtol=0, atol=1e-12)


def test_a_shift_for_the_positions_that_count():
    """Dyadic. Of two positions nothing is emitted, and 0 and 3/4 are wanted: 3/8 for both, or 3/4 for the second."""
    neuron = IF(1, torch.tensor(1.0), torch.tensor(0.5))
    current, wanted = torch.tensor([[[0.0, 0.25]]]), torch.tensor([[[0.0, 0.75]]])
    site = SweepSite(None, neuron, [{0: current}], {0: wanted}, _Alone())
    assert shift_for(site, 1)[0].item() == 0.375
    assert shift_for(site, 1, torch.tensor([0.0, 2.0]))[0].item() == 0.75


class _Alone:
    """What a site asks of its sweep, for one sample at one step."""

    memory = Memory()

    def mean(self, node, value):
        return value

    def average(self, of):
        return channel_mean(of(0))


def test_what_the_output_depends_on():
    """Of four tokens the second is read, times 3; of its two features the first alone."""
    build = GraphBuilder()
    tokens = build.call("scaled", Affine(torch.tensor(1.0), torch.tensor(0.0)), build.input())
    row = build.call("second", Slice(((1, 2, 1), (0, 1, 1))), tokens)
    graph = build.finish(build.call("tripled", Affine(torch.tensor(3.0), torch.tensor(0.0)), row))
    found = relevance(graph, torch.randn(8, 4, 2), 0)
    assert found["scaled"].tolist() == [[0, 0], [9, 0], [0, 0], [0, 0]]
    assert found["second"].tolist() == [[9]]
    assert counts(found["scaled"], last=True).tolist() == [0, 4, 0, 0]
    assert counts(found["scaled"], last=False).tolist() == [2, 0]
    assert counts(None, last=True) is None
    assert counts(torch.ones(3), last=True) is None  # one position
    assert counts(torch.zeros(3, 2), last=True) is None  # nothing depends on it


@pytest.mark.parametrize("relevance", [False, True])
def test_tokens_that_nothing_reads(relevance):
    """The first of three tokens is read. Whatever the others are, layers are calibrated for it, if relevance counts."""
    torch.manual_seed(0)
    build = GraphBuilder()
    value = build.input()
    for i in range(2):
        value = build.call(f"fc{i}", nn.Linear(3, 3).requires_grad_(False), value)
        value = build.call(f"quant{i}", ClipQuant(torch.tensor(1.0), 2), value)
    first = build.call("first", Slice(((0, 1, 1), (None, None, None))), value)
    graph = build.finish(build.call("head", nn.Linear(3, 2).requires_grad_(False), first))
    x, found = torch.randn(64, 3, 3), []
    for given in (x, torch.cat([x[:, :1], torch.randn(64, 2, 3)], 1)):
        data = Context(T=2, calibration=[given])
        data.ceilings = {f"quant{i}": torch.tensor(float("inf")) for i in range(2)}
        passes = (InsertNeurons(), CalibrateWeights(relevance=relevance))
        done = Pipeline(passes).run(graph, data, Stage.QUANTIZED).graph
        found.append(torch.cat([done.fc1.weight, done.fc1.bias[:, None], done.fc0.bias[:, None]], 1))
    assert torch.equal(*found) is relevance


def test_a_strong_pull_leaves_the_weights():
    torch.manual_seed(0)
    layer, x = nn.Linear(4, 2).requires_grad_(False), torch.randn(50, 4)
    before = layer.weight.clone()
    refitted(layer, x, torch.randn(50, 2), 1e9, 100, torch.Generator())
    torch.testing.assert_close(layer.weight, before, rtol=0, atol=1e-6)


def test_inputs_that_never_vary_tell_nothing():
    layer = nn.Linear(3, 2).requires_grad_(False)
    before = layer.weight.clone()
    assert refitted(layer, torch.ones(8, 3), torch.full((8, 2), 5.0), 0.1, 100, torch.Generator())
    assert torch.equal(layer.weight, before)
    torch.testing.assert_close(layer(torch.ones(1, 3)), torch.full((1, 2), 5.0))


@pytest.mark.parametrize(
    "layer", [nn.Conv3d(2, 2, 1), nn.ConvTranspose2d(2, 2, 1), nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect")]
)
def test_layers_that_least_squares_do_not_cover(layer):
    before = copy.deepcopy(layer.state_dict())
    x = torch.randn(3, 2, *[4] * (layer.weight.dim() - 2))
    assert not refitted(layer, x, layer(x), 0.1, 100, torch.Generator())
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


# Currents


@nets
def test_a_shift_of_current_is_a_shift_of_current(net):
    """Through whatever feeds the neuron: the same spikes as with the shift added right before it."""
    graph, shape = quantized(net)
    snn = Pipeline((InsertNeurons(),)).run(graph, Context(T=4), Stage.QUANTIZED).graph
    x = sample(shape)
    sizes = {name: value.shape for name, value in values(snn, x).items()}
    for name in [node.name for node, _ in calls(snn, Neuron)]:
        plain, moved = copy.deepcopy(snn), copy.deepcopy(snn)
        size = sizes[name]
        shift = (torch.arange(size[1]) - 1.0).reshape(-1, *[1] * (len(size) - 2)) / 4
        node = next(n for n in plain.graph.nodes if n.name == name)
        added = insert(plain, "added", Affine(torch.tensor(1.0), shift), node.all_input_nodes[0])
        node.replace_input_with(node.all_input_nodes[0], added)
        add_current(moved, next(n for n in moved.graph.nodes if n.name == name), shift)
        plain.recompile()
        moved.recompile()
        validate(moved, Stage.SPIKING)
        assert torch.equal(moved(x), plain(x))
        assert torch.equal(values(moved, x)[name], values(plain, x)[name])


def test_shifts_go_into_biases_where_they_can():
    """Not into a layer that another node reads too."""
    counts = {}
    for net in ("conv", "residual", "shared", "mlp"):
        graph, shape = quantized(net)
        passes = (InsertNeurons(), CalibrateBias())
        one = Context(T=4, calibration=[sample(shape, 8)])
        done = Pipeline(passes).run(graph, one, Stage.QUANTIZED).graph
        before = sum(1 for _ in calls(graph, Affine))
        counts[net] = sum(1 for _ in calls(done, Affine)) - before
    assert counts == {"conv": 0, "residual": 0, "shared": 2, "mlp": 0}


def test_one_channel_that_is_spread_over_several():
    """A bias for each channel has no place in a layer of one; it goes into the other branch."""
    build = GraphBuilder()
    x = build.input()
    x = build.call("join", Add(), build.call("gate", nn.Conv2d(2, 1, 1), x), build.call("conv", nn.Conv2d(2, 4, 1), x))
    graph = build.finish(build.call("relu", nn.ReLU(), x)).requires_grad_(False)
    gate, bias = graph.gate.bias.clone(), graph.conv.bias.clone()
    shift = torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(4, 1, 1)
    add_current(graph, next(n for n in graph.graph.nodes if n.name == "relu"), shift)
    assert torch.equal(graph.gate.bias, gate)
    assert torch.equal(graph.conv.bias, (bias.double() + shift.flatten()).float())


# The passes


@nets
@each
def test_the_error_of_every_layer_is_less(one, net):
    """Against the network before conversion, the mean error of the channels, over all layers."""
    graph, shape = folded(net)
    data = context(shape, T=2)
    x = data.calibration[0]
    start = (QuantizeActivations(), ScaleThresholds(), InsertNeurons())
    errors = []
    for passes in (start, (*start, one)):
        done = Pipeline(passes).run(graph, data, Stage.FOLDED).graph
        wanted, found = values(data.reference, x), values(done, x)
        errors.append(
            sum(
                float(channel_mean(wanted[node.name] - found[node.name].unflatten(0, (2, -1)).mean(0)).abs().sum())
                for node, _ in calls(done, Neuron)
            )
        )
    assert errors[1] < errors[0] or (net in ("single", "trained") and errors[1] == errors[0])


def one_neuron(currents, one):
    """One neuron, theta = 1 and T = 1, after a calibration on these currents."""
    build = GraphBuilder()
    layer = nn.Linear(1, 1).requires_grad_(False)
    layer.weight.fill_(1.0)
    layer.bias.zero_()
    graph = build.finish(build.call("quant", ClipQuant(torch.tensor(1.0), 1), build.call("fc", layer, build.input())))
    data = Context(T=1, calibration=[torch.tensor(currents)[:, None]])
    data.ceilings = {"quant": torch.tensor(float("inf"))}
    done = Pipeline((InsertNeurons(), one)).run(graph, data, Stage.QUANTIZED).graph
    return next(calls(done, nn.Linear))[1].bias.tolist(), next(calls(done, IF))[1].v0.flatten().tolist()


def test_one_layer_by_hand():
    """A mean of 9/32 and no spike: a shift of as much gives one spike of two, an error of 7/32."""
    assert one_neuron([0.125, 0.4375], CalibrateBias(rounds=1)) == ([0.28125], [0.5])
    assert one_neuron([0.125, 0.4375], CalibratePotential(rounds=1)) == ([0.0], [0.78125])
    assert one_neuron([0.25, 0.75], CalibrateBias()) == ([0.0], [0.5])  # one spike of two is right on average
    assert one_neuron([0.0, 0.375], CalibrateBias(rounds=1)) == ([0.0], [0.5])  # a shift would spike too much


def test_layers_before_the_first_spike_stay():
    """They see the input itself: there is nothing to make up for."""
    graph, shape = folded("conv")
    done = Pipeline((QuantizeActivations(), InsertNeurons(), CalibrateWeights())).run(
        graph, context(shape), Stage.FOLDED
    )
    assert torch.equal(done.graph.conv1.weight, graph.conv1.weight)
    assert not torch.equal(done.graph.conv2.weight, graph.conv2.weight)
    assert not torch.equal(done.graph.fc.weight, graph.fc.weight)
    assert done.records[-1].sites == 2


def test_what_is_not_covered_is_told():
    graph, shape = folded("decoder")
    done = Pipeline((QuantizeActivations(), InsertNeurons(), CalibrateWeights())).run(
        graph, context(shape), Stage.FOLDED
    )
    assert "weights of 1 layers left as they are (the first: 'up1')" in done.records[-1].notes


def test_trained_bounds_are_compared_with_themselves():
    """A network that was trained with bounds is calibrated against its own quantised activations."""
    graph, shape = folded("trained")
    one = context(shape)
    Pipeline((QuantizeActivations(), InsertNeurons())).run(graph, one, Stage.FOLDED)
    x = sample(shape)
    assert torch.equal(one.reference(x), graph(x))
    assert sum(1 for _ in calls(one.reference, ClipQuant)) == 2


@each
def test_layer_synchronous_networks_are_calibrated_too(one):
    graph, shape = folded("residual")
    passes = (QuantizeActivations(), ScaleThresholds(), InsertNeurons(), CalibrateOffset(rho=6), one)
    done = Pipeline(passes).run(graph, context(shape), Stage.FOLDED)
    assert torch.isfinite(Network(done.graph, {})(sample(shape))).all()


@each
def test_a_calibration_needs_what_it_compares_with(one):
    graph, shape = quantized("conv")
    spiking = Pipeline((InsertNeurons(),)).run(graph, Context(T=4), Stage.QUANTIZED).graph
    with pytest.raises(RecipeError, match="needs the network before conversion, which 'insert-neurons'"):
        Pipeline((one,)).run(spiking, context(shape), Stage.SPIKING)
    with pytest.raises(PassFailed, match="needs calibration data"):
        Pipeline((InsertNeurons(), one)).run(graph, Context(T=4), Stage.QUANTIZED)


def test_the_weights_do_not_depend_on_luck():
    """One seed, one result; another seed draws other equations."""
    graph, shape = folded("residual")
    found = []
    for seed in (0, 0, 1):
        data = Context(T=2, calibration=[sample(shape, 24)], seed=seed)
        passes = (QuantizeActivations(), ScaleThresholds(), InsertNeurons(), CalibrateWeights(positions=48))
        found.append(Pipeline(passes).run(graph, data, Stage.FOLDED).graph.conv2.weight)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@each
def test_one_sample_is_enough_to_run(one):
    graph, shape = folded("residual")
    data = Context(T=4, calibration=[sample(shape, 1)])
    done = Pipeline((QuantizeActivations(), ScaleThresholds(), InsertNeurons(), one)).run(graph, data, Stage.FOLDED)
    assert torch.isfinite(done.graph(sample(shape))).all()


def test_norms_are_folded_first():
    """From the ANN itself, the whole way."""
    graph, shape = NETS["residual"]()
    passes = (FoldBatchNorm(), QuantizeActivations(), ScaleThresholds(), InsertNeurons(), CalibrateWeights())
    result = Pipeline(passes).run(graph, context(shape))
    assert result.stage is Stage.SPIKING
    assert result.records[-1].notes[0] == "on 24 samples"
