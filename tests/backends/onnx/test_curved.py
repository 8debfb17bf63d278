"""Curved operations in ONNX: outside time, telescoped in it, starting anew, and of several inputs."""

import pytest
import torch
from torch import nn

from snnc.backends.onnx.writer import model
from snnc.errors import SnncError
from snnc.ir import curved
from snnc.ir.dialect import Affine
from snnc.ir.graph import GraphBuilder
from snnc.ir.neurons import BipolarIF, ResidualMaskIF
from snnc.ir.temporal import Decode, Encode, Restart, Telescoped
from snnc.networks.network import Network
from tests.backends.onnx.test_modules import eighths, of_neuron, run
from tests.ir.test_graphfile import ONE

MORE = [
    *(lambda kind=kind: curved.Unary(kind) for kind in curved.UNARY),
    lambda: curved.Normalize(2.0, 3, 0.5),
    lambda: curved.Clip(None, torch.tensor(0.75)),
    lambda: curved.Clip(torch.tensor(-0.5), torch.tensor([0.25, 1.0, 2.0])[:, None, None]),
    lambda: nn.GELU(),
    lambda: nn.LayerNorm(8),
    lambda: nn.LayerNorm((8, 8), elementwise_affine=False),
    lambda: nn.RMSNorm((8, 8), elementwise_affine=False),
    lambda: nn.GroupNorm(1, 3, affine=False),
    lambda: nn.PReLU(),
    lambda: nn.Softmax(1),
]
BODIES = [*(ONE[kind][0] for kind in curved.BENT), *MORE]


def network(make, T=4, tau=0):
    """A body behind neurons and in time; of an input above zero, with as many values as it takes."""
    build = GraphBuilder()
    x = build.input()
    body = make().eval()
    values = []
    for k in range(len(ONE[type(body)][1])):
        value = build.call(f"scaled{k}", Affine(torch.tensor(0.5 + k), torch.tensor(0.25)), x)
        value = build.call(f"encode{k}", Encode(T), value)
        theta = torch.tensor(0.5)
        neuron = ResidualMaskIF(T, theta, theta / 2, tau) if tau else BipolarIF(T, theta, theta / 2, 7)
        values.append(build.call(f"spikes{k}", neuron, value))
    inner = Telescoped(T, body)
    x = build.call("body", Restart(T, inner, tau) if tau else inner, *values)
    return Network(build.finish(build.call("decode", Decode(T, T - tau, tau), x)), {"input_shape": [3, 8, 8]})


def text(make):
    module = make()
    return f"{type(module).__name__} {module.extra_repr()[:40]}"


# Inputs, in eighths, of functions that are not defined everywhere.
DOMAINS = {**dict.fromkeys(("asin", "acos", "atanh"), (0, 4)), "acosh": (24, 40)}


@pytest.mark.parametrize("make", BODIES, ids=text)
def test_telescoped(make):
    low, high = DOMAINS.get(getattr(make(), "kind", ""), (4, 24))
    net, x = network(make), eighths(2, 3, 8, 8, low=low, high=high)
    logits, by_step = run(model(net), x)
    torch.testing.assert_close(logits, net(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(by_step, net.readout(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [nn.SiLU, curved.Product, curved.Where])
def test_those_that_start_anew(kind):
    net, x = network(ONE[kind][0], 5, 2), eighths(2, 3, 8, 8, low=4, high=24)
    logits, _ = run(model(net), x)
    torch.testing.assert_close(logits, net(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("units", [1, 3, 127])
def test_neurons_of_either_sign(units, rectified):
    x, theta = eighths(7 * 3, 2, 5), torch.tensor([0.25, 1.0])[:, None]
    neuron = BipolarIF(7, theta, theta / 2, units, rectified)
    (found,) = run(of_neuron(neuron, (2, 5)), x)
    assert torch.equal(found, neuron(x))
    assert (found < 0).any()


@pytest.mark.parametrize("body", [nn.LocalResponseNorm(2), curved.Normalize(3.0, 1, 0.5)], ids=str)
def test_what_onnx_has_no_form_for_is_refused_by_name(body):
    with pytest.raises(SnncError, match="cannot write 'body'"):
        model(network(lambda: body))
