"""A network of dense layers as an FPGA project of hls4ml, built and run by its own emulation, beside snnc.

    python benchmarks/nir_hls4ml.py write FOLDER
    hls/bin/python benchmarks/nir_hls4ml.py run FOLDER --out docs/results/nir_hls4ml.json

No release of hls4ml has spiking neurons yet (1.3.0 is the last): the second command was tried with its main branch of
2026-06-10 (ef92ebd) and torch 2.13.0; it needs g++, and no vendor's tool. hls4ml reads no NIR files, but torch
modules: the nodes of the file become `nn.Linear` and neurons that hls4ml takes for snnTorch's `Leaky` with beta = 1.

The emulation is that of C++ with numbers of 48 bits. Its neurons keep their potentials from call to call, so each layer
is a project of its own, and one sample goes through each.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

STEPS = 8


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=["write", "run"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.do == "write":
        write(args.folder)
    else:
        run(args.folder, args.out)


def write(folder: Path) -> None:
    """Compiles a network for the target, and records what it does."""
    import snnc
    from snnc.backends import NirFile
    from snnc.differences import record
    from snnc.files.vectors import write_vectors

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 20), nn.ReLU(), nn.Linear(20, 5)).eval()
    x = torch.rand(200, 16)
    pipeline = snnc.recipe("opi").pipeline.set("set-initial-potential", rule="zero").set("insert-neurons", powers=True)
    compiled = snnc.compile(net, STEPS, pipeline, x)
    snnc.save(compiled, folder / "net.nir", NirFile("hls4ml"))
    write_vectors(folder / "net.vectors.npz", record(compiled, x[:1]))


def run(folder: Path, out: Path | None) -> None:
    """Builds a project up to each layer of neurons, and counts spikes that differ."""
    import nir

    graph = nir.read(folder / "net.nir")
    known = np.load(folder / "net.vectors.npz")
    rows = []
    for name, node in graph.nodes.items():
        if isinstance(node, nir.IF):
            wanted = known[f"spikes/{name}"][:, 0]
            found = emulated(graph, name, known["input"])
            rows.append({"layer": name, "differ": int((found != wanted).sum()), "places": wanted.size,
                         "spikes": int(wanted.sum())})  # fmt: skip
            print(rows[-1], flush=True)
    if out:
        out.write_text(json.dumps({"hls4ml": "main, ef92ebd (2026-06-10)", "T": STEPS, "rows": rows}, indent=1) + "\n")


def emulated(graph: Any, last: str, x: np.ndarray) -> np.ndarray:
    """The spikes `[T, neurons]` of one layer, for one sample."""
    import hls4ml
    import nir
    from hls4ml.utils.torch import HLS4MLModule

    class Leaky(HLS4MLModule):  # by this name, and these attributes, hls4ml knows snnTorch's neuron
        def __init__(self, threshold: Any) -> None:
            super().__init__()
            self.beta, self.threshold = torch.tensor(1.0), torch.as_tensor(threshold)
            self.reset_mechanism = "subtract"

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    layers: list[nn.Module] = []
    name = "input"
    while name != last:
        name = next(b for a, b in graph.edges if a == name)
        node = graph.nodes[name]
        if isinstance(node, nir.IF):
            layers.append(Leaky(node.v_threshold.copy()))
        else:
            linear = nn.Linear(node.weight.shape[1], node.weight.shape[0])
            linear.weight.data, linear.bias.data = (torch.from_numpy(one.copy()) for one in (node.weight, node.bias))
            layers.append(linear)
    net = nn.Sequential(*layers).eval()
    config = hls4ml.utils.config_from_pytorch_model(
        net, (x.shape[1],), granularity="name", backend="Vitis", default_precision="ap_fixed<48,24>"
    )
    with tempfile.TemporaryDirectory() as project:
        made = hls4ml.converters.convert_from_pytorch_model(
            net, output_dir=project, backend="Vitis", hls_config=config, io_type="io_parallel"
        )
        made.compile()
        steps = [np.asarray(made.predict(np.ascontiguousarray(x))).ravel() for _ in range(STEPS)]
    return np.round(np.stack(steps)).astype(bool)


if __name__ == "__main__":
    main()
