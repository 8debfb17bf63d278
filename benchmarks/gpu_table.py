"""The tables of what `gpu.py` measured, in Markdown.

python benchmarks/gpu_table.py docs/results/gpu.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

TITLES = {"resnet20": "ResNet-20", "vgg16": "VGG-16", "resnet18": "ResNet-18 at 224"}


def main() -> None:
    """Prints the tables of each file."""
    for path in sys.argv[1:]:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        print("\n\n".join(tables(found)))


def tables(found: dict[str, Any]) -> list[str]:
    """Each network, the kernels, and memory."""
    result = [table for name, title in TITLES.items() if name in found for table in network(title, found[name])]
    if "kernel" in found:
        lines = [[f"{k['bytes'] / 1e6:.0f}", f"{k['copy'] / 1e9:.0f}", f"{k['share']:.0%}"] for k in found["kernel"]]
        result.append(markdown(["neurons: MB moved", "copy, GB/s", "of the copy"], lines))
    if found.get("layers"):
        most = found["layers"]["most"]
        lines = [
            [one["channels"], one["size"], f"{one['us']:.1f}", *(f"{share:.0%}" for share in one["share"].values())]
            for one in found["layers"]["layers"]
        ]
        heads = [f"of {most['operations'] / 1e12:.0f} T operations/s", f"of {most['bytes'] / 1e12:.2f} TB/s"]
        result.append(markdown(["layer: channels", "pixels a side", "microseconds", *heads], lines))
    if "memory" in found:
        lines = [[m["network"], m["T"], f"{m['MB']:.0f}", f"{m['ms a step']:.2f}"] for m in found["memory"]]
        result.append(markdown(["network", "T", "peak, MB", "ms a step"], lines))
    return result


def network(title: str, batches: list[dict[str, Any]]) -> list[str]:
    """A table for each batch."""
    result = []
    for one in batches:
        differ = ", ".join(f"{row}: {number}" for row, number in one["differ"].items() if number) or "none"
        lines = [
            [row, f"{1e3 * s:.2f}", f"{one['of T x ANN'][row]:.2f}", f"{one['of T x ANN, TF32'][row]:.2f}"]
            for row, s in one["seconds"].items()
        ]
        lacks = "".join(f" No {row}: {why}." for row, why in one["lacks"].items())
        head = f"{title}, batch {one['batch']}; readouts that differ, of {one['readouts']:,}: {differ}.{lacks}"
        result.append(f"{head}\n\n" + markdown(["row", "ms", "x T ANN", "x T ANN, TF32"], lines))
    return result


def markdown(heads: list[str], lines: list[list[Any]]) -> str:
    """A table; all but the first column are numbers."""
    ruler = "|---|" + "--:|" * (len(heads) - 1)
    first, *rest = (f"| {' | '.join(map(str, row))} |" for row in [heads, *lines])
    return "\n".join([first, ruler, *rest])


if __name__ == "__main__":
    main()
