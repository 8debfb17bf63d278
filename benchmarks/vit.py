"""A vision transformer and a gated CNN, trained here in minutes, and what telescoping makes of them.

    python benchmarks/vit.py --data FOLDER --out docs/results/telescoped.json --weights WEIGHTS

FOLDER holds `common.py` and MNIST, as for `low_latency_mnist.py`. Two networks are trained on MNIST's training images:
a vision transformer (patches of 7 x 7, a class token, LayerNorm, softmax attention, GELU) and a CNN with SiLU, hard
swish and squeeze-and-excitation. Each is compiled for T = 1 .. 32 with spikes of 1 bit (ternary), 2 and 3 bits and a
sign, without and with calibration of weights on training images, and compared with its ANN on test images: accuracy,
and in how many of them both choose the same class. Each finished row is written at once, and a run that was interrupted
goes on where it stopped. `--weights` keeps the trained networks, for the next run and for the peer (`vit_peer.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from vit_nets import NETS, images, trained

import snnc
from snnc.files import atomic_write
from snnc.passes.pipeline import Pipeline
from snnc.recipes import recipe

BATCH = 250


def pipeline(bits: int, calibrated: bool) -> Pipeline:
    """The recipe for spikes of so many bits."""
    made = recipe("telescoped" if bits == 1 else "telescoped-graded").pipeline
    made = made.set("quantize-activations", bits=bits).set("encode-values", bits=bits)
    made = made.set("use-signed-neurons", bits=bits)
    return made if calibrated else made.remove("calibrate-weights")


@torch.no_grad()
def main() -> None:
    """Trains, compiles, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("SNNC_DATA"), help="folder with common.py and mnist"
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file with every finished row")
    parser.add_argument("--weights", type=Path, help="folder of the trained networks")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--bits", default="1,2,3")
    parser.add_argument("--images", type=int, default=1000, help="test images")
    parser.add_argument("--rows", type=int, default=60000, help="training images")
    parser.add_argument("--samples", type=int, default=512, help="training images that calibrate")
    parser.add_argument("--steps", default="8,4,1,2,16,32", help="values of T, in the order of measuring")
    args = parser.parse_args()
    torch.manual_seed(0)
    (x, y), (test, labels) = (images(args.data, part) for part in ("train", "test"))
    x, y, test, labels = x[: args.rows], y[: args.rows], test[: args.images], labels[: args.images]
    rows: list[dict[str, Any]] = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
    nets = {}
    for name in args.nets.split(","):
        with torch.enable_grad():
            net = nets[name] = trained(name, args.weights, x, y, args.epochs)
        ann = torch.cat([net(part) for part in test.split(BATCH)]).argmax(1)
        nets[name] = net, ann, 100 * float((ann == labels).float().mean())
        print(f"{name}: ANN {nets[name][2]:.2f} %", flush=True)
    cells = [
        (T, name, bits, calibrated)
        for T in map(int, args.steps.split(","))
        for name in nets
        for bits in map(int, args.bits.split(","))
        for calibrated in (True, False)
    ]
    done = {(row["T"], row["net"], row["bits"], row["calibrated"]) for row in rows}
    for T, name, bits, calibrated in (cell for cell in cells if cell not in done):
        net, ann, percent = nets[name]
        start = time.process_time()
        spiking = snnc.compile(net, T, pipeline(bits, calibrated), calibration=x[: args.samples])
        found = torch.cat([spiking(part) for part in test.split(BATCH)]).argmax(1)
        row: dict[str, Any] = {"net": name, "ann": percent, "bits": bits, "calibrated": calibrated, "T": T}
        row["accuracy"] = 100 * float((found == labels).float().mean())
        row["agreement"] = 100 * float((found == ann).float().mean())
        row["seconds"] = round(time.process_time() - start, 1)
        rows.append(row)
        with atomic_write(args.out) as temporary:
            temporary.write_text(json.dumps({"rows": rows}, indent=1))
        print(row, flush=True)


if __name__ == "__main__":
    main()
