"""Hints on several inputs and outputs, on whole numbers, on folders that cannot be written to, and on integers."""

import itertools
import os
import socket
import threading
from datetime import timedelta

import onnx
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

import snnc
from snnc import processes
from snnc.cli import targets
from snnc.files import onnxfile
from snnc.recipes import recipe
from snnc.report.samples import gather
from snnc.runtime.cpu import loops, scan
from tests.followed import NET, X, Y, compiled, npz
from tests.followed.forms import Two, integers, loud, maps, net
from tests.followed.passes import tokens, tuned


class Heads(nn.Module):
    """With two outputs, or one of them."""

    def __init__(self, name=None):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.score, self.other, self.name = nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(5, 2), name

    def forward(self, x):
        y = self.body(x).relu()
        found = {"score": self.score(y), "other": self.other(y)}
        return found[self.name] if self.name else found


class Names(nn.Module):
    """Looks numbers up in a table."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.last = nn.Embedding(5, 4), nn.Linear(4, 3)

    def forward(self, names):
        return self.last(self.table(names).relu().mean(1))


def heads(name=None):
    return compiled(network=Heads(name).eval())


def named(names):
    wholes = torch.ones(2, 6, dtype=torch.int64)
    return snnc.compile(Names().eval(), 2, "opi", wholes)(names)


def places():
    """A network whose output is a value for each place."""
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Unflatten(1, (3, 2))).eval()


def guarded(how, folder):
    """What a folder without permission to write does, also where the tests run as root."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: folder != path)
        return how()


def large(path, outside):
    """An ONNX file with its weights in it or outside, where no file may have more bytes than the weights."""
    made = nn.Sequential(nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 3)).eval()
    snnc.save(snnc.compile(made, 2, "data-free", input_shape=(40,)), path / "one.onnx")
    model = onnx.load(path / "one.onnx")
    onnx.save(model, path / "net.onnx", save_as_external_data=outside, size_threshold=64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxfile, "LIMIT", (path / "one.onnx").stat().st_size - 4000)
        return onnxfile.parse_onnx(path / "net.onnx")


def both(data, which="best", **options):
    return snnc.compile(Two().eval(), 2, which, data, **options)


def turned():
    """A network that brings values of several channels together, outside of a layer."""
    return net(lambda n, x: F.avg_pool2d(x.permute(0, 2, 1, 3), 2))


def unexported(how):
    """What a version of torch does whose export does not take the network."""

    def export(*_, **__):
        raise ValueError("no")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.export, "export", export)
        return how()


class Far(Tensor):
    """A tensor that says that it is on a GPU."""

    device = property(lambda self: torch.device("cuda:0"))

    def to(self, *args):
        return self.as_subclass(Tensor).to(*args)


def bare(how):
    """What a machine does without the extra packages of the fast runtime."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (loops, scan):
            patch.setattr(module, "jit", lambda: None)
        return how()


def run_by(runtime, network):
    network.runtime = runtime
    return network(X)


def met(seconds):
    """A process that waits for another, which is slow."""
    with socket.socket() as free_port:
        free_port.bind(("127.0.0.1", 0))
        port = free_port.getsockname()[1]

    def join(wait, first):
        return dist.TCPStore("127.0.0.1", port, 2, first, timedelta(seconds=wait))

    other = threading.Timer(0.2, join, (60.0, False))
    with processes._lost():
        if seconds > 1:
            other.start()
        join(seconds, True)


def two_of(how, alike):
    """What the first of two processes does, where both have the same `alike` times."""
    times = itertools.count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "from_all", lambda one: [one, one if next(times) < alike else "other bits"])
        patch.setattr(processes, "_group", processes._Group(0, 2, None, None))
        return how()


def together(threads):
    """Two processes of some numbers of threads that join."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"is_initialized": True, "get_rank": 0, "get_world_size": 2, "new_group": None}.items():
            patch.setattr(dist, name, lambda *_, value=value, **__: value)
        patch.setattr(processes, "from_all", lambda one: [one and processes.digest(number) for number in threads])
        with processes.distributed():
            pass


def narrow(how):
    """As if floats held fewer whole numbers, so that a few steps are too many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("snnc.passes.fixed_point.LIMIT", 2**17)
        return how()


def offered(*names):
    """A search among some recipes alone, none of which was asked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("snnc.measure.search.searchable", lambda: list(names))
        snnc.search(NET, X - 2, steps=[2])


def reasons(*names):
    """What each recipe says by itself."""
    for name in names:
        with pytest.raises(snnc.SnncError, match=r"trained clip bound|data goes from"):
            compiled(name, calibration=X - 2)


def passed():
    graph = snnc.capture(NET, (4,))
    return recipe("data-free").pipeline.run(graph, snnc.Context(2, input_shape=(4,)))


def normalised(path):
    npz(path, x=X, z=X)
    return snnc.data.read(path / "data.npz", mean=(0.5,), std=(1.0,))


# The hint, what gets it, and what it says to do: functions of a compiled network and a folder.
ROWS = [
    # several outputs
    ("the one that is meant, such as --output {} (output= in Python)", lambda n, p: heads().exit(X),
     lambda n, p: heads().exit(X, output="score")),
    ("the output that is meant, --output", lambda n, p: snnc.verify(n, n, X, ann=Heads().eval()),
     lambda n, p: snnc.verify(n, n, X, ann=Heads("score").eval())),
    ("--output", lambda n, p: snnc.evaluate(heads(), (X, Y), Heads().eval(), exits=[0.9]),
     lambda n, p: snnc.evaluate(heads(), (X, Y), Heads().eval(), exits=[0.9], output="score")),
    ("--ann and no --output, to compare it with the original network",
     lambda n, p: snnc.evaluate(compiled(network=places()), (X, Y)),
     lambda n, p: snnc.evaluate(compiled(network=places()), (X, Y), places())),
    ("the one of class scores, such as --output {}", lambda n, p: snnc.search(Heads().eval(), X),
     lambda n, p: snnc.search(Heads().eval(), X, 100, recipes=["opi"], steps=[2], output="score")),
    ("the one that is meant: --output {}", lambda n, p: gather(X, [heads()], Heads().eval(), 8),
     lambda n, p: gather(X, [heads()], Heads().eval(), 8, "score")),
    ("the network without training, or a module around it with one input and one output",
     lambda n, p: tuned(start=Heads().eval()), lambda n, p: (heads(), tuned(start=Heads("score").eval()))),
    # several inputs
    ("a tuple of tensors, one each, a dictionary by these names, or an .npz with arrays of these names",
     lambda n, p: both([X]), lambda n, p: (both([((X, X), Y)]), both([{"x": X, "z": X}]),
     both(npz(p, x=X, z=X)))),
    ("np.savez(path, {}, y=labels)", lambda n, p: both(npz(p, x=X, y=Y)),
     lambda n, p: both(npz(p, x=X, z=X, y=Y))),
    ("data that are normalised already",
     lambda n, p: both(normalised(p)),
     lambda n, p: both(npz(p, x=X - 0.5, z=X - 0.5))),
    # whole numbers
    ("x.long(), whole numbers from 0", lambda n, p: named(torch.full((2, 6), 0.5)),
     lambda n, p: named(torch.full((2, 6), 0.5).long())),
    ("x.float()", lambda n, p: n(X > 0.5), lambda n, p: n((X > 0.5).float())),
    # files to write
    ("another folder, or its permissions", lambda n, p: guarded(lambda: targets.folder(p), p),
     lambda n, p: (guarded(lambda: targets.folder(p), p.parent), targets.folder(p))),
    ("another folder, or its permissions", lambda n, p: guarded(lambda: targets.target(p / "a.snn"), p),
     lambda n, p: (guarded(lambda: targets.target(p / "a.snn"), p.parent), targets.target(p / "a.snn"))),
    ("one of {}, or --backend with one file",
     lambda n, p: targets.destinations((p / "a.xyz",), None, None, None, named=True),
     lambda n, p: (targets.destinations((p / "a.onnx",), None, None, None, named=True),
     targets.destinations((p / "a.xyz",), "onnx", None, None, named=True))),
    ("its weights as external data", lambda n, p: large(p, False), lambda n, p: large(p, True)),
    # data and recipes
    ("check the data and its normalisation (--mean/--std)",
     lambda n, p: compiled(calibration=torch.cat([X, X * 3e38]), network=loud()),
     lambda n, p: compiled(calibration=torch.cat([X, X]), network=loud())),
    ("a recipe without encode-values, such as 'best'",
     lambda n, p: tuned(start=tokens(), kind="quantised", recipe="telescoped"),
     lambda n, p: tuned(start=NET, kind="quantised", recipe="best")),
    ("a recipe by name, to see why it does not",
     lambda n, p: offered("qcfs", "low-latency"),
     lambda n, p: reasons("qcfs", "low-latency")),
    # integers
    ("fewer time steps, or a recipe that streams", lambda n, p: narrow(lambda: integers(loud(), T=64, which="cos")),
     lambda n, p: (narrow(lambda: integers(loud(), T=2, which="cos")), narrow(lambda: integers(loud(), T=64)))),
    ("thresholds that all channels share (scale-thresholds.per=layer)", lambda n, p: integers(turned(), maps()),
     lambda n, p: integers(turned(), maps(), which=recipe("opi").set("scale-thresholds", per="layer"))),
    # other machines, other programs
    ("the backend torch or onnx", lambda n, p: unexported(lambda: snnc.save(n, p / "net.pt2")),
     lambda n, p: unexported(lambda: [snnc.save(n, p / form) for form in ("net.snn", "net.onnx")])),
    ("x.to('{}')", lambda n, p: n(X.as_subclass(Far)), lambda n, p: n(X.as_subclass(Far).to("cpu"))),
    ("the runtime 'auto', pip install 'snnc[fast]', or a network compiled with --fixed-point",
     lambda n, p: bare(lambda: run_by("fast", compiled())),
     lambda n, p: (bare(lambda: run_by("auto", compiled())), run_by("fast", compiled()),
     bare(lambda: run_by("fast", integers())))),
    ("{}=SECONDS, where it was only slow", lambda n, p: met(0.1), lambda n, p: met(60.0)),
    ("OMP_NUM_THREADS=1 for all", lambda n, p: together(threads=(1, 2)), lambda n, p: together(threads=(1, 1))),
    ("machines with the same kind of processor, and the same versions of snnc and torch",
     lambda n, p: two_of(passed, 1),
     lambda n, p: two_of(passed, 99)),
]  # fmt: skip
