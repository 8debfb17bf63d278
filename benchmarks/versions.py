"""Two versions of snnc in one run: what importing, compiling, running and the tests that both have cost.

    python benchmarks/versions.py OLD NEW --rounds 5 --tests test_passes.py,test_fixed.py

OLD and NEW are commits of this repository. Each round runs both, one after the other, in processes of their own with
one thread; CPU seconds, and of all rounds the least. Uses public names alone, so that both versions run the same code.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).parent.parent
WORK = """
import json, sys, time
begun = time.process_time()
import torch
torches = time.process_time()
import snnc
found = {"import torch": torches - begun, "import snnc": time.process_time() - torches}
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from speed_nets import build, images

def timed(name, run, times=1):
    found[name] = float("inf")
    for _ in range(times):
        begun = time.process_time()
        result = run()
        found[name] = min(found[name], time.process_time() - begun)
    return result

x = images("resnet20", 64)
timed("first capture", lambda: snnc.capture(build("resnet20")))
for name in ("opi", "signed", "data-free"):
    pipeline = snnc.recipe(name).pipeline
    made = timed(f"compile, {name}", lambda: snnc.compile(build("resnet20"), T=8, recipe=pipeline, calibration=x), 3)
    if name == "opi":
        net = made
pipeline = snnc.recipe("opi").pipeline
pipeline = pipeline.insert(snnc.PASSES["fixed-point"](), after=pipeline.passes[-1].name)
fixed = timed("compile, opi, fixed point", lambda: snnc.compile(build("resnet20"), T=8, recipe=pipeline, calibration=x))
for name, made in (("float", net), ("fixed point", fixed)):
    for runtime in ("reference", "fast"):
        made.runtime = runtime
        made(x[:8])
        timed(f"run, {name}, {runtime}", lambda: made(x), 5)
print(json.dumps(found))
"""


def checkout(commit: str, folder: Path) -> Path:
    """The package and the tests as they were."""
    folder.mkdir()
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    return folder


def environment(root: Path) -> dict[str, str]:
    """One thread, and this version before any that is installed."""
    return {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}


def work(root: Path) -> dict[str, float]:
    """CPU seconds of each part of `WORK`."""
    command = [sys.executable, "-c", WORK, str(ROOT / "benchmarks")]
    done = subprocess.run(command, cwd=root, env=environment(root), check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def tests(root: Path, names: set[str]) -> dict[str, float]:
    """Seconds of each test of the files with these names, that passed."""
    paths = sorted(str(path) for path in (root / "tests").rglob("test_*.py") if path.name in names)
    report = root / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={report}", *paths]
    subprocess.run(command, cwd=root, env=environment(root), check=False, stdout=subprocess.DEVNULL)
    cases = ET.parse(report).getroot().iter("testcase")
    return {
        f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}": float(case.get("time", "nan"))
        for case in cases
        if not len(case)
    }


def least(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Of several rounds the least of each figure that all have."""
    common = set.intersection(*(set(one) for one in rounds))
    return {name: min(one[name] for one in rounds) for name in rounds[0] if name in common}


def main() -> None:
    """Prints a table of ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tests", default="", help="names of files, such as test_passes.py, comma-separated")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        roots = [checkout(commit, Path(folder) / name) for name, commit in (("old", args.old), ("new", args.new))]
        found: list[list[dict[str, float]]] = [[], []]
        for number in range(args.rounds):
            for version in (0, 1) if number % 2 else (1, 0):
                found[version].append(work(roots[version]))
        old, new = (least(version) for version in found)
        print("| | old, s | new, s | ratio |\n|---|--:|--:|--:|")
        for name in old:
            print(f"| {name} | {old[name]:.2f} | {new[name]:.2f} | {new[name] / old[name]:.2f} |", flush=True)
        if args.tests:
            names = set(args.tests.split(","))
            rounds: list[list[dict[str, float]]] = [[], []]
            for number in range(args.rounds):
                for version in (0, 1) if number % 2 else (1, 0):
                    rounds[version].append(tests(roots[version], names))
            before, after = (least(version) for version in rounds)
            both = before.keys() & after.keys()
            sums = [sum(version[name] for name in both) for version in (before, after)]
            print(f"| {len(both)} tests that both have | {sums[0]:.1f} | {sums[1]:.1f} | {sums[1] / sums[0]:.2f} |")


if __name__ == "__main__":
    main()
