"""Recordings of event cameras: what each form of file holds, and which frame each event falls into."""

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import snnc
from snnc.data import Binning, PreparationWarning, read
from snnc.data.recordings import READERS
from snnc.errors import DataError

HERE = Path(__file__).parent
T = np.array([5, 0, 10, 20, 39, 40])  # not in order: a file need not be
X, Y, P = np.array([1, 0, 2, 0, 1, 2]), np.array([0, 0, 1, 1, 1, 0]), np.array([1, 0, 1, 0, 0, 1])


def saved(path: Path, **more) -> Path:
    np.savez(path / "one.npz", **{"t": T, "x": X, "y": Y, "p": P, **more})
    return path / "one.npz"


def frame_of(path: Path, bins: Binning) -> list[int | None]:
    """The frame of each event, by the pixels, of which no two share one."""
    x = read(path, frames=True, bins=bins).x[0]
    return [next((t for t in range(len(x)) if x[t, p, b, a]), None) for a, b, p in zip(X, Y, P, strict=True)]


@pytest.mark.parametrize(
    ("rule", "frames"),
    [
        ("time", [0, 0, 1, 2, 3, 3]),  # 40 us in four parts; the last event closes the last
        ("time=20", [0, 0, 0, 1, 1, 2]),
        ("time=10", [0, 0, 1, 2, 3, None]),
        ("count", [0, 0, 1, 2, 2, 3]),  # by rank: 6 events in four parts
        ("count=2", [0, 0, 1, 1, 2, 2]),
        ("count=1", [1, 0, 2, 3, None, None]),
    ],
)
def test_binning(rule, frames, tmp_path):
    assert frame_of(saved(tmp_path), Binning(4).by_rule(rule)) == frames


def test_a_recording_is_counts_by_polarity(tmp_path):
    data = read(saved(tmp_path, size=np.array([3, 4])), frames=True, bins=Binning(2))
    assert (data.x.shape, data.x.dtype, data.input_shape) == ((1, 2, 2, 3, 4), np.uint16, (2, 2, 3, 4))
    assert data.x.sum() == 6
    assert data.frame_shape == (2, 3, 4)
    assert data.source.endswith("(1 recording, 6 events; 2 frames of 3 x 4 pixels by time, equal parts)")
    x, y = next(data.batches(1))
    assert torch.equal(x, torch.from_numpy(data.x.astype(np.float32)))
    assert y is None
    left = read(saved(tmp_path), frames=True, bins=Binning(2, "time", 20))
    assert left.source.endswith("16.7 % of the events after the last frame")


def test_many_recordings_and_folders(tmp_path):
    rows = np.stack([T, X, Y, P], 1)
    np.savez(tmp_path / "all.npz", events=np.concatenate([rows, rows[:0], rows[:2]]), first=[0, 6, 6], y=[2, 0, 1])
    data = read(tmp_path / "all.npz", frames=True, bins=Binning(4))
    assert data.x.sum((1, 2, 3, 4)).tolist() == [6, 0, 2]
    assert data.y.tolist() == [2, 0, 1]
    for split, label in (("train", "b"), ("test", "a"), ("test", "b")):
        (tmp_path / "set" / split / label).mkdir(parents=True)
        saved(tmp_path / "set" / split / label)
    data = read(tmp_path / "set", frames=True)
    assert (len(data), data.y.tolist()) == (2, [0, 1])
    assert read(tmp_path / "set", frames=True, split="train").y.tolist() == [1]  # a class is missing, not moved


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"t": T + 2**62 * (T == 40)}, "a recording is"),
        ({"t": np.where(T == 40, np.inf, T)}, "`t` has shape"),
        ({"t": np.where(T == 40, 1e30, T)}, "`t` has shape"),
        ({"t": np.uint64(2**63) + T.astype(np.uint64)}, "`t` has shape"),
        ({"x": X - 1}, "count from 0"),
        ({"x": X * 10**9}, "too many at once.*--sensor"),
        ({"p": P - 1 + 2 * (T == 0)}, "neither 0 and 1 nor -1 and 1"),
        ({"size": [3.5, 4]}, "`size` is"),
        ({"size": [-3, -4]}, "`size` is"),
        ({"size": [3]}, "`size` is"),
        ({"size": ["a", "b"]}, "`size` is"),
    ],
)
def test_what_is_no_recording_is_refused(changed, why, tmp_path):
    with pytest.raises(DataError, match=f"one.npz.*{why}"):
        read(saved(tmp_path, **changed), frames=True)


def test_archives_that_hold_something_else_are_refused(tmp_path):
    np.savez(tmp_path / "frames.npz", x=np.zeros((2, 3, 4)))
    with pytest.raises(DataError, match="it has no array `t`"):
        read(tmp_path, frames=True)
    with zipfile.ZipFile(tmp_path / "frames.npz", "w") as archive:
        for name in "txyp":
            archive.writestr(name, b"text")
    with pytest.raises(DataError, match="members that are no arrays"):
        read(tmp_path / "frames.npz", frames=True)
    for rule in ("count=" + "9" * 20, "time=0", "time="):
        with pytest.raises(DataError, match="no way to bin events"):
            Binning().by_rule(rule)


def test_mean_and_std_are_of_polarities(tmp_path):
    data = read(saved(tmp_path), frames=True, bins=Binning(2), mean=(1, 0), std=(2, 4))
    x, _ = next(data.batches(1))
    assert torch.equal(x[:, :, 0], (torch.from_numpy(data.x[:, :, 0].astype(np.float32)) - 1) / 2)
    with pytest.raises(DataError, match="does not fit 2 channels"):
        read(saved(tmp_path), frames=True, bins=Binning(2), mean=(1, 0, 0))


def test_n_mnist(tmp_path):
    """Column, row, polarity and 23 bits of time; row 240 marks 2^13 us, by which all that follows is later."""
    rows = [(3, 4, 1, 70000), (5, 6, 0, 70010), (0, 240, 0, 0), (33, 33, 1, 70020)]
    content = b"".join(bytes([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255]) for x, y, p, t in rows)
    (tmp_path / "one.bin").write_bytes(content)
    ((one,), y) = READERS[".bin"](tmp_path / "one.bin")
    assert y is None
    assert one.t.tolist() == [70000, 70010, 70020 + 2**13]
    assert (one.x.tolist(), one.y.tolist(), one.p.tolist()) == ([3, 5, 33], [4, 6, 33], [1, 0, 1])
    assert read(tmp_path / "one.bin", frames=True).x.shape == (1, 8, 2, 34, 34)


def test_aedat_3(tmp_path):
    """Packets of polarity events among others; an event that is not valid does not count."""
    head = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n"
    words = [(x << 17 | y << 2 | p << 1 | 1, t) for t, x, y, p in zip(T, X, Y, P, strict=True)]
    words[0] = (words[0][0] & ~1, words[0][1])
    events = b"".join(struct.pack("<II", *(int(one) for one in pair)) for pair in words)
    special = struct.pack("<HHIIIIII", 0, 0, 8, 4, 0, 1, 1, 1) + bytes(8)
    late = struct.pack("<HHIIIIII", 1, 0, 8, 4, 1, 1, 1, 1) + struct.pack("<II", 1, 7)
    whole = head + special + struct.pack("<HHIIIIII", 1, 0, 8, 4, 0, 6, 6, 5) + events + late
    (tmp_path / "one.aedat").write_bytes(whole)
    ((one,), _) = READERS[".aedat"](tmp_path / "one.aedat")
    assert one.t.tolist() == [*T[1:].tolist(), 2**31 + 7]
    assert (one.x.tolist(), one.y.tolist(), one.p.tolist()) == ([*X[1:], 0], [*Y[1:], 0], [*P[1:], 0])
    for content in (whole[:-1], whole[:60], head[:20], b"#!AER-DAT2.0\r\n"):
        (tmp_path / "one.aedat").write_bytes(content)
        with pytest.raises(DataError):
            READERS[".aedat"](tmp_path / "one.aedat")


def test_aedat_4(tmp_path):
    """A file that dv-processing wrote: 20 events on 6 x 4 pixels, one each 10 us."""
    pytest.importorskip("aedat")
    ((one,), _) = READERS[".aedat4"](HERE / "events.aedat4")
    assert one.sensor == (4, 6)
    assert one.t.tolist() == [1000 + 10 * i for i in range(20)]
    assert one.x.tolist() == [i % 6 for i in range(20)]
    assert one.p.tolist() == [int(i % 3 == 0) for i in range(20)]
    (tmp_path / "cut.aedat4").write_bytes((HERE / "events.aedat4").read_bytes()[:700])
    with pytest.raises(DataError, match="damaged or cut short"):
        READERS[".aedat4"](tmp_path / "cut.aedat4")


def test_the_choice_is_kept_and_another_is_noticed(tmp_path):
    """The file says how events were binned; other bins at a measurement are told."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    rows = np.stack([T, X, Y, P], 1)
    np.savez(tmp_path / "all.npz", events=np.concatenate([rows] * 12), first=np.arange(12) * 6, y=np.arange(12) % 3)
    data = read(tmp_path / "all.npz", frames=True, bins=Binning(4))
    made = snnc.compile(net, None, "opi", data, frames="sum")
    again = snnc.load(snnc.save(made, tmp_path / "net.snn"))
    binning = again.info["calibration"]["binning"]
    assert Binning.of(binning) == Binning(4, "time", None, (2, 3))
    assert not any("binned" in note for note in snnc.evaluate(again, data).notes)
    other = read(tmp_path / "all.npz", frames=True, bins=Binning(4).by_rule("count=2"))
    with pytest.warns(PreparationWarning, match=r"binned to 4 frames .* by time.*--bins time"):
        assert any("by count, 2 events each" in note for note in snnc.evaluate(again, other).notes)
    again.info["calibration"]["binning"] = {**binning, "by": "count", "sensor": None}  # as a file of others may say
    with pytest.warns(PreparationWarning, match=r"pass --bins count, or nothing"):
        snnc.evaluate(again, data)
    for broken in (None, {}, {"by": "time", "T": 0}, {"by": "time", "T": 4, "size": "x"}, {"by": "x", "T": 4}):
        assert Binning.of(broken) is None
