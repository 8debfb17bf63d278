"""Spikes of NIR files that snnc wrote, in the simulators of others.

    python benchmarks/nir_readers.py write FOLDER --data DATA      # networks, for each simulator, and what snnc does
    PYTHONPATH=. peer/bin/python benchmarks/nir_readers.py read FOLDER --out docs/results/nir.json

DATA as for `accuracy.py`. The second command runs in an environment of its own; `benchmarks/peers.txt` pins it and says
how to make it. It takes snnc from the folder where it runs, for `snnc.readers`, which makes the settings that NIR has
no field for. Nothing of a simulator is patched but Norse's step of a neuron, which has no reset by subtraction.

Each network goes out twice: `fixed`, with integers everywhere (`--fixed-point`), and `powers`, in floating point with
thresholds at powers of two (`insert-neurons.powers`), which then move into weights without rounding these. Networks
whose name begins with `zoo-` are those of the tests, with random weights.

Told for each: places (neurons x steps x samples) where a spike differs from snnc's, of all and by layer; predictions
that differ after the last step; the largest difference of a readout; and the accuracy of both where there are labels.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

REAL = {"cq-plain": "mnist", "cq-dense": "mnist", "ds-cnn": "kws", "resnet20": "cifar-imagenet",
        "mlperf-resnet8": "cifar-raw"}  # fmt: skip
ZOO = ("plain", "residual", "inverted", "normalised", "preactivation")
NETWORKS = (*REAL, *(f"zoo-{name}" for name in ZOO))
KINDS = ("fixed", "powers")
READERS = ("spikingjelly", "sinabs", "snntorch", "norse")


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=["write", "read"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, default=os.environ.get("SNNC_DATA"), help="default: SNNC_DATA")
    parser.add_argument("--limit", type=int, default=100, help="first so many test samples")
    parser.add_argument("--T", type=int, default=8)
    parser.add_argument("--recipe", default="opi")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--out", type=Path, help="JSON file; rows of other networks in it stay")
    args = parser.parse_args()
    torch.set_num_threads(1)
    names = args.networks.split(",")
    if args.do == "write":
        write(args.folder, args.data, names, args.limit, args.T, args.recipe)
    else:
        read(args.folder, names, args.out)


def built(name: str, data: Path, limit: int) -> tuple[nn.Module, Tensor, Tensor, Any]:
    """A trained network, its calibration data, test samples and labels; or one of the tests' zoo."""
    if name.startswith("zoo-"):
        sys.path.insert(0, str(Path(__file__).parent.parent))
        from tests import zoo

        net, shape = zoo.ZOO[name.removeprefix("zoo-")]()
        x = zoo.sample(shape, limit)
        return net, x, x, None
    from accuracy import folder_module, load

    loaded = folder_module(data, "zoo")
    models: dict[str, Callable[[], nn.Module]] = {
        "cq-plain": lambda: loaded.cq("plain", False),
        "cq-dense": lambda: loaded.cq("dense", False),
        "ds-cnn": loaded.kws,
        "resnet20": lambda: loaded.akamaster(20, "resnet20-12fca82f.th"),
        "mlperf-resnet8": loaded.mlperf_resnet8,
    }
    calibration, x, y = load(data, REAL[name], 256)
    return models[name](), calibration, x[:limit], y[:limit].numpy()


def write(folder: Path, data: Path, networks: list[str], limit: int, T: int, recipe: str) -> None:
    """Compiles each network; writes it for each simulator, and what it does with the test samples."""
    import snnc
    from snnc.backends import NirFile
    from snnc.differences import record
    from snnc.errors import Unsupported
    from snnc.files.vectors import write_vectors
    from snnc.passes import FixedPoint

    folder.mkdir(parents=True, exist_ok=True)
    for name in networks:
        net, calibration, x, y = built(name, data, limit)
        for kind in KINDS:
            pipeline = snnc.recipe(recipe).pipeline
            pipeline = pipeline.insert(FixedPoint()) if kind == "fixed" else pipeline.set("insert-neurons", powers=True)
            compiled = snnc.compile(net, T, pipeline, calibration[:256])
            write_vectors(folder / f"{name}.{kind}.npz", record(compiled, x))
            refused = {}
            for reader in READERS:
                try:
                    snnc.save(compiled, folder / f"{name}.{kind}.{reader}.nir", NirFile(reader))
                except Unsupported as why:
                    refused[reader] = str(why.blockers[0])
            told = {"refused": refused, "y": None if y is None else y.tolist(), "T": T}
            (folder / f"{name}.{kind}.json").write_text(json.dumps(told))
            print(name, kind, refused or "", flush=True)


def read(folder: Path, networks: list[str], out: Path | None) -> None:
    """Runs every simulator on every network."""
    before = json.loads(out.read_text())["rows"] if out and out.exists() else []
    rows: list[dict[str, Any]] = [row for row in before if row["network"] not in networks]
    for name in networks:
        for kind in KINDS:
            told = json.loads((folder / f"{name}.{kind}.json").read_text())
            for reader in READERS:
                row: dict[str, Any] = {"network": name, "kind": kind, "reader": reader}
                if reader in told["refused"]:
                    row["refused"] = told["refused"][reader]
                else:
                    try:
                        row |= compared(reader, folder / f"{name}.{kind}", told)
                    except Exception as error:  # whatever a simulator raises is its answer
                        row["refused"] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                rows.append(row)
                print(json.dumps(row)[:300], flush=True)
    versions = {name: metadata.version(name) for name in ("nir", "nirtorch", "torch", *READERS)}
    report = {"versions": versions, "machine": f"{platform.machine()} CPU, 1 thread", "rows": rows}
    if out:
        out.write_text(json.dumps(report, indent=1) + "\n")
    print(table(rows))


def compared(reader: str, files: Path, told: dict[str, Any]) -> dict[str, Any]:
    """What a simulator does beside what snnc did."""
    import snnc.readers
    from snnc.files.vectors import read_vectors

    known = read_vectors(files.with_name(f"{files.name}.npz"))
    net = getattr(snnc.readers, reader)(files.with_name(f"{files.name}.{reader}.nir"))
    start, outputs, apart = time.perf_counter(), [], dict.fromkeys(known.spikes, 0)
    for first in range(0, len(known.input), 10):
        output, spikes = net.run(torch.from_numpy(known.input[first : first + 10]))
        outputs.append(net.running(output))
        for name, train in spikes.items():
            apart[name] += int((train.bool().numpy() != known.spikes[name][:, first : first + 10]).sum())
    readouts, wanted = torch.cat(outputs, 1), torch.from_numpy(np.asarray(known.output))
    mine, theirs = wanted[-1].argmax(1), readouts[-1].argmax(1)
    y = None if told["y"] is None else torch.tensor(told["y"])
    return {
        "samples": len(known.input),
        "T": told["T"],
        "spikes": sum(apart.values()),
        "places": sum(train.size for train in known.spikes.values()),
        "emitted": sum(int(train.sum()) for train in known.spikes.values()),
        "layers": {name: many for name, many in apart.items() if many},
        "neuron_layers": len(apart),
        "predictions": int((mine != theirs).sum()),
        "readout": float((readouts - wanted).abs().max()),
        "accuracy": None if y is None else 100 * float((theirs == y).float().mean()),
        "accuracy_snnc": None if y is None else 100 * float((mine == y).float().mean()),
        "seconds": round(time.perf_counter() - start, 1),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Every row as Markdown."""
    lines = [
        "| network | kind | reader | spikes that differ | predictions | accuracy % (snnc) |",
        "|---|---|---|---:|---:|---:|",
    ]
    for row in rows:
        cells = (row.get("refused", ""), "", "")
        if "spikes" in row:
            right = "" if row["accuracy"] is None else f"{row['accuracy']:.0f} ({row['accuracy_snnc']:.0f})"
            cells = (f"{row['spikes']:,} of {row['places']:,}", str(row["predictions"]), right)
        lines.append(f"| {row['network']} | {row['kind']} | {row['reader']} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # readers warn of each other's deprecated calls
    main()
