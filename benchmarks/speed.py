"""What a spiking network costs on this CPU, beside its ANN and other simulators, and the limit of both.

    python benchmarks/speed.py --out speed.json [--peers PEER/bin/python]

Rows are CPU seconds of one thread, medians over rounds in which every row has its turn, so that what else the machine
does falls on all alike. All rows run the same network on the same images; `peers.txt` says how to make the environment
of the peers. The roofline is the time that the counted operations and bytes would take at what the machine reaches in
this run: the best float32 convolution, the best 8-bit one, and copying.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from speed_nets import build, images
from torch import Tensor, nn

import snnc
from snnc.neurons import IF
from snnc.passes import FixedPoint
from snnc.pipeline import Pipeline
from snnc.recipes import recipe
from snnc.runtime.integer import packed
from snnc.runtime.scan import Scan, available

HERE = Path(__file__).parent
ROWS = ("ANN", "reference", "fast, float", "fast, fixed point")
PEERS = ("spikingjelly", "snntorch")


def main() -> None:
    """Measures, prints a table for each network, and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default="resnet20,vgg16")
    parser.add_argument("--T", default="4,8,32")
    parser.add_argument("--batch", default="1,64")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", help="the Python of the peers' environment")
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument(
        "--peak", metavar="FILE,RUNTIME", help="print the peak memory of one run in MB and nothing else"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.peak:
        print(peak(*args.peak.split(",")))
        return
    if not available():
        raise SystemExit("The fast rows need numba: pip install 'snnc[fast]'.")
    other = None
    if args.peers:
        pipe: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        other = subprocess.Popen([args.peers, str(HERE / "speed_peers.py")], text=True, **pipe)
    report: dict[str, Any] = {
        "machine": machine(),
        "ceilings": ceilings(),
        "neurons": neurons(),
        "rows": [],
        "peak": {},
    }
    print(json.dumps({key: report[key] for key in ("machine", "ceilings", "neurons")}, indent=1), flush=True)
    for net in args.nets.split(","):
        counted = count(build(net))
        for T in map(int, args.T.split(",")):
            made = networks(net, T)
            for batch in map(int, args.batch.split(",")):
                row = measure(net, T, batch, made, args.rounds, other)
                row["roofline"] = roofline(counted, report["ceilings"], T, batch)
                report["rows"].append(row)
                show(row)
        report["peak"] |= peaks(net)
        print({key: value for key, value in report["peak"].items() if key.startswith(net)}, flush=True)
        if args.out:
            args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if other:
        other.terminate()


def networks(net: str, T: int) -> dict[str, Any]:
    """What is timed, by row."""
    passes = recipe("opi").pipeline.passes
    calibration = images(32)
    runs: dict[str, Any] = {"ANN": build(net).to(memory_format=torch.channels_last)}
    for name, more, runtime in (
        ("reference", (), "reference"),
        ("fast, float", (), "fast"),
        ("fast, fixed point", (FixedPoint(),), "fast"),
    ):
        runs[name] = snnc.compile(build(net), T=T, recipe=Pipeline((*passes, *more)), calibration=calibration)
        runs[name].runtime = runtime
    return runs


@torch.no_grad()
def measure(net: str, T: int, batch: int, made: dict[str, Any], rounds: int, other: Any) -> dict[str, Any]:
    """CPU seconds of each row, in turn. The first round warms up and is not counted."""
    x = images(batch)
    near = x.contiguous(memory_format=torch.channels_last)
    found: dict[str, list[float]] = {}
    for turn in range(rounds + 1):
        for name in ROWS:
            seconds = timed(lambda name=name: made[name](near if name == "ANN" else x))
            found.setdefault(name, []).append(seconds)
        for name in PEERS if other else ():
            print(name, net, T, batch, file=other.stdin, flush=True)
            if (answer := other.stdout.readline().strip()) != "-":
                found.setdefault(name, []).append(float(answer))
        if turn == 0:
            found = {}
    seconds = {name: statistics.median(values) for name, values in found.items()}
    spread = {name: [min(values), max(values)] for name, values in found.items()}
    return {"net": net, "T": T, "batch": batch, "seconds": seconds, "spread": spread}


def timed(run: Callable[[], Any]) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    run()
    return time.process_time() - start


def best(run: Callable[[], Any], times: int = 15) -> float:
    """CPU seconds of the fastest of some calls."""
    return min(timed(run) for _ in range(times))


@torch.no_grad()
def ceilings() -> dict[str, float]:
    """What this machine reaches in one thread: operations and bytes a second."""
    layer = nn.Conv2d(64, 64, 3, padding=1).requires_grad_(False).to(memory_format=torch.channels_last)
    layer.weight.copy_(torch.randint(-127, 128, layer.weight.shape))
    x = torch.randint(0, 2, (128, 64, 8, 8)).float().contiguous(memory_format=torch.channels_last)
    spikes = x.to(torch.uint8)
    operations = 2 * 128 * 64 * 64 * 64 * 9
    fast = packed(layer)
    if fast is None:
        raise SystemExit("torch has no 8-bit layers on this machine.")
    found = {
        "float32 operations/s": operations / best(lambda: layer(x)),
        "8-bit operations/s": operations / best(lambda: fast(spikes)),
    }
    for size, name in ((1 << 20, "copy in cache, bytes/s"), (1 << 26, "copy in memory, bytes/s")):
        source, target = torch.ones(size // 4), torch.empty(size // 4)
        target.copy_(source)
        found[name] = 2 * size / best(lambda target=target, source=source: target.copy_(source), 60)
    return found


@torch.no_grad()
def neurons() -> list[dict[str, float]]:
    """Bytes a second of the neuron pass at T = 8, beside a copy of the same currents, in turn."""
    rows = []
    layer = Scan(IF(8, torch.full((16, 1, 1), 200.0), torch.full((16, 1, 1), 100.0), unit=True), True)
    for batch in (1, 4, 32, 128):
        current = torch.randint(-99, 300, (8 * batch, 16, 32, 32)).float().contiguous(memory_format=torch.channels_last)
        pairs = [_pair(layer, current) for _ in range(21)]
        scan, copy = (statistics.median(times) for times in zip(*pairs, strict=True))
        rates = current.numel() * 5 / scan, current.numel() * 8 / copy
        row = {"MB": current.nbytes / 1e6, "neurons, bytes/s": rates[0], "copy, bytes/s": rates[1]}
        rows.append(row | {"share": rates[0] / rates[1]})
    return rows


def _pair(layer: Scan, current: Tensor) -> tuple[float, float]:
    target = torch.empty_like(current)
    target.copy_(current)
    return timed(lambda: layer(None, current, 8)), timed(lambda: target.copy_(current))


def count(model: nn.Module) -> dict[str, float]:
    """Operations of the first layer and of the others, and neurons, for one image."""
    found: dict[str, float] = {"first": 0.0, "rest": 0.0, "neurons": 0.0}

    def weighted(layer: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        found["rest" if found["first"] else "first"] += 2 * output.numel() * layer.weight[0].numel()

    def activation(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        found["neurons"] += output.numel()

    hooks = [
        module.register_forward_hook(weighted if isinstance(module, (nn.Conv2d, nn.Linear)) else activation)
        for module in model.modules()
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.ReLU))
    ]
    with torch.no_grad():
        model(images(1))
    for hook in hooks:
        hook.remove()
    return found


def roofline(counted: dict[str, float], ceiling: dict[str, float], T: int, batch: int) -> dict[str, float]:
    """Least seconds for a batch: arithmetic, and the currents and spikes, each written once and read once."""
    first, rest = counted["first"], counted["rest"]
    plain, bytes_ = ceiling["float32 operations/s"], ceiling["copy in cache, bytes/s"]
    passes = T * counted["neurons"] * (4 + 4 + 1 + 1) / bytes_
    return {
        "ANN": batch * (first + rest) / plain,
        "fast, float": batch * ((first + T * rest) / plain + T * counted["neurons"] * 4 * 4 / bytes_),
        "fast, fixed point": batch * (first / plain + T * rest / ceiling["8-bit operations/s"] + passes),
    }


def peaks(net: str) -> dict[str, float]:
    """Peak memory of a run of 8 images at 8 and at 256 steps, each in a process of its own, which does not compile."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for T in (8, 256):
            for kind, more in (("float", ()), ("fixed point", (FixedPoint(),))):
                passes = Pipeline((*recipe("opi").pipeline.passes, *more))
                snnc.save(snnc.compile(build(net), T=T, recipe=passes, calibration=images(8)), f"{folder}/net.snn")
                for runtime in ("reference", "fast"):
                    command = [sys.executable, __file__, "--peak", f"{folder}/net.snn,{runtime}"]
                    peak = float(subprocess.check_output(command, text=True))
                    found[f"{net}, {kind}, {runtime}, T = {T}"] = peak
    return found


@torch.no_grad()
def peak(path: str, runtime: str) -> float:
    """Peak memory of this process after one batch of 8, in MB."""
    snn = snnc.load(path)
    snn.runtime = runtime
    snn(images(8))
    status = Path("/proc/self/status").read_text()  # getrusage would give the parent's peak where that is larger
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1000


def show(row: dict[str, Any]) -> None:
    """A table of one setting."""
    ann, T = row["seconds"]["ANN"], row["T"]
    print(f"\n{row['net']}, T = {T}, batch {row['batch']}\n")
    print("| row | ms | x ANN | x T ANN | of the roofline |\n|---|--:|--:|--:|--:|")
    for name, seconds in row["seconds"].items():
        share = f"{row['roofline'][name] / seconds:.0%}" if name in row["roofline"] else ""
        print(f"| {name} | {seconds * 1e3:.1f} | {seconds / ann:.2f} | {seconds / ann / T:.2f} | {share} |", flush=True)


def machine() -> dict[str, str]:
    """What was measured, and where."""
    return {
        "processor": next(
            (
                line.split(":")[1].strip()
                for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")
            ),
            platform.machine(),
        ),
        "8-bit units": "VNNI" if torch.cpu._is_vnni_supported() else "none",
        "torch": torch.__version__,
        "snnc": snnc.__version__,
        "date": datetime.now(UTC).date().isoformat(),
        "threads": "1",
    }


if __name__ == "__main__":
    main()
