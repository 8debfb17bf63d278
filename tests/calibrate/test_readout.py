"""The last layer, fitted to the steps that are read out and to the classes of the ANN."""

import copy

import pytest
import torch
from torch import nn

import snnc
from snnc.calibrate.readout import by_classes
from snnc.passes.choices import apart


def scored():
    """A layer, its input, and scores that it would give if no class were preferred."""
    torch.manual_seed(0)
    layer, x = nn.Linear(6, 3), torch.randn(200, 6)
    scores = 4 * layer(x).detach()
    layer.weight.data *= 4
    layer.bias.data *= 4
    return layer, x, scores


def test_a_layer_that_is_right_stays():
    layer, x, _ = scored()
    before = copy.deepcopy(layer)
    by_classes(layer, x, layer(x).detach(), 0.1)
    assert torch.equal(layer.weight, before.weight)
    assert torch.equal(layer.bias, before.bias)


def test_it_ends_where_the_objective_has_no_slope():
    """Started from a class that always wins; the search is convex, so no slope is the minimum."""
    layer, x, scores = scored()
    layer = nn.Linear(6, 3)
    layer.bias.data[0] += 9.0
    before = copy.deepcopy(layer)
    by_classes(layer, x, scores, 0.001)
    weight, shift = (v.detach().double().requires_grad_(True) for v in (layer.weight, layer.bias))
    y, z, given = x.double() @ weight.T + shift, scores.double(), x.double()
    moved = given.var(0, unbiased=False).mean() * (weight - before.weight.double()).square().sum()
    objective = nn.functional.kl_div(y.log_softmax(1), z.softmax(1), reduction="batchmean") + 0.001 * moved
    objective = objective + (y - z).square().mean() / z.var(0, unbiased=False).mean()
    slopes = torch.autograd.grad(objective, (weight, shift))
    assert max(float(one.abs().max()) for one in slopes) < 1e-4
    agree = (layer(x).argmax(1) == scores.argmax(1)).double().mean()
    assert agree > 0.95 > 0.6 > (before(x).argmax(1) == scores.argmax(1)).double().mean()


def network(last):
    torch.manual_seed(0)
    ann = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), *last).eval()
    return ann, torch.rand(128, 1, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_what_is_read_out_comes_nearer_to_the_ann(share):
    """On the samples that calibrate, where each fit is the best of its kind."""
    ann, x = network((nn.Flatten(), nn.Linear(32, 4, bias=True)))
    ann[-1].weight.data *= 20
    best = snnc.recipe("best").set("delay-readout", share=share)
    none = snnc.compile(ann, 4, best.remove("calibrate-readout"), x, quick=True)
    squares = snnc.compile(ann, 4, best.set("calibrate-readout", fit="squares", ridge=0.0), x, quick=True)
    classes = snnc.compile(ann, 4, best.set("calibrate-readout", ridge=0.0), x, quick=True)
    with torch.no_grad():
        wanted = ann(x)
        error = [float((net(x) - wanted).square().mean()) for net in (none, squares)]
        divergence = [float(apart(net(x).double(), wanted.double()).mean()) for net in (none, squares, classes)]
    assert error[1] < error[0] or share == 0
    assert divergence[2] < min(divergence[:2])


def test_a_last_layer_that_is_not_linear_stays():
    ann, x = network((nn.Conv2d(8, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    net = snnc.compile(ann, 4, "best", x, quick=True)
    record = next(one for one in net.info["records"] if one["name"] == "calibrate-readout")
    assert record["sites"] == 0
    assert "the last layer is not linear" in record["notes"]
