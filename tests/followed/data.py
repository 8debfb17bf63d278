"""Hints on data, networks, recipes, model files and training."""

import math

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import snnc
from snnc.data import read
from snnc.files import load_model
from snnc.passes import PASSES
from snnc.recipes import recipe
from tests.followed import (
    BUILD,
    IMAGES,
    MORE,
    NET,
    TWO,
    X,
    Y,
    batches,
    built,
    compiled,
    idx,
    labels,
    made,
    npz,
    tomled,
    weights,
)  # fmt: skip


def far(value):
    """One number of the calibration data is far from the others."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        x = torch.rand(16, 4)
    x[3, 2] = value
    return snnc.compile(net, 4, "best", x, quick=True)


HEAD = bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2])
GOOD = 'name = "mine"\n[[pass]]\nname = "fold-batchnorm"\n'
# The hint, what gets it, and what it says to do: functions of a compiled network and a folder.
ROWS = [
    # data sets
    ("uint8 or float32", lambda n, p: made(x=X.numpy().astype("c8")), lambda n, p: made()),
    ("(N, C, H, W)", lambda n, p: made(x=np.float32(1)), lambda n, p: made(x=IMAGES.numpy())),
    ("give at least one", lambda n, p: made(x=X.numpy()[:0], y=None), lambda n, p: made(x=X.numpy()[:1], y=None)),
    ("in the range that the network", lambda n, p: far(3e38), lambda n, p: far(1.0)),
    ("clean the data", lambda n, p: made(x=X.numpy() * np.nan), lambda n, p: made()),
    ("255 for uint8 images, 1 for raw", lambda n, p: made(scale=0), lambda n, p: made(scale=255)),
    ("one number, or one each", lambda n, p: made(mean=(1, 2, 3)), lambda n, p: made(mean=(1,)).take(slice(2))),
    ("standard deviation per channel", lambda n, p: made(std=(0,)), lambda n, p: made(std=(1, 2, 1, 2))),
    ("a size of 1 or more", lambda n, p: list(made().batches(0)), lambda n, p: list(made().batches(1))),
    ("a limit of 1 or more", lambda n, p: made().limit(0), lambda n, p: made().limit(1)),
    ("a sample of 1 or more", lambda n, p: made().sample(0), lambda n, p: made().sample(1)),
    ("data with `y`", lambda n, p: snnc.tune(NET, X, 2, "opi", loss="labels", epochs=1, held_out=0),
     lambda n, p: snnc.tune(NET, (X, Y), 2, "opi", loss="labels", epochs=1, held_out=0, batch=6)),
    # labels
    ("labels from 0 to classes - 1", lambda n, p: snnc.evaluate(n, (X, Y + 9)), lambda n, p: snnc.evaluate(n, (X, Y))),
    ("class numbers from 0, as int64", lambda n, p: labels(list("abcdefghijkl")),
     lambda n, p: labels(Y.numpy().astype("int64"))),
    ("y.argmax(1)", lambda n, p: labels(torch.eye(3)[Y]), lambda n, p: labels(torch.eye(3)[Y].argmax(1))),
    ("one class number from 0 for each", lambda n, p: labels(torch.ones(3, 4, 2)), lambda n, p: labels(Y)),
    ('y.astype("int64")', lambda n, p: labels(Y.numpy() * 1.0), lambda n, p: labels((Y.numpy() * 1.0).astype("int64"))),
    ("or y.long() of a tensor", lambda n, p: labels(Y.float()), lambda n, p: labels(Y.float().long())),
    ("this is no classifier's label", lambda n, p: labels(Y + 0.5), lambda n, p: labels(Y)),
    ("one label per input", lambda n, p: labels(Y[:3]), lambda n, p: labels(Y)),
    ("class numbers from 0", lambda n, p: labels(Y - 1), lambda n, p: labels(Y)),
    # loaders
    ("a tensor or an array (N, ...), a DataLoader", lambda n, p: batches(3),
     lambda n, p: batches(DataLoader(TensorDataset(X, Y), 4))),
    ("tensors, (x, y) or dicts", lambda n, p: batches([3]), lambda n, p: batches([X, (X, Y), {"x": X}])),
    ("a generator runs only once", lambda n, p: batches(iter(())), lambda n, p: batches(iter([X]))),
    ("one of {}", lambda n, p: batches([{"foo": X}]), lambda n, p: batches([{"images": X}])),
    ("batches (B, C, H, W) or (B, features)", lambda n, p: batches([X[0]]), lambda n, p: batches([X])),
    ("or check its normalisation", lambda n, p: batches([X * 1e39]), lambda n, p: batches([X])),
    ("batches of the form (inputs, labels)", lambda n, p: snnc.evaluate(n, X), lambda n, p: snnc.evaluate(n, [(X, Y)])),
    ("resize or crop all samples", lambda n, p: batches([X, X[:, :2]]), lambda n, p: batches([X[:, :2], X[:, :2]])),
    # numbers
    ("x.filled(0.0)", lambda n, p: n(np.ma.array(X.numpy())), lambda n, p: n(np.ma.array(X.numpy()).filled(0.0))),
    ("x.astype('float32'), samples of one shape", lambda n, p: n(X.numpy().astype(object)),
     lambda n, p: n(X.numpy().astype(object).astype("float32"))),
    ("x.float() / 255", lambda n, p: n((X * 255).byte()), lambda n, p: n((X * 255).byte().float() / 255)),
    ("x.float() for values", lambda n, p: n(X.int()), lambda n, p: n(X.int().float())),
    # files of data
    ("np.savez(path, x=inputs, y=labels)", lambda n, p: npz(p, a=np.array(["b"])), lambda n, p: npz(p, x=X, y=Y)),
    ("plain numeric arrays", lambda n, p: npz(p, x=np.array([None])), lambda n, p: npz(p, x=X)),
    ("download it again", lambda n, p: idx(p, HEAD + bytes(2)), lambda n, p: idx(p, HEAD + bytes(4))),
    ("check the path", lambda n, p: read(p / "none.npz"), lambda n, p: npz(p, x=X)),
    # networks
    ("clean data", lambda n, p: n(X * math.nan), lambda n, p: n(X)),
    ("x[None]", lambda n, p: n(X[0]), lambda n, p: n(X[0][None])),
    ("a batch dimension in front", lambda n, p: n(X[:, :2]), lambda n, p: n(X)),
    ("at least one sample", lambda n, p: n(X[:0]), lambda n, p: n(X[:1])),
    ("1 or more, such as 256", lambda n, p: compiled(chunk=0), lambda n, p: compiled(chunk=256)),
    ("a number above 0, 1 at most, such as 0.9", lambda n, p: n.exit(X, 0), lambda n, p: n.exit(X, 0.9)),
    ("net.to('cpu'), where every network runs", lambda n, p: n.to("gpu"), lambda n, p: n.to("cpu")),
    ("the graph file (.snn) of the same network", lambda n, p: snnc.load(snnc.save(n, p / "net.onnx")).stream(X),
     lambda n, p: list(snnc.load(snnc.save(n, p / "net.snn")).stream(X))),
    ("as the network was compiled with, without --mean/--std", lambda n, p: compiled("low-latency")(X * 3 - 1),
     lambda n, p: compiled("low-latency")(X)),
    ("snnc.tune(net, data), which trains through the spikes", lambda n, p: n.requires_grad_(),
     lambda n, p: snnc.tune(n, (X, Y), loss="labels", epochs=1, held_out=0, batch=6)),
    ("the ANN that it came from", lambda n, p: snnc.compile(n, 2), lambda n, p: compiled()),
    ("what snnc.compile gave", lambda n, p: snnc.save(NET, p / "net.snn"), lambda n, p: snnc.save(n, p / "net.snn")),
    ("make the folder first", lambda n, p: snnc.save(n, p / "no" / "net.snn"),
     lambda n, p: ((p / "yes").mkdir(exist_ok=True), snnc.save(n, p / "yes" / "net.snn"))),
    ("another name", lambda n, p: snnc.save(n, p), lambda n, p: snnc.save(n, p / "net.snn")),
    # recipes and their options
    ("or calibration= in Python", lambda n, p: compiled(calibration=None), lambda n, p: compiled()),
    ("or the recipe 'data-free'", lambda n, p: compiled(calibration=None),
     lambda n, p: compiled("data-free", calibration=None)),
    ("a name such as 'best', a TOML file", lambda n, p: recipe(3), lambda n, p: recipe("best")),
    ("a recipe with {}", lambda n, p: snnc.compile(NET, 2, snnc.Pipeline((PASSES["fold-batchnorm"](),)), X),
     lambda n, p: compiled()),
    ("the form that 'snnc list' shows", lambda n, p: tomled(p, "name ="),
     lambda n, p: tomled(p, recipe("cos").to_toml())),
    ('base = "cos"', lambda n, p: tomled(p, 'name = "mine"\n'),
     lambda n, p: tomled(p, 'name = "mine"\nbase = "cos"\n')),
    ('name = "fold-batchnorm", for instance', lambda n, p: tomled(p, 'name = "mine"\n[[pass]]\n'),
     lambda n, p: tomled(p, GOOD)),
    # model files
    ("--factory pkg.mod:function, which builds it", lambda n, p: load_model(weights(p)),
     lambda n, p: built(weights(p))),
    ("drop --factory", lambda n, p: load_model(weights(p, NET), factory=BUILD),
     lambda n, p: load_model(weights(p, NET))),
    ("drop --key", lambda n, p: load_model(weights(p, NET), key="a"), lambda n, p: load_model(weights(p, NET))),
    ("--key {}, or another of these names", lambda n, p: built(weights(p, TWO)),
     lambda n, p: built(weights(p, TWO), key="a")),
    ("drop --key, or name one of these", lambda n, p: built(weights(p, TWO), key="c"),
     lambda n, p: (built(weights(p, TWO), key="a"), built(weights(p)))),
    ("--leftover, to leave them out", lambda n, p: built(weights(p, MORE)),
     lambda n, p: built(weights(p, MORE), leftover=True)),
    ("pkg.mod:function or pkg.mod:function(20)", lambda n, p: load_model(None, factory="tests"),
     lambda n, p: load_model(None, factory=BUILD)),
    ("a file, or --factory pkg.mod:function", lambda n, p: load_model(None),
     lambda n, p: load_model(None, factory=BUILD)),
    ("as pkg.mod:function(20, width=2)", lambda n, p: load_model(None, factory=f"{BUILD}(1, 2)"),
     lambda n, p: load_model(None, factory=f"{BUILD}(width=5)")),
    ("check its name and PYTHONPATH", lambda n, p: load_model(None, factory="tests.followed:no"),
     lambda n, p: load_model(None, factory=BUILD)),
    ("a --factory that builds the network of these weights", lambda n, p: built(weights(p), more="(7)"),
     lambda n, p: built(weights(p), more="(5)")),
    ("an earlier checkpoint",
     lambda n, p: built(weights(p, {k: v * math.nan for k, v in NET.state_dict().items()})),
     lambda n, p: built(weights(p))),
    ("a model file", lambda n, p: load_model(p), lambda n, p: load_model(weights(p, NET))),
    ("'snnc compile' on it", lambda n, p: snnc.load(weights(p, NET)),
     lambda n, p: snnc.compile(load_model(weights(p, NET)), 2, "opi", X)),
    # passes, search and training
    ("{} at most", lambda n, p: compiled(T=2**40), lambda n, p: compiled(T=4)),
    ("a finite number", lambda n, p: compiled(change=("scale-thresholds", {"rule": "percentile", "percent": math.nan})),
     lambda n, p: compiled(change=("scale-thresholds", {"rule": "percentile", "percent": 99.0}))),
    ("0 to 100 points, and some numbers of steps", lambda n, p: snnc.search(NET, X, 101),
     lambda n, p: snnc.search(NET, X, 100, recipes=["opi"], steps=[2])),
    ("1 or more of each", lambda n, p: snnc.search(NET, X, samples=0),
     lambda n, p: snnc.search(NET, X, 100, recipes=["opi"], steps=[2], samples=4, holdout=4)),
    ("more data", lambda n, p: snnc.search(NET, X[:1]),
     lambda n, p: snnc.search(NET, X, 100, recipes=["opi"], steps=[2])),
    ("the network that was compiled", lambda n, p: snnc.evaluate(n, (X, Y), nn.Linear(3, 3)),
     lambda n, p: snnc.evaluate(n, (X, Y), NET)),
    ("one or more", lambda n, p: snnc.compare({}, (X, Y)), lambda n, p: snnc.compare({"a": n}, (X, Y))),
    ("the network it came from", lambda n, p: snnc.tune(n, (X, Y), kind="quantised", loss="labels"),
     lambda n, p: snnc.tune(NET, (X, Y), 2, "opi", kind="quantised", epochs=1, held_out=0, batch=6)),
    ("or loss 'labels' with labelled data", lambda n, p: snnc.tune(n, (X, Y), loss="distil", epochs=1),
     lambda n, p: snnc.tune(n, (X, Y), loss="labels", epochs=1, held_out=0, batch=6)),
    ("cpu, cuda or cuda:1", lambda n, p: snnc.load(snnc.save(n, p / "net.onnx"), device="gpu"),
     lambda n, p: snnc.load(snnc.save(n, p / "net.onnx"), device="cpu")),
    ("a table [set.{}]", lambda n, p: tomled(p, 'name = "mine"\nbase = "cos"\n[set]\ncalibrate-offset = 3\n'),
     lambda n, p: tomled(p, 'name = "mine"\nbase = "cos"\n[set.calibrate-offset]\nrho = 3\n')),
    ("time steps, 1 or more, such as 8", lambda n, p: compiled(T=0), lambda n, p: compiled(T=8)),
    ("calibration samples, 1 or more, such as 512", lambda n, p: compiled(samples=0),
     lambda n, p: compiled(samples=512)),
    ("GB that the process may hold, more than 0, such as 4", lambda n, p: compiled(memory=0),
     lambda n, p: compiled(memory=4)),
    ("the sizes of one sample, without the batch", lambda n, p: compiled(input_shape=4),
     lambda n, p: compiled(input_shape=(4,))),
]  # fmt: skip
