"""The page: findings to one HTML file that needs nothing else.

Templates are jinja2's, with autoescape on: whatever came from a user, a file or a network is text, never markup.
"""

from __future__ import annotations

from typing import Any

import jinja2

from snnc.explain.terms import TERMS
from snnc.markup import joule
from snnc.measure.evaluate import shown_steps
from snnc.report import charts
from snnc.report.chart import Chart
from snnc.report.drawing import BOX, HIGH, SLICE
from snnc.report.findings import Findings

HISTORY = (
    "recipe",
    "recipe_text",
    "T",
    "seed",
    "calibration_samples",
    "calibration_sha256",
    "input_shape",
    "tune",
    "search",
)
_SWATCH = {
    "circle": "M11 6m-3.2 0a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0 -6.4 0Z",
    "square": "M8 3h6v6h-6Z",
    "triangle": "M11 2l4 7h-8Z",
    "diamond": "M11 2l4 4l-4 4l-4 -4Z",
}


def html(found: Findings) -> str:
    """The page of a report."""
    return (
        environment()
        .get_template("report.html")
        .render(
            f=found,
            info=_history(found.info),
            charts=drawn(found),
            latency=found.evaluation.latency,
            steps=shown_steps(found.evaluation.latency.T),
            remarks=found.remarks,
            afterwards=afterwards(_history(found.info)),
        )
    )


def environment() -> jinja2.Environment:
    """Templates with the filters that they use; undefined names are errors."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("snnc.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"short": short, "count": count, "joule": joule, "three": three, "percent": percent}
    made.globals |= {
        "swatch": swatch,
        "interval": charts.interval,
        "terms": TERMS,
        "width": BOX,
        "height": HIGH,
        "slice": SLICE,
    }
    return made


def drawn(found: Findings) -> dict[str, Any]:
    """The charts of a report by name; those of single layers in lists."""
    whole: dict[str, Chart] = {"accuracy": charts.accuracy(found.evaluation, found.limit, found.measure)}
    if found.explanation:
        whole["errors"] = charts.errors(found.explanation)
        if not found.explanation.calibrated:
            whole["effects"] = charts.effects(found.explanation)
    if found.evaluation.rates:
        whole["rates"] = charts.rates(found.evaluation.rates)
    if found.thresholds:
        whole["thresholds"] = charts.thresholds(found.thresholds)
    if len({(turn.start, turn.read, turn.end) for turn in found.turns}) > 1:  # otherwise all bars are alike
        whole["schedule"] = charts.schedule(found.turns)
    several = {
        "rasters": [charts.raster(r) for r in found.rasters],
        "channels": [charts.channels(c) for c in found.channels],
        "scatters": [charts.scatter(s) for s in found.scatters],
    }
    return {**whole, **several}


def _history(info: dict[str, Any]) -> dict[str, Any]:
    """A network's history with every key that the template asks for; a file may lack any."""
    known: dict[str, Any] = dict.fromkeys(HISTORY)
    return {**known, "records": [], "versions": {}, **{k: v for k, v in info.items() if v is not None}}


def afterwards(info: dict[str, Any]) -> str:
    """What else than the recipe made a network, which compiling alone does not repeat; "" for nothing."""
    tune, search = info["tune"], info["search"]
    if isinstance(tune, dict):
        options = tune.get("options")
        told = ", ".join(f"{k} = {v}" for k, v in options.items()) if isinstance(options, dict) else "unknown options"
        return (
            "That is the conversion that training started from, or one like it. snnc tune then trained it in "
            f"{tune.get('steps')} steps, with {told}."
        )
    if search is not None:
        return (
            "The network was found by --max-drop, which calibrates on what it does not hold out: the same samples come "
            "from the same search alone."
        )
    return ""


def swatch(kind: str) -> str:
    """A series of the legend as a path, 22 by 12 pixels."""
    shape = kind.split()[-1]
    if shape in _SWATCH:
        return _SWATCH[shape]
    return "M1 6H21" if kind.startswith("line") else "M1 2H21V10H1Z"


def short(text: Any, length: int) -> str:
    """A text of at most `length` characters; what is left out is in the middle."""
    text = str(text)
    half = (length - 1) // 2
    return text if len(text) <= length else f"{text[: length - 1 - half]}…{text[len(text) - half :]}"


def count(value: float) -> str:
    """A number of operations, in thousands, millions and so on."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"


def three(values: tuple[float, float, float]) -> str:
    """A range, with its median."""
    return " · ".join(dict.fromkeys(f"{value:.4g}" for value in values))


def percent(value: float | None) -> str:
    """A percentage, or a dash."""
    return "-" if value is None else f"{value:.1f}"
