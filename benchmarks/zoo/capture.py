"""Which networks of two model zoos snnc takes, and whether a graph computes what its network computes.

    python benchmarks/zoo/capture.py --out docs/results/zoo.json

in an environment as `benchmarks/zoo/requirements.txt` describes it. Each network has random weights and is read by
three doors: as a live module ("live"), exported by torch ("pt2"), and exported to ONNX ("onnx"). What is taken is run
on random samples beside the module. A row says the largest difference, and how much the outputs of these samples differ
among themselves, both relative to the largest output: without the second, the first would say little.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from networks import build, names
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent.parent))

from accuracy import provenance

from snnc.capture.doors import captured
from snnc.errors import Unsupported
from snnc.files import atomic_write
from snnc.structure import leaves

DOORS = ("live", "pt2", "onnx")
SAMPLES = 3


def opened(net: nn.Module, door: str, x: Tensor) -> Any:
    """The network as a door takes it."""
    if door == "live":
        return net
    if door == "pt2":
        return torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    program: Any = torch.onnx.export(net, (x,), dynamo=True, dynamic_shapes=({0: torch.export.Dim.AUTO},))
    return program.model_proto


def row(name: str, net: nn.Module, shape: tuple[int, ...], door: str) -> dict[str, Any]:
    """One network through one door."""
    x = torch.randn(SAMPLES, *shape, generator=torch.Generator().manual_seed(1))
    found: dict[str, Any] = {"network": name, "door": door, "shape": list(shape)}
    start = time.process_time()
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            model = opened(net, door, x)
    except Exception as error:
        return {**found, "outcome": "not exported", "why": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
    try:
        graph = captured(model, shape).graph
    except Unsupported as error:
        stops = [f"{b.op}: {b.why}" for b in error.blockers]
        return {
            **found,
            "outcome": "refused",
            "why": "; ".join(sorted(set(stops))),
            "at": [str(b) for b in error.blockers],
        }
    with torch.no_grad():
        pairs = [*zip(leaves(net(x)), leaves(graph(x)), strict=True)]
    scales = [float(want.abs().max()) for want, _ in pairs]
    spread = max(float((want - want.mean(0)).abs().max()) / s for (want, _), s in zip(pairs, scales, strict=True))
    error = max(_off(*pair) / s for pair, s in zip(pairs, scales, strict=True))
    outcome = "taken" if error <= 1e-5 else "off"
    return {
        **found,
        "outcome": outcome,
        "error": error,
        "spread": spread,
        "seconds": round(time.process_time() - start, 1),
    }


def _off(want: Tensor, have: Tensor) -> float:
    """The largest difference of an output."""
    return float((want - have).abs().max()) if want.shape == have.shape else float("inf")


def main() -> None:
    """Tries, prints and writes everything; rows that other runs wrote stay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON file with every finished row")
    parser.add_argument("--only", default="", help="part of the names to try")
    parser.add_argument("--doors", default="live", help=f"some of {','.join(DOORS)}")
    parser.add_argument("--again", action="store_true", help="rows that are there already, too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
    for name in names():
        done = {r["door"] for r in rows if r["network"] == name}
        doors = [d for d in args.doors.split(",") if args.again or d not in done]
        if not any(part in name for part in args.only.split(",")) or not doors:
            continue
        net, shape = build(name)
        for door in doors:
            found = row(name, net, shape, door)
            rows = [r for r in rows if (r["network"], r["door"]) != (name, door)] + [found]
            print({k: v for k, v in found.items() if k != "at"}, flush=True)
            with atomic_write(args.out) as temporary:
                temporary.write_text(json.dumps({"provenance": provenance(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
