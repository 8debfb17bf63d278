"""Hints on commands, on files of data, on plug-ins and on processes."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import snnc
from snnc.cli import targets
from snnc.cli.work.sources import captured
from snnc.data import read
from tests.followed import NET, X, made, npz, weights
from tests.plugged import restored

MINE = "import snnc\nclass P(snnc.Pass):\n    name = 'followed-pass'\n    takes = ()\n"


def picture(path, name="a/0.png", size=(2, 2), mode="L"):
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path / name)
    return path


def text(path, name, content):
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_bytes(content)
    return path


def images(path):
    """A folder with a split of one class."""
    return picture(path / "images", "train/a/0.png")


def cifar(path, **change):
    content = {"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1]} | change
    return read(text(path, "data_batch_1", pickle.dumps(content, 2)) / "data_batch_1")


def plugged(path, name="mine_plugged", content=MINE):
    (path / "mine_plugged.py").write_text(content)
    try:
        with restored():
            return snnc.plugin(name)
    finally:
        sys.modules.pop("mine_plugged", None)


def patience(seconds):
    from snnc import processes

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(processes.TIMEOUT, seconds)
        return processes._patience()


ONE_IMAGE, ONE_LABEL = bytes([0, 0, 8, 3, *[0, 0, 0, 1] * 3, 0]), bytes([0, 0, 8, 1, 0, 0, 0, 1, 0])
# The hint, what gets it, and what it says to do: functions of a compiled network and a folder.
ROWS = [
    # files to write
    ("the name of a folder", lambda n, p: targets.folder(weights(p)), lambda n, p: targets.folder(p)),
    ("the name of a file", lambda n, p: targets.target(p), lambda n, p: targets.target(p / "net.snn")),
    ("mkdir -p {}", lambda n, p: targets.target(p / "a" / "b" / "net.snn"),
     lambda n, p: ((p / "a" / "b").mkdir(parents=True), targets.target(p / "a" / "b" / "net.snn"))),
    ("mkdir -p {}", lambda n, p: targets.folder(p / "a" / "b"), lambda n, p: ((p / "a").mkdir(),
     targets.folder(p / "a" / "b"))),
    ("another file, with -o OUT", lambda n, p: targets.target(weights(p), weights(p)),
     lambda n, p: targets.target(p / "out.snn", weights(p))),
    ("each -o with a name of its own", lambda n, p: targets.destinations((p / "a.snn", p / "a.snn"), None, None, None),
     lambda n, p: targets.destinations((p / "a.snn", p / "b.snn"), None, None, None)),
    # files of data
    ("one size for all", lambda n, p: read(picture(picture(p), "a/1.png", (3, 2))),
     lambda n, p: read(picture(picture(p), "a/1.png", (2, 2)))),
    ("remove or replace it", lambda n, p: read(text(picture(p), "a/1.png", b"hello")),
     lambda n, p: (p / "a/1.png").unlink() or read(picture(p))),
    ("an .npz file with float32 `x`", lambda n, p: read(picture(p, mode="I;16")), lambda n, p: npz(p, x=X.numpy())),
    ("the publisher's file", lambda n, p: cifar(p, data=3), lambda n, p: cifar(p)),
    ("the publisher's own file, or its binary version", lambda n, p: cifar(p, more=Path("x")), lambda n, p: (cifar(p),
     read(text(p, "test_batch.bin", bytes(3073)) / "test_batch.bin"))),
    ("MNIST-style idx images (also .gz)", lambda n, p: read(text(p, "x.dat", b"hello") / "x.dat"),
     lambda n, p: (npz(p, x=X.numpy()), read(images(p), split="train"))),
    ("the images file; its labels are found beside it",
     lambda n, p: read(text(p, "t10k-labels-idx1-ubyte", ONE_LABEL) / "t10k-labels-idx1-ubyte"),
     lambda n, p: read(text(p, "t10k-images-idx3-ubyte", ONE_IMAGE)
     / "t10k-images-idx3-ubyte")),
    ("train or test", lambda n, p: read(images(p), split="both"), lambda n, p: read(images(p), split="train")),
    ("the other split", lambda n, p: read(images(p), split="test"), lambda n, p: read(images(p), split="train")),
    ("leave --input-shape out", lambda n, p: captured(NET, made(), (5,)), lambda n, p: captured(NET, made(), None)),
    ("real values, such as x.real or x.abs()", lambda n, p: n(X.cfloat()), lambda n, p: (n(X.cfloat().real),
     n(X.cfloat().abs()))),
    # plug-ins and processes
    ("a name such as mypackage.mypasses", lambda n, p: plugged(p, "mine plugged"), lambda n, p: plugged(p)),
    ("a module that defines one", lambda n, p: plugged(p, content="import snnc"), lambda n, p: plugged(p)),
    ("seconds, such as 600", lambda n, p: patience("soon"), lambda n, p: patience("600")),
]  # fmt: skip
