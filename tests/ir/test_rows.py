"""The dialect against every table: a module without a row fails here, and the failure names the file."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import snnc
from snnc.ir import dialect
from snnc.ir.graph import SPEC
from snnc.ir.neurons import IF
from snnc.ir.rows import MissingRow, Refusal, Refused, Table

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
    assert faults(kind) == []


def test_an_operation_without_rows_is_found_by_every_table(monkeypatch):
    """And each says which file to edit."""
    monkeypatch.setattr(dialect, "CONFIG", dict(dialect.CONFIG))
    dialect.register()(Square)
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


class Mine(IF):
    """A neuron of a plugin's."""


def test_subclasses():
    """One has the row of its base, but where a row writes down what a class computes."""
    one = torch.tensor(1.0)
    table = Table("rows", "snnc.ir.rows", {IF: "spikes", (nn.Linear, nn.ReLU): "other"})
    assert table(Mine(4, one, one)) == "spikes"
    assert table(nn.Linear(1, 1)) == table(nn.ReLU()) == "other"
    exact = Table("rows", "snnc.ir.rows", {IF: "spikes"}, exact=True)
    assert exact(IF(4, one, one)) == "spikes"
    assert exact.missing([IF, Mine]) == [Mine]
    with pytest.raises(MissingRow, match="'Mine' has no row"):
        exact(Mine(4, one, one))
