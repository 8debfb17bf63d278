"""Charts and tables as files by themselves."""

import csv
import io
import itertools
import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import snnc
from snnc.cli import main
from snnc.report import figure, tabular
from snnc.report.chart import Chart, linear
from snnc.report.charts import frontier, near, seen

X = torch.rand(24, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def run(*words, code=0):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def nets():
    torch.manual_seed(0)
    ann = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)).eval()
    return ann, {f"a_{T}&": snnc.compile(ann, T, "opi", X) for T in (1, 2)}


@pytest.fixture
def here(tmp_path, monkeypatch, nets):
    monkeypatch.chdir(tmp_path)
    ann, several = nets
    torch.save(ann, "ann.pt")
    np.savez("data.npz", x=X.numpy(), y=ann(X).argmax(1).numpy())
    snnc.save(several["a_2&"], "a.snn")


@pytest.fixture(scope="module")
def found(nets):
    ann, several = nets
    return snnc.compare(several, (X, ann(X).argmax(1)), ann)


def chart():
    made = Chart("<Title>", linear("x & y", 0, 4), linear("of <all>", 0, 1))
    made.area("c1", [(0, 0), (4, 0)], [(0, 1), (4, 1)])
    made.line("c2 dotted", [(0, 0.5), (4, 0.5)])
    made.bar("faint", 0.5, 1, 2)
    made.dots("c3", [(1, 1)])
    for i, shape in enumerate(("circle", "square", "triangle", "diamond")):
        made.mark(f"c{i + 1}", (i, 0.25), shape)
        made.key.append((f"mark c{i + 1} {shape}", f"a rather long name of the series {i}"))
    return made


def test_a_chart_stands_by_itself(tmp_path):
    text = figure.save(chart(), tmp_path / "a.svg").read_text()
    root = ET.fromstring(text)
    assert (root.get("width"), root.get("viewBox").split()[:3]) == ("90.0mm", ["0", "0", "340"])
    words = ["".join(one.itertext()) for one in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"x & y", "of <all>", "a rather long name of the series 3"} <= set(words)
    assert "var(" not in text  # no style sheet is needed
    assert 'stroke-dasharray="2 3"' in text


def test_every_ink_differs_in_grey():
    def grey(ink):
        return sum(w * int(ink[i : i + 2], 16) for w, i in ((0.3, 1), (0.59, 3), (0.11, 5)))

    shades = sorted(map(grey, figure.INK.values()))
    assert all(b - a > 10 for a, b in itertools.pairwise(shades))


@pytest.mark.parametrize("form", [".pdf", ".png"])
def test_what_matplotlib_writes(tmp_path, form, monkeypatch):
    pytest.importorskip("matplotlib")
    content = figure.save(chart(), tmp_path / f"a{form}").read_bytes()
    assert content.startswith({".pdf": b"%PDF", ".png": b"\x89PNG"}[form])


def test_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(snnc.SnncError, match="PDF needs matplotlib") as refused:
        figure.save(chart(), tmp_path / "a.pdf")
    assert "snnc[figures]" in refused.value.hint
    with pytest.raises(snnc.SnncError, match="cannot be written as"):
        figure.save(chart(), tmp_path / "a.gif")


def test_axes_zoom_to_where_runs_end():
    assert near("", [10.0, 90.0, 96.0], [96.0, 97.0]).low == 86
    assert near("", [10.0, 20.0], [20.0, 90.0]).low == 8
    assert seen([(1, 0), (2, 10), (3, 20)], 5) == [(1.5, 5.0), (2, 10), (3, 20)]
    assert seen([(1, 10), (2, 0), (3, 10)], 5) == [(1, 10), (1.5, 5.0), (2.5, 5.0), (3, 10)]
    assert seen([(1, 0), (2, 1)], 5) == []


def test_tables_have_a_row_for_each_network(found):
    rows = list(csv.reader(io.StringIO(tabular.table(found.rows, found.ann_accuracy, "accuracy", ".csv"))))
    assert [row[0] for row in rows] == ["network", "ANN", "a_1&", "a_2&"]
    row = dict(zip(rows[0], rows[3], strict=True))
    cost = found.rows[1].account
    assert float(row["synaptic operations"]) == round(found.rows[1].evaluation.operations)
    assert float(row["of ANN, 45 nm"]) == round(found.rows[1].energy, 3)
    assert float(row["µJ, chip vs GPU"]) == pytest.approx(cost.prices[1].each * 1e6, rel=1e-3)
    assert float(row["spikes a neuron"]) == pytest.approx(cost.rate * 2, abs=1e-3)
    markdown = tabular.table(found.rows, found.ann_accuracy, "accuracy", ".md").splitlines()
    assert len({line.count("|") for line in markdown}) == 1
    latex = tabular.table(found.rows, None, "accuracy", ".tex")
    assert r"a\_2\& & opi" in latex
    assert "\nANN" not in latex


def test_compare_writes_what_the_suffix_says(here):
    words = ("compare", "a.snn", "--ann", "ann.pt", "--data", "data.npz", "-o", "c.svg", "-o", "c.tex", "-o", "c.html")
    content = json.loads(run(*words, "--json").stdout)
    assert (content["out"], content["files"]) == ("c.svg", ["c.svg", "c.tex", "c.html"])
    ET.parse("c.svg")
    assert Path("c.tex").read_text().startswith("% needs booktabs")
    assert Path("c.html").read_text().startswith("<!DOCTYPE html>")
    assert "twice" in run(*words, "-o", "c.svg", code=2).stderr


def test_a_report_as_figures(here):
    words = ("report", "a.snn", "--ann", "ann.pt", "--data", "data.npz", "--figures", "figs")
    content = json.loads(run(*words, "--json").stdout)
    names = {Path(one).name for one in content["figures"]}
    assert {
        "accuracy.svg",
        "errors.svg",
        "rates.svg",
        "raster-relu_1.svg",
        "table.md",
        "table.tex",
        "table.csv",
    } <= names
    assert names == {one.name for one in Path("figs").iterdir()}
    for one in Path("figs").glob("*.svg"):
        ET.parse(one)
    assert "is a file" in run(*words[:-1], "ann.pt", code=1).stderr
    assert "no folder" in run(*words[:-1], "nowhere/figs", code=1).stderr


def test_eval_prints_the_energy(here):
    words = ("eval", "a.snn", "--data", "data.npz")
    content = json.loads(run(*words, "--json").stdout)
    shown = run(*words).stdout
    assert len(content["energy"]["prices"]) == 2
    assert f"{content['energy']['prices'][0]['each'] / content['energy']['prices'][0]['ann']:.3f} of the ANN's" in shown


def test_the_frontier_is_what_nobody_beats():
    chart = frontier("Spikes", "spikes", [("a", 10.0, 90.0), ("b", 20.0, 80.0), ("c", 100.0, 95.0)], 96.0)
    line = next(mark.d for mark in chart.marks if mark.kind == "line soft")
    assert line == "".join(
        f"{letter}{chart.px(x):g} {chart.py(y):g}" for letter, x, y in (("M", 10, 90), ("L", 100, 95))
    )
    assert [text for _, text in chart.key] == ["a", "b", "c"]
    assert chart.x.log


def test_frontiers_open_the_page_of_a_comparison(found):
    page = found.to_html()
    assert page.index("spikes a sample") < page.index("Step by step") < page.index("steps from the input")
