"""Fixed-point networks: every value up to the readout is an integer, and the same wherever it is computed."""

import copy
import json
import re

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import snnc
from snnc.cli import main
from snnc.errors import LoadError, PassFailed, RecipeError, SnncError, VerifyError
from snnc.integers.lowering import INTEGERS
from snnc.integers.populations import UNITS
from snnc.integers.rounding import nearest
from snnc.ir.dialect import Grid
from snnc.ir.graph import SPEC, GraphBuilder, Stage, calls, validate
from snnc.ir.graphfile import pack_graph, unpack_graph
from snnc.ir.neurons import IF, NEURONS, GradedIF, OffsetIF, ResidualMaskIF, WaitingIF
from snnc.ir.packing import pack, unpack
from snnc.ir.spans import LIMIT
from snnc.ir.temporal import Decode, Encode
from snnc.networks.network import Network
from snnc.passes import FixedPoint, UseSignedNeurons
from snnc.passes.pipeline import Context, Pipeline
from snnc.recipes import recipe
from snnc.runtime.runner import Runner
from tests.zoo import ZOO, sample

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
    assert re.search(r"\bunit\b", str(low))
    assert not re.search(r"\bunit\b", str(high))


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


def test_a_grid_rounds_in_float64_as_in_float32():
    """The product is below 29.5, and 29.5 in float32."""
    grid, x = Grid(torch.tensor(63.7), 0, 99), torch.tensor([0.4631083011627197])
    assert (x.double() * grid.scale.double()).round() != (x * grid.scale).round()
    assert grid(x) == copy.deepcopy(grid).double()(x.double())


def test_grids_are_of_fixed_point_networks_alone():
    graph = graph_of(Grid(torch.tensor(2.0), -3, 5), Encode(T), neuron(IF), Decode(T, T))
    validate(graph, Stage.FIXED)
    with pytest.raises(VerifyError, match="'m0' is a Grid, which stage SPIKING must not contain"):
        validate(graph, Stage.SPIKING)


@pytest.mark.parametrize(("low", "high"), [(1, 5), (-3, -1), (-3.0, 5), (0, True)])
def test_a_grid_has_whole_ends_around_zero(low, high):
    graph = graph_of(Grid(torch.tensor(2.0), low, high), Encode(T), neuron(IF), Decode(T, T))
    with pytest.raises(VerifyError, match="'m0' clips to"):
        validate(graph, Stage.FIXED)


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


# The pass


COMPILED: dict[tuple, Network] = {}


def compiled(name, which="opi", steps=4, bits=8, data=True):
    """A fixed-point network of the zoo, once for all tests, and input on a dyadic grid."""
    model, shape = ZOO[name]()
    x = sample(shape, 8, bits=4)
    if (key := (name, which, steps, bits, data)) not in COMPILED:
        pipeline = recipe(which).pipeline.insert(FixedPoint(bits=bits))
        COMPILED[key] = snnc.compile(model, steps, pipeline, x if data else None, input_shape=shape)
    return COMPILED[key], x, model


def inside(graph, x, window=None):
    """Every value within time, all steps together, and the output."""
    found = {}

    def see(node, value, steps):
        found.setdefault(node.name, []).append(value.double())

    result = Runner(graph).run(x, window, observe=see)
    return {name: torch.cat(parts) for name, parts in found.items()}, result


def doubled(graph, x):
    """The network in float64, and the points of the grid as its input: the grid itself is one product of float32."""
    double = copy.deepcopy(graph).double()
    grid = next(module for _, module in calls(graph, Grid))
    next(module for _, module in calls(double, Grid)).scale = torch.tensor(1.0, dtype=torch.float64)
    return double, grid(x).double()


def same(a, b):
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


@pytest.mark.parametrize("name", ZOO)
def test_the_same_in_any_precision_and_order(name):
    """float32 and float64, all steps at once and one at a time: every value within time is one integer."""
    net, x, _ = compiled(name, "qcfs" if name in ("qcfs", "cq") else "opi")
    validate(net.graph, Stage.FIXED)
    single, _ = inside(net.graph, x)
    assert all(torch.equal(value, value.round()) and value.abs().max() < LIMIT for value in single.values())
    double, _ = inside(*doubled(net.graph, x))
    same(single, double)
    stepwise, out = inside(net.graph, x, window=1)
    same(single, stepwise)
    assert torch.equal(net(x), out)
    assert torch.equal(net(x), net.readout(x)[-1])


@pytest.mark.parametrize(
    "which", ["opi", "best", "best-signed", "graded", "cos", "asg", "srp", "data-free", "low-latency-streaming"]
)
def test_recipes(which):
    """Any neuron: the bound holds, precision does not matter, and the function is about what it was."""
    name = "normalised" if which.startswith("low") else "residual"
    model, shape = ZOO[name]()
    x = sample(shape, 32, bits=4)
    x = x.abs().clamp_max(1) if which.startswith("low") else x
    plain = snnc.compile(model, 4, which, x)
    net = snnc.compile(model, 4, recipe(which).pipeline.insert(FixedPoint()), x)
    single, _ = inside(net.graph, x)
    double, _ = inside(*doubled(net.graph, x))
    same(single, double)
    error = (net(x) - plain(x)).norm() / plain(x).norm()
    assert error < 0.15


def test_shuffled_sums():
    """Input channels in another order, with their weights: other sums, the same integers."""
    net, x, _ = compiled("plain")
    other = copy.deepcopy(net.graph)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(1))
    conv1, conv2 = other.conv1, other.conv2
    conv1.weight, conv1.bias = (nn.Parameter(v[order], requires_grad=False) for v in (conv1.weight, conv1.bias))
    conv2.weight = nn.Parameter(conv2.weight[:, order], requires_grad=False)
    neuron = next(module for _, module in calls(other, IF))
    neuron.theta, neuron.v0 = (v.expand(6, 1, 1)[order] for v in (neuron.theta, neuron.v0))
    assert torch.equal(net.graph(x), other(x))


def powers(module):
    """The largest power of two that divides the weights of each output."""
    weight = module.weight.int().flatten(1)
    return torch.tensor([next(2**k for k in range(24) if (row % 2 ** (k + 1)).any()) for row in weight])


def test_few_bits_leave_thresholds_fine():
    """Weights of 4 bits times a power of two; the unit of thresholds, biases and identity branches is as fine."""
    net, _, _ = compiled("residual", bits=4)
    layers = list(calls(net.graph, nn.Conv2d, nn.Linear))
    assert max(int(powers(module).max()) for _, module in layers) > 1
    assert min(int(m.theta.min()) for _, m in calls(net.graph, IF)) >= UNITS
    rows = {row["name"]: row for row in net.info["proof"]}
    assert max(rows[node.name]["bits"] for node, _ in layers) == 4


def test_a_bound_costs_the_finer_unit_before_it_costs_bits():
    model, shape = ZOO["mlp"]()
    x = sample(shape, 8, bits=4)
    net = snnc.compile(model, 2048, recipe("opi").pipeline.insert(FixedPoint(bits=4)), x)
    validate(net.graph, Stage.FIXED)
    assert "fewer than" not in " ".join(net.info["records"][-1]["notes"])
    assert min(int(m.theta.min()) for _, m in calls(net.graph, IF)) < UNITS


def test_weights_have_the_bits_that_were_asked_for():
    for bits in (4, 8):
        net, _, _ = compiled("residual", bits=bits)
        layers = [m for _, m in calls(net.graph, nn.Conv2d, nn.Linear)]
        most = [m.weight.abs().flatten(1).amax(1) / powers(m) for m in layers]
        assert max(float(one.max()) for one in most) == 2 ** (bits - 1) - 1
        assert net.info["recipe_text"].count(f"bits = {bits}\n") == 1 + (bits == 8)


def test_without_data_the_input_has_a_range():
    net, x, _ = compiled("plain", "data-free", data=False)
    grid = next(module for _, module in calls(net.graph, Grid))
    assert (grid.low, grid.high) == (-128, 128)
    same(inside(net.graph, x)[0], inside(*doubled(net.graph, x))[0])


def test_pixels_are_their_own_grid():
    """An 8-bit image that training normalised: one unit is one step of a pixel; none falls between two points."""
    model, shape = ZOO["plain"]()
    pixels = torch.randint(0, 256, (40, *shape), generator=torch.Generator().manual_seed(3)).float()
    pixels[0, :, 0, 0], pixels[0, :, 0, 1] = 0, 255
    for mean, fine in ((0.4, 1), (0.5, 2)):
        x = (pixels / 255 - mean) / 0.25
        net = snnc.compile(model, 2, recipe("opi").pipeline.insert(FixedPoint()), x)
        grid = next(module for _, module in calls(net.graph, Grid))
        steps = grid(x) - grid(x)[0, :, :1, :1]
        assert torch.equal(steps, fine * (pixels - pixels[0, :, :1, :1]))


def test_a_bound_that_fails_costs_bits_and_says_so():
    model, shape = ZOO["mlp"]()
    x = sample(shape, 8, bits=4)
    net = snnc.compile(model, 64, recipe("asg").pipeline.insert(FixedPoint(bits=16)), x)
    validate(net.graph, Stage.FIXED)
    notes = " ".join(net.info["records"][-1]["notes"])
    assert re.search(r"\d layers have fewer than 16 bits, so that the bound holds \(the first: 'fc", notes)
    assert "proved: no integer of" in notes
    assert max(row["bound"] for row in net.info["proof"]) < LIMIT


def test_files(tmp_path):
    net, x, _ = compiled("residual")
    again = snnc.load(snnc.save(net, tmp_path / "net.snn"))
    assert again.stage is Stage.FIXED
    assert again.info == net.info
    assert torch.equal(again(x), net(x))
    again.graph.conv.weight[0, 0, 0, 0] += 0.5
    snnc.save(again, tmp_path / "spoilt.snn")
    with pytest.raises(LoadError, match=r"'conv\.weight' holds numbers that are no integers"):
        snnc.load(tmp_path / "spoilt.snn")


def test_what_has_no_meaning_on_integers():
    net, x, model = compiled("plain")
    with pytest.raises(SnncError, match="different units"):
        snnc.explain(net, model, x)
    with pytest.raises(RecipeError, match="are integers"):
        snnc.tune(net, x, teacher=model, epochs=1)
    again = Pipeline((UseSignedNeurons(),))
    with pytest.raises(RecipeError, match="takes a graph of stage SPIKING"):
        again.run(net.graph, Context(4), Stage.FIXED)


def test_what_cannot_be_integers():
    def run(*modules):
        return snnc.compile(
            nn.Sequential(*modules), 2, recipe("opi").pipeline.insert(FixedPoint()), torch.randn(8, 3, 8, 8)
        )

    conv = nn.Conv2d(3, 4, 3, padding=1)
    with pytest.raises(PassFailed, match="its windows have several sizes"):
        run(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(36, 2))
    with pytest.raises(PassFailed, match="pads with 1"):
        run(conv, nn.ReLU(), nn.ConstantPad2d(1, 1.0), nn.Flatten(), nn.Linear(400, 2))
    net = run(
        conv,
        nn.ReLU(),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.Conv2d(4, 4, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 2),
    )
    validate(net.graph, Stage.FIXED)


@pytest.mark.parametrize(("options", "bits"), [(["--fixed-point"], 8), (["--fixed-point", "6"], 6)])
def test_the_command_line(options, bits, tmp_path):
    _, shape = ZOO["mlp"]()
    torch.save(nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)), tmp_path / "net.pt")
    np.savez(tmp_path / "data.npz", x=sample(shape, 32).numpy())
    command = [
        "compile",
        str(tmp_path / "net.pt"),
        "--calib",
        str(tmp_path / "data.npz"),
        "-o",
        str(tmp_path / "net.snn"),
    ]
    found = CliRunner().invoke(main, [*command, "--recipe", "opi", *options, "--json"])
    assert found.exit_code == 0, found.stderr
    content = json.loads(found.stdout)
    assert content["recipe"] == f"opi, {bits} bits"
    assert [row["bits"] for row in content["proof"] if row["module"] == "Linear"] == [bits, bits]
    shown = CliRunner().invoke(main, ["inspect", str(tmp_path / "net.snn")], env={"COLUMNS": "200"})
    assert "no integer reaches 2^24" in shown.stdout


def test_a_channel_without_weights():
    """Its grid would be as fine as its weights are small, and its bias too large for it."""
    conv = nn.Conv2d(3, 4, 3, padding=1)
    with torch.no_grad():
        conv.weight[0], conv.weight[1], conv.bias[0] = 1e-9, 0, 0.5
    model = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(256, 3)).eval()
    x = sample((3, 8, 8), 16, bits=4)
    net = snnc.compile(model, 4, recipe("opi").pipeline.insert(FixedPoint()), x)
    validate(net.graph, Stage.FIXED)
    error = (net(x) - model(x)).norm() / model(x).norm()
    assert error < 0.2


def test_a_channel_that_its_bias_silences():
    """Without data its threshold is next to nothing and asks for the finest unit, of which its bias would be 2^24."""
    conv = nn.Conv2d(3, 2, 3, padding=1)
    with torch.no_grad():
        conv.weight[0], conv.bias[0] = 0, -100
    model = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(128, 3)).eval()
    pipeline = recipe("data-free").pipeline.insert(FixedPoint())
    net = snnc.compile(model, 4, pipeline, input_shape=(3, 8, 8))
    ((name, _),) = net.neurons()
    seen = {}
    net.readout(sample((3, 8, 8), 3), observe=lambda node, value, _: seen.update({node.name: value}))
    assert not seen[name][:, 0].any()
    assert seen[name][:, 1].any()


def test_the_grid_of_least_error_at_the_output():
    """A large weight asks for a coarse grid, unless its input never varies."""
    weights = torch.tensor([[[8.75, 1.0, 1.0, 1.0]]], dtype=torch.float64)
    seen = torch.eye(4, dtype=torch.float64)[None]
    grid = torch.tensor([1.25], dtype=torch.float64)
    assert nearest(weights, grid, 7, seen).item() == 1.25
    seen[0, 0, 0] = 0
    assert nearest(weights, grid, 7, seen).item() == 1.0


class Leaky(IF):
    """A plugin's neuron, which multiplies its potential."""

    def step(self, state, current):
        return super().step(state / 2, current)


@pytest.mark.parametrize("kind", [Leaky, type("Same", (IF,), {})])
def test_a_neuron_of_ones_own_needs_a_row(kind, monkeypatch):
    """As it may do what no integer survives; one that does not may have the row of its base."""
    net = snnc.compile(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), 4, "opi", torch.rand(8, 4))
    for _, one in net.neurons():
        one.__class__ = kind
    monkeypatch.setitem(SPEC, Stage.SPIKING, SPEC[Stage.SPIKING] | {kind})
    monkeypatch.setitem(SPEC, Stage.FIXED, SPEC[Stage.FIXED] | {kind})
    context = Context(T=4, calibration=[torch.rand(8, 4)], input_shape=(4,))

    def fixed():
        return Pipeline((FixedPoint(),)).run(copy.deepcopy(net.graph), context, Stage.SPIKING)

    with pytest.raises(PassFailed, match=rf"'{kind.__name__}' has no row in the table 'integers'") as raised:
        fixed()
    assert f"INTEGERS.add({kind.__name__}, ...)" in raised.value.hint
    monkeypatch.setattr(INTEGERS, "_rows", dict(INTEGERS._rows))
    INTEGERS.add(kind, INTEGERS.row(IF))
    assert fixed().stage is Stage.FIXED
