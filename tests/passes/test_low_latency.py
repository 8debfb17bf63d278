"""Value range, spike-coded and expanded input, trained thresholds: the passes of the recipes `low-latency*`."""

import copy
import math

import pytest
import torch
from torch import nn

import snnc
from snnc.calibrate.observe import watch
from snnc.capture import capture
from snnc.errors import PassFailed, RecipeError
from snnc.ir.dialect import ClipQuant
from snnc.ir.graph import GraphBuilder, Stage, calls, module_of, validate
from snnc.ir.neurons import IF, AverageIF, Neuron
from snnc.ir.temporal import Encode
from snnc.passes import (
    AverageInput,
    CalibrateBias,
    EncodeInput,
    ExpandInput,
    InsertNeurons,
    LimitRange,
    QuantizeActivations,
    TrainThresholds,
)
from snnc.passes.pipeline import Context, Pipeline
from snnc.recipes import recipe
from tests.nets import Dyadic

IMAGE = (1, 6, 6)


def pixels(n, shape=IMAGE, seed=0):
    """8-bit images from 0 to 1."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, *shape), generator=generator) / 255


def dyadic(shift=0.0):
    """Trained clip-floor activations, one of them behind a pool, and weights that are multiples of 1/8."""
    b = Dyadic(7)

    def act():
        return ClipQuant(torch.tensor(1.0), 100, shift)

    x = b.chain(b.input(), conv1=nn.Conv2d(1, 4, 3, padding=1), act1=act(), conv2=nn.Conv2d(4, 4, 3), act2=act())
    x = b.chain(x, pool=nn.AvgPool2d(2), act3=act(), flatten=nn.Flatten(), fc1=nn.Linear(16, 8), act4=act())
    return b.finish(b.chain(x, fc2=nn.Linear(8, 3)))


def values(graph, x):
    found = {}
    watch(graph, x, lambda node, value: found.update({node.name: value}))
    return found


def quant(T, N, shift=0.0, lam=1.0, L=100, context=None):
    """A `ClipQuant` after `limit-range`."""
    build = GraphBuilder()
    graph = build.finish(build.call("act", ClipQuant(torch.tensor(lam), L, 0.5), build.input()))
    result = Pipeline((LimitRange(N, shift),)).run(graph, context or Context(T=T), Stage.QUANTIZED)
    return next(module for _, module in calls(result.graph, ClipQuant))


# limit-range


@pytest.mark.parametrize(("T", "N"), [(1, 2.5), (1, 4), (2, 3), (8, 8), (8, 10), (8, 16), (200, 250)])
def test_a_limited_range_is_value_range_encoding(T, N):
    """a = floor(N clip(z, 0, M)) / N, at every point between two edges."""
    found = quant(T, N)
    edges = torch.arange(-20, 8 * math.ceil(N) + 40, dtype=torch.float64) / 8 + 1 / 16
    z = edges / N
    found.lam = found.lam.double()
    M = torch.tensor(T / N, dtype=torch.float64)
    wanted = torch.floor(N * torch.minimum(z.clamp_min(0), M) + 1e-9)
    assert torch.equal((found(z) * N).round(), wanted)
    torch.testing.assert_close(found(z), wanted / N, rtol=1e-6, atol=0)
    assert wanted.max() == T


def test_the_paper_s_ranges():
    for T, N in ((1, 2.5), (2, 2.5), (8, 10), (16, 20), (32, 40)):
        assert quant(T, "auto").lam.item() == pytest.approx(T / N)
        assert quant(T, "auto").L == T


def test_a_tie_below_its_edge_still_fires():
    found = quant(8, 10, 1e-3)
    z = torch.arange(1, 9) / 10 * (1 - 1e-6)
    assert (found(z) * 10).round().tolist() == list(range(1, 9))
    assert (quant(8, 10)(z) * 10).round().tolist() == list(range(8))


def test_a_trained_range_is_kept():
    """T levels that were trained, but not T levels that were made from data."""
    assert quant(8, 10, L=8).lam.item() == 1.0
    context = Context(T=8)
    build = GraphBuilder()
    graph = build.finish(build.call("act", nn.ReLU(), build.input()))
    context.calibration = [torch.tensor([[0.5, 2.0]])]
    found = Pipeline((QuantizeActivations(), LimitRange(16))).run(graph, context, Stage.FOLDED).graph
    assert next(module for _, module in calls(found, ClipQuant)).lam.tolist() == [0.25, 1.0]


def test_steps_beyond_the_range():
    with pytest.raises(PassFailed, match="8 steps reach beyond a range of 4 levels"):
        quant(8, 4)


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (LimitRange, {"resolution": 0.5}),
        (LimitRange, {"resolution": float("nan")}),
        (LimitRange, {"resolution": float("inf")}),
        (LimitRange, {"shift": 1.0}),
        (ExpandInput, {"repeat": 0}),
        (TrainThresholds, {"eta": 0.0}),
        (TrainThresholds, {"epochs": 0}),
    ],
)
def test_options_out_of_range(cls, options):
    with pytest.raises(RecipeError, match=f"Option '{next(iter(options))}'"):
        cls(**options)


# P11: the spiking network is the clip-floor network, layer by layer, spike by spike


@torch.no_grad()
def levels(graph, x, T, N):
    """Whole numbers k of each activation, from integer arithmetic alone: k = clip(floor(N z), 0, T)."""
    value = {}
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            value[node.name] = torch.floor(x.double() * 255 + 0.5).mul(N).floor_divide(255).clamp_max(T)
        elif node.op == "call_module":
            module = copy.deepcopy(module_of(graph, node)).double()
            if isinstance(module, ClipQuant):
                value[node.name] = torch.floor(value[node.args[0].name]).clamp(0, T)
                continue
            if getattr(module, "bias", None) is not None:
                module.bias.mul_(N)
            value[node.name] = module(value[node.args[0].name])
    return value


@pytest.mark.parametrize(("T", "N"), [(8, 10), (16, 20), (2, 3), (1, 4), (8, 16)])
def test_p11(T, N):
    graph = dyadic()
    x = pixels(200)
    x[:, 0, 0] = torch.arange(6) * 51 / 255  # 0.2, 0.4 ...: ties of the input at N = 10
    passes = (EncodeInput(), LimitRange(N), InsertNeurons(), AverageInput())
    context = Context(T=T, calibration=[x])
    result = Pipeline(passes).run(graph, context, Stage.QUANTIZED)
    found, wanted = values(result.graph, x), levels(graph, x, T, N)
    wanted["x_spikes"] = wanted["x"]
    ties = spikes = 0
    neurons = {node.name: neuron for node, neuron in calls(result.graph, Neuron)}
    assert list(neurons) == ["x_spikes", "act1", "act2", "act3", "act4"]
    for name, neuron in neurons.items():
        assert isinstance(neuron, AverageIF)
        assert neuron.theta.item() == pytest.approx(T / N)
        train = found[name].reshape(T, *wanted[name].shape)
        assert set(train.unique().tolist()) <= {0.0, neuron.theta.item()}
        count = (train > 0).sum(0)
        assert torch.equal(count.double(), wanted[name]), name
        spikes += int(count.sum())
    for name in ("conv1", "conv2", "fc1", "pool"):
        ties += int(((wanted[name] == wanted[name].floor()) & (wanted[name] > 0) & (wanted[name] <= T)).sum())
    assert spikes > 1000
    assert ties > 1000


# encode-input


def test_the_input_spikes():
    T, N = 8, 10
    x = torch.tensor([[0.0, 0.0995, 0.1, 0.37, 0.8, 0.83, 1.0]])
    build = GraphBuilder()
    graph = build.finish(build.call("act", ClipQuant(torch.tensor(1.0), 100, 0.0), build.input()))
    # An input that an activation reads alone is quantised already.
    context = Context(T=T, calibration=[x])
    result = Pipeline((EncodeInput(),)).run(graph, context, Stage.QUANTIZED)
    assert result.records[0].sites == 0
    build = GraphBuilder()
    x0 = build.input()
    graph = build.finish(
        build.call("act", ClipQuant(torch.tensor(1.0), 100, 0.0), build.call("fc", nn.Linear(7, 2), x0))
    )
    passes = (EncodeInput(), LimitRange(N), InsertNeurons(), AverageInput())
    result = Pipeline(passes).run(graph, context, Stage.QUANTIZED)
    trains = values(result.graph, x)["x_spikes"].reshape(T, 7)
    assert (trains > 0).sum(0).tolist() == [0, 0, 1, 3, 8, 8, 8]
    (encode,) = calls(result.graph, Encode)
    assert encode[0].args[0].op == "placeholder"


def test_images_have_no_negative_spikes():
    for x in (pixels(4) - 0.5, pixels(4) * 255):
        context = Context(T=4, calibration=[x])
        with pytest.raises(PassFailed, match=r"the calibration data goes from .* spikes can only stand for 0 to 1"):
            Pipeline((EncodeInput(),)).run(dyadic(), context, Stage.QUANTIZED)


def test_without_data_the_input_is_not_checked():
    result = Pipeline((EncodeInput(),)).run(dyadic(), Context(T=4), Stage.QUANTIZED)
    assert "no data was seen" in result.records[0].notes[0]


# expand-input


def expanded(graph, T, N, repeat=1, x=None):
    passes = (EncodeInput(), LimitRange(N, 0.0), ExpandInput(repeat))
    return Pipeline(passes).run(graph, Context(T=T, calibration=[pixels(4) if x is None else x]), Stage.QUANTIZED)


def test_three_resolutions():
    """The vector of the released code: N = 10, T = 8, in the order N - 1, N + 1, N."""
    x = torch.tensor([[[[0.37, 0.83]]]])
    build = GraphBuilder()
    start = build.input()
    graph = build.finish(build.call("conv", nn.Conv2d(1, 1, 1), start))
    found = values(expanded(graph, 8, 10, 2, x).graph, x)
    assert found["x_spikes"].shape == (1, 3, 1, 2)
    torch.testing.assert_close(found["x_spikes"][0, :, 0].T, torch.tensor([[0.3, 0.4, 0.3], [0.7, 0.8, 0.8]]))
    assert torch.equal(found["x_copies"], found["x_spikes"].repeat(1, 2, 1, 1))


@pytest.mark.parametrize("repeat", [1, 2])
def test_expansion_starts_from_about_the_same_function(repeat):
    """With fine grids it is the same function; the first layer has 3 or 6 inputs for one."""
    graph, x = dyadic(), pixels(8)
    wide = expanded(graph, 4096, 4096, repeat).graph
    conv = module_of(wide, next(node for node in wide.graph.nodes if node.name == "conv1"))
    assert conv.in_channels == 3 * repeat
    torch.testing.assert_close(values(wide, x)["conv1"], values(graph, x)["conv1"], rtol=0, atol=2e-3)


@pytest.mark.parametrize("first", ["linear", "flatten", "affine", "pad"])
def test_first_layers_that_are_widened(first):
    layers = {
        "linear": [nn.Linear(6, 4)],
        "flatten": [nn.Flatten(), nn.Linear(72, 4)],
        "affine": [Normalise(), nn.Conv2d(2, 4, 3, padding=1)],
        "pad": [nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(2, 4, 3)],
    }[first]
    torch.manual_seed(0)
    net = nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)).eval()
    x = pixels(16, (6,) if first == "linear" else (2, 6, 6))
    net(x)
    graph = capture(net, tuple(x.shape[1:]))
    context = Context(T=4096, calibration=[x])
    passes = (QuantizeActivations(), EncodeInput(), LimitRange(4096), ExpandInput(2))
    found = Pipeline(passes).run(graph, context, Stage.FOLDED).graph
    torch.testing.assert_close(found(x), net(x), rtol=0, atol=5e-3)


class Normalise(nn.Module):
    """Takes out mean and deviation inside the network."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.25, 0.5]).reshape(2, 1, 1))
        self.register_buffer("std", torch.tensor([0.5, 0.25]).reshape(2, 1, 1))

    def forward(self, x):
        return (x - self.mean) / self.std


def test_what_cannot_be_expanded():
    graph = dyadic()
    with pytest.raises(PassFailed, match="encode-input before it"):
        Pipeline((ExpandInput(),)).run(graph, Context(T=4), Stage.QUANTIZED)
    with pytest.raises(PassFailed, match=r"a resolution of 1\.25, and of 0\.25 there is no level"):
        expanded(graph, 1, 1.25)
    build = GraphBuilder()
    pooled = build.finish(build.call("pool", nn.AvgPool2d(2), build.input()))
    with pytest.raises(PassFailed, match="'pool' reads the input, and has no weights"):
        expanded(pooled, 4, 5)


def test_a_second_time_changes_nothing():
    """A network that was trained with these activations compiles to itself."""
    x = pixels(8)
    passes = (EncodeInput(), LimitRange(10), ExpandInput(2))
    once = Pipeline(passes).run(dyadic(), Context(T=8, calibration=[x]), Stage.QUANTIZED).graph
    again = Pipeline(passes).run(once, Context(T=8, calibration=[x]), Stage.QUANTIZED)
    assert [record.sites for record in again.records] == [0, 0, 0]
    assert str(again.graph) == str(once)
    assert torch.equal(again.graph(x), once(x))


# train-thresholds


def uneven(T=8, seed=1):
    """A spiking net, and images whose currents are uneven from the second layer on."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 8), nn.ReLU(),
        nn.Linear(8, 3)
    ).eval()  # fmt: skip
    context = Context(T=T, calibration=list(pixels(256).split(32)))
    graph = capture(net, IMAGE)
    passes = (QuantizeActivations(), EncodeInput(), LimitRange(), InsertNeurons())
    return Pipeline(passes).run(graph, context, Stage.FOLDED).graph, context


def apply(graph, context, *passes):
    return Pipeline(passes).run(graph, context, Stage.SPIKING).graph


def rates(graph, x):
    """Mean spikes a step of every channel, by layer."""
    found = values(graph, x)
    return {
        node.name: (found[node.name] / neuron.theta).double().mean([0, *range(2, found[node.name].dim())])
        for node, neuron in calls(graph, Neuron)
    }


def test_thresholds_bring_the_rates_to_those_of_average_spike_generation():
    graph, context = uneven()
    x = torch.cat(context.calibration)
    wanted = rates(apply(graph, context, AverageInput()), x)
    before, after = (rates(one, x) for one in (graph, apply(graph, context, TrainThresholds(epochs=40))))
    missed = {name: [float((r[name] - wanted[name]).abs().mean()) for r in (before, after)] for name in wanted}
    encoded, *layers = missed.values()
    assert encoded == [0.0, 0.0]  # an even current: nothing to learn
    assert len(layers) == 3
    for first, last in layers:
        assert last < 0.25 * first


def test_one_step_of_training():
    """theta_c - eta * diff_c * height, all layers at once, from what both networks emit before the step."""
    graph, context = uneven()
    context.calibration = [torch.cat(context.calibration)]
    (x,) = context.calibration
    even, odd = rates(apply(graph, context, AverageInput()), x), rates(graph, x)
    result = Pipeline((TrainThresholds(eta=0.5, epochs=1),)).run(graph, context, Stage.SPIKING)
    before = {node.name: neuron.theta for node, neuron in calls(graph, Neuron)}
    moved = 0
    for node, neuron in calls(result.graph, Neuron):
        assert type(neuron) is IF
        height, diff = before[node.name], (even[node.name] - odd[node.name]).float()
        wanted = height - 0.5 * diff.reshape(neuron.theta.shape) * height
        torch.testing.assert_close(neuron.theta, wanted, rtol=1e-5, atol=0)
        moved += bool((neuron.theta != height).any())
    assert result.records[0].sites == moved == 3


def test_spikes_keep_their_height():
    """The trained network is the one before with other thresholds, and with spikes as high as they were."""

    class Taller(torch.fx.Interpreter):
        def run_node(self, n):
            value = super().run_node(n)
            return (value > 0) * height[n.name] if n.name in height else value

    graph, context = uneven()
    x = torch.cat(context.calibration)
    height = {node.name: neuron.theta for node, neuron in calls(graph, Neuron)}
    trained = apply(graph, context, TrainThresholds())
    other = copy.deepcopy(graph)
    theta = {node.name: neuron.theta for node, neuron in calls(trained, Neuron)}
    for node, neuron in calls(other, Neuron):
        neuron.theta = theta[node.name]
    with torch.no_grad():
        torch.testing.assert_close(trained(x), Taller(other).run(x), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(trained(x), graph(x), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(other(x), Taller(other).run(x), rtol=1e-4, atol=1e-5)


def test_rates_that_agree_are_a_fixed_point():
    """Even currents: the network is given back to the bit. So at T = 1, where there is no order."""
    graph, context = uneven(T=1)
    result = Pipeline((TrainThresholds(),)).run(graph, context, Stage.SPIKING)
    assert result.records[0].sites == 0
    assert str(result.graph) == str(graph)
    assert all(torch.equal(a, b) for a, b in zip(result.graph.buffers(), graph.buffers(), strict=True))
    build = GraphBuilder()
    act = build.call("act", ClipQuant(torch.tensor(0.8), 8, 1e-3), build.input())
    flat = build.finish(build.call("fc", nn.Linear(4, 2), act))
    context = Context(T=8, calibration=[pixels(64, (4,))])
    spiking_ = Pipeline((InsertNeurons(), TrainThresholds())).run(flat, context, Stage.QUANTIZED)
    assert spiking_.records[1].sites == 0


def test_thresholds_stay_positive():
    """However large the step: a twentieth of the height is the least."""
    graph, context = uneven()
    trained = apply(graph, context, TrainThresholds(eta=1e4, epochs=3))
    validate(trained, Stage.SPIKING)
    least = {node.name: float(neuron.theta.min()) for node, neuron in calls(graph, Neuron)}
    assert all(float(n.theta.min()) >= 0.0499 * least[node.name] for node, n in calls(trained, Neuron))


def test_training_needs_data():
    graph, context = uneven()
    context.calibration = None
    with pytest.raises(PassFailed, match="'train-thresholds' needs calibration data"):
        apply(graph, context, TrainThresholds())


# The recipes


@pytest.mark.parametrize(
    ("name", "schedule"), [("low-latency", "layer-synchronous"), ("low-latency-streaming", "streaming")]
)
def test_recipes_from_end_to_end(name, schedule, tmp_path):
    """Compiled, saved, loaded; every layer spikes, and nothing before the first neuron has weights."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    x = pixels(64)
    snn = snnc.compile(net.eval(), 4, name, x)
    assert snn.latency.schedule == schedule
    assert snn.latency.depth == 3
    assert len([n for n, _ in calls(snn.graph, Neuron)]) == 3
    snnc.save(snn, tmp_path / "net.snn")
    assert torch.equal(snnc.load(tmp_path / "net.snn")(x), snn(x))
    # What it was trained to be compiles to itself: ranges, grids and input are there already.
    graph = capture(net, IMAGE)
    base = recipe(name).pipeline
    until = Pipeline(base.passes[: [p.name for p in base].index("insert-neurons")])
    trained = until.run(graph, Context(T=4, calibration=[x])).graph
    again = base.run(trained, Context(T=4, calibration=[x]))
    names = ("quantize-activations", "encode-input", "limit-range", "expand-input")
    assert [r.sites for r in again.records if r.name in names] == [0, 0, 0, 0]


@pytest.mark.parametrize("name", ["encode-input", "train-thresholds"])
def test_layers_that_mean_something_else_are_not_explained(name):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    passes = recipe("low-latency-streaming").pipeline.remove("expand-input")
    if name == "train-thresholds":
        passes = passes.remove("encode-input")
    snn = snnc.compile(net, 4, passes, pixels(64))
    with pytest.raises(snnc.SnncError, match=f"without {name}"):
        snnc.explain(snn, net, pixels(4))


def test_no_calibration_after_thresholds():
    """Rates are in another unit then."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    passes = recipe("opi").pipeline.insert(TrainThresholds()).insert(CalibrateBias())
    with pytest.raises(
        RecipeError, match="'calibrate-bias' needs the network before conversion, and 'train-thresholds'"
    ):
        snnc.compile(net, 4, passes, pixels(64, (6,)))
