"""The notebook runs from top to bottom, and holds no output: what it shows comes from a run."""

import json

import pytest

from tests.pages import ROOT

NOTEBOOK = json.loads((ROOT / "examples" / "first.ipynb").read_text(encoding="utf-8"))
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_it_is_a_notebook_without_outputs():
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])
    assert all(cell["outputs"] == [] for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code")


def test_every_cell_runs(tmp_path, monkeypatch, capsys):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "notebook"}
    for number, code in enumerate(CODE):
        exec(compile(code, f"cell {number}", "exec"), names)
    found = names["found"]
    assert found.accuracy[-1] > found.ann_accuracy - 5
    assert "spiking network" in capsys.readouterr().out
