"""Several processes under torchrun: the bits of one process, one message for an error, and nothing lost."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import snnc
from snnc import api, processes
from snnc.calibrate.statistics import Histogram
from snnc.cli import main
from snnc.errors import ProcessError, RecipeError, WriteError
from snnc.launched import LAUNCHED
from snnc.processes import Shards, agree, dealt, digest, distributed, from_all
from tests.shared_work import SAMPLES, bits, dataset, network, work

ROOT = Path(__file__).parent.parent
ENDED = "Error: Another process of this run has ended or does not answer, so the run ends."
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def torchrun(count, module, *words):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", "-m", module]
    return [*command, *map(str, words)]


def launched(count, *words, module="snnc", cwd=None):
    command = torchrun(count, module, *words)
    return subprocess.run(command, env=ENVIRONMENT, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def alone(*words):
    done = CliRunner().invoke(main, [*map(str, words)])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network, data, and a spiking network, as files."""
    place = tmp_path_factory.mktemp("shared")
    torch.save(network(), place / "net.pt")
    data = dataset()
    np.savez(place / "data.npz", x=data.x, y=data.y)
    snnc.save(snnc.compile(network(), 4, "opi", data), place / "net.snn")
    return place


@pytest.fixture(scope="module")
def one():
    return json.loads(json.dumps(work()))


@pytest.mark.parametrize("count", [2, 4])
def test_every_process_comes_to_the_bits_of_one(count, one, tmp_path):
    done = launched(count, tmp_path, module="tests.shared_work")
    assert done.returncode == 0, done.stderr
    for number in range(count):
        found = json.loads((tmp_path / f"{number}.json").read_text())
        assert found["world"] == count
        assert found["work"] == one
        assert found["refusals"] == {
            name: f"Process 1 was given other data{more} than process 0. "
            "Try: the same command with the same files on every machine"
            for name, more in {
                "data": ", another network or other options",
                "network": ", another network or other options",
                "labels": " or another network",
                "training": ", another network or other options",
            }.items()
        }
        if number != 1:  # it waited for two seconds, and not until the other woke up
            message, seconds = found["late"]
            assert message.startswith("Another process of this run has ended or does not answer")
            assert 2 <= seconds < 5


def test_eval_prints_what_one_process_prints(folder):
    words = ("eval", folder / "net.snn", "--data", folder / "data.npz", "--ann", folder / "net.pt", "--batch", 16)
    words = (*words, "--json", "--allow", "torch.nn.modules.batchnorm:BatchNorm2d")
    done = launched(2, *words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(alone(*words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("net.pt", "--calib", "bad.npz"), "bad.npz is not an .npz file, or is cut short"),  # all processes find it
        (("--factory", "tests.shared_work:lame", "--calib", "data.npz"), "no disk"),  # one does, the others miss it
    ],
)
def test_an_error_is_told_once_and_ends_all(words, message, folder, tmp_path):
    (folder / "bad.npz").write_bytes(b"PK\x03\x04 no archive")
    out = tmp_path / "net.snn"
    done = launched(2, "compile", *words, "-o", out, cwd=folder)
    assert done.returncode != 0
    (told,) = re.findall("^Error: .*", done.stderr, re.MULTILINE)
    assert message in told
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def worker(launcher, number):
    """Process id of a rank."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    for child in children:
        if f"\0RANK={number}\0" in Path(f"/proc/{child}/environ").read_text():
            return int(child)
    raise AssertionError(children)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
def test_a_killed_worker_ends_the_run_and_loses_nothing(folder, tmp_path):
    """What was finished is in the checkpoint, and one process goes on from there to the bits of a whole run."""
    out, saved = tmp_path / "net.snn", tmp_path / "net.snn.checkpoint"
    words = ["tune", folder / "net.pt", "--data", folder / "data.npz", "--T", 2, "--shards", 2, "--batch", 16]
    words += ["--save-seconds", 0, "--recipe", "opi", "--epochs", 10, "--held-out", 0, "--out"]
    command = torchrun(2, "snnc", *words, out)
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as run:
        patience = time.monotonic() + 120
        while not saved.exists():
            assert run.poll() is None
            assert time.monotonic() < patience
            time.sleep(0.01)
        os.kill(worker(run.pid, 1), signal.SIGKILL)
        _, told = run.communicate(timeout=120)
    assert run.returncode != 0
    assert re.findall("^Error: .*", told, re.MULTILINE) == [ENDED]
    assert [path.name for path in tmp_path.iterdir()] == [saved.name]  # nothing half-written beside it
    whole = tmp_path / "whole.snn"
    alone(*words, whole)
    alone(*words, out, "--resume")
    assert bits(snnc.load(out)) == bits(snnc.load(whole))


# In one process


def test_training_is_not_lost_where_its_result_cannot_be_written(tmp_path, monkeypatch):
    """The checkpoint goes when the file is there, and not before; what it gives is what would have been written."""
    net, data, saved, out = network(), dataset(), tmp_path / "a.checkpoint", tmp_path / "net.snn"
    options = {"recipe": "opi", "epochs": 1, "held_out": 0, "checkpoint": saved, "out": out}

    def full(*_):
        raise WriteError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(api, "save", full)
        with pytest.raises(WriteError):
            snnc.tune(net, data, 2, **options)
    assert not out.exists()
    result = snnc.tune(net, data, 2, resume=True, **options)
    assert not saved.exists()
    assert bits(snnc.load(out)) == bits(result) == bits(snnc.tune(net, data, 2, **options))


def test_the_number_of_processes_is_one_where_nothing_is_shared():
    assert (processes.rank(), processes.world()) == (0, 1)
    with distributed():
        assert from_all("x") == ["x"]
        assert list(dealt(3, str)) == ["0", "1", "2"]
        agree("is never asked", object())


@pytest.mark.parametrize(("samples", "sizes"), [(1, (1,)), (64, (64,)), (65, (64, 1)), (150, (64, 64, 22))])
def test_shards_do_not_depend_on_the_processes(samples, sizes):
    shards = Shards.of(samples, 64)
    assert shards.sizes == sizes
    assert shards.samples == samples
    x = torch.arange(samples)
    assert torch.equal(torch.cat(list(shards.deal(x).values())), x)
    assert shards.total(lambda i: (shards.deal(x)[i].sum(), torch.tensor(1))) == (x.sum(), torch.tensor(len(sizes)))


@pytest.mark.parametrize(("rank", "mine"), [(0, [0, 3]), (1, [1, 4]), (2, [2]), (5, [0])])
def test_shards_are_dealt_in_turn_and_who_has_none_looks_at_the_first(rank, mine, monkeypatch):
    monkeypatch.setattr(processes, "_group", processes._Group(rank, 3 if rank < 3 else 6, None, None))
    assert Shards.of(5, 1).mine == mine


@given(st.lists(st.integers(-(2**20), 2**20), min_size=2, max_size=40), st.data())
def test_histograms_add_up_to_one_that_has_seen_all(values, data):
    """Whatever each has seen, and in whatever order: counts, range, peak and total are the same."""
    cut = data.draw(st.integers(1, len(values) - 1))
    x = torch.tensor(values, dtype=torch.float32)[:, None] / 2**10
    whole, first, second = Histogram(1), Histogram(1), Histogram(1)
    whole.update(x)
    first.update(x[:cut])
    second.update(x[cut:])
    for one, other in ((first, second), (second, first)):
        both = Histogram(1)
        both.add(one)
        both.add(other)
        assert torch.equal(both.counts, whole.counts)
        assert torch.equal(both.top, whole.top)
        assert torch.equal(both.peak, whole.peak)
        assert both.total == whole.total


def test_a_digest_sees_a_bit_a_shape_and_a_type():
    x = torch.tensor([[0.0, 1.0]])
    others = [-x, x[0], x.double(), x.numpy(), torch.tensor([[0.0, torch.nextafter(torch.tensor(1.0), x[0, 0])]])]
    assert len({digest(x), *map(digest, others)}) == len(others) + 1
    assert digest(x, "a") == digest(x.clone(), "a") != digest(x, "b")


@pytest.mark.parametrize("text", ["soon", "0", "-1", "inf", "nan"])
def test_a_wrong_patience_is_refused(text, monkeypatch):
    monkeypatch.setattr(processes, "launched", lambda: True)
    monkeypatch.setenv(processes.TIMEOUT, text)
    with pytest.raises(ProcessError, match=f"{processes.TIMEOUT} is '{text}'"), distributed():
        pass


def test_a_command_that_runs_in_one_process_says_so(monkeypatch):
    for name in LAUNCHED:
        monkeypatch.setenv(name, "2" if name == "WORLD_SIZE" else "0")
    done = CliRunner().invoke(main, ["list", "passes"])
    assert done.exit_code == 2
    assert "'snnc list' runs in one process" in done.stderr


def test_one_shard_is_the_batch_and_more_are_another_training():
    net, data = network(), dataset()
    options = {"epochs": 1, "batch": 50, "held_out": 0, "recipe": "opi"}
    first, again = (snnc.tune(net, data, 2, **options) for _ in range(2))
    parts = snnc.tune(net, data, 2, shards=3, **options)
    assert bits(first) == bits(again) != bits(parts)
    with pytest.raises(RecipeError, match="'shards' of 'tune' is 51"):
        snnc.tune(net, data, 2, shards=51, **options)
    with pytest.raises(RecipeError, match=f"a batch has {SAMPLES} samples"):
        snnc.tune(net, data, 2, shards=SAMPLES + 1, batch=1000, epochs=1, held_out=0)


def test_without_norms_shards_give_the_gradient_of_the_batch():
    """Weights after one step of SGD, from three shards of unlike sizes and from the whole batch."""
    net, data = network(), dataset()
    options = {"epochs": 1, "batch": SAMPLES, "held_out": 0, "norms": "none", "optimiser": "sgd", "crop": 0}
    whole, parts = (snnc.tune(net, data, 2, "opi", shards=n, **options).state_dict() for n in (1, 4))
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-6)
