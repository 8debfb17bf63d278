"""Peak memory and time of calibration, for a network of the size of ImageNet, at several limits of memory.

    python benchmarks/memory.py docs/results/memory.json --limits 0,4,2 --samples 64

The network is a ResNet-18 (or --net resnet50) of random weights, its batch normalisation set by the data; the data are
noise with some structure. Each row is a process of its own: limit 0 means the default, half of what is free. All rows
of one setting and label have to make the same network, to the bit; a row that does not ends the run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    """Two convolutions of 3 x 3, or a bottleneck, with what is added to it."""

    def __init__(self, inputs: int, width: int, stride: int, wide: bool) -> None:
        super().__init__()
        outputs = 4 * width if wide else width
        shapes = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)] if wide else [
            (inputs, width, 3, stride), (width, outputs, 3, 1)
        ]  # fmt: skip
        layers: list[nn.Module] = []
        for a, b, size, step in shapes:
            layers += [nn.Conv2d(a, b, size, step, size // 2, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
        self.body, self.last = nn.Sequential(*layers[:-1]), nn.ReLU()
        self.short = nn.Sequential()
        if stride > 1 or inputs != outputs:
            self.short = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]`."""
        return self.last(self.body(x) + self.short(x))


def resnet(blocks: tuple[int, ...], wide: bool, size: int) -> nn.Sequential:
    """A residual network for images of `size` pixels, with weights drawn by one seed."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, 1))
    inputs = 64
    for stage, count in enumerate(blocks):
        for number in range(count):
            width = 64 * 2**stage
            layers.append(Block(inputs, width, 2 if stage and not number else 1, wide))
            inputs = 4 * width if wide else width
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000))
    with torch.no_grad():  # batch normalisation as it would be after training: aware of what it sees
        net(images(8, size))
    return net.eval().requires_grad_(False)


def images(count: int, size: int) -> Tensor:
    """Smooth noise `[N, 3, size, size]`."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(count, 3, size // 8, size // 8, generator=generator)
    return functional.interpolate(coarse, (size, size), mode="bilinear")


NETS = {"resnet18": ((2, 2, 2, 2), False), "resnet34": ((3, 4, 6, 3), False), "resnet50": ((3, 4, 6, 3), True)}


def alone(net: str, size: int, T: int, samples: int, recipe: str, without: str, limit: float) -> None:
    """Compiles once; prints peak memory, seconds by pass, and a digest of the network."""
    import snnc
    from snnc.processes import digest

    model, x = resnet(*NETS[net], size), images(samples, size)
    chosen = snnc.recipe(recipe)
    for name in filter(None, without.split(",")):
        chosen = chosen.remove(name) if name in [one.name for one in chosen.pipeline] else chosen
    before, start, cpu = peak(), time.perf_counter(), time.process_time()
    more = {"memory": limit} if limit else {}
    made = snnc.compile(model, T, chosen, x, samples=samples, quick=True, **more)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    passes = {record["name"]: round(record["seconds"], 1) for record in made.info["records"] if record["seconds"] > 0.5}
    notes = [note for record in made.info["records"] for note in record["notes"] if note.startswith("on ")]
    print(json.dumps({
        "GB before": before, "GB": peak(), "seconds": round(seconds, 1), "CPU seconds": round(cpu, 1), "passes": passes,
        "swept": notes,
        "bits": digest(*made.graph.state_dict().values())[:12],
    }))  # fmt: skip


def peak() -> float:
    """Most memory that this process has held, in GB."""
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM"))
    return round(int(line.split()[1]) * 1024 / 1e9, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--net", default="resnet18", choices=NETS)
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--T", type=int, default=4)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--recipe", default="best")
    parser.add_argument("--without", default="", help="passes of the recipe that are left out")
    parser.add_argument("--limits", default="0,4,2", help="GB, one row each; 0 is the default")
    parser.add_argument("--label", default="now", help="which snnc this is, in the table")
    parser.add_argument("--alone", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    setting = (args.net, args.size, args.T, args.samples, args.recipe, args.without)
    if args.alone is not None:
        return alone(*setting, args.alone)
    rows = json.loads(args.out.read_text()) if args.out.exists() else []
    for limit in args.limits.split(","):
        command = [sys.executable, __file__, *sys.argv[1:], "--alone", limit]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
        names = ("net", "size", "T", "samples", "recipe", "without")
        row = dict(zip(names, setting, strict=True)) | {"label": args.label, "limit": float(limit) or None}
        row |= json.loads(answer.stdout)
        print(row, flush=True)
        rows.append(row)
        args.out.write_text(json.dumps(rows, indent=1) + "\n")
        same = [one["bits"] for one in rows if all(one[key] == row[key] for key in (*names, "label"))]
        if len(set(same)) > 1:
            raise SystemExit(f"The limit changed the network: {same}")
    return None


if __name__ == "__main__":
    main()
