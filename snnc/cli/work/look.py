"""What `snnc check`, `snnc inspect` and `snnc list` do."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from snnc.checks import one_of
from snnc.cli import show
from snnc.cli.blocks import Model
from snnc.cli.work import describe
from snnc.cli.work.sources import captured, compiled
from snnc.ir.graph import Stage
from snnc.measure.check import check as examine
from snnc.measure.check import sentences
from snnc.measure.suits import known


def check(
    model: Path | None, how: Model, input_shape: tuple[int, ...] | None, target: str | None, as_json: bool
) -> None:
    """See the command."""
    if target:
        known(target)
    network = how.load(model)
    with show.busy("reading the network"):
        found = examine(network, input_shape, target)
    if as_json:
        show.as_json(found.to_dict())
    elif found:
        show.say("It converts.", "green")
        for line in sentences(found.to_dict()):
            show.say(line)
        show.compared(found.compared or {})
        if found.fit:
            show.fit(asdict(found.fit))
    else:
        show.blockers([asdict(b) for b in found.blockers])
    if not found or (found.fit and not found.fit.runs):
        click.get_current_context().exit(1)


def inspect(file: Path | None, how: Model, input_shape: tuple[int, ...] | None, as_json: bool) -> None:
    """See the command."""
    net = compiled(file)
    if net is None:
        read = captured(how.load(file), None, input_shape)
        rows = describe.graph_rows(read.graph, Stage.ANN)
        if as_json:
            return show.as_json({"kind": "ann", "stage": Stage.ANN, "compared": read.compared, "graph": rows})
        show.say("Not compiled yet: an ANN, as snnc reads it.")
        show.compared(read.compared)
        return show.graph(rows)
    content = {**net.info, "kind": "snn", "latency": asdict(net.latency), "neurons": [], "graph": []}
    if net.looks_inside:
        content["neurons"] = [describe.neuron_row(name, neuron) for name, neuron in net.neurons()]
        content["graph"] = describe.graph_rows(net.graph, net.stage)
    if as_json:
        return show.as_json(content)
    show.made(net.info, show.timing(net.latency))
    show.records(net.info.get("records", []))
    show.proof(net.info.get("proof", []))
    show.neurons(content["neurons"])
    show.graph(content["graph"])
    if not net.looks_inside:
        show.say(f"{net.form}: it runs, but its graph cannot be looked into.")
    return None


def list_(kind: str | None, name: str | None, as_json: bool) -> None:
    """See the command."""
    known = {
        "passes": describe.passes(),
        "recipes": describe.recipes(),
        "backends": describe.backends(),
        "neurons": describe.neurons(),
        "targets": describe.targets(),
    }
    if kind and name:
        one = {row["name"]: row for row in known[kind]}[
            one_of(name, [row["name"] for row in known[kind]], kind.removesuffix("es" if kind == "passes" else "s"))
        ]
        return show.as_json(one) if as_json else show.say(one["text"].rstrip())
    chosen = {kind: known[kind]} if kind else known
    if as_json:
        return show.as_json(chosen)
    for title, rows in chosen.items():
        show.listing(title, rows)
    return None
