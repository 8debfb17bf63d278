"""Hints about recordings of others, conformance vectors and readers."""

import functools
from dataclasses import replace

import nir
import numpy as np
import torch
from click.testing import CliRunner

import snnc
from snnc.backends import NirFile
from snnc.backends.nir.data import read_nirdata, write_nirdata
from snnc.cli import main
from snnc.differences import against, record
from snnc.errors import SnncError
from snnc.files.vectors import read_vectors, write_vectors
from snnc.readers.foreign import library, opened, require_fit
from tests.backends.nir.test_nir import build
from tests.backends.nir.test_reading import FLAT, HIGH, INPUT, LIF, OUTPUT, graph, neurons
from tests.backends.nir.test_targets import Mean
from tests.followed import NET, X
from tests.followed.files import NIR as HDF5
from tests.followed.files import texted
from tests.followed.several import heads
from tests.readers.plain import Plain


@functools.cache
def vectors():
    return record(snnc.compile(NET, 2, "opi", X), X)


def given(net, **change):
    return against(net, replace(vectors(), **change))


def stepped(net, factors):
    """A recording whose input is told for each of two steps."""
    return given(net, input=np.stack([vectors().input * one for one in factors], 1), stepped=True)


def archive(path, **arrays):
    np.savez(path / "v.npz", **arrays)
    return read_vectors(path / "v.npz")


def nothing(path, name):
    (path / name).write_text("nothing")
    return path / name


def command(*words):
    torch.save(NET, "net.pt")
    found = CliRunner().invoke(main, ["compile", "net.pt", *words])
    if found.exit_code:
        raise SnncError("", found.stderr)


def foreign_file(path):
    affine = nir.Affine(np.eye(2, dtype="float32"), np.zeros(2, "float32"))
    nir.write(path / "theirs.nir", nir.NIRGraph.from_list(affine))
    return path / "theirs.nir"


def own_file(net, path, target="nir"):
    return snnc.save(net, path / "net.nir", NirFile(target))


def suited(path, target):
    """Whether Sinabs can run a file with a pool, which was written for a target."""
    net = snnc.Network(build(Mean(), 3, 8, 8), {"input_shape": [3, 8, 8]})
    require_fit(opened(own_file(net, path, target)), path / "net.nir", "sinabs")


def nirs(path, edges=(), **nodes):
    """A network from a NIR file of others: its input, the nodes given, and its output."""
    nir.write(path / "theirs.nir", graph({"input": INPUT, **nodes, "output": OUTPUT}, *edges))
    return snnc.load(path / "theirs.nir")


def two_inputs(path):
    ends = (("input", "a"), ("other", "a"), ("a", "output"))
    return nirs(path, ends, other=INPUT, a=neurons(3))


def uneven(path, theta):
    ends = {"input": nir.Input(np.array([2, 2])), "output": nir.Output(np.array([2, 2]))}
    nir.write(path / "theirs.nir", graph({"input": ends["input"], "a": neurons(2, 2, theta=theta), **ends}))
    return snnc.load(path / "theirs.nir")


def flattened(path, start):
    flat = nir.Flatten({"input": np.array([1, 1, 3])}, start, -1)
    ends = {"input": nir.Input(np.array([1, 1, 3])), "flat": flat, "a": neurons(*(3,) if start == 0 else (1, 3))}
    nir.write(path / "theirs.nir", graph({**ends, "output": OUTPUT}))
    return snnc.load(path / "theirs.nir")


def wide(path, rank):
    weight = np.ones((3, 3) if rank == 2 else (1, 3, 3), "float32")
    return nirs(path, fc=nir.Linear(weight), a=neurons(3))


LOOP = (("input", "a"), ("a", "fc"), ("fc", "a"), ("a", "output"))
CHAIN = (("input", "fc"), ("fc", "a"), ("a", "output"))
SPIKES = {"input": np.zeros((2, 3)), "spikes/a": np.zeros((4, 2, 5))}
ROWS = [
    ("these layers: ", lambda n, p: given(n, spikes={}), lambda n, p: given(n)),
    ("that shape, or ", lambda n, p: given(n, spikes={k: v[:1] for k, v in vectors().spikes.items()}),
     lambda n, p: given(n, spikes={k: v.reshape(*v.shape[:2], -1) for k, v in vectors().spikes.items()})),
    ("an output of that shape, or none", lambda n, p: given(n, output=vectors().output[:1]),
     lambda n, p: given(n, output=None)),
    ("a recording of the same input at every step, or a network over frames", lambda n, p: stepped(n, np.arange(2)),
     lambda n, p: stepped(n, np.ones(2))),
    ("snnc.verify(a, recording)", lambda n, p: snnc.verify(n, vectors(), X), lambda n, p: snnc.verify(n, vectors())),
    ("data=, a tensor or a loader", lambda n, p: snnc.verify(n, n), lambda n, p: snnc.verify(n, n, X)),
    ("1 for a spike, else 0", lambda n, p: archive(p, **SPIKES | {"spikes/a": np.full((4, 2, 5), 2)}),
     lambda n, p: archive(p, **SPIKES | {"spikes/a": np.ones((4, 2, 5))})),
    ("[T, N, ...], the steps first", lambda n, p: archive(p, **SPIKES | {"spikes/a": np.zeros((3, 4, 5))}),
     lambda n, p: archive(p, **SPIKES)),
    ("a file of np.savez", lambda n, p: read_vectors(nothing(p, "v.npz")), lambda n, p: archive(p, **SPIKES)),
    ("samples, one or more", lambda n, p: archive(p, **SPIKES | {"input": np.zeros((0, 4))}),
     lambda n, p: archive(p, **SPIKES)),
    ("the arrays 'input' and '", lambda n, p: archive(p, x=np.zeros(3)), lambda n, p: archive(p, **SPIKES)),
    ("a node 'input' with values, and nodes with spikes", lambda n, p: read_nirdata(nothing(p, "v.h5")),
     lambda n, p: read_nirdata(write_nirdata(p / "w.h5", vectors()))),
    ("it without --vectors", lambda n, p: record(heads(), X),
     lambda n, p: write_vectors(p / "v.npz", vectors())),
    ("--input-shape or --calib DATA", lambda n, p: command("--recipe", "data-free", "-o", "n.snn", "--vectors", "2"),
     lambda n, p: command("--recipe", "data-free", "-o", "n.snn", "--vectors", "2", "--input-shape", "4")),
    ("the name of a NIR file that is there", lambda n, p: opened(p / "net.nir"), lambda n, p: opened(own_file(n, p))),
    ("a file that snnc wrote", lambda n, p: opened(nothing(p, "net.nir")), lambda n, p: opened(own_file(n, p))),
    ("the simulator's own importer", lambda n, p: opened(foreign_file(p)), lambda n, p: nir.read(foreign_file(p))),
    ("written with --target for this simulator", lambda n, p: opened(own_file(n, p, "snn-mlir")),
     lambda n, p: opened(own_file(n, p, "snntorch"))),
    ("the network written with --target {}, which says what to change", lambda n, p: suited(p, "nir"),
     lambda n, p: suited(p, "sinabs")),
    ("samples of its shape", lambda n, p: Plain(own_file(n, p))(X[:, :2]), lambda n, p: Plain(own_file(n, p))(X)),
    # NIR files of others
    ("a file that nir.read takes", lambda n, p: snnc.load(texted(p, HDF5, "net.nir")),
     lambda n, p: snnc.load(own_file(n, p))),
    ("one of Affine, Linear, ", lambda n, p: nirs(p, a=LIF), lambda n, p: nirs(p, a=neurons(3))),
    ("a matrix [out, in]", lambda n, p: wide(p, 3), lambda n, p: wide(p, 2)),
    ("a network of neurons", lambda n, p: nirs(p, fc=FLAT), lambda n, p: nirs(p, fc=FLAT, a=neurons(3))),
    ("a network without recurrence", lambda n, p: nirs(p, LOOP, fc=FLAT, a=neurons(3)),
     lambda n, p: nirs(p, CHAIN, fc=FLAT, a=neurons(3))),
    ("all of it, start_dim = 0 and end_dim = -1", lambda n, p: flattened(p, 1), lambda n, p: flattened(p, 0)),
    ("an edge into it", lambda n, p: nirs(p, CHAIN[1:], fc=FLAT, a=neurons(3)),
     lambda n, p: nirs(p, CHAIN, fc=FLAT, a=neurons(3))),
    ("one number a channel", lambda n, p: uneven(p, np.array([[1.0, 2.0], [1.0, 1.0]])),
     lambda n, p: uneven(p, np.array([[1.0], [2.0]]))),
    ("one Input", lambda n, p: two_inputs(p), lambda n, p: nirs(p, a=neurons(3))),
    ("one {}", lambda n, p: two_inputs(p), lambda n, p: nirs(p, a=neurons(3))),
    ("thresholds above 0", lambda n, p: nirs(p, a=neurons(3, theta=0)), lambda n, p: nirs(p, a=neurons(3))),
    ("v_reset = 0", lambda n, p: nirs(p, a=HIGH), lambda n, p: nirs(p, a=neurons(3))),
    ("pip install {}", lambda n, p: library("no_such_simulator", "nirtorch"), lambda n, p: library("nir", "nir")),
]  # fmt: skip
