"""The command line: what it prints, where, with which exit code, and what it leaves behind when it fails."""

import json
import re
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import snnc
from snnc import api
from snnc.cli import main, show
from snnc.measure.evaluate import shown_steps

SHAPE = (2, 6, 6)
SHAPED = ("--input-shape", "2,6,6")


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(4, 4, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4, 3),
    ).eval()


class Unconvertible(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.bound, self.fc2 = nn.Linear(4, 4), nn.Threshold(0.5, 0.0), nn.Linear(4, 3)

    def forward(self, x):
        x = self.fc1(x)
        return self.fc2(self.bound(x) + torch.dropout(x, 0.5, True))


def unconvertible():
    return Unconvertible()


def broken():
    raise OSError("no disk")


def not_finite():
    model = net()
    model[0].weight.data[0, 0, 0, 0] = float("nan")
    return model


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder of its own, with what most commands want."""
    monkeypatch.chdir(tmp_path)
    torch.save(net(), "ann.pt")
    torch.save(net().state_dict(), "weights.pt")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, *SHAPE)).astype("float32")
    y = net()(torch.from_numpy(x)).argmax(1).numpy()
    np.savez("data.npz", x=x, y=y)
    np.savez("unlabelled.npz", x=x)
    np.savez("empty.npz", x=x[:0], y=y[:0])
    np.savez("narrow.npz", x=x[..., :3], y=y)
    np.savez("wrong.npz", x=x[:, :1], y=y)
    np.savez("nan.npz", x=np.where(x > 2, np.nan, x), y=y)
    np.savez("classes.npz", x=x, y=y + 5)
    Path("cut.pt").write_bytes(Path("ann.pt").read_bytes()[:1500])
    Path("empty.pt").touch()
    Path("folder").mkdir()
    Path("mine.toml").write_text(snnc.recipe("opi").to_toml())
    return tmp_path


def run(*args, code=0):
    result = CliRunner().invoke(main, [str(a) for a in args])
    assert result.exit_code == code, result.output
    return result


def parsed(*args, code=0):
    return json.loads(run(*args, "--json", code=code).stdout)


def compiled(*args):
    run("compile", "ann.pt", "--calib", "data.npz", "--T", 4, *args)


@pytest.fixture(scope="module")
def spiking():
    """The content of a compiled file, made once."""
    return {}


@pytest.fixture
def ready(spiking):
    """`ready.snn`."""
    if not spiking:
        compiled("--recipe", "cos", "-o", "ready.snn")
        spiking["ready.snn"] = Path("ready.snn").read_bytes()
    Path("ready.snn").write_bytes(spiking["ready.snn"])


# ---- what works


def test_compile_says_what_it_did():
    result = run("compile", "ann.pt", "--calib", "data.npz", "--calib-samples", 20, "--T", 4)
    assert "Recipe: best (there is calibration data)" in result.stdout
    assert "20 samples of data.npz" in result.stdout
    assert all(name in result.stdout for name in ("fold-batchnorm", "insert-neurons", "calibrate-weights"))
    assert "Latency: 4 steps (streaming)" in result.stdout
    assert "Wrote ann.snn" in result.stdout
    assert "Error" not in result.stderr
    assert "No calibration data" not in result.stderr
    assert snnc.load("ann.snn").info["calibration_samples"] == 20


def test_compile_without_data_says_what_that_costs():
    result = run("compile", "ann.pt", "--time-steps", 4, *SHAPED)
    assert "Recipe: data-free (there is no calibration data)" in result.stdout
    assert "lower accuracy" in result.stderr
    assert "--calib DATA" in result.stderr


def test_the_default_number_of_steps_is_8():
    run("compile", "ann.pt", *SHAPED)
    assert snnc.load("ann.snn").T == 8


def test_a_network_with_its_own_bounds_gets_qcfs():
    result = run("compile", "--factory", "tests.cli.test_cli:clipped", "--calib", "data.npz", "--json")
    assert json.loads(result.stdout)["recipe"] == "qcfs"
    assert json.loads(result.stdout)["why"] == "the network brings its own clip bounds"
    assert "takes nothing from the calibration data" in result.stderr
    assert Path("clipped.snn").is_file()


def clipped():
    model = net()
    model[2] = snnc.ir.dialect.ClipQuant(torch.tensor(2.0), 4)
    model[5] = snnc.ir.dialect.ClipQuant(torch.tensor(2.0), 4)
    return model


def test_compile_gives_what_the_library_gives():
    compiled()
    x = np.load("data.npz")["x"]
    wanted = snnc.compile(net(), T=4, calibration=x)
    assert torch.equal(snnc.load("ann.snn")(torch.from_numpy(x)), wanted(torch.from_numpy(x)))


def test_options_of_a_recipe_can_be_set():
    sets = [
        "--set",
        "calibrate-offset.rho=2",
        "--set",
        "scale-thresholds.rule=max",
        "--set",
        "calibrate-offset.guard=false",
    ]
    info = parsed("compile", "ann.pt", "--recipe", "cos", "--calib", "data.npz", *sets)
    options = {r["name"]: r["options"] for r in info["records"]}
    assert options["calibrate-offset"] == {"rho": 2, "iterations": 1, "guard": False, "eps": 0.001}
    assert options["scale-thresholds"]["rule"] == "max"
    assert info["recipe"] == "cos, changed"
    assert "rho = 2" in info["recipe_text"]


def test_a_printed_recipe_can_be_used():
    Path("mine.toml").write_text(run("list", "recipes", "opi").stdout.replace('"opi"', '"mine"'))
    result = parsed("compile", "ann.pt", "--recipe", "mine.toml", "--calib", "data.npz")
    assert (result["recipe"], result["why"]) == ("mine", "as asked for")


def test_the_same_seed_gives_the_same_network():
    for out in ("a.snn", "b.snn"):
        compiled("--calib-samples", 10, "--seed", 3, "-o", out)
    one, two = (snnc.load(p).graph.state_dict() for p in ("a.snn", "b.snn"))
    assert all(torch.equal(one[k], two[k]) for k in one)
    compiled("--calib-samples", 10, "--seed", 4, "-o", "c.snn")
    assert not all(torch.equal(v, one[k]) for k, v in snnc.load("c.snn").graph.state_dict().items())


def test_weights_need_a_factory_and_get_one():
    run("compile", "weights.pt", "--factory", "tests.cli.test_cli:net", *SHAPED, "-o", "a.snn")
    run("compile", "-", "--factory", "tests.cli.test_cli:net", *SHAPED, "-o", "b.snn")
    x = torch.randn(3, *SHAPE)
    assert torch.equal(snnc.load("a.snn")(x), snnc.load("b.snn")(x))


def test_a_checkpoint_with_more_in_it_compiles_as_the_hints_say():
    weights = torch.load("weights.pt")
    ema = {f"net.{k}": v + 1 if v.is_floating_point() else v for k, v in weights.items()}
    content = {"model": weights, "ema": ema | {"head.weight": torch.ones(2)}, "acc": np.float64(93.1)}
    torch.save(content, "checkpoint.pt")
    words = ["check", "checkpoint.pt", "--factory", "tests.cli.test_cli:net"]
    assert "--key model" in run(*words, code=1).stderr
    assert "--leftover" in run(*words, "--key", "ema", code=1).stderr
    assert "'ema.net." in run(*words, "--key", "ema", "--leftover").stderr
    assert run(*words, "--key", "ema", "--leftover", "--quiet").stderr == ""
    run("compile", *words[1:], "--key", "model", *SHAPED, "-o", "a.snn")
    run("compile", "weights.pt", *words[2:], *SHAPED, "-o", "b.snn")
    x = torch.randn(3, *SHAPE)
    assert torch.equal(snnc.load("a.snn")(x), snnc.load("b.snn")(x))


def test_exported_programs_are_written_and_measured():
    info = parsed("compile", "ann.pt", "--calib", "data.npz", "--T", 4, "-o", "net.pt2")
    assert info["backend"] == "pt2"
    found = parsed("eval", "net.pt2", "--data", "data.npz")
    assert len(found["accuracy"]) == 4
    assert found["rates"] == {}
    assert "cannot be looked into" in run("inspect", "net.pt2").stdout
    assert parsed("inspect", "net.pt2")["recipe"] == "best"
    assert "already" in run("compile", "net.pt2", "-o", "b.pt2", code=1).stderr
    assert "Step" not in run("eval", "net.pt2", "--data", "data.npz").stderr


def test_backend_decides_the_suffix():
    run("compile", "ann.pt", "--backend", "pt2", *SHAPED)
    assert Path("ann.pt2").is_file()


@pytest.mark.parametrize("split", ["train", "test"])
def test_calibration_takes_the_training_split_and_evaluation_the_test_split(split):
    pytest.importorskip("PIL")
    from PIL import Image

    rng = np.random.default_rng(0)
    for part, count in (("train", 3), ("test", 2)):
        for label in "abc":
            Path("images", part, label).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 255, (6, 6), dtype="uint8")
                Image.fromarray(pixels).save(f"images/{part}/{label}/{i}.png")
    factory = ["--factory", "tests.cli.test_cli:grey"]
    info = parsed("compile", *factory, "--calib", "images", "-o", "a.snn")
    assert info["calibration_samples"] == 9
    assert parsed("eval", "a.snn", "--data", "images", "--mean", "0.5", "--std", "0.5")["samples"] == 6
    samples = {"train": 9, "test": 6}[split]
    assert parsed("eval", "a.snn", "--data", "images", "--split", split)["samples"] == samples


def grey():
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def test_check_says_that_it_converts():
    printed = run("check", "ann.pt", "--input-shape", "2,6,6").stdout
    assert "It converts." in printed
    assert "Compared with the module on 3 batches of random samples: the largest difference is " in printed
    found = parsed("check", "ann.pt")
    assert (found["compared"]["with"], found["compared"]["batches"]) == ("the module", [3, 1, 2])
    assert found["converts"] is True
    assert (found["layers"], found["activations"]) == ({"Conv2d": 2, "Linear": 1}, {"ReLU": 2})


def flat():
    return nn.Sequential(nn.ReLU(), nn.AvgPool2d(2))


def test_a_network_that_was_compared_with_nothing_says_so():
    flat_net = ("--factory", "tests.cli.test_cli:flat")
    why = "The graph was compared with nothing: no input shape is known, which --input-shape tells"
    for command in ("check", "inspect"):
        assert why in run(command, *flat_net).stdout
        assert why not in run(command, *flat_net, *SHAPED).stdout


def test_check_lists_every_blocker():
    result = run("check", "--factory", "tests.cli.test_cli:unconvertible", code=1)
    assert all(word in result.stdout for word in ("bound", "Threshold", "dropout", "ReLU"))
    found = parsed("check", "--factory", "tests.cli.test_cli:unconvertible", code=1)
    assert [b["op"] for b in found["blockers"]] == ["Threshold", "dropout"]
    assert all(b["why"] and b["hint"] and "test_cli.py:" in b["where"] for b in found["blockers"])


def test_compile_lists_every_blocker_too():
    result = run("compile", "--factory", "tests.cli.test_cli:unconvertible", "-o", "out.snn", code=1)
    assert all(word in result.stderr for word in ("2 things", "bound", "dropout"))
    assert result.stdout == ""
    assert not Path("out.snn").exists()


@pytest.mark.usefixtures("ready")
def test_inspect_shows_a_spiking_network():
    text = run("inspect", "ready.snn").stdout
    assert all(word in text for word in ("Recipe: cos", "Input: 2,6,6", "OffsetIF", "theta", "before", "after"))
    assert "Compared with the module on 3 batches of given samples: " in text
    found = parsed("inspect", "ready.snn")
    assert (found["kind"], found["T"], found["versions"]["snnc"]) == ("snn", 4, snnc.__version__)
    assert [n["type"] for n in found["neurons"]] == ["OffsetIF", "OffsetIF"]
    assert all(0 < n["theta"][0] <= n["theta"][1] for n in found["neurons"])
    assert [row["time"] for row in found["graph"]] == sorted(
        (row["time"] for row in found["graph"]), key=["before", "in", "after"].index
    )


def test_inspect_shows_the_graph_of_an_ann():
    text = run("inspect", "ann.pt", *SHAPED).stdout
    assert all(words in text for words in ("Not compiled yet", "Compared with the module on 3 batches of random"))
    found = parsed("inspect", "weights.pt", "--factory", "tests.cli.test_cli:net")
    assert (found["kind"], len(found["graph"])) == ("ann", 8)


@pytest.mark.usefixtures("ready")
def test_eval_compares_with_the_ann():
    found = parsed("eval", "ready.snn", "--data", "data.npz", "--ann", "ann.pt", "--batch", 7)
    assert (found["samples"], found["ann_accuracy"]) == (40, 100)  # the labels are the ANN's own
    assert found["agreement"] == found["accuracy"]
    assert len(found["accuracy"]) == found["T"] == 4
    assert found["operations"] > 0
    assert found["latency"]["schedule"] == "layer-synchronous"
    text = run("eval", "ready.snn", "--data", "data.npz", "--ann", "-", "--factory", "tests.cli.test_cli:net").stdout
    assert all(word in text for word in ("ANN: 100.00 %", "agreement", "synaptic operations", "Latency: 32 steps"))


@pytest.mark.usefixtures("ready")
def test_eval_takes_an_exported_program_as_the_ann():
    torch.export.save(torch.export.export(net(), (torch.randn(1, *SHAPE),)), "ann.pt2")
    assert parsed("eval", "ready.snn", "--data", "data.npz", "--ann", "ann.pt2", "--batch", 1)["ann_accuracy"] == 100


def test_an_exported_program_says_which_samples_it_takes():
    torch.export.save(torch.export.export(net(), (torch.randn(2, *SHAPE),)), "ann.pt2")
    said = run("compile", "ann.pt2", "--calib", "wrong.npz", code=1).stderr
    assert "takes samples of shape 2,6,6, not 1,6,6" in said
    assert "the samples of wrong.npz have shape 1,6,6" in said
    assert parsed("check", "ann.pt2", "--input-shape", "2,6,6")["converts"]
    assert parsed("compile", "ann.pt2")["input_shape"] == [2, 6, 6]


@pytest.mark.usefixtures("ready")
def test_eval_can_be_limited():
    assert parsed("eval", "ready.snn", "--data", "data.npz", "--limit", 5, "--chunk", 1)["samples"] == 5


def test_chunks_do_not_change_what_eval_finds():
    compiled("--recipe", "opi")
    few, many = (parsed("eval", "ann.snn", "--data", "data.npz", "--chunk", n) for n in (1, 10_000))
    assert few == many


def test_long_runs_are_tabled_at_powers_of_two():
    assert shown_steps(16) == list(range(1, 17))
    assert shown_steps(40) == [1, 2, 4, 8, 16, 32, 40]
    assert shown_steps(64) == [1, 2, 4, 8, 16, 32, 64]


@pytest.mark.parametrize("kind", ["passes", "recipes", "backends", "neurons"])
def test_list_tells_all_about_one(kind):
    rows = parsed("list", kind)[kind]
    assert rows
    text = run("list", kind).stdout
    for row in rows:
        assert row["name"] in text
        assert row["summary"]
        assert run("list", kind, row["name"]).stdout.strip() == row["text"].strip()
        assert parsed("list", kind, row["name"]) == row


def test_list_lists_everything():
    found = parsed("list")
    assert [r["name"] for r in found["passes"]] == list(snnc.PASSES)
    options = {o["name"]: o for o in next(r for r in found["passes"] if r["name"] == "calibrate-offset")["options"]}
    assert options["rho"]["default"] == 4
    assert all(row["source"] for kind in ("passes", "recipes") for row in found[kind])
    assert "scale-thresholds" in run("list").stdout


# ---- what does not


FAILURES = {
    "no such model": ("compile nothing.pt", 1, "nothing.pt does not exist"),
    "cut model": ("compile cut.pt", 1, "cut.pt is cut short or damaged"),
    "empty model": ("compile empty.pt", 1, "empty.pt is empty"),
    "a folder as model": ("compile folder", 1, "folder is a folder"),
    "data as model": ("compile data.npz", 1, "data.npz"),
    "weights alone": ("compile weights.pt", 1, "--factory"),
    "no such factory": ("compile --factory tests.cli.test_cli:nett", 1, "nett"),
    "a factory that breaks": ("compile --factory tests.cli.test_cli:broken", 1, "no disk"),
    "weights that are not finite": ("compile --factory tests.cli.test_cli:not_finite", 1, "NaN"),
    "a pass that the recipe lacks": (
        "compile ann.pt --set calibrate-offset.rho=8",
        1,
        "has no pass 'calibrate-offset'.\nTry: --recipe cos",
    ),
    "a recipe with a typo": ("compile ann.pt --recipe coss", 1, "There is no recipe 'coss'.\nTry: 'cos'"),
    "no such recipe file": ("compile ann.pt --recipe no.toml", 1, "no.toml"),
    "no such pass": ("compile ann.pt --set calibrate-ofset.rho=2", 1, "Try: 'calibrate-offset'"),
    "no such option": ("compile ann.pt --recipe cos --set calibrate-offset.ro=2", 1, "Try: 'rho'"),
    "a value that does not fit": ("compile ann.pt --recipe cos --set calibrate-offset.rho=much", 1, "'much'"),
    "a setting without a value": ("compile ann.pt --set calibrate-offset.rho", 2, "PASS.OPTION=VALUE"),
    "a recipe without its data": ("compile ann.pt --recipe cos", 1, "needs calibration data"),
    "T of 0": ("compile ann.pt --T 0", 2, "0 is not in the range"),
    "T that is no number": ("compile ann.pt --T many", 2, "'many' is not a valid integer"),
    "no samples": ("compile ann.pt --calib data.npz --calib-samples 0", 2, "--calib-samples"),
    "a shape that is none": ("compile ann.pt --input-shape 3x32", 2, "'3x32' is not C,H,W"),
    "a shape of zero": ("compile ann.pt --input-shape 0,6,6", 2, "below 1"),
    "no model at all": ("compile", 2, "Give MODEL"),
    "no such backend": ("compile ann.pt --backend onyx", 2, "onyx"),
    "no such data": ("compile ann.pt --calib no.npz", 1, "no.npz does not exist"),
    "empty data": ("compile ann.pt --calib empty.npz", 1, "empty.npz"),
    "data that is not finite": ("compile ann.pt --calib nan.npz", 1, "NaN"),
    "data with too few channels": ("compile ann.pt --calib wrong.npz", 1, "(1, 6, 6)"),
    "data of the wrong size": ("compile ann.pt --calib narrow.npz", 1, "the samples of narrow.npz have shape 2,6,3"),
    "data of another shape than said": ("compile ann.pt --calib data.npz --input-shape 2,8,8", 1, "not 2,8,8"),
    "no shape where one is needed": ("compile ann.pt --backend pt2", 1, "--input-shape"),
    "a mean that does not fit": ("compile ann.pt --calib data.npz --mean 0.5,0.5,0.5", 1, "2 channels"),
    "a mean that is none": ("compile ann.pt --calib data.npz --mean grey", 2, "'grey' is not a,b,c"),
    "no folder to write to": ("compile ann.pt -o missing/out.snn", 1, "There is no folder 'missing'"),
    "a folder to overwrite": ("compile ann.pt -o folder", 1, "'folder' is a folder"),
    "the recipe": ("compile ann.pt --recipe mine.toml -o mine.toml", 1, "would overwrite"),
    "the model itself": ("compile ann.pt -o ann.pt", 1, "would overwrite"),
    "the data itself": ("compile ann.pt --calib data.npz -o data.npz", 1, "would overwrite"),
    "check of nothing": ("check nothing.pt", 1, "nothing.pt does not exist"),
    "check of a spiking network": ("check ready.snn", 1, "already"),
    "compiling twice": ("compile ready.snn -o out.snn", 1, "already"),
    "inspect of nothing": ("inspect nothing.snn", 1, "nothing.snn does not exist"),
    "inspect of a cut file": ("inspect cut.snn", 1, "cut.snn is cut short or damaged"),
    "eval of an ANN": ("eval ann.pt --data data.npz", 1, "ann.pt"),
    "eval without data": ("eval ready.snn", 2, "--data"),
    "eval without labels": ("eval ready.snn --data unlabelled.npz", 1, "no labels"),
    "eval of no samples": ("eval ready.snn --data empty.npz", 1, "empty.npz"),
    "eval of other samples": ("eval ready.snn --data wrong.npz", 1, "the network takes [B, 2, 6, 6]"),
    "eval of other classes": ("eval ready.snn --data classes.npz", 1, "3 classes"),
    "eval of NaN": ("eval ready.snn --data nan.npz", 1, "NaN"),
    "eval against nothing": ("eval ready.snn --data data.npz --ann nothing.pt", 1, "nothing.pt does not exist"),
    "eval in no batches": ("eval ready.snn --data data.npz --batch 0", 2, "--batch"),
    "list of unknown things": ("list things", 2, "things"),
    "list of an unknown recipe": ("list recipes coss", 1, "There is no recipe 'coss'.\nTry: 'cos'"),
    "list of an unknown pass": ("list passes fold", 1, "There is no pass 'fold'"),
    "no such command": ("compil ann.pt", 2, "compil"),
    "no such option of a command": ("compile ann.pt --steps 4", 2, "--steps"),
}


@pytest.mark.usefixtures("ready")
@pytest.mark.parametrize("name", FAILURES)
def test_failures(name):
    command, code, wanted = FAILURES[name]
    Path("cut.snn").write_bytes(Path("ready.snn").read_bytes()[:2000])
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    result = run(*command.split(), code=code)
    assert wanted in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.output
    assert "Unexpected" not in result.output
    if code == 1:
        assert len(re.findall("^Error: ", result.stderr, re.MULTILINE)) == 1
        assert "Try: " in result.stderr or "it takes" in result.stderr
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_errors_leave_stdout_to_json():
    assert run("compile", "nothing.pt", "--json", code=1).stdout == ""


def test_debug_adds_the_traceback():
    assert "Traceback" in run("compile", "nothing.pt", "--debug", code=1).stderr


def test_what_nobody_expected_is_one_sentence(monkeypatch):
    def surprise(*_, **__):
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr(api, "compile", surprise)
    result = run("compile", "ann.pt", *SHAPED, code=1)
    assert "Unexpected ZeroDivisionError: division by zero" in result.stderr
    assert "--debug" in result.stderr
    assert "Traceback" not in result.stderr
    assert "Traceback" in run("compile", "ann.pt", *SHAPED, "--debug", code=1).stderr


@pytest.mark.parametrize("problem", [KeyboardInterrupt, OSError("no space left"), ValueError("torch broke")])
def test_a_file_is_written_whole_or_not_at_all(monkeypatch, problem):
    def half(path, content):
        with path.open("wb") as file:
            file.write(b"half a file")
        raise problem

    Path("out.snn").write_text("what was there")
    before = sorted(Path().iterdir())
    monkeypatch.setattr(Path, "write_bytes", half)
    result = run("compile", "ann.pt", *SHAPED, "-o", "out.snn", code=130 if problem is KeyboardInterrupt else 1)
    assert "Error: " in result.stderr
    assert Path("out.snn").read_text() == "what was there"
    assert sorted(Path().iterdir()) == before


def test_a_failed_pass_says_how_far_it_came(monkeypatch):
    result = run("compile", "ann.pt", "--calib", "data.npz", "--set", "quantize-activations.bound=trained", code=1)
    assert "Pass 'quantize-activations' failed" in result.stderr
    assert "Passes before it: fold-batchnorm, piecewise-activations." in result.stderr


def test_torch_is_kept_quiet(monkeypatch):
    import warnings

    def chatty(*_, **__):
        warnings.warn("deprecated in torch 3", FutureWarning, stacklevel=1)
        return original(*_, **__)

    original = api.save
    monkeypatch.setattr(api, "save", chatty)
    assert "deprecated" not in run("compile", "ann.pt", *SHAPED).output


def test_no_file_drives_the_terminal(capsys):
    show.say("\x1b[2J\x07evil [bold]name[/bold] :smile:")
    show.table("Title", ["name"], [["\x1b]0;x\x07"]])
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "?[2J?evil [bold]name[/bold] :smile:" in text


def test_progress_passes_everything_on(monkeypatch, capsys):
    monkeypatch.setattr(show, "PATIENCE", -1.0)
    monkeypatch.setattr(show, "REMINDER", -1.0)
    assert list(show.track(range(3), "counting")) == [0, 1, 2]
    assert list(show.track(iter("ab"), "reading", 2)) == ["a", "b"]
    assert list(show.track(iter("a"), "looking")) == ["a"]
    assert list(show.track(iter("ab"), "evaluating a.snn", 2)) == ["a", "b"]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "counting: 1 of 3, about 0 s left",
        "counting: 2 of 3, about 0 s left",
        "reading: 1 of 2, about 0 s left",
        "looking: 1",
        "evaluating a.snn: 1 of 2 batches, about 0 s left",
    ]


def test_quick_work_shows_no_progress(capsys):
    list(show.track(range(1000), "counting"))
    assert capsys.readouterr().err == ""


# ---- help, and the real thing


def commands():
    return [("", main), *((name, command) for name, command in main.commands.items())]


@pytest.mark.parametrize(("name", "command"), commands())
def test_everything_has_help(name, command):
    assert command.help
    assert command.get_short_help_str(100).endswith(".")
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
        else:
            assert re.search(rf"\b{parameter.human_readable_name}\b", command.help), parameter.name
    for option in ("-h", "--help"):
        assert "Usage:" in run(*name.split(), option).stdout


@pytest.mark.parametrize("name", main.commands)
def test_every_command_has_json_and_debug(name):
    assert {"as_json", "debug"} <= {p.name for p in main.commands[name].params}


def process(*args):
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-m", "snnc", *args],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(root)},
        check=False,
    )


def test_in_a_process_of_its_own():
    Path("mine.py").write_text(
        "from torch import nn\n\n\ndef build(width, classes=3):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(72, width), nn.ReLU(), nn.Linear(width, classes))\n"
    )
    args = ["compile", "--factory", "mine:build(4, classes=3)", "--calib", "data.npz", "--T", "2", "--json"]
    result = process(*args)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["out"] == "build.snn"
    assert snnc.load("build.snn").T == 2


def test_failing_in_a_process_of_its_own():
    result = process("eval", "nothing.snn", "--data", "data.npz")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "Error: nothing.snn does not exist.\nTry: check the path\n"
    assert process("--version").stdout == f"snnc, version {snnc.__version__}\n"
