"""The rows of `speed.py` that are not peers: the ANN, and the network in each of snnc's runtimes.

    python benchmarks/speed_rows.py peak THREADS ROW NET T BATCH FOLDER     peak memory of one run
    python benchmarks/speed_rows.py steps THREADS ROW NET T BATCH FOLDER    the same, in rounds of 64 rows, and the time

FOLDER keeps compiled networks, so that a process which is measured does not compile.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from speed_nets import build, images, peak
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

import snnc
from snnc.backends.onnx.model import OnnxModel
from snnc.networks.onnx import quiet_options
from snnc.passes import FixedPoint
from snnc.passes.pipeline import Pipeline
from snnc.recipes import recipe

Run = Callable[[Tensor], Any]
ROUND = 64  # rows of a round in `steps`
STEPS = 2048  # steps x samples that are timed there
ROWS = (
    "ANN",
    "ANN, folded",
    "ANN, onnxruntime",
    "reference",
    "fast, float",
    "fast, fixed point",
    "ONNX, float",
    "ONNX, fixed point",
    "ONNX, fixed point in floats",
)


def threads(number: int) -> Callable[[], float]:
    """Sets the threads of torch, and gives the clock: CPU time for one, which other programs do not lengthen."""
    torch.set_num_threads(number)
    return time.process_time if number == 1 else time.perf_counter


def row(name: str, net: str, T: int, folder: Path) -> Run:
    """What is timed."""
    if name == "ANN, onnxruntime":
        return _session(_exported(net, folder))
    if name.startswith("ANN"):
        model = (fuse(build(net)) if "folded" in name else build(net)).to(memory_format=torch.channels_last)
        return lambda x: model(x.contiguous(memory_format=torch.channels_last))
    form = "floats.onnx" if name.endswith("in floats") else "onnx" if "ONNX" in name else "snn"
    network = snnc.load(_compiled(net, T, "fixed point" in name, form, folder))
    if "ONNX" not in name:
        network.runtime = "reference" if name == "reference" else "fast"
    return network


def _compiled(net: str, T: int, fixed: bool, suffix: str, folder: Path) -> Path:
    path = folder / f"{net}-{T}-{'fixed' if fixed else 'float'}.{suffix}"
    if not path.exists():
        passes = Pipeline((*recipe("data-free").pipeline.passes, *((FixedPoint(),) if fixed else ())))
        shape = tuple(images(net, 1).shape[1:])  # no data: random weights are not worth the rounding of thousands
        network = snnc.compile(build(net), T=T, recipe=passes, input_shape=shape)
        for kind, backend in (("snn", None), ("onnx", None), ("floats.onnx", OnnxModel(integers=False))):
            snnc.save(network, folder / f"{net}-{T}-{'fixed' if fixed else 'float'}.{kind}", backend)
    return path


def _exported(net: str, folder: Path) -> Path:
    path = folder / f"{net}.onnx"
    if not path.exists():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch advises its other exporter, which needs packages of its own
            axes = {"x": {0: "N"}}
            torch.onnx.export(build(net), (images(net, 2),), path, dynamo=False, input_names=["x"], dynamic_axes=axes)
    return path


def _session(path: Path) -> Run:
    session = onnxruntime.InferenceSession(path, quiet_options(), providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x.numpy()})


def count(model: nn.Module, net: str) -> dict[str, float]:
    """Operations of the first layer and of the others, weights, and neurons, for one image."""
    found: dict[str, float] = {"first": 0.0, "rest": 0.0, "neurons": 0.0, "weights": 0.0}

    def weighted(layer: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        found["rest" if found["first"] else "first"] += 2 * output.numel() * layer.weight[0].numel()
        found["weights"] += layer.weight.numel()

    def activation(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        found["neurons"] += output.numel()

    hooks = [
        module.register_forward_hook(weighted if isinstance(module, (nn.Conv2d, nn.Linear)) else activation)
        for module in model.modules()
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.ReLU))
    ]
    with torch.no_grad():
        model(images(net, 1))
    for hook in hooks:
        hook.remove()
    return found


@torch.no_grad()
def main() -> None:
    """Peak memory before and after one run, in MB, and for `steps` the seconds of later ones."""
    kind, number, name, net, T, batch, folder = sys.argv[1:]
    clock, x = threads(int(number)), images(net, int(batch))
    run: Any = row(name, net, int(T), Path(folder))
    if kind == "steps":
        run.chunk = ROUND
    before = peak()
    run(x)
    found = [before, peak()]
    if kind == "steps":
        times = max(1, STEPS // (int(T) * len(x)))
        start = clock()
        for _ in range(times):
            run(x)
        found = [*found, (clock() - start) / times]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
