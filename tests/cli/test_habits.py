"""What users expect of any command line and any library: runs as files, quiet and loud, completion, logs."""

import json
import logging
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import fx, nn

import snnc
from snnc import api
from snnc.cli import main
from snnc.cli.config import _spellings
from snnc.cli.options import recipe_names
from snnc.ir.graph import Stage
from snnc.ir.graphfile import pack_graph
from snnc.recipes import names, toml


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 8), nn.ReLU(), nn.Linear(8, 3)
    ).eval()  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(network(), "model.pt")
    x = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8)).astype("uint8")
    np.savez("data.npz", x=x, y=np.arange(40) % 3)


def run(*words, **more):
    return CliRunner().invoke(main, [str(word) for word in words], **more)


def state(path):
    """Everything of a network but how long its passes took: rows, and the bytes of every tensor."""

    def plain(value):
        if isinstance(value, torch.Tensor):
            return value.dtype, value.shape, value.numpy().tobytes()
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items() if key != "seconds"}
        return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value

    net = api.load(path)
    return plain(pack_graph(net.graph, Stage.SPIKING, net.info))


# Runs as files


RUNS = [
    ("--recipe", "best", "--T", 3, "--calib-samples", 16, "--seed", 5, "--mean", "0.5", "--std", "0.25"),
    ("--recipe", "cos", "--set", "calibrate-offset.rho=2", "--set", "scale-thresholds.rule=percentile", "--raw"),
    ("--max-drop", 100, "--recipes", "opi,baseline", "--holdout", 12, "--time-steps", 2),
    (),
]


@pytest.mark.parametrize("words", RUNS)
def test_a_saved_run_gives_the_same_network(words):
    first = run("compile", "model.pt", "--calib", "data.npz", *words, "-o", "a.snn", "--save-config", "run.toml")
    assert first.exit_code == 0, first.output
    again = run("compile", "--config", "run.toml", "-o", "b.snn")
    assert again.exit_code == 0, again.output
    assert state("a.snn") == state("b.snn")
    assert "SHA-256" not in again.stderr


def test_a_saved_run_names_every_option_and_what_went_in():
    run("compile", "model.pt", "--calib", "data.npz", "--T", 4, "-o", "a.snn", "--save-config", "run.toml")
    content = tomllib.loads(Path("run.toml").read_text())
    assert content["command"] == "compile"
    assert content["options"]["T"] == 4
    assert content["options"]["seed"] == 0  # defaults too: a later version may have others
    assert set(content["options"]) <= set(_spellings(main.commands["compile"]))
    assert set(content["sha256"]) == {"model.pt", "data.npz"}
    assert content["versions"]["torch"] == str(torch.__version__)


def test_what_is_given_wins_over_the_file():
    run("compile", "model.pt", "--T", 4, "-o", "a.snn", "--save-config", "run.toml")
    assert run("compile", "--config", "run.toml", "--T", 2).exit_code == 0
    assert api.load("a.snn").T == 2


def test_a_changed_file_is_told():
    run("compile", "model.pt", "--calib", "data.npz", "--recipe", "opi", "-o", "a.snn", "--save-config", "run.toml")
    x = np.zeros((40, 1, 8, 8), dtype="uint8")
    np.savez("data.npz", x=x + np.arange(64, dtype="uint8").reshape(8, 8))
    again = run("compile", "--config", "run.toml")
    assert "'data.npz' is not the file that the saved run had" in again.stderr
    assert "data.npz" not in run("compile", "--config", "run.toml", "--quiet").stderr


def test_a_run_is_saved_over_what_it_saved_before():
    words = ("compile", "model.pt", "--recipe", "data-free", "--input-shape", "1,8,8", "-o", "a.snn")
    for _ in range(2):
        assert run(*words, "--save-config", "run.toml").exit_code == 0
    for taken in ("a.snn", "model.pt"):
        before = Path(taken).read_bytes()
        refused = run(*words, "--save-config", taken)
        assert refused.exit_code == 1
        assert "a file of its own" in refused.stderr
        assert Path(taken).read_bytes() == before


@pytest.mark.parametrize("command", ["eval", "explain", "report", "compare", "tune", "verify"])
def test_other_commands_are_saved_too(command):
    run("compile", "model.pt", "--calib", "data.npz", "--recipe", "opi", "--T", 2, "-o", "a.snn")
    words = {"compare": ("a.snn", "a.snn"), "verify": ("a.snn", "a.snn"), "tune": ("model.pt", "--epochs", 1)}
    words = words.get(command, ("a.snn",))
    words += () if command == "tune" else ("--ann", "model.pt")
    words += () if command in ("eval", "explain", "verify") else ("-o", "out.file")
    first = run(command, *words, "--data", "data.npz", "--json", "--save-config", "run.toml")
    assert first.exit_code == 0, first.output
    again = run(command, "--config", "run.toml", "--json")
    assert again.exit_code == 0, again.output
    if command != "tune":  # it tells seconds
        shown, same = json.loads(first.stdout), json.loads(again.stdout)
        for one in (shown, same):
            one.pop("provenance", None)  # holds the command line, which is another
        assert shown == same


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("command = 'eval'", "not of"),
        ("command = 'compile'\n[options]\nsteps = 3", "There is no option"),
        ("command = 'compile'\n[optoins]", "There is no key"),
        ("command = 'compile'\noptions = 3", "are tables"),
        ("command = 'compile'\n[options]\nT = 'many'", "Invalid value"),
        ("command = 'compile'\n[options]\nmean = [true, {}]", "Invalid value"),
        ("= 3", "cannot be read as TOML"),
        (None, "cannot be read as TOML"),
    ],
)
def test_a_bad_file_is_refused(text, why):
    if text is not None:
        Path("run.toml").write_text(text)
    result = run("compile", "model.pt", "--config", "run.toml")
    assert result.exit_code == 2
    assert why in " ".join(result.output.split())
    assert not list(Path().glob("*.snn"))


def test_a_run_that_fails_is_not_saved():
    assert run("compile", "model.pt", "--recipe", "opi", "--save-config", "run.toml").exit_code == 1  # it needs data
    assert run("compile", "model.pt", "--save-config", "model.pt").exit_code == 1
    assert not Path("run.toml").exists()


def test_values_as_toml():
    for value in (1, 0.25, True, 'a "quoted" \\ text\n', ["a", "b"], [1.5, 2.0], []):
        assert tomllib.loads(f"v = {toml(value)}")["v"] == value


# Quiet, loud, and logs


def test_quiet_says_no_more_than_the_result():
    plain = run("compile", "model.pt", "-o", "a.snn")
    assert "thresholds are guessed" in plain.stderr
    quiet = run("compile", "model.pt", "-o", "a.snn", "--quiet")
    assert quiet.stderr == ""
    assert "Wrote a.snn" in quiet.stdout
    assert "Error" in run("compile", "nothing.pt", "-q").stderr
    assert run("compile", "model.pt", "-q", "-v").exit_code == 2


def test_verbose_says_what_is_done():
    loud = run("compile", "model.pt", "-o", "a.snn", "-v")
    assert "snnc.passes.pipeline: fold-batchnorm: 1 sites" in loud.stderr
    assert "snnc.api: wrote a.snn" in loud.stderr
    assert "snnc.passes.pipeline" not in run("compile", "model.pt", "-o", "a.snn").stderr


def test_the_library_logs_and_is_silent_by_itself(caplog):
    logger = logging.getLogger("snnc")
    assert [type(handler) for handler in logger.handlers] == [logging.NullHandler]
    with caplog.at_level("INFO", "snnc"):
        snnc.compile(network(), T=2, recipe="data-free", input_shape=(1, 8, 8))
    assert any("insert-neurons" in record.getMessage() for record in caplog.records)


# The same options everywhere


def options(command):
    return {option.opts[0] for option in main.commands[command].params}


def test_commands_that_run_networks_run_them_alike():
    scoring = ("eval", "explain", "report", "compare", "verify")
    shared = {"--data", "--split", "--mean", "--std", "--raw", "--limit", "--seed", "--ann", "--factory", "--allow"}
    shared |= {"--key", "--leftover", "--chunk", "--device", "--threads", "--runtime", "--config", "--save-config"}
    for command in scoring:
        assert shared <= options(command), command
    assert not any("--samples" in options(command) for command in main.commands)
    assert "--threads" in options("compile") & options("tune")


def test_a_former_name_still_works_and_is_not_shown():
    run("compile", "model.pt", "-o", "a.snn")
    words = ("explain", "a.snn", "--ann", "model.pt", "--data", "data.npz", "--json")
    assert run(*words, "--samples", 7).stdout == run(*words, "--limit", 7).stdout
    assert json.loads(run(*words, "--limit", 7).stdout)["samples"] == 7
    assert "--samples" not in run("explain", "-h").stdout
    Path("old.toml").write_text("command = 'explain'\n[options]\nsnn = 'a.snn'\nann = 'model.pt'\nsamples = 7\n")
    assert (
        run("explain", "--config", "old.toml", "--data", "data.npz", "--json").stdout
        == run(*words, "--limit", 7).stdout
    )


def test_a_limit_takes_the_first_samples_or_draws_them():
    run("compile", "model.pt", "-o", "a.snn")
    labels = np.arange(40) % 3
    np.savez("sorted.npz", x=np.zeros((40, 1, 8, 8), dtype="uint8"), y=np.sort(labels))

    def accuracy(*words):
        return json.loads(run("eval", "a.snn", "--data", "sorted.npz", "--json", *words).stdout)["accuracy"][-1]

    assert accuracy("--limit", 10) in (0, 100)  # one class alone
    assert 0 < accuracy("--limit", 30, "--seed", 0) < 100


def test_threads_are_set():
    before = torch.get_num_threads()
    try:
        run("compile", "model.pt", "-o", "a.snn", "--threads", 3)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_one_network_run_in_two_ways():
    run("compile", "model.pt", "-o", "a.snn")
    found = run("verify", "a.snn", "--data", "data.npz", "--runtime", "reference", "--strict")
    assert found.exit_code == 0, found.output
    assert "B: a.snn, by the runtime 'reference'" in found.stdout
    assert run("verify", "a.snn", "--data", "data.npz").exit_code == 2
    assert run("verify", "a.snn", "--data", "data.npz", "--stream", "--runtime", "fast").exit_code == 2


# Devices


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    run("compile", "model.pt", "-o", "a.snn")
    assert run("eval", "a.snn", "--data", "data.npz", "--device", "cpu").exit_code == 0
    for device, why in (
        ("cuda:77", "finds no device 'cuda:77'"),
        ("xyz", "'xyz' is no device"),
        ("x:y", "'x:y' is no device"),
    ):
        result = run("eval", "a.snn", "--data", "data.npz", "--device", device)
        assert result.exit_code == 1
        assert why in " ".join(result.output.split())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_eval_on_a_gpu():
    run("compile", "model.pt", "--calib", "data.npz", "--recipe", "opi", "-o", "a.snn")
    words = ("eval", "a.snn", "--ann", "model.pt", "--data", "data.npz", "--json", "--device")
    cpu, gpu = (json.loads(run(*words, device).stdout) for device in ("cpu", "cuda"))
    assert cpu["macs"] == gpu["macs"]
    assert abs(cpu["spikes"] - gpu["spikes"]) <= 1  # rounding may move one


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("command", ["explain", "report", "compare", "verify"])
def test_others_on_a_gpu(command):
    run("compile", "model.pt", "--calib", "data.npz", "--recipe", "opi", "-o", "a.snn")
    result = run(command, "a.snn", "--ann", "model.pt", "--data", "data.npz", "--device", "cuda")
    assert result.exit_code == 0, result.output


# Completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell):
    result = run(prog_name="snnc", env={"_SNNC_COMPLETE": f"{shell}_source"})
    assert result.exit_code == 0
    assert "_SNNC_COMPLETE" in result.stdout
    assert f"{shell}_complete" in result.stdout


def test_completion_offers_commands_options_and_recipes():
    def offered(words):
        env = {"_SNNC_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
        return run(prog_name="snnc", env=env).stdout

    assert "plain,compile" in offered("snnc comp")
    assert "plain,--max-drop" in offered("snnc compile --max")
    for words in ("compile --recipe best", "tune --recipe best", "compile --recipes best", "compare --recipes best"):
        assert "plain,best-graded" in offered(f"snnc {words}"), words
    assert "plain,cos,best-graded" in offered("snnc compare --recipes cos,best")
    assert [item.value for item in recipe_names(None, None, "")] == names()
    assert recipe_names(None, None, "mine.t")[0].type == "file"


# Notebooks


def test_notebooks_show_tables():
    net = snnc.compile(network(), T=2, recipe="data-free", input_shape=(1, 8, 8))
    shown = net._repr_html_()
    assert "recipe data-free, T = 2, 2 steps (streaming), 2 neuron layers" in shown
    assert all(f"<td>{record['name']}</td>" in shown for record in net.info["records"])
    net.info["recipe"] = net.info["records"][0]["name"] = "<script>"
    assert "<script>" not in net._repr_html_()
    pipeline = snnc.recipe("opi").pipeline
    assert pipeline._repr_html_().count("<tr>") == len(pipeline.passes) + 1
    assert "maxpool=running-max" in pipeline._repr_html_()
    result = snnc.Pipeline(pipeline.passes[:1]).run(snnc.capture(network()), snnc.Context(T=2))
    assert "Graph of stage FOLDED" in result._repr_html_()
    assert "<td>fold-batchnorm</td>" in result.records[0]._repr_html_()
    data = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
    found = snnc.compare({"a": net}, data, network())
    assert "<td>a</td>" in found._repr_html_()
    page = snnc.report(net, data, network(), title="<b>")
    assert page._repr_html_().startswith("<p><b>&lt;b&gt;: 4 samples</b></p>")


def test_notebooks_show_graphs(tmp_path):
    graph = snnc.capture(network())
    assert graph._repr_html_().count("<tr>") == 8
    assert "<td>Conv2d(1, 4, kernel_size=(3, 3), stride=(1, 1))</td>" in graph._repr_html_()
    net = snnc.compile(network(), T=2, recipe="data-free", input_shape=(1, 8, 8))
    loaded = snnc.load(snnc.save(net, tmp_path / "a.snn"))
    assert loaded.graph._repr_html_() == net.graph._repr_html_()
    assert "IF(T=2" in net.graph._repr_html_()
    assert not hasattr(fx.GraphModule(nn.Module(), fx.Graph()), "_repr_html_")  # other people's stay as they are
    staged = snnc.Staged(graph, Stage.ANN, {"recipe": "<script>"})
    assert "&lt;script&gt;" in staged._repr_html_()
    assert "<script>" not in staged._repr_html_()
