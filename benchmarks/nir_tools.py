"""What chips' own tools say of networks, beside what `snnc check --target` says.

    python benchmarks/nir_tools.py write FOLDER        # with snnc, of the tests' zoo
    peer/bin/python benchmarks/nir_tools.py ask FOLDER --out docs/results/nir_tools.json
    lava/bin/python benchmarks/nir_tools.py ask FOLDER --tools lava --lava nir_to_lava.py --out ..

The environments: `peers.txt` and `peers_lava.txt`. No Lava package on the registry reads NIR; `nir_to_lava.py` is the
importer that the documentation of NIR gives for it (docs/source/examples/lava, NIR 7232ada), on lava-dl.

A tool is asked for each network whether it takes it: snn-mlir by its `check`, rockpool by its `from_nir`, lava-dl by
that importer, Sinabs by its check of what a core of a Speck holds, layer by layer. Told are its answers, and where snnc
says otherwise. That a tool takes a network does not mean that it gives the same spikes: "approximate" is for that.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import sys
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

TOOLS = ("snn-mlir", "xylo", "speck")
PACKAGES = {"snn-mlir": "snn-mlir", "xylo": "rockpool", "speck": "sinabs", "lava": "lava-dl"}
ZOO = ("mlp", "plain", "residual", "inverted", "normalised", "preactivation", "dense", "qcfs")


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=["write", "ask"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tools", default=",".join(TOOLS))
    parser.add_argument("--lava", type=Path, help="the importer for lava-dl")
    parser.add_argument("--out", type=Path, help="JSON file; rows of other tools in it stay")
    args = parser.parse_args()
    if args.do == "write":
        write(args.folder)
    else:
        ask(args.folder, args.tools.split(","), args.lava, args.out)


def write(folder: Path) -> None:
    """Every network as each tool would get it, and what snnc says of it; also where that is "unsupported"."""
    import nir
    from torch import nn

    import snnc
    from snnc.backends import NirFile

    sys.path.insert(0, str(Path(__file__).parent.parent))
    from tests import zoo

    folder.mkdir(parents=True, exist_ok=True)
    made = {name: zoo.ZOO[name]() for name in ZOO}
    chains = {"no-bias": (1, 4, 3, 6, False), "wide": (64, 256, 3, 6, True), "large": (2, 64, 3, 66, True)}
    for name, (channels, outputs, kernel, size, bias) in chains.items():
        conv, end = nn.Conv2d(channels, outputs, kernel, bias=bias), nn.Linear(outputs, 3)
        net = nn.Sequential(conv, nn.ReLU(), nn.AvgPool2d(size - kernel + 1), nn.Flatten(), end)
        made[name] = (net.eval(), (channels, size, size))
    for name, (net, shape) in made.items():
        x = zoo.sample(shape, 8)
        compiled = snnc.compile(net, 4, "opi", x)
        for target in PACKAGES:
            try:
                graph, found = NirFile(target).drawn(compiled)
            except snnc.SnncError as why:
                print(name, target, why)
                continue
            nir.write(folder / f"{name}.{target}.nir", graph)
            rows = [[one.level, one.node, one.op, one.why] for one in found.misfits]
            (folder / f"{name}.{target}.json").write_text(json.dumps(rows))


def ask(folder: Path, tools: list[str], lava: Path | None, out: Path | None) -> None:
    """Puts every network to each tool."""
    before = json.loads(out.read_text()) if out and out.exists() else {"versions": {}, "rows": []}
    rows = [row for row in before["rows"] if row["tool"] not in tools]
    for tool in tools:
        for path in sorted(folder.glob(f"*.{tool}.json")):
            misfits = json.loads(path.read_text())
            said = answer(ASK[tool], path.with_suffix(".nir"), lava)
            stops = [why for level, _, _, why in misfits if level == "unsupported" and in_reach(tool, why)]
            rows.append({
                "tool": tool, "network": path.name.split(".")[0], "tool_takes_it": said is None, "tool_says": said,
                "snnc_says_it_runs": not stops, "snnc_says": stops[:1], "agree": (said is None) == (not stops),
            })  # fmt: skip
            print(json.dumps(rows[-1])[:400], flush=True)
    versions = before["versions"] | {PACKAGES[tool]: metadata.version(PACKAGES[tool]) for tool in tools}
    if out:
        out.write_text(json.dumps({"versions": versions, "rows": rows}, indent=1) + "\n")
    asked = [row for row in rows if row["tool"] in tools]
    print(f"{sum(row['agree'] for row in asked)} of {len(asked)} answers agree")


def in_reach(tool: str, why: str) -> bool:
    """Whether the tool looks at what a row is about: Sinabs' check is of memory alone."""
    return tool != "speck" or "Speck" in why or "core" in why


def answer(tool: Callable[[Path, Path | None], None], path: Path, lava: Path | None) -> str | None:
    """What keeps a tool from taking a network, in its own words; None where it takes it."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            tool(path, lava)
    except ImportError:  # the environment lacks something
        raise
    except Exception as problem:  # whatever a tool raises is its answer
        return f"{type(problem).__name__}: {' '.join(str(problem).split())[:160]}"
    return None


def ask_mlir(path: Path, _: Path | None) -> None:
    import snn_mlir

    report = snn_mlir.check(path)
    if not report.ok:
        raise ValueError(report.errors[0].message)


def ask_rockpool(path: Path, _: Path | None) -> None:
    from rockpool.nn.modules.torch.nir import from_nir

    from_nir(path)


def ask_speck(path: Path, _: Path | None) -> None:
    import nir
    import numpy as np
    from sinabs.utils import validate_memory_mapping_speck

    for node in nir.read(path).nodes.values():
        if isinstance(node, nir.Conv2d):
            pairs = [tuple(int(one) for one in np.broadcast_to(part, 2)) for part in (node.stride, node.padding)]
            size = tuple(int(one) for one in node.input_type["input"][1:])
            validate_memory_mapping_speck(
                node.weight.shape[1], node.weight.shape[0], node.weight.shape[2:], *pairs, size
            )


def ask_lava(path: Path, importer: Path | None) -> None:
    import nir
    import numpy as np
    import torch

    if importer is None:
        raise SystemExit("--lava names the importer.")
    spec = importlib.util.spec_from_file_location("nir_to_lava", importer)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules["nir_to_lava"] = module
    spec.loader.exec_module(module)
    graph = nir.read(path)
    config = module.ImportConfig(fixed_pt=False, library_preference=module.LavaLibrary.LavaDl)
    net = module.import_from_nir_to_lava_dl(graph, config)
    net = net[0] if isinstance(net, tuple) else net
    shape = tuple(int(one) for one in graph.nodes["input"].input_type["input"])
    net(torch.from_numpy(np.random.default_rng(0).random((1, *shape, 2), dtype=np.float32)))


ASK: dict[str, Callable[[Path, Path | None], None]] = {
    "snn-mlir": ask_mlir,
    "xylo": ask_rockpool,
    "speck": ask_speck,
    "lava": ask_lava,
}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
