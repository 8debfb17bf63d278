"""Fixed-point networks are the same in onnxruntime as in torch: no spike differs, and no bit of the readout."""

from dataclasses import asdict

import onnxruntime
import pytest
import torch
from torch import nn

import snnc
from snnc.backends.onnx.writer import model
from snnc.ir.graph import Stage, calls
from snnc.networks.onnx import OnnxNetwork, quiet_options
from snnc.passes import FixedPoint
from snnc.recipes import recipe
from tests.backends.onnx.test_backend import emitted, layers
from tests.integers.test_fixed_point import compiled
from tests.zoo import ZOO, sample


def assert_identical(net, x, there=None):
    there = there or emitted(net)
    found, wanted = there.spikes(x), layers(net, x)
    assert there.stage is Stage.FIXED
    assert list(found) == list(wanted)
    assert [name for name in found if not torch.equal(found[name], wanted[name])] == []
    if any(calls(net.graph, nn.Softmax, nn.LogSoftmax)):  # these alone are not of integers
        assert torch.allclose(there(x), net(x), rtol=1e-5)
    else:
        assert torch.equal(there(x), net(x))
        assert torch.equal(there.readout(x), net.readout(x))


def real(shape, batch=6):
    """Input of any numbers: a grid makes integers of them."""
    return torch.randn((batch, *shape), generator=torch.Generator().manual_seed(3)) * 2


@pytest.mark.parametrize("name", ZOO)
def test_the_zoo(name):
    net, x, _ = compiled(name, "qcfs" if name in ("qcfs", "cq") else "opi")
    assert_identical(net, real(x.shape[1:]))


@pytest.mark.parametrize("which", ["best", "best-signed", "graded", "cos", "asg", "srp", "low-latency-streaming"])
def test_recipes(which):
    """Any neuron, and a number of steps that is no power of two."""
    name = "normalised" if which.startswith("low") else "max-pools"
    ann, shape = ZOO[name]()
    x = sample(shape, 32, bits=4)
    x = x.abs().clamp_max(1) if which.startswith("low") else x
    net = snnc.compile(ann, 5, recipe(which).pipeline.insert(FixedPoint()), x)
    assert_identical(net, x[:8] if which.startswith("low") else real(shape, 8))


@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_ALL"])
def test_whatever_the_runtime_fuses(level):
    net, x, _ = compiled("residual")
    options = quiet_options()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    made = model(net)
    info = {**net.info, "stage": "FIXED", "latency": asdict(net.latency)}
    assert_identical(net, real(x.shape[1:]), OnnxNetwork(made, info, options=options))


def test_through_a_file(tmp_path):
    net, x, _ = compiled("plain")
    there = snnc.load(snnc.save(net, tmp_path / "net.onnx"))
    assert_identical(net, real(x.shape[1:]), there)
    assert there.info["proof"] == net.info["proof"]
