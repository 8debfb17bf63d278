"""A vision transformer and a gated CNN, trained here in minutes, and what telescoping makes of them.

    python benchmarks/vit.py --data FOLDER --out docs/results/telescoped.json

FOLDER holds `common.py` and MNIST, as for `low_latency_mnist.py`. Two networks are trained on the 60,000 training
images: a vision transformer (patches of 7 x 7, a class token, LayerNorm, softmax attention, GELU) and a CNN with SiLU,
hard swish and squeeze-and-excitation. Each is compiled for T = 1 .. 32 with spikes of 1 bit (ternary), 2 and 3 bits and
a sign, without and with calibration of weights on 512 training images, and compared with its ANN on 1,000 test images:
accuracy, and in how many of them both choose the same class. Each finished row is written at once.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from accuracy import folder_module
from torch import Tensor, nn
from torch.nn import functional as F

import snnc
from snnc.files import atomic_write
from snnc.passes.pipeline import Pipeline
from snnc.recipes import recipe


class Vit(nn.Module):
    """Blocks with normalisation in front."""

    def __init__(self, width: int = 48, depth: int = 3, heads: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 7, 7)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.place = nn.Parameter(torch.randn(1, 17, width) * 0.1)
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place
        return self.head(self.blocks(x)[:, 0])


class Gated(nn.Module):
    """Inverted bottlenecks with squeeze-and-excitation."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(Bottleneck(width, F.silu), nn.AvgPool2d(2), Bottleneck(width, F.hardswish))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.norm(self.stem(x)))
        return self.head(self.blocks(x).mean((2, 3)))


class Bottleneck(nn.Module):
    """Wide, depthwise, gated, narrow, and the input added."""

    def __init__(self, width: int, act: Any) -> None:
        super().__init__()
        wide = 4 * width
        self.up, self.n1 = nn.Conv2d(width, wide, 1, bias=False), nn.BatchNorm2d(wide)
        self.deep, self.n2 = nn.Conv2d(wide, wide, 3, 1, 1, groups=wide, bias=False), nn.BatchNorm2d(wide)
        self.less, self.more = nn.Conv2d(wide, wide // 4, 1), nn.Conv2d(wide // 4, wide, 1)
        self.down, self.n3 = nn.Conv2d(wide, width, 1, bias=False), nn.BatchNorm2d(width)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.n2(self.deep(self.act(self.n1(self.up(x))))))
        gate = F.hardsigmoid(self.more(F.relu(self.less(y.mean((2, 3), keepdim=True)))))
        return x + self.n3(self.down(y * gate))


def train(net: nn.Module, x: Tensor, y: Tensor, epochs: int) -> nn.Module:
    """AdamW with one cycle of the learning rate."""
    steps = epochs * (len(x) // 200)
    optimiser = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, steps, pct_start=0.2)
    net.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(200):
            if len(rows) < 200:
                continue
            loss = F.cross_entropy(net(x[rows]), y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return net.eval()


def pipeline(bits: int, calibrated: bool) -> Pipeline:
    """The recipe for spikes of so many bits."""
    made = recipe("telescoped").pipeline
    made = made.set("quantize-activations", bits=bits).set("encode-values", bits=bits)
    made = made.set("use-signed-neurons", bits=bits)
    return made if calibrated else made.remove("calibrate-weights")


def main() -> None:
    """Trains, compiles, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("SNNC_DATA"), help="folder with common.py and mnist"
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file with every finished row")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--nets", default="vit,gated")
    parser.add_argument("--images", type=int, default=1000, help="test images")
    parser.add_argument("--rows", type=int, default=60000, help="training images")
    parser.add_argument("--steps", default="1,2,4,8,16,32", help="values of T")
    args = parser.parse_args()
    torch.manual_seed(0)
    common = folder_module(args.data, "common")
    (x, y), (test, labels) = (prepared(*common.load_idx("mnist", part)) for part in ("train", "test"))
    x, y, test, labels = x[: args.rows], y[: args.rows], test[: args.images], labels[: args.images]
    steps = [int(T) for T in args.steps.split(",")]
    rows: list[dict[str, Any]] = []
    for name in args.nets.split(","):
        start = time.process_time()
        net = train({"vit": Vit, "gated": Gated}[name](), x, y, args.epochs)
        with torch.no_grad():
            ann = net(test).argmax(1)
        percent = 100 * float((ann == labels).float().mean())
        print(f"{name}: ANN {percent:.2f} %, trained in {time.process_time() - start:.0f} s of one core", flush=True)
        for bits in (1, 2, 3):
            for calibrated in (False, True):
                for T in steps:
                    spiking = snnc.compile(net, T, pipeline(bits, calibrated), calibration=x[:512])
                    found = spiking(test).argmax(1)
                    rows.append({"net": name, "ann": percent, "bits": bits, "calibrated": calibrated, "T": T})
                    rows[-1]["accuracy"] = 100 * float((found == labels).float().mean())
                    rows[-1]["agreement"] = 100 * float((found == ann).float().mean())
                    with atomic_write(args.out) as temporary:
                        temporary.write_text(json.dumps(rows, indent=1))
                shown = [f"{r['accuracy']:.1f} ({r['agreement']:.1f})" for r in rows[-len(steps) :]]
                print(
                    f"{name}, {bits} bits, {'calibrated' if calibrated else 'as it is'}: {', '.join(shown)}", flush=True
                )


def prepared(images: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """Pixels over 255, channels in front."""
    x = torch.as_tensor(images).float().reshape(-1, 1, 28, 28)
    return (x / 255 if x.max() > 1 else x), torch.as_tensor(labels).long()


if __name__ == "__main__":
    main()
