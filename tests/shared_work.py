"""Work that several processes share, for `test_distributed.py`: run by torchrun, or called in one process.

    torchrun --standalone --nproc-per-node 2 -m tests.shared_work FOLDER

Every process writes what it found to FOLDER/RANK.json.
"""

import dataclasses
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

import snnc
from snnc.data import Dataset
from snnc.errors import ProcessError, SnncError
from snnc.processes import TIMEOUT, digest, from_all, rank, world

SAMPLES = 150  # shards of 64, 64 and 22: of four processes one has nothing to do
RECIPES = ("best", "cos", "opi", "data-free")


def network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(4, 6, 3, groups=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6, 5),
        nn.ReLU(),
        nn.Linear(5, 3),
    )
    net(torch.randn(64, 2, 6, 6))  # batch normalisation has seen something
    return net.eval()


def lame() -> nn.Module:
    """A network that the second process cannot build."""
    if os.environ.get("RANK") == "1":
        raise OSError("no disk")
    return network()


def dataset(seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    return Dataset(rng.standard_normal((SAMPLES, 2, 6, 6)).astype("f4"), rng.integers(0, 3, SAMPLES))


def bits(net: nn.Module) -> str:
    return digest(*(part for pair in net.state_dict().items() for part in pair))


def pipelines() -> dict[str, snnc.Pipeline | str]:
    """Recipes, and every other pass that reads calibration data."""
    opi, best = snnc.recipe("opi").pipeline, snnc.recipe("best").pipeline
    passes = snnc.PASSES
    few = best.set("calibrate-weights", positions=40)  # fewer equations than unknowns in the second layer
    return {
        **{name: name for name in RECIPES},
        "few": few,
        "bias": opi.insert(passes["calibrate-bias"]()),
        "potential": opi.insert(passes["calibrate-potential"]()),
        "thresholds": opi.insert(passes["train-thresholds"](epochs=2)),
        "percentile": opi.set("scale-thresholds", rule="percentile", per="layer"),
        "integers": best.insert(passes["fixed-point"]()),
    }


def work() -> dict[str, object]:
    """Everything that is shared, as digests and plain data."""
    net, data = network(), dataset()
    found: dict[str, object] = {}
    for name, recipe in pipelines().items():
        made = snnc.compile(net, 4, recipe, data)
        found[name] = bits(made)
        if name in ("best", "cos"):
            found[f"{name}, measured"] = snnc.evaluate(made, data.batches(40), net).to_dict()
    for kind, shards in (("spiking", 1), ("spiking", 3), ("quantised", 2)):
        options = {"kind": kind, "shards": shards, "epochs": 2, "batch": 32, "held_out": 0.2, "crop": 1}
        tuned = snnc.tune(net, data, 2, **options)
        told = tuned.info["tune"]
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in told["epochs"]]
        found[f"{kind} in {shards}"] = [bits(tuned), told["table"], rows]
    return found


def refusals() -> dict[str, str]:
    """What processes say that were given different things, and one that waits in vain."""
    found = {}
    net, data, other = network(), dataset(), dataset(rank())
    unlike = network()
    unlike[0].bias.data += rank()
    calls = {
        "data": lambda: snnc.compile(net, 4, "opi", other),
        "network": lambda: snnc.compile(unlike, 4, "opi", data),
        "labels": lambda: snnc.evaluate(snnc.compile(net, 4, "opi", data), dataclasses.replace(data, y=other.y)),
        "training": lambda: snnc.tune(net, data, 2, loss="labels", seed=rank(), epochs=1),
    }
    for name, call in calls.items():
        try:
            call()
        except SnncError as error:
            found[name] = str(error)
    os.environ[TIMEOUT] = "2"
    return found


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")  # as a training script of the user's may have done
    with snnc.distributed():
        found = {"world": world(), "work": work(), "refusals": refusals()}
    number, start = dist.get_rank(), time.monotonic()
    try:
        with snnc.distributed():
            if number == 1:
                time.sleep(5)
            from_all(number)
    except ProcessError as error:
        found["late"] = [str(error), time.monotonic() - start]
    (folder / f"{number}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    os._exit(0)  # the group was broken on purpose: its threads, still waiting, may abort an orderly end
