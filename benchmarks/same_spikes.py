"""The same spikes everywhere: every real network, run in every way there is, spike by spike.

    python benchmarks/same_spikes.py --data FOLDER --limit 1000 --out docs/results/same_spikes.json

FOLDER as for `accuracy.py`. Each network is compiled at each T with a recipe and the pass `fixed-point`, and without it
for comparison (`--float`). What is compared with eager torch, all steps at once, on the first test samples:

    streaming     the same file, step by step
    pt2           the exported program, by its outputs to the bit: it cannot be looked into
    onnxruntime   the ONNX file, on the CPU

Networks that others exported come from their ONNX files, as in `onnx_networks.py`; of the keyword set, which has 1,000
samples, those that calibrate count there too.

The JSON holds what `snnc.differences` found for each. The table at the end has, for each network and T, the places
where a spike differs, of all places; for `pt2` the numbers of the output. An interrupted run goes on where it stopped.
A network that a pass refuses at some T is told as such.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_networks
import torch
from accuracy import folder_module, load, provenance

import snnc
from snnc.backends import BACKENDS
from snnc.differences import verify
from snnc.files import load_model
from snnc.passes.pipeline import Pipeline

ALL_T = (1, 4, 8, 32)
WAYS = ("streaming", "pt2", "onnxruntime")
Zoo = Any
NETWORKS: dict[str, tuple[str, Callable[[Zoo], torch.nn.Module]]] = {
    "resnet20": ("cifar-imagenet", lambda zoo: zoo.akamaster(20, "resnet20-12fca82f.th")),
    "resnet56": ("cifar-imagenet", lambda zoo: zoo.akamaster(56, "resnet56-4bfd9763.th")),
    "densenet": ("cifar-own", lambda zoo: zoo.jasonwei()),
    "mlperf-resnet8": ("cifar-raw", lambda zoo: zoo.mlperf_resnet8()),
    "ds-cnn": ("kws", lambda zoo: zoo.kws()),
    **{
        f"cq-{kind}": ("mnist", lambda zoo, kind=kind: zoo.cq(kind, True))  # type: ignore[misc]
        for kind in ("plain", "dense", "mobilev1", "mobilev2", "basic", "bottle")
    },
}


def main() -> None:
    """Parses the command line and measures what the file does not hold yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folder = os.environ.get("SNNC_DATA")
    parser.add_argument("--data", type=Path, default=folder, required=not folder, help="default: SNNC_DATA")
    parser.add_argument("--out", type=Path, required=True, help="JSON file with every cell")
    parser.add_argument("--limit", type=int, default=1000, help="first so many test samples")
    parser.add_argument("--T", default=",".join(map(str, ALL_T)))
    parser.add_argument("--networks", default=",".join([*NETWORKS, *onnx_networks.NETWORKS]))
    parser.add_argument("--recipe", default="opi", help="for networks without trained bounds; others take qcfs")
    parser.add_argument("--float", action="store_true", help="without the pass fixed-point")
    parser.add_argument("--threads", type=int, default=1, help="of torch and of onnxruntime")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    zoo = folder_module(args.data, "zoo")
    cells = json.loads(args.out.read_text()) if args.out.exists() else []
    known = {(c["network"], c["T"], c["fixed"], c["way"], c["samples"]) for c in cells}
    for name in args.networks.split(","):
        for T in map(int, args.T.split(",")):
            wanted = [way for way in ways() if (name, T, not args.float, way, args.limit) not in known]
            for cell in measured(args, zoo, name, T, wanted) if wanted else ():
                cells.append(cell)
                args.out.parent.mkdir(parents=True, exist_ok=True)
                temporary = args.out.with_name(f"{args.out.name}.tmp")
                temporary.write_text(json.dumps(cells, indent=1) + "\n")
                temporary.replace(args.out)
                print(f"{name} T={T} {cell['way']}: {cell.get('refused') or told(cell)}", flush=True)
    print(table(cells))


def ways() -> list[str]:
    """The ways that this snnc has."""
    return [way for way in WAYS if way != "onnxruntime" or "onnx" in BACKENDS]


def measured(args: argparse.Namespace, zoo: Zoo, name: str, T: int, wanted: list[str]) -> list[dict[str, Any]]:
    """One network at one T, compared in every way that is wanted."""
    if name in NETWORKS:
        kind, make = NETWORKS[name]
        model, (calibration, x, _) = make(zoo), load(args.data, kind, 512)
    else:
        network = onnx_networks.NETWORKS[name]
        model = load_model(args.data / "models" / network.file)
        calibration, x, _ = onnx_networks.load(args.data, network, 512)
    recipe = "qcfs" if name.startswith("cq-") else args.recipe
    pipeline = snnc.recipe(recipe).pipeline
    if not args.float:
        pipeline = Pipeline((*pipeline, snnc.PASSES["fixed-point"]()))
    cell: dict[str, Any] = {"network": name, "recipe": recipe, "T": T, "fixed": not args.float, "samples": args.limit}
    try:
        net = snnc.compile(model, T, pipeline, calibration)
    except snnc.SnncError as error:
        return [cell | {"way": way, "refused": str(error), **provenance()} for way in wanted]
    cells = []
    with tempfile.TemporaryDirectory() as folder:
        for way in wanted:
            start = time.perf_counter()
            if way == "streaming":
                other = net
            else:
                other = snnc.load(snnc.save(net, Path(folder) / ("net.pt2" if way == "pt2" else "net.onnx")))
            found = verify(net, other, x[: args.limit].split(50), stream=way == "streaming")
            one = cell | {
                "way": way,
                **found.to_dict(),
                "seconds": round(time.perf_counter() - start, 1),
                **provenance(),
            }
            one["layers"] = [layer for layer in one["layers"] or [] if layer["differ"]]
            cells.append(one)
    return cells


def told(cell: dict[str, Any]) -> str:
    """What differs, of how much."""
    if "refused" in cell:
        return "refused"
    if cell["spikes"] is None:
        return f"{sum(cell['outputs']):,} outputs"
    return f"{cell['spikes']:,} of {cell['places']:,}"


def table(cells: list[dict[str, Any]]) -> str:
    """A line for each network and T, a column for each way."""
    found: dict[tuple[str, int, bool, int], dict[str, str]] = {}
    for cell in cells:
        key = (cell["network"], cell["T"], cell["fixed"], cell["samples"])
        found.setdefault(key, {})[cell["way"]] = told(cell)
    lines = [f"| network | T | weights | samples | {' | '.join(WAYS)} |", "|---|---:|---|---:|" + "---:|" * len(WAYS)]
    for (name, T, fixed, samples), row in found.items():
        shown = " | ".join(row.get(way, "") for way in WAYS)
        lines.append(f"| {name} | {T} | {'fixed-point' if fixed else 'float'} | {samples:,} | {shown} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
