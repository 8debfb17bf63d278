"""The search for the fewest steps: against compiling and measuring by hand."""

import functools
import json
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sklearn.datasets import load_digits
from torch import nn

import snnc
from snnc.cli import main
from snnc.data import Dataset
from snnc.errors import DataError, OutOfReach, RecipeError
from snnc.measure.search import BATCH, _HeldOut, _split

NAMES: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())  # of a network with one input


@functools.cache
def digits():
    """A small network that reads scikit-learn's digits, and training data."""
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x).float().reshape(-1, 1, 8, 8) / 16, torch.tensor(y)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1),
        nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(6):
        for part in torch.randperm(len(x)).split(64):
            loss = nn.functional.cross_entropy(model(x[part]), y[part])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return model.eval(), x, y


def find(max_drop, labels=True, **more):
    model, x, y = digits()
    options = {"samples": 200, "holdout": 300, "recipes": ("opi", "cos"), "steps": (1, 2, 4, 8), **more}
    return snnc.search(model, (x, y) if labels else x, max_drop, **options)


def rows(found):
    return {(one.recipe, one.T): one for one in found.frontier}


def test_it_finds_what_measuring_by_hand_finds():
    model, x, y = digits()
    found = find(2.0)
    given, (held, right) = _split((x, y), 200, 300, 0, NAMES)
    ann = float((model(held).argmax(1) == right).double().mean())
    assert found.ann_accuracy == pytest.approx(100 * ann)
    drops, latency = {}, {}
    for T in (1, 2, 4, 8):
        for name in ("opi", "cos"):
            net = snnc.compile(model, T, name, given)
            classes = net(held).argmax(1)
            latency[name, T] = net.latency.steps
            drops[name, T] = 100 * (ann - float((classes == right).double().mean()))
    first = min(T for (_, T), drop in drops.items() if drop <= 2.0)
    assert found.chosen.T == first > 1
    assert {T for _, T in rows(found)} == {T for T in (1, 2, 4, 8) if first >= T}
    for key, one in rows(found).items():
        assert one.within == (drops[key] <= 2.0)
        if one.samples == 300:
            assert one.drop == pytest.approx(drops[key], abs=1e-9)
    fit = [(latency[key], drop, key) for key, drop in drops.items() if drop <= 2.0 and key[1] == first]
    assert (found.chosen.recipe, found.chosen.T) == min(fit)[2]
    again = snnc.compile(model, first, found.chosen.recipe, given)
    assert torch.equal(again(held), found.network(held))


def test_the_lowest_latency_wins_at_the_same_T():
    found = find(20.0, steps=(8,))
    assert (found.chosen.recipe, found.chosen.latency.steps) == ("opi", 8)
    assert [one.recipe for one in found.frontier] == ["opi"]  # `cos` takes 96 steps, and could not win
    found = find(20.0, steps=(8,), recipes=("opi", "baseline"))
    assert [one.latency.steps for one in found.frontier] == [8, 8]
    assert found.chosen == min(found.frontier, key=lambda one: one.drop)


def test_without_labels_the_ann_is_the_measure():
    found = find(5.0, labels=False)
    assert not found.labels
    assert found.ann_accuracy is None
    assert all(one.drop == pytest.approx(100 - one.agreement) for one in found.frontier)
    assert found.network.info["search"]["measure"] == "disagreement with the ANN"


def test_what_cannot_come_back_is_given_up():
    found = find(2.0)
    lost = rows(found)["opi", 1]
    assert not lost.within
    assert lost.samples % BATCH == 0
    assert lost.samples < 300
    assert lost.drop > 2.0


def test_giving_up_never_changes_the_answer():
    """The network is right where the ANN is wrong, at the end: giving up before would be too early."""

    class Answers(nn.Module):
        T, latency = 1, None

        def __init__(self, classes):
            super().__init__()
            self.answers = iter(classes.split(BATCH))

        def chosen(self, output):
            return "output"

        def forward(self, x):
            return nn.functional.one_hot(next(self.answers), 2).float()

    n = 4 * BATCH
    y = torch.zeros(n, dtype=torch.long)
    ann = y.clone()
    ann[-20:] = 1
    held = _HeldOut(ann, torch.zeros(n, 1), y, 0.0)
    classes = y.clone()
    classes[:20] = 1
    one = held.measure(Answers(classes), "late", lambda items, what: items)
    assert (one.samples, one.drop, one.within) == (n, 0.0, True)
    classes[20] = 1
    one = held.measure(Answers(classes), "late", lambda items, what: items)
    assert (one.samples, one.within) == (BATCH, False)
    # se of n paired differences, one more of them counted: 41 of 200 differ by one
    classes[20] = 0
    one = held.measure(Answers(classes), "late", lambda items, what: items)
    assert one.error == pytest.approx(100 * (41 / 200 / 200) ** 0.5)
    assert "two standard errors" in held.doubts(one)[0]


def test_data_is_split_and_drawn_by_seed():
    x = torch.arange(100.0)[:, None]
    given, (held, labels) = _split((x, torch.arange(100)), 30, 20, 0, NAMES)
    assert (len(given), len(held)) == (30, 20)
    assert not set(given.flatten().tolist()) & set(held.flatten().tolist())
    assert torch.equal(held.flatten().long(), labels)
    assert torch.equal(_split(x, 30, 20, 0, NAMES)[1][0], held)
    assert not torch.equal(_split(x, 30, 20, 1, NAMES)[1][0], held)
    given, (held, labels) = _split(x, 30, 1000, 0, NAMES)
    assert (len(given), len(held), labels) == (30, 50, None)
    data = Dataset(np.arange(100.0)[:, None], np.arange(100))
    given, (held, labels) = _split(data, 30, 20, 0, NAMES)
    assert torch.equal(held.flatten().long(), labels)
    assert held.max() > 50  # drawn from all of it, not from its beginning
    assert len(_split([x[:40], x[40:]], 10, 10, 0, NAMES)[0]) == 10


def test_recipes_that_do_not_apply_are_left_out_once():
    found = find(2.0, recipes=None)
    assert {one.recipe for one in found.frontier} >= {"opi", "best"}
    left = {"qcfs", "baseline", "data-free", "graded", "best-graded", "best-signed", "signed"}
    assert not {one.recipe for one in found.frontier} & left
    assert sum("'qcfs' failed at T = 1 and was not tried again" in note for note in found.notes) == 1
    failed = found.network.info["search"]["failed"]
    assert [(one["recipe"], one["T"]) for one in failed].count(("qcfs", 1)) == 1
    assert not {one["recipe"] for one in failed} & {row.recipe for row in found.frontier}
    with pytest.raises(snnc.SnncError, match="no trained clip bound"):
        find(2.0, recipes=["qcfs"])


def test_the_frontier_is_kept_with_the_network(tmp_path):
    found = find(2.0)
    kept = snnc.load(snnc.save(found.network, tmp_path / "net.snn")).info["search"]
    assert len(kept["frontier"]) == len(found.frontier)
    assert kept["held_out"] == 300
    assert kept["frontier"][0]["latency"]["steps"] == found.frontier[0].latency.steps
    json.dumps(kept)


def test_nothing_found_carries_the_frontier():
    with pytest.raises(OutOfReach, match=r"within 0 points up to T = 2\. The best is '\w+' at T = \d") as caught:
        find(0.0, steps=(1, 2))
    assert len(caught.value.searched["frontier"]) == 4


def test_what_makes_no_sense():
    model, x, _ = digits()
    with pytest.raises(RecipeError, match="max_drop is -1"):
        find(-1.0)
    with pytest.raises(RecipeError, match="held out"):
        find(1.0, holdout=0)
    with pytest.raises(RecipeError, match="There is no recipe 'oppi'"):
        find(1.0, recipes=["oppi"])
    with pytest.raises(DataError, match="One sample"):
        snnc.search(model, x[:1])
    with pytest.raises(snnc.SnncError, match="shape"):
        snnc.search(model, x[:, :, :5])
    with pytest.raises(DataError, match="not \\[B, classes\\]"):
        snnc.search(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3)).eval(), x[:20])


def test_the_ann_runs_once(monkeypatch):

    module = sys.modules["snnc.measure.search"]  # `snnc.search` is the function
    count = []
    real = module._classes
    monkeypatch.setattr(module, "_classes", lambda *a: count.append(1) or real(*a))
    find(2.0)
    assert count == [1]


# ---- the command


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, x, y = digits()
    torch.save(model, "ann.pt")
    np.savez("data.npz", x=x.numpy(), y=y.numpy())
    np.savez("unlabelled.npz", x=x.numpy())
    return tmp_path


def run(*args, code=0):
    result = CliRunner().invoke(main, [str(a) for a in args])
    assert result.exit_code == code, result.output
    return result


COMMAND = ("compile", "ann.pt", "--calib-samples", 200, "--holdout", 300)


def test_the_command_finds_and_shows(files):
    said = run(*COMMAND, "--calib", "data.npz", "--max-drop", 2, "--recipes", "opi,cos").stdout
    assert "Searched for 2 points at most: accuracy lost on 300 held-out samples, where the ANN has" in said
    assert "chosen" in said
    assert "given up" in said
    assert "the fewest steps that lose 2 points at most" in said
    assert "Calibration: 200 samples" in said
    net = snnc.load("ann.snn")
    content = json.loads(run(*COMMAND, "--calib", "data.npz", "--max-drop", 2, "--recipes", "opi,cos", "--json").stdout)
    assert content["search"] == net.info["search"]
    assert content["T"] == net.T
    assert (files / "ann.snn").exists()


@pytest.mark.usefixtures("files")
def test_the_table_names_what_failed():
    shown = run(*COMMAND, "--calib", "data.npz", "--max-drop", 100).stdout
    row = next(line for line in shown.splitlines() if line.startswith("qcfs"))
    assert row.endswith("failed: see below")
    assert "Recipe 'qcfs' failed at T = 1 and was not tried again: " in shown


@pytest.mark.usefixtures("files")
def test_the_command_takes_one_changed_recipe():
    args = ("--max-drop", 10, "--recipe", "cos", "--set", "calibrate-offset.rho=2", "--T", 6)
    content = json.loads(run(*COMMAND, "--calib", "unlabelled.npz", *args, "--json").stdout)
    assert content["recipe"] == "cos, changed"
    assert content["search"]["measure"] == "disagreement with the ANN"
    assert {row["T"] for row in content["search"]["frontier"]} <= {1, 2, 4, 6}
    assert "rho = 2" in content["recipe_text"]


def test_the_command_fails_with_the_frontier_and_without_a_file(files):
    args = (*COMMAND, "--calib", "data.npz", "--max-drop", 0, "--recipes", "baseline", "--T", 2)
    result = run(*args, code=1)
    assert "Searched for 0 points" in result.stdout
    assert "Error: No recipe stays within 0 points up to T = 2" in result.stderr
    content = json.loads(run(*args, "--json", code=1).stdout)
    assert content["out"] is None
    assert [row["T"] for row in content["search"]["frontier"]] == [1, 2]
    assert not (files / "ann.snn").exists()


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("more", "code", "wanted"),
    [
        ("--max-drop 1", 2, "give --calib"),
        ("--calib data.npz --max-drop 101", 2, "101"),
        ("--calib data.npz --recipes opi", 2, "--max-drop"),
        ("--calib data.npz --recipes opi,,cos --max-drop 1", 2, "not a,b"),
        ("--calib data.npz --recipes opi --recipe cos --max-drop 1", 2, "--recipes for several"),
        ("--calib data.npz --set calibrate-offset.rho=2 --max-drop 1", 2, "give it with --recipe"),
        ("--calib data.npz --recipes oppi --max-drop 1", 1, "There is no recipe 'oppi'"),
    ],
)
def test_the_command_refuses_in_words(more, code, wanted):
    result = run("compile", "ann.pt", *more.split(), code=code)
    assert wanted in result.stderr
    assert result.stdout == ""
