"""On a GPU: whether spikes are those of the CPU, a network's time beside T times its ANN's, and the neuron kernel's.

    python benchmarks/gpu.py --out gpu.json
    python benchmarks/gpu.py --device cpu --batch 1,4 --out cpu.json       # that the script itself works

The networks of `speed_nets.py`, float and in fixed point, with channels last but where a row says otherwise. Rows of
one table are timed in turns; seconds are medians between two synchronisations, launches included. The ANN runs in
float32 as the float network does, with TF32 as torch has it by default and as the peers run, and both once more as CUDA
graphs, which is how snnc runs networks. "differ" counts readouts, after each step and of the replayed third run: of the
fixed-point network those that are not the CPU's, and last outputs with them; of each network those of the fast runtime
that are not the reference's on the same device.
None may. Peers are those that can be imported; `peers.txt` names their versions. The kernel of neurons is measured in a
CUDA graph too, and its share is of what a copy of the same currents reaches.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from gpu_kernels import kernel, layers, timed
from gpu_table import tables
from speed_nets import build, images
from speed_peers import PEERS
from torch import nn

import snnc
from snnc.defaults import CHUNK
from snnc.files import atomic_write
from snnc.passes import FixedPoint
from snnc.passes.pipeline import Pipeline
from snnc.recipes import recipe
from snnc.steady import exact

CHECKED = 64  # images whose readouts are compared with the CPU's, which takes its time


def main() -> None:
    """Measures and writes everything, part by part, and prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--networks", default="resnet20,vgg16")
    parser.add_argument("--parts", default="kernels,networks,memory")
    parser.add_argument("--T", type=int, default=8)
    parser.add_argument("--batch", default="1,256")
    parser.add_argument("--chunk", type=int, default=4096, help="time steps x images in memory at once")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    device = torch.device(args.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    found: dict[str, Any] = {"device": name, "torch": torch.__version__, "T": args.T}
    parts = args.parts.split(",")
    if "kernels" in parts:
        found["kernel"] = kernel(device, args.rounds)
        found["layers"] = layers(device, args.rounds) if device.type == "cuda" else {}
        write(args.out, found)
    for network in args.networks.split(",") if "networks" in parts else ():
        found[network] = measured(network, device, args)
        write(args.out, found)
    if "memory" in parts and device.type == "cuda":
        found["memory"] = memory(args.networks.split(",")[0], device)
        write(args.out, found)
    print("\n\n".join(tables(found)))


def write(path: Path, found: dict[str, Any]) -> None:
    """Writes what there is so far: a borrowed GPU may go at any time."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"{path}: {', '.join(found)}", flush=True)


@torch.no_grad()
def measured(name: str, device: torch.device, args: argparse.Namespace) -> list[dict[str, Any]]:
    """One network in each batch: seconds of each row, and readouts that differ."""
    ann, start = build(name), recipe("opi").pipeline
    nets = {
        "float": snnc.compile(ann, args.T, start, images(name, 32)),
        "fixed": snnc.compile(ann, args.T, Pipeline((*start, FixedPoint())), images(name, 32)),
    }
    rows: dict[str, Callable[[torch.Tensor], Any]] = {}
    for label, order in (("", torch.channels_last), (", channels first", torch.contiguous_format)):
        model = copy.deepcopy(ann).to(device).to(memory_format=order)
        ordered = functools.partial(torch.Tensor.contiguous, memory_format=order)
        rows |= anns(model, ordered, label, device)
    here: dict[str, snnc.Network] = {}
    for kind, net in nets.items():
        for runtime in ("reference", "auto"):
            here[f"{kind}, {runtime}"] = moved = copy.deepcopy(net).to(device)
            moved.runtime, moved.chunk = runtime, args.chunk
    rows |= here
    rows["float, auto, channels first"] = lambda x: here["float, auto"](x.contiguous())
    small = copy.deepcopy(here["fixed, auto"])
    small.chunk = CHUNK
    rows[f"fixed, auto, chunk {CHUNK}"] = small
    lacks: dict[str, str] = {}
    for kind, net in nets.items():
        with told(lacks, f"{kind}, ONNX"):
            rows[f"{kind}, ONNX"] = emitted(net, device, args.chunk)
    for peer, make in PEERS.items():
        with told(lacks, peer):
            rows[peer] = functools.partial(make(name, device.type), T=args.T)
    return [table(name, size, rows, nets["fixed"], lacks, device, args) for size in map(int, args.batch.split(","))]


def anns(
    model: nn.Module, ordered: Callable[[torch.Tensor], torch.Tensor], label: str, device: torch.device
) -> dict[str, Callable[[torch.Tensor], Any]]:
    """The rows of the ANN."""

    def float32(x: torch.Tensor) -> Any:
        with exact():
            return model(ordered(x))

    rows: dict[str, Callable[[torch.Tensor], Any]] = {
        f"ANN{label}": float32,
        f"ANN, TF32{label}": lambda x: model(ordered(x)),
    }
    if device.type == "cuda":
        rows |= {f"{row}, replayed": replayed(run) for row, run in rows.items()}
    return rows


def replayed(run: Callable[[torch.Tensor], Any]) -> Callable[[torch.Tensor], Any]:
    """The same as one CUDA graph for each shape."""
    kept: dict[torch.Size, torch.cuda.CUDAGraph] = {}

    def replay(x: torch.Tensor) -> None:
        if x.shape not in kept:
            run(x)
            kept[x.shape] = torch.cuda.CUDAGraph()
            with torch.cuda.graph(kept[x.shape]):
                run(x)
        kept[x.shape].replay()

    return replay


@contextmanager
def told(lacks: dict[str, str], row: str) -> Iterator[None]:
    """Whatever a row raises is its answer."""
    try:
        yield
    except Exception as error:
        lacks[row] = f"{type(error).__name__}: {error}".splitlines()[0]


def table(
    name: str,
    size: int,
    rows: dict[str, Callable[[torch.Tensor], Any]],
    fixed: snnc.Network,
    lacks: dict[str, str],
    device: torch.device,
    args: argparse.Namespace,
) -> dict[str, Any]:
    """One batch."""
    x = images(name, size)
    here = x.to(device).contiguous(memory_format=torch.channels_last)
    runs: dict[str, Callable[[], Any]] = {}
    lacks = dict(lacks)
    for row, run in rows.items():
        with told(lacks, row):
            run(here)
            runs[row] = functools.partial(run, here)
    seconds = timed(runs, device, args.rounds)
    # Three times: the first run is launched, the second recorded and the third replayed.
    seen = {
        row: [net.readout(here) for _ in range(3)][-1].cpu() for row, net in rows.items() if hasattr(net, "readout")
    }
    differ = {
        f"{kind}, auto from reference": int((seen[f"{kind}, auto"] != seen[f"{kind}, reference"]).sum())
        for kind in ("float", "fixed")
    }
    wanted = fixed.readout(x[:CHECKED])  # floats are rounded as each device sums
    for row, found in seen.items():
        if row.startswith("fixed"):
            last = rows[row](here)[:CHECKED].cpu()  # as it was timed
            differ[f"{row} from CPU"] = int((found[:, :CHECKED] != wanted).sum() + (last != fixed(x[:CHECKED])).sum())
    return {
        "batch": size,
        "seconds": seconds,
        "of T x ANN": {row: round(value / seconds["ANN"] / args.T, 3) for row, value in seconds.items()},
        "of T x ANN, TF32": {row: round(value / seconds["ANN, TF32"] / args.T, 3) for row, value in seconds.items()},
        "runs by": {row: net.runs_by for row, net in rows.items() if hasattr(net, "runs_by")},
        "readouts": wanted.numel(),
        "differ": differ,
        "lacks": lacks,
    }


@torch.no_grad()
def memory(name: str, device: torch.device, rows: int = 512) -> list[dict[str, Any]]:
    """Peak memory, and time a step, of few and of many steps in rounds of as many rows."""
    found = []
    for kind, passes in (("float", ()), ("fixed", (FixedPoint(),))):
        for T in (8, 256):
            net = snnc.compile(build(name), T, Pipeline((*recipe("opi").pipeline, *passes)), images(name, 32))
            net, x = net.to(device), images(name, rows // 8).to(device)
            net.chunk = rows
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            seconds = timed({kind: functools.partial(net, x)}, device, 5)[kind]
            megabytes = torch.cuda.max_memory_allocated() / 1e6
            found.append({"network": kind, "T": T, "MB": round(megabytes, 1), "ms a step": 1e3 * seconds / T})
            del net
    return found


def emitted(net: snnc.Network, device: torch.device, chunk: int) -> Callable[[torch.Tensor], Any]:
    """The network as onnxruntime runs it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        snnc.save(net, path)
        found = snnc.load(path, device=device)
    found.chunk = chunk
    return found


if __name__ == "__main__":
    main()
