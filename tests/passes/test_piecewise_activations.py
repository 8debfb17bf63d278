"""Activations as sums of ReLUs: exact where they are piecewise linear, near where they are not, and what follows."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import snnc
from snnc.calibrate.nearest import fitted
from snnc.calibrate.ramps import exactly
from snnc.calibrate.statistics import Histogram
from snnc.capture import capture
from snnc.errors import PassFailed, RecipeError
from snnc.ir.curved import BENT, POINTWISE, Clip, Power, Unary
from snnc.ir.dialect import ACTIVATIONS, ClipQuant
from snnc.ir.graph import calls
from snnc.ir.neurons import IF, Neuron
from snnc.ir.temporal import Telescoped
from snnc.passes import FixedPoint, FoldBatchNorm, PiecewiseActivations
from snnc.passes.pipeline import Context, Pipeline
from tests.zoo import dyadic

X = torch.randn((64, 6), generator=torch.Generator().manual_seed(1)) * 2


class Between(nn.Module):
    """A function between two layers, in a rank of the tester's choice."""

    def __init__(self, f, first=None, last=None):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.f, self.last = first or nn.Linear(6, 8), f, last or nn.Linear(8, 3)

    def forward(self, x):
        return self.last(self.f(self.first(x)))


def lowered(net, x=X, **options):
    """The graph behind the pass, and its record."""
    passes = (FoldBatchNorm(), PiecewiseActivations(**options))
    result = Pipeline(passes).run(capture(net.eval(), tuple(x.shape[1:])), Context(T=4, calibration=[x]))
    return result.graph, result.records[-1]


def left(graph):
    return [module for _, module in calls(graph, *BENT)]


# Exactly: dyadic weights, and nothing is rounded.

EXACT = {
    "leaky": (nn.LeakyReLU(0.25), 2),
    "parametric": (nn.PReLU(8, 0.125), 2),
    "hard tanh": (nn.Hardtanh(), 1),
    "clamp": (lambda x: x.clamp(-0.5, 1.5), 1),
    "floor": (lambda x: x.clamp(min=-0.5), 1),
    "ceiling": (lambda x: x.clamp(max=0.5), 1),
    "magnitude": (torch.abs, 2),
    "soft shrink": (nn.Softshrink(0.5), 2),
    "by a maximum": (lambda x: torch.maximum(x, 0.25 * x), 2),
    "by a choice": (lambda x: torch.where(x > 0, x, 0.25 * x), 2),
    "a hat": (lambda x: (1 - x.abs()).clamp(-1, 0.5), 2),
}


@pytest.mark.parametrize("name", EXACT)
def test_what_is_piecewise_linear_is_exact(name):
    f, ramps = EXACT[name]
    net = dyadic(Between(f))
    x = (X * 16).round() / 16
    graph, record = lowered(net, x)
    assert torch.equal(graph(x), net(x))
    assert not left(graph)
    assert len(list(calls(graph, *ACTIVATIONS))) == ramps
    assert "exactly" in record.notes[0]
    assert record.notes[-1] == f"{8 * ramps} neurons for the 8 values of these activations"


def test_a_sixth_is_exact_but_for_rounding():
    net = Between(nn.Hardsigmoid())
    torch.testing.assert_close(lowered(net)[0](X), net(X), rtol=0, atol=1e-6)


def test_a_slope_for_each_channel():
    act = nn.PReLU(3)
    act.weight.data = torch.tensor([0.5, -0.25, 2.0])
    net = dyadic(Between(act, nn.Conv2d(2, 3, 3), nn.Conv2d(3, 2, 1)))
    x = (torch.randn(4, 2, 5, 5) * 16).round() / 16
    assert torch.equal(lowered(net, x)[0](x), net(x))
    module = Clip(torch.tensor([0.0, -1.0]), torch.tensor([1.0, -1.0]))
    assert exactly(module, 2) is None  # a clip without room between its bounds is a constant


# Nearly.

CURVED = [nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Hardswish(), nn.Sigmoid(), nn.Tanh(), nn.ELU(), nn.SELU()]
CURVED += [nn.CELU(0.5), nn.Softplus(), nn.Mish(), nn.LogSigmoid(), nn.Softsign(), nn.Tanhshrink()]
CURVED += [Unary(kind) for kind in ("exp", "expm1", "square", "sin", "cos", "erf", "atan")]


def seen(x):
    histogram = Histogram(2 * x.shape[1])
    histogram.update(torch.cat([x, -x], 1))
    return histogram


@pytest.mark.parametrize("f", CURVED, ids=str)
def test_errors_are_those_that_are_told(f):
    """And more ramps are nearer: the square error of the best falls as the fourth power of their number."""
    x = torch.randn((20000, 2), generator=torch.Generator().manual_seed(0)).double() * torch.tensor([1.0, 2.0])
    made = {pieces: fitted(f, seen(x), pieces) for pieces in (2, 5)}
    for pieces, one in made.items():
        assert len(one.ramps) == pieces
        parts = [r.slope * (r.direction * (x - r.start)).clamp_min(0).minimum(r.width) for r in one.ramps]
        wrong = one.constant + sum(parts) - f(x)
        torch.testing.assert_close(wrong.square().mean(0).sqrt(), one.rms, rtol=0.05, atol=1e-4)
        assert (wrong.abs().amax(0) <= 1.1 * one.largest + 1e-3).all()
    assert (made[5].rms < made[2].rms / 2.5).all()


def test_every_elementwise_module_is_covered():
    """A module that is added is exact, near, or jumps."""
    jumping = {nn.Hardshrink}
    infinite = {Unary}  # logarithms, roots and reciprocals among them
    known = {type(f) for f in CURVED} | {nn.LeakyReLU, nn.PReLU, Clip, nn.Softshrink, nn.Hardsigmoid}
    assert set(POINTWISE) == known | jumping | infinite | {Power}


@pytest.mark.parametrize(
    "f",
    [torch.sign, nn.Hardshrink(0.5), lambda x: 1 / x, lambda x: (x > 0) * 1.0],
    ids=["sign", "hardshrink", "reciprocal", "step"],
)
def test_what_jumps_stays(f):
    net = Between(f)
    graph, record = lowered(net)
    assert left(graph)
    assert record.sites == 0
    assert "jumps" in record.notes[0]
    assert torch.equal(graph(X), net(X))


SHAPES = {
    "tokens": (nn.Linear(4, 8), nn.Linear(8, 3), (5, 4)),
    "signals": (nn.Conv1d(2, 4, 3), nn.Conv1d(4, 2, 1), (2, 9)),
    "images": (nn.Conv2d(2, 4, 3), nn.Conv2d(4, 2, 1), (2, 6, 6)),
    "volumes": (nn.Conv3d(2, 3, 2), nn.Conv3d(3, 2, 1), (2, 4, 4, 4)),
    "grids of features": (nn.Linear(4, 8), nn.Linear(8, 3), (3, 3, 4)),
    "transposed": (nn.ConvTranspose2d(2, 4, 2), nn.Conv2d(4, 2, 1), (2, 4, 4)),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("f", [nn.SiLU(), nn.LeakyReLU(0.25), nn.Hardtanh()], ids=str)
def test_every_rank(name, f):
    first, last, shape = SHAPES[name]
    net = Between(f, first, last).eval()
    x = torch.randn(32, *shape)
    graph, _ = lowered(net, x)
    assert not left(graph)
    with torch.no_grad():
        assert float((graph(x) - net(x)).norm() / net(x).norm()) < 0.03


def test_several_operations_on_one_value_are_one_function():
    """Also where a part of it is read elsewhere, and a norm or a gate of two values stays."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.d = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x):
            x = self.a(x)
            gate = torch.sigmoid(1.5 * x)
            y = self.c(gate) + self.b(x * gate * torch.tanh(F.softplus(x)))
            return self.d(y * torch.sigmoid(self.b(y)))

    net = Net().eval()
    graph, record = lowered(net, pieces=6)
    assert [type(m).__name__ for m in left(graph)] == ["Product"]
    assert record.sites == 3
    assert [note.split(" by ")[0] for note in record.notes[:2]] == ["1 Sigmoid", "2 composite"]
    torch.testing.assert_close(graph(X), net(X), rtol=0, atol=0.05)


def test_what_acts_once_stays():
    """Before the first layer, and behind the last."""
    net = nn.Sequential(nn.Tanh(), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3), nn.Sigmoid()).eval()
    graph, record = lowered(net)
    assert [type(m) for m in left(graph)] == [nn.Tanh, nn.Sigmoid]
    assert record.sites == 0
    assert snnc.compile(net, 2, calibration=X, quick=True).info["recipe"] == "best"


# What follows.


class Images(nn.Module):
    def __init__(self, act):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.n, self.b = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)
        self.act, self.c = act, nn.Linear(16, 4)

    def forward(self, x):
        x = self.act(self.n(self.a(x)))
        return self.c(F.avg_pool2d(self.act(self.b(x)), 2).flatten(1))


IMAGES = torch.randn((64, 2, 4, 4), generator=torch.Generator().manual_seed(2))


def error(spiking, net, x=IMAGES):
    with torch.no_grad():
        return float((spiking(x) - net(x)).norm() / net(x).norm())


@pytest.mark.parametrize("recipe", ["opi", "best", "cos", "graded", "best-signed"])
def test_every_recipe_takes_them(recipe):
    """Binary where the recipe is; nothing telescopes."""
    net = Images(nn.SiLU()).eval()
    spiking = snnc.compile(net, 8, recipe, IMAGES, quick=True)
    assert error(spiking, net) < 0.15
    assert not list(calls(spiking.graph, Telescoped))
    assert len(spiking.neurons()) == 10
    if recipe != "cos":
        by_step = torch.stack(list(spiking.stream(IMAGES[:3])))
        torch.testing.assert_close(by_step, spiking.readout(IMAGES[:3]), rtol=1e-5, atol=1e-5)


def test_the_error_falls_with_the_number_of_steps():
    net = Images(nn.Hardtanh()).eval()
    errors = [error(snnc.compile(net, T, "opi", IMAGES), net) for T in (4, 64)]
    assert errors[1] < errors[0] / 8


@pytest.mark.parametrize("act", [nn.GELU(), nn.Hardtanh(), nn.LeakyReLU(0.25)], ids=str)
def test_files_and_integers(act, tmp_path):
    """ONNX, exported programs, NIR, and fixed point, in which every spike is an integer's."""
    net = Images(act).eval()
    opi = snnc.recipe("opi").pipeline.set("piecewise-activations", pieces=3)
    spiking = snnc.compile(net, 8, opi, IMAGES)
    assert all(type(neuron) is IF for _, neuron in calls(spiking.graph, Neuron))
    for suffix in (".onnx", ".pt2", ".snn"):
        snnc.save(spiking, tmp_path / f"net{suffix}")
        torch.testing.assert_close(snnc.load(tmp_path / f"net{suffix}")(IMAGES), spiking(IMAGES), rtol=1e-4, atol=1e-5)
    snnc.save(spiking, tmp_path / "net.nir")
    fixed = snnc.compile(net, 8, Pipeline((*opi, FixedPoint())), IMAGES)
    assert error(fixed, net) < error(spiking, net) + 0.03
    snnc.save(fixed, tmp_path / "fixed.nir")


def test_what_is_printed():
    net = Images(nn.GELU()).eval()
    record = snnc.compile(net, 4, "opi", IMAGES, input_shape=(2, 4, 4)).info["records"][1]
    assert record["name"] == "piecewise-activations"
    assert record["options"] == {"pieces": 5, "per": "channel"}
    said, cost = record["notes"]
    assert said.startswith("2 GELU by 5 ReLUs, largest error 0.")
    assert "rms 0.0" in said
    assert cost == f"{5 * 2 * 4 * 16} neurons for the {2 * 4 * 16} values of these activations"


def test_defaults():
    """Activations alone take `best`, exactly piecewise linear ones need no data, anything more telescopes."""
    net = Images(nn.GELU()).eval()
    assert snnc.compile(net, 2, calibration=IMAGES, quick=True).info["recipe"] == "best"
    leaky = Images(nn.LeakyReLU(0.25)).eval()
    free = snnc.compile(leaky, 64, input_shape=(2, 4, 4))
    assert free.info["recipe"] == "data-free"
    assert error(free, leaky) < 0.3
    with pytest.raises(RecipeError, match="needs calibration data"):
        snnc.compile(net, 2, input_shape=(2, 4, 4))
    with pytest.raises(PassFailed, match="needs calibration data, to which its ReLUs are fitted"):
        snnc.compile(net, 2, "data-free", input_shape=(2, 4, 4))


def test_options():
    net = Images(nn.Tanh()).eval()
    for pieces in (1, 3):
        graph, _ = lowered(net, IMAGES, pieces=pieces, per="layer")
        assert len(list(calls(graph, *ACTIVATIONS))) == 2 * pieces
    with pytest.raises(RecipeError, match="pieces"):
        PiecewiseActivations(pieces=0)
    with pytest.raises(RecipeError, match="per"):
        PiecewiseActivations(per="tensor")


def test_a_channel_that_is_silent_or_constant():
    """It has no distribution of its own, and gets finite numbers all the same."""
    net = Images(nn.GELU()).eval()
    with torch.no_grad():
        net.a.weight[0], net.a.bias[0], net.n.bias[0] = 0.0, 0.0, 0.0
        net.a.weight[1], net.a.bias[1] = 0.0, 3.0
    graph, _ = lowered(net, IMAGES)
    assert all(torch.isfinite(value).all() for value in graph.state_dict().values())
    with torch.no_grad():
        assert float((graph(IMAGES) - net(IMAGES)).abs().max()) < 0.1 * float(net(IMAGES).abs().max())
    assert not math.isnan(error(snnc.compile(net, 4, "opi", IMAGES), net))


def test_a_trained_quantiser_beside_it():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.c(F.silu(self.b(F.relu(self.a(x)))))

    graph, _ = lowered(Mixed())
    assert not list(calls(graph, ClipQuant))
    assert len(list(calls(graph, *ACTIVATIONS))) == 6
