"""The bits of a network, of its measurement and of a training with 1, 2 and 4 processes.

    python benchmarks/distributed.py --data FOLDER --out docs/results/distributed.json

ResNet-20 on CIFAR-10: the recipe `best` at T = 4, its evaluation on some test images, and one epoch of `tune` at T = 2
in 4 shards. For each number of processes the script starts itself under torchrun, one thread a process, and every
process says what it came to. Equal digests are equal bits. Seconds say something about the machine, and little where
there are fewer cores than processes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accuracy import folder_module, load, provenance

import snnc
from snnc.data import Dataset
from snnc.processes import digest, exchange, rank

PROCESSES = (1, 2, 4)


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("SNNC_DATA"), help="folder with zoo.py, common.py")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.add_argument("--images", type=int, default=256, help="that calibrate, and that are trained on")
    parser.add_argument("--limit", type=int, default=200, help="test images")
    parser.add_argument("--worker", action="store_true", help="be one of the processes")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.worker:
        with snnc.distributed():
            rows = exchange(work(args))
            if rank() == 0:
                args.out.write_text(json.dumps(rows), encoding="utf-8")
        return
    found = []
    for count in PROCESSES:
        part = args.out.with_suffix(f".{count}.json")
        more = ["--data", args.data, "--images", args.images, "--limit", args.limit, "--out", part, "--worker"]
        run = ["torch.distributed.run", "--standalone", f"--nproc-per-node={count}", __file__, *map(str, more)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-m", *run], env=environment, check=True)
        rows = json.loads(part.read_text(encoding="utf-8"))
        part.unlink()
        alike = all(row["digests"] == (found or rows)[0]["digests"] for row in rows)
        found.append({"processes": count, "identical": alike, **rows[0]})
        print(json.dumps(found[-1]), flush=True)
        content = {"images": args.images, "limit": args.limit, "rows": found, **provenance()}
        args.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def work(args: argparse.Namespace) -> dict[str, Any]:
    """Compiles, measures and trains; digests and seconds of each."""
    calibration, x, y = load(args.data, "cifar-imagenet", args.images)
    net = folder_module(args.data, "zoo").akamaster(20, "resnet20-12fca82f.th")
    test = Dataset(x[: args.limit].numpy(), y[: args.limit].numpy())
    training = Dataset(calibration.numpy(), None)
    found: dict[str, Any] = {"digests": {}, "seconds": {}}

    def timed(name: str, call: Callable[[], Any], told: Callable[[Any], str]) -> Any:
        start = time.monotonic()
        result = call()
        found["seconds"][name] = round(time.monotonic() - start, 1)
        found["digests"][name] = told(result)
        return result

    snn = timed("compile", lambda: snnc.compile(net, 4, "best", calibration), bits)
    measured = timed("eval", lambda: snnc.evaluate(snn, test.batches(25), net), lambda one: digest(one.to_dict()))
    timed("tune", lambda: snnc.tune(net, training, 2, "opi", shards=4, epochs=1, held_out=0), bits)
    return {**found, "accuracy": measured.accuracy[-1]}


def bits(network: Any) -> str:
    """Digest of all numbers of a network, with their names."""
    return digest(*(part for pair in network.state_dict().items() for part in pair))


if __name__ == "__main__":
    main()
