"""Which recipe a network takes: the plainest that does as well as the best."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import snnc
from snnc.capture import capture
from snnc.cli import main
from snnc.errors import RecipeError
from snnc.ir.accounting import share
from snnc.ir.shapes import every_shape
from snnc.passes.pipeline import Context
from snnc.recipes import recipe
from snnc.recipes.contest import PRICE, contenders, contest

X = torch.randn((80, 6), generator=torch.Generator().manual_seed(0))


def network(*middle):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), *middle, nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


def tried(net, names, T=4):
    return contest([recipe(name) for name in names], capture(net, (6,)), Context(T=T, calibration=[X]))


def test_who_takes_part():
    graphs = {name: capture(network(m), (6,)) for name, m in (("act", nn.GELU()), ("norm", nn.LayerNorm(8)))}
    assert contenders(graphs["act"]) == ("best", "telescoped", "telescoped-graded")
    assert contenders(graphs["norm"]) == ("telescoped", "piecewise", "telescoped-graded")
    assert contenders(capture(network(nn.ReLU()), (6,))) == ()


def test_the_first_that_is_close_to_the_best():
    """One that is worse by more than chance is passed over, and one that fails."""
    net = network(nn.GELU())
    chosen, found = tried(net, ("qcfs", "baseline", "graded", "best-graded"), T=1)
    rows = found["recipes"]
    assert [row["recipe"] for row in rows] == ["qcfs", "baseline", "graded", "best-graded"]
    assert "no trained clip bound" in rows[0]["failed"]
    assert rows[1]["agreement"] < rows[2]["agreement"] - 10
    assert (chosen.name, [row["chosen"] for row in rows]) == ("graded", [False, False, True, False])
    assert all(row["samples"] == 40 for row in rows)


def test_where_all_fail():
    """The first does, and says why."""
    chosen, found = tried(network(nn.GELU()), ("qcfs", "qcfs"))
    assert (chosen.name, found) == ("qcfs", {})


def test_the_cost():
    """Additions for spikes and neurons, and five for whatever no spike drives."""
    net = network(nn.LayerNorm(8))
    _, found = tried(net, ("telescoped", "opi"))
    spiking = snnc.compile(net, 4, "opi", X[:40])
    parts = share(spiking.graph, every_shape(spiking.graph, (6,)))
    dense = PRICE * (4 * (parts.dense + parts.curved) + parts.once)
    assert found["recipes"][1]["cost"] - dense - 4 * 8 <= 4 * 8 * 3  # 8 neurons with 3 connections each
    assert found["recipes"][1]["cost"] >= dense + 4 * 8


def test_outputs_that_are_no_classes():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(1, 4, 3), nn.GELU(), nn.Conv1d(4, 2, 3)).eval()
    made = contest(
        [recipe("baseline"), recipe("graded")],
        capture(net, (1, 8)),
        Context(T=2, calibration=[torch.randn(80, 1, 8)]),
    )
    chosen, found = made
    assert chosen.name == "graded"
    assert [row["agreement"] for row in found["recipes"]] == [None, None]


def test_few_samples_and_quick():
    net = network(nn.GELU())
    assert "recipes" not in snnc.compile(net, 2, calibration=X[:40]).info
    quick = snnc.compile(net, 2, calibration=X, quick=True).info
    assert ("recipes" in quick, quick["recipe"]) == (False, "best")
    listed = snnc.compile(net, 1, ["baseline", "graded"], X)
    assert (listed.info["recipe"], len(listed.info["recipes"])) == ("graded", 2)
    with pytest.raises(RecipeError, match="empty"):
        snnc.compile(net, 2, [], X)


def test_on_the_command_line(tmp_path, monkeypatch):
    """It says what it chose, and what the others would give; a backend's own limits count."""
    monkeypatch.chdir(tmp_path)
    batch = {0: torch.export.Dim("batch")}
    net = network(nn.GELU())
    torch.export.save(torch.export.export(net, (X[:2],), dynamic_shapes=(batch,)), "net.pt2")
    np.savez("x.npz", x=X.numpy())

    def run(*words):
        done = CliRunner().invoke(main, ["compile", "net.pt2", "--T", "2", "--calib", "x.npz", *words])
        assert done.exit_code == 0, done.output
        return done.stdout

    told = run("-o", "net.snn")
    assert "Tried on 40 calibration samples that were held out" in told
    assert "chosen on calibration data" in told
    assert all(name in told for name in ("best", "telescoped-graded", "cost"))
    assert [row["recipe"] for row in snnc.load("net.snn").info["recipes"]] == list(contenders(capture(net, (6,))))
    assert "Tried" not in run("-o", "net.snn", "--quick", "--set", "piecewise-activations.pieces=2")
    assert "telescoped-graded" in run("-o", "net.snn", "--dry-run")
