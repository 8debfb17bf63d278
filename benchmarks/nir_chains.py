"""What the benchmarks of tools that take chains share: their commands, and the files that go to a tool."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any


def commands(doc: str | None, write: Callable[[Path], None], run: Callable[[Path, Path | None], None]) -> None:
    """Parses the command line: `write FOLDER` with snnc, or `run FOLDER` where the tool is."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=["write", "run"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, help="JSON file of the figures")
    args = parser.parse_args()
    if args.do == "write":
        args.folder.mkdir(parents=True, exist_ok=True)
        write(args.folder)
    else:
        run(args.folder, args.out)


def save(path: Path, target: str, net: Any, T: int, x: Any, samples: int, zero: bool) -> None:
    """Compiles a network with thresholds at powers of two; writes it for a target, and what it does.

    Args:
        path: of the NIR file; what the network does stands beside it, as `.npz`.
        target: what reads the file.
        net: an ANN.
        T: time steps.
        x: calibration samples `[N, ...]`.
        samples: so many of them are run.
        zero: whether potentials start at 0, and not at half of the threshold.
    """
    import snnc
    from snnc.backends import NirFile
    from snnc.differences import record
    from snnc.files.vectors import write_vectors

    pipeline = snnc.recipe("opi").pipeline.set("insert-neurons", powers=True)
    if zero:
        pipeline = pipeline.set("set-initial-potential", rule="zero")
    compiled = snnc.compile(net.eval(), T, pipeline, x)
    snnc.save(compiled, path, NirFile(target))
    write_vectors(path.with_suffix(".npz"), record(compiled, x[:samples]))


def chain(graph: Any) -> list[str]:
    """The nodes from input to output."""
    after = dict(graph.edges)
    names = ["input"]
    while names[-1] != "output":
        names.append(after[names[-1]])
    return names
