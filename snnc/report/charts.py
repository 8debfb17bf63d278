"""The charts of a report, each from plain findings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from snnc.explain import Explanation
from snnc.explain.terms import TERMS
from snnc.measure.evaluate import Evaluation
from snnc.report.chart import SHAPES, Chart, Point, Scale, linear, logarithmic, rows
from snnc.report.look import Channels, Raster, Scatter, Threshold
from snnc.report.schedule import Turn


class PlottedRow(Protocol):
    """What a comparison is drawn from; see `snnc.report.compare.PlottedRow`."""

    @property
    def name(self) -> str:
        """What the network is called."""

    def by_step(self) -> list[tuple[int, int, float, float | None]]:
        """Step, latency, score and agreement."""

    def by_confidence(self) -> list[tuple[float, float]]:
        """Mean steps and accuracy of samples that leave when they are sure."""


ROOM = 1.05  # of the longest bar, so that it does not look cut
ROW = 15  # pixels of one layer
APART = 26  # of one whose markers stand apart
NAMES = 104  # pixels of its name


def interval(percent: float, samples: int) -> tuple[float, float]:
    """95 % interval (Wilson, 1927) of a share in % that was counted on so many samples."""
    z, p, n = 1.96, percent / 100, samples
    middle, wide = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return 100 * (middle - wide) / (1 + z * z / n), 100 * (middle + wide) / (1 + z * z / n)


def accuracy(found: Evaluation, limit: Mapping[int, float] | None, measure: str) -> Chart:
    """Accuracy after each step, between the ANN and the quantised limit."""
    T = len(found.accuracy)
    ends = [interval(a, found.samples) for a in found.accuracy]
    values = [v for pair in ends for v in pair] + list((limit or {}).values())
    values += [] if found.ann_accuracy is None else [found.ann_accuracy]
    early = sorted((one.steps - found.latency.steps + T, one.accuracy) for one in found.exits)
    values += [value for _, value in early]
    x = steps_axis("time step t that is read out", T)
    ends_at = [*ends[-1], found.accuracy[-1]] + ([] if found.ann_accuracy is None else [found.ann_accuracy])
    y = near(f"{measure} in %", values, ends_at)
    chart = Chart("Read out after each step", x, y, height=250)
    steps = range(1, T + 1)
    chart.area(
        "c1",
        [(t, a) for t, (a, _) in zip(steps, ends, strict=True)],
        list(zip(steps, (b for _, b in ends), strict=True)),
    )
    if found.ann_accuracy is not None:
        chart.line("c3 dashed", [(x.low, found.ann_accuracy), (x.high, found.ann_accuracy)])
        chart.key.append(("line c3 dashed", "ANN"))
    if limit:
        chart.line("c2 dotted", seen(sorted(limit.items()), y.low))
        for t, value in limit.items():
            if value < y.low:
                continue
            chart.mark("c2", (t, value), "square", f"quantised limit, t = {t}: {value:.2f} %")
        chart.key.append(("line c2 dotted", "quantised limit: t levels, same thresholds"))
    if early:
        chart.line("c4 dotted", seen(early, y.low))
        chart.key.append(("line c4 dotted", "early exit: accuracy at mean steps"))
    chart.line("c1", seen(list(zip(steps, found.accuracy, strict=True)), y.low))
    for t, value in zip(steps, found.accuracy, strict=True):
        if (T <= 32 or t == T) and value >= y.low:
            chart.mark("c1", (t, value), "circle", f"spiking network, t = {t}: {value:.2f} %")
    chart.key.append(("line c1", "spiking network, with its 95 % interval"))
    return chart


def near(label: str, values: Sequence[float], ends: Sequence[float]) -> Scale:
    """An axis in % that zooms to where runs end: what lies far below it in early steps is left out."""
    focus, top = min(ends), max(*values, *ends)
    low = max(0.0, min(values) - 2, focus - max(10.0, 3 * (top - focus)))
    return linear(label, low, min(100.0, top + 1))


def seen(points: Sequence[Point], low: float) -> list[Point]:
    """A line without what lies below an axis; it begins, or ends, where it crosses the axis."""
    found: list[Point] = []
    for i, (x, y) in enumerate(points):
        if y >= low:
            found.append((x, y))
            continue
        beside = [*points[max(i - 1, 0) : i], *points[i + 1 : i + 2]]
        found += [(x + (a - x) * (low - y) / (b - y), low) for a, b in beside if b >= low]
    return found


def steps_axis(label: str, T: int) -> Scale:
    """Time steps 1 to T."""
    return linear(label, 1 if T > 1 else 0.5, T if T > 1 else 1.5, whole=True)


def _by_layer(title: str, names: Sequence[str], x: Scale, row: int = ROW) -> Chart:
    return Chart(title, x, rows(names), height=44 + row * len(names), left=NAMES)


def errors(found: Explanation) -> Chart:
    """The four terms of each layer's error, and their total."""
    names = [layer.name for layer in found.layers]
    sizes = [[layer.terms[t].relative or 0.0 for t in TERMS] for layer in found.layers]
    totals = [layer.total.relative or 0.0 for layer in found.layers]
    chart = _by_layer(
        "Error of each layer",
        names,
        linear("rms error in % of the rms activation", 0, ROOM * max([1e-6, *totals, *(v for p in sizes for v in p)])),
        APART,
    )
    for i, (parts, total) in enumerate(zip(sizes, totals, strict=True)):
        chart.bar("faint", i, 0, total, f"{names[i]}: total {total:.1f} %", 0.85)
        for k, (term, size) in enumerate(zip(TERMS, parts, strict=True)):
            chart.mark(f"c{k + 1}", (size, i + 0.22 * (k - 1.5)), SHAPES[k], f"{names[i]}: {term} {size:.1f} %")
    chart.key = [("bar faint", "total"), *((f"mark c{k + 1} {SHAPES[k]}", term) for k, term in enumerate(TERMS))]
    return chart


def effects(found: Explanation) -> Chart:
    """What each layer's own error does to the output."""
    shares = [layer.logit_share or 0.0 for layer in found.layers]
    x = linear("explained of the output's square error in %", ROOM * min(0.0, *shares), ROOM * max(1.0, *shares))
    chart = _by_layer("What each layer does to the output", [layer.name for layer in found.layers], x)
    for i, (layer, share) in enumerate(zip(found.layers, shares, strict=True)):
        chart.bar("c2", i, 0, share, f"{layer.name}: {share:.1f} %")
    return chart


def rates(found: Mapping[str, float]) -> Chart:
    """Spikes per neuron and step, layer by layer."""
    percent = {name: 100 * rate for name, rate in found.items()}
    x = linear("spikes per neuron and step in %", 0, ROOM * max([1e-6, *percent.values()]))
    chart = _by_layer("Firing rate of each layer", list(percent), x)
    for i, (name, value) in enumerate(percent.items()):
        chart.bar("c1", i, 0, value, f"{name}: {value:.2f} %")
    return chart


def thresholds(found: Sequence[Threshold]) -> Chart:
    """Least, median and largest threshold of each layer."""
    low, high = min(t.theta[0] for t in found), max(t.theta[2] for t in found)
    label = "threshold theta, in the unit of the activation"
    x = logarithmic(label, low, high) if high > 20 * low else linear(label, 0, ROOM * high)
    chart = _by_layer("Range of each layer", [t.name for t in found], x)
    for i, one in enumerate(found):
        chart.bar("faint", i, one.theta[0], one.theta[2], f"{one.name}: {one.theta[0]:.4g} to {one.theta[2]:.4g}")
        chart.mark("c1", (one.theta[1], i), "circle", f"{one.name}: median {one.theta[1]:.4g}")
    chart.key = [("bar faint", "range over channels"), ("mark c1 circle", "median")]
    return chart


def schedule(found: Sequence[Turn]) -> Chart:
    """When each layer works on one sample."""
    chart = _by_layer(
        "One sample on its way", [t.name for t in found], linear("time step", 0, max(t.end for t in found), whole=True)
    )
    for i, turn in enumerate(found):
        if turn.read > turn.start:
            chart.bar(
                "c2", i, turn.start, turn.read, f"{turn.name}: step {turn.start + 1} to {turn.read}, not read out"
            )
        chart.bar("c1", i, turn.read, turn.end, f"{turn.name}: step {turn.read + 1} to {turn.end}")
    chart.key = [("bar c1", "steps whose spikes go on")]
    if any(turn.read > turn.start for turn in found):
        chart.key.append(("bar c2", "waiting, or steps that are not read out"))
    return chart


def raster(found: Raster) -> Chart:
    """Spikes of some neurons of one layer."""
    count = len(found.neurons)
    y = Scale(f"{count} of {found.size} neurons", count - 0.5, -0.5, ())
    x = linear("time step", 0.5, found.steps + 0.5, whole=True)
    chart = Chart(found.name, x, y, width=240, height=60 + 9 * max(count, 8), left=24)
    for kind, shown in (("c1", [s for s in found.spikes if s[2] > 0]), ("c2", [s for s in found.spikes if s[2] < 0])):
        chart.ticks(kind, [(step + 1, row) for row, step, _ in shown], 0.75)
    return chart


def channels(found: Channels) -> Chart:
    """Rates of a layer's channels, the highest first."""
    count = len(found.rates)
    x = linear("channel, by its rate", 0.5, count + 0.5, whole=True, count=4)
    y = linear("spikes a step in %", 0, ROOM * max([1.0, *found.rates]), count=4)
    chart = Chart(found.name, x, y, width=205, height=150, left=40)
    silent = sum(rate == 0 for rate in found.rates)
    chart.note = f"{count} channels" + (f", {silent} of them silent" if silent else "")
    edges = [(k + side, rate) for k, rate in enumerate(found.rates, 1) for side in (-0.5, 0.5)]
    chart.area("c1", [(0.5, 0), (count + 0.5, 0)], edges)
    chart.line("c1", edges)
    return chart


def scatter(found: Scatter) -> Chart:
    """Activation of the ANN against the mean output of the neurons, both in clip bounds."""
    high = min(max([1.2, *(x for x, _ in found.points)]), 2.0)
    low = min([0.0, *(y for _, y in found.points)])
    x = linear("activation / clip bound", 0, high, count=4)
    chart = Chart(found.name, x, linear("mean output / clip bound", low, 1.05, count=4), width=205, height=190, left=40)
    chart.note = f"{found.silent:.0f} % zero, {found.beyond:.2g} % above"
    chart.line("c3 dashed", [(0, 0), (1, 1), (high, 1)])
    chart.line("c2 dotted", [(1, low), (1, 1.05)])
    chart.dots("c1", found.points)
    return chart


def comparison(
    found: Sequence[PlottedRow], ann: float | None, measure: str, width: int = 420, height: int = 280
) -> Chart:
    """Accuracy of several networks against the step at which a readout stands."""
    lines = [[(float(late), score) for _, late, score, _ in row.by_step()] for row in found]
    curves = [sorted(row.by_confidence()) for row in found]
    times = [late for line in lines for late, _ in line]
    scores = [score for line in [*lines, *curves] for _, score in line] + ([] if ann is None else [ann])
    low, high = min(times), max(times)
    label = "steps from the input to the readout"
    x = logarithmic(label, low, high) if high > 20 * low else linear(label, min(low, high - 1), high, whole=True)
    y = near(f"{measure} in %", scores, [line[-1][1] for line in lines] + ([] if ann is None else [ann]))
    chart = Chart("Accuracy against latency", x, y, width=width, height=height)
    if ann is not None:
        chart.line("soft dashed", [(x.low, ann), (x.high, ann)])
        chart.key.append(("line soft dashed", "ANN"))
    for i, (row, line) in enumerate(zip(found, lines, strict=True)):
        shape, dash = SHAPES[i % 4], ("", " dashed", " dotted")[i // 4 % 3]  # after four colours the next dash
        chart.line(f"c{i % 4 + 1}{dash}", seen(line, y.low))
        if curves[i]:
            chart.line(f"c{i % 4 + 1} dotted", seen(curves[i], y.low))
        for late, score in line if len(line) <= 32 else line[-1:]:
            if score < y.low:
                continue
            chart.mark(f"c{i % 4 + 1}", (late, score), shape, f"{row.name}: {score:.2f} % after {late:g} steps")
        chart.key.append((f"mark c{i % 4 + 1} {shape}", row.name))
    if any(curves):
        chart.key.append(("line soft dotted", "early exit: accuracy at mean steps"))
    return chart


def frontier(title: str, label: str, points: Sequence[tuple[str, float, float]], ann: float | None) -> Chart:
    """What accuracy costs: a mark for each network, and the line of those that no other one beats in both.

    Args:
        title: of the chart.
        label: of what it costs.
        points: name, cost and score in % of each network.
        ann: the ANN's score.
    """
    costs, scores = [cost for _, cost, _ in points], [score for *_, score in points]
    low, high = min(costs), max(costs)
    x = logarithmic(label, low, high) if 0 < 5 * low < high else linear(label, 0, ROOM * high)
    chart = Chart(title, x, near("score in %", scores, [*scores, *([] if ann is None else [ann])]))
    if ann is not None:
        chart.line("soft dashed", [(x.low, ann), (x.high, ann)])
    best: list[Point] = []
    for _, cost, score in sorted(points, key=lambda one: (one[1], -one[2])):
        if not best or score > best[-1][1]:
            best.append((cost, score))
    chart.line("soft", best)
    for i, (name, cost, score) in enumerate(points):
        chart.mark(f"c{i % 4 + 1}", (cost, score), SHAPES[i % 4], f"{name}: {score:.2f} % at {cost:.4g}")
        chart.key.append((f"mark c{i % 4 + 1} {SHAPES[i % 4]}", name))
    return chart
