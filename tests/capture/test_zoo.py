"""Every net of the zoo through every recipe: it compiles, runs, survives its file, and approaches the ANN."""

import pytest
import torch

import snnc
from snnc.capture import capture
from snnc.ir.dialect import ClipQuant
from snnc.ir.graph import calls
from snnc.recipes import names
from tests.zoo import ZOO


def data(shape, count):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ZOO)
def test_every_recipe(name, tmp_path):
    net, shape = ZOO[name]()
    trained = any(calls(capture(net, shape), ClipQuant))
    for which in names():
        if which == "qcfs" and not trained:
            with pytest.raises(snnc.SnncError, match="no trained clip bound"):
                snnc.compile(net, 2, which, input_shape=shape)
            continue
        # An input that is coded in spikes lies in [0, 1].
        coded = "encode-input" in [one.name for one in snnc.recipe(which).pipeline]
        given, x = (data(shape, count).sigmoid() if coded else data(shape, count) for count in (8, 3))
        snn = snnc.compile(net, 2, which, given, input_shape=shape)
        with torch.no_grad():
            assert snn.readout(x).shape == (2, *net(x).shape)
            assert torch.isfinite(snn(x)).all()
            assert torch.equal(snnc.load(snnc.save(snn, tmp_path / "net.snn"))(x), snn(x))


@pytest.mark.parametrize("name", ZOO)
def test_rates_approach_the_ann(name):
    """With thresholds at the largest activation nothing is clipped, so the error must vanish as T grows."""
    net, shape = ZOO[name]()
    if any(calls(capture(net, shape), ClipQuant)):
        pytest.skip("rounds to its own levels, which more steps do not undo")
    x = data(shape, 4)
    snn = snnc.compile(net, 256, "opi", x, input_shape=shape)
    with torch.no_grad():
        want = net(x)
        error = (snn.readout(x) - want).flatten(1).norm(dim=1) / (want - want.mean(0)).norm()
    assert error[255] < 0.15
    assert error[255] < error[7] / 4
