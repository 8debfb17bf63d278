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


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self):
        super().__init__()
        self.down, self.up, self.act = nn.Conv2d(CHANNELS, 2, 1), nn.Conv2d(2, CHANNELS, 1), nn.Sigmoid()

    def forward(self, x):
        return x * self.act(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))


class Attention(nn.Module):
    """Of the places of a map to each other."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (nn.Conv2d(CHANNELS, 4, 1) for _ in range(3))

    def forward(self, x):
        x = F.relu(x)
        query, key, value = (f(x).flatten(2) for f in (self.query, self.key, self.value))
        return torch.bmm(value, torch.softmax(torch.bmm(query.transpose(1, 2), key), -1)).flatten(1)


class Embedding(nn.Module):
    """A vector of length one."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(CHANNELS, 4)

    def forward(self, x):
        y = self.fc(F.relu(x).mean((2, 3)))
        return y / y.norm(dim=1, keepdim=True)


class Heads(nn.Module):
    """Several outputs, one of them refused."""

    def __init__(self):
        super().__init__()
        self.classes, self.boxes = nn.Conv2d(CHANNELS, 4, 1), nn.Conv2d(CHANNELS, 4, 1)

    def forward(self, x):
        x = F.elu(x)
        return self.classes(x), self.boxes(x).exp()


class Asserting(nn.Module):
    """Looks at sizes of what refused operations give."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(CHANNELS, 2)

    def forward(self, x):
        x = torch.tanh(x)
        torch._assert(x.ndim == 4, "rank")
        torch._assert(x.shape[1] == CHANNELS, "channels")
        y = x.unfold(2, 2, 2)
        torch._assert(y.ndim == 5, "rank")
        return self.fc(F.gelu(x).mean((2, 3)) + y.flatten(2).mean(2))


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
    "gate": (Gate, ["mul", "sigmoid"], ["mul", "sigmoid"]),
    "attention": (Attention, ["bmm", "bmm", "softmax"], ["matmul", "matmul", "softmax"]),
    "embedding": (Embedding, ["norm"], ["reducel2"]),
    "heads": (Heads, ["elu", "exp", "output"], ["elu", "exp", "output"]),
    "asserting": (Asserting, ["gelu", "tanh", "unfold"], None),
}


@pytest.mark.parametrize("name", LISTS)
def test_every_blocker_is_listed_once(name):
    make, live, file = LISTS[name]
    net, x = make().eval(), torch.rand(2, *SHAPE)
    program = torch.export.export(net, (x,), strict=False)
    assert told(blockers(net, SHAPE)) == live
    assert [op for op in told(blockers(net)) if op not in live] == []
    assert told(blockers(program)) == [op.replace("norm", "linalgvectornorm") for op in live]
    if file:
        assert told(blockers(as_onnx(net, x))) == file


def test_a_second_input_hides_nothing():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(CHANNELS, 4, 1), nn.Conv2d(CHANNELS, 4, 1)

        def forward(self, x, z):
            y = F.silu(self.a(x)) * F.softplus(self.b(z))
            return y.softmax(1), F.hardtanh(y)

    net, x = Two().eval(), torch.rand(2, *SHAPE)
    live = ["clamp", "input", "mul", "output", "silu", "softplus"]
    assert told(blockers(net)) == live
    assert told(blockers(net, SHAPE)) == live
    assert told(blockers(torch.export.export(net, (x, x), strict=False))) == live
    # ONNX writes SiLU as a sigmoid and a product
    assert told(blockers(as_onnx(net, x, x))) == ["clamp", "input", "mul", "mul", "output", "sigmoid", "softplus"]


def test_a_shared_module_is_listed_once_and_every_other_site():
    act = nn.Sigmoid()
    net = nn.Sequential(nn.Conv2d(8, 8, 1), act, nn.Conv2d(8, 8, 1), act, nn.Tanh(), nn.Tanh())
    assert told(blockers(net)) == ["sigmoid", "tanh", "tanh"]


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
            x = torch.tanh(x)
            return F.gelu(x) if x.sum() > 0 else F.gelu(x) + 1

    assert told(blockers(Deciding().eval(), SHAPE)) == ["forward", "gelu", "tanh"]


def test_a_network_that_is_refused_by_name_is_not_exported(monkeypatch):
    def export(*args):
        raise AssertionError("exported")

    monkeypatch.setattr(doors, "export", export)
    for make in (Gate, Attention, Embedding, Heads):
        assert blockers(make().eval(), SHAPE)


def test_a_name_is_refused_or_spelled_and_not_both():
    """What snnc learns to convert leaves the table of refusals."""
    some = {"expand", "setitem"}  # accepted where they change nothing
    assert {name for name in SPELLINGS if name.replace("_", "") in REASONS} <= some
