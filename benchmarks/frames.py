"""Input that changes in time: accuracy after each frame, and whether all ways to run a network give the same bits.

    python benchmarks/frames.py --out docs/results/frames.json --data FOLDER

Events of digits that move (`examples/events.py`), binned to 8 frames. Rows:

    digits sum      scikit-learn's, an ANN that was trained on the sum of a sample's frames
    digits mean     on their mean
    digits each     on each frame, its outputs averaged
    digits count    on the sum, binned by number of events
    mnist sum       4,000 training and 1,000 test images of MNIST; needs `--data`, as for `accuracy.py`

Each is compiled with the default recipe on 512 training samples. In fixed point the same network runs by torch, by its
fast runtime, frame by frame, and by onnxruntime, and all bits are compared. Each finished row is written at once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import folder_module, provenance
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

import snnc
from snnc.data import Binning, Dataset, read
from snnc.files import atomic_write
from snnc.networks.network import Network
from snnc.recipes import recipe

sys.path.insert(0, str(Path(__file__).parent.parent))

from examples.events import SEED, T, network, record, so_far

SAMPLES = 100  # whose bits are compared


class EachFrame(nn.Module):
    """A network that runs on each frame; its outputs are averaged."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.flatten(0, 1)).unflatten(0, (len(x), -1)).mean(1)


def digits() -> tuple[Tensor, np.ndarray, int]:
    """Pictures, labels, and how many train."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    images = functional.interpolate(images, scale_factor=2, mode="bilinear")
    return functional.pad(images, (4, 4, 4, 4))[:, 0], labels, 1297


def mnist(folder: Path) -> tuple[Tensor, np.ndarray, int]:
    """The same of MNIST: 4,000 training and 1,000 test images."""
    common = folder_module(folder, "common")
    x, y = common.load_idx("mnist", "train")
    other, labels = common.load_idx("mnist", "test")
    images = np.concatenate([x[:4000], other[:1000]]).reshape(-1, 28, 28)
    scaled = torch.tensor(images, dtype=torch.float32) / (255 if images.max() > 1 else 1)
    return functional.pad(scaled, (2, 2, 2, 2)), np.concatenate([y[:4000], labels[:1000]]), 4000


def trained(data: Dataset, way: str, side: int, epochs: int) -> nn.Module:
    """An ANN that was trained on the frames of samples, by one of the ways."""
    torch.manual_seed(SEED)
    model = network(side)
    whole = EachFrame(model) if way == "each" else model
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, epochs * -(-len(data) // 50))
    chance = np.random.default_rng(SEED)
    model.train()
    for _ in range(epochs):
        order = chance.permutation(len(data))
        for x, y in data.take(order).batches(50):
            given = x if way == "each" else x.sum(1) if way == "sum" else x.mean(1)
            optimiser.zero_grad()
            functional.cross_entropy(whole(given), y).backward()
            optimiser.step()
            schedule.step()
    return model.eval()


def stepped(net: Any, x: Tensor) -> Tensor:
    """The readout after each frame, frame by frame."""
    state, found = net.start(), []
    for t in range(net.T):
        one, state = net.step(x[:, t], state)
        found.append(one)
    return torch.stack(found)


def bits(net: Network, x: Tensor, folder: Path) -> dict[str, Any]:
    """How many numbers of the readouts, and spikes, differ between ways to run a network."""
    wanted = net.readout(x)
    found = {"numbers": wanted.numel(), "step": int((stepped(net, x) != wanted).sum())}
    net.runtime = "reference"
    found["reference"] = int((net.readout(x) != wanted).sum())
    net.runtime = "auto"
    other = snnc.load(snnc.save(net, folder / "net.onnx"))
    compared = snnc.verify(net, other, x)
    found |= {"onnxruntime": int((other.readout(x) != wanted).sum()), "places": compared.places}
    return found | {"spikes": compared.spikes}


def row(name: str, data: Dataset, cut: int, way: str, epochs: int) -> dict[str, Any]:
    """One network, trained, compiled and measured."""
    start = time.process_time()
    order = np.random.default_rng(SEED).permutation(cut)
    training, test = data.take(order), data.take(np.arange(cut, len(data)))
    model = trained(training, way, data.x.shape[-1], epochs)
    net = snnc.compile(model, calibration=training, frames=way)
    found = snnc.evaluate(net, test, model)
    ann = so_far(model, test) if way == "sum" else None
    fixed = recipe(net.info["recipe"]).over_frames(T).pipeline.insert(snnc.PASSES["fixed-point"]())
    integers = snnc.compile(model, recipe=fixed, calibration=training, frames=way)
    x, _ = next(test.batches(SAMPLES))
    with tempfile.TemporaryDirectory() as folder:
        same = {"float": bits(net, x, Path(folder)), "fixed point": bits(integers, x, Path(folder))}
    return {
        "name": name,
        "way": way,
        "data": f"{len(training)} training samples, {len(test)} test samples, {T} frames",
        "binning": dict(data.binning or {}),
        "recipe": net.info["recipe"],
        "ann": found.ann_accuracy,
        "accuracy": found.accuracy,
        "agreement": found.agreement,
        "ann_so_far": ann,
        "fixed_point": snnc.evaluate(integers, test).accuracy[-1],
        "differ": same,
        "seconds": round(time.process_time() - start, 1),
        **provenance(),
    }


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("SNNC_DATA"), help="folder with common.py")
    parser.add_argument("--out", type=Path, required=True, help="JSON file, to which rows are added")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        images, labels, cut = digits()
        # A permutation, since the digits of one writer stand together.
        order = np.random.default_rng(SEED).permutation(len(images))
        file = record(images[order], labels[order], Path(folder) / "digits.npz")
        whole = {by: read(file, frames=True, bins=Binning(T).by_rule(by)) for by in ("time", "count")}
        plans = [(f"digits {way}", whole["time"], cut, way, 20) for way in ("sum", "mean", "each")]
        plans.append(("digits count", whole["count"], cut, "sum", 20))
        if args.data:
            images, labels, cut = mnist(args.data)
            file = record(images, labels, Path(folder) / "mnist.npz")
            plans.append(("mnist sum", read(file, frames=True, bins=Binning(T)), cut, "sum", 6))
        for plan in plans:
            rows.append(row(*plan))
            told = rows[-1]
            print(
                told["name"],
                f"ANN {told['ann']:.2f}",
                [round(one, 1) for one in told["accuracy"]],
                told["differ"],
                flush=True,
            )
            with atomic_write(args.out) as temporary:
                temporary.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
