"""How a calibration holds its values: the same bits whatever memory it may take."""

import errno
import logging
import tempfile
from collections import namedtuple

import pytest
import torch
from torch import nn

import snnc
from snnc.calibrate import holding, limit
from snnc.calibrate.coding import dense, plain, spikes
from snnc.calibrate.holding import RUN, Memory
from snnc.calibrate.sweep import Sweep
from snnc.errors import RecipeError, SnncError
from snnc.ir.dialect import Add
from snnc.ir.frames import over_frames
from snnc.ir.neurons import IF, NEURONS, BipolarIF, GradedIF, OffsetIF, ResidualMaskIF, SignedIF, WaitingIF
from snnc.memory import free, resident
from snnc.passes import CalibrateBias, FixedPoint, InsertNeurons
from snnc.passes.pipeline import Context, Pipeline, no_progress
from snnc.passes.sweeping import SweepPass
from snnc.processes import digest
from snnc.recipes import names
from tests.nets import NETS, quantized, sample

T = 4
Usage = namedtuple("Usage", "total used free")
GIGABYTE = 2**30


def bits(value):
    return value.stride(), digest(value)


# Bytes


def neuron(kind, unit, theta):
    more = {
        GradedIF: (3,),
        BipolarIF: (3, True),
        OffsetIF: (4, 1, True, 1e-3),
        WaitingIF: (1,),
        ResidualMaskIF: (2,),
    }.get(kind, ())
    made = kind(T, theta, theta / 2, *more)
    made.unit = unit
    return made


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("kind", NEURONS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_packed_spikes_are_the_spikes(kind, unit, order):
    """Of each neuron, with thresholds that are no power of two: the same bits, zeros of either sign among them."""
    generator = torch.Generator().manual_seed(0)
    one = neuron(kind, unit, torch.rand(5, 1, 1, generator=generator) + 0.1)
    current = torch.randn(T * 3, 5, 4, 3, generator=generator).contiguous(memory_format=order)
    value = dense(one(current))
    coded = spikes(value, one.height)
    assert bits(coded.value(coded.raw)) == bits(value)
    assert len(value.unique()) > 1
    several = kind in (SignedIF, GradedIF, BipolarIF)
    assert coded.raw.nbytes == (value.numel() if several else -(-value.numel() // 8))


@pytest.mark.parametrize("wrong", [0.25, 200.0, float("nan"), float("inf")])
def test_what_is_no_spike_is_not_packed(wrong):
    value = torch.tensor([0.0, 0.5, wrong])
    assert spikes(value, torch.tensor(0.5)) is None


def test_zeros_have_a_sign():
    value = torch.tensor([0.0, -0.0, 3.0, -1.5])
    coded = spikes(value, torch.tensor(1.5))
    assert bits(coded.value(coded.raw)) == bits(value)


@pytest.mark.parametrize(
    "value",
    [
        torch.arange(24.0).reshape(2, 3, 4),
        torch.arange(24.0).reshape(2, 3, 2, 2).contiguous(memory_format=torch.channels_last),
        torch.arange(24).reshape(4, 6).T,
        torch.arange(24.0).reshape(4, 6)[:, 1:3],
        torch.ones(3, 1).expand(3, 4),
        torch.zeros(0, 3),
        torch.tensor(2.5, dtype=torch.float64),
        torch.tensor([True, False]),
    ],
    ids=lambda value: f"{tuple(value.shape)}-{value.stride()}",
)
def test_a_value_keeps_its_order_in_memory(value):
    coded = plain(dense(value))
    assert bits(coded.value(coded.raw.clone())) == bits(dense(value))
    assert torch.equal(dense(value), value)


# Ways to hold a value


@pytest.fixture
def disk(monkeypatch):
    """Says how much room there is for files."""

    def full(free):
        monkeypatch.setattr(holding.shutil, "disk_usage", lambda _: Usage(free, 0, free))

    full(GIGABYTE)
    return full


def test_how_a_value_is_held_follows_from_the_room(disk):
    """Two shards of 4 samples, 8 channels and 4 steps: a kilobyte. Spikes have a bit each: 32 bytes."""
    layer, add, neurons = nn.Linear(8, 8).requires_grad_(False), Add(), IF(T, torch.tensor(0.3), torch.tensor(0.1))
    x = {i: torch.randn(T * 4, 8, generator=torch.Generator().manual_seed(i)) for i in (0, 2)}
    found = {}
    for room in (10**6, 100, 0):
        memory = Memory(room)
        fired = memory.each(neurons, x)
        current = memory.each(layer, fired)
        joined = memory.each(add, current, fired)
        found[room] = [fired, current, joined]
        assert memory.resident == sum(one.resident for one in found[room])
    assert [one.resident for one in found[10**6]] == [1024, 1024, 1024]
    assert [one.resident for one in found[100]] == [32, 0, 0]
    assert [one.resident for one in found[0]] == [0, 0, 0]
    assert [one.price for one in found[100]] == [1, 1, 2]  # packed, in a file, and computed from both
    disk(0)
    memory = Memory(0)
    fired = memory.each(neurons, x)
    current = memory.each(layer, fired)
    again = memory.each(layer, current)
    found["no files"] = [fired, current, memory.each(add, current, fired)]
    assert [one.resident for one in found["no files"]] == [32, 0, 0]
    assert current.price == 1 + RUN
    assert again.price == 1 + 2 * RUN
    assert memory.each(layer, again).resident == 1024  # a third layer would compute all before it again and again
    for values in found.values():
        for value, wanted in zip(values, found[10**6], strict=True):
            assert list(value) == [0, 2]
            assert [bits(one) for one in value.values()] == [bits(one) for one in wanted.values()]


def test_a_value_is_computed_by_the_module_that_was(disk):
    disk(0)
    layer, x = nn.Linear(3, 3).requires_grad_(False), {0: torch.ones(2, 3)}
    wanted = layer(x[0])
    value = Memory(0).each(layer, x)
    layer.weight = nn.Parameter(torch.zeros(3, 3), requires_grad=False)
    assert torch.equal(value[0], wanted)


@pytest.mark.parametrize(
    ("samples", "largest", "sizes"),
    [(100, 1000, (64, 36)), (100, 2**21, (64, 36)), (5, 2**26, (2, 2, 1)), (2, 2**26 + 1, (1, 1)), (2, 2**30, (1, 1))],
)
def test_shards_follow_from_the_network_alone(samples, largest, sizes):
    assert limit.sharded(samples, largest).sizes == sizes


def test_memory_is_shared_by_the_processes_of_a_machine(monkeypatch):
    monkeypatch.setattr(limit, "resident", lambda: 3.0)
    monkeypatch.setattr(limit, "free", lambda: 16.0)
    assert limit.allowed(None) == 11.0
    assert limit.allowed(5.0) == 5.0
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "4"), ("MASTER_ADDR", "a"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert limit.allowed(None) == 7.0


def test_a_process_knows_what_it_holds():
    before = resident()
    taken = torch.ones(2**24)  # 64 MB
    assert resident() - before > 2**25
    assert free() > 0
    del taken


# What is learnt


def sweeping(name):
    return any(isinstance(one, SweepPass) for one in snnc.recipe(name).pipeline)


@pytest.fixture
def shards(monkeypatch):
    monkeypatch.setattr(limit, "SAMPLES", 8)


@pytest.mark.parametrize("name", [name for name in names() if sweeping(name)])
def test_every_recipe_that_sweeps_learns_the_same(name, disk, shards):
    """Float networks and integers, with room for all values and without; once without a disk as well."""
    graph, shape = NETS["residual"]()
    pipeline = snnc.recipe(name).pipeline
    if not name.startswith("telescoped"):
        pipeline = pipeline.insert(FixedPoint())
    x, found = sample(shape, 20, seed=3), []
    for allowed, room in ((None, GIGABYTE), (1.0, GIGABYTE), (1.0, 0))[: 3 if name == "best" else 2]:
        disk(room)
        data = Context(T=2, calibration=[x], input_shape=shape, memory=allowed)
        states = []
        Pipeline(pipeline.passes).run(
            graph, data, callbacks=[lambda *now, states=states: states.append(digest(*now[1].state_dict().values()))]
        )
        found.append(states)
    assert all(states == found[0] for states in found)


def test_a_limit_that_cannot_be_kept_is_told(caplog):
    graph, shape = NETS["residual"]()
    with caplog.at_level(logging.WARNING):
        snnc.compile(graph, 2, "opi", sample(shape, 9), memory=0.01, quick=True)
    (line,) = [one.getMessage() for one in caplog.records if "allowed" in one.getMessage()]
    assert "Calibration takes at least " in line
    assert "and 0.01 GB are allowed" in line
    assert "9 samples at a time" in line
    for wrong in (0, -1, float("inf"), True, "4"):
        with pytest.raises(RecipeError, match="memory is "):
            snnc.compile(graph, 2, "opi", sample(shape, 9), memory=wrong)


def test_the_largest_value_is_counted_over_all_steps_once():
    """A network that ran on each frame holds the values of all of them already."""
    graph, shape = NETS["mlp"]()
    x = sample((T, *shape), 2)
    one = limit.largest_value(graph, x[:, 0], 1)
    assert limit.largest_value(graph, x[:, 0], T) == T * one
    assert limit.largest_value(over_frames(graph, T, "each"), x, T) == T * one


@pytest.mark.parametrize(("options", "told"), [({}, 1), ({"samples": 2}, 0), ({"samples": 1025}, 0)])
def test_fewer_samples_than_there_are_are_told(options, told, caplog):
    """Unless the recipe says how many: both numbers, and what takes all."""
    pipeline = Pipeline((*snnc.recipe("opi").pipeline, CalibrateBias(rounds=1, **options)))
    with caplog.at_level(logging.WARNING):
        snnc.compile(
            nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), 2, pipeline, torch.rand(1025, 3), samples=1025
        )
    lines = [one.getMessage() for one in caplog.records]
    assert lines == told * [
        "'calibrate-bias' takes 1024 of the 1025 calibration samples; --set calibrate-bias.samples=1025 takes all."
    ]


# Files


@pytest.fixture
def sweep(tmp_path, monkeypatch, disk, shards):
    """One that puts what it can into files of this test's own folder."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    graph, shape = quantized("residual")
    data = Context(T=T)
    made = Pipeline((InsertNeurons(),)).run(graph, data, snnc.Stage.QUANTIZED).graph
    return lambda limit: Sweep(made, data.reference, sample(shape, 20), limit)


def test_nothing_is_left_behind_by_an_interrupt(sweep, tmp_path):
    def visit(site):
        assert site.sweep.memory.folder == str(tmp_path)
        if sum(one.price == 1 and not one.resident for one in site.sweep.memory._live) > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(1.0).run(visit, no_progress)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told(sweep, tmp_path, monkeypatch):
    class Full:
        def seek(self, start):
            pass

        def close(self):
            pass

        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(holding.tempfile, "TemporaryFile", lambda dir: Full())
    with pytest.raises(SnncError, match=r"No space left on device\. Try: more --memory"):
        sweep(1.0).run(lambda site: None, no_progress)
    sweep(None).run(lambda site: None, no_progress)
