"""Networks that arrive as ONNX: each imported, scored as the ANN that it is, and converted.

    python benchmarks/onnx_networks.py --data FOLDER --out docs/results/onnx.json --render docs/results/files.md

FOLDER as for `accuracy.py`; the networks lie in its `models`. Every network reads the test set twice, as the graph that
snnc captures and through onnxruntime from the file itself, and the predictions are compared. Then it is compiled with
one recipe for each T and scored on the first test samples. Data always come as maps with the channels in front; where a
network wants another order, snnc rearranges them for its graph, and this script for onnxruntime. What is measured is
written at once, and not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from accuracy import folder_module, normaliser, provenance
from torch import Tensor

import snnc
from snnc.capture import told_shape
from snnc.files import atomic_write, load_model
from snnc.networks.onnx import quiet_options

BATCH = 50
BEGIN, END = "<!-- onnx: begin -->\n", "<!-- onnx: end -->\n"
IMAGENET = normaliser((0.485, 0.456, 0.406), (0.225, 0.225, 0.225))
CIFAR = normaliser((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
UNIT, RAW = normaliser((0.0,), (1.0,)), normaliser((0.0,), (1.0,), 1)


@dataclass(frozen=True)
class Network:
    """A file, the data that it was trained on, and its accuracy as told where it comes from, in percent."""

    file: str
    data: str
    prepare: Any
    expected: float


NETWORKS = {
    "mnist_cntk": Network("mnist_cntk_onnx/mnist.onnx", "mnist", RAW, 98.91),
    "wonnx_opt_mnist": Network("mnist_cntk_onnx/wonnx_opt_mnist.onnx", "mnist", RAW, 98.91),
    "convnet_avgpool": Network("vnncomp_onnx/Convnet_avgpool.onnx", "mnist", UNIT, 97.95),
    "convnet_maxpool": Network("vnncomp_onnx/Convnet_maxpool.onnx", "mnist", UNIT, 97.92),
    "mnist_256x2": Network("vnncomp_onnx/mnist-net_256x2.onnx", "mnist", UNIT, 98.08),
    "kws_ref_float": Network("mlperf_tiny/kws_ref_float.onnx", "kws", None, 90.1),
    "cifar10_small": Network("vnncomp_onnx/cifar10_small.onnx", "cifar10", UNIT, 63.14),
    "cifar_base_kw": Network("vnncomp_onnx/cifar_base_kw.onnx", "cifar10", IMAGENET, 58.53),
    "resnet_2b": Network("vnncomp_onnx/resnet_2b.onnx", "cifar10", CIFAR, 69.25),
    "akuras_cifar10": Network("akuras_cifar10/akuras_cifar10_cnn.onnx", "cifar10", UNIT, 61.85),
}


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("SNNC_DATA"), help="folder with common.py, models")
    parser.add_argument("--out", type=Path, required=True, help="JSON file with every measured row")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--recipe", default="best")
    parser.add_argument("--T", default="8,32")
    parser.add_argument("--limit", type=int, default=1000, help="first so many test samples for the spiking network")
    parser.add_argument("--calibration", type=int, default=512, help="training samples for calibration")
    parser.add_argument("--render", type=Path, help="Markdown file whose table is replaced")
    args = parser.parse_args()
    rows = json.loads(args.out.read_text()) if args.out.exists() else {}
    names, steps = args.networks.split(","), args.T.split(",")
    for name, T in [(name, T) for T in ("", *steps) for name in names]:
        row = rows.setdefault(name, {"spiking": {}})
        if T in row["spiking"] or (not T and "captured" in row):
            continue
        if T:
            row["spiking"][T] = spiking(args, NETWORKS[name], int(T))
        else:
            row |= as_ann(args, NETWORKS[name])
        print(name, T, row, flush=True)
        with atomic_write(args.out) as temporary:
            temporary.write_text(json.dumps(rows, indent=1) + "\n")
    if args.render:
        before, rest = args.render.read_text().split(BEGIN)
        _, after = rest.split(END)
        args.render.write_text(before + BEGIN + render(rows) + END + after)


@torch.no_grad()
def as_ann(args: argparse.Namespace, network: Network) -> dict[str, Any]:
    """A network as it is: the graph that snnc captures, and the file through onnxruntime."""
    _, x, y = load(args.data, network, args.calibration)
    path = args.data / "models" / network.file
    model = load_model(path)
    graph = snnc.capture(model, tuple(x.shape[1:]))
    ours = torch.cat([graph(part).argmax(1) for part in x.split(BATCH)])
    theirs = by_onnxruntime(path, x, told_shape(model))
    scored = the_scored(args, network, len(y))
    return {
        "expected": network.expected,
        "samples": len(y),
        "captured": percent(ours, y),
        "onnxruntime": percent(theirs, y),
        "differing": int((ours != theirs).sum()),
        "spiking_samples": len(y[scored]),
        "ann_there": percent(ours[scored], y[scored]),
        **provenance(),
        "onnxruntime_version": onnxruntime.__version__,
    }


@torch.no_grad()
def spiking(args: argparse.Namespace, network: Network, T: int) -> dict[str, Any]:
    """The network compiled for T steps."""
    calibration, x, y = load(args.data, network, args.calibration)
    scored = the_scored(args, network, len(y))
    model = load_model(args.data / "models" / network.file)
    snn = snnc.compile(model, T, args.recipe, calibration, samples=args.calibration)
    found = torch.cat([snn(part).argmax(1) for part in x[scored].split(BATCH)])
    return {
        "accuracy": percent(found, y[scored]),
        "recipe": args.recipe,
        "calibration": len(calibration),
        "latency": str(snn.latency),
        **provenance(),
    }


def the_scored(args: argparse.Namespace, network: Network, samples: int) -> slice:
    """Which samples the spiking network is scored on."""
    return slice(samples - 800, None) if network.data == "kws" else slice(0, args.limit)


def load(folder: Path, network: Network, samples: int) -> tuple[Tensor, Tensor, Tensor]:
    """Calibration input, test input and test labels.

    Keyword spotting has one set: every fifth sample calibrates and comes first, and the others are scored when spiking.
    """
    common = folder_module(folder, "common")
    if network.data == "kws":
        x, y = common.load_kws()
        x = torch.tensor((x.astype(np.float32) - common.KWS_ZERO) * common.KWS_SCALE)
        order = torch.argsort((torch.arange(len(x)) % 5 > 0).long(), stable=True)
        return x[order][:200], x[order], torch.tensor(y).long()[order]
    if network.data == "mnist":
        train, _ = common.load_idx("mnist", "train")
        test, y = common.load_idx("mnist", "test")
        train, test = train[:, None], test[:, None]
    else:
        train, _ = common.cifar_unpack((Path(folder) / "cifar10" / "data_batch_1.med.xz").read_bytes())
        test, y = common.load_cifar10("test")
    return network.prepare(train[:samples]), network.prepare(test), torch.tensor(y).long()


def by_onnxruntime(path: Path, x: Tensor, shape: tuple[int, ...] | None) -> Tensor:
    """Predictions of onnxruntime, whose input has to be in the network's own order; one thread."""
    session = onnxruntime.InferenceSession(str(path), quiet_options(1), providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    size = entry.shape[0] if isinstance(entry.shape[0], int) else BATCH
    if shape == (*x.shape[2:], x.shape[1]):
        x = x.permute(0, *range(2, x.dim()), 1)
    x = x.reshape(len(x), *(shape or x.shape[1:]))
    found = [session.run(None, {entry.name: part.contiguous().numpy()})[0] for part in x.split(size)]
    return torch.tensor(np.concatenate(found)).argmax(1)


def percent(guess: Tensor, y: Tensor) -> float:
    """Top-1."""
    return round(100 * int((guess == y).sum()) / len(y), 2)


def render(rows: dict[str, Any]) -> str:
    """The table."""
    steps = sorted({int(T) for row in rows.values() for T in row["spiking"]})
    lines = [
        "| network | expected | captured graph | onnxruntime | predictions that differ | "
        + " | ".join(f"spiking, T={T}" for T in steps)
        + " | ANN on these |",
        "|---|" + "---|" * (len(steps) + 5),
    ]
    for name, row in rows.items():
        found = {int(T): cell["accuracy"] for T, cell in row["spiking"].items()}
        cells = [f"{row[key]:.2f}" for key in ("expected", "captured", "onnxruntime")]
        cells.append(f"{row['differing']} of {row['samples']:,}")
        cells += [f"{found[T]:.2f}" if T in found else "" for T in steps]
        lines.append(f"| `{name}` | {' | '.join(cells)} | {row['ann_there']:.2f} ({row['spiking_samples']:,}) |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
