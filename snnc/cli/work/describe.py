"""What snnc holds, as plain data: what `--json` prints and what the tables are made of."""

from __future__ import annotations

import inspect
import re
from dataclasses import asdict, fields
from typing import Any

from torch import fx

from snnc.backends import BACKENDS
from snnc.backends.nir.targets import TARGETS
from snnc.ir.dialect import CONFIG
from snnc.ir.graph import TIMED, Stage, calls, phases
from snnc.ir.neurons import Neuron
from snnc.passes import PASSES
from snnc.recipes import names, recipe


def graph_rows(graph: fx.GraphModule, stage: Stage) -> list[dict[str, Any]]:
    """Every call of a graph; in a spiking one also where it stands: before, in or after time."""
    when = phases(graph) if stage in TIMED else {}
    return [
        {"name": node.name, "module": str(module), "inputs": [n.name for n in node.all_input_nodes]}
        | ({"time": when[node]} if when else {})
        for node, module in calls(graph)
    ]


def neuron_row(name: str, neuron: Neuron) -> dict[str, Any]:
    """A neuron layer and the ranges of its parameters."""
    theta, v0 = ([float(v.min()), float(v.max())] for v in (neuron.theta, neuron.v0))
    return {"name": name, "type": type(neuron).__name__, "channels": neuron.theta.numel(), "theta": theta, "v0": v0}


def passes() -> list[dict[str, Any]]:
    """Every pass with its options."""
    return [
        {
            "name": cls.name,
            "summary": _first_sentence(cls),
            "options": [{"name": f.name, "default": f.default, "takes": _kind(f.type)} for f in fields(cls)],
            "source": cls.source,
            "text": inspect.getdoc(cls),
        }
        for cls in PASSES.values()
    ]


def _kind(annotation: Any) -> str:
    return str(annotation).replace("Literal[", "").replace("]", "").replace('"', "'")


def recipes() -> list[dict[str, Any]]:
    """Every recipe that ships with snnc; `text` is its TOML."""
    found = map(recipe, names())
    return [
        {"name": r.name, "summary": r.summary, "needs_data": r.needs_data, "source": r.source, "text": r.to_toml()}
        for r in found
    ]


def backends() -> list[dict[str, Any]]:
    """Every backend."""
    return [{"name": b.name, "suffix": b.suffix, "summary": b.summary, "text": b.summary} for b in BACKENDS.values()]


def targets() -> list[dict[str, Any]]:
    """Every simulator and chip that NIR files can be shaped for."""
    return [
        {"name": one.name, "summary": one.summary, "tried": f"{one.tried} ({one.by})", "reader": one.reader or "",
         "text": "\n".join(f"{key}: {_plain(value)}" for key, value in asdict(one).items())}
        for one in TARGETS.values()
    ]  # fmt: skip


def _plain(value: Any) -> Any:
    return ", ".join(sorted(value)) if isinstance(value, frozenset) else value


def neurons() -> list[dict[str, Any]]:
    """Every neuron model."""
    return [
        {
            "name": cls.__name__,
            "streaming": cls.streaming,
            "parameters": ", ".join(CONFIG[cls]),
            "summary": _first_sentence(cls),
            "text": inspect.getdoc(cls),
        }
        for cls in CONFIG
        if issubclass(cls, Neuron)
    ]


def _first_sentence(cls: type) -> str:
    return re.split(r"(?<=[^.][.:])\s", " ".join((inspect.getdoc(cls) or "").split()))[0].rstrip(":")
