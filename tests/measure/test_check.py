"""What `snnc.check` says before anything is compiled."""

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

import snnc
from snnc.measure import cost
from snnc.measure.check import _rounded, _time
from snnc.measure.entry import GIVEN, GUESSED, TOLD


class Net(nn.Module):
    """One convolution behind whatever comes first."""

    def __init__(self, first, channels=3):
        super().__init__()
        self.first, self.conv = first, nn.Conv2d(channels, 2, 3)
        self.bn = nn.BatchNorm2d(channels)
        self.bn.running_mean.fill_(0.5)
        self.bn.running_var.fill_(0.0625)

    def forward(self, x):
        return torch.relu(self.conv(self.first(self, x))).mean((2, 3))


MEAN, STD = (torch.tensor(v).reshape(3, 1, 1) for v in ((0.5, 0.25, 0.125), (0.25, 0.5, 0.125)))


@pytest.mark.parametrize(
    ("first", "shape", "layout", "says"),
    [
        (lambda net, x: x, (3, 6, 6), "channels first", None),
        (lambda net, x: x / 255, (3, 6, 6), "channels first", "(it divides by 255), so probably 0 to 255"),
        (lambda net, x: 2 * x - 1, (3, 6, 6), "channels first", "(it subtracts 0.5 and divides by 0.5)"),
        (
            lambda net, x: (x - MEAN) / STD, (3, 6, 6), "channels first",
            "(it subtracts 0.5, 0.25, 0.125 and divides by 0.25, 0.5, 0.125), so probably 0 to 1",
        ),
        (lambda net, x: x.clamp(-1, 1), (3, 6, 6), "channels first", "-1 to 1; others are clipped"),
        (lambda net, x: net.bn(x), (3, 6, 6), "channels first", "mean was 0.5, their standard deviation 0.25"),
        (lambda net, x: x.permute(0, 3, 1, 2) / 255, (6, 6, 3), "channels last", "divides by 255"),
        (lambda net, x: x * 0 + 1, (3, 6, 6), "channels first", None),
    ],
)  # fmt: skip
def test_what_goes_in(first, shape, layout, says):
    found = snnc.check(Net(first).eval(), shape)
    assert found
    assert (found.input.shape, found.input.told_by, found.input.layout) == (list(shape), GIVEN, layout)
    assert says is None if found.input.values is None else says in found.input.values


def test_shapes_that_layers_tell():
    fixed = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 26 * 26, 3)).eval()
    assert (snnc.check(fixed).input.shape, snnc.check(fixed).input.told_by) == ([1, 28, 28], TOLD)
    anything = Net(lambda net, x: x).eval()
    assert snnc.check(anything).input.told_by == GUESSED
    assert "or other sizes" in str(snnc.check(anything))
    assert snnc.check(nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))).input.layout == "features"


def scripted():
    return torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2))


def test_memory_has_a_limit(monkeypatch):
    """Beyond what may be taken, more values take no more; 36 in, 32 and 3 neurons, over 8 steps and 512 samples."""
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3), nn.ReLU()).eval()
    found = []
    for bytes_ in (float("inf"), 0.0):
        monkeypatch.setattr(cost, "allowed", lambda limit, bytes_=bytes_: bytes_)
        found.append(snnc.check(net, (1, 6, 6)).recipes[0].estimate)
    assert found[0].bytes - found[1].bytes == 4 * (36 + 32) * 9 * 512
    assert found[0].samples == found[1].samples == 512


def test_counts_and_recipes():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3), nn.ReLU()).eval()
    found = snnc.check(net, (1, 6, 6))
    assert found.parameters == 20 + 99
    assert found.neurons == 2 * 4 * 4 + 3
    with_data, without = found.recipes
    assert (with_data.recipe, without.recipe) == ("best", "data-free")
    assert (with_data.estimate.T, with_data.estimate.samples, without.estimate.samples) == (8, 512, 0)
    assert with_data.estimate.seconds > without.estimate.seconds > 0
    gelu = snnc.check(nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 2)))
    assert [one.recipe for one in gelu.recipes] == ["best", "telescoped"]
    assert gelu.recipes[1].estimate is None
    assert "the first of best, telescoped, telescoped-graded, which are tried on the data" in str(gelu)
    assert (gelu.recipes[0].share.driven, gelu.recipes[0].share.once, gelu.recipes[1].share) == (8, 16, None)
    assert "spikes drive 100 % of 8 multiply-accumulates a step; 16 more act once a sample" in str(gelu)
    assert "recipe telescoped (it will ask for calibration data, since there are curved operations" in str(gelu)
    assert "<td>Without</td>" in gelu._repr_html_()


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:DeprecationWarning")
def test_everything_that_stands_in_the_way():
    found = snnc.check(nn.Sequential(nn.Linear(4, 4), nn.Threshold(0.5, 0.0), nn.LSTM(4, 4)), (4,))
    assert not found
    assert found.blockers[0].op == "Threshold"
    assert found.to_dict()["converts"] is False
    assert "in the way" in str(found)
    assert "<td>Threshold</td>" in found._repr_html_()
    assert "TorchScript" in str(snnc.check(scripted()))
    with pytest.raises(snnc.SnncError, match="already"):
        snnc.check(snnc.compile(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), 2))


def test_an_onnx_model_tells_its_order():
    graph = helper.make_graph(
        [
            helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", ["t", "w"], ["c"]),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("GlobalAveragePool", ["r"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 5, 5, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, 1, 1])],
        [helper.make_tensor("w", TensorProto.FLOAT, [3, 2, 1, 1], [0.5] * 6)],
    )
    found = snnc.check(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    assert isinstance(graph, onnx.GraphProto)
    assert (found.input.shape, found.input.told_by, found.input.layout) == ([5, 5, 2], TOLD, "channels last")


def test_durations_as_one_says_them():
    assert [_time(s) for s in (0.1, 6, 64, 130, 7000, 90000)] == [
        "a few seconds", "about 6 seconds", "about 60 seconds", "about 2 minutes", "about 2 hours", "about 20 hours",
    ]  # fmt: skip
    assert [_rounded(v) for v in (7.4, 12.2, 26, 147)] == [7, 12, 30, 150]
