"""The peer row of the benchmark: SpikingJelly 2.0 on the published CIFAR-10 ResNet-20.

    python benchmarks/peer_spikingjelly.py --data FOLDER --limit 500 --out peer.json

Runs in an environment of its own, without snnc; `benchmarks/peers.txt` pins it and says how to make it.
FOLDER holds `zoo.py` (functions that return trained networks) and `common.py` (loaders of the data sets).
Nothing of SpikingJelly is stubbed or patched: its `ann2snn` works without torchvision and torchaudio, which
the package asks for.

SpikingJelly replaces ReLUs that are modules, and refuses `F.pad`. So it is given a twin of the network, in
which the padded shortcut is a fixed 1x1 convolution of stride 2 with weights 0 and 1; the twin is first
compared with the original. Every recipe converts a fresh twin, calibrated on the first training images and
nothing else. The input is constant, the network runs one step at a time, its state is reset between
batches, and the readout is the sum of the outputs so far: one run of the largest T gives every smaller T.

A recipe is spelt as its parts, joined by slashes:

    rate/MODE[/channel][/half]  RateCodingRecipe. MODE: max, a percentile such as 99.9%, or a fraction of
                                the maximum such as 0.5. channel: a threshold per channel. half: membranes
                                start at half of it.
    ltb/BATCH[xPASSES]          LocalThresholdBalancingRecipe (per channel, half). Its thresholds grow with
                                every batch that it sees: the calibration images come in batches of BATCH,
                                PASSES times over.

Each gives two rows. The second, `+delay`, leaves the first steps out of the sum, as many as SpikingJelly's
own `estimate_delay_start` proposes for that T from calibration images. The last row, `best`, is the best of
all at each T: picked on the scored images themselves, which favours the peer. The file is written after
each recipe, and a run that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import re
import time
import warnings
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("TQDM_DISABLE", "1")  # SpikingJelly draws a progress bar over the calibration batches.

try:
    from spikingjelly.activation_based import ann2snn, functional, neuron
except ModuleNotFoundError as missing:
    lacks = f"this one lacks {missing.name}: see benchmarks/peers.txt."
    raise SystemExit(f"The peer runs in an environment of its own, and {lacks}") from None
import torch
from torch import Tensor, nn

ALL_T = (1, 2, 4, 8, 16, 32, 64)
# Plain rate coding as in SpikingJelly's examples, the channel-wise setting of its ImageNet example (99.9%),
# and what else of its options did best at some T, or converges to the ANN.
RECIPES = (
    "rate/max",
    "rate/99.9%",
    "rate/99%/half",
    "rate/max/channel/half",
    "rate/99.9%/channel/half",
    "rate/99%/channel/half",
    "rate/0.5/channel/half",
    "ltb/64x32",
)
BATCH = 100
VERSIONS = ("spikingjelly", "torch", "numpy")
Row = dict[str, float]


def main() -> None:
    """Parses the command line and measures what the file does not hold yet."""
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    folder = os.environ.get("SNNC_DATA")
    parser.add_argument("--data", type=Path, default=folder, required=not folder, help="default: SNNC_DATA")
    parser.add_argument("--out", type=Path, required=True, help="JSON file with every accuracy")
    parser.add_argument("--limit", type=int, default=0, help="first so many test images; 0: all")
    parser.add_argument("--T", default=",".join(map(str, ALL_T)))
    parser.add_argument("--recipes", default=",".join(RECIPES))
    parser.add_argument("--calib", type=int, default=512, help="training images for calibration")
    parser.add_argument("--threads", type=int, default=2, help="of torch; 1 where others compute too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    steps = sorted({int(T) for T in args.T.split(",")})
    if steps[0] < 1:
        parser.error("--T takes numbers of steps from 1 on.")
    recipes = args.recipes.split(",")
    for which in recipes:
        recipe(which, torch.zeros(1))  # a misspelt one is refused now, not after hours

    zoo = folder_module(args.data, "zoo")
    calibration, x, y = load(args.data, args.calib)
    if args.limit:
        x, y = x[: args.limit], y[: args.limit]
    original = zoo.akamaster(20, "resnet20-12fca82f.th")
    check_twin(original, twin(zoo), calibration[:64])
    report = opened(args.out, {"n": len(y), "calibration": len(calibration), "versions": versions()})
    report["ann"] = percent(hits(original, x, y), len(y))
    print(f"ResNet-20, {len(y)} test images, ANN {report['ann']:.2f} %", flush=True)
    for which in recipes:
        if all(str(T) in report["recipes"].get(which, {}) for T in steps):
            continue
        start = time.time()
        snn = ann2snn.Converter(recipe=recipe(which, calibration)).convert(twin(zoo)).eval()
        delays = proposed_delays(snn, calibration, steps)
        plain, delayed = score(snn, x, y, delays)
        for name, row in ((which, plain), (f"{which} +delay", delayed)):
            report["recipes"].setdefault(name, {}).update(row)
        report["delays"].setdefault(which, {}).update({str(T): d for T, d in delays.items()})
        report["seconds"][which] = round(time.time() - start, 1)
        report["machine"] = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
        report["best"] = best(report["recipes"])
        write(args.out, report)
        print(f"{which}: {report['seconds'][which]:.0f} s", flush=True)
    print(table({**report["recipes"], "best": best(report["recipes"])}, steps))


def recipe(which: str, calibration: Tensor) -> ann2snn.ConversionRecipe:
    """SpikingJelly's recipe behind a spelling."""
    kind, *parts = which.split("/")
    if kind == "ltb" and len(parts) == 1 and (match := re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", parts[0])):
        batches = calibration.split(int(match[1])) * int(match[2] or 1)
        return ann2snn.LocalThresholdBalancingRecipe(batches)
    if kind == "rate" and parts and set(parts[1:]) <= {"channel", "half"}:
        mode: str | float = float(parts[0]) if re.fullmatch(r"[\d.]+", parts[0]) else parts[0]
        options: dict[str, Any] = {"channel_wise": "channel" in parts}
        if "half" in parts and "channel" in parts:
            options["half_threshold"] = True
        elif "half" in parts:  # the same neuron, for which a threshold per layer has no option of its own
            options["neuron_factory"] = lambda scale: neuron.HalfThresholdIFNode()
        return ann2snn.RateCodingRecipe((calibration,), mode=mode, **options)
    raise SystemExit(f"No recipe is spelt {which!r}: see --help.")


def twin(zoo: ModuleType) -> nn.Module:
    """The network with the two padded shortcuts as convolutions."""
    net = zoo.akamaster(20, "resnet20-12fca82f.th")
    for block in (net.layer2[0], net.layer3[0]):
        inputs, outputs = block.conv1.in_channels, block.conv1.out_channels
        shortcut = nn.Conv2d(inputs, outputs, 1, stride=2, bias=False)
        weight = torch.zeros(outputs, inputs, 1, 1)
        channel = torch.arange(inputs)
        weight[channel + block.shortcut.extra, channel] = 1
        shortcut.weight = nn.Parameter(weight, requires_grad=False)
        block.shortcut = shortcut
    return net.eval()


@torch.no_grad()
def check_twin(original: nn.Module, other: nn.Module, x: Tensor) -> None:
    """Refuses a twin that computes something else."""
    torch.testing.assert_close(other(x), original(x), rtol=1e-5, atol=1e-4)


def proposed_delays(snn: nn.Module, calibration: Tensor, steps: list[int]) -> dict[int, int]:
    """The first step of the readout for each T, as SpikingJelly estimates it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # "time_steps is too small": for every small T
        return {T: ann2snn.estimate_delay_start(snn, [calibration[:BATCH]], "cpu", T) for T in steps}


@torch.no_grad()
def score(snn: nn.Module, x: Tensor, y: Tensor, delays: dict[int, int]) -> tuple[Row, Row]:
    """Top-1 in percent for each T: of the sum of all outputs, and of the sum from the delay on."""
    plain, delayed = dict.fromkeys(delays, 0), dict.fromkeys(delays, 0)
    for batch, label in zip(x.split(BATCH), y.split(BATCH), strict=True):
        functional.reset_net(snn)
        total = [torch.zeros(())]
        for _ in range(max(delays)):
            total.append(total[-1] + snn(batch))
        for T, delay in delays.items():
            plain[T] += int((total[T].argmax(1) == label).sum())
            delayed[T] += int(((total[T] - total[delay]).argmax(1) == label).sum())
    rows = [{str(T): percent(h, len(y)) for T, h in row.items()} for row in (plain, delayed)]
    return rows[0], rows[1]


@torch.no_grad()
def hits(net: nn.Module, x: Tensor, y: Tensor) -> int:
    """How many images a network without time classifies correctly."""
    pairs = zip(x.split(BATCH), y.split(BATCH), strict=True)
    return sum(int((net(batch).argmax(1) == label).sum()) for batch, label in pairs)


def percent(count: int, of: int) -> float:
    """A count as a percentage."""
    return round(100 * count / of, 4)


def best(rows: dict[str, Row]) -> Row:
    """The best accuracy of all rows at each T."""
    steps = sorted({T for row in rows.values() for T in row}, key=int)
    return {T: max(row[T] for row in rows.values() if T in row) for T in steps}


def load(folder: Path, samples: int) -> tuple[Tensor, Tensor, Tensor]:
    """The first training images for calibration, test images and test labels, normalised for the network."""
    common = folder_module(folder, "common")
    train, _ = common.cifar_unpack((folder / "cifar10" / "data_batch_1.med.xz").read_bytes())
    test, y = common.load_cifar10("test")
    mean, std = (torch.tensor(v).reshape(-1, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    calibration, x = ((torch.tensor(images).float() / 255 - mean) / std for images in (train[:samples], test))
    return calibration, x, torch.tensor(y).long()


def folder_module(folder: Path, name: str) -> ModuleType:
    """A module of the data folder, loaded by its path."""
    path = folder / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"data_{name}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise SystemExit(f"{folder} has no {name}.py.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def versions() -> dict[str, str]:
    """What was measured."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in VERSIONS}}


def opened(path: Path, setting: dict[str, Any]) -> dict[str, Any]:
    """The report measured so far under the same setting, or a new one."""
    if path.exists():
        report = json.loads(path.read_text())
        if any(report.get(key) != value for key, value in setting.items()):
            raise SystemExit(f"{path} has another n, calibration or version: choose another --out.")
        return report
    return {"network": "resnet20", **setting, "recipes": {}, "best": {}, "delays": {}, "seconds": {}}


def write(path: Path, report: dict[str, Any]) -> None:
    """Replaces the file by a whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(json.dumps(report, indent=1) + "\n")
    temporary.replace(path)


def table(rows: dict[str, Row], steps: list[int]) -> str:
    """A Markdown table with a line for each row."""
    lines = ["| recipe | " + " | ".join(f"T={T}" for T in steps) + " |", "|---|" + "---:|" * len(steps)]
    for name, row in rows.items():
        cells = (f"{row[str(T)]:.2f}" if str(T) in row else "" for T in steps)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
