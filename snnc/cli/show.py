"""What the command line prints: tables and sentences on stdout, progress and trouble on stderr.

Everything here takes plain data, the same that `--json` prints. Text from files is stripped of control characters, so
that no file can drive the terminal.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from snnc.cli.tables import cell, clean, grids
from snnc.errors import PassFailed, SnncError, Unsupported
from snnc.markup import joule

if TYPE_CHECKING:
    from snnc.networks.base import Latency

Item = TypeVar("Item")

PATIENCE = 1.0  # seconds before progress is printed if there is no terminal to draw on
REMINDER = 10.0  # seconds between two such lines
FRAMES = {"mean": "their mean", "sum": "their sum", "each": "each of them"}
UNITS = {  # of what is counted, by what is done: its first word
    "evaluating": "batches", "explaining": "batches", "comparing": "batches", "measuring": "batches",
    "observing": "batches", "calibrating": "layers", "rounding": "layers", "choosing": "choices", "tuning": "steps",
}  # fmt: skip
out = Console(markup=False, highlight=False, emoji=False)
err = Console(markup=False, highlight=False, emoji=False, stderr=True)


_quiet = ContextVar("quiet", default=False)


@contextmanager
def manner(quiet: bool, verbose: bool) -> Iterator[None]:
    """How much goes to stderr besides errors: nothing, or everything that the library logs."""
    logger, handler = logging.getLogger("snnc"), _Log()
    token, level = _quiet.set(quiet), logger.level
    if verbose:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        _quiet.reset(token)
        logger.removeHandler(handler)
        logger.setLevel(level)


class _Log(logging.Handler):
    """Log records as lines on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        say(f"{record.name}: {record.getMessage()}", "dim", err)


def say(text: str, style: str = "", console: Console = out) -> None:
    """One line, however long."""
    console.print(Text(clean(text), style), soft_wrap=True)


def note(text: str) -> None:
    """Something that the user should know, on stderr."""
    if not _quiet.get():
        say(text, "yellow", err)


def fail(message: str, hint: str = "") -> None:
    """What went wrong and what to try, on stderr."""
    say(f"Error: {message}", "bold red", err)
    if hint:
        say(f"Try: {hint}", "", err)


def error(problem: SnncError) -> None:
    """An error of snnc's own: every blocker where there are several, and how far the passes came."""
    found = problem.blockers if isinstance(problem, Unsupported) else ()
    if len(found) > 1:
        fail(f"{len(found)} things keep the network from being converted.")
        blockers([vars(b) for b in found], err)
        return
    fail(problem.message, problem.hint)
    if isinstance(problem, PassFailed) and problem.records:
        say(f"Passes before it: {', '.join(r.name for r in problem.records)}.", "dim", err)


def wrote(path: Path) -> None:
    """Says which file was written, in the process that wrote it."""
    from snnc.processes import rank

    if rank() == 0:
        say(f"Wrote {path} ({path.stat().st_size / 1000:,.0f} kB)", "green")


def as_json(content: Any) -> None:
    """`content` as JSON on stdout."""
    out.file.write(json.dumps(content, indent=2, default=str) + "\n")


def track(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """Passes `items` on and shows on stderr how far they are: a bar on a terminal, seldom a line elsewhere."""
    if _quiet.get():
        yield from items
        return
    if total is None and isinstance(items, Sized):
        total = len(items)
    start = time.monotonic()
    due = start + PATIENCE
    unit = UNITS.get(what.partition(" ")[0], "")
    with _bar() as bar:
        task = bar.add_task(what, total=total)
        for done, item in enumerate(items, 1):
            yield item
            bar.advance(task)
            if bar.disable and done != total and time.monotonic() > due:
                now = time.monotonic()
                due = now + REMINDER
                far = f"{done}{'' if total is None else f' of {total}'} {unit}".rstrip()
                left = f", about {(now - start) / done * (total - done):.0f} s left" if total else ""
                say(f"{what}: {far}{left}", "dim", err)


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=err, transient=True, disable=not err.is_terminal)


def busy(what: str) -> AbstractContextManager[Any]:
    """Says on a terminal what is going on, for work that cannot be counted."""
    return err.status(what) if err.is_terminal and not _quiet.get() else nullcontext()


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], console: Console = out) -> None:
    """A table, cut into as many parts as the terminal's width needs. Prints nothing if there are no rows.

    Without a terminal, and without COLUMNS, it is as wide as it needs to be.
    """
    rows = [tuple(row) for row in rows]
    if not rows:
        return
    say(title, "bold", console)
    bounded = console.is_terminal or "COLUMNS" in os.environ
    parts, width = grids(columns, rows, console.width if bounded else None)
    wide = console if bounded else Console(file=console.file, width=width, markup=False, highlight=False, emoji=False)
    for part in parts:
        wide.print(part)
        console.print()


def blockers(found: Sequence[Mapping[str, Any]], console: Console = out) -> None:
    """Everything that keeps a network from being converted."""
    columns = ("node", "op", "line", "why", "try")
    here = f"{Path.cwd()}/"
    rows = [(b["node"], b["op"], b["where"].removeprefix(here) or None, b["why"], b["hint"]) for b in found]
    table("What keeps it from being converted", columns, rows, console)


def fit(found: Mapping[str, Any]) -> None:
    """How a network suits a target."""
    kinds = ", ".join(f"{many} {kind}" for kind, many in found["faithful"].items())
    say(f"Target {found['target']} (tried: {found['tried']}): faithful {kinds or 'nothing'}", "bold")
    if found["left_out"]:
        say(f"Passes that it cannot have, and that are left out: {', '.join(found['left_out'])}")
    rows = [(m["level"], m["node"], m["op"], m["why"], m["hint"]) for m in found["misfits"]]
    table("What it does otherwise", ("", "node", "op", "why", "try"), rows)
    if not rows:
        say("It does all that the network means.", "green")


def records(made: Sequence[Mapping[str, Any]]) -> None:
    """What each pass did."""
    rows = [(r["name"], r["sites"], f"{r['seconds']:.2f}", r["stage"], r["error"]) for r in made]
    table("Passes", ("pass", "sites", "seconds", "stage", "error, if exact"), rows)
    for record in made:
        for one in record["notes"]:
            say(f"{record['name']}: {one}", "yellow")


def recipes(rows: Sequence[Mapping[str, Any]]) -> None:
    """Recipes that were tried on data."""
    if rows:
        columns = ("recipe", "agreement %", "error of the output", "cost", "")
        cells = [
            (r["recipe"], *_figures(r), "chosen" * r["chosen"]) if not r["failed"] else (r["recipe"], *"---", "failed")
            for r in rows
        ]
        table(f"Tried on {rows[0]['samples']} calibration samples that were held out", columns, cells)
        say(
            "The first within one point of the best. Cost: additions a sample, five for a multiply-accumulate.",
            "dim",
        )


def _figures(row: Mapping[str, Any]) -> tuple[str, str, str]:
    agreement = "-" if row["agreement"] is None else f"{row['agreement']:.1f}"
    return agreement, f"{row['error']:.4f}", f"{row['cost']:,.0f}"


def choices(rows: Sequence[Mapping[str, Any]]) -> None:
    """Options that were chosen on data, with the error of each value."""
    if rows:
        columns = ("option", "value: error of the output", "chosen")
        cells = [
            (
                r["option"],
                ", ".join(f"{v}: {e:.4f}" for v, e in zip(r["values"], r["errors"], strict=True)),
                r["chosen"],
            )
            for r in rows
        ]
        table(f"Chosen on {rows[0]['samples']} calibration samples that were held out", columns, cells)


def exits(rows: Sequence[Mapping[str, Any]], asked: float | None) -> None:
    """Accuracy against mean steps, where samples leave when they are sure."""
    if rows:
        cells = [
            (
                f"{r['confidence']:g}",
                f"{r['accuracy']:.2f}",
                f"{r['steps']:.2f}",
                "asked for" * (r["confidence"] == asked),
            )
            for r in rows
        ]
        table("Each sample read out when it is sure", ("confidence", "accuracy %", "mean steps", ""), cells)


def proof(rows: Sequence[Mapping[str, Any]]) -> None:
    """The bound of every layer of a fixed-point network."""
    columns = ("layer", "type", "bits", "largest integer", "bits below 2^24", "TF32", "bf16")
    safe = {True: "exact", False: "no", None: None}
    cells = [
        (r["name"], r["module"], r["bits"], r["bound"], r["headroom"], safe[r["tf32"]], safe[r["bf16"]]) for r in rows
    ]
    table("Proved: no integer reaches 2^24", columns, cells)


def neurons(layers: Sequence[Mapping[str, Any]]) -> None:
    """Neuron layers and the ranges of their parameters."""
    rows = [(n["name"], n["type"], n["channels"], _range(n["theta"]), _range(n["v0"])) for n in layers]
    table("Neurons", ("layer", "type", "parameters", "theta", "v0"), rows)


def _range(ends: Sequence[float]) -> str:
    low, high = ends
    return cell(float(low)) if low == high else f"{low:.4g} .. {high:.4g}"


def graph(rows: Sequence[Mapping[str, Any]]) -> None:
    """Every node of a graph, in order."""
    keys = ("name", "module", "inputs", *(("time",) if rows and "time" in rows[0] else ()))
    table("Graph", keys, [[", ".join(row[k]) if k == "inputs" else row[k] for k in keys] for row in rows])


def listing(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Everything of one kind: passes, recipes, backends or neurons."""
    keys = [key for key in (rows[0] if rows else ()) if key != "text"]
    table(title.capitalize(), [key.replace("_", " ") for key in keys], [[_entry(row[k]) for k in keys] for row in rows])


def _entry(value: Any) -> Any:
    """A value of a listing; an option as `name = default (what it takes)`."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return [_entry(one) for one in value]
    if isinstance(value, Mapping):
        return f"{value['name']} = {json.dumps(value['default'])} ({value['takes']})"
    return value


def shape(sizes: Sequence[Any]) -> str:
    """A shape as `--input-shape` takes it."""
    if sizes and all(isinstance(one, list | tuple) for one in sizes):
        return "+".join(map(shape, sizes))
    return ",".join(map(str, sizes))


def timing(latency: Latency) -> str:
    """How long one sample takes, as a sentence."""
    from snnc.ir.neurons import TWO_PASS

    if latency.steps == latency.T:
        return str(latency)
    before = "before them decide which neurons stay silent"
    more = before if latency.schedule == TWO_PASS else "more calibrate each layer"
    return f"{latency}; T = {latency.T} are read out" + (f", {latency.rho} {more}" if latency.rho else "")


def made(info: Mapping[str, Any], latency: str) -> None:
    """How a network was made and how long it takes."""
    data = info.get("calibration_samples")
    given = info.get("input_shape")
    versions = info.get("versions")
    say(f"Recipe: {info.get('recipe')}, " + (f"{data} calibration samples" if data else "no calibration data"))
    if isinstance(tune := info.get("tune"), Mapping):
        say(f"Trained: {tune.get('steps')} steps of snnc tune, after conversion")
    if given:
        say(f"Input: {shape(given)}")
    if isinstance(frames := info.get("frames"), Mapping):
        what = FRAMES.get(str(frames.get("of")))
        say(f"Frames: {frames.get('T')} a sample, one at each step; the network was trained on {what}")
    read = info.get("calibration")
    if isinstance(binning := read.get("binning") if isinstance(read, Mapping) else None, Mapping):
        size, sensor = binning.get("size"), binning.get("sensor")
        say(f"Events: binned by {binning.get('by')}, {size or 'equal parts'}, on {shape(sensor or [])} pixels")
    compared(info.get("compared"))
    say(f"Latency: {latency}")
    if isinstance(plugins := info.get("plugins"), list):
        say(f"Plug-ins: {', '.join(map(str, plugins))}")
    if isinstance(versions, Mapping):
        say(f"Made with: {', '.join(f'{name} {version}' for name, version in versions.items())}")


def beside_ann(outputs: Sequence[Mapping[str, Any]], scored: bool) -> None:
    """How far the outputs are from the ANN's; one output whose accuracy is known needs no more words."""
    from snnc.measure.evaluate import shown_steps

    if scored and len(outputs) < 2:
        return
    for one in outputs:
        rows = [
            (t, f"{one['error'][t - 1]:.2f}", "-" if one["agreement"] is None else f"{one['agreement'][t - 1]:.2f}")
            for t in shown_steps(len(one["error"]))
        ]
        title = f"Output '{one['name']}' [{', '.join(map(str, one['shape']))}] beside the ANN's, after each step"
        table(title, ("step", "error %", "agreement %"), rows)


def compared(record: Mapping[str, Any] | None) -> None:
    """How the graph was compared with the network it was read from; nothing of files that do not tell."""
    if record and record["with"] is None:
        say(f"The graph was compared with nothing: {record['why']}.", "yellow")
    elif record:
        on = f"{len(record['batches'])} batches of {record['samples']} samples"
        say(
            f"Compared with {record['with']} on {on}: the largest difference is {record['error']:.1g} of the largest "
            f"output, and rounding explains {record['bound']:.1g}."
        )


def evaluation(found: Mapping[str, Any]) -> None:
    """What `snnc.evaluate` measured, as plain data."""
    from snnc.measure.evaluate import shown_steps

    accuracy, agreement, ann = found["accuracy"], found["agreement"], found["ann_accuracy"]
    say(f"Samples: {found['samples']}")
    beside_ann(found["outputs"], bool(accuracy))
    if not accuracy:
        pass
    elif ann is not None:
        say(f"ANN: {ann:.2f} %")
        say(f"SNN: {accuracy[-1]:.2f} % ({accuracy[-1] - ann:+.2f})")
    else:
        say(f"SNN: {accuracy[-1]:.2f} %")
    columns = ["step", "accuracy %"] + (["to ANN", "agreement %"] if ann is not None else [])
    rows = []
    for t in shown_steps(len(accuracy)):
        beside = [f"{accuracy[t - 1] - ann:+.2f}", f"{agreement[t - 1]:.2f}"] if ann is not None else []
        rows.append([t, f"{accuracy[t - 1]:.2f}", *beside])
    if rows:
        table("Read out after each step", columns, rows)
    table("Spikes per neuron and step", ("layer", "rate"), [(k, f"{v:.4f}") for k, v in found["rates"].items()])
    if found["operations"] is not None:
        operations, macs = found["operations"], found["macs"]
        ratio = f" ({operations / macs:.2f} operations for each)" if macs else ""
        say(f"Per sample: {found['spikes']:,.0f} spikes, {operations:,.0f} synaptic operations;")
        say(f"the same layers of the ANN take {macs:,.0f} multiply-accumulates{ratio}.")
    if cost := found["energy"]:
        say("Energy per sample of the arithmetic, without memory:")
        for one in cost["prices"]:
            share = one["each"] / one["ann"]
            say(f"  {joule(one['each'])}, {share:.3f} of the ANN's {joule(one['ann'])} ({one['convention']})")
    say(f"Latency: {found['latency_text']}")
