"""A chart as a file by itself, for papers: SVG, and through matplotlib PDF and PNG.

At its own size a chart is as wide as a column of a paper (340 pixels are 90 mm). Series differ in lightness, dash and
shape, so that they can be told apart in grey.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from snnc.errors import SnncError, WriteError
from snnc.files import atomic_buffer, atomic_write
from snnc.report.chart import Chart
from snnc.report.page import short, swatch

WIDTH, HEIGHT = 340, 230  # pixels: a column of a paper
FORMS = (".svg", ".pdf", ".png")
INK = {"c1": "#10316b", "c2": "#d1661b", "c3": "#5f9f7d", "c4": "#7e3b8f"}
GREY = {"faint": "#888888", "soft": "#666666"}
GRID, AXIS, TEXT = "#d9d9d9", "#555555", "#111111"
NIGHT = {  # what each colour is on a dark ground
    **dict(zip(INK.values(), ("#63b3f5", "#ff9a5c", "#5fd198", "#d896e8"), strict=True)),
    "#888888": "#8a949e",
    "#666666": "#a3adb8",
    GRID: "#39424c",
    AXIS: "#a3adb8",
    TEXT: "#e4e8ec",
    "#ffffff": "#14181d",
}
DASHES = {"dashed": (7.0, 4.0), "dotted": (2.0, 3.0)}
SIZE, LINE, SWATCH = 10.0, 15, 22  # pixels: of a letter, of a line of the legend, of a series in it
MM = 25.4 / 96  # of a pixel
DPI = 300  # of a PNG
_COLOUR = re.compile("|".join(NIGHT))
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?")


@dataclass(frozen=True)
class Stroke:
    """A path, in the words of SVG, and how it is drawn."""

    d: str
    fill: str = ""
    line: str = ""
    width: float = 1.0
    dash: tuple[float, float] | None = None
    opacity: float = 1.0
    round: bool = False


@dataclass(frozen=True)
class Word:
    """A text at a place: `anchor` is "start", "middle" or "end"; `upright` is turned to the left."""

    x: float
    y: float
    text: str
    anchor: str = "middle"
    upright: bool = False


def save(chart: Chart, path: Path) -> Path:
    """Writes a chart, whole or not at all, in the form of the suffix.

    Raises:
        WriteError: another suffix, or a file that cannot be written.
        SnncError: matplotlib is not installed, and is needed.
    """
    if path.suffix not in FORMS:
        raise WriteError(f"A figure cannot be written as '{path.name}'.", f"one of {', '.join(FORMS)}")
    if path.suffix == ".svg":
        with atomic_write(path) as temporary:
            temporary.write_text(svg(chart), encoding="utf-8")
    else:
        _with_matplotlib(chart, path)
    return path


def require(suffix: str) -> None:
    """Refuses a form that nothing here can write.

    Raises:
        SnncError: says what to install.
    """
    if suffix in (".pdf", ".png"):
        try:
            import matplotlib  # noqa: F401
        except ImportError as missing:
            raise SnncError(
                f"A figure as {suffix[1:].upper()} needs matplotlib, which is not installed.",
                "pip install 'snnc[figures]', or a figure with the suffix .svg",
            ) from missing


def svg(chart: Chart, dark: bool = False) -> str:
    """A chart as a picture by itself, on white or on a dark ground."""
    words, strokes, height = _drawn(chart)
    wide = chart.width
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide * MM:.1f}mm" height="{height * MM:.1f}mm" '
        f'viewBox="0 0 {wide} {height}" font-family="Helvetica, Arial, sans-serif" font-size="{SIZE:g}">',
        f"<title>{escape(chart.title)}</title>",
        f'<rect width="{wide}" height="{height}" fill="#ffffff"/>',
    ]
    for one in strokes:
        dash = f' stroke-dasharray="{one.dash[0]:g} {one.dash[1]:g}"' if one.dash else ""
        cap = ' stroke-linecap="round"' if one.round else ""
        line = f' stroke="{one.line}" stroke-width="{one.width:g}"' if one.line else ""
        faint = f' opacity="{one.opacity:g}"' if one.opacity < 1 else ""
        parts.append(f'<path d="{one.d}" fill="{one.fill or "none"}"{line}{dash}{cap}{faint}/>')
    for word in words:
        turn = f' transform="rotate(-90 {word.x:g} {word.y:g})"' if word.upright else ""
        at = f'x="{word.x:g}" y="{word.y:g}" text-anchor="{word.anchor}" fill="{TEXT}"'
        parts.append(f"<text {at}{turn}>{escape(word.text)}</text>")
    text = "\n".join([*parts, "</svg>", ""])
    return _COLOUR.sub(lambda found: NIGHT[found[0]], text) if dark else text


def _drawn(chart: Chart) -> tuple[list[Word], list[Stroke], int]:
    """Everything to draw, from back to front, and the height of it, legend included."""
    edge = chart.height - chart.bottom
    words, strokes = [], []
    for value, text in chart.x.ticks:
        strokes.append(Stroke(f"M{chart.px(value):g} {chart.top}V{edge}", line=GRID, width=0.7))
        words.append(Word(chart.px(value), edge + 13, text))
    for value, text in chart.y.ticks:
        y = chart.py(value)
        strokes.append(Stroke(f"M{chart.left} {y:g}H{chart.width - chart.right}", line=GRID, width=0.7))
        words.append(Word(chart.left - 6, y + 3.5, short(text, (chart.left - 8) // 6), "end"))
    strokes.append(Stroke(f"M{chart.left} {chart.top}V{edge}H{chart.width - chart.right}", line=AXIS))
    strokes += [_stroke(mark.kind, mark.d) for mark in chart.marks]
    middle = (chart.left + chart.width - chart.right) / 2
    words.append(Word(middle, chart.height - 6, chart.x.label))
    if chart.y.label:
        words.append(Word(11, (chart.top + edge) / 2, chart.y.label, upright=True))
    x, y = 4.0, float(chart.height + LINE - 4)
    for kind, text in chart.key:
        wide = SWATCH + 6 + 0.52 * SIZE * len(text) + 14
        if x > 4 and x + wide > chart.width:
            x, y = 4.0, y + LINE
        strokes.append(_stroke(kind, _moved(swatch(kind), x, y - 9)))
        words.append(Word(x + SWATCH + 6, y, text, "start"))
        x += wide
    return words, strokes, round(y + 6 if chart.key else chart.height)


def _stroke(kind: str, d: str) -> Stroke:
    """How a mark is drawn, by its class of the style sheet."""
    what, *more = kind.split()
    ink = next(({**INK, **GREY}[one] for one in more if one in INK or one in GREY), TEXT)
    dash = next((DASHES[one] for one in more if one in DASHES), None)
    if what == "line":
        return Stroke(d, line=ink, width=1.6, dash=dash)
    if what == "tick":
        return Stroke(d, line=ink, width=3)
    if what == "dots":
        return Stroke(d, line=ink, width=2.4, opacity=0.5, round=True)
    if what == "area":
        return Stroke(d, fill=ink, opacity=0.18)
    if what == "mark":
        return Stroke(d, fill=ink, line="#ffffff", width=0.7)
    return Stroke(d, fill=ink, opacity=0.35 if "faint" in more else 1.0)


def _moved(d: str, x: float, y: float) -> str:
    """A path that begins at an absolute place, moved as a whole; `swatch` writes no other absolute ones but H, V, L."""
    out = []
    for letter, numbers in _commands(d):
        shift = {"M": (x, y), "L": (x, y), "H": (x,), "V": (y,)}.get(letter, (0,) * len(numbers))
        out.append(letter + " ".join(f"{n + s:g}" for n, s in zip(numbers, shift, strict=True)))
    return "".join(out)


def _commands(d: str) -> Iterator[tuple[str, list[float]]]:
    """The commands of a path with their numbers."""
    for letter, rest in re.findall(r"([MmLlHhVvAaCcZz])([^MmLlHhVvAaCcZz]*)", d):
        yield letter, [float(n) for n in _NUMBER.findall(rest)]


def _outline(d: str) -> tuple[list[tuple[float, float]], list[int]]:
    """A path as corners and codes of matplotlib. Arcs are half circles, which is all that charts have."""
    from matplotlib.path import Path as Outline

    corners: list[tuple[float, float]] = []
    codes: list[int] = []
    x = y = 0.0
    for letter, numbers in _commands(d):
        if letter in "Zz":
            corners.append((x, y))
            codes.append(int(Outline.CLOSEPOLY))
            continue
        if letter == "a":
            dx, dy = numbers[5:]
            half = Outline.arc(180, 360) if dx > 0 else Outline.arc(0, 180)
            reach, middle = numbers[0], (x + dx / 2, y + dy / 2)
            for corner, code in list(zip(np.asarray(half.vertices), np.asarray(half.codes), strict=True))[1:]:
                corners.append((middle[0] + reach * float(corner[0]), middle[1] + reach * float(corner[1])))
                codes.append(int(code))
            x, y = x + dx, y + dy
            continue
        dx, dy = (numbers[0], 0) if letter in "Hh" else (0, numbers[0]) if letter in "Vv" else numbers[:2]
        if letter.islower():
            x, y = x + dx, y + (dy or 0.01 * (not dx))  # matplotlib draws nothing of no length, round as its ends be
        else:
            x, y = (x if letter == "V" else dx), (y if letter == "H" else dy)
        corners.append((x, y))
        codes.append(int(Outline.MOVETO if letter in "Mm" else Outline.LINETO))
    return corners, codes


def _with_matplotlib(chart: Chart, path: Path) -> None:
    require(path.suffix)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Outline

    words, strokes, height = _drawn(chart)
    figure = Figure(figsize=(chart.width / 96, height / 96))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, chart.width), ylim=(height, 0))
    axes.axis("off")
    points = 72 / 96  # of a pixel
    for one in strokes:
        corners, codes = _outline(one.d)
        axes.add_patch(
            PathPatch(
                Outline(corners, codes),
                facecolor=one.fill or "none",
                edgecolor=one.line or "none",
                linewidth=one.width * points if one.line else 0,
                linestyle=(0, [n / one.width for n in one.dash]) if one.dash else "solid",
                alpha=one.opacity,
                capstyle="round" if one.round else "butt",
                clip_on=False,
            )
        )
    for word in words:
        axes.text(
            word.x, word.y, word.text, color=TEXT, fontsize=SIZE * points, fontfamily="sans-serif",
            ha={"start": "left", "middle": "center", "end": "right"}[word.anchor], va="baseline",
            rotation=90 if word.upright else 0, rotation_mode="anchor", parse_math=False,
        )  # fmt: skip
    kind = path.suffix[1:]
    told = {"Creator": "snnc", "Producer": "snnc", "CreationDate": None} if kind == "pdf" else {"Software": "snnc"}
    with atomic_buffer(path) as buffer:
        figure.savefig(buffer, format=kind, dpi=DPI, facecolor="white", metadata=told)
