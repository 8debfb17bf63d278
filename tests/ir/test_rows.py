"""The dialect against every table: a module without a row fails here, and the failure names the file."""

import copy
import importlib
import math
import pkgutil
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import snnc
from snnc.errors import SnncError
from snnc.ir import dialect
from snnc.ir.graph import SPEC, Place, Stage, insert, remove
from snnc.ir.meter import Cost, Meter
from snnc.ir.neurons import IF, Neuron
from snnc.ir.rows import MissingRow, Refusal, Refused, Table
from snnc.ir.shapes import ALIKE
from snnc.networks.network import Network
from snnc.passes import FixedPoint, InsertNeurons
from snnc.passes.pipeline import Context, Pipeline
from tests.nets import quantized, sample

ROOT = Path(snnc.__file__).parent.parent


def tables() -> dict[str, Table]:
    """Every table of the package, by the dotted name of its variable."""
    found = {}
    for module in pkgutil.walk_packages(snnc.__path__, "snnc."):
        if module.name not in ("snnc.__main__", "snnc.runtime.gpu.kernels"):  # one runs the command, one needs triton
            home = importlib.import_module(module.name)
            found |= {f"{table.home}.{name}": table for name, table in vars(home).items() if isinstance(table, Table)}
    return found


TABLES = tables()


class Square(nn.Module):
    """An operation that nobody has told anything about."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x


def faults(kind: type[nn.Module]) -> list[str]:
    """The files that do not know a class, each with what it lacks."""
    found = [f"{table.file}: no row in '{table.name}'" for table in TABLES.values() if table.missing([kind])]
    if not any(kind in kinds for kinds in SPEC.values()):
        found.append("snnc/ir/graph.py: no stage of SPEC")
    return found


@pytest.mark.parametrize("kind", dialect.CONFIG, ids=lambda kind: kind.__name__)
def test_every_module_has_a_row_in_every_table(kind):
    found = faults(kind)
    assert not found, "\n".join((f"'{kind.__name__}' is unknown to:", *found))


def test_an_operation_without_rows_is_found_by_every_table(monkeypatch):
    """And each says which file to edit."""
    monkeypatch.setitem(dialect.CONFIG, Square, ())
    assert len(faults(Square)) == len(TABLES) + 1
    for table in TABLES.values():
        with pytest.raises(MissingRow, match=re.escape(f"'Square' has no row in the table '{table.name}'")) as raised:
            table(Square())
        assert table.file in raised.value.message
        assert (ROOT / table.file).exists()
        assert f"{table.home}.{table.name.upper()}.add(Square, ...)" in raised.value.hint


def test_contributors_are_told_of_every_table():
    """Those of one kind with the file in which they stand, and two that are no `Table`."""
    lines = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()
    told = [tuple(re.findall(r"`([^`]+)`", line)[:2]) for line in lines if re.match(r" +\| `[A-Z]+` \|", line)]
    wanted = {(table.name.upper(), table.file) for table in TABLES.values()}
    assert set(told) == wanted | {("CONFIG", "snnc/ir/dialect.py"), ("SPEC", "snnc/ir/graph.py")}
    assert len(told) == len(set(told))


@pytest.mark.parametrize("name", TABLES)
def test_a_table_stands_under_its_name(name):
    """What the hint says is what a user types."""
    assert name == f"{TABLES[name].home}.{TABLES[name].name.upper()}"


@pytest.mark.parametrize("name", TABLES)
def test_a_row_of_ones_own(name, monkeypatch):
    """What the hint of a missing row says, done."""
    table = TABLES[name]
    monkeypatch.setattr(table, "_rows", dict(table._rows))
    table.add(Square, Refusal("squares", "something else"))
    with pytest.raises(Refused, match="squares"):
        table(Square())


NO = Refusal("is not linear, and no neuron computes it", "the network without it")
ROWS = {
    "costs": Cost(),
    "counts": lambda module, bounds: None,
    "emitters": lambda at, module, x: at.op("Mul", x, x),
    "forms": lambda graph, node, module, facts: None,
    "gradients": NO,
    "integers": NO,
    "intervals": lambda module, inputs: (0.0, math.inf),
    "moments": lambda module, args: args[0],
    "places": Place(blind=False),
    "proofs": NO,
    "roles": NO,
    "rules": NO,
    "shapes": ALIKE,
    "values": lambda module: iter(()),
}


def test_rows_are_all_that_an_operation_needs(monkeypatch, tmp_path):
    """With rows it is compiled, counted, saved, loaded and written as ONNX; fixed point refuses it by name."""
    monkeypatch.setitem(dialect.CONFIG, Square, ())
    for stage, kinds in SPEC.items():
        monkeypatch.setitem(SPEC, stage, kinds | {Square})
    for table in TABLES.values():
        monkeypatch.setitem(table._rows, Square, ROWS[table.name])
    assert faults(Square) == []

    graph, shape = quantized("mlp", 4)
    last = next(iter(reversed(graph.graph.nodes)))
    square = insert(graph, "square", Square(), last.all_input_nodes[0])
    last.replace_input_with(last.all_input_nodes[0], square)
    x = sample(shape)
    made = Pipeline((InsertNeurons(),)).run(graph, Context(T=4, input_shape=shape), Stage.QUANTIZED)
    network = Network(made.graph, {"input_shape": list(shape), "recipe": "test", "records": []}, stage=made.stage)
    meter = Meter(network.graph)
    logits = network.readout(x, observe=meter)[-1]
    assert sum(meter.operations.values()) > 0
    without = remove_last(network)
    assert torch.equal(logits, without(x).square())

    snnc.save(network, tmp_path / "squared.snn")
    assert torch.equal(snnc.load(tmp_path / "squared.snn")(x), network(x))
    snnc.save(network, tmp_path / "squared.onnx")
    assert torch.equal(torch.as_tensor(snnc.load(tmp_path / "squared.onnx")(x)), network(x))
    with pytest.raises(SnncError, match=r"'square' \(Square\) is not linear"):
        Pipeline((FixedPoint(),)).run(made.graph, Context(T=4, input_shape=shape), Stage.SPIKING)


def remove_last(network):
    """The network without its last operation."""
    graph = copy.deepcopy(network.graph)
    remove(graph, next(iter(reversed(graph.graph.nodes))).all_input_nodes[0])
    graph.recompile()
    return graph


class Mine(IF):
    """A neuron of a plugin's."""


def test_subclasses():
    """One has the row of its base, but where a row writes down what a class computes."""
    one = torch.tensor(1.0)
    table = Table("rows", "snnc.ir.rows", {IF: "spikes", (nn.Linear, nn.ReLU): "other"})
    assert table(Mine(4, one, one)) == "spikes"
    assert table(nn.Linear(1, 1)) == table(nn.ReLU()) == "other"
    exact = Table("rows", "snnc.ir.rows", {IF: "spikes", nn.Linear: "layer"}, exact=Neuron)
    assert exact(IF(4, one, one)) == "spikes"
    assert exact.missing([IF, Mine]) == [Mine]
    with pytest.raises(MissingRow, match="'Mine' has no row"):
        exact(Mine(4, one, one))
    assert exact.missing([nn.LazyLinear]) == []  # of other classes a row holds for subclasses too
