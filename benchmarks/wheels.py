"""The wheel in fresh environments: built, installed with the core dependencies alone, and used.

    python benchmarks/wheels.py python3.11 python3.12 python3.13

For each interpreter: a new virtual environment, torch at the pin of `constraints.txt`, the wheel with what it requires
and no extra, all of its source compiled, and a network compiled, measured and checked from the command line.
`--no-torch` is for machines that have no torch for an interpreter: the wheel is then installed with all of its
dependencies but torch, and its source is compiled.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
USE = """
import numpy as np, torch, snnc
from torch import nn
torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
                    nn.Linear(16, 3)).eval()
torch.save(net, "ann.pt")
x = np.random.default_rng(0).normal(size=(64, 2, 4, 4)).astype("float32")
np.savez("data.npz", x=x, y=net(torch.from_numpy(x)).argmax(1).numpy())
"""
COMMANDS = [
    "compile ann.pt --calib data.npz -o out.snn",
    "compile ann.pt --calib data.npz --recipe opi --fixed-point -o out.onnx",
    "compile ann.pt --calib data.npz --recipe opi --fixed-point -o fixed.snn",
    "eval out.snn --data data.npz --ann ann.pt",
    "verify fixed.snn out.onnx --data data.npz",
    "report out.snn --ann ann.pt --data data.npz -o out.html",
]


def main() -> None:
    """Parses the command line and tries every interpreter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", nargs="+")
    parser.add_argument("--no-torch", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        call(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, str(ROOT))
        wheel = next(Path(folder).glob("*.whl"))
        for number, python in enumerate(args.python):
            place = Path(folder) / str(number)
            place.mkdir()
            tried(python, wheel, place, args.no_torch)


def tried(python: str, wheel: Path, place: Path, no_torch: bool) -> None:
    """One interpreter: raises `CalledProcessError` where anything fails."""
    call(python, "-m", "venv", str(place / "venv"))
    inside = place / "venv" / "bin" / "python"
    pin = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
    install = (inside, "-m", "pip", "install", "--quiet")
    if no_torch:
        needs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
        call(*install, *(one for one in needs if not one.startswith("torch")))
        call(*install, "--no-deps", wheel)
    else:
        call(*install, pin)
        call(*install, wheel)
    version = call(inside, "-c", "import sys; print(sys.version.split()[0])").strip()
    source = call(inside, "-c", "import importlib.util as u; print(u.find_spec('snnc').submodule_search_locations[0])")
    call(inside, "-W", "error", "-m", "compileall", "-q", "-f", source.strip())
    done = "installed and compiled to bytecode; torch is not there, so nothing was run"
    if not no_torch:
        call(inside, "-c", USE, folder=place)
        for command in COMMANDS:
            call(inside, "-m", "snnc", *command.split(), folder=place)
        done = f"installed, and ran: {'; '.join(line.split()[0] for line in COMMANDS)}"
    print(f"Python {version}: {wheel.name} {done}", flush=True)


def call(*words: str | Path, folder: Path | None = None) -> str:
    """Runs a program and gives what it printed; what it says in error is shown."""
    found = subprocess.run([*map(str, words)], cwd=folder or "/", capture_output=True, text=True, check=False)
    if found.returncode:
        print(found.stdout, found.stderr, sep="\n", file=sys.stderr)
        found.check_returncode()
    return found.stdout


if __name__ == "__main__":
    main()
