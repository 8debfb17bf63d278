"""The graph file: rows and modules as plain data and tensors.

Written by `torch.save`, read back with `weights_only=True` and no class allow-listed: nothing in the file can
run. Rows are `(name, type, inputs)` in topological order; modules are rebuilt from the dialect's table. One input and
one output are a name each. Several inputs are `[name, node]` each: what a caller passes it by, and what rows call it.
Several outputs are a tree of names (`snnc.structure.plain`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from snnc.errors import LoadError, SnncError
from snnc.ir.dialect import CONFIG, PLUGGED
from snnc.ir.graph import GraphBuilder, Stage, calls, entries, result, validate
from snnc.ir.packing import pack, unpack
from snnc.structure import built, plain

FORMAT, VERSION = "snnc-graph", 1


def pack_graph(graph: fx.GraphModule, stage: Stage, info: dict[str, Any]) -> dict[str, Any]:
    """The content of a graph file: plain data and tensors."""
    rows = [
        {"name": node.name, "inputs": [str(n) for n in node.args], "module": pack(module)}
        for node, module in calls(graph)
    ]
    first, *more = entries(graph)
    given: Any = [[str(node.target), node.name] for node in (first, *more)] if more else first.name
    return {
        "format": FORMAT,
        "version": VERSION,
        "stage": str(stage),
        "input": given,
        "rows": rows,
        "output": plain(result(graph), lambda node: node.name),
        "info": info,
        **_brought(graph),
    }


def unpack_graph(content: Any, where: str = "The file") -> tuple[fx.GraphModule, Stage, dict[str, Any]]:
    """The graph, its stage and its history from the content of a graph file. Trusts nothing in it.

    Raises:
        LoadError: the content does not describe a graph; says where.
    """
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise LoadError(f"{where} is not an snnc graph file.", "a file that 'snnc compile' wrote")
    version = content.get("version")
    if type(version) is not int or version != VERSION:
        known = f"of version {version}" if type(version) is int else "without a version"
        raise LoadError(
            f"{where} is a graph file {known}; this snnc reads version {VERSION}.",
            "the snnc that wrote it, or compile again",
        )
    _require(content.get("brought"), where)
    row_name = ""
    try:
        stage = Stage(content["stage"])
        build = GraphBuilder()
        given = content["input"]
        nodes = {node: build.input(name) for name, node in ([[given, given]] if isinstance(given, str) else given)}
        if any(made.name != name for name, made in nodes.items()):
            raise ValueError("the name of an input is taken")
        for row in content["rows"]:
            if not isinstance(row["name"], str):
                raise TypeError(f"a row's name is a {type(row['name']).__name__}")
            row_name = row["name"]
            nodes[row_name] = build.call(row_name, unpack(row["module"]), *(nodes[n] for n in row["inputs"]))
            if nodes[row_name].name != row_name:
                raise ValueError(f"the name '{row_name}' is taken")
        graph = build.finish(built(content["output"], lambda name: nodes[name]))
        validate(graph, stage)
        info = dict(content["info"])
        _check_plain(info)
    except SnncError as error:
        raise LoadError(f"{where} holds a broken graph: {error.message}", "compile again") from error
    except Exception as error:  # what a damaged file asks of torch can raise anything
        place = f" at {row_name!r}" if row_name else ""
        reason = (str(error).strip().splitlines() or [""])[0].rstrip(".")
        raise LoadError(
            f"{where} holds a broken graph{place}: {type(error).__name__}: {reason}.", "compile again"
        ) from error
    return graph, stage, info


def _brought(graph: fx.GraphModule) -> dict[str, Any]:
    """The modules that do not ship with snnc, and the plug-in that brought each; nothing where there are none."""
    kinds = {type(one) for one in graph.modules()} & set(CONFIG)
    found = {one.__name__: PLUGGED.get(one, one.__module__) for one in kinds}
    found = {name: home for name, home in sorted(found.items()) if home.partition(".")[0] not in ("snnc", "torch")}
    return {"brought": found} if found else {}


def _require(brought: Any, where: str) -> None:
    """Refuses a file whose modules come from a plug-in that is not loaded. Loads none: its code would run."""
    known = {cls.__name__ for cls in CONFIG}
    for name, home in brought.items() if isinstance(brought, dict) else ():
        if name not in known:
            raise LoadError(
                f"{where} needs the plug-in '{home}', which has its '{name}'.",
                f"--plugin {home}, or snnc.plugin('{home}') in Python, if you trust it",
            )


def _check_plain(value: Any) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _check_plain(key)
            _check_plain(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_plain(item)
    elif not (value is None or isinstance(value, str | int | float | bool | Tensor | torch.Size)):
        raise TypeError(f"a {type(value).__name__} in the history")
