"""The report: its figures are right, its page is whole, escaped, and needs nothing else."""

import copy
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import snnc
from snnc import api
from snnc.cli import main
from snnc.data import Dataset, fingerprint
from snnc.errors import DataError, WriteError
from snnc.ir.exchange import swap_neurons
from snnc.ir.graph import Stage, calls, view
from snnc.ir.neurons import AverageIF, Neuron
from snnc.measure.evaluate import evaluate
from snnc.networks.network import Network
from snnc.passes import AverageInput, CalibrateOffset, MaskResidual, UseGradedNeurons, WaitForInput
from snnc.passes.trace import snapshots
from snnc.report import report
from snnc.report.chart import linear, logarithmic, number, rows
from snnc.report.charts import interval
from snnc.report.drawing import BOX, GAP, HIGH, picture
from snnc.report.energy import account
from snnc.report.findings import measure
from snnc.report.limit import QuantisedLimit
from snnc.report.look import channels, rasters, scatters
from snnc.report.page import count as thousands
from snnc.report.page import html, joule, short, three
from snnc.report.samples import AGREEMENT
from snnc.report.schedule import timetable
from tests.nets import NETS, sample, spiking

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SCRIPT = "<script>alert(1)</script><b>bold</b>"


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 4, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(16, 3),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def made():
    """An ANN, its spiking network, and data that the ANN labels."""
    ann = network()
    x = torch.randn(24, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = ann(x).argmax(1)
    return ann, snnc.compile(ann, T=4, recipe="opi", calibration=x), x, y


@pytest.fixture(scope="module")
def found(made):
    ann, net, x, y = made
    return measure(net, (x, y), ann, title="a network")


def test_a_network_in_another_precision_is_measured(made):
    ann, _, x, y = made
    ann = copy.deepcopy(ann).double()
    found = measure(snnc.compile(ann, T=4, recipe="opi", calibration=x), (x, y), ann)
    assert found.evaluation.ann_accuracy == 100
    assert found.limit
    assert found.scatters


# The quantised limit


@pytest.mark.parametrize("name", NETS)
def test_the_limit_is_average_spike_generation(name):
    graph, shape = spiking(name, T=4)
    x = sample(shape)
    limit = QuantisedLimit(graph, 4).run(x)
    swap_neurons(graph, lambda node, theta, v0: AverageIF(4, theta, v0))
    assert torch.equal(limit, graph(x))


@pytest.mark.parametrize("name", ["mlp", "residual", "maxpool"])
def test_the_limit_of_graded_spikes_has_more_levels(name):
    graph, shape = spiking(name, T=2, then=UseGradedNeurons(bits=2), units=3)
    binary, _ = spiking(name, T=6, L=6)
    for (node, graded), (_, plain) in zip(calls(graph, Neuron), calls(binary, Neuron), strict=True):
        assert torch.equal(graded.binary()[0], plain.theta * 3), node  # `units` made the bound three times as large
        plain.theta, plain.v0 = plain.theta * 3, plain.theta * 3 / 2
    x = sample(shape)
    assert torch.equal(QuantisedLimit(graph, 2).run(x), QuantisedLimit(binary, 6).run(x))


def test_the_page_says_that_its_limit_is_none_for_calibrated_weights(found):
    shown = html(found)
    assert "a spiking network can lie above it" in shown
    assert "%, or more where it is calibrated for itself" in shown


def test_an_average_network_is_at_its_limit(made):
    ann, _, x, y = made
    net = snnc.compile(ann, T=4, recipe="asg", calibration=x)
    found = measure(net, (x, y), ann)
    assert found.limit[4] == found.evaluation.accuracy[-1]


# Energy


def test_the_account_by_hand():
    graph, shape = spiking("mlp", T=4)  # 6 -> 8 -> 8 -> 4
    _, shapes = rasters(Network(graph, {}), sample(shape, 1))
    found = account(graph, shapes, operations=100.0, spikes=16.0, T=4)
    assert (found.analog, found.macs) == (6 * 8, 8 * 8 + 8 * 4)
    assert (found.biases, found.updates, found.simulated) == (8 * 4, 16 * 4, 4)  # fc1 and fc3 add theirs once
    assert (found.levels, found.bits) == (4, 3)
    assert found.rate == 16 / (16 * 4)
    price = found.prices[0]
    assert price.ann == pytest.approx(4.6e-12 * 144)
    assert price.usual == pytest.approx(4.6e-12 * 48 * 4 + 0.9e-12 * 100)
    assert price.once == pytest.approx(4.6e-12 * 48 + 0.9e-12 * (100 + 32 + 64))
    assert price.each == pytest.approx(4.6e-12 * 48 * 4 + 0.9e-12 * (100 + 32 + 64))


def updates(**how):
    graph, shape = spiking("mlp", T=4, **how)
    _, shapes = rasters(Network(graph, {}), sample(shape, 1))
    return account(graph, shapes, 1.0, 1.0, 4)


def test_what_is_simulated_and_not_read_counts():
    assert updates(cos=CalibrateOffset(rho=4)).updates == 16 * (4 + 4)
    assert updates(then=MaskResidual(tau=2)).updates == 16 * 6
    assert updates(then=MaskResidual(tau=2)).simulated == 6
    price = updates(then=MaskResidual(tau=2)).prices[0]
    assert price.usual == pytest.approx(4.6e-12 * 48 * 6 + 0.9e-12)  # the analog layer runs at each of six steps
    assert updates(then=AverageInput()).updates == 16 * 8
    assert updates(then=WaitForInput(wait=1)).updates == 8 * 4 + 8 * 5  # the first layer knows its input
    graded = updates(then=UseGradedNeurons(bits=2))
    assert (graded.levels, graded.bits) == (12, 4)


# Latency


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"cos": CalibrateOffset(rho=8)},
        {"then": AverageInput()},
        {"then": MaskResidual(tau=2)},
        {"then": WaitForInput(wait=1)},
    ],
)
@pytest.mark.parametrize("name", ["single", "residual", "early", "dense"])
def test_the_timetable_ends_with_the_latency(name, how):
    net = Network(spiking(name, **how)[0], {})
    turns = timetable(net)
    assert max(turn.end for turn in turns) == net.latency.steps
    assert all(turn.end - turn.read == 4 for turn in turns)


# Closer looks


def test_a_raster_holds_the_spikes():
    graph, shape = spiking("mlp", T=4)
    x = sample(shape, 1)
    shown, _ = rasters(Network(graph, {}), x)
    seen = {}
    Network(graph, {}).readout(x, observe=lambda node, value, steps: seen.update({node.name: value}))
    for one in shown:
        spikes = {(one.neurons[row], step): units for row, step, units in one.spikes}
        wanted = {(int(n), int(t)): 1 for t, n in seen[one.name].nonzero()}
        assert spikes == wanted


def test_rates_of_channels_are_those_of_their_spikes():
    graph, shape = spiking("residual", T=4)
    net, x, seen = Network(graph, {}), sample(shape, 3), {}
    net.readout(x, observe=lambda node, value, steps: seen.update({node.name: value}))
    found = channels(net, x)
    assert [one.name for one in found] == [name for name, _ in net.neurons()]
    for one in found:
        maps = (seen[one.name] != 0).double()
        counts = [float(maps[:, c].mean()) for c in range(maps.shape[1])]
        assert one.rates == pytest.approx(sorted((100 * c for c in counts), reverse=True))
        assert 0 < max(one.rates) <= 100


def test_a_scatter_is_of_activations_and_rates(made):
    ann, net, x, _ = made
    graph = snnc.capture(ann, (1, 8, 8))
    for one in scatters(net, graph, x, seed=0):
        assert one.points
        assert all(round(4 * rate) == pytest.approx(4 * rate, abs=1e-5) for _, rate in one.points)


@pytest.mark.parametrize("recipe", ["best", "telescoped"])
def test_curved_networks_are_compared_with_their_ann_too(recipe):
    """`piecewise-activations` and encoders put other values in the place of activations, and the ANN gets them too."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.SiLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    x = torch.randn(24, 6)
    found = measure(snnc.compile(net, 4, recipe, x, quick=True), x, net)
    assert found.explanation is not None
    assert [one.name for one in found.scatters] == [layer.name for layer in found.explanation.layers]
    assert not [one for one in found.missing if "split" in one]


def test_the_fingerprint_sees_every_number():
    x, y = torch.zeros(2, 3), torch.zeros(2, dtype=torch.long)
    prints = {fingerprint(x, y), fingerprint(x, None), fingerprint(x.reshape(3, 2), y), fingerprint(x + 1, y)}
    assert len(prints) == 4
    assert fingerprint(x.clone(), y.clone()) == fingerprint(x, y)


# Charts


def test_axes():
    assert [text for _, text in linear("", 0, 8, whole=True).ticks] == ["0", "2", "4", "6", "8"]
    assert [text for _, text in linear("", 1, 3, whole=True).ticks] == ["1", "2", "3"]
    assert linear("", 0, 10).at(5) == 0.5
    assert linear("", 0, 10).at(50) == 1  # on the edge
    assert linear("", 3, 3).at(3) == 0
    log = logarithmic("", 0.08, 13)
    assert (log.low, log.high) == (0.05, 20)
    assert log.at(1) == pytest.approx(0.5)
    assert rows(["a", "b"]).at(0) == 0.75  # the first is on top
    assert [number(v) for v in (0, 0.5, -2.5, 1e6, 2e-7)] == ["0", "0.5", "-2.5", "1e6", "2e-7"]
    assert [number(v) for v in (1000, -1500.0, 12345.0, 150_000, 2.5e6)] == ["1000", "-1500", "12345", "1.5e5", "2.5e6"]


def test_the_interval_is_wilsons():
    low, high = interval(50.0, 100)
    assert (round(low, 2), round(high, 2)) == (40.38, 59.62)
    assert interval(100.0, 10)[0] < 75
    assert interval(0.0, 10)[0] == pytest.approx(0, abs=1e-12)


def test_words():
    assert [thousands(v) for v in (12, 1234, 4.2e7, 3e9)] == ["12", "1.23 k", "42 M", "3 G"]
    assert [joule(v) for v in (2.0, 4.5e-5, 3e-13)] == ["2 J", "45 µJ", "0.3 pJ"]
    assert short("abcdefghij", 5) == "ab…ij"
    assert short("abc", 5) == "abc"


@pytest.mark.parametrize("name", NETS)
def test_no_edge_crosses_a_box(name):
    graph, _ = spiking(name)
    drawn = picture("", graph, Stage.SPIKING)
    assert {box.name for box in drawn.boxes} == {node.name for node in graph.graph.nodes}
    assert len(drawn.edges) == view(graph).number_of_edges()
    places = {(box.x, box.y) for box in drawn.boxes}
    assert len(places) == len(drawn.boxes)
    assert max(y for _, y in places) + HIGH == drawn.height
    for path in drawn.edges:  # an upright stretch is where an edge passes a row of boxes
        corners = [float(v) for v in re.findall(r"-?[\d.]+", path.split("V")[0])]
        passing = re.findall(r" (-?[\d.]+) (-?[\d.]+)V", path)
        assert corners
        for x, y in passing:
            assert not any(row == float(y) and left <= float(x) <= left + BOX for left, row in places)
    layers = list(nx.topological_generations(view(graph)))
    assert drawn.height == len(layers) * (HIGH + GAP) - GAP


# What each pass did


def test_a_trace_tells_what_each_pass_changed():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3)).eval()
    made = snnc.compile(net, T=2, recipe="data-free", input_shape=(1, 8, 8))
    first, fold, *_ = found = snapshots(made.info)
    quantise = next(one for one in found if one.name == "quantize-activations")
    assert [one.name for one in found] == ["", *(record["name"] for record in made.info["records"])]
    kinds = [what for what, _ in first.nodes.values()]
    assert kinds == ["input", "Conv2d", "BatchNorm2d", "ReLU", "Flatten", "Linear", "output"]
    x, conv, norm, relu, *_ = first.nodes
    assert (fold.new, fold.changed, fold.gone) == (frozenset(), {conv}, (norm,))
    assert fold.nodes[relu] == ("ReLU", (conv,))
    assert (quantise.changed, quantise.nodes[relu][0]) == ({relu}, "ClipQuant")
    modules = {node.name: type(module).__name__ for node, module in calls(made.graph)}
    assert {name: what for name, (what, _) in found[-1].nodes.items()} == modules | {x: "input", "output": "output"}


def damaged(change):
    first = {"set": {"x": ["input"], "a": ["ReLU", "x"]}, "touched": [], "gone": []}
    rows = [first, {"set": {}, "touched": [], "gone": []}]
    change(rows)
    return {"trace": rows, "records": [{"name": "p"}]}


def test_a_trace_of_a_file_is_not_trusted():
    assert [one.name for one in snapshots(damaged(lambda rows: None))] == ["", "p"]
    for change in (
        lambda rows: rows.pop(),
        lambda rows: rows[0].pop("gone"),
        lambda rows: rows[0]["set"].update(x=["input", "a"]),  # a circle
        lambda rows: rows[0]["set"].update(b=["ReLU", "nobody"]),
        lambda rows: rows[0]["set"].update(b=["ReLU", 3]),
        lambda rows: rows[0]["set"].update(b=[]),
        lambda rows: rows[1].update(gone=["x"]),
        lambda rows: rows[1].update(touched=["nobody"]),
        lambda rows: rows[1].update(set=3),
        lambda rows: rows[0]["set"].update({str(i): ["ReLU", "x"] for i in range(20_000)}),
    ):
        assert snapshots(damaged(change)) == []
    assert snapshots({}) == snapshots({"trace": 3, "records": None}) == []


def test_the_page_shows_the_graph_after_each_pass(found):
    page = html(found)
    assert page.count("<details>") == sum(one.picture is not None for one in found.steps) > 2
    assert [one.name for one in found.steps] == [record["name"] for record in found.info["records"]]
    filled = page.count('class="box neuron hit"')
    assert filled >= 2
    old = replace(found, steps=[], pictures=found.pictures[:1])
    assert "does not say what the graph was between" in html(old)
    assert "<details>" not in html(old)


# The page


class Seen(HTMLParser):
    """Tags, ids and what points outside of a page."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.ids, self.links = [], [], [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for key, value in attrs if key == "id"]
        self.links += [value for key, value in attrs if key in ("href", "src", "xlink:href")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for key, value in attrs if key in ("href", "src", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing(found):
    seen = Seen(html(found))
    assert not {"script", "link", "img", "iframe", "object"} & set(seen.tags)
    assert all(link.startswith("#") and link[1:] in seen.ids for link in seen.links)
    assert {
        "accuracy",
        "error",
        "activity",
        "rates",
        "thresholds",
        "latency",
        "energy",
        "passes",
        "graph",
        "again",
    } <= set(seen.ids)
    assert "url(" not in html(found)
    assert "@import" not in html(found)


def test_the_page_says_what_was_measured(made, found):
    ann, net, x, y = made
    page = html(found)
    plain = evaluate(net, (x, y), ann)
    for value in (*plain.accuracy, plain.ann_accuracy, found.limit[4]):
        assert f"{value:.2f}" in page
    assert found.explanation.to_dict() == snnc.explain(net, ann, (x, y)).to_dict()
    for record in net.info["records"]:
        assert f"<td>{record['name']}</td>" in page
    assert found.provenance.data_hash == fingerprint(x, y)
    assert found.provenance.data_hash in page
    assert "arXiv 2409.08290" in page
    assert "3-bit" in page
    assert not found.missing
    assert net.info["calibration_sha256"] == fingerprint(x, None)
    assert net.info["calibration_sha256"] in page


def test_two_reports_are_the_same_to_the_byte(made, found):
    ann, net, x, y = made
    assert html(measure(net, (x, y), ann, title="a network")) == html(found)


def test_everything_from_outside_is_text(made):
    ann, net, x, y = made
    info = {**net.info, "recipe": SCRIPT, "recipe_text": SCRIPT, "versions": {SCRIPT: SCRIPT}}
    info["records"] = [{**net.info["records"][0], "name": SCRIPT, "notes": [SCRIPT], "options": {SCRIPT: SCRIPT}}]
    data = Dataset(x.numpy(), y.numpy(), source=SCRIPT)
    net = Network(net.graph, info)
    found = measure(net, data, ann, title=SCRIPT, command=SCRIPT, files={SCRIPT: SCRIPT})
    found.missing.append(SCRIPT)
    page = html(found)
    seen = Seen(page)
    assert "script" not in seen.tags
    assert page.count("<b>") == 2
    assert page.count("&lt;script&gt;alert(1)") >= 10


def test_an_exported_program_has_the_sections_that_are_possible(made, tmp_path):
    ann, net, x, y = made
    api.save(net, tmp_path / "net.pt2")
    found = measure(api.load(tmp_path / "net.pt2"), (x, y), ann)
    seen = Seen(html(found))
    assert {"accuracy", "latency", "passes", "graph", "again"} <= set(seen.ids)
    assert not {"error", "activity", "rates", "thresholds", "energy"} & set(seen.ids)
    assert "cannot be looked into" in found.missing[0]
    assert not found.limit
    assert found.evaluation.accuracy == measure(net, (x, y), ann).evaluation.accuracy


def test_without_an_ann_and_without_labels(made):
    ann, net, x, y = made
    found = measure(net, (x, y))
    assert "No ANN" in found.missing[0]
    assert found.explanation is None
    assert found.scatters == []
    assert "error" not in Seen(html(found)).ids
    found = measure(net, x, ann)
    assert found.measure == AGREEMENT
    assert "no labels" in found.missing[0]
    assert found.evaluation.ann_accuracy == 100
    assert found.explanation.accuracy is None
    assert AGREEMENT in html(found)
    with pytest.raises(DataError, match="Neither labels nor an ANN"):
        measure(net, x)


@pytest.mark.parametrize("name", ["baseline", "best", "cos", "graded", "best-signed", "srp", "asg", "data-free"])
def test_every_kind_of_network_has_a_page(made, name):
    ann, _, x, y = made
    page = html(measure(snnc.compile(ann, T=1 if name == "baseline" else 3, recipe=name, calibration=x), (x, y), ann))
    assert "nan" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL).lower().split()
    Seen(page)


def test_what_compiling_alone_does_not_repeat_is_told(made):
    ann, net, x, y = made
    assert "That is the conversion" not in html(measure(net, (x, y), ann))
    tuned = snnc.tune(ann, (x, y), T=2, recipe="opi", epochs=1, held_out=0.0, crop=0)
    page = html(measure(tuned, (x, y), ann))
    assert f"snnc tune then trained it in {tuned.info['tune']['steps']} steps" in page
    assert "lr = 0.001" in page
    found = snnc.compile(ann, T=2, recipe="opi", calibration=x)
    found.info["search"] = {}
    assert "found by --max-drop" in html(measure(found, (x, y), ann))


def test_ranges_are_told_once_where_their_ends_look_the_same():
    assert three((0.35, 0.35000002, 0.35000004)) == "0.35"
    assert three((0.25, 0.5, 1.0)) == "0.25 · 0.5 · 1"


def test_a_network_with_other_units_says_why_parts_are_missing(made):
    ann, _, x, y = made
    pipeline = snnc.recipe("opi").pipeline.insert(snnc.PASSES["normalize-thresholds"](), before="insert-neurons")
    found = measure(snnc.compile(ann, T=4, recipe=pipeline, calibration=x), (x, y), ann)
    assert "No error split" in found.missing[0]
    assert found.energy is not None
    Seen(html(found))


def test_the_file_is_whole_or_not_there(made, tmp_path, monkeypatch):
    ann, net, x, y = made
    out = tmp_path / "page.html"
    out.write_text("old")
    with pytest.raises(DataError):
        report(net, (x[..., :3], y), ann, out)
    monkeypatch.setattr(Path, "write_text", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(WriteError):
        report(net, (x, y), ann, out, samples=4)
    monkeypatch.undo()
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]
    report(net, (x, y), ann, out, samples=4)
    assert out.read_text().startswith("<!DOCTYPE html>")


# The command line


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ann, net, x, y = made
    torch.save(ann, "ann.pt")
    api.save(net, "net.snn")
    np.savez("data.npz", x=x.numpy(), y=y.numpy())


def run(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def test_the_command(here):
    result = run("report", "net.snn", "--ann", "ann.pt", "--data", "data.npz", "--samples", 8)
    assert result.exit_code == 0, result.output
    page = Path("net.html").read_text()
    assert "snnc report net.snn --ann ann.pt --data data.npz --samples 8" in page
    assert "SHA-256 of ann.pt" in page
    result = run("report", "net.snn", "--ann", "ann.pt", "--data", "data.npz", "-o", "b.html", "--title", "T", "--json")
    content = json.loads(result.stdout)
    assert content["out"] == "b.html"
    assert content["title"] == "T"
    assert content["evaluation"]["samples"] == 24
    assert content["limit"].keys() == {"1", "2", "3", "4"}
    assert len(content["turns"]) == 2


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("-o", "net.snn"), "would overwrite"),
        (("-o", "nowhere/a.html"), "no folder"),
        (("--ann", "data.npz"), "Error"),
    ],
)
def test_the_command_refuses(here, words, why):
    before = Path("net.snn").read_bytes()
    result = run("report", "net.snn", "--data", "data.npz", *words)
    assert result.exit_code == 1
    assert why in result.output
    assert Path("net.snn").read_bytes() == before
    assert not list(Path().glob("*.html"))


# In a browser


# The page stands in a frame, since a window cannot be as narrow as a phone.
HARNESS = """<!DOCTYPE html><iframe style="width: {width}px; height: 900px; border: 0" srcdoc="{page}"></iframe><script>
const frame = document.querySelector('iframe');
frame.onload = () => {{
  const page = frame.contentDocument, root = page.documentElement, cut = [], box = e => e.getBoundingClientRect();
  for (const svg of page.querySelectorAll('figure svg[role=img]')) {{
    const edge = box(svg);
    for (const text of svg.querySelectorAll('text')) {{
      const b = box(text);
      if (b.left < edge.left - 1 || b.right > edge.right + 1 || b.top < edge.top - 1 || b.bottom > edge.bottom + 1)
        cut.push(text.textContent);
    }}
  }}
  const flat = [...page.querySelectorAll('figure.chart > svg')].filter(svg => box(svg).height < 40).length;
  const colour = frame.contentWindow.getComputedStyle(page.body).backgroundColor;
  const parts = frame.contentWindow.getComputedStyle(page.querySelector('.slices')).display;
  const wide = root.scrollWidth > root.clientWidth;
  const facts = [...page.querySelectorAll('.facts td')];
  const beyond = facts.length ? facts.filter(td => box(td).right > root.clientWidth).length : 'all';
  const charts = page.querySelectorAll('figure.chart').length;
  document.title = JSON.stringify({{cut, wide, flat, parts, beyond, colour, charts}});
}};
</script>"""


def browse(page, tmp_path, width, *flags):
    """What a browser makes of a page: labels that are cut off, a page wider than its window, the colour behind it."""
    file = tmp_path / "harness.html"
    file.write_text(HARNESS.format(width=width, page=escape(page)), encoding="utf-8")
    quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", *quiet, f"--user-data-dir={tmp_path / 'user'}"]
    command += ["--window-size=1400,1000", *flags, "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return json.loads(unescape(re.search(r"<title>(\{.*?\})</title>", done.stdout)[1]))


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
@pytest.mark.parametrize("width", [360, 1200])
def test_in_a_browser_nothing_is_cut_off(found, tmp_path, width):
    light = browse(html(found), tmp_path, width)
    assert light["cut"] == []
    assert not light["wide"]
    assert light["flat"] == 0
    assert light["beyond"] == 0  # of what it takes to get the same again, nothing needs scrolling
    assert light["parts"] == "none"  # of a graph: on a screen it is one picture, which can be panned
    assert light["charts"] == 11  # five, and a raster, channels and a scatter plot for each of two layers
    dark = browse(html(found), tmp_path, width, "--blink-settings=preferredColorScheme=0")
    assert (light["colour"], dark["colour"]) == ("rgb(255, 255, 255)", "rgb(20, 24, 29)")
