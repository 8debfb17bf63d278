"""How snnc holds out: random networks, changed files, and commands that are killed.

    python benchmarks/reliability.py networks --examples 1000 --out docs/results/reliability.json
    python benchmarks/reliability.py fuzz --mutations 2000 --out docs/results/reliability.json
    python benchmarks/reliability.py kill --kills 40 --out docs/results/reliability.json \
        --render docs/results/reliability.md

`networks` draws networks of the dialect: each is captured, goes through every exact pass and is run step by step and
all steps at once; one in eight also as fixed point from its files and in onnxruntime, one in a hundred as an exported
program. `fuzz` reads changed files of every kind; `kill` kills every command that writes, in each of its writes and
at random times. What they check and count is in `tests/network_checks.py`, `tests/fuzz_worker.py` and
`tests/killing.py`. The JSON keeps one entry for each, replaced when it is run again; `--render` writes the table. A
failure is told with what is needed to see it again, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from accuracy import provenance
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from snnc.errors import SnncError
from snnc.files import atomic_write

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests import network_checks as check
from tests.fuzz_seeds import seeds
from tests.fuzz_worker import fuzz
from tests.kill_commands import COMMANDS, prepare
from tests.killing import kill_inside, kill_outside
from tests.random_networks import networks

BEGIN, END = "<!-- reliability: begin -->\n", "<!-- reliability: end -->\n"
FIXED, PROGRAM = 8, 100  # one network in so many


def main() -> None:
    """Parses the command line, runs one kind of trial, and writes what it found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["networks", "fuzz", "kill"])
    parser.add_argument("--examples", type=int, default=1000, help="networks")
    parser.add_argument("--mutations", type=int, default=2000, help="changes of each file; fewer where reading is slow")
    parser.add_argument("--kills", type=int, default=40, help="in each file that a command writes, and a tenth outside")
    parser.add_argument("--minutes", type=float, default=60, help="no new example after so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="seeds or commands whose name holds this")
    parser.add_argument("--out", type=Path, help="JSON file with every kind")
    parser.add_argument("--render", type=Path, help="Markdown file whose table is replaced")
    args = parser.parse_args()
    torch.set_num_threads(1)
    start = time.monotonic()
    rows, bad = {"networks": try_networks, "fuzz": try_files, "kill": try_commands}[args.what](args, start)
    for line in bad:
        print(line, file=sys.stderr)
    found = {"rows": rows, "bad": bad, "minutes": round((time.monotonic() - start) / 60, 1), "seed": args.seed}
    cells = json.loads(args.out.read_text()) if args.out and args.out.exists() else {}
    cells[args.what] = found | provenance()
    if args.out:
        with atomic_write(args.out) as temporary:
            temporary.write_text(json.dumps(cells, indent=1) + "\n")
    if args.render:
        before, _, rest = args.render.read_text().partition(BEGIN)
        with atomic_write(args.render) as temporary:
            temporary.write_text(f"{before}{BEGIN}{table(cells)}{END}{rest.partition(END)[2]}")
    print(table(cells))
    sys.exit(bool(bad))


def try_networks(args: argparse.Namespace, start: float) -> tuple[list[dict[str, Any]], list[str]]:
    """Random networks; counts what was tried, refused and compared."""
    counts, bad = Counter[str](), list[str]()
    warnings.simplefilter("ignore")
    logging.disable()  # torch tells what its exporter tries
    folder = Path(tempfile.mkdtemp())

    @seed(args.seed)
    @settings(max_examples=args.examples, deadline=None, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(networks(), networks(dyadic=False), st.sampled_from((1, 2, 3, 4, 8)))
    def trial(made: Any, other: Any, T: int) -> None:
        if time.monotonic() - start > 60 * args.minutes:
            return
        number = counts["examples"]
        counts["examples"] += 1
        _one(counts, bad, "exact", made, lambda: check.streams(
            check.exact_passes(check.captured(*made), made[1], 2 ** (T - 1).bit_length()), made[1]))  # fmt: skip
        if number % FIXED == 0:
            program = number % PROGRAM < FIXED
            _one(counts, bad, "fixed", other, lambda: check.same_everywhere(*other, T, folder, program))
            counts["programs"] += program

    trial()
    return [dict(counts)], bad


def _one(counts: Counter[str], bad: list[str], kind: str, made: Any, trial: Any) -> None:
    try:
        counts[f"{kind} places"] += trial()
        counts[f"{kind} held"] += 1
    except SnncError as refusal:
        counts[f"{kind} refused"] += 1
        print(f"refused: {refusal.message[:160]}", flush=True)
    except Exception as error:
        counts[f"{kind} failed"] += 1
        bad.append(f"{type(error).__name__}: {error}\n{made[0]} for samples of shape {made[1]}")


def try_files(args: argparse.Namespace, start: float) -> tuple[list[dict[str, Any]], list[str]]:
    """Changed files of every kind; how each reading ended."""
    rows, bad = [], []
    with tempfile.TemporaryDirectory() as folder:
        sound = [one for one in seeds(Path(folder)) if args.only in one.name]
    for one in sound:
        if time.monotonic() - start > 60 * args.minutes:
            break
        tally = fuzz(one, args.mutations // one.cost**2)
        rows.append({"reader": one.name, "changes": tally.counts.total(), **tally.counts})
        bad += tally.bad
        print(rows[-1], flush=True)
    return rows, bad


def try_commands(args: argparse.Namespace, start: float) -> tuple[list[dict[str, Any]], list[str]]:
    """Commands that are killed; what their files held."""
    rows, bad, here = [], [], Path.cwd()
    for name, command in COMMANDS.items():
        if args.only not in name or time.monotonic() - start > 60 * args.minutes:
            continue
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            prepare()
            outside, more = kill_outside(command, max(1, args.kills // 10), args.seed)
            inside, most = kill_inside(command, args.kills, args.seed)
            os.chdir(here)
        rows.append({"command": name, "inside": inside["kills"], "writes": inside["writes"], **(outside + inside)})
        bad += [*more, *most]
        print(rows[-1], flush=True)
    return rows, bad


def table(cells: dict[str, Any]) -> str:
    """All that was found, as Markdown."""
    lines: list[str] = []
    for what in ("networks", "fuzz", "kill"):
        if what in cells:
            lines += [*{"networks": _networks, "fuzz": _files, "kill": _commands}[what](cells[what]), ""]
            cell = cells[what]
            lines += [f"{len(cell['bad'])} failures. {cell['machine']}; commit {cell['commit']}, {cell['date']}.", ""]
    return "\n".join(lines)


def _networks(cell: dict[str, Any]) -> list[str]:
    row = Counter(cell["rows"][0])
    lines = ["| random networks | held | refused by snnc | failed | places compared |", "|---|---:|---:|---:|---:|"]
    for kind, what in (("exact", "capture, exact passes, graph file, streaming"), ("fixed", "fixed point, everywhere")):
        counts = " | ".join(f"{row[f'{kind} {end}']:,}" for end in ("held", "refused", "failed", "places"))
        lines.append(f"| {what} | {counts} |")
    return lines


def _files(cell: dict[str, Any]) -> list[str]:
    lines = ["| reader | changed files | read | refused | anything else |", "|---|---:|---:|---:|---:|"]
    total = Counter[str]()
    for row in cell["rows"]:
        counts = Counter({k: v for k, v in row.items() if k != "reader"})
        total += counts
        lines.append(_file_row(row["reader"], counts))
    return [*lines, _file_row("all", total)]


def _file_row(name: str, counts: Counter[str]) -> str:
    other = counts["changes"] - counts["loaded"] - counts["refused"]
    return f"| {name} | {counts['changes']:,} | {counts['loaded']:,} | {counts['refused']:,} | {other:,} |"


def _commands(cell: dict[str, Any]) -> list[str]:
    lines = ["| command | kills | of these within a write | old file | new file | half a file | left aside |",
             "|---|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    for row in map(Counter, cell["rows"]):
        counts = " | ".join(f"{row[k]:,}" for k in ("kills", "inside", "old", "new", "half", "leftovers"))
        lines.append(f"| `{row['command']}` | {counts} |")
    return lines


if __name__ == "__main__":
    main()
