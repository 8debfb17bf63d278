"""The contract of every pass over every net, and what each of the small passes does."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, fx, nn

from snnc.calibrate.observe import watch
from snnc.errors import PassFailed, RecipeError
from snnc.ir.dialect import Affine, ClipQuant
from snnc.ir.graph import GraphBuilder, Stage, calls, validate
from snnc.ir.neurons import IF, AverageIF, GradedIF, Neuron, OffsetIF, ResidualMaskIF, SignedIF, WaitingIF
from snnc.ir.temporal import Decode, Encode, Restart, Temporal
from snnc.passes import (
    PASSES,
    AverageInput,
    CalibrateOffset,
    EncodeInput,
    ExpandInput,
    InsertNeurons,
    LimitRange,
    MaskResidual,
    NormalizeThresholds,
    QuantizeActivations,
    ScaleThresholds,
    SetInitialPotential,
    UseGradedNeurons,
    UseSignedNeurons,
    WaitForInput,
)
from snnc.passes.pipeline import Context, Pass, Pipeline
from tests.nets import NETS, folded, quantized, sample, spiking

AT = {Stage.ANN: lambda name: NETS[name](), Stage.FOLDED: folded, Stage.QUANTIZED: quantized, Stage.SPIKING: spiking}
VARIANTS = (
    QuantizeActivations(bound="moments", levels=3),
    QuantizeActivations(shift=0.0),
    ScaleThresholds(rule="max", per="layer"),
    ScaleThresholds(rule="percentile", percent=90.0, factor=0.5),
    InsertNeurons(maxpool="per-step"),
    SetInitialPotential(rule="normal"),
    CalibrateOffset(rho=7, iterations=3, guard=False),
    QuantizeActivations(bits=2),
    UseGradedNeurons(bits=1),
    WaitForInput(wait="T"),
    MaskResidual(tau=1),
    LimitRange(resolution=7.5, shift=0.0),
    ExpandInput(repeat=2),
)
NARROW = {"double": "reads the input", "bare": "not quantised"}  # what keeps the first layer from being widened
nets = pytest.mark.parametrize("net", NETS)


def identity(one: Pass) -> str:
    return one.name + "".join(f"-{v}" for v in one.options.values())


def run(one: Pass, graph: fx.GraphModule, context: Context) -> fx.GraphModule:
    return Pipeline((one,)).run(graph, context, one.takes[0]).graph


def same(a: fx.GraphModule, b: fx.GraphModule) -> bool:
    """The same text, and the same numbers."""
    left, right = a.state_dict(), b.state_dict()
    return (
        str(a) == str(b) and left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
    )


@nets
@pytest.mark.parametrize("one", [*(cls() for cls in PASSES.values()), *VARIANTS], ids=identity)
def test_contract(one, net):
    """From the stage it takes to the stage it gives; on a copy; the same result every time; a record of it all."""
    graph, shape = AT[one.takes[0]](net)
    x = sample(shape, 6)
    if isinstance(one, EncodeInput | ExpandInput):
        x = x.abs() / 2
    if isinstance(one, ExpandInput):
        graph = run(EncodeInput(), graph, Context(T=4))
        if net in NARROW:
            with pytest.raises(PassFailed, match=NARROW[net]):
                run(one, graph, Context(T=4))
            return
    before = copy.deepcopy(graph)
    results = []
    for _ in range(2):
        context = Context(T=4, calibration=[x])
        if one.takes[0] is Stage.SPIKING:
            context.reference = quantized(net)[0]
        if isinstance(one, ScaleThresholds):
            context.statistics, context.ceilings = {}, {}
        results.append(Pipeline((one,)).run(graph, context, one.takes[0]))
    first, second = results
    assert same(graph, before)
    assert same(first.graph, second.graph)
    assert first.stage is (one.gives or one.takes[0])
    validate(first.graph, first.stage)
    (record,) = first.records
    assert (record.name, record.options, record.stage) == (one.name, one.options, first.stage)
    assert record.sites >= 0
    assert record.seconds >= 0
    assert (record.error is not None) == one.exact
    out = first.graph(sample(shape))
    assert out.shape == graph(sample(shape)).shape
    assert torch.isfinite(out).all()


def test_every_pass_says_what_it_is():
    for name, cls in PASSES.items():
        one = cls()
        assert one.name == name
        assert one.source
        assert one.takes
        assert cls.__doc__
        assert hash(one) == hash(cls())


# quantize-activations


@nets
def test_every_activation_is_quantized(net):
    """One bound a channel, the largest activation seen; trained bounds stay."""
    graph, shape = folded(net)
    x = sample(shape, 6)
    trained = {node.name: module for node, module in calls(graph, ClipQuant)}
    wanted = {node.name: module for node, module in calls(graph, nn.ReLU, nn.Hardtanh)}
    context = Context(T=5, calibration=[x[:2], x[2:]])
    result = Pipeline((QuantizeActivations(),)).run(graph, context, Stage.FOLDED)
    quants = {node.name: module for node, module in calls(result.graph, ClipQuant)}
    assert quants.keys() == trained.keys() | wanted.keys()
    assert result.records[0].sites == len(wanted)
    assert context.statistics.keys() == wanted.keys()
    for name, quant in quants.items():
        if name in trained:
            assert torch.equal(quant.lam, trained[name].lam)
            continue
        assert (quant.L, quant.shift) == (5, 0.5)
        peak = context.statistics[name].maximum("channel").float()
        assert torch.equal(quant.lam.flatten(), peak.clamp_max(getattr(wanted[name], "max_val", float("inf"))))


def test_bounds_are_the_largest_activations():
    """By hand: one channel that fires, one that is silent and borrows."""
    build = GraphBuilder()
    graph = build.finish(build.call("relu", nn.ReLU(), build.input()))
    context = Context(T=4, calibration=[torch.tensor([[0.5, -1.0], [2.25, -3.0]])])
    quant = next(m for _, m in calls(run(QuantizeActivations(levels=7, shift=0.0), graph, context), ClipQuant))
    assert quant.lam.tolist() == [2.25, 2.25]
    assert (quant.L, quant.shift) == (7, 0.0)


def test_clip_bounds_are_ceilings():
    """A ReLU6 that sees more than 6, or whose scaled bound would pass 6, keeps 6."""
    build = GraphBuilder()
    graph = build.finish(build.call("act", nn.Hardtanh(0.0, 2.0), build.input()))
    context = Context(T=4, calibration=[torch.tensor([[0.5, 1.0], [9.0, 1.5]])])
    pipeline = Pipeline((QuantizeActivations(), ScaleThresholds("max", factor=1.25)))
    quant = next(m for _, m in calls(pipeline.run(graph, context, Stage.FOLDED).graph, ClipQuant))
    assert quant.lam.tolist() == [2.0, 1.875]


def test_least_levels():
    graph, shape = folded("mlp")
    for T, least, levels, bits, wanted in (
        (2, 4, "T", 1, 4), (8, 4, "T", 1, 8), (8, 4, 2, 1, 4), (2, 1, "T", 3, 14), (2, 30, "T", 3, 30), (2, 1, 5, 2, 15)
    ):  # fmt: skip
        one = QuantizeActivations(levels=levels, bits=bits, least_levels=least)
        result = run(one, graph, Context(T=T, calibration=[sample(shape)]))
        assert {m.L for _, m in calls(result, ClipQuant)} == {wanted}


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (QuantizeActivations(bound="trained"), r"'relu1' has no trained clip bound \(2 activations"),
        (QuantizeActivations(bound="data"), "needs calibration data"),
    ],
)
def test_bounds_that_cannot_be_had(one, words):
    graph, shape = folded("mlp")
    with pytest.raises(PassFailed, match=words):
        run(one, graph, Context(T=4, input_shape=shape))


def test_trained_bounds_need_no_data():
    graph, shape = folded("trained")
    result = Pipeline((QuantizeActivations(bound="trained"),)).run(graph, Context(T=4), Stage.FOLDED)
    assert result.records[0].sites == 0
    assert torch.equal(result.graph(sample(shape)), graph(sample(shape)))


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (QuantizeActivations, {"levels": 0}),
        (QuantizeActivations, {"levels": -3}),
        (QuantizeActivations, {"least_levels": 0}),
        (QuantizeActivations, {"shift": 1.0}),
        (QuantizeActivations, {"shift": -0.5}),
        (QuantizeActivations, {"shift": float("nan")}),
        (ScaleThresholds, {"percent": 0.0}),
        (ScaleThresholds, {"percent": 100.5}),
        (ScaleThresholds, {"percent": float("nan")}),
        (ScaleThresholds, {"factor": 0.0}),
        (ScaleThresholds, {"factor": float("inf")}),
        (SetInitialPotential, {"fraction": float("nan")}),
        (QuantizeActivations, {"bits": 0}),
        (UseGradedNeurons, {"bits": 0}),
        (UseGradedNeurons, {"bits": 17}),
        (WaitForInput, {"wait": -1}),
        (MaskResidual, {"tau": 0}),
        (CalibrateOffset, {"rho": 0}),
        (CalibrateOffset, {"iterations": 0}),
        (CalibrateOffset, {"eps": 0.0}),
        (CalibrateOffset, {"eps": float("nan")}),
    ],
)
def test_options_out_of_range(cls, options):
    (name,) = options
    with pytest.raises(RecipeError, match=f"Option '{name}' of '{cls.name}'"):
        cls(**options)


# scale-thresholds


@pytest.mark.parametrize("per", ["channel", "layer"])
@pytest.mark.parametrize("rule", ["max", "percentile", "mse"])
def test_rules_of_thresholds(rule, per):
    """Each rule is what the statistics say, in the shape that broadcasts; trained bounds are not touched."""
    graph, shape = folded("conv")
    context = Context(T=4, calibration=[sample(shape, 8)])
    quants = run(QuantizeActivations(), graph, context)
    result = run(ScaleThresholds(rule, per, percent=95.0, factor=2.0), quants, context)
    for node, module in calls(result, ClipQuant):
        statistics = context.statistics[node.name]
        bound = {
            "max": lambda s: s.maximum(per),
            "percentile": lambda s: s.percentile(95.0, per),
            "mse": lambda s: s.mse(4, 0.5, per),
        }[rule](statistics)
        assert module.lam.shape == ((len(bound), 1, 1) if per == "channel" else ())
        assert torch.equal(module.lam.flatten(), (bound * 2).float())


def test_trained_bounds_are_kept_and_counted():
    graph, shape = folded("trained")
    context = Context(T=4, calibration=[sample(shape)])
    result = Pipeline((QuantizeActivations("trained"), ScaleThresholds())).run(graph, context, Stage.FOLDED)
    assert same(result.graph, graph)
    assert result.records[1].sites == 0
    assert result.records[1].notes == ("2 trained bounds kept",)


# normalize-thresholds


@nets
@pytest.mark.parametrize("T", [3, 4])
def test_normalizing_changes_no_spike(net, T):
    """Dyadic bounds: every theta becomes 1, and every neuron spikes as it did."""
    graph, shape = quantized(net, L=T)
    x = sample(shape)
    plain = run(InsertNeurons(), graph, Context(T=T))
    unit = Pipeline((NormalizeThresholds(), InsertNeurons())).run(graph, Context(T=T), Stage.QUANTIZED).graph
    assert all((m.theta == 1).all() for _, m in calls(unit, Neuron))
    assert torch.equal(unit(x), plain(x))
    spikes = []
    for one in (plain, unit):
        found: dict[str, Tensor] = {}

        class See(fx.Interpreter):
            def run_node(self, n, found=found):
                value = super().run_node(n)
                found[n.name] = value
                return value

        See(one).run(x)
        spikes.append({node.name: found[node.name] != 0 for node, _ in calls(one, Neuron)})
    assert spikes[0].keys() == spikes[1].keys()
    assert all(torch.equal(spikes[0][name], spikes[1][name]) for name in spikes[0])


def test_factors_go_into_the_weights_where_they_can():
    graph, _ = quantized("mlp")
    result = run(NormalizeThresholds(), graph, Context(T=4))
    assert not list(calls(result, Affine))
    graph, _ = quantized("residual")
    result = run(NormalizeThresholds(), graph, Context(T=4))
    names = {node.name for node, _ in calls(result, Affine)}
    assert names == {"relu0_height", "relu2_unit", "relu3_height", "relu3_unit"}


def test_normalizing_rows():
    """A linear layer on `[B, C, F]` counts along F, and a bound along C, here of one size."""
    build = GraphBuilder()
    x = build.call("fc1", nn.Linear(4, 4), build.input())
    x = build.call("act", ClipQuant(torch.tensor([[0.5], [1.0], [2.0], [4.0]]), 4), x)
    graph = build.finish(build.call("fc2", nn.Linear(4, 4), x))
    for _, module in calls(graph, nn.Linear):
        module.weight.data.mul_(8).round_().div_(8)
        module.bias.data.mul_(8).round_().div_(8)
    x = sample((4, 4))
    assert torch.equal(run(NormalizeThresholds(), graph, Context(T=4))(x), graph(x))


def test_statistics_do_not_outlive_their_unit():
    """Behind normalisation the observed values are in another unit, so thresholds may no longer come from them."""
    graph, shape = folded("mlp")
    context = Context(T=4, calibration=[sample(shape)])
    passes = (QuantizeActivations(), NormalizeThresholds(), ScaleThresholds("max"))
    with pytest.raises(RecipeError, match=r"'normalize-thresholds' before it leaves none.*'scale-thresholds' first"):
        Pipeline(passes).run(graph, context, Stage.FOLDED)
    passes = (QuantizeActivations(), ScaleThresholds("max"), NormalizeThresholds())
    result = Pipeline(passes).run(graph, Context(T=4, calibration=[sample(shape)]), Stage.FOLDED)
    assert all((m.lam == 1).all() for _, m in calls(result.graph, ClipQuant))


# set-initial-potential


@pytest.mark.parametrize(
    ("rule", "share"), [("half", 0.5), ("zero", 0.0), ("fraction", 0.25), ("uniform", None), ("normal", None)]
)
def test_initial_potentials(rule, share):
    graph, _ = spiking("conv", cos=CalibrateOffset())
    result = run(SetInitialPotential(rule, fraction=0.25), graph, Context(T=4))
    for _, neuron in calls(result, Neuron):
        if share is not None:
            assert torch.equal(neuron.v0, neuron.theta * share)
        assert neuron.v0.shape == neuron.theta.shape
    if share is None:
        again = run(SetInitialPotential(rule), graph, Context(T=4, seed=1))
        assert not same(result, again)
        shares = torch.cat([(m.v0 / m.theta).flatten() for _, m in calls(result, Neuron)])
        assert len(shares.unique()) == len(shares)
        assert rule == "normal" or ((shares >= 0) & (shares < 1)).all()


# calibrate-offset


@pytest.mark.parametrize(("rho", "T", "simulated"), [(4, 8, 8), (4, 2, 4), ("T", 6, 6), (1, 1, 1)])
def test_offset_neurons(rho, T, simulated):
    """All neurons replaced, their parameters kept, everything in time made long enough, the readout left at T."""
    graph, _ = spiking("maxpool", T)
    plain = {node.name: neuron for node, neuron in calls(graph, IF)}
    result = run(CalibrateOffset(rho=rho, iterations=2, guard=False, eps=0.01), graph, Context(T=T))
    neurons = {node.name: neuron for node, neuron in calls(result, OffsetIF)}
    assert neurons.keys() == plain.keys()
    for name, neuron in neurons.items():
        assert (neuron.rho, neuron.iterations) == (T if rho == "T" else rho, 2)
        assert (neuron.guard, neuron.eps) == (False, 0.01)
        assert torch.equal(neuron.theta, plain[name].theta)
        assert torch.equal(neuron.v0, plain[name].v0)
    assert {m.T for _, m in calls(result, Encode, Decode, Temporal)} == {simulated}
    assert {m.read for _, m in calls(result, Decode)} == {T}


def test_calibrating_twice_is_calibrating_anew():
    graph, _ = spiking("mlp", 4)
    twice = Pipeline((CalibrateOffset(rho=8), CalibrateOffset(rho=2))).run(graph, Context(T=4), Stage.SPIKING)
    once = run(CalibrateOffset(rho=2), graph, Context(T=4))
    assert same(twice.graph, once)


# The passes that choose neurons

CHOICES = {
    CalibrateOffset(rho=6): OffsetIF,
    UseSignedNeurons(): SignedIF,
    UseGradedNeurons(2): GradedIF,
    WaitForInput(0): IF,
    AverageInput(): AverageIF,
    MaskResidual(3): ResidualMaskIF,
}


@pytest.mark.parametrize("one", CHOICES, ids=lambda one: one.name)
@pytest.mark.parametrize("net", ["maxpool", "residual", "bare"])
def test_the_last_choice_counts(one, net):
    """Whatever neurons and whatever time an earlier pass chose, nothing of it is left."""
    graph, _ = spiking(net, 4)
    alone = run(one, graph, Context(T=4))
    assert {type(m) for _, m in calls(alone, Neuron)} == {CHOICES[one]}
    for other in CHOICES:
        both = Pipeline((other, one)).run(graph, Context(T=4), Stage.SPIKING).graph
        assert str(both) == str(alone)
        left, right = both.state_dict(), alone.state_dict()
        assert left.keys() == right.keys()
        assert all(torch.allclose(left[key], right[key], rtol=1e-6) for key in left)


def test_time_of_two_passes():
    """All of time is longer by tau, readouts skip it, and max pools start anew in between."""
    graph, _ = spiking("maxpool", 4)
    result = run(MaskResidual(3), graph, Context(T=4))
    assert {m.T for _, m in calls(result, Encode, Decode, Temporal)} == {7}
    assert {(m.read, m.skip) for _, m in calls(result, Decode)} == {(4, 3)}
    assert {m.tau for _, m in calls(result, Temporal)} == {3}
    assert [type(m.body).__name__ for _, m in calls(result, Restart)] == ["RunningMax"]


def test_units_of_graded_neurons():
    """The largest spike is as high as it was, and v0 is half a unit where it was half of theta."""
    graph, _ = spiking("conv", 4, units=7)
    before = {node.name: neuron for node, neuron in calls(graph, IF)}
    result = run(UseGradedNeurons(3), graph, Context(T=4))
    for node, neuron in calls(result, GradedIF):
        assert torch.equal(neuron.theta * 7, before[node.name].theta)
        assert torch.equal(neuron.v0, neuron.theta / 2)
    again = run(SetInitialPotential("half"), result, Context(T=4))
    assert same(again, result)


@pytest.mark.parametrize("T", [1, 2, 4, 8])
@pytest.mark.parametrize("bits", [1, 2, 3])
def test_graded_nets_are_the_quantized_ann_where_the_current_is_constant(T, bits):
    """THE theorem, for a net whose one activation sees a constant current: equal to the bit."""
    m = 2**bits - 1
    for shift in (0.5, 0.0):
        graph, shape = quantized("single", L=m * T, shift=shift, units=m)
        x = sample(shape, 64)
        passes = (InsertNeurons(), UseGradedNeurons(bits))
        snn = Pipeline(passes).run(graph, Context(T=T), Stage.QUANTIZED).graph
        if shift == 0:  # thirds and sevenths on the way to v0 = 0 leave a rounding error
            for _, neuron in calls(snn, Neuron):
                assert neuron.v0.abs().max() < 1e-6
                neuron.v0 = torch.zeros_like(neuron.v0)
        assert torch.equal(snn(x), graph(x))


def test_who_waits():
    """Everybody but those whose current is constant: whatever is linear may lie between them and Encode."""
    for net, known in (
        ("single", {"relu1"}),
        ("residual", {"relu0"}),
        ("shared", {"relu1", "relu2"}),
        ("dense", {"relu1"}),
        ("bare", {"relu1"}),
        ("preactivation", {"relu1"}),
        ("pool-first", {"relu1"}),
    ):
        graph, _ = spiking(net, 4)
        result = run(WaitForInput(2), graph, Context(T=4))
        assert {node.name for node, m in calls(result, Neuron) if type(m) is IF} == known, net
        assert {m.wait for _, m in calls(result, WaitingIF)} <= {2}
    build = GraphBuilder()
    x = build.call("encode", Encode(4), build.input())
    x = build.call("neuron", IF(4, torch.tensor(1.0), torch.tensor(0.5)), build.call("linear", nn.Linear(3, 3), x))
    late = build.finish(build.call("decode", Decode(4, 4), x))
    assert {type(m) for _, m in calls(run(WaitForInput(2), late, Context(T=4)), Neuron)} == {IF}


@pytest.mark.parametrize(("wait", "T", "found"), [(1, 4, 1), ("T", 4, 3), (9, 4, 3), ("T", 1, 0), (0, 4, 0)])
def test_waits(wait, T, found):
    graph, _ = spiking("mlp", T)
    neuron = {node.name: m for node, m in calls(run(WaitForInput(wait), graph, Context(T=T)), Neuron)}["relu2"]
    assert getattr(neuron, "wait", 0) == found
    assert type(neuron) is (WaitingIF if found else IF)


EXACT = {
    "average": AverageInput(),
    "waiting": WaitForInput("T"),
    "offset": CalibrateOffset(rho="T", iterations=8),
}


@pytest.mark.parametrize("T", [1, 2, 4, 8])
@pytest.mark.parametrize("net", ["mlp", "conv", "residual", "preactivation", "maxpool", "dense", "inverted", "trained"])
@pytest.mark.parametrize("model", EXACT)
def test_every_layer_is_the_quantized_ann(model, net, T):
    """P14 at T = L: the mean output of every neuron is what its `ClipQuant` gives, to the bit."""
    graph, shape = quantized(net, L=T)
    graph = copy.deepcopy(graph)
    for _, module in calls(graph, ClipQuant):
        module.L = T
    x = sample(shape, 8)
    snn = Pipeline((InsertNeurons(), EXACT[model])).run(graph, Context(T=T), Stage.QUANTIZED).graph
    wanted, found = {}, {}
    with torch.no_grad():
        watch(graph, x, lambda node, value: wanted.update({node.name: value}))
        watch(snn, x, lambda node, value: found.update({node.name: value}))
        assert torch.equal(snn(x), graph(x))
    layers = [node.name for node, _ in calls(snn, Neuron)]
    assert layers == [node.name for node, _ in calls(graph, ClipQuant)]
    for name in layers:
        assert torch.equal(found[name].reshape(T, 8, *found[name].shape[1:]).sum(0) / T, wanted[name]), name


@pytest.mark.parametrize("T", [1, 2, 4, 8])
@pytest.mark.parametrize("net", ["mlp", "conv", "residual", "preactivation", "early", "inverted", "trained"])
def test_fully_calibrated_nets_are_the_quantized_ann(net, T):
    """P14: at rho = T = L, with as many iterations, every layer has its ideal count: equal to the bit."""
    graph, shape = quantized(net, L=T)
    graph = copy.deepcopy(graph)
    for _, module in calls(graph, ClipQuant):
        module.L = T
    x = sample(shape, 8)
    passes = (InsertNeurons(), CalibrateOffset(rho="T", iterations=T))
    full = Pipeline(passes).run(graph, Context(T=T), Stage.QUANTIZED).graph
    assert torch.equal(full(x), graph(x))
    once = Pipeline((passes[0], replace(passes[1], iterations=1))).run(graph, Context(T=T), Stage.QUANTIZED).graph
    streaming = Pipeline(passes[:1]).run(graph, Context(T=T), Stage.QUANTIZED).graph
    error, plain = ((net(x) - graph(x)).abs().mean().item() for net in (once, streaming))
    assert error <= plain
