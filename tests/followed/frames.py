"""Hints on input that changes in time, and on recordings of event cameras."""

import numpy as np
import torch
from torch import nn

import snnc
from snnc.data import Binning, read, recordings
from snnc.report.samples import gather
from tests.followed import NET, X, Y, compiled
from tests.followed.several import Names

CLIPS = torch.rand(12, 2, 4, generator=torch.Generator().manual_seed(1))
NORMED = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 5), nn.LayerNorm(5), nn.Linear(5, 3)).eval()
SOFT = nn.Sequential(*NET, nn.Softmax(1)).eval()


def over(way="mean", network=NET, **options):
    return compiled(calibration=CLIPS, network=network, frames=way, T=None, **options)


def frames(path, shape=(6, 2, 3), time_first=False, **arrays):
    np.savez(path / "data.npz", x=np.ones(shape, np.float32), **arrays)
    return read(path / "data.npz", frames=True, time_first=time_first)


def events(path, bins=None, **changed):
    """A recording of 4 events on 2 x 3 pixels."""
    whole = {"t": [0, 10, 20, 30], "x": [0, 1, 2, 0], "y": [0, 1, 0, 1], "p": [0, 1, 1, 0]}
    np.savez(path / "events.npz", **{name: np.array(one) for name, one in {**whole, **changed}.items()})
    return read(path / "events.npz", frames=True, bins=bins)


def nameless(path):
    np.savez(path / "events.npz", t=np.arange(3), y=np.zeros(3, np.int64))
    return recordings.npz(path / "events.npz")


def many(path, first, columns=4):
    np.savez(path / "events.npz", events=np.ones((4, columns), np.int64), first=np.array(first))
    return read(path / "events.npz", frames=True)


def raw(path, content, name="one.bin"):
    (path / name).write_bytes(content)
    return read(path / name, frames=True)


def busy(path, T):
    """70000 events at one pixel."""
    zero = np.zeros(70000, np.int64)
    return events(path, Binning(T), t=np.arange(70000), x=zero, y=zero, p=zero)


def flat():
    """For frames of 2 x 2 x 3."""
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3)).eval()


def stepped(frame, state):
    return over().step(frame, state)


def seen(steps):
    made = over()
    state = made.start()
    for t in range(steps):
        _, state = made.step(CLIPS[:, t % 2], state)
    return made, state


def stale(fresh):
    made, state = seen(1)
    for _, neuron in made.neurons():
        neuron.theta = neuron.theta * 2
    return made.step(CLIPS[:, 1], made.start() if fresh else state)


ROWS = [
    (
        "--time-first, if frames stand first: [T, N, ...]",
        lambda n, p: frames(p, (2, 6, 3), y=np.zeros(6, np.int64)),
        lambda n, p: frames(p, (2, 6, 3), True, y=np.zeros(6, np.int64)),
    ),
    ("store T frames for each sample, or leave --frames out", lambda n, p: frames(p, (6, 2)), lambda n, p: frames(p)),
    ("--time-first left out", lambda n, p: frames(p, (6, 2), True), lambda n, p: frames(p)),
    (
        "fewer recordings in a file, fewer frames, or --sensor HEIGHT,WIDTH if it is not that large",
        lambda n, p: events(p, Binning(2**15, sensor=(256, 256))),
        lambda n, p: events(p, Binning(8, sensor=(256, 256))),
    ),
    ("more frames, or shorter ones", lambda n, p: busy(p, 1), lambda n, p: busy(p, 2)),
    ("arrays t, x, y, p, or events", lambda n, p: nameless(p), lambda n, p: events(p)),
    ("columns and rows that count from 0", lambda n, p: events(p, x=[0, -1, 2, 0]), lambda n, p: events(p)),
    (
        "height and width, two whole numbers above 0",
        lambda n, p: events(p, size=[2.5, 3]),
        lambda n, p: events(p, size=[2, 3]),
    ),
    ("times in microseconds, of one clock", lambda n, p: events(p, t=[0, 10, 20, 2**61]), lambda n, p: events(p)),
    ("one for each recording", lambda n, p: many(p, np.zeros(0, np.int64)), lambda n, p: many(p, [0, 2])),
    (
        "time, count, time=10000 (us) or count=500 (events)",
        lambda n, p: Binning().by_rule("second"),
        lambda n, p: [Binning().by_rule(one) for one in ("time", "count", "time=10000", "count=500")],
    ),
    (
        "snnc compile --frames mean, sum or each, and its network; or frames as an array `x`",
        lambda n, p: (events(p), read(p / "events.npz")),
        lambda n, p: (
            [compiled(network=flat(), calibration=events(p), frames=way, T=8) for way in ("mean", "sum", "each")],
            frames(p),
        ),
    ),
    (
        "--sensor HEIGHT,WIDTH of the camera",
        lambda n, p: events(p, Binning(sensor=(1, 3))),
        lambda n, p: events(p, Binning(sensor=(2, 3))),
    ),
    (
        "arrays [E] of whole numbers: t in microseconds, x, y, and p 0 or 1",
        lambda n, p: events(p, t=[0.5, 1, 2, 3]),
        lambda n, p: events(p),
    ),
    ("columns t, x, y, p", lambda n, p: many(p, [0], 3), lambda n, p: many(p, [0])),
    ("one polarity an event", lambda n, p: events(p, p=[0, 1, 2, 3]), lambda n, p: events(p, p=[-1, 1, 1, -1])),
    (
        "the file as it was published, or its events as np.savez(path, t=t, x=x, y=y, p=p)",
        lambda n, p: raw(p, b"abc"),
        lambda n, p: (raw(p, bytes(5)), events(p)),
    ),
    (
        "whole numbers that rise from 0, one for each recording",
        lambda n, p: many(p, [1, 2]),
        lambda n, p: many(p, [0, 1, 2]),
    ),
    (
        "two forms of one network",
        lambda n, p: snnc.verify(n, over(), X),
        lambda n, p: snnc.verify(over(), over(), CLIPS),
    ),
    (
        "snnc eval, which compares the outputs",
        lambda n, p: snnc.explain(over("each"), NET, CLIPS),
        lambda n, p: snnc.evaluate(over("each"), (CLIPS, torch.zeros(12, dtype=torch.long)), NET),
    ),
    (
        "'mean' or 'sum' where the network was trained on the mean or the sum of a sample's frames, 'each' where it "
        "ran on each frame and its outputs were averaged",
        lambda n, p: over("first"),
        lambda n, p: [over(way) for way in ("mean", "sum", "each")],
    ),
    (
        "--frames mean, or a network of ReLUs",
        lambda n, p: over("each", NORMED, which="telescoped"),
        lambda n, p: (over("mean", NORMED, which="telescoped"), over("each")),
    ),
    (
        "the network compiled without frames",
        lambda n, p: snnc.compile(Names().eval(), 2, "opi", torch.ones(2, 2, 6, dtype=torch.int64), frames="mean"),
        lambda n, p: snnc.compile(Names().eval(), 2, "opi", torch.ones(2, 6, dtype=torch.int64)),
    ),
    ("the network up to its class scores", lambda n, p: over("each", SOFT), lambda n, p: over("each", SOFT[:-1])),
    (
        "net.stream(x), which gives its readout after each step",
        lambda n, p: n.start(),
        lambda n, p: list(n.stream(X)),
    ),
    (
        "frames of the samples that it is of",
        lambda n, p: stepped(CLIPS[:3, 0], over().start(12)),
        lambda n, p: stepped(CLIPS[:, 0], over().start(12)),
    ),
    (
        "net.start() for the next sample",
        lambda n, p: seen(3),
        lambda n, p: over().step(CLIPS[:, 0], over().start()),
    ),
    (
        "state = net.start(), then net.step(frame, state)",
        lambda n, p: stepped(CLIPS[:, 0], None),
        lambda n, p: stepped(CLIPS[:, 0], over().start()),
    ),
    ("net.start()", lambda n, p: stale(False), lambda n, p: stale(True)),
    (
        "a recipe that reads step by step: 'best', 'opi' or 'best-graded'",
        lambda n, p: over(which="cos"),
        lambda n, p: [over(which=one) for one in ("best", "opi", "best-graded")],
    ),
    (
        "the original network trained further as it is, and compiled over frames again",
        lambda n, p: snnc.tune(over(), (X, Y), NET, epochs=1),
        lambda n, p: over(),
    ),
    (
        "networks that take the same samples",
        lambda n, p: gather(X, [n, over()], NET, 4),
        lambda n, p: gather(CLIPS, [over(), over()], NET, 4),
    ),
]
