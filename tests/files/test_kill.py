"""Commands that are killed while they write leave the old file or the whole new one.

A few kills of some commands here; `python benchmarks/reliability.py kill --kills 40` has many of all.
"""

from collections import Counter
from pathlib import Path

import pytest

from tests.kill_commands import COMMANDS, prepare
from tests.killing import Folder, kill_inside, kill_outside


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare()


@pytest.mark.parametrize("name", ["compile -o .onnx", "compile --save-config", "tune", "report"])
def test_killed_while_it_writes(name):
    counts, bad = kill_inside(COMMANDS[name], 6)
    assert not bad, bad[0]
    assert counts["kills"] == 6 * counts["writes"] > 0
    assert counts["old"] + counts["new"] == counts["kills"] * len(COMMANDS[name].targets)


def test_killed_at_any_time():
    counts, bad = kill_outside(COMMANDS["compile -o .snn"], 2)
    assert not bad, bad[0]
    assert counts["old"] + counts["new"] == counts["kills"] == 2


def test_half_a_file_and_a_strange_one_are_seen():
    """The harness can fail."""
    Path("out.snn").write_bytes(b"old")
    folder = Folder(COMMANDS["compile -o .snn"])
    Path("out.snn").write_bytes(b"half")
    Path("strange.snn").touch()
    folder.check("now")
    assert folder.counts == Counter({"kills": 1, "half": 1, "strange files": 1})
    assert "neither old nor whole" in folder.bad[0]
    assert Path("out.snn").read_bytes() == b"old"
