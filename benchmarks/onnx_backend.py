"""The ONNX backend: what a file costs to write, which form of a neuron runs fastest, and images per second.

    python benchmarks/onnx_backend.py --data FOLDER --out docs/results/onnx_backend.json

FOLDER as for `accuracy.py`. One thread. What is compared runs in turn within one process, round after round, and
medians are told; so ratios hold on a machine that does other things as well. Every form of a neuron is checked to give
the same spikes before it is timed.

- "emission": seconds to write the published ResNet-20, and bytes, at T = 8 and 256.
- "forms": milliseconds of one `IF` layer as `Scan`, unrolled over T, and as a `Scan` over blocks of unrolled steps.
- "throughput": images per second at T = 8 in onnxruntime and in eager torch, time folded.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import onnx
import onnxruntime
import torch
from accuracy import folder_module, load, provenance
from onnx import TensorProto, helper, numpy_helper, parser
from torch import Tensor

import snnc
from snnc.backends import OnnxModel
from snnc.backends.onnx.functions import IR_VERSION, OPSET, Library
from snnc.files.emitted import DOMAIN
from snnc.ir.neurons import IF
from snnc.networks.onnx import quiet_options

STEP = """u = Add (before, current)
fired = GreaterOrEqual (u, theta)
count = Cast <to: int = 1> (fired)
charge = Mul (count, theta)
after = Sub (u, charge)"""
NAMES = ("u", "fired", "count", "charge", "after", "before", "current")
HEAD = f'<domain: "{DOMAIN}", opset_import: ["" : {OPSET}, "{DOMAIN}" : 1]> Walk4 (steps, theta, v0) => (spikes, v)'


def unrolled(count: int) -> str:
    """`count` steps from `before0`, on `current0` and so on; their spikes joined, and `after`, the potential."""
    lines = []
    for k in range(count):
        names = {name: f"{name}{k}" for name in NAMES} | ({"before": f"after{k - 1}"} if k else {})
        lines.append(re.sub(r"\b(\w+)\b(?!:)", lambda m, names=names: names.get(m[1], m[1]), STEP))
    joined = ", ".join(f"charge{k}" for k in range(count))
    return "\n".join([*lines, f"joined = Concat <axis: int = 0> ({joined})", f"after = Identity (after{count - 1})"])


def parts(count: int) -> str:
    return ", ".join(f"current{k}" for k in range(count)) + " = Split <axis: int = 0>"


def whole(T: int) -> str:
    """All steps written out: a file that grows with T."""
    return f"""{HEAD} {{
        zero = Constant <value_ints: ints = [0]> ()
        start = snnc.Start (steps, v0)
        before0 = Unsqueeze (start, zero)
        {parts(T)} (steps)
        {unrolled(T)}
        spikes = Identity (joined)
        v = Identity (after)
    }}"""


def blocks(k: int) -> str:
    """A Scan over blocks of k steps; T is a multiple of k."""
    dims = ", ".join("?????")
    return f"""{HEAD} {{
        zero = Constant <value_ints: ints = [0]> ()
        one = Constant <value_ints: ints = [1]> ()
        end = Constant <value_ints: ints = [9223372036854775807]> ()
        blocked = Constant <value_ints: ints = [-1, {k}]> ()
        start = snnc.Start (steps, v0)
        first = Unsqueeze (start, zero)
        shape = Shape (steps)
        rest = Slice (shape, one, end)
        target = Concat <axis: int = 0> (blocked, rest)
        several = Reshape (steps, target)
        v, made = Scan <num_scan_inputs: int = 1, body = step (float[{dims}] before0, float[{dims}] block)
                => (float[{dims}] after, float[{dims}] joined) {{
            {parts(k)} (block)
            {unrolled(k)}
        }}> (first, several)
        spikes = Reshape (made, shape)
    }}"""


def session(model: onnx.ModelProto | Path) -> Callable[[Tensor], list[Any]]:
    given = str(model) if isinstance(model, Path) else model.SerializeToString()
    made = onnxruntime.InferenceSession(given, quiet_options(1), providers=["CPUExecutionProvider"])
    return lambda x: made.run([made.get_outputs()[0].name], {"x": x.numpy()})


def one_neuron(neuron: IF, shape: tuple[int, ...], walk: str | None) -> onnx.ModelProto:
    library = Library()
    kind = library.neuron(neuron, 1 + len(shape))
    if walk:
        library.functions["Walk4"] = parser.parse_function(walk)
    node = helper.make_node(kind, ["x", "theta", "v0"], ["y"], domain=DOMAIN, T=neuron.T)
    entry, result = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", *shape]) for name in "xy")
    weights = [numpy_helper.from_array(getattr(neuron, name).numpy(), name) for name in ("theta", "v0")]
    graph = helper.make_graph([node], "neuron", [entry], [result], weights)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    functions = library.needed(graph.node)
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, functions=functions)


def timed(candidates: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each, all of them once in every round."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds + 1):  # the first round warms up
        for name, call in candidates.items():
            begin = time.perf_counter()
            call()
            if number:
                seconds[name].append(time.perf_counter() - begin)
    return {name: median(values) for name, values in seconds.items()}


def forms(rounds: int) -> list[dict[str, Any]]:
    rows = []
    for T in (8, 32):
        for shape in ((16, 32, 32), (64, 8, 8)):
            neuron = IF(T, torch.ones(shape[0], 1, 1), torch.full((shape[0], 1, 1), 0.5))
            walks = {"Scan": None, "blocks of 2": blocks(2), "blocks of 4": blocks(4), "unrolled": whole(T)}
            made = {name: session(one_neuron(neuron, shape, walk)) for name, walk in walks.items()}
            for batch in (1, 16):
                x = torch.randint(-8, 17, (T * batch, *shape)) / 8
                for name, call in made.items():
                    assert torch.equal(torch.from_numpy(call(x)[0]), neuron(x)), name
                calls = {name: (lambda call=call, x=x: call(x)) for name, call in made.items()}
                found = {name: round(1000 * value, 4) for name, value in timed(calls, rounds).items()}
                ratios = {name: round(value / found["Scan"], 2) for name, value in found.items()}
                rows.append({"T": T, "layer": list(shape), "batch": batch, "ms": found, "to Scan": ratios})
    return rows


def main() -> None:
    """Prints and writes everything."""
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--data", type=Path, default=os.environ.get("SNNC_DATA"), help="folder with zoo.py, common.py")
    cli.add_argument("--out", type=Path, help="JSON to write")
    cli.add_argument("--rounds", type=int, default=21)
    args = cli.parse_args()
    torch.set_num_threads(1)
    calibration, x, _ = load(args.data, "cifar-imagenet", 256)
    ann = folder_module(args.data, "zoo").akamaster(20, "resnet20-12fca82f.th")
    here = {**provenance(), "onnxruntime": onnxruntime.__version__}
    found: dict[str, Any] = {"provenance": here, "emission": [], "throughput": []}
    file = Path(f".onnx-backend-{os.getpid()}.onnx")
    try:
        for T in (256, 8):  # the last one stays, and is timed below
            net = snnc.compile(ann, T, "opi", calibration)
            seconds = timed({"emission": lambda net=net: snnc.save(net, file, OnnxModel())}, 5)["emission"]
            found["emission"].append({"T": T, "seconds": round(seconds, 3), "bytes": file.stat().st_size})
        run = session(file)
        with torch.no_grad():
            for batch in (1, 32):
                part = x[:batch]
                same = (torch.from_numpy(run(part)[0]).argmax(1) == net.graph(part).argmax(1)).float().mean()
                seconds = timed(
                    {"onnxruntime": lambda p=part: run(p), "torch": lambda p=part: net.graph(p)}, args.rounds
                )
                rate = {name: round(batch / value, 2) for name, value in seconds.items()}
                ratio = round(rate["onnxruntime"] / rate["torch"], 2)
                row = {"T": 8, "batch": batch, "images per second": rate, "ratio": ratio}
                found["throughput"].append({**row, "same predictions": float(same)})
    finally:
        file.unlink(missing_ok=True)
    found["forms"] = forms(args.rounds)
    text = json.dumps(found, indent=1)
    print(text)
    if args.out:
        args.out.write_text(f"{text}\n")


if __name__ == "__main__":
    main()
