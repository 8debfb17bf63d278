"""NIR files that snnc wrote, run by readers that others wrote.

    python benchmarks/nir_readers.py write FOLDER --data DATA        # with snnc: networks, input, spikes and outputs
    peer/bin/python benchmarks/nir_readers.py read FOLDER --out nir.json      # with the readers, without snnc

DATA as for `accuracy.py`. The second command runs in an environment of its own; `benchmarks/peers.txt` pins it and says
how to make it. Nothing of a reader is patched. Some need settings that NIR has no field for, and each row names those
that were made, after the file was read and before the first step:

    as read    none
    subtract   reset by subtraction, where the reader does not do it by itself
    v0         potentials that the nodes' metadata hold, before the first step
    one spike  at most one spike a step, and no lower bound of the potential (sinabs)
    no leak    beta = 1 and hidden states (snnTorch)

`resnet20-two` is the ResNet-20 with every threshold at the nearest power of two: moving those into the weights rounds
nothing, so what differs elsewhere by that rounding must not differ there.

Told for each: spikes that differ from snnc's, of all places where one could be, over all layers and steps; predictions
that differ, after the last step; the largest difference of a mean output; and the accuracy.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

NETWORKS = {"cq-plain": "mnist", "ds-cnn": "kws", "resnet20": "cifar-imagenet", "resnet20-two": "cifar-imagenet"}
READERS = ("spikingjelly", "sinabs", "snntorch", "norse")
Trains = dict[str, Tensor]
Run = Callable[[Any, Tensor, int, frozenset[str]], tuple[Tensor, Trains]]


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
    parser.add_argument("--out", type=Path, help="JSON file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.do == "write":
        write(args.folder, args.data, args.networks.split(","), args.limit, args.T, args.recipe)
    else:
        read(args.folder, args.networks.split(","), args.out)


def write(folder: Path, data: Path, networks: list[str], limit: int, T: int, recipe: str) -> None:
    """Compiles each network; writes it, and what it does with the first test samples."""
    from accuracy import folder_module, load

    import snnc

    zoo = folder_module(data, "zoo")
    models = {
        "cq-plain": lambda: zoo.cq("plain", False),
        "ds-cnn": zoo.kws,
        "resnet20": lambda: zoo.akamaster(20, "resnet20-12fca82f.th"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name in networks:
        calibration, x, y = load(data, NETWORKS[name], 512)
        net = snnc.compile(models[name.removesuffix("-two")](), T, recipe, calibration)
        if name.endswith("-two"):
            for _, neuron in net.neurons():
                neuron.theta = 2 ** neuron.theta.log2().round()
                neuron.v0 = neuron.theta / 2
        path = snnc.save(net, folder / f"{name}.nir")
        found: dict[str, Any] = {"x": x[:limit].numpy(), "y": y[:limit].numpy()}
        names = {layer for layer, _ in net.neurons()}
        outputs = []
        for batch in x[:limit].split(10):
            seen: dict[str, list[Tensor]] = {}

            outputs.append(net.readout(batch, observe=partial(see, seen, names)))
            for layer, parts in seen.items():
                found.setdefault(f"spikes {layer}", []).append(torch.cat(parts))
        found["outputs"] = torch.cat(outputs, 1).numpy()
        for key, parts in found.items():
            if key.startswith("spikes "):
                found[key] = torch.cat(parts, 1).numpy()
        np.savez_compressed(folder / f"{name}.npz", **found)
        print(f"{path}: {path.stat().st_size / 1000:,.0f} kB", flush=True)


def see(seen: dict[str, list[Tensor]], names: set[str], node: Any, value: Tensor, steps: int) -> None:
    """Keeps the spikes of the layers `names`."""
    if node.name in names:
        seen.setdefault(node.name, []).append((value != 0).reshape(steps, -1, *value.shape[1:]))


def read(folder: Path, networks: list[str], out: Path | None) -> None:
    """Runs every reader on every network; rows of other networks, which `out` holds already, stay."""
    import nir

    before = json.loads(out.read_text())["rows"] if out and out.exists() else []
    rows: list[dict[str, Any]] = [row for row in before if row["network"] not in networks]
    for name in networks:
        if not (folder / f"{name}.nir").exists():
            raise SystemExit(f"{folder} has no {name}.nir: run the command 'write' first.")
        with np.load(folder / f"{name}.npz") as content:
            known = {key: torch.from_numpy(content[key]) for key in content.files}
        for reader in READERS:
            for settings in SETTINGS[reader]:
                row: dict[str, Any] = {"network": name, "reader": reader, "settings": sorted(settings) or ["as read"]}
                try:
                    row |= compared(RUNS[reader], nir.read(folder / f"{name}.nir"), known, frozenset(settings))
                except Exception as error:  # whatever a reader raises is its answer
                    row["refused"] = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
                rows.append(row)
                print(json.dumps(row), flush=True)
        command = [sys.executable, "-m", "snn_mlir", "check", str(folder / f"{name}.nir")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        last = (done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or [""])[-1]
        why = next((line.strip() for line in done.stdout.splitlines() if "ERROR" in line), "")
        rows.append({"network": name, "reader": "snn-mlir", "settings": ["check"], "says": f"{last} {why}".strip()})
        print(json.dumps(rows[-1]), flush=True)
    versions = {name: metadata.version(name) for name in ("nir", "nirtorch", "torch", "snn-mlir", *READERS)}
    machine = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    report = {"versions": versions, "machine": machine, "rows": rows}
    if out:
        out.write_text(json.dumps(report, indent=1) + "\n")
    print(table(rows))


@torch.no_grad()
def compared(run: Run, graph: Any, known: dict[str, Tensor], settings: frozenset[str]) -> dict[str, Any]:
    """What a reader does beside what snnc did."""
    want, y, T = known["outputs"], known["y"], len(known["outputs"])
    outputs, spikes = [], dict.fromkeys((key for key in known if key.startswith("spikes ")), 0)
    for start in range(0, len(y), 10):
        part = slice(start, start + 10)
        output, trains = run(graph, known["x"][part], T, settings)
        outputs.append(output)
        for key in spikes:
            spikes[key] += int((trains[key.removeprefix("spikes ")] != known[key][:, part].float()).sum())
    got = torch.cat(outputs, 1).cumsum(0) / torch.arange(1, T + 1)[:, None, None]
    return {
        "samples": len(y),
        "T": T,
        "spikes": sum(spikes.values()),
        "places": sum(known[key].numel() for key in spikes),
        "first_layer": next((key.removeprefix("spikes ") for key, count in spikes.items() if count), None),
        "predictions": int((got[-1].argmax(1) != want[-1].argmax(1)).sum()),
        "logits": float((got - want).abs().max()),
        "accuracy": 100 * int((got[-1].argmax(1) == y).sum()) / len(y),
        "accuracy_snnc": 100 * int((want[-1].argmax(1) == y).sum()) / len(y),
    }


def watched(modules: dict[str, nn.Module]) -> dict[str, list[Tensor]]:
    """Lists that fill with what each module gives, step after step."""
    trains: dict[str, list[Tensor]] = {name: [] for name in modules}
    for name, module in modules.items():
        module.register_forward_hook(
            lambda _, inputs, output, into=trains[name]: into.append(output[0] if isinstance(output, tuple) else output)
        )
    return trains


def stepped(net: Any, x: Tensor, T: int, trains: dict[str, list[Tensor]]) -> tuple[Tensor, Trains]:
    """T steps of a network that takes a state and gives it back."""
    state, outputs = None, []
    for _ in range(T):
        output, state = net(x, state)
        outputs.append(output)
    return torch.stack(outputs), {name: torch.stack(parts) for name, parts in trains.items()}


def neurons(graph: Any, net: nn.Module) -> dict[str, tuple[nn.Module, Tensor]]:
    """The reader's module of each IF node, and the potential that it is to start from."""
    nodes = {name: node for name, node in graph.nodes.items() if type(node).__name__ == "IF"}
    modules = dict(net.named_modules())
    return {name: (modules[name], torch.from_numpy(node.metadata["v0"])) for name, node in nodes.items()}


def spikingjelly(graph: Any, x: Tensor, T: int, settings: frozenset[str]) -> tuple[Tensor, Trains]:
    """SpikingJelly: `r` is 1 / dt, so a step lasts 1."""
    exchange = importlib.import_module("spikingjelly.activation_based.nir_exchange")
    net = exchange.import_from_nir(graph, dt=1.0)
    found = neurons(graph, net)
    for module, v0 in found.values():
        node = module.module
        if "subtract" in settings:
            node.v_reset = None
        if "v0" in settings:
            node.v = v0.expand(len(x), *v0.shape).clone()
    return stepped(net, x, T, watched({name: module for name, (module, _) in found.items()}))


def sinabs(graph: Any, x: Tensor, T: int, settings: frozenset[str]) -> tuple[Tensor, Trains]:
    """Sinabs: reset by subtraction as read; all steps of a sample in a row."""
    activation, read = importlib.import_module("sinabs.activation"), importlib.import_module("sinabs.nir")
    net = read.from_nir(graph, batch_size=len(x))
    found = neurons(graph, net)
    for module, v0 in found.values():
        if "one spike" in settings:
            module.spike_fn, module.min_v_mem = activation.SingleSpike, None
        if "v0" in settings:
            module.init_state_with_shape((len(x), *v0.shape))
            module.v_mem = v0.expand(len(x), *v0.shape).clone()
    trains = watched({name: module for name, (module, _) in found.items()})
    output, _ = net(x.repeat_interleave(T, 0))
    by_step = lambda value: value.reshape(len(x), T, *value.shape[1:]).transpose(0, 1)  # noqa: E731
    return by_step(output), {name: by_step(parts[0]) for name, parts in trains.items()}


def snntorch(graph: Any, x: Tensor, T: int, settings: frozenset[str]) -> tuple[Tensor, Trains]:
    """snnTorch: flattening takes the batch along, so samples run one at a time."""
    read = importlib.import_module("snntorch.import_nir")
    outputs, spikes = [], []
    for one in x.split(1):
        net = read.import_from_nir(graph)
        found = neurons(graph, net)
        for module, v0 in found.values():
            if "no leak" in settings:
                module.init_hidden, module.beta = True, torch.tensor(1.0)
            if "v0" in settings:
                module.mem = v0[None].clone()
        trains = watched({name: module for name, (module, _) in found.items()})
        output, each = stepped(net, one, T, trains)
        outputs.append(output.reshape(T, 1, -1))
        spikes.append({name: train.reshape(T, 1, *found[name][1].shape) for name, train in each.items()})
    return torch.cat(outputs, 1), {name: torch.cat([each[name] for each in spikes], 1) for name in spikes[0]}


def norse(graph: Any, x: Tensor, T: int, settings: frozenset[str]) -> tuple[Tensor, Trains]:
    """Norse: its integrate-and-fire neuron resets to a value, and has no setting for anything else."""
    net = importlib.import_module("norse.torch").from_nir(graph)
    found = neurons(graph, net)
    outputs, spikes = [], []
    for one in x.split(1):  # flattening takes the batch along
        trains = watched({name: module for name, (module, _) in found.items()})
        output, each = stepped(net, one, T, trains)
        outputs.append(output.reshape(T, 1, -1))
        spikes.append({name: train.reshape(T, 1, *found[name][1].shape) for name, train in each.items()})
    return torch.cat(outputs, 1), {name: torch.cat([each[name] for each in spikes], 1) for name in spikes[0]}


RUNS: dict[str, Run] = {"spikingjelly": spikingjelly, "sinabs": sinabs, "snntorch": snntorch, "norse": norse}
SETTINGS: dict[str, tuple[set[str], ...]] = {
    "spikingjelly": (set(), {"subtract"}, {"subtract", "v0"}),
    "sinabs": (set(), {"one spike"}, {"one spike", "v0"}),
    "snntorch": (set(), {"no leak"}, {"no leak", "v0"}),
    "norse": (set(),),
}


def table(rows: list[dict[str, Any]]) -> str:
    """Every row as Markdown."""
    lines = [
        "| network | reader | settings | spikes that differ | predictions | largest logit difference | accuracy % |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        if "spikes" in row:
            cells = (f"{row['spikes']:,} of {row['places']:,}", str(row["predictions"]), f"{row['logits']:.2g}",
                     f"{row['accuracy']:.2f}")  # fmt: skip
        else:
            cells = (row.get("refused") or row["says"], "", "", "")
        lines.append(f"| {row['network']} | {row['reader']} | {', '.join(row['settings'])} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # readers warn of each other's deprecated calls
    main()
