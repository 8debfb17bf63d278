"""Lists of blockers: complete, true, and without repetitions, at every door."""

import io
import warnings

import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from snnc.capture import blockers, doors
from snnc.capture.operations import SPELLINGS
from snnc.capture.refusals import REASONS

CHANNELS, SIDE = 8, 8
SHAPE = (CHANNELS, SIDE, SIDE)


class Heads(nn.Module):
    """Several outputs, one of them refused."""

    def __init__(self):
        super().__init__()
        self.classes, self.boxes = nn.Conv2d(CHANNELS, 4, 1), nn.Conv2d(CHANNELS, 4, 1)

    def forward(self, x):
        x = F.threshold(x, 0.5, 0.0)
        return self.classes(x), self.boxes(x).frac()


class Asserting(nn.Module):
    """Looks at sizes of what refused operations give."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(CHANNELS, 2)

    def forward(self, x):
        x = F.threshold(x, 0.5, 0.0)
        torch._assert(x.ndim == 4, "rank")
        torch._assert(x.shape[1] == CHANNELS, "channels")
        y = x.frac()
        torch._assert(y.ndim == 4, "rank")
        return self.fc(x.mean((2, 3)) + y.flatten(2).mean(2))


def told(found):
    assert len({(b.node, b.op, b.why) for b in found}) == len(found)
    return sorted(b.op.lower().replace("_", "") for b in found)


def as_onnx(net, *x):
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises its other exporter, which needs packages of its own
        torch.onnx.export(net, x, file, dynamo=False, opset_version=17)
    return onnx.load_from_string(file.getvalue())


# What each door says: by name, sorted.
LISTS = {
    "heads": (Heads, ["frac", "threshold"]),
    "asserting": (Asserting, ["frac", "threshold"]),
}


@pytest.mark.parametrize("name", LISTS)
def test_every_blocker_is_listed_once(name):
    make, live = LISTS[name]
    net, x = make().eval(), torch.rand(2, *SHAPE)
    program = torch.export.export(net, (x,), strict=False)
    assert told(blockers(net, SHAPE)) == live
    assert [op for op in told(blockers(net)) if op not in live] == []
    assert told(blockers(program)) == live


def test_a_second_input_hides_nothing():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(CHANNELS, 4, 1), nn.Conv2d(CHANNELS, 4, 1)

        def forward(self, x, z):
            y = F.threshold(self.a(x), 0.5, 0.0) + torch.topk(self.b(z), 4, 1)[0]
            return y.softmax(1), F.hardtanh(y)

    net, x = Two().eval(), torch.rand(2, *SHAPE)
    live = ["threshold", "topk"]
    assert told(blockers(net)) == live
    assert told(blockers(net, (SHAPE, SHAPE))) == live
    assert "takes x, z, and was given the shape" in blockers(net, SHAPE)[0].why
    assert told(blockers(torch.export.export(net, (x, x), strict=False))) == live


def test_a_shared_module_is_listed_once_and_every_other_site():
    act, other = nn.Threshold(0.5, 0.0), nn.LPPool2d(2, 1)
    net = nn.Sequential(nn.Conv2d(8, 8, 1), act, nn.Conv2d(8, 8, 1), act, other, nn.LPPool2d(2, 1))
    assert told(blockers(net)) == ["lppool2d", "lppool2d", "threshold"]


def test_what_does_nothing_at_inference_is_no_blocker():
    class Dropping(nn.Module):
        def forward(self, x):
            return stochastic_depth(F.relu(x), 0.5, "row", self.training)

    assert blockers(Dropping().eval()) == []
    assert blockers(Dropping().eval(), SHAPE) == []


@torch.fx.wrap
def stochastic_depth(input, p, mode, training=True):
    return input if not training else input * (torch.rand(len(input), 1, 1, 1) > p)


def test_what_is_refused_beside_a_decision_is_listed():
    class Deciding(nn.Module):
        def forward(self, x):
            x = torch.remainder(x, x + 1)
            return x if x.sum() > 0 else x + 1

    assert told(blockers(Deciding().eval(), SHAPE)) == ["forward", "remainder"]


class Deciding(nn.Module):
    """Decides, early by the shape of its input or late by a value, and holds what is refused by name."""

    def __init__(self, early):
        super().__init__()
        self.early, self.conv, self.fc = early, nn.Conv2d(CHANNELS, 4, 1), nn.Linear(4, 2)
        self.rnn = nn.GRU(4, 4, batch_first=True)

    def forward(self, x):
        if self.early and x.shape[-1] > 99:
            x = x[..., :99]
        x = self.rnn(F.relu(self.conv(x)).flatten(2).transpose(1, 2))[0][:, -1]
        if not self.early and x.sum() > 0:
            x = x + 1
        return self.fc(torch.gru_cell(x, x, self.rnn.weight_ih_l0, self.rnn.weight_hh_l0))


@pytest.mark.parametrize("early", [True, False])
def test_where_tracing_stops_the_rest_is_listed(early):
    net = Deciding(early).eval()
    assert told(blockers(net)) == ["forward", "gru", "grucell"]
    assert told(blockers(net, SHAPE)) == (["gru", "grucell"] if early else ["forward", "gru", "grucell"])


def test_behind_an_unknown_shape_no_more_is_refused_than_behind_a_known_one():
    class Behind(nn.Module):
        def forward(self, x):
            return torch.cat(x.type(torch.float32).flatten(2).tensor_split(2, 2), 1).relu()

    assert {b.hint.partition(" ")[0] for b in blockers(Behind().eval())} == {"pass"}
    assert blockers(Behind().eval(), SHAPE) == []


def test_a_network_that_is_refused_by_name_is_not_exported(monkeypatch):
    def export(*args):
        raise AssertionError("exported")

    monkeypatch.setattr(doors, "export", export)
    for make in (Heads,):
        assert blockers(make().eval(), SHAPE)


def test_a_name_is_refused_or_spelled_and_not_both():
    """What snnc learns to convert leaves the table of refusals."""
    some = {"expand", "setitem"}  # accepted where they change nothing
    assert {name for name in SPELLINGS if name.replace("_", "") in REASONS} <= some
