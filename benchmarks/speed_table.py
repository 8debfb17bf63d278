"""The tables of `speed.py`, between two markers of a document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from speed_peers import PEERS

from snnc.files import atomic_write

START, END = "<!-- speed: made by benchmarks/speed.py -->", "<!-- speed: end -->"
NETS = {"resnet20": "ResNet-20", "vgg16": "VGG-16", "resnet18": "ResNet-18 at 224"}


def insert(path: Path, report: dict[str, Any]) -> None:
    """Writes the tables into a document."""
    text = path.read_text(encoding="utf-8")
    if START not in text or END not in text:
        raise SystemExit(f"{path} has no line '{START}' with '{END}' after it.")
    before, rest = text.split(START, 1)
    with atomic_write(path) as target:
        target.write_text(f"{before}{START}\n\n{tables(report)}\n{END}{rest.split(END, 1)[1]}", encoding="utf-8")


def tables(report: dict[str, Any]) -> str:
    """Every table of a report."""
    order = list(NETS)
    rows = sorted(report["rows"], key=lambda row: (order.index(row["net"]), row["T"], row["batch"]))
    parts = [_overview(rows)] if rows else []
    if rows:
        settings = "\n".join(_setting(row) for row in rows)
        parts.append(f'<details markdown="1"><summary>Every setting, row by row</summary>\n\n{settings}\n</details>\n')
    if report["peak"]:
        parts.append("Peak memory of a process, and how much of it one run added, MB:\n\n" + _peaks(report["peak"]))
    if report["steps"]:
        parts.append("In rounds of 64 rows (steps x samples):\n\n" + _steps(report["steps"]))
    if report["neurons"]:
        parts.append("The neuron pass at T = 8 beside a copy of the same currents:\n\n" + _neurons(report["neurons"]))
    return "\n".join(parts)


def _overview(rows: list[dict[str, Any]]) -> str:
    """What the fast rows take beside the ANN, and how many times as fast as the fastest peer they are."""
    lines = [
        "Every setting below in short; the peer is the fastest of the four in that setting:",
        "",
        "| network | T | batch | fixed point, x ANN | faster than the peer | float, x T ANN | faster than the peer |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        seconds, T = row["seconds"], row["T"]
        peer = min((seconds[name] for name in PEERS if name in seconds), default=float("nan"))
        fixed, floating, ann = (seconds.get(name, float("nan")) for name in ("fast, fixed point", "fast, float", "ANN"))
        shares = (fixed / ann, peer / fixed, floating / ann / T, peer / floating)
        cells = [NETS[row["net"]], str(T), str(row["batch"]), *(f"{share:.2f}" for share in shares)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _setting(row: dict[str, Any]) -> str:
    seconds, T = row["seconds"], row["T"]
    ann = seconds["ANN"]
    rounds = f"medians of {row['rounds']} rounds" if row["rounds"] > 1 else "one round"
    lines = [
        f"{NETS[row['net']]}, T = {T}, batch {row['batch']}; {rounds}:",
        "",
        "| row | ms | x ANN | x T ANN | of the roofline |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, value in seconds.items():
        share = f"{row['roofline'][name] / value:.0%}" if name in row["roofline"] else ""
        folded = "" if name.startswith("ANN") else f"{value / ann / T:.2f}"
        lines.append(f"| {name} | {value * 1e3:.1f} | {value / ann:.2f} | {folded} | {share} |")
    lines += [f"| {name} | does not run: {why} | | | |" for name, why in row["why not"].items()]
    return "\n".join(lines) + "\n"


def _peaks(found: dict[str, Any]) -> str:
    lines = ["| network, row | peak | added |", "|---|--:|--:|"]
    for name, pair in found.items():
        cells = f"{pair[1]:.0f} | {pair[1] - pair[0]:.0f}" if pair else "does not run | "
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines) + "\n"


def _steps(found: dict[str, Any]) -> str:
    lines = ["| network, row | peak, MB | added | ms a step and sample |", "|---|--:|--:|--:|"]
    for name, (before, peak, seconds) in found.items():
        T, batch = (int(part.split()[-1]) for part in name.split(", ")[1:3])
        lines.append(f"| {name} | {peak:.0f} | {peak - before:.0f} | {seconds / T / batch * 1e3:.3f} |")
    return "\n".join(lines) + "\n"


def _neurons(found: list[dict[str, float]]) -> str:
    lines = ["| currents, MB | neurons, GB/s | copy, GB/s | share |", "|--:|--:|--:|--:|"]
    for row in found:
        speeds = (row[f"{what}, bytes/s"] / 1e9 for what in ("neurons", "copy"))
        lines.append(
            "| " + " | ".join([f"{row['MB']:.1f}", *(f"{s:.1f}" for s in speeds), f"{row['share']:.0%}"]) + " |"
        )
    return "\n".join(lines) + "\n"
