"""Several networks beside each other: one table and one picture, of the same samples."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import snnc
from snnc import api
from snnc.cli import main
from snnc.errors import DataError, RecipeError
from snnc.measure.evaluate import CONFIDENCES, evaluate
from snnc.report.compare import COLUMNS
from tests.report.test_report import SCRIPT, Seen


@pytest.fixture(scope="module")
def made():
    torch.manual_seed(0)
    ann = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = ann(x).argmax(1)
    nets = {name: snnc.compile(ann, T=4, recipe=name, calibration=x) for name in ("opi", "asg")}
    return ann, nets, x, y


def test_the_rows_are_what_evaluate_says(made):
    ann, nets, x, y = made
    found = snnc.compare(nets, (x, y), ann)
    assert [row.name for row in found.rows] == ["opi", "asg"]
    for row in found.rows:
        assert row.evaluation == evaluate(nets[row.name], (x, y), ann, exits=CONFIDENCES)
        assert (row.early.confidence, row.early) == (0.9, row.evaluation.exits[CONFIDENCES.index(0.9)])
        assert row.interval[0] <= row.evaluation.accuracy[-1] <= row.interval[1]
        assert 0 < row.rate <= 100
        assert row.energy > 0
    assert found.ann_accuracy == 100


def test_time_is_latency(made):
    ann, nets, x, y = made
    streaming, synchronous = snnc.compare(nets, (x, y), ann).rows
    assert [(t, late) for t, late, *_ in streaming.by_step()] == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert [(t, late) for t, late, *_ in synchronous.by_step()] == [(1, 5), (2, 6), (3, 7), (4, 8)]  # two layers


def test_csv_has_a_line_for_each_network_and_step(made):
    ann, nets, x, y = made
    found = snnc.compare({"a, b": nets["opi"], "c": nets["asg"]}, (x, y), ann)
    header, *lines = csv.reader(io.StringIO(found.to_csv()))
    assert tuple(header) == COLUMNS
    assert [(line[0], line[4]) for line in lines] == [(name, str(t)) for name in ("a, b", "c") for t in range(1, 5)]
    assert [float(line[6]) for line in lines[:4]] == found.rows[0].evaluation.accuracy


def test_the_page_is_whole_and_escaped(made, tmp_path):
    ann, nets, x, y = made
    snnc.compare({SCRIPT: nets["opi"], "b": nets["asg"]}, (x, y), ann, tmp_path / "page.html", command=SCRIPT)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    seen = Seen(page)
    assert "script" not in seen.tags
    assert seen.links == []
    assert "&lt;script&gt;" in page


def test_without_labels_and_without_a_graph(made, tmp_path):
    ann, nets, x, y = made
    api.save(nets["opi"], tmp_path / "net.pt2")
    portable = api.load(tmp_path / "net.pt2")
    found = snnc.compare({"file": nets["opi"], "program": portable}, x, ann)
    graph, program = found.rows
    assert found.measure == "agreement with the ANN"
    assert graph.evaluation.accuracy == program.evaluation.accuracy
    assert program.rate is None
    assert program.energy is None
    assert Seen(found.to_html()).links == []
    with pytest.raises(DataError, match="Neither labels nor an ANN"):
        snnc.compare(nets, x)
    with pytest.raises(RecipeError, match="no network"):
        snnc.compare({}, (x, y))


def test_early_exits_stand_in_the_picture_and_the_table(made):
    """Where there is a confidence, and a step to save."""
    ann, nets, x, y = made
    sure = "early exit: accuracy at mean steps"
    page = snnc.compare(nets, (x, y), ann).to_html()
    assert page.count("dotted") > page.count(sure) > 0
    short = snnc.compile(ann, T=1, recipe="opi", calibration=x)
    (row,) = snnc.compare({"a": short}, (x, y), ann).rows
    assert (row.early, row.by_confidence()) == (None, [])
    assert sure not in snnc.compare({"a": short}, (x, y), ann).to_html()
    single = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1)).eval()
    net = snnc.compile(single, T=4, recipe="opi", calibration=x)
    assert not snnc.report(net, (x, torch.zeros(20, dtype=torch.long)), single).evaluation.exits


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ann, nets, x, y = made
    torch.save(ann, "ann.pt")
    for name, net in nets.items():
        api.save(net, f"{name}.snn")
    np.savez("data.npz", x=x.numpy(), y=y.numpy())


def run(*words):
    return CliRunner().invoke(main, ["compare", *words, "--data", "data.npz"])


def test_files_and_recipes(here, made):
    result = run(
        "opi.snn", "asg.snn", "--recipes", "opi,opi", "--T", "4", "--calib", "data.npz", "--ann", "ann.pt", "--json"
    )
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["rows"]
    assert [row["name"] for row in rows] == ["opi.snn", "asg.snn", "opi", "opi (2)"]
    assert rows[0]["evaluation"] == rows[2]["evaluation"] == rows[3]["evaluation"]


def test_the_table_the_csv_and_the_page(here):
    shown = run("opi.snn", "asg.snn", "-o", "page.html")
    assert shown.exit_code == 0, shown.output
    assert "opi.snn" in shown.stdout
    assert "snnc compare opi.snn asg.snn -o page.html --data data.npz" in Path("page.html").read_text()
    printed = run("opi.snn", "asg.snn", "--csv")
    assert printed.stdout.splitlines()[0] == ",".join(COLUMNS)
    assert len(printed.stdout.splitlines()) == 9


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        ((), 2, "Give SNNs"),
        (("--recipes", "opi"), 2, "give --ann"),
        (("opi.snn", "--csv", "--json"), 2, "--csv or --json"),
        (("opi.snn", "-o", "opi.snn"), 1, "would overwrite"),
        (("--recipes", "opy", "--ann", "ann.pt"), 1, "There is no recipe"),
    ],
)
def test_what_makes_no_sense(here, words, code, why):
    result = run(*words)
    assert result.exit_code == code
    assert why in result.output
