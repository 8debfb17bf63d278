"""What the tables of hints share: a network, its data, and short ways to get refused.

A row is a hint, what gets it and what the hint says to do: two functions of a compiled network and an empty folder.
"""

import gzip

import numpy as np
import torch
from torch import nn

import snnc
from snnc.data import Dataset, as_batches, labelled_batches, read
from snnc.files import load_model
from snnc.recipes import recipe

X, Y = torch.rand(12, 4, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3
IMAGES = X.reshape(12, 1, 2, 2)
NET = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).eval()


def made(**change):
    return Dataset(**{"x": X.numpy(), "y": Y.numpy(), "source": "here"} | change)


def batches(data):
    return list(as_batches(data))


def labels(y, x=X):
    return list(labelled_batches([(x, y)]))


def npz(path, **arrays):
    np.savez(path / "data.npz", **arrays)
    return read(path / "data.npz")


def compiled(which="opi", T=2, calibration=X, change=None, network=NET, **options):
    chosen = recipe(which)
    return snnc.compile(network, T, chosen.set(*change[:1], **change[1]) if change else chosen, calibration, **options)


def tomled(path, text):
    (path / "mine.toml").write_text(text)
    return recipe(path / "mine.toml")


def idx(path, content):
    (path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(content) if isinstance(content, bytes) else content)
    return read(path / "t10k-images-idx3-ubyte.gz")


BUILD = "tests.followed:build"
TWO = {"a": NET.state_dict(), "b": {k: v + 1 for k, v in NET.state_dict().items()}}
MORE = NET.state_dict() | {"head.weight": torch.ones(2)}


def build(width=5):
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))


def weights(path, content=None):
    torch.save(NET.state_dict() if content is None else content, path / "net.pt")
    return path / "net.pt"


def built(path, more="", **options):
    return load_model(path, factory=f"{BUILD}{more}", **options)
