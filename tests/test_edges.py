"""Where things end: no space, no folder, no samples, one sample, a hundred thousand classes, one step and a thousand.

Each ends with what was asked for, or with one sentence; files are whole or as they were.
"""

import errno
import json
import os
import resource
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import snnc
from snnc.cli import main
from snnc.errors import LoadError, RecipeError, SnncError, Unsupported, WriteError
from snnc.files import atomic_write, load_model
from snnc.recipes import parse
from tests.kill_commands import COMMANDS, prepare

WRITERS = ["compile -o .snn", "compile -o .onnx", "compile -o .nir", "compile -o .pt2", "report", "compare", "tune"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare()


def run(*words, code=0):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, result.output
    if code:
        told = result.stderr.splitlines()
        assert "Traceback" not in result.stderr
        assert "Unexpected" not in result.stderr
        assert any(line.startswith("Error: ") for line in told)
    return result


# ---- nowhere to write ---------------------------------------------------------------------------


@contextmanager
def largest_file(size):
    """Files beyond a size cannot be written, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that the write fails instead
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("name", WRITERS)
def test_no_space_for_the_file(name):
    command = COMMANDS[name]
    for target in command.targets:
        if target != command.removed:
            Path(target).write_bytes(b"old")
    before = {p.name: p.read_bytes() for p in Path().iterdir()}
    with largest_file(1000), pytest.raises(AssertionError, match="cannot be written"):
        command.run()
    assert {p.name: p.read_bytes() for p in Path().iterdir()} == before


@pytest.mark.parametrize("problem", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("place", ["open", "fsync"])
def test_what_a_system_can_refuse(monkeypatch, problem, place):
    """A full disk often speaks only when the file is synchronised, a read-only one when it is opened."""

    def refuse(*_, **__):
        raise OSError(problem, os.strerror(problem))

    Path("out.txt").write_text("old")
    before = sorted(Path().iterdir())
    with monkeypatch.context() as patched:
        patched.setattr(os, place, refuse)
        with pytest.raises(WriteError, match=os.strerror(problem)), atomic_write("out.txt") as temporary:
            temporary.write_text("new")
    assert Path("out.txt").read_text() == "old"
    assert sorted(Path().iterdir()) == before


@pytest.fixture
def small(tmp_path):
    """A file system of 64 kB of its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(options, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs rights that are not there")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_and_a_read_only_one(small):
    (small / "out.snn").write_bytes(b"old")
    (small / "filling").write_bytes(bytes(60_000))
    words = ("compile", "ann.pt", "--calib", "data.npz", "--recipe", "opi", "-o", small / "out.snn")
    assert "No space left" in run(*words, code=1).stderr
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    for more in ((), ("--dry-run",)):  # told before the work
        assert "cannot be written to" in run(*words, *more, code=1).stderr
    assert sorted(p.name for p in small.iterdir()) == ["filling", "out.snn"]
    assert (small / "out.snn").read_bytes() == b"old"


def test_no_folder():
    for words in (
        ("compile", "ann.pt", "--recipe", "data-free", "-o", "none/out.snn"),
        ("compile", "ann.pt", "--recipe", "data-free", "-o", "out.snn", "--save-config", "none/run.toml"),
        ("tune", "ann.pt", "--data", "data.npz", "-o", "none/out.snn"),
        ("report", "ready.snn", "--data", "data.npz", "-o", "none/out.html"),
        ("compare", "ready.snn", "--data", "data.npz", "-o", "none/out.html"),
    ):
        assert "no folder 'none'" in run(*words, code=1).stderr
    assert not Path("out.snn").exists()


# ---- data ---------------------------------------------------------------------------------------


READERS = [
    ("compile", "ann.pt", "-o", "out.snn", "--calib"),
    ("compile", "ann.pt", "-o", "out.snn", "--max-drop", "50", "--recipes", "opi", "--calib"),
    ("tune", "ann.pt", "--epochs", "1", "-o", "out.snn", "--data"),
    ("eval", "ready.snn", "--ann", "ann.pt", "--data"),
    ("report", "ready.snn", "--ann", "ann.pt", "-o", "out.html", "--data"),
    ("explain", "ready.snn", "--ann", "ann.pt", "--data"),
    ("compare", "ready.snn", "--ann", "ann.pt", "-o", "out.html", "--data"),
    ("verify", "ready.snn", "ready.snn", "--data"),
]


@pytest.mark.parametrize(("value", "says"), [(np.nan, "NaN or inf"), (np.inf, "NaN or inf"), (None, "no samples")])
def test_data_that_cannot_be_used(value, says):
    with np.load("data.npz") as whole:
        x, y = whole["x"], whole["y"]
    x[7, 0, 1, 1] = value or 0
    np.savez("bad.npz", x=x[: None if value else 0], y=y[: None if value else 0])
    for words in READERS:
        assert says in run(*words, "bad.npz", code=1).stderr
    assert not list(Path().glob("out.*"))


def test_one_sample():
    with np.load("data.npz") as whole:
        np.savez("one.npz", x=whole["x"][:1], y=whole["y"][:1])
    for words in READERS:
        if "--max-drop" in words:
            assert "One sample cannot be both" in run(*words, "one.npz", code=1).stderr
        elif words[0] == "tune":
            assert "no variance to normalise by" in run(*words, "one.npz", code=1).stderr
            run(*words, "one.npz", "--norms", "none")
        else:
            run(*words, "one.npz")


def test_a_batch_larger_than_the_data():
    words = ("eval", "ready.snn", "--data", "data.npz", "--json", "--batch")
    few, many = (json.loads(run(*words, size).stdout) for size in (7, 10**6))
    assert few == many
    run("tune", "ann.pt", "--data", "data.npz", "--epochs", "1", "--batch", 10**6, "-o", "out.snn")
    run("compile", "ann.pt", "--calib", "data.npz", "--calib-samples", 10**6, "-o", "out.snn")
    assert snnc.load("out.snn").info["calibration_samples"] == 40


# ---- sizes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("T", [1, 1024])
def test_one_step_and_a_thousand(T):
    for out in ("out.snn", "out.onnx"):
        run("compile", "ann.pt", "--calib", "data.npz", "--recipe", "opi", "--T", T, "-o", out)
        found = json.loads(run("eval", out, "--data", "data.npz", "--limit", 8, "--json").stdout)
        assert found["T"] == T
    words = ("--ann", "ann.pt", "--data", "data.npz", "--samples", 4)
    run("report", "out.snn", *words, "-o", "out.html")
    run("explain", "out.snn", *words)


def test_a_hundred_thousand_classes():
    wide = nn.Sequential(nn.Flatten(), nn.Linear(32, 2), nn.ReLU(), nn.Linear(2, 100_000)).eval()
    torch.save(wide, "wide.pt")
    with np.load("data.npz") as whole:
        np.savez("wide.npz", x=whole["x"][:8], y=np.arange(8) * 12_345)
    for out in ("wide.snn", "wide.onnx"):
        run("compile", "wide.pt", "--calib", "wide.npz", "--recipe", "opi", "--T", 2, "--fixed-point", "-o", out)
        run("eval", out, "--data", "wide.npz")
    words = ("wide.snn", "--ann", "wide.pt", "--data", "wide.npz", "-o", "wide.html")
    run("report", *words)
    run("compare", *words)
    assert Path("wide.html").stat().st_size < 2**20


# ---- what fuzzing found -------------------------------------------------------------------------


def test_a_name_that_is_longer_than_names_can_be():
    onnx = pytest.importorskip("onnx")
    from tests.fuzz_seeds import SHAPE, net
    from tests.onnx_models import exported

    model = exported(net(), SHAPE)
    onnx.save(model, "apart.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    apart = onnx.load("apart.onnx", load_external_data=False)
    apart.graph.initializer[0].external_data[0].value = "a" * 300
    Path("apart.onnx").write_bytes(apart.SerializeToString())
    with pytest.raises(LoadError, match="are missing"):
        load_model("apart.onnx")


@pytest.mark.parametrize("option", ["name", "self", "exact", "gives"])
def test_options_that_are_none(option):
    """Names that Python itself gives a meaning to are as unknown as any other."""
    with pytest.raises(RecipeError, match="no option"):
        parse(f'base = "cos"\n[set.calibrate-offset]\n{option} = 3\n', "mine")
    if option != "name":
        with pytest.raises(RecipeError, match="no option"):
            parse(f'[[pass]]\nname = "normalize-thresholds"\n{option} = 3\n', "mine")


def test_a_length_in_an_old_file_takes_up_no_memory():
    torch.save({"weight": torch.ones(2)}, "old.pt", _use_new_zipfile_serialization=False)
    whole = Path("old.pt").read_bytes()
    at = whole.index(b"X\x06\x00\x00\x00weight")
    Path("old.pt").write_bytes(whole[:at] + b"X\xff\xff\xff\xff" + whole[at + 5 :])
    before = resource.getrlimit(resource.RLIMIT_AS)
    space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (space + 2**30, before[1]))
    try:
        with pytest.raises(LoadError, match="cannot be read") as error:
            load_model("old.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert not isinstance(error.value.__cause__, MemoryError)


def test_what_is_of_another_kind_altogether_is_a_sentence(tmp_path):
    for model in (None, "net.pt", {}, nn.ReLU):
        with pytest.raises(Unsupported, match="no network"):
            snnc.compile(model, 2)
    with pytest.raises(RecipeError, match="The recipe is 3"):
        snnc.compile(nn.ReLU(), 2, 3)
    for network in (None, nn.ReLU()):
        with pytest.raises(WriteError, match="no network that can be written"):
            snnc.save(network, tmp_path / "net.snn")
    with pytest.raises(SnncError, match="chunk is 1000"):
        snnc.compile(nn.ReLU(), 2, chunk=10**40)
