"""The error of encoders, which stand where an ANN has plain values, and of ramps, which are parts of an activation."""

import pytest
import torch
from torch import nn

import snnc
from snnc.errors import SnncError
from snnc.explain.terms import TERMS, split
from snnc.ir.neurons import BipolarIF
from tests.passes.test_encode_values import made, plain


@pytest.mark.parametrize("name", ["gated", "tokens"])
def test_every_encoder_has_its_terms(name):
    net, x = made(name)
    few, many = (snnc.explain(snnc.compile(net, T, plain(), x), net, x) for T in (2, 32))
    encoders = [layer for layer in few.layers if layer.neuron == "BipolarIF"]
    assert encoders
    assert {layer.name for layer in encoders} == {one.name for one in many.layers if one.neuron == "BipolarIF"}
    assert few.logit_error > 4 * many.logit_error > 0
    first = few.layers[0]
    assert first.terms["inherited"].rms < 1e-5 * first.activation  # no neuron stands before it
    assert first.own.rms > 0


def test_terms_by_hand():
    """Theta 1, 2 steps: 0.6 a step rounds to one spike, -3 clips at -1."""
    neuron = BipolarIF(2, torch.tensor(1.0), torch.tensor(0.5))
    current = torch.tensor([[1.2, -6.0, -0.8]])
    found = split(neuron, nn.Identity(), current, torch.tensor([[2.0, -2.0, -1.0]]), current / 2, 2)
    values = {name: found.terms[name].flatten().tolist() for name in TERMS}
    assert values["inherited"] == [0.0, 0.0, 0.0]
    assert values["clipping"] == pytest.approx([0.0, 2.0, 0.0])
    assert values["unevenness"] == [0.5, 0.0, 0.0]
    assert values["quantisation"] == pytest.approx([0.5 - 0.6, 0.0, -0.5 + 0.4])
    assert found.clipped.tolist() == [[False, True, False]]


def test_another_network_is_refused():
    net, x = made("gated")
    spiking = snnc.compile(net, 2, plain(), x)
    with pytest.raises(SnncError, match="not the one that was compiled"):
        snnc.explain(spiking, nn.Sequential(nn.Conv2d(2, 8, 3), nn.GELU(), nn.Conv2d(8, 3, 3)).eval(), x)


@pytest.mark.parametrize("act", [nn.GELU(), nn.Hardtanh(), nn.LeakyReLU(0.25)], ids=str)
def test_every_ramp_has_its_terms(act):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), act, nn.Conv2d(4, 4, 1), act, nn.Flatten(), nn.Linear(16, 3)
    )
    net, x = net.eval(), torch.randn(32, 2, 4, 4)
    few, many = (snnc.explain(snnc.compile(net, T, "opi", x), net, x) for T in (2, 32))
    ramps = [layer.name for layer in few.layers]
    assert len(ramps) == {nn.GELU: 10, nn.Hardtanh: 2, nn.LeakyReLU: 4}[type(act)]
    assert all("_ramp" in name for name in ramps)
    assert any("sums of ReLUs" in note for note in few.notes)
    assert few.logit_error > 2 * many.logit_error
    assert all(layer.terms["inherited"].rms < 1e-4 for layer in few.layers[: len(ramps) // 2])
    assert snnc.explain(snnc.compile(net, 2, "best", x, quick=True), net, x).layers
