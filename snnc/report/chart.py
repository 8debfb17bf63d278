"""Vector charts: numbers to positions. `templates/chart.html` draws them, and escapes every text.

A chart is small on purpose: at its own size it fits a phone, and a page puts several side by side. Colours are classes
of the style sheet, so one picture serves light, dark and paper; series differ in shape or dash as well as in colour.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

Point = tuple[float, float]
SHAPES = ("circle", "square", "triangle", "diamond")


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high`, with ticks; `log` spaces them by ratio."""

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def at(self, value: float) -> float:
        """The position of a value, 0 at `low` and 1 at `high`; values beyond are put on the edge."""
        low, high, value = (math.log(max(v, 1e-300)) if self.log else v for v in (self.low, self.high, value))
        return min(max((value - low) / (high - low), 0.0), 1.0)


def linear(label: str, low: float, high: float, whole: bool = False, count: int = 5) -> Scale:
    """An axis that holds `low` to `high`, with ticks at round numbers; `whole` gives no ticks between whole numbers."""
    high = high if high > low else low + 1
    step = _round_step((high - low) / count)
    step = max(1.0, step) if whole else step
    first = math.ceil(low / step - 1e-9)
    ticks = [(first + k) * step for k in range(int((high - first * step) / step + 1e-9) + 1)]
    return Scale(label, low, high, tuple((t, number(t)) for t in ticks))


def logarithmic(label: str, low: float, high: float) -> Scale:
    """An axis from a power of ten, or 2 or 5 of them, to another."""
    marks = [
        m * 10.0**k for k in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1) for m in (1, 2, 5)
    ]
    start = max((m for m in marks if m <= low * (1 + 1e-9)), default=marks[0])
    end = min((m for m in marks if m >= high * (1 - 1e-9) and m > start), default=marks[-1])
    shown = [m for m in marks if start <= m <= end]
    if len(shown) > 7:  # powers of ten alone
        shown = [m for m in shown if math.isclose(math.log10(m), round(math.log10(m)), abs_tol=1e-9)] or shown[::3]
    return Scale(label, start, end, tuple((m, number(m)) for m in shown), log=True)


def rows(names: Sequence[str]) -> Scale:
    """One line for each name, the first on top."""
    return Scale("", len(names) - 0.5, -0.5, tuple(enumerate(names)))


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m for m in (1, 2, 2.5, 5, 10) if m * power >= rough * (1 - 1e-9)) * power


def number(value: float) -> str:
    """A number in few characters."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    mantissa, power = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(power)}"


@dataclass(frozen=True)
class Mark:
    """A path in pixels, of one class of the style sheet; `title` shows on hovering."""

    kind: str
    d: str
    title: str = ""


@dataclass
class Chart:
    """A chart in the making: every method adds a mark.

    Attributes:
        title: above it, and for those who cannot see it.
        x, y: axes.
        width, height, left, bottom: in pixels; `left` holds the labels of y.
        key: (class, text) of each series, for the legend.
        note: a few words below the title.
    """

    title: str
    x: Scale
    y: Scale
    width: int = 340
    height: int = 230
    left: int = 46
    bottom: int = 36
    key: list[tuple[str, str]] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    note: str = ""
    top: int = 8
    right: int = 12

    def px(self, value: float) -> float:
        """Pixels from the left."""
        return round(self.left + self.x.at(value) * (self.width - self.left - self.right), 1)

    def py(self, value: float) -> float:
        """Pixels from the top."""
        return round(self.height - self.bottom - self.y.at(value) * (self.height - self.bottom - self.top), 1)

    def _add(self, kind: str, parts: Iterable[str], title: str = "") -> None:
        if d := "".join(parts):
            self.marks.append(Mark(kind, d, title))

    def line(self, kind: str, points: Sequence[Point]) -> None:
        """A line through points."""
        self._add(
            f"line {kind}", (f"{'L' if i else 'M'}{self.px(x):g} {self.py(y):g}" for i, (x, y) in enumerate(points))
        )

    def area(self, kind: str, lower: Sequence[Point], upper: Sequence[Point]) -> None:
        """The area between two lines."""
        edge = [*lower, *reversed(upper)]
        outline = [f"{'L' if i else 'M'}{self.px(x):g} {self.py(y):g}" for i, (x, y) in enumerate(edge)]
        self._add(f"area {kind}", [*outline, "Z"])

    def dots(self, kind: str, points: Iterable[Point]) -> None:
        """A cloud: a round dot at each point, in one path."""
        self._add(f"dots {kind}", (f"M{self.px(x):g} {self.py(y):g}h0" for x, y in points))

    def mark(self, kind: str, at: Point, shape: str = "circle", title: str = "") -> None:
        """One marker that is distinguishable without its colour."""
        self._add(f"mark {kind}", [_SHAPES[shape].format(x=self.px(at[0]), y=self.py(at[1]))], title)

    def bar(self, kind: str, row: float, start: float, end: float, title: str = "", thick: float = 0.6) -> None:
        """A bar along x, on a line of y."""
        y0, y1 = self.py(row - thick / 2), self.py(row + thick / 2)
        self._add(f"bar {kind}", [f"M{self.px(start):g} {y0:g}H{self.px(end):g}V{y1:g}H{self.px(start):g}Z"], title)

    def ticks(self, kind: str, points: Iterable[Point], reach: float) -> None:
        """A short upright stroke at each point, `reach` of y long."""
        tall = abs(self.py(0) - self.py(reach))
        self._add(f"tick {kind}", (f"M{self.px(x):g} {self.py(y) - tall / 2:g}v{tall:g}" for x, y in points))


_SHAPES = {
    "circle": "M{x} {y}m-3.2 0a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0 -6.4 0Z",
    "square": "M{x} {y}m-2.9 -2.9h5.8v5.8h-5.8Z",
    "triangle": "M{x} {y}m0 -3.8l3.8 6.6h-7.6Z",
    "diamond": "M{x} {y}m0 -4l4 4l-4 4l-4 -4Z",
}
