"""Passes, neurons and recipes of a module that the user names. `docs/plugins.md` runs the commands."""

import importlib.metadata
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import snnc
from snnc import plugins
from snnc.cli import main
from snnc.ir.graph import SPEC
from tests.plugged import restored

SOURCE = '''
from dataclasses import dataclass

import snnc
from snnc.ir.dialect import register
from snnc.ir.graph import calls, replace
from snnc.ir.neurons import IF

RECIPES = ["halved.toml"]


@register("T", "theta", "v0", "leak")
class HalvedIF(IF):
    """Keeps `leak` of its potential."""

    def __init__(self, T, theta, v0, leak=0.5):
        super().__init__(T, theta, v0)
        self.leak = leak

    def step(self, state, current):
        return super().step(self.leak * state, current)


@dataclass(frozen=True)
class HalveNeurons(snnc.Pass):
    """Makes neurons leak."""

    name = "halve-neurons"
    takes = (snnc.Stage.SPIKING,)
    neuron = HalvedIF
    leak: float = 0.5

    def apply(self, graph, context):
        found = list(calls(graph, IF))
        for node, one in found:
            replace(graph, node, HalvedIF(one.T, one.theta, one.v0, self.leak))
        return len(found)
'''
RECIPE = 'name = "halved"\nsummary = "A leak."\nsource = "me"\nbase = "opi"\n[[insert]]\nname = "halve-neurons"\n'


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("halved.py").write_text(SOURCE)
    Path("halved.toml").write_text(RECIPE)
    with restored():
        yield


def run(*words, code=0):
    result = CliRunner().invoke(main, list(words))
    assert result.exit_code == code, result.output
    return result


def test_everything_of_a_module_works_and_its_files_name_it():
    brought = snnc.plugin("halved")
    assert (brought.passes, brought.neurons, brought.recipes) == (("halve-neurons",), ("HalvedIF",), ("halved",))
    assert snnc.plugin("halved") is brought
    x = torch.rand(8, 3, generator=torch.Generator().manual_seed(0))
    net = snnc.compile(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval(), 4, "halved", x)
    assert net.info["plugins"] == ["halved"]
    assert [type(one).__name__ for _, one in net.neurons()] == ["HalvedIF"]
    snnc.save(net, "net.snn")
    assert torch.equal(snnc.load("net.snn")(x), net(x))
    snnc.save(net, "net.pt2")
    plain = snnc.compile(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval(), 4, "opi", x)
    assert "plugins" not in plain.info


def test_the_command_line_loads_it_and_a_file_does_not():
    with restored():
        x = torch.rand(8, 3, generator=torch.Generator().manual_seed(0))
        snnc.plugin("halved")
        net = snnc.compile(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval(), 4, "halved", x)
        snnc.save(net, "net.snn")
    refused = run("inspect", "net.snn", code=1)
    assert "needs the plug-in 'halved', which has its 'HalvedIF'" in refused.stderr
    assert "--plugin halved" in refused.stderr
    shown = run("inspect", "net.snn", "--plugin", "halved")
    assert "Plug-ins: halved" in shown.stdout
    assert json.loads(run("list", "recipes", "halved", "--json").stdout)["summary"] == "A leak."


@pytest.mark.parametrize(
    ("source", "recipe", "name", "why"),
    [
        (SOURCE, RECIPE, "missing", "No module named"),
        (SOURCE, RECIPE, "halved.py", "not the name of a module"),
        ("1 / 0", RECIPE, "halved", "ZeroDivisionError"),
        ("import snnc", RECIPE, "halved", "brings no pass"),
        (SOURCE.replace("halve-neurons", "fold-batchnorm"), RECIPE, "halved", "a pass 'fold-batchnorm', and"),
        (SOURCE, RECIPE.replace('"halved"', '"opi"'), "halved", "a recipe 'opi', and"),
        (SOURCE, RECIPE + "nothing = 1", "halved", "'halve-neurons' 'nothing'"),
    ],
)
def test_a_module_that_does_not_fit_enters_nothing(source, recipe, name, why):
    Path("halved.py").write_text(source)
    Path("halved.toml").write_text(recipe)
    before = dict(snnc.PASSES), dict(SPEC)
    assert why in " ".join(run("list", "--plugin", name, code=1).stderr.split())
    assert (dict(snnc.PASSES), dict(SPEC)) == before


def test_installed_packages_announce_theirs(monkeypatch):
    def announced(group):
        assert group == "snnc.plugins"
        return [
            importlib.metadata.EntryPoint(name, name, group)
            for name in ("broken", "halved")  # the first is not there
        ]

    monkeypatch.setattr(plugins, "entry_points", announced)
    monkeypatch.setattr(plugins, "_looked", False)
    monkeypatch.syspath_prepend(".")
    result = run("list", "passes", "halve-neurons")
    assert "The installed plug-in 'broken' was left out." in result.stderr
    assert "Makes neurons leak." in result.stdout
