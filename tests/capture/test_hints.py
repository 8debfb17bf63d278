"""What each hint says to do is accepted: a network that gets the hint, and the same as the hint has it."""

import random
import re
import tomllib
from pathlib import Path

import click
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snnc import recipes
from snnc.capture import blockers
from snnc.cli import main
from snnc.passes import PASSES
from tests.hints import hints

SHAPE = (4, 6, 6)


class Net(nn.Module):
    """A convolution, a ReLU, and what is tried."""

    def __init__(self, body):
        super().__init__()
        self.conv, self.norm, self.body = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), body
        self.shrink, self.fc, self.time = nn.Conv2d(4, 2, 1), nn.Linear(6, 6), nn.Conv1d(4, 4, 3)
        self.lstm = nn.LSTM(6, 6, batch_first=True)

    def forward(self, x):
        return self.body(self, x, F.relu(self.conv(x)))


def into(x, part):
    x[:, :2] = part
    return x


def pieces(y):
    return torch.cat([y[:, :2] * 2, y[:, 2:]], 1)


MEAN = torch.ones(4, 1, 1) / 2
PLACES = torch.tensor([2, 1])
GRID = torch.linspace(-1, 1, 18).reshape(1, 3, 3, 2)
MATRIX = torch.ones(2, 4)
OTHER = "rewrite it with layers of torch.nn that snnc knows"
BATCH = "keep the batch as the first dimension"
# The hint, what gets it, and what it says to do. `n` is the network, `x` its input, `y` what has passed a ReLU.
FOLLOWED = [
    ("write it with nn.Linear", lambda n, x, y: torch.einsum("bchw,dw->bchd", y, n.fc.weight), lambda n, x, y: n.fc(y)),
    ("convolutions over time", lambda n, x, y: n.lstm(y.mean(3))[0], lambda n, x, y: n.time(y.mean(3))),
    ("pick outside", lambda n, x, y: y.flatten(1).argmax(1), lambda n, x, y: y.flatten(1)),
    ("return_indices=False", lambda n, x, y: F.max_pool2d(y, 2, return_indices=True)[0],
     lambda n, x, y: F.max_pool2d(y, 2)),
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
    ("such as grid.expand(x.size(0), -1, -1, -1)",
     lambda n, x, y: F.grid_sample(y, y.permute(0, 2, 3, 1)[..., :2], align_corners=True),
     lambda n, x, y: F.grid_sample(y, GRID.expand(y.size(0), -1, -1, -1), align_corners=True)),
    ("use dimension 1 or higher", lambda n, x, y: y.roll(6, 0), lambda n, x, y: y.roll(6, 1)),
    ("join them with torch.cat", lambda n, x, y: into(y, y[:, :2] * 2), lambda n, x, y: pieces(y)),
    ("x = (x - mean) / std", lambda n, x, y: F.relu(into(x, x[:, :2] - 0.5)),
     lambda n, x, y: F.relu((x - MEAN) / MEAN)),
    ("only where self.training", lambda n, x, y: y + torch.rand(1),
     lambda n, x, y: y + torch.rand(1) if n.training else y),
    ("layers of torch.nn", lambda n, x, y: torch.logcumsumexp(y, 1), lambda n, x, y: n.conv(y)),
    ("threshold(x, 0, 0)", lambda n, x, y: F.threshold(x, 0.5, 0.0), lambda n, x, y: F.threshold(x, 0, 0)),
    ("clip at a constant", lambda n, x, y: y.clamp(max=y.mean((2, 3), keepdim=True)), lambda n, x, y: y.clamp(max=2.0)),
    ("use torch.floor", lambda n, x, y: y.clamp(0, 1).mul(4).div(1, rounding_mode="trunc") / 4,
     lambda n, x, y: torch.floor(y.clamp(0, 1) * 4) / 4),
    ("scale before and after", lambda n, x, y: torch.round(y.clamp(0, 1), decimals=1),
     lambda n, x, y: torch.round(y.clamp(0, 1) * 10) / 10),
    ("floor(clamp(x / lam", lambda n, x, y: torch.round(x),
     lambda n, x, y: torch.floor(torch.clamp(x / 2, 0, 1) * 4 + 0.5) / 4 * 2),
    ("training=self.training", lambda n, x, y: F.dropout(y, 0.5),
     lambda n, x, y: F.dropout(y, 0.5, training=n.training)),
    ("the logits alone", lambda n, x, y: (y, x), lambda n, x, y: y),
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
    ("use nn.Linear", lambda n, x, y: y @ torch.ones(4, 6, 6), lambda n, x, y: n.fc(y)),
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
]  # fmt: skip


def net(body):
    torch.manual_seed(0)
    return Net(body).eval()


@pytest.mark.parametrize("case", range(len(FOLLOWED)), ids=[f"{i} {row[0]}" for i, row in enumerate(FOLLOWED)])
def test_what_a_hint_says_is_accepted(case):
    words, before, after = FOLLOWED[case]
    assert any(words in b.hint for b in blockers(net(before), SHAPE)), blockers(net(before), SHAPE)
    assert blockers(net(after), SHAPE) == []


# Hints that other tests follow, or that ask for another file, or for a bug in torch.
ELSEWHERE = """
    a comparison, such as x > 0
    a constant base above zero
    a constant exponent
    a constant mask
    a constant slope
    a mask of two dimensions
    a mask that is the same for all samples
    a mask that leaves each query something
    add_bias_kv and add_zero_attn left out
    batch_first=True, or the batch as the second dimension
    call eval() before capture
    capture the network that holds it
    clip with ReLU or clamp; where it comes last, return the values themselves
    constant weights
    divide by a constant, or outside of the network
    dropout_p = 0 in eval mode
    flatten them into one
    give both factors the batch as their first dimension
    keep samples apart
    keep the batch's letter first, in both values and the result
    leave rounding out
    letters that stand once in each value
    maps behind batch and channels
    name the dimensions
    name the dimensions, such as x.var(1)
    normalise over a sample's own dimensions
    order 1, 2 or infinity
    put constants first or last
    query, key and value of shape [B, ..., N, C], all from the input
    replace it by one that it knows, such as nn.GELU, and train again
    rewrite it with layers and functions that snnc knows
    see the list of operations in the documentation
    torch.where(condition, a, b)
    two comparisons
    two values, with every letter written out
    use nn.ELU, nn.CELU or nn.SELU
    use one of the normalisations of torch.nn, and train again
    use slices with constant bounds
    write it with matmul, nn.MultiheadAttention or nn.TransformerEncoder
    capture what comes behind it, with the vectors as input
    change buffers only where self.training is True, and call eval()
    capture the network that it was compiled from
    check its sizes: no network needs so many
    check the data (channels stand first), or --input-shape
    check the file it came from
    check the network on one sample
    compute a new value, such as x = (x - mean) / std, and leave the input as it is
    compute it before the network is built
    compute them before the network is built
    export a module that takes one tensor
    export a module with one input, and fix the others inside it
    export it again, with the version of torch that runs snnc
    export it with constant shapes and without loops
    export the network after model.eval()
    export with only the batch dynamic
    give forward one tensor
    import the float network that it was quantised from; snnc quantises itself
    keep only modules, parameters and buffers in it
    keep samples apart, and constants constant
    antialias=False
    move decisions that depend on data out of forward
    pad dimension 1 or higher
    register it as a buffer
    remove them (handle.remove()), and write what they do into forward
    samples of shape {}, or the program exported for the others
    the module that it was scripted from
    train with track_running_stats=True and call eval()
    use the plain form of the call
    write a constant
    write that operation out of place, such as F.relu(x) for x.relu_()
    write the number in its place
    write x.size(0) first
    a network of samples in a batch
    bring it to {} dimensions{}
    keep all of it in one floating-point type
    remove them (handle.remove()) before snnc runs
    run it on such a batch, and mend what it says
    see that eval() reaches every layer that forward calls, and that nothing puts one back into training mode
    torch.nn.utils.parametrize.remove_parametrizations, before its class is changed
    change buffers only where self.training is True, and export the network after model.eval()
"""


def test_every_hint_on_a_network_is_followed():
    told = {h.text for h in hints() if h.file.startswith("capture/") and "/onnx/" not in h.file}
    known = {line.strip() for line in ELSEWHERE.splitlines()}
    left = {text for text in told - known if not any(row[0] in text for row in FOLLOWED)}
    assert left == set()


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
