"""Dry runs: everything is read and checked, what would be done is said, and nothing is written."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import snnc
from snnc.cli import main
from tests.cli.test_habits import network


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(network(), "model.pt")
    x = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8)).astype("uint8")
    np.savez("data.npz", x=x, y=np.arange(40) % 3)
    np.savez("unlabelled.npz", x=x)
    np.savez("one.npz", x=x[:1], y=np.arange(1))
    np.savez("many.npz", x=x, y=np.arange(40))
    np.savez("wide.npz", x=x.reshape(40, 4, 4, 4), y=np.arange(40) % 3)


def run(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def contents():
    return {path.name: path.read_bytes() for path in Path().iterdir()}


def dry(*words, code=0):
    """What a dry run prints; it leaves the folder as it was."""
    before = contents()
    result = run(*words, "--dry-run", "--save-config", "run.toml")
    assert result.exit_code == code, result.output
    assert contents() == before
    return result


def test_compile():
    before = sorted(Path().iterdir())
    result = run("compile", "model.pt", "--calib", "data.npz", "--T", 4, "--dry-run", "--save-config", "run.toml")
    assert result.exit_code == 0, result.output
    assert "It would write model.snn (torch)." in result.stdout
    assert sorted(Path().iterdir()) == before
    result = run("compile", "model.pt", "--calib", "data.npz", "--recipe", "opi", "--dry-run", "--json")
    content = json.loads(result.stdout)
    pipeline = snnc.recipe("opi").pipeline
    assert content["recipes"][0]["passes"] == [{"name": p.name, "options": p.options} for p in pipeline]
    assert content["calibration_samples"] == 40
    result = run("compile", "model.pt", "--calib", "data.npz", "--max-drop", 1, "--dry-run", "--json")
    tried = [one["name"] for one in json.loads(result.stdout)["recipes"]]
    assert "opi" in tried
    assert not {"baseline", "data-free", "graded"} & set(tried)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--recipe", "opi"), "needs calibration data"),
        (("--recipe", "nonsense"), "There is no recipe"),
        (("-o", "nowhere/a.snn"), "no folder"),
        (("-o", "model.pt"), "would overwrite"),
        (("--recipe", "wrong.toml"), "takes a graph of stage"),
        (("--calib", "nothing.npz"), "does not exist"),
    ],
)
def test_compile_finds_what_would_fail(words, why):
    Path("wrong.toml").write_text('needs_data = false\n[[pass]]\nname = "insert-neurons"\n')
    result = run("compile", "model.pt", "--dry-run", *words)
    assert result.exit_code == 1
    assert why in result.stderr


TUNE = ("tune", "model.pt", "--data", "data.npz", "--T", 2, "--batch", 8, "--held-out", 0.2, "-o", "out.snn")


def test_tune():
    shown = dry(*TUNE).stdout
    assert "It would train for 3 epochs of 4 steps of 8 samples." in shown
    assert "32 samples to train on, 8 held out" in shown
    assert "It would write out.snn, and until then out.snn.checkpoint." in shown
    assert "an epoch has 4 steps" in dry(*TUNE, "--minutes", 5).stdout
    found = json.loads(dry(*TUNE, "--json").stdout)
    assert (found["T"], found["steps"], found["calibration_samples"]) == (2, 12, 32)
    done = json.loads(run(*TUNE, "--json").stdout)  # what it says is what is done
    assert found["options"] == done["options"]
    assert [found[key] for key in ("steps", "samples", "held_out", "data")] == [
        done[key] for key in ("steps", "samples", "held_out", "data")
    ]
    assert found["recipe"] == snnc.load("out.snn").info["recipe"]
    shown = dry("tune", "out.snn", "--ann", "model.pt", *TUNE[2:-2], "-o", "more.snn").stdout
    assert "Calibration" not in shown  # nothing is converted
    assert "Levels: 2" in dry(*TUNE, "--kind", "quantised").stdout


def test_tune_takes_a_checkpoint(monkeypatch):
    step, left = torch.optim.AdamW.step, iter(range(5))

    def failing(self, *args):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return step(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(torch.optim.AdamW, "step", failing)
        assert run(*TUNE, "--save-seconds", 0).exit_code == 130
    assert "did not end" in dry(*TUNE, code=1).stderr
    assert "It would go on with step 2 of epoch 2." in dry(*TUNE, "--resume").stdout
    assert "lr = 0.001, not 0.01" in dry(*TUNE, "--resume", "--lr", 0.01, code=1).stderr
    assert run(*TUNE, "--resume").exit_code == 0
    assert "no checkpoint" in dry(*TUNE, "--resume", code=1).stderr


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--data", "nothing.npz"), "does not exist"),
        (("--data", "unlabelled.npz", "--loss", "labels"), "has no labels"),
        (("--data", "many.npz"), "the network has 3 classes"),
        (("--data", "wide.npz"), "does not take samples of shape"),
        (("--data", "one.npz"), "no variance to normalise by"),
        (("--recipe", "cos"), "layer-synchronous"),
        (("--recipe", "nonsense"), "There is no recipe"),
        (("--lr", "0"), "'lr'"),
        (("--shards", "9"), "'shards'"),
        (("--device", "abacus"), "'device'"),
        (("-o", "nowhere/a.snn"), "no folder"),
        (("-o", "/dev/null"), "not a regular file"),
        (("-o", "data.npz"), "would overwrite"),
    ],
)
def test_tune_finds_what_would_fail(words, why):
    assert why in dry(*TUNE, *words, code=1).stderr


COMPARE = ("compare", "a.snn", "--ann", "model.pt", "--data", "data.npz", "--limit", 16, "-o", "out.html")


@pytest.fixture
def made():
    assert run("compile", "model.pt", "--calib", "data.npz", "--recipe", "opi", "--T", 2, "-o", "a.snn").exit_code == 0


@pytest.mark.usefixtures("made")
def test_compare():
    more = ("--recipes", "cos,srp", "--calib", "data.npz", "--T", 4)
    shown = dry(*COMPARE, *more).stdout
    assert "It would write out.html." in shown
    assert "To be measured against their labels" in shown
    found = json.loads(dry(*COMPARE, *more, "--json").stdout)
    assert [(row["name"], row["recipe"], row["T"]) for row in found["networks"]] == [
        ("a.snn", "opi", 2), (None, "cos", 4), (None, "srp", 4),
    ]  # fmt: skip
    assert (found["samples"], found["calibration_samples"], found["measure"]) == (16, 40, "accuracy")
    shown = dry("compare", "a.snn", "--ann", "model.pt", "--data", "unlabelled.npz").stdout
    assert "the classes of the ANN" in shown
    assert "It would print a table, and write nothing." in shown


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("nothing.snn",), "does not exist"),
        (("model.pt",), "not a compiled network"),
        (("--ann", "nothing.pt"), "does not exist"),
        (("--data", "nothing.npz"), "does not exist"),
        (("--data", "many.npz", "--limit", "40"), "the network has 3 classes"),
        (("--data", "wide.npz"), "shape"),
        (("--recipes", "opi"), "needs calibration data"),
        (("--recipes", "nonsense", "--calib", "data.npz"), "There is no recipe"),
        (("--recipes", "wrong.toml"), "takes a graph of stage"),
        (("--device", "abacus"), "no device"),
        (("-o", "nowhere/a.html"), "no folder"),
        (("-o", "a.snn"), "would overwrite"),
    ],
)
def test_compare_finds_what_would_fail(words, why):
    Path("wrong.toml").write_text('needs_data = false\n[[pass]]\nname = "insert-neurons"\n')
    assert why in dry(*COMPARE, *words, code=1).stderr


@pytest.mark.usefixtures("made")
def test_a_recipe_without_its_data_is_told_before_another_is_compiled(monkeypatch):
    monkeypatch.setattr("snnc.api.compile", None)
    result = run(*COMPARE, "--recipes", "data-free,opi")
    assert "needs calibration data" in result.stderr


@pytest.mark.usefixtures("made")
def test_what_makes_no_sense():
    assert "--csv" in dry(*COMPARE, "--csv", code=2).stderr
    assert "Give SNNs" in dry("compare", "--data", "data.npz", code=2).stderr
    assert "learns from itself" in dry(*TUNE, "--ann", "model.pt", code=2).stderr
    assert "Give MODEL" in dry("tune", "--data", "data.npz", code=2).stderr


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize("words", [("compile", "model.pt", "-o", "out.snn"), TUNE, COMPARE])
def test_a_folder_that_takes_no_files(monkeypatch, words):
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK)
    assert "The folder '.' cannot be written to." in dry(*words, code=1).stderr
