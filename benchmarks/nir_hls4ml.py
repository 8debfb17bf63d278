"""A network of dense layers as an FPGA project of hls4ml, built and run by its own emulation, beside snnc.

    python benchmarks/nir_hls4ml.py write FOLDER
    hls/bin/python benchmarks/nir_hls4ml.py run FOLDER --out docs/results/nir_hls4ml.json

No release of hls4ml has spiking neurons yet (1.3.0 is the last): the second command was tried with its main branch of
2026-06-10, and needs g++ and no vendor's tool. The environment, with commit ef92ebd of its repository in ./hls4ml:

    python3.11 -m venv hls
    hls/bin/pip install torch==2.13.0 nir==1.0.8 ./hls4ml

hls4ml reads no NIR files, but torch modules: the nodes of the file become `nn.Linear` and neurons that hls4ml takes for
snnTorch's `Leaky` with beta = 1. It is also asked about neurons behind a convolution, for which no file is written.

The emulation is that of C++ with numbers of 48 bits. Its neurons keep their potentials from call to call, so each layer
is a project of its own, and one sample goes through each.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nir_chains import chain, commands, save
from torch import nn

STEPS = 8


def write(folder: Path) -> None:
    """Compiles a network for the target, and records what it does."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 20), nn.ReLU(), nn.Linear(20, 5))
    save(folder / "net.nir", "hls4ml", net, STEPS, torch.rand(200, 16), 1, zero=True)


def run(folder: Path, out: Path | None) -> None:
    """Builds a project up to each layer of neurons, and counts spikes that differ."""
    import nir

    graph = nir.read(folder / "net.nir")
    known = np.load(folder / "net.npz")
    rows = []
    for name, node in graph.nodes.items():
        if isinstance(node, nir.IF):
            names = chain(graph)
            net = nn.Sequential(*(layer(graph.nodes[one]) for one in names[1 : names.index(name) + 1]))
            rows.append(counted(name, emulated(net, known["input"]), known[f"spikes/{name}"][:, 0]))
    rows += maps()
    if out:
        out.write_text(json.dumps({"hls4ml": "main, ef92ebd (2026-06-10)", "T": STEPS, "rows": rows}, indent=1) + "\n")


def counted(name: str, found: np.ndarray, wanted: np.ndarray) -> dict[str, Any]:
    """What differs of the spikes of one layer."""
    differ = int((found != wanted).sum())
    row = {"layer": name, "differ": differ, "places": wanted.size, "spikes": int(wanted.sum())}
    print(row, flush=True)
    return row


def maps() -> list[dict[str, Any]]:
    """Neurons behind a convolution, on its map and on the same numbers as a vector."""
    torch.manual_seed(0)
    conv, x, theta = nn.Conv2d(2, 3, 3), torch.rand(1, 2, 6, 6), 0.5
    v, steps = torch.zeros(1, 3, 4, 4), []
    for _ in range(STEPS):
        v = v + conv(x).detach()
        steps.append((v >= theta).flatten().numpy())
        v = v - theta * (v >= theta)
    same = nn.Linear(48, 48)  # hls4ml drops a flattening at the end, and with it the order of the numbers
    same.weight.data, same.bias.data = torch.eye(48), torch.zeros(48)
    nets = {
        "convolution, neurons on its map": nn.Sequential(conv, leaky(theta), nn.Flatten(), same),
        "convolution, neurons behind flattening": nn.Sequential(conv, nn.Flatten(), leaky(theta), same),
    }
    return [counted(name, emulated(net, x.numpy()), np.stack(steps)) for name, net in nets.items()]


def layer(node: Any) -> nn.Module:
    """A node of the file as a module that hls4ml knows."""
    import nir

    if isinstance(node, nir.IF):
        return leaky(node.v_threshold.copy())
    linear = nn.Linear(node.weight.shape[1], node.weight.shape[0])
    linear.weight.data, linear.bias.data = (torch.from_numpy(one.copy()) for one in (node.weight, node.bias))
    return linear


def leaky(threshold: Any) -> nn.Module:
    """Neurons that reset by subtraction."""
    from hls4ml.utils.torch import HLS4MLModule

    class Leaky(HLS4MLModule):  # by this name, and these attributes, hls4ml knows snnTorch's neuron
        def __init__(self) -> None:
            super().__init__()
            self.beta, self.threshold = torch.tensor(1.0), torch.as_tensor(threshold)
            self.reset_mechanism = "subtract"

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    return Leaky()


def emulated(net: nn.Module, x: np.ndarray) -> np.ndarray:
    """The spikes `[T, neurons]` of the last layer, for one sample."""
    import hls4ml

    config = hls4ml.utils.config_from_pytorch_model(
        net.eval(), x.shape[1:], granularity="name", backend="Vitis", default_precision="ap_fixed<48,24>"
    )
    with tempfile.TemporaryDirectory() as project:
        made = hls4ml.converters.convert_from_pytorch_model(
            net, output_dir=project, backend="Vitis", hls_config=config, io_type="io_parallel"
        )
        made.compile()
        steps = [np.asarray(made.predict(np.ascontiguousarray(x))).ravel() for _ in range(STEPS)]
    return np.round(np.stack(steps)).astype(bool)


if __name__ == "__main__":
    commands(__doc__, write, run)
