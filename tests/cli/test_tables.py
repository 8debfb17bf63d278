"""Tables on a terminal: however narrow, no number and no name is broken."""

import io

import pytest
from rich.console import Console

from snnc.cli import show

COLUMNS = ("layer", "total", "inherited", "look first at", "change", "what it is")
ROWS = [
    ("layer3_2_relu1", "100.0", "-0.00365", None, "calibrate-offset", "IF(T=4, theta=0.1772..2.855 (16 channels))"),
    ("relu", "7.5", "+0.0828", "layer1_0_relu1", "--T", "IF(T=4)"),
]
WORDS = {word for row in ROWS for value in row if value for word in value.split()}


def shown(width, columns=COLUMNS, rows=ROWS, **more):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, **more)
    show.table("Title", columns, rows, console)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 250])
def test_nothing_is_broken(width):
    text = shown(width)
    assert max(map(len, text.splitlines())) <= width
    assert set(text.split()) >= WORDS
    for line in text.splitlines():  # a row stays a row in every part
        if "-0.00365" in line or "calibrate-offset" in line:
            assert line.startswith("layer3_2_relu1")


def test_a_wide_terminal_gets_one_table():
    assert shown(250).count("layer3_2_relu1") == 1
    assert shown(60).count("layer3_2_relu1") > 1


def test_a_pipe_gets_one_line_for_each_row(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    console = Console(file=io.StringIO(), width=80)
    show.table("Title", COLUMNS, ROWS, console)
    lines = [line for line in console.file.getvalue().splitlines() if line.startswith(("layer3", "relu"))]
    assert [line.split() for line in lines] == [" ".join(value or "-" for value in row).split() for row in ROWS]
    monkeypatch.setenv("COLUMNS", "80")
    console = Console(file=io.StringIO())
    show.table("Title", COLUMNS, ROWS, console)
    assert max(map(len, console.file.getvalue().splitlines())) <= 80


def test_a_name_that_no_width_holds_is_folded():
    text = shown(40, ("file", "size"), [("a/" * 40, 12)])
    assert text.count("a") == text.count("/") == 40
    assert "12" in text.split()
