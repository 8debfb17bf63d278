"""Every reader on changed files: refused in one line or read, and nothing else happens.

A few changes of each here; `python benchmarks/reliability.py fuzz --mutations 2000` tries many.
"""

import os
import signal
import subprocess
from dataclasses import replace

import pytest
import torch

from snnc.errors import LoadError
from tests import fuzz_worker
from tests.fuzz_mutations import mutate
from tests.fuzz_seeds import Seed, seeds
from tests.fuzz_worker import GOOD, fuzz


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return seeds(tmp_path_factory.mktemp("seeds"))


def test_the_seeds_are_sound(sound, tmp_path):
    for seed in sound:
        folder = tmp_path / seed.name
        folder.mkdir()
        for name, content in {**seed.beside, seed.file: seed.content}.items():
            (folder / name).write_bytes(content)
        seed.read(folder / seed.file)


def test_changes_can_be_made_again(sound):
    for seed in sound:
        changed = [mutate(seed.content, seed.form, f"{seed.name}/{number}") for number in range(20)]
        assert changed == [mutate(seed.content, seed.form, f"{seed.name}/{number}") for number in range(20)]
        assert len(set(changed)) > 10


def test_changed_files_are_refused_or_read(sound):
    for seed in sound:
        tally = fuzz(seed, 24 // seed.cost**2)
        assert not tally.bad, tally.bad[0]
        assert set(tally.counts) <= set(GOOD)
        assert tally.counts.total() == 24 // seed.cost**2


@pytest.mark.parametrize(("name", "number"), [("CIFAR python", 560), ("image folder, png", 357)])
def test_what_took_up_memory(sound, tmp_path, name, number):
    """Lengths that the file does not bear out, in a pickle and for another of pillow's decoders."""
    seed = next(one for one in sound if one.name == name)
    [(_, end, what)] = fuzz_worker._worker(seed, range(number, number + 1), tmp_path)  # under its limit of memory
    assert end == "refused", what


def _wrong(path):
    raise ValueError("not ours")


def _two_lines(path):
    raise LoadError("one\ntwo")


def _abort(path):
    os.kill(os.getpid(), signal.SIGKILL)


def _spawn(path):
    subprocess.run(["true"], check=False)


def _leave(path):
    (path.parent / "more").touch()


def _much(path):
    return len(bytearray(2**29))


def _too_much(path):
    return torch.zeros(2**40)


@pytest.mark.parametrize(
    ("read", "end"),
    [
        (_wrong, "leaked"),
        (_two_lines, "leaked"),
        (_abort, "crashed"),
        (_spawn, "ran"),
        (_leave, "wrote"),
        (_much, "memory"),
        (_too_much, "memory"),
    ],
)
def test_what_must_not_happen_is_seen(sound, read, end):
    tally = fuzz(replace(sound[0], read=read), 2)
    assert tally.counts == {end: 2}


def test_a_reader_without_an_end_is_seen(sound, monkeypatch):
    def forever(path):
        while True:
            pass

    monkeypatch.setattr("tests.fuzz_worker.SECONDS", 1)
    assert fuzz(Seed("any", "any", b"x", forever), 1).counts == {"hung": 1}
