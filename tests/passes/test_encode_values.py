"""Networks with curved operations from end to end: where encoders stand, what it gives, and its files."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import snnc
from snnc.errors import PassFailed, RecipeError, SnncError
from snnc.ir.accounting import share
from snnc.ir.curved import BILINEAR
from snnc.ir.dialect import SignedQuant
from snnc.ir.graph import calls
from snnc.ir.neurons import BipolarIF, Neuron, SignedIF
from snnc.ir.shapes import every_shape
from snnc.ir.temporal import RunningMax, Telescoped
from snnc.passes import EncodeValues
from snnc.passes.pipeline import Context, Pipeline


class Gated(nn.Module):
    """A CNN with hard swish, a gate, group normalisation, a max pool and a ReLU."""

    def __init__(self):
        super().__init__()
        self.stem, self.down, self.up = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
        self.wide, self.norm, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = F.hardswish(self.stem(x))
        x = x * torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))
        x = F.max_pool2d(self.norm(self.wide(x)), 2)
        return self.head(F.silu(x).mean((2, 3)))


class Tokens(nn.Module):
    """One block of a transformer, and a mean over tokens."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(4, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True, norm_first=True)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.norm(self.block(self.embed(x))).mean(1))


NETS = {"gated": (Gated, (2, 6, 6)), "tokens": (Tokens, (5, 4))}


def made(name):
    kind, shape = NETS[name]
    torch.manual_seed(0)
    return kind().eval(), torch.randn(16, *shape)


def plain(recipe="telescoped"):
    return snnc.recipe(recipe).pipeline.remove("calibrate-weights")


def error(spiking, net, x):
    with torch.no_grad():
        return float((spiking(x) - net(x)).norm() / net(x).norm())


@pytest.mark.parametrize("name", NETS)
def test_the_error_falls_with_the_number_of_steps(name):
    net, x = made(name)
    errors = [error(snnc.compile(net, T, plain(), x), net, x) for T in (4, 64)]
    assert errors[0] < 0.2
    assert errors[1] < errors[0] / 6
    assert error(snnc.compile(net, 4, plain("telescoped-graded"), x), net, x) < errors[0] / 2


@pytest.mark.parametrize("name", NETS)
def test_the_default_recipe(name, tmp_path):
    """It is telescoped, calibrated and streaming; step by step and from its file it gives the same."""
    net, x = made(name)
    spiking = snnc.compile(net, 4, calibration=x)
    assert spiking.info["recipe"] == "telescoped"
    assert str(spiking.latency) == "4 steps (streaming)"
    assert error(spiking, net, x) < 0.2
    by_step = spiking.readout(x)
    torch.testing.assert_close(torch.stack(list(spiking.stream(x))), by_step, rtol=1e-4, atol=1e-5)
    snnc.save(spiking, tmp_path / "net.snn")
    assert torch.equal(snnc.load(tmp_path / "net.snn").readout(x), by_step)


def test_where_encoders_stand():
    """In front of weights and matrix products, but not of those that come last; a value is encoded once."""
    net, x = made("gated")
    every = snnc.compile(net, 2, plain().set("encode-values", products="all"), x).graph
    encoders = [module for _, module in calls(every, BipolarIF)]
    assert [type(m) for _, m in calls(every, Neuron) if not isinstance(m, BipolarIF)] == [SignedIF]
    assert len(encoders) == 4  # hard swish and its mean, the gate, and their product
    assert all(m.theta.shape == (8, 1, 1) for m in encoders)
    graph = snnc.compile(net, 2, plain(), x).graph
    assert len(list(calls(graph, BipolarIF))) == 2  # the mean of hard swish, and the product
    telescoped = [type(m.body) for _, m in calls(graph, Telescoped) if not isinstance(m, RunningMax)]
    assert nn.SiLU not in telescoped  # after the last neuron it acts on the mean
    tokens, y = made("tokens")
    graph = snnc.compile(tokens, 2, plain(), y).graph
    shapes = [tuple(m.theta.shape) for _, m in calls(graph, BipolarIF)]
    heads = [(2, 1, 1)] * 4  # query, key, value, and the weights of attention
    assert shapes == [(8,), *heads, (8,), (8,), (16,)]  # features in front of linear layers


def test_what_is_dense_is_said():
    """With encoders at every product and weight that reads curved values, all of them are driven by spikes."""
    net, x = made("tokens")
    spiking = snnc.compile(net, 2, plain(), x)
    shapes = every_shape(spiking.graph, (5, 4))
    found = share(spiking.graph, shapes)
    # Query, key, value and output; scores and what is attended to; two layers of the perceptron, one of them read out.
    assert found.once == 5 * 4 * 8 + 8 * 3  # the embedding of the input, and the head
    assert (found.driven, found.dense) == (4 * 5 * 64 + 2 * 2 * 5 * 5 * 4 + 2 * 5 * 8 * 16, 0)
    assert found.curved == sum(math.prod(shapes[n]) for n, m in calls(spiking.graph, Telescoped) if not _bilinear(m))
    assert any("100 %" in note for note in spiking.info["records"][4]["notes"])
    dense = snnc.compile(net, 2, plain().set("encode-values", products="none"), x).graph
    assert share(dense, every_shape(dense, (5, 4))).dense == 2 * 2 * 5 * 5 * 4


def _bilinear(module):
    return isinstance(module.body, BILINEAR)


def test_options():
    net, x = made("tokens")
    by_layer = snnc.compile(net, 2, plain().set("encode-values", per="layer", bits=2), x).graph
    assert all(m.theta.numel() == 1 and m.units == 3 for _, m in calls(by_layer, BipolarIF))
    fewer = snnc.compile(net, 2, plain().set("encode-values", products="none"), x).graph
    assert len(list(calls(fewer, BipolarIF))) < len(list(calls(by_layer, BipolarIF)))
    wide = snnc.compile(net, 2, plain().set("encode-values", per="layer", factor=2.0, bits=2), x).graph
    for (_, a), (_, b) in zip(calls(wide, BipolarIF), calls(by_layer, BipolarIF), strict=True):
        assert torch.equal(a.theta, 2 * b.theta)
    with pytest.raises(RecipeError, match="bits"):
        EncodeValues(bits=0)


def test_a_network_without_curved_values_is_left_alone():
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    x = torch.randn(8, 4)
    spiking = snnc.compile(net, 2, plain(), x)
    assert not list(calls(spiking.graph, BipolarIF, SignedQuant, Telescoped))
    assert spiking.info["records"][3]["sites"] == 0


def test_one_hidden_layer_has_neurons_too():
    net = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 3)).eval()
    x = torch.randn(8, 4)
    assert len(snnc.compile(net, 2, "telescoped", x).neurons()) == 1


def test_a_product_alone_has_neurons_too():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.value, self.gate = nn.Linear(4, 6), nn.Linear(4, 6)

        def forward(self, x):
            return torch.tanh(self.value(x)) * torch.sigmoid(self.gate(x))

    assert len(snnc.compile(Gate().eval(), 2, plain(), torch.randn(8, 4)).neurons()) == 2


class Mixer(nn.Module):
    """ReLUs on tokens, between linear layers and behind a normalisation."""

    def __init__(self):
        super().__init__()
        self.norm, self.up, self.down, self.head = nn.LayerNorm(4), nn.Linear(4, 8), nn.Linear(8, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(x + self.down(F.relu(self.up(self.norm(x))))).mean(1)


def test_relus_on_tokens_have_a_threshold_a_feature():
    """The first feature is eight times as large as in another network: so is its threshold, and no other."""
    torch.manual_seed(0)
    net, x = Mixer().eval(), torch.randn(16, 5, 4)
    features = [snnc.compile(net, 4, plain(), x)]
    with torch.no_grad():
        for part in (net.up.weight, net.up.bias):
            part[0] *= 8
    features.append(snnc.compile(net, 4, plain(), x))
    before, after = (next(m.theta for _, m in calls(one.graph, SignedIF)) for one in features)
    assert before.shape == (8,)
    assert torch.equal(after, torch.tensor([8.0, *[1.0] * 7]) * before)
    by_token = snnc.compile(net, 4, plain().set("quantize-activations", features=False), x)
    assert next(m.theta for _, m in calls(by_token.graph, SignedIF)).shape == (5, 1)
    assert error(features[1], net, x) < error(by_token, net, x)


def test_what_cannot_be_done_is_said():
    net, x = made("tokens")
    with pytest.raises(RecipeError, match="calibration data"):
        snnc.compile(net, 2, input_shape=(5, 4))
    with pytest.raises(PassFailed, match="telescoped"):
        snnc.compile(nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 3)).eval(), 2, "best", x)
    with pytest.raises(PassFailed, match="integers"):
        snnc.compile(net, 2, Pipeline((*plain(), snnc.passes.FixedPoint())), x)
    gated, y = made("gated")
    with pytest.raises(PassFailed, match="needs calibration data"):
        snnc.compile(gated, 2, "data-free", input_shape=(2, 6, 6))
    spiking = snnc.compile(gated, 2, plain(), y)
    with pytest.raises(SnncError, match="NIR"):
        snnc.save(spiking, "net.nir")
    assert Context(T=1).T == 1
