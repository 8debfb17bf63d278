"""Targets: what each reads, what does not fit and what to change, and files that are shaped for one."""

import json

import nir
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import snnc
from snnc.backends import NirFile
from snnc.backends.nir.speck import over
from snnc.backends.nir.targets import TARGETS
from snnc.cli import main
from snnc.errors import LoadError, RecipeError, Unsupported
from snnc.measure.suits import reduced
from snnc.networks.network import Network
from snnc.readers.foreign import opened
from tests.backends.nir.test_nir import Shortcut, assert_same, build, fixed
from tests.nets import sample, spiking
from tests.zoo import dyadic

POOLS = {
    "two": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 2, 1)), {"SumPool2d"}),
    "padded": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AvgPool2d(2, 2, 1), nn.Conv2d(4, 2, 1)), set()),
    "global": (nn.Sequential(nn.Conv2d(3, 4, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
               {"SumPool2d"}),
    "last": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AvgPool2d(2)), {"SumPool2d"}),
}  # fmt: skip


class Mean(nn.Module):
    """The mean over a map as authors write it, and a join behind a pool."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, 2, 1)
        self.pool, self.end = nn.AvgPool2d(2), nn.Linear(4, 3)

    def forward(self, x):
        x = torch.relu(self.a(x))
        return self.end(torch.relu(self.b(x) + self.pool(x)).mean((2, 3)))


def shaped(graph, shape, target, tmp_path):
    net = Network(graph, {"input_shape": list(shape), "recipe": "test"})
    return net, snnc.save(net, tmp_path / "net.nir", NirFile(target))


def kinds(path):
    return {type(node).__name__ for node in nir.read(path).nodes.values()}


@pytest.mark.parametrize("name", POOLS)
def test_average_pools_become_sums_with_the_same_spikes(name, tmp_path):
    net, said = POOLS[name]
    net, path = shaped(build(net, 3, 8, 8), (3, 8, 8), "sinabs", tmp_path)
    assert_same(net, path, sample((3, 8, 8), 3))
    assert kinds(path) & {"AvgPool2d", "SumPool2d"} == said


@pytest.mark.parametrize("target", ["sinabs", "spikingjelly"])
@pytest.mark.parametrize("net", [Mean, Shortcut])
def test_means_joins_and_branches(net, target, tmp_path):
    net, path = shaped(build(net(), 3, 8, 8), (3, 8, 8), target, tmp_path)
    assert_same(net, path, sample((3, 8, 8), 3))


def test_heights_of_spikes_move_past_a_pool(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 3))
    _, path = shaped(build(net, 3, 8, 8), (3, 8, 8), "sinabs", tmp_path)
    assert [type(node).__name__ for node in nir.read(path).nodes.values()].count("Conv2d") == 1


def test_fixed_point_files_keep_their_thresholds(tmp_path):
    net = Network(fixed(), {"input_shape": [3, 8, 8]}, stage=snnc.Stage.FIXED)
    path = snnc.save(net, tmp_path / "net.nir", NirFile("snntorch"))
    assert sorted(set(nir.read(path).nodes["if1"].v_threshold.flatten())) == [5, 7, 11, 12]
    with pytest.raises(Unsupported, match="several thresholds, and spikingjelly takes one a layer") as caught:
        snnc.save(net, tmp_path / "other.nir", NirFile("spikingjelly"))
    assert "no --fixed-point" in caught.value.hint
    assert not (tmp_path / "other.nir").exists()


def levels(name, target, T=4):
    """What does not fit, of a network of the dialect, as (level, node, part of why)."""
    graph, shape = spiking(name, T)
    _, found = NirFile(target).drawn(Network(graph, {"input_shape": list(shape)}))
    return found, [(one.level, one.op, one.why) for one in found.misfits]


def test_every_target_says_what_it_does_with_a_network():
    """Thresholds of this one are powers of two, so what is left are the things for which a target has no place."""
    said = {name: {(level, why.split(",")[0]) for level, _, why in levels("mlp", name)[1]} for name in TARGETS}
    assert {name for name in TARGETS if not levels("mlp", name)[0].runs} == {"spinnaker2", "speck", "xylo"}
    assert {name for name, rows in said.items() if not rows} == {"nir", "spikingjelly", "snntorch", "sinabs", "norse"}
    begins = ("approximate", "its potentials start above 0")
    assert {name for name, rows in said.items() if begins in rows} == {
        "lava",
        "spinnaker2",
        "snn-mlir",
        "xylo",
        "hls4ml",
    }
    reset = ("approximate", "a spike takes the threshold from its potential")
    assert {name for name, rows in said.items() if reset in rows} == {"lava", "snn-mlir"}
    rounds = {name for name in TARGETS if any("no integers of 8 bits" in why for _, _, why in levels("mlp", name)[1])}
    assert rounds == {"spinnaker2", "speck", "xylo"}


def test_all_misfits_are_told_at_once():
    found, rows = levels("residual", "snn-mlir")
    assert not found.runs
    assert {level for level, _, _ in rows} == {"unsupported", "approximate"}
    assert [level for level, _, _ in rows] == sorted((level for level, _, _ in rows), reverse=True)
    assert sum("takes chains" in why for _, _, why in rows) >= 2
    assert all(one.hint for one in found.misfits)
    assert found.faithful["Conv2d"] > 1
    assert "IF" not in found.faithful  # each of them starts above 0


def test_a_target_without_a_readout_sums_it_up(tmp_path):
    """snn-mlir gives out what neurons do, and would drop the layers behind them; `I` is a neuron that adds up."""
    graph, shape = spiking("mlp", 4)
    snn = Network(graph, {"input_shape": list(shape)})
    path = snnc.save(snn, tmp_path / "net.nir", NirFile("snn-mlir"))
    found = nir.read(path)
    (last,) = (a for a, b in found.edges if b == "output")
    assert isinstance(found.nodes[last], nir.I)
    assert (found.nodes[last].r == 1).all()
    assert found.metadata["total"] in (last, last.encode())
    assert "adds up" in str(found.metadata["readout"])
    x = sample(shape, 3)
    assert torch.equal(snnc.load(path)(x), snn(x))
    with pytest.raises(LoadError, match="written for snn-mlir"):
        opened(path)
    assert "I" not in kinds(snnc.save(snn, tmp_path / "other.nir", NirFile("nir")))
    del found.metadata["total"]
    nir.write(path, found)
    with pytest.raises(Unsupported, match="total \\(I\\): snnc has no such node"):
        snnc.load(path)


@pytest.mark.parametrize("name", TARGETS)
def test_hints_name_targets_that_do_it(name):
    """Where a hint is another target, that one takes the network."""
    found, _ = levels("residual", name)
    named = {word for one in found.misfits for word in one.hint.split() if one.hint.startswith("--target")}
    for word in named - {"--target", "or"}:
        assert levels("residual", word)[0].runs, word


def test_what_speck_holds():
    """The published sizes: 16 x 16 kernels, 1024 channels, and pairs of memories."""

    def conv(channels, outputs, kernel, size, stride=1):
        weight = np.zeros((outputs, channels, kernel, kernel), "float32")
        return nir.Conv2d((size, size), weight, stride, 0, 1, 1, np.zeros(outputs, "float32"))

    assert not list(over(conv(2, 8, 3, 34)))
    assert "no core has both" in next(over(conv(64, 64, 3, 34)))  # 64 Ki of kernels, and as many of neurons
    assert "17 x 17" in next(over(conv(1, 1, 17, 34)))
    assert "stride is 3" in next(over(conv(2, 8, 3, 34, 3)))
    assert any("1025 output channels" in why for why in over(conv(1, 1025, 1, 2)))


def test_there_is_no_such_target():
    with pytest.raises(RecipeError, match="no target 'synabs'") as caught:
        NirFile("synabs")
    assert "'sinabs'" in caught.value.hint
    with pytest.raises(RecipeError, match="no target 'brain'") as caught:
        snnc.check(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)), (2,), target="brain")
    assert all(name in caught.value.hint for name in TARGETS)


def test_passes_that_no_file_can_have_are_left_out():
    whole = snnc.recipe("best")
    for name, left_out in {"best": ["even-currents"], "best-signed": ["use-signed-neurons", "even-currents"],
                           "opi": [], "cos": ["calibrate-offset"]}.items():  # fmt: skip
        chosen, found = reduced(snnc.recipe(name), 4)
        assert sorted(found) == sorted(left_out), name
        assert not set(left_out) & {one.name for one in chosen.pipeline}
        assert chosen.name == (f"{name} without {', '.join(found)}" if found else name)
    assert [one.name for one in whole.pipeline] == [one.name for one in snnc.recipe("best").pipeline]
    assert reduced(whole, 1)[1] == []  # a single step has no other to differ from


# The command line


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 3))
    torch.save(net, "net.pt")
    x = np.random.default_rng(0).standard_normal((24, 1, 6, 6)).astype("float32")
    np.savez("data.npz", x=x, y=np.arange(24) % 3)
    return tmp_path


def ran(*words, code=0):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


def test_check_lists_what_does_not_fit(files):
    said = json.loads(ran("check", "net.pt", "--input-shape", "1,6,6", "--target", "lava", "--json", code=1).stdout)
    rows = said["fit"]["misfits"]
    assert {(one["level"], one["op"]) for one in rows} >= {("unsupported", "Conv2d"), ("approximate", "IF")}
    assert said["fit"]["left_out"] == ["even-currents"]
    text = ran("check", "net.pt", "--input-shape", "1,6,6", "--target", "sinabs").stdout
    assert "faithful 1 Affine, 1 Conv2d, 1 Flatten" in text
    assert "--fixed-point" in text


def test_what_a_target_cannot_run_is_refused_before_calibration(files, monkeypatch):
    monkeypatch.setattr("snnc.api.compile", lambda *given, **more: pytest.fail("it was compiled"))
    words = ("compile", "net.pt", "--calib", "data.npz", "--T", 2, "-o", "net.nir")
    assert "spinnaker2 takes spikes" in ran(*words, "--target", "spinnaker2", code=1).stderr
    several = ran(*words, "--target", "spikingjelly", "--fixed-point", code=1).stderr
    assert "several thresholds" in " ".join(several.split())
    assert not (files / "net.nir").exists()
    wrong = ran(*words[:-1], "net.snn", "--target", "sinabs", code=2).stderr
    assert "--target is for NIR files" in " ".join(wrong.split())
    assert "no target 'sinab'" in ran(*words, "--target", "sinab", code=1).stderr


def test_a_dry_run_says_what_does_not_fit(files, monkeypatch):
    monkeypatch.setattr("snnc.api.compile", lambda *given, **more: pytest.fail("it was compiled"))
    said = ran("compile", "net.pt", "--calib", "data.npz", "--target", "norse", "--dry-run").stdout
    assert "Target norse" in said
    assert "best without even-currents" in said


def test_hints_are_followed(files):
    """Each hint of an approximate row takes that row away."""
    words = ("compile", "net.pt", "--calib", "data.npz", "--T", 2, "--quick", "-o", "net.nir", "--json")

    def rows(*more):
        found = json.loads(ran(*words, *more).stdout)["fit"]["misfits"]
        return {one["hint"] for one in found if not one["hint"].startswith("--target")}

    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.ReLU(), nn.Linear(5, 3)), "net.pt")
    for target in ("sinabs", "snn-mlir", "hls4ml"):
        hints = rows("--target", target)
        assert hints
        assert rows("--target", target, *" ".join(sorted(hints, reverse=True)).split()) == set()


def test_a_target_shapes_the_file_and_tells_what_that_cost(files):
    words = ("compile", "net.pt", "--calib", "data.npz", "--T", 4, "-o", "net.nir", "-o", "net.snn", "--vectors", 5)
    said = ran(*words, "--target", "sinabs").stdout
    assert "Left out for the target: even-currents." in said
    assert "of 24 calibration samples have the ANN's class and" in said
    assert kinds("net.nir") == {"Input", "Output", "Conv2d", "IF", "SumPool2d", "Flatten", "Affine"}
    assert nir.read("net.nir").metadata["target"] in ("sinabs", b"sinabs")
    assert snnc.load("net.snn").info["price"]["left_out"] == ["even-currents"]
    assert "The same" in ran("verify", "net.snn", "net.vectors.npz").stdout
    assert "The same" in ran("verify", "net.snn", "net.vectors.h5").stdout


def test_thresholds_are_powers_of_two_where_that_is_asked_for(tmp_path):
    net = dyadic(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3)))
    pipeline = snnc.recipe("opi").pipeline.set("insert-neurons", powers=True)
    x = sample((1, 5, 5), 8)
    snn = snnc.compile(net, 4, pipeline, x)
    ((_, neuron),) = snn.neurons()
    ((_, before),) = snnc.compile(net, 4, "opi", x).neurons()
    assert torch.equal(neuron.theta, 2 ** before.theta.log2().round())
    assert torch.equal(neuron.v0, neuron.theta / 2)
    assert not torch.equal(neuron.theta, before.theta)
    _, found = NirFile("spikingjelly").drawn(snn)
    assert found.misfits == []
    path = snnc.save(snn, tmp_path / "net.nir", NirFile("spikingjelly"))
    assert_same(snn, path, x)


def test_what_no_file_can_say_is_listed_with_the_rest(files):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 2, 1), nn.ReLU(), nn.Flatten())
    torch.save(net.append(nn.Linear(8, 3)), "net.pt")
    words = ("check", "net.pt", "--input-shape", "1,6,6", "--target", "snn-mlir", "--json")
    rows = json.loads(ran(*words, code=1).stdout)["fit"]["misfits"]
    assert ("unsupported", "RunningMax") in {(one["level"], one["op"]) for one in rows}
    assert ("approximate", "IF") in {(one["level"], one["op"]) for one in rows}
    refused = ran("compile", "net.pt", "--calib", "data.npz", "--target", "sinabs", "-o", "net.nir", code=1).stderr
    assert "NIR has no maximum" in refused
