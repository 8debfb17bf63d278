"""What each hint says to do is accepted: a network that gets the hint, and the same as the hint has it."""

import math
import random
import re
import tempfile
import threading
import tomllib
import warnings
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import click
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from snnc import recipes
from snnc.capture import blockers
from snnc.cli import main
from snnc.files import load_model
from snnc.ir.neurons import IF
from snnc.passes import PASSES
from tests.hints import hints

SHAPE = (4, 6, 6)


class Net(nn.Module):
    """A convolution, a ReLU, and what is tried."""

    def __init__(self, body):
        super().__init__()
        self.conv, self.norm, self.body = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), body
        self.shrink, self.fc, self.time = nn.Conv2d(4, 2, 1), nn.Linear(6, 6), nn.Conv1d(4, 4, 3)
        self.lstm, self.cross = nn.LSTM(6, 6, batch_first=True), nn.CrossMapLRN2d(2)
        self.attention, self.second = nn.MultiheadAttention(6, 1, batch_first=True), nn.MultiheadAttention(6, 1)
        self.biased = nn.MultiheadAttention(6, 1, batch_first=True, add_bias_kv=True)
        self.neuron = IF(2, torch.tensor(1.0), torch.tensor(0.5))

    def forward(self, x):
        return self.body(self, x, F.relu(self.conv(x)))


def into(x, part):
    x[:, :2] = part
    return x


def half(y, where):
    y[where] = 0.5
    return y


def picky(x):
    if type(x) is Tensor and len(x) == 3:
        raise ValueError("not three")


def changed(n):
    if n.training:
        n.norm.running_mean.add_(1.0)
    return n.norm.running_mean[:, None, None]


def pieces(y):
    return torch.cat([y[:, :2] * 2, y[:, 2:]], 1)


MEAN = torch.ones(4, 1, 1) / 2
PLACES = torch.tensor([2, 1])
GRID = torch.linspace(-1, 1, 18).reshape(1, 3, 3, 2)
MATRIX = torch.ones(2, 4)
SAMPLE = torch.ones(4, 6, 6)
SEEN = torch.ones(6, 6, dtype=torch.bool).tril()
OTHER = "rewrite it with layers of torch.nn that snnc knows"
BATCH = "keep the batch as the first dimension"
# The hint, what gets it, and what it says to do. `n` is the network, `x` its input, `y` what has passed a ReLU.

FOLLOWED = [
    ("convolutions over time", lambda n, x, y: n.lstm(y.mean(3))[0], lambda n, x, y: n.time(y.mean(3))),
    ("pick outside", lambda n, x, y: y.flatten(1).argmax(1), lambda n, x, y: y.flatten(1)),
    ("return_indices=False", lambda n, x, y: F.max_pool2d(y, 2, return_indices=True)[0],
     lambda n, x, y: F.max_pool2d(y, 2)),
    ("return_indices=False", lambda n, x, y: sum(F.adaptive_max_pool2d(y, 2, return_indices=True)),
     lambda n, x, y: F.adaptive_max_pool2d(y, 2)),
    ("no network needs so many", lambda n, x, y: y.repeat(1, 10**5, 100, 1), lambda n, x, y: y.repeat(1, 2, 1, 1)),
    ("or by constants", lambda n, x, y: y.index_select(1, y.mean((1, 2, 3))),
     lambda n, x, y: y.index_select(1, PLACES)),
    ("such as x.roll(1, 2)", lambda n, x, y: y.roll(6), lambda n, x, y: y.roll(1, 2)),
    ("with one index for all samples", lambda n, x, y: y.gather(1, PLACES.reshape(2, 1, 1, 1)),
     lambda n, x, y: torch.take_along_dim(y, PLACES.reshape(1, 2, 1, 1), 1)),
    ("torch.repeat_interleave(x, 2, dim=1)", lambda n, x, y: y.repeat_interleave(2),
     lambda n, x, y: torch.repeat_interleave(y, 2, dim=1)),
    ("torch.take_along_dim(x, index, dim=1)", lambda n, x, y: torch.take_along_dim(y, PLACES),
     lambda n, x, y: torch.take_along_dim(y, PLACES.reshape(1, 2, 1, 1), dim=1)),
    ("a value of shape [B, C, H, W]", lambda n, x, y: F.unfold(y.flatten(2), 2), lambda n, x, y: F.unfold(y, 2)),
    ("a value of shape [B, C * taps, L]", lambda n, x, y: F.fold(y.flatten(1), (6, 6), 2),
     lambda n, x, y: F.fold(F.unfold(y, 2), (6, 6), 2)),
    ("such as grid.expand(x.size(0), -1, -1, -1)",
     lambda n, x, y: F.grid_sample(y, y.permute(0, 2, 3, 1)[..., :2], align_corners=True),
     lambda n, x, y: F.grid_sample(y, GRID.expand(y.size(0), -1, -1, -1), align_corners=True)),
    ("use dimension 1 or higher", lambda n, x, y: y.roll(6, 0), lambda n, x, y: y.roll(6, 1)),
    ("join them with torch.cat", lambda n, x, y: y.index_add(1, PLACES, y[:, :2]), lambda n, x, y: pieces(y)),
    ("x = (x - mean) / std", lambda n, x, y: F.relu(into(x, x[:, :2] - 0.5)),
     lambda n, x, y: F.relu((x - MEAN) / MEAN)),
    ("only where self.training", lambda n, x, y: y + torch.rand(1),
     lambda n, x, y: y + torch.rand(1) if n.training else y),
    ("layers of torch.nn", lambda n, x, y: torch.logcumsumexp(y, 1), lambda n, x, y: n.conv(y)),
    ("threshold(x, 0, 0)", lambda n, x, y: F.threshold(x, 0.5, 0.0), lambda n, x, y: F.threshold(x, 0, 0)),
    ("use torch.floor", lambda n, x, y: y.clamp(0, 1).mul(4).div(1, rounding_mode="trunc") / 4,
     lambda n, x, y: torch.floor(y.clamp(0, 1) * 4) / 4),
    ("scale before and after", lambda n, x, y: torch.round(y.clamp(0, 1), decimals=1),
     lambda n, x, y: torch.round(y.clamp(0, 1) * 10) / 10),
    ("floor(clamp(x / lam", lambda n, x, y: torch.round(x),
     lambda n, x, y: torch.floor(torch.clamp(x / 2, 0, 1) * 4 + 0.5) / 4 * 2),
    ("training=self.training", lambda n, x, y: F.dropout(y, 0.5),
     lambda n, x, y: F.dropout(y, 0.5, training=n.training)),
    ("return what is computed from the input alone", lambda n, x, y: MEAN, lambda n, x, y: y),
    ("give it to every sample, as y.expand(x.shape[0], *y.shape)", lambda n, x, y: (y, MEAN),
     lambda n, x, y: (y, MEAN.expand(x.shape[0], *MEAN.shape))),
    ("write into all of them: x[:, places] = y", lambda n, x, y: y.index_put((PLACES,), MEAN),
     lambda n, x, y: half(y, (slice(None), PLACES))),
    ("write into all of them, along another dimension", lambda n, x, y: y.index_fill(0, PLACES, 0.5),
     lambda n, x, y: y.index_fill(1, PLACES, 0.5)),
    ("an order p above zero", lambda n, x, y: torch.cdist(y, y, 0.0), lambda n, x, y: torch.cdist(y, y, 1.0)),
    ("name the dimension: x.prod(1)", lambda n, x, y: y.prod(), lambda n, x, y: y.prod(1)),
    ("check that the forward method applies", lambda n, x, y: n.norm(x), lambda n, x, y: F.relu(n.norm(x))),
    ("flatten from dimension 1", lambda n, x, y: torch.flatten(y), lambda n, x, y: torch.flatten(y, 1)),
    ("use dimension 1 or higher", lambda n, x, y: y.mean(0), lambda n, x, y: y.mean(1)),
    ("such as x.mean((2, 3))", lambda n, x, y: y.mean(), lambda n, x, y: y.mean((2, 3))),
    (BATCH, lambda n, x, y: torch.stack([y, y]).mean(0), lambda n, x, y: torch.stack([y, y], 1).mean(1)),
    (BATCH, lambda n, x, y: y.permute(1, 0, 2, 3), lambda n, x, y: y.permute(0, 2, 3, 1)),
    (BATCH + ", by itself", lambda n, x, y: y.reshape(-1, 6), lambda n, x, y: y.reshape(y.size(0), -1)),
    ("keep the whole batch", lambda n, x, y: y[0], lambda n, x, y: y[:, ...]),
    ("write x.flatten(1)", lambda n, x, y: y.view(1, -1), lambda n, x, y: y.flatten(1)),
    ("or x.view(x.size(0), ...)", lambda n, x, y: y.view(1, 144), lambda n, x, y: y.view(y.size(0), -1)),
    ("write a constant in its place", lambda n, x, y: y.narrow(1, 0, y.size(0)), lambda n, x, y: y.narrow(1, 0, 2)),
    ("unsqueeze the smaller one", lambda n, x, y: y + y.mean(1), lambda n, x, y: y + y.mean(1).unsqueeze(1)),
    ("one sample's shape", lambda n, x, y: y + torch.ones(2, 4, 6, 6), lambda n, x, y: y + torch.ones(4, 6, 6)),
    ("value's own shape", lambda n, x, y: y[:, :1] + MEAN, lambda n, x, y: y + MEAN),
    ("use nn.Linear", lambda n, x, y: y @ torch.ones(6), lambda n, x, y: n.fc(y)),
    ("in floating point", lambda n, x, y: y.to(torch.int32) + 0.5, lambda n, x, y: y.to(torch.float32) + 0.5),
    ("parameters or buffers", lambda n, x, y: F.conv2d(y, y[:, :, :1, :1]), lambda n, x, y: F.conv2d(y, n.conv.weight)),
    ("keep that dimension here", lambda n, x, y: F.relu(y.mean((1, 2, 3))),
     lambda n, x, y: F.relu(y.flatten(1).mean(1, keepdim=True)).squeeze(1)),
    ("bring it to 4 dimensions: x.unsqueeze(1)", lambda n, x, y: F.avg_pool2d(y.mean(1), 2),
     lambda n, x, y: F.avg_pool2d(y.mean(1).unsqueeze(1), 2)),
    ("bring it to 4 dimensions", lambda n, x, y: F.avg_pool2d(y[:, :, None], 2), lambda n, x, y: F.avg_pool2d(y, 2)),
    ("casts to short floats, out of forward", lambda n, x, y: y.to(torch.bfloat16).to(torch.float32),
     lambda n, x, y: y.to(torch.float32)),
    ("the same for every input", lambda n, x, y: y * 2 if type(x) is Tensor else y, lambda n, x, y: y * 2),
    ("any number of them", lambda n, x, y: y * 2 if x.shape[0] > 16 else y, lambda n, x, y: y * 2),
    ("take states and random numbers out", lambda n, x, y: y + random.random(), lambda n, x, y: y + 0.5),
    ("under `if self.training:`", lambda n, x, y: y + random.random(),
     lambda n, x, y: y + random.random() if n.training else y),
    ("x.shape, x.ndim", lambda n, x, y: y + y.itemsize, lambda n, x, y: y + y.ndim),
    ("x.shape, x.ndim", lambda n, x, y: y + y.transpose(0, 1).itemsize, lambda n, x, y: y + y.transpose(0, 1).ndim),
    ("a comparison, such as x > 0", lambda n, x, y: torch.where(y, y, y * 2),
     lambda n, x, y: torch.where(y > 0, y, y * 2)),
    ("a comparison, such as x > 0", lambda n, x, y: torch.where(torch.logical_not(y), y, y * 2),
     lambda n, x, y: torch.where(torch.logical_not(y > 0), y, y * 2)),
    ("two comparisons", lambda n, x, y: torch.where((y > 1) | (MEAN > 0), y, y * 2),
     lambda n, x, y: torch.where((y > 1) | (y < 0.5), y, y * 2)),
    ("torch.where(condition, a, b)", lambda n, x, y: torch.where(y > 0), lambda n, x, y: torch.where(y > 0, y, 2.0)),
    ("use nn.ELU, nn.CELU or nn.SELU", lambda n, x, y: torch.ops.aten.elu.default(y, 1.0, 1.0, 2.0),
     lambda n, x, y: F.celu(y, 0.5)),
    ("F.rrelu(x, training=self.training)", lambda n, x, y: F.rrelu(y - 1, training=True),
     lambda n, x, y: F.rrelu(y - 1, training=n.training)),
    ("a constant slope", lambda n, x, y: F.prelu(y - 1, y.mean((2, 3))),
     lambda n, x, y: F.prelu(y - 1, MEAN.flatten())),
    ("a constant exponent", lambda n, x, y: y**y, lambda n, x, y: y**2.5),
    ("a constant base above zero", lambda n, x, y: torch.pow(-2.0, y), lambda n, x, y: torch.pow(2.0, y)),
    ("leave rounding out", lambda n, x, y: torch.div(y, y + 1, rounding_mode="floor"), lambda n, x, y: y / (y + 1)),
    ("give both factors the batch", lambda n, x, y: y @ y.mean(1), lambda n, x, y: y @ y.transpose(2, 3)),
    ("letters that stand once in each value", lambda n, x, y: torch.einsum("bchh,bchw->bchw", y, y),
     lambda n, x, y: torch.einsum("bcgh,bchw->bcgw", y, y)),
    ("keep the batch's letter first", lambda n, x, y: torch.einsum("bchw,dchw->bd", y, y),
     lambda n, x, y: torch.einsum("bchw,bcgw->bhg", y, y)),
    ("write x.size(0) first", lambda n, x, y: y.reshape(-1, 4, -1), lambda n, x, y: y.reshape(y.size(0), 4, -1)),
    ("pad dimension 1 or higher", lambda n, x, y: F.pad(y, (0, 0, 0, 0, 0, 0, 1, 1)),
     lambda n, x, y: F.pad(y, (0, 0, 0, 0, 1, 1))),
    ("antialias=False", lambda n, x, y: F.interpolate(y[..., :1], (3, 1), mode="bilinear", antialias=True),
     lambda n, x, y: F.interpolate(y[..., :1], (3, 1), mode="bilinear", antialias=False)),
    ("register it as a buffer", lambda n, x, y: y + torch.zeros(y.size(0) * 2, 1, 1, 1)[: y.size(0)],
     lambda n, x, y: y + n.norm.running_mean[:, None, None]),
    ("name the dimensions, such as x.var(1)", lambda n, x, y: y.var(True), lambda n, x, y: y.var(1)),
    ("an order above zero, or infinity", lambda n, x, y: torch.linalg.vector_norm(y, -torch.inf, 1),
     lambda n, x, y: torch.linalg.vector_norm(y, 3, 1) + torch.linalg.vector_norm(y, torch.inf, 1)),
    ("write into all of them: x[:, ...] = y", lambda n, x, y: torch.select_scatter(y, SAMPLE, 0, 0),
     lambda n, x, y: half(y, (slice(None), 0))),
    ("a value of shape [B, ..., N, M]", lambda n, x, y: y.mean((2, 3)).tril(), lambda n, x, y: y.tril()),
    ("normalise over a sample's own dimensions", lambda n, x, y: F.layer_norm(y, (3, 4, 6, 6)),
     lambda n, x, y: F.layer_norm(y, (4, 6, 6))),
    ("constant weights", lambda n, x, y: F.layer_norm(y, (6,), y.mean((1, 2))),
     lambda n, x, y: F.layer_norm(y, (6,), torch.ones(6))),
    ("maps behind batch and channels", lambda n, x, y: F.instance_norm(y.mean((2, 3))),
     lambda n, x, y: F.instance_norm(y)),
    ("use one of the normalisations of torch.nn", lambda n, x, y: n.cross(y), lambda n, x, y: n.norm(y)),
    ("layers and functions that snnc knows", lambda n, x, y: y.frac(), lambda n, x, y: n.conv(y).abs()),
    ("write it with matmul", lambda n, x, y: torch.einsum("bchw,bcwv,bcvz->bchz", y, y, y),
     lambda n, x, y: y @ y.transpose(2, 3)),
    ("without the question", lambda n, x, y: torch.nan_to_num(y / y.sum(1, True)), lambda n, x, y: y / y.sum(1, True)),
    ("use slices with constant bounds", lambda n, x, y: y.transpose(0, 1)[y.mean((1, 2, 3))],
     lambda n, x, y: y.transpose(0, 1)[1:3].transpose(0, 1)),
    ("name the dimensions", lambda n, x, y: y.transpose(0, 1).mean(), lambda n, x, y: y.transpose(0, 1).mean((0, 2))),
    ("keep samples apart", lambda n, x, y: y.transpose(0, 1).softmax(1).transpose(0, 1),
     lambda n, x, y: y.transpose(0, 1).softmax(0).transpose(0, 1)),
    ("check the network on one sample", lambda n, x, y: y.mean(7), lambda n, x, y: y.mean(3)),
    ("check the network on one sample", lambda n, x, y: F.pixel_unshuffle(y, 4),
     lambda n, x, y: F.pixel_unshuffle(y, 3)),
    ("dropout_p=0.0", lambda n, x, y: F.scaled_dot_product_attention(y, y, y, dropout_p=0.5),
     lambda n, x, y: F.scaled_dot_product_attention(y, y, y, dropout_p=0.0)),
    ("query, key and value of shape", lambda n, x, y: F.scaled_dot_product_attention(*[y.mean((1, 2))] * 3),
     lambda n, x, y: F.scaled_dot_product_attention(*[y.mean(1)] * 3)),
    ("a mask of two dimensions",
     lambda n, x, y: F.scaled_dot_product_attention(y, y[:, :2], y[:, :2], SEEN.expand(4, 6, 6), enable_gqa=True),
     lambda n, x, y: F.scaled_dot_product_attention(y, y[:, :2], y[:, :2], SEEN, enable_gqa=True)),
    ("a mask that leaves each query something", lambda n, x, y: F.scaled_dot_product_attention(y, y, y, ~SEEN),
     lambda n, x, y: F.scaled_dot_product_attention(y, y, y, SEEN)),
    ("add_bias_kv and add_zero_attn left out", lambda n, x, y: n.biased(*[y.mean(1)] * 3)[0],
     lambda n, x, y: n.attention(*[y.mean(1)] * 3)[0]),
    ("a mask of two dimensions", lambda n, x, y: n.attention(*[y.mean(1)] * 3, attn_mask=SEEN[None])[0],
     lambda n, x, y: n.attention(*[y.mean(1)] * 3, attn_mask=~SEEN)[0]),
    ("the same for all samples",
     lambda n, x, y: n.attention(*[y.mean(1)] * 3, key_padding_mask=y.mean((1, 2)) > 1)[0],
     lambda n, x, y: n.attention(*[y.mean(1)] * 3, attn_mask=~SEEN)[0]),
    ("batch_first=True", lambda n, x, y: n.second(*[y.mean(1)] * 3)[0],
     lambda n, x, y: n.attention(*[y.mean(1)] * 3)[0]),
    ("or the batch as the second dimension", lambda n, x, y: n.second(*[y.mean(1)] * 3)[0],
     lambda n, x, y: n.second(*[y.mean(1).transpose(0, 1)] * 3)[0].transpose(0, 1)),
    ("what comes behind it, with the vectors as input", lambda n, x, y: F.embedding_bag(x, n.fc.weight),
     lambda n, x, y: n.fc(y)),
    ("the network that it was compiled from", lambda n, x, y: n.neuron(y), lambda n, x, y: F.relu(y)),
    ("change buffers only where self.training is True, and call eval()",
     lambda n, x, y: y + n.norm.running_mean.add_(y.mean((2, 3)))[:, None, None], lambda n, x, y: y + changed(n)),
    ("move decisions that depend on data out of forward", lambda n, x, y: y if y.sum() > 0 else y * 2,
     lambda n, x, y: torch.where(y > 0, y, y * 2)),
    ("write a constant", lambda n, x, y: y.narrow(1, y.mean((1, 2, 3)), 2), lambda n, x, y: y.narrow(1, 1, 2)),
    ("write that operation out of place", lambda n, x, y: (y.flatten(2), F.relu_(y - 1), y.sub_(1))[0],
     lambda n, x, y: (y.flatten(2), F.relu_(y - 1), y - 1)[0]),
    ("run the network on a batch of such samples", lambda n, x, y: (picky(x), y)[1], lambda n, x, y: y),
    ("run the network on a batch of such samples", lambda n, x, y: y.unsqueeze(1.5), lambda n, x, y: y.unsqueeze(1)),
    ("write forward in torch's own functions", lambda n, x, y: y + torch.from_numpy(np.tanh(y.numpy())),
     lambda n, x, y: y + y.tanh()),
    ("the plain form of the call", lambda n, x, y: torch.add(y, y, out=torch.empty(0)),
     lambda n, x, y: torch.add(y, y)),
]  # fmt: skip


def net(body):
    torch.manual_seed(0)
    return Net(body).eval()


@pytest.mark.parametrize("case", range(len(FOLLOWED)), ids=[f"{i} {row[0]}" for i, row in enumerate(FOLLOWED)])
def test_what_a_hint_says_is_accepted(case):
    words, before, after = FOLLOWED[case]
    assert any(words in b.hint for b in blockers(net(before), SHAPE)), blockers(net(before), SHAPE)
    assert blockers(net(after), SHAPE) == []


class Unreached(nn.Module):
    """A layer that no list of modules holds, so that `eval()` does not come to it."""

    def __init__(self, training):
        super().__init__()
        self.norms = [nn.BatchNorm2d(SHAPE[0], affine=False).train(training)]
        self.eval()

    def forward(self, x):
        if x.shape[-1] != SHAPE[-1]:
            raise ValueError(x.shape)
        return F.relu(self.norms[0](x)).flatten(1)


# The same of whole models: what gets the hint, and what it says to do, each with the shape of a sample.


def small(change=lambda net: None, kind=nn.ReLU):
    """A network of three layers, changed."""
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(4, 4, 1), kind(), nn.Conv2d(4, 2, 1)).eval()
    change(made)
    return made, SHAPE


class Called(nn.Module):
    """A network that is one function."""

    def __init__(self, function):
        super().__init__()
        self.function, self.conv = function, nn.Conv2d(4, 4, 1)

    def forward(self, *args):
        return self.function(F.relu(self.conv(args[0])), *args[1:])


@dataclass
class Held:
    """An output that is no container of torch's."""

    y: Tensor


class Giving(Called):
    """A network whose signature says what it takes."""

    def forward(self, x):
        return self.function(F.relu(self.conv(x)))


class Looked(nn.Module):
    """A table, whose places may be read by a neuron too."""

    def __init__(self, both):
        super().__init__()
        self.table, self.layer, self.both = nn.Embedding(5, 4), nn.Linear(4, 4), both

    def forward(self, x):
        y = F.relu(self.layer(self.table(x)))
        return (y, x / 2) if self.both else y


class Two(nn.Module):
    """With two inputs."""

    def forward(self, x, z):
        return F.relu(x) + F.relu(z)


class Nothing(nn.Module):
    """Without an input."""

    def forward(self):
        return torch.ones(2, 3)


def program(function, *args, shapes=None, train=False):
    """A network that was exported."""
    made = function if isinstance(function, nn.Module) else Called(function)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(made.train(train), args, dynamic_shapes=shapes, strict=False), None


def normed(remove):
    """A parametrised layer that was given another class."""

    def change(made):
        parametrizations.weight_norm(made[0])
        if remove:
            parametrize.remove_parametrizations(made[0], "weight")
        made[0].__class__ = nn.Conv2d

    return small(change)


def normal():
    return nn.Sequential(nn.BatchNorm2d(4), nn.ReLU())


def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(small()[0]), SHAPE


FOLDER = tempfile.TemporaryDirectory()


def saved():
    path = Path(FOLDER.name) / "net.pt"
    torch.save(small()[0], path)
    return path


def deciding(y):
    return y * 2 if y.sum() > 0 else y


def spread_below_zero():
    net, shape = small()
    norm = nn.BatchNorm2d(4)
    norm.running_var.fill_(-1)
    return nn.Sequential(norm, net).eval(), shape


X = torch.rand(2, *SHAPE)
BATCH = {0: torch.export.Dim.AUTO}
AUTO = {0: torch.export.Dim.AUTO, 2: torch.export.Dim.DYNAMIC}
MODELS = [
    ("see that eval() reaches every layer", lambda: (Unreached(True), SHAPE), lambda: (Unreached(False), SHAPE)),
    ("a trained nn.Module, an exported program or an ONNX model", lambda: (None, SHAPE), small),
    ("one of its instances", lambda: (Called, SHAPE), lambda: (Called(F.relu).eval(), SHAPE)),
    ("the module that has these weights", lambda: (small()[0].state_dict(), SHAPE), small),
    ("snnc.files.load_model of it", lambda: (saved(), SHAPE), lambda: (load_model(saved()), SHAPE)),
    ("finite weights", lambda: small(lambda n: n[0].weight.data.fill_(math.nan)), small),
    ("finite weights", spread_below_zero, small),
    ("one floating-point type", lambda: small(lambda n: n[2].double()), lambda: small(lambda n: n[2].double().float())),
    ("the module that it was scripted from", scripted, small),
    ("remove_parametrizations, before its class", lambda: normed(False), lambda: normed(True)),
    ("only modules, parameters and buffers", lambda: small(lambda n: setattr(n, "lock", threading.Lock())), small),
    ("samples of shape {}", lambda: (program(small()[0], X, shapes=[BATCH])[0], (4, 7, 7)),
     lambda: (program(small()[0], X, shapes=[BATCH])[0], SHAPE)),
    ("or the program exported for the others", lambda: (program(small()[0], X, shapes=[BATCH])[0], (4, 7, 7)),
     lambda: (program(small()[0], torch.rand(2, 4, 7, 7), shapes=[BATCH])[0], (4, 7, 7))),
    ("give forward one tensor", lambda: (Nothing().eval(), SHAPE), small),
    ("a module that takes one tensor", lambda: program(Nothing()), lambda: program(small()[0], X)),
    ("one array, or one shape, for each input", lambda: (Two().eval(), SHAPE), lambda: (Two().eval(), (SHAPE, SHAPE))),
    ("with only the batch dynamic", lambda: program(small()[0], X, shapes=[AUTO]),
     lambda: program(small()[0], X, shapes=[BATCH])),
    ("a network of samples in a batch", lambda: program(nn.ReLU(), torch.tensor(1.0)), lambda: program(small()[0], X)),
    ("the network after model.eval()", lambda: program(normal(), X, train=True),
     lambda: program(normal(), X)),
    ("with constant shapes and without loops",
     lambda: program(lambda y: torch.cond(y.sum() > 0, lambda y: y * 2, lambda y: y + 0, (y,)), X),
     lambda: program(lambda y: y * 2, X)),
    ("train with track_running_stats=True",
     lambda: small(lambda n: n.insert(1, nn.BatchNorm2d(4, track_running_stats=False))),
     lambda: small(lambda n: n.insert(1, nn.BatchNorm2d(4)))),
    ("check the data (channels stand first), or --input-shape", lambda: (small()[0], (6, 6, 4)), small),
    ("move decisions that depend on data out of forward",
     lambda: small(lambda n: n[1].register_forward_hook(lambda m, i, y: deciding(y))),
     lambda: (Called(lambda y: torch.where(y > 0, y * 2, y)).eval(), SHAPE)),
    *[("return a plain tuple, list or dictionary of tensors", lambda kind=kind: (Giving(kind).eval(), SHAPE),
       lambda: (Giving(lambda y: (y,)).eval(), SHAPE))
      for kind in (lambda y: SimpleNamespace(y=y), Held, lambda y: deque([y]))],
    ("whole numbers as an input of their own, of type int64, that embeddings alone read",
     lambda: (Looked(True).eval(), (4,)), lambda: (Looked(False).eval(), (4,))),
    ("no network needs so many",
     lambda: (nn.Sequential(nn.ReLU(), nn.Upsample((5000, 5000), mode="bilinear")), SHAPE),
     lambda: (nn.Sequential(nn.ReLU(), nn.Upsample((9, 9), mode="bilinear")), SHAPE)),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(MODELS)), ids=[row[0] for row in MODELS])
def test_what_a_hint_says_of_a_model_is_accepted(case):
    words, before, after = MODELS[case]
    words = words.partition("{}")[0]
    assert any(words in b.hint for b in blockers(*before())), blockers(*before())
    assert blockers(*after()) == []


# Hints that another test follows: the file and the test.
ELSEWHERE = {
    "a constant table of floats, one row for each number": "../test_several.py::test_tables_that_are_refused",
    "the table as it is after training, without max_norm": "../test_several.py::test_tables_that_are_refused",
    "export it with float input, where its numbers tell amounts": "../test_several.py::test_tables_that_are_refused",
    "pass --input-shape (input_shape= in Python), the shape of one sample, such as 3,32,32": (
        "test_hints.py::test_the_shape_is_asked_for_where_it_helps_and_nowhere_else"
    ),
    "bring it to {} dimensions{}": "test_hints.py::test_what_a_hint_says_is_accepted",
    "remove them (handle.remove()) before snnc runs": (
        "test_comparison.py::test_hooks_on_all_modules_are_refused_while_they_are_there"
    ),
    "that constant left out": "onnx/test_hints.py::test_what_a_hint_says",
    "replace it by one that it knows, such as nn.GELU, and train again": "onnx/test_hints.py::test_what_a_hint_says",
    "samples [N, T, ...], T frames each; where time stands first, x.transpose(0, 1), or --time-first": (
        "../networks/test_frames.py::test_calibration_data_that_do_not_fit"
    ),
    "--T FRAMES (T= in Python), or calibration data": (
        "../networks/test_frames.py::test_calibration_data_that_do_not_fit"
    ),
    "--frames (frames= in Python): {}": ("../networks/test_frames.py::test_calibration_data_that_do_not_fit"),
    "the network compiled without frames, or {}": ("../networks/test_frames.py::test_calibration_data_that_do_not_fit"),
    "--T {}, or data of {} frames": ("../networks/test_frames.py::test_calibration_data_that_do_not_fit"),
    "import the float network that it was quantised from; snnc quantises itself": (
        "onnx/test_hints.py::test_what_a_hint_says"
    ),
}


def test_every_hint_on_a_network_is_followed():
    told = {h.text for h in hints() if h.file.startswith("capture/") and "/onnx/" not in h.file}
    left = {text for text in told if not any(row[0] in text for row in (*FOLLOWED, *MODELS))}
    assert left == ELSEWHERE.keys()
    for file, test in (where.split("::") for where in ELSEWHERE.values()):
        assert f"def {test}(" in (Path(__file__).parent / file).read_text(encoding="utf-8"), test


OPTIONS = {
    name
    for command in (main, *main.commands.values())
    for parameter in command.params
    if isinstance(parameter, click.Option)
    for name in (*parameter.opts, *parameter.secondary_opts)
} | {"--help", "--version"}
EXTRAS = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_what_hints_name_exists():
    """Options, commands, recipes, passes and their options, extras, and names of torch."""
    found = hints()
    assert len(found) > 200
    for hint in found:
        text, where = hint.text, f"{hint.file}:{hint.line}: {hint.text}"
        outside = "rm " in text or "mkdir " in text or "pip " in text
        for option in [] if outside else re.findall(r"(?<![\w-])--[a-z][\w-]*", text):
            assert option in OPTIONS, where
        for command in re.findall(r"snnc ([a-z]+)\b(?= |'|$)", text):
            assert command in main.commands or f"'snnc {command}" not in text, where
        for name in re.findall(r"recipe '([\w-]+)'|--recipe ([\w-]+)", text):
            assert max(name) in recipes.names(), where
        for name, option in re.findall(r"\b([a-z]+(?:-[a-z]+)+)\.(\w+)", text):
            assert option in PASSES[name].__dataclass_fields__, where
        for extra in re.findall(r"snnc\[(\w+)\]", text):
            assert extra in EXTRAS, where
        for name in re.findall(r"\b(?:torch|nn|F)(?:\.\w+)+(?=[(,. ]|$)", text):
            *path, last = name.split(".")
            space = {"torch": torch, "nn": nn, "F": F}[path[0]]
            for part in path[1:]:
                space = getattr(space, part)
            assert hasattr(space, last), where


def test_the_shape_is_asked_for_where_it_helps_and_nowhere_else():
    """Without a shape it is all that is said of what passes with one; with one it is never said."""
    asks = {
        "type": lambda n, x, y: y.type(torch.float32),
        "area": lambda n, x, y: F.interpolate(y, size=(5, 5), mode="area"),
        "tensor_split": lambda n, x, y: torch.cat(y.tensor_split(2, 1), 1),
        "recompute": lambda n, x, y: F.interpolate(y, scale_factor=1.7, recompute_scale_factor=True),
        "movedim": lambda n, x, y: y.movedim(1, 2),
        "by kind": lambda n, x, y: torch.cat([y] if isinstance(y, Tensor) else y, 1),
    }
    for name, body in asks.items():
        found = blockers(net(body))
        assert found, name
        assert all("--input-shape" in b.hint for b in found), name
        assert blockers(net(body), SHAPE) == [], name
    for _, before, _ in FOLLOWED:
        assert not any("pass --input-shape" in b.hint for b in blockers(net(before), SHAPE))
