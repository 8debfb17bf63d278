"""What a spiking network costs on this CPU, beside its ANN and other simulators, and the limit of both.

    python benchmarks/speed.py --out docs/results/speed.json [--peers PEER/bin/python] [--table docs/results/speed.md]

Rows are CPU seconds of one thread, medians over rounds in which every row has its turn, so that what else the machine
does falls on all alike; a first round, of two images, warms up. With `--threads` of two and more they are seconds of a
clock. All rows run the same network on the same images; `peers.txt` says how to make the environment of the peers. The
roofline is the time that the counted operations and bytes would take at what the machine reaches in the same run: the
best float32 convolution, the best 8-bit one, and copying. Peak memory is that of a process for each row.

A run that was interrupted goes on where it stopped: what the file holds is not measured again. `--table` writes the
tables of the file between two markers of a document, and measures nothing where `--nets` is empty.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from speed_machine import Clock, ceilings, machine, neurons, roofline, timed
from speed_nets import build, images
from speed_peers import PEERS
from speed_rows import ROWS, count, row, threads
from speed_table import insert

from snnc.files import atomic_write
from snnc.runtime.cpu.scan import available

HERE = Path(__file__).parent
STEPS = ("reference", "fast, float", "fast, fixed point")


def main() -> None:
    """Measures what is missing, prints a table for each setting, and writes the file after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default="resnet20,vgg16,resnet18")
    parser.add_argument("--T", default="4,8,32")
    parser.add_argument("--batch", default="1,64", help="of ResNet-18 the largest is 8: 64 images need tens of GB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", default="", help="rows by name, separated by semicolons; all where it is empty")
    parser.add_argument("--peers", help="the Python of the peers' environment")
    parser.add_argument("--peak", metavar="NET,T,BATCH", action="append", default=[], help="peak memory of each row")
    parser.add_argument("--steps", metavar="NET,BATCH,T,T", action="append", default=[], help="memory and time by T")
    parser.add_argument("--folder", type=Path, help="keeps compiled networks")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.add_argument("--table", type=Path, help="Markdown document")
    args = parser.parse_args()
    clock = threads(args.threads)
    if not available():
        raise SystemExit("The fast rows need numba: pip install 'snnc[fast]'.")
    report: dict[str, Any] = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
    here = machine(args.threads)
    if report and {**report["machine"], "date": ""} != {**here, "date": ""}:
        raise SystemExit(f"{args.out} is of another machine or version; give another file.")
    report = {"machine": here, "rows": [], "neurons": [], "peak": {}, "steps": {}} | report
    wanted = args.rows.split(";") if args.rows else [*ROWS, *PEERS]
    with tempfile.TemporaryDirectory() as made:
        bench = Bench(args, clock, report, args.folder or Path(made), wanted)
        if not report["neurons"] and args.nets:
            report["neurons"] = neurons(clock)
        for net in filter(None, args.nets.split(",")):
            for T in map(int, args.T.split(",")):
                for batch in map(int, args.batch.split(",")):
                    bench.measure(net, T, min(batch, 8) if net == "resnet18" else batch)
        for setting in args.peak:
            bench.peaks(setting)
        for setting in args.steps:
            bench.steps(setting)
        bench.close()
    if args.table:
        insert(args.table, report)


class Bench:
    """One run: what is asked for, and the report that it fills."""

    def __init__(self, args: Any, clock: Clock, report: dict[str, Any], folder: Path, rows: list[str]) -> None:
        folder.mkdir(exist_ok=True)
        self.args, self.clock, self.report, self.folder, self.rows = args, clock, report, folder, rows
        self.other = None
        if args.peers:
            command = [args.peers, str(HERE / "speed_peers.py"), str(args.threads)]
            pipe: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            self.other = subprocess.Popen(command, text=True, **pipe)

    def close(self) -> None:
        """Ends the process of the peers."""
        if self.other:
            self.other.terminate()
            self.other.wait()

    def write(self) -> None:
        """Writes the file."""
        with atomic_write(self.args.out) as path:
            path.write_text(json.dumps(self.report, indent=1) + "\n", encoding="utf-8")

    @torch.no_grad()
    def measure(self, net: str, T: int, batch: int) -> None:
        """Seconds of each row, in turn."""
        key = {"net": net, "T": T, "batch": batch}
        if any(key.items() <= row.items() for row in self.report["rows"]):
            return
        runs = {name: row(name, net, T, self.folder) for name in ROWS if name in self.rows}
        found: dict[str, list[float]] = {}
        why: dict[str, str] = {}
        for turn in range(self.args.rounds + 1):
            size = batch if turn else min(batch, 2)
            x = images(net, size)
            seconds = {name: timed(lambda run=run, x=x: run(x), self.clock) for name, run in runs.items()}
            for name in PEERS if self.other else ():
                if name in self.rows and name not in why:
                    answer = self.peer(name, net, T, size)
                    why |= {name: answer["why"]} if "why" in answer else {}
                    seconds |= {name: answer["seconds"]} if "seconds" in answer else {}
            for name, value in seconds.items() if turn else ():
                found.setdefault(name, []).append(value)
        limit = ceilings(self.clock)
        result = {
            **key,
            "rounds": self.args.rounds,
            "seconds": {name: statistics.median(values) for name, values in found.items()},
            "spread": {name: [min(values), max(values)] for name, values in found.items()},
            "why not": why,
            "ceilings": limit,
            "roofline": roofline(count(build(net), net), limit, T, batch),
        }
        self.report["rows"].append(result)
        self.write()
        print(json.dumps(result), flush=True)

    def peer(self, name: str, net: str, T: int, batch: int) -> dict[str, Any]:
        """What a peer answers."""
        if self.other is None or self.other.stdin is None or self.other.stdout is None:
            raise SystemExit("The process of the peers has no pipes.")
        print(f"{name}|{net}|{T}|{batch}", file=self.other.stdin, flush=True)
        if not (line := self.other.stdout.readline()):
            raise SystemExit(f"The process of the peers ended at {name}, {net}: out of memory?")
        return dict(json.loads(line))

    def peaks(self, setting: str) -> None:
        """Peak memory of each row before and after a run, in a process of its own."""
        net, T, batch = setting.split(",")
        for name in self.rows:
            key = f"{net}, T = {T}, batch {batch}, {name}"
            if key in self.report["peak"] or (name in PEERS and not self.args.peers):
                continue
            if name in ROWS:
                row(name, net, int(T), self.folder)  # compiled and written before that process looks for it
                self.report["peak"][key] = self.alone("peak", name, net, T, batch)
            else:
                command = [self.args.peers, str(HERE / "speed_peers.py"), str(self.args.threads), name, net, T, batch]
                answer = subprocess.run(command, capture_output=True, text=True, check=False)
                self.report["peak"][key] = json.loads(answer.stdout) if answer.returncode == 0 else None
            self.write()
            print(key, self.report["peak"][key], flush=True)

    def steps(self, setting: str) -> None:
        """Peak memory and seconds at several T, in rounds of as many rows."""
        net, batch, *times = setting.split(",")
        for T in times:
            for name in STEPS:
                key = f"{net}, T = {T}, batch {batch}, {name}"
                if key not in self.report["steps"]:
                    row(name, net, int(T), self.folder)
                    self.report["steps"][key] = self.alone("steps", name, net, T, batch)
                    self.write()
                    print(key, self.report["steps"][key], flush=True)

    def alone(self, kind: str, name: str, net: str, T: str, batch: str) -> list[float]:
        """What `speed_rows.py` prints."""
        where = [kind, str(self.args.threads), name, net, T, batch, str(self.folder)]
        return list(json.loads(subprocess.check_output([sys.executable, str(HERE / "speed_rows.py"), *where])))


if __name__ == "__main__":
    main()
