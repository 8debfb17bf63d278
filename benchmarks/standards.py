"""The standards' own tests, run against snnc's doors: what is equal, what is refused by name, what is neither.

    python benchmarks/standards.py --out docs/results/standards.json

- "onnx nodes": every test that `onnx.backend.test.case.node` generates, one operator or a few.
- "onnx models": the small models in onnx's own data.
- "torch programs": the examples of `torch._export.db`, as a live module and as an exported program.

Each is tried as it is, and once more with a pair of ReLUs behind it whose difference is the value itself, so that there
is something to convert. Inputs but the first that can be a batch become constants. What is taken is run on the test's
own input, compared with the test's own output, and compiled. Nothing here knows what snnc takes.

- equal: the graph gives the expected output, up to the test's own tolerance.
- refused: a blocker names the operation and says what to do.
- blamed: refused, but the reason blames a file that is sound, or tells of an error inside snnc.
- different, crashed: what must not be.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accuracy import provenance

from snnc.files import atomic_write

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests import standards


def tried(cases: Iterator[standards.Case]) -> Iterator[dict[str, Any]]:
    """One row for each case and variant."""
    for case in cases:
        found = standards.outcome(case)
        yield {"suite": case.suite, "name": case.name, "with": case.variant, "outcome": found.kind, "says": found.says}


def main() -> None:
    """Prints and writes everything."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    parser.add_argument("--suite", choices=standards.SUITES, action="append")
    parser.add_argument("--only", default="", help="part of the names to run")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for suite in options.suite or standards.SUITES:
        begin, reasons, others = time.perf_counter(), Counter(), []
        counts: dict[str, Counter[str]] = {}
        for row in tried(case for case in standards.SUITES[suite]() if options.only in case.name):
            counts.setdefault(row["with"], Counter())[row["outcome"]] += 1
            if row["outcome"] not in ("equal", "refused"):
                others.append(row)
                print(row, flush=True)
            elif row["says"]:
                reasons[row["says"]] += 1
        whole = {variant: {kind: numbers[kind] for kind in standards.KINDS} for variant, numbers in counts.items()}
        print(f"{suite}: {whole} in {time.perf_counter() - begin:.0f} s", flush=True)
        found = {"provenance": provenance(), "counts": whole, "others": others, "refused": dict(reasons.most_common())}
        if options.out:  # what other runs wrote of other suites stays
            before = json.loads(options.out.read_text()) if options.out.exists() else {}
            with atomic_write(options.out) as path:
                path.write_text(json.dumps({**before, suite: found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
