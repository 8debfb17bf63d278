"""Folding batch normalisation: the same function in float64, and folded wherever it can be."""

from collections.abc import Callable

import pytest
import torch
from torch import fx, nn

from snnc.errors import PassFailed
from snnc.ir.dialect import BATCHNORMS, Add, Affine, Concat, Mean, OwnSizeAvgPool2d, Pad
from snnc.ir.graph import GraphBuilder, Stage, calls
from snnc.passes import FoldBatchNorm
from snnc.passes.pipeline import Context, Pipeline, Result
from tests.nets import NETS, sample

TOLERANCE = 1e-12


def norm(kind: type[nn.Module], channels: int, **options: object) -> nn.Module:
    """Normalisation with statistics of its own, some of its scales negative."""
    module = kind(channels, **options)
    module.running_mean.normal_()
    module.running_var.uniform_(0.3, 3.0)
    if module.affine:
        module.weight.data.normal_()
        module.bias.data.normal_()
    return module


def bn1(channels: int, **options: object) -> nn.Module:
    return norm(nn.BatchNorm1d, channels, **options)


def bn2(channels: int, **options: object) -> nn.Module:
    return norm(nn.BatchNorm2d, channels, **options)


def bn3(channels: int, **options: object) -> nn.Module:
    return norm(nn.BatchNorm3d, channels, **options)


def chain(*modules: nn.Module) -> fx.GraphModule:
    build = GraphBuilder()
    x = build.input()
    for i, module in enumerate(modules):
        x = build.call(f"m{i}", module, x)
    return build.finish(x).double()


def fold(graph: fx.GraphModule, shape: tuple[int, ...]) -> Result:
    """Folds, and compares: no more than float64 rounding may differ."""
    x = torch.randn(3, *shape, dtype=torch.float64)
    result = Pipeline((FoldBatchNorm(),)).run(graph, Context(T=4, calibration=[x]))
    before, after = graph(x), result.graph(x)
    assert (after - before).abs().max() <= TOLERANCE * before.abs().max().clamp_min(1)
    assert not list(calls(result.graph, *BATCHNORMS))
    assert result.records[0].error <= TOLERANCE
    return result


def affines(graph: fx.GraphModule) -> int:
    return sum(1 for _ in calls(graph, Affine))


BEHIND: dict[str, tuple[Callable[[], list[nn.Module]], tuple[int, ...]]] = {
    "conv1d": (lambda: [nn.Conv1d(3, 4, 3), bn1(4)], (3, 9)),
    "conv2d": (lambda: [nn.Conv2d(3, 4, 3, padding=1), bn2(4)], (3, 5, 5)),
    "conv3d": (lambda: [nn.Conv3d(2, 4, 2), bn3(4)], (2, 4, 4, 4)),
    "no-bias": (lambda: [nn.Conv2d(3, 4, 3, bias=False), bn2(4)], (3, 5, 5)),
    "not-affine": (lambda: [nn.Conv2d(3, 4, 3), bn2(4, affine=False)], (3, 5, 5)),
    "large-eps": (lambda: [nn.Conv2d(3, 4, 3), bn2(4, eps=0.5)], (3, 5, 5)),
    "strided": (lambda: [nn.Conv2d(3, 4, 3, 2, dilation=2), bn2(4)], (3, 9, 9)),
    "grouped": (lambda: [nn.Conv2d(4, 6, 3, groups=2), bn2(6)], (4, 5, 5)),
    "depthwise": (lambda: [nn.Conv2d(4, 8, 3, groups=4, bias=False), bn2(8)], (4, 5, 5)),
    "reflected": (lambda: [nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), bn2(4)], (3, 5, 5)),
    "transposed1d": (lambda: [nn.ConvTranspose1d(3, 4, 3, 2), bn1(4)], (3, 5)),
    "transposed2d": (lambda: [nn.ConvTranspose2d(3, 4, 3, 2, 1, output_padding=1), bn2(4)], (3, 4, 4)),
    "transposed3d": (lambda: [nn.ConvTranspose3d(2, 3, 2, bias=False), bn3(3)], (2, 3, 3, 3)),
    "transposed-grouped": (lambda: [nn.ConvTranspose2d(4, 6, 3, groups=2), bn2(6)], (4, 4, 4)),
    "transposed-depthwise": (lambda: [nn.ConvTranspose2d(4, 8, 3, groups=4), bn2(8)], (4, 4, 4)),
    "linear": (lambda: [nn.Linear(5, 4), bn1(4)], (5,)),
    "linear-no-bias": (lambda: [nn.Linear(5, 4, bias=False), bn1(4, affine=False)], (5,)),
    "twice": (lambda: [nn.Conv2d(3, 4, 3), bn2(4), bn2(4)], (3, 5, 5)),
    "average-pool": (lambda: [nn.Conv2d(3, 4, 3), nn.AvgPool2d(2), bn2(4)], (3, 6, 6)),
    "adaptive-pool": (lambda: [nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d((2, 3)), bn2(4)], (3, 7, 7)),
    "own-size-pool": (lambda: [nn.Conv2d(3, 4, 3), OwnSizeAvgPool2d(2), bn2(4)], (3, 6, 6)),
    "upsampling": (lambda: [nn.Conv2d(3, 4, 3), nn.Upsample(scale_factor=2), bn2(4)], (3, 5, 5)),
    "pool-and-upsampling": (
        lambda: [nn.Conv1d(3, 4, 3), nn.AvgPool1d(2), nn.Upsample(scale_factor=3), bn1(4)],
        (3, 8),
    ),
}

BEFORE: dict[str, tuple[Callable[[], list[nn.Module]], tuple[int, ...]]] = {
    "conv1d": (lambda: [bn1(3), nn.Conv1d(3, 4, 3)], (3, 9)),
    "conv2d": (lambda: [bn2(3), nn.Conv2d(3, 4, 3)], (3, 5, 5)),
    "conv3d": (lambda: [bn3(2), nn.Conv3d(2, 4, 2, bias=False)], (2, 4, 4, 4)),
    "grouped": (lambda: [bn2(4), nn.Conv2d(4, 6, 3, groups=2)], (4, 5, 5)),
    "depthwise": (lambda: [bn2(4), nn.Conv2d(4, 8, 3, groups=4, bias=False)], (4, 5, 5)),
    "valid": (lambda: [bn2(3), nn.Conv2d(3, 4, 3, padding="valid")], (3, 5, 5)),
    "reflected": (lambda: [bn2(3), nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")], (3, 5, 5)),
    "linear": (lambda: [bn1(5), nn.Linear(5, 4)], (5,)),
    "linear-no-bias": (lambda: [bn1(5), nn.Linear(5, 4, bias=False)], (5,)),
    "flatten": (lambda: [bn2(3), nn.Flatten(), nn.Linear(12, 4)], (3, 2, 2)),
    "flatten1d": (lambda: [bn1(3), nn.Flatten(), nn.Linear(12, 4)], (3, 4)),
    "behind-relu": (lambda: [nn.Conv2d(3, 3, 3), nn.ReLU(), bn2(3), nn.Conv2d(3, 4, 3)], (3, 7, 7)),
}

LEFT: dict[str, tuple[Callable[[], list[nn.Module]], tuple[int, ...]]] = {
    "alone": (lambda: [bn2(3)], (3, 5, 5)),
    "alone1d": (lambda: [bn1(3)], (3, 5)),
    "alone-vector": (lambda: [bn1(3)], (3,)),
    "alone3d": (lambda: [bn3(2)], (2, 3, 3, 3)),
    "zero-padding": (lambda: [bn2(3), nn.Conv2d(3, 4, 3, padding=1)], (3, 5, 5)),
    "same-padding": (lambda: [bn2(3), nn.Conv2d(3, 4, 3, padding="same")], (3, 5, 5)),
    "pad": (lambda: [bn2(3), Pad((1, 1, 1, 1)), nn.Conv2d(3, 4, 3)], (3, 5, 5)),
    "before-transposed": (lambda: [bn2(3), nn.ConvTranspose2d(3, 4, 3)], (3, 5, 5)),
    "relu-between": (lambda: [nn.Conv2d(3, 4, 3), nn.ReLU(), bn2(4)], (3, 5, 5)),
    "max-pool-between": (lambda: [nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), bn2(4)], (3, 6, 6)),
    "padded-average": (lambda: [nn.Conv2d(3, 4, 3), nn.AvgPool2d(3, 2, 1), bn2(4)], (3, 6, 6)),
    "sum-pool": (lambda: [nn.Conv2d(3, 4, 3), nn.AvgPool2d(2, divisor_override=1), bn2(4)], (3, 6, 6)),
    "first-of-two": (lambda: [bn2(3), bn2(3), nn.Conv2d(3, 4, 3)], (3, 5, 5)),
    "mean-between": (lambda: [nn.Conv2d(3, 4, 3), Mean((2, 3)), bn1(4)], (3, 6, 6)),
    # A linear layer counts along the last dimension, normalisation along the second; here they are of one size.
    "linear-on-rows": (lambda: [nn.Linear(4, 4), bn1(4)], (4, 4)),
    "before-linear-on-rows": (lambda: [bn1(4), nn.Linear(4, 4)], (4, 4)),
    "before-linear-on-maps": (lambda: [bn2(4), nn.Linear(4, 4)], (4, 4, 4)),
    "linear-on-other-rows": (lambda: [nn.Linear(6, 4), bn1(5)], (5, 6)),
    "before-half-flatten": (lambda: [bn2(2), nn.Flatten(1, 2), nn.Linear(4, 3)], (2, 3, 4)),
}


@pytest.mark.parametrize("name", BEHIND)
def test_behind_a_layer(name):
    make, shape = BEHIND[name]
    assert affines(fold(chain(*make()), shape).graph) == 0


@pytest.mark.parametrize("name", BEFORE)
def test_before_a_layer(name):
    make, shape = BEFORE[name]
    result = fold(chain(*make()), shape)
    assert affines(result.graph) == 0
    assert result.records[0].notes == ()


@pytest.mark.parametrize("name", LEFT)
def test_left_as_an_affine(name):
    """Right, if not folded, and the record says so."""
    make, shape = LEFT[name]
    result = fold(chain(*make()), shape)
    assert affines(result.graph) == 1
    assert "cannot be folded" in result.records[0].notes[0]


def test_two_readers_of_a_layer():
    """A convolution that something else reads too keeps its output."""
    build = GraphBuilder()
    x = build.call("conv", nn.Conv2d(3, 4, 3), build.input())
    graph = build.finish(build.call("join", Add(), build.call("norm", bn2(4), x), x)).double()
    assert affines(fold(graph, (3, 5, 5)).graph) == 1


def test_two_norms_of_a_layer():
    build = GraphBuilder()
    x = build.call("conv", nn.Conv2d(3, 4, 3), build.input())
    y, z = build.call("norm1", bn2(4), x), build.call("norm2", bn2(4), x)
    graph = build.finish(build.call("cat", Concat(1), y, z)).double()
    assert affines(fold(graph, (3, 5, 5)).graph) == 2


def test_two_readers_between():
    """The average is read before normalisation as well."""
    build = GraphBuilder()
    x = build.call("pool", nn.AvgPool2d(2), build.call("conv", nn.Conv2d(3, 4, 3), build.input()))
    graph = build.finish(build.call("join", Add(), x, build.call("norm", bn2(4), x))).double()
    assert affines(fold(graph, (3, 6, 6)).graph) == 1


def test_two_layers_read_a_norm():
    build = GraphBuilder()
    x = build.call("norm", bn2(3), build.input())
    y, z = build.call("conv1", nn.Conv2d(3, 4, 3), x), build.call("conv2", nn.Conv2d(3, 4, 3), x)
    graph = build.finish(build.call("join", Add(), y, z)).double()
    assert affines(fold(graph, (3, 5, 5)).graph) == 1


@pytest.mark.parametrize("join", [Add(), Concat(1)])
def test_behind_a_join(join):
    build = GraphBuilder()
    x = build.input()
    y, z = build.call("conv1", nn.Conv2d(3, 4, 3), x), build.call("conv2", nn.Conv2d(3, 4, 3), x)
    channels = 4 if isinstance(join, Add) else 8
    graph = build.finish(build.call("norm", bn2(channels), build.call("join", join, y, z))).double()
    assert affines(fold(graph, (3, 5, 5)).graph) == 1


@pytest.mark.parametrize("name", NETS)
def test_dyadic_nets_are_folded_without_any_error(name):
    graph, shape = NETS[name]()
    x = sample(shape)
    result = Pipeline((FoldBatchNorm(),)).run(graph, Context(T=4, calibration=[x]))
    assert torch.equal(result.graph(x), graph(x))
    assert result.records[0].error == 0
    assert result.records[0].sites == sum(1 for _ in calls(graph, *BATCHNORMS))


def test_moments_are_kept_under_the_name_that_remains():
    """Mean beta and deviation gamma of what normalisation put out, where thresholds will look for them."""
    graph, shape = NETS["preactivation"]()
    norms = {node.name: module for node, module in calls(graph, *BATCHNORMS)}
    context = Context(T=4, calibration=[sample(shape)])
    Pipeline((FoldBatchNorm(),)).run(graph, context)
    for name in ("bn1", "bn2", "bn3"):
        mean, deviation = context.moments[name]
        assert mean.tolist() == norms[name].bias.tolist()
        assert deviation.tolist() == norms[name].weight.abs().tolist()
    graph, shape = NETS["conv"]()
    bias = next(m for n, m in calls(graph) if n.name == "bn2").bias
    context = Context(T=4, input_shape=shape)
    Pipeline((FoldBatchNorm(),)).run(graph, context)
    assert context.moments["conv2"][0].tolist() == bias.tolist()


def test_an_unknown_shape_is_said():
    """Nothing to guess the number of dimensions from."""
    graph = chain(nn.Linear(3, 4), nn.ReLU(), nn.Linear(5, 3), nn.ReLU(), bn1(3))
    with pytest.raises(PassFailed, match="shape at 'm4' is unknown"):
        Pipeline((FoldBatchNorm(),)).run(graph, Context(T=4), Stage.ANN)
