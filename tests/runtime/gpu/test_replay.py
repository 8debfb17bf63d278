"""Recorded runs: which shapes are recorded, what they give, and what happens where none can be recorded."""

import copy

import pytest
import torch

from snnc.errors import DataError
from snnc.ir.graph import Stage
from snnc.networks.network import Network
from snnc.runtime.gpu import replay
from snnc.runtime.gpu.replay import KEPT, MOST, ReplayRunner
from snnc.runtime.gpu.scan import GpuScan
from snnc.runtime.plan import plan
from snnc.runtime.runner import Runner
from tests.nets import sample, spiking
from tests.runtime.test_fast import T, fixed

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


class Record:
    """What CUDA does for it, without CUDA: the same run again."""

    made = 0

    def __init__(self, run, x, stream, pool):
        type(self).made += 1
        self.run, self.exit = run, run(x)

    def __call__(self, x):
        return self.run(x)


@pytest.fixture
def recorded(monkeypatch):
    monkeypatch.setattr(Record, "made", 0)
    monkeypatch.setattr(replay, "Recording", Record)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)


def runner():
    graph, shape = spiking("residual", T)
    return ReplayRunner(plan(graph, False)), Runner(graph), shape


@torch.no_grad()
def test_a_shape_is_recorded_when_it_comes_again(recorded):
    fast, reference, shape = runner()
    for batch in (2, 2, 2, 3, 2, 3):
        x = sample(shape, batch)
        assert torch.equal(fast.run(x), reference.run(x))
    assert Record.made == 2
    x = sample(shape, 2)
    for window, anytime in ((1, False), (1, True), (None, True)):
        for _ in range(2):
            assert torch.equal(fast.run(x, window, anytime), reference.run(x, window, anytime))
    assert Record.made == 5


@torch.no_grad()
def test_recordings_are_few(recorded):
    fast, reference, shape = runner()
    for batch in range(1, KEPT + 3):
        for _ in range(2):
            fast.run(sample(shape, batch))
    assert len(fast.kept) == KEPT
    assert [key[0][0] for key in fast.kept] == list(range(3, KEPT + 3))
    for _ in range(2 * MOST):
        for batch in range(1, KEPT + 2):
            x = sample(shape, batch)
            assert torch.equal(fast.run(x), reference.run(x))
    assert Record.made == MOST
    assert len(fast.kept) == KEPT


@torch.no_grad()
def test_what_a_recording_found_out_counts(recorded):
    fast, _, shape = runner()
    x = sample(shape, 2)
    for _ in range(3):
        fast.run(x)
    ((_, finite),) = fast.kept.values()
    finite["x"] = torch.tensor(False)
    with pytest.raises(DataError, match="'x' is NaN"):
        fast.run(x)


@torch.no_grad()
def test_a_recording_that_gives_something_else_is_not_taken(recorded, monkeypatch, caplog):
    fast, reference, shape = runner()
    monkeypatch.setattr(Record, "__call__", lambda self, x: self.exit)  # which nothing wrote
    for _ in range(4):
        x = sample(shape, 2)
        assert torch.equal(fast.run(x), reference.run(x))
    assert Record.made == 1
    assert [r.message for r in caplog.records] == [
        "Runs on the GPU are launched one by one: a replay gave another output."
    ]


@torch.no_grad()
def test_input_that_fails_ends_no_recording(recorded):
    fast, reference, shape = runner()
    for _ in range(3):
        with pytest.raises(RuntimeError):
            fast.run(sample((shape[0] + 1, *shape[1:]), 2))
        with pytest.raises(DataError):
            fast.run(sample(shape, 2) * torch.nan)
    for _ in range(3):
        assert torch.equal(fast.run(sample(shape, 2)), reference.run(sample(shape, 2)))
    assert Record.made == 1


@torch.no_grad()
def test_what_recordings_read_is_kept(recorded):
    """Sums of nothing behind the last neuron, of maps of several sizes."""
    graph, shape = copy.deepcopy(fixed("residual"))
    fast, reference = ReplayRunner(plan(graph, True), once=True), Runner(graph)
    for size in (8, 9, 8, 9, 8):
        x = sample((shape[0], size, size), 2)
        assert torch.equal(fast.run(x), reference.run(x))
    first, second = fast.zero.values()
    for size in (8, 9):
        fast.run(sample((shape[0], size, size), 2))
    assert [first, second] == list(fast.zero.values())
    fast.zero, fast.flags = {}, {}  # as while a run is recorded, whose memory is not for others
    fast.run(sample(shape, 3))
    assert not fast.zero


@torch.no_grad()
def test_who_looks_sees_a_run(recorded):
    fast, _, shape = runner()
    seen = []
    for _ in range(3):
        fast.run(sample(shape, 2), observe=lambda node, value, width: seen.append(node))
    assert len(seen) == 3 * len(set(seen))
    assert not Record.made


@torch.no_grad()
def test_what_cannot_be_recorded_is_launched(monkeypatch, caplog):
    def fails(*_):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(replay, "Recording", fails)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)
    fast, reference, shape = runner()
    for _ in range(4):
        x = sample(shape, 2)
        assert torch.equal(fast.run(x), reference.run(x))
    assert [r.message for r in caplog.records] == [
        "Runs on the GPU are launched one by one: operation not permitted when stream is capturing."
    ]
    with pytest.raises(DataError, match="NaN"):
        fast.run(sample(shape, 2) * torch.nan)


@needs_gpu
@pytest.mark.parametrize("integers", [False, True])
@torch.no_grad()
def test_replayed_runs_on_a_gpu(integers):
    graph, shape = copy.deepcopy(fixed("residual")) if integers else spiking("residual", T)
    stage = Stage.FIXED if integers else Stage.SPIKING
    net = Network(graph, {}, stage=stage).to("cuda")
    reference = Network(net.graph, {}, stage=stage, runtime="reference")
    fast = ReplayRunner(plan(net.graph, integers, GpuScan))
    for batch in (2, 2, 2, 3, 2, 3, 3):
        x = sample(shape, batch).cuda()
        assert torch.equal(fast.run(x), reference(x))
        assert torch.equal(net(x), reference(x))
        assert torch.equal(net.readout(x), reference.readout(x))
    assert len(fast.kept) == 2
    assert fast.left
    before = fast.run(x)
    other = fast.run(-x)
    assert not torch.equal(before, other)
    assert torch.equal(before, reference(x))  # a replay writes where the last one did, and gives a copy
    for _ in range(2):
        with pytest.raises(DataError, match="NaN"):
            fast.run(x * torch.nan)
    next(p for p in net.graph.parameters() if p.dim() == 4).data.neg_()
    assert torch.equal(net(x), reference(x))
