"""What compiling makes of the networks of two model zoos, and how its error falls with T.

    python benchmarks/zoo/compiled.py --out docs/results/zoo_compiled.json

in an environment as `benchmarks/zoo/requirements.txt` describes it. Weights are random, so that nothing here tells of
accuracy: what is measured is how far the outputs of a spiking network are from those of its ANN, relative to them, in
the Euclidean norm over all outputs of a few random samples.

- T = 8, every network: `snnc.compile(net, 8, calibration=x, quick=True)`, the recipe that snnc chooses, on other
  samples than those it was calibrated on.
- T = 8, 32, 128, 512, twenty networks: without calibrated weights, and with thresholds that clip nothing of the samples
  themselves, so that nothing but time is left to make errors: they must fall as 1/T. `slope` is that of the logarithms.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from networks import build, names
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent.parent))

from accuracy import provenance

import snnc
from snnc.errors import SnncError
from snnc.files import atomic_write
from snnc.recipes import recipe
from snnc.structure import leaves

T = 8
STEPS = (8, 32, 128, 512)
FALLING = """
timm/cait_xxs24_224 timm/convnext_atto timm/edgenext_xx_small timm/efficientnet_lite0 timm/fasternet_t0
timm/ghostnet_050 timm/lcnet_050 timm/mambaout_femto timm/mobilenetv4_conv_small timm/regnety_002 timm/resmlp_12_224
timm/starnet_s1 timm/test_resnet timm/vit_tiny_patch16_224 timm/xcit_nano_12_p16_224 torchvision/mobilenet_v3_small
torchvision/resnet18 torchvision/shufflenet_v2_x0_5 torchvision/squeezenet1_0 torchvision/lraspp_mobilenet_v3_large
"""


def off(net: nn.Module, spiking: Any, x: Tensor) -> float:
    """The relative error on `x`, of several outputs the largest."""
    with torch.no_grad():
        pairs = [*zip(leaves(spiking(x)), leaves(net(x)), strict=True)]
    return max(float((have - want).norm() / want.norm()) for have, want in pairs)


def at_eight(name: str, net: nn.Module, x: Tensor) -> dict[str, Any]:
    """One network at T = 8."""
    start = time.process_time()
    spiking = snnc.compile(net, T, calibration=x[:4], quick=True)
    row = {"network": name, "T": T, "recipe": spiking.info["recipe"], "error": off(net, spiking, x[4:])}
    return {**row, "seconds": round(time.process_time() - start, 1)}


def falling(name: str, net: nn.Module, x: Tensor, most: int) -> dict[str, Any]:
    """One network at several T."""
    start = time.process_time()
    whole = (
        recipe("telescoped")
        .pipeline.remove("calibrate-weights")
        .set("scale-thresholds", rule="max")
        .set("encode-values", factor=2.0)
    )
    errors = {}
    for steps in (s for s in STEPS if s <= most):
        spiking = snnc.compile(net, steps, whole, calibration=x[:2], quick=True)
        errors[steps] = off(net, spiking, x[:2])
    points = [(math.log(t), math.log(e)) for t, e in errors.items()]
    means = [sum(v) / len(points) for v in zip(*points, strict=True)]
    slope = sum((a - means[0]) * (b - means[1]) for a, b in points) / sum((a - means[0]) ** 2 for a, _ in points)
    return {"network": name, "errors": errors, "slope": slope, "seconds": round(time.process_time() - start, 1)}


def main() -> None:
    """Compiles, prints and writes everything; rows that other runs wrote stay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON file with every finished row")
    parser.add_argument("--only", default="", help="parts of the names to try")
    parser.add_argument("--what", default="eight,falling")
    parser.add_argument("--most", type=int, default=512, help="largest T")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    found = json.loads(args.out.read_text()) if args.out.exists() else {"eight": [], "falling": []}
    for what in args.what.split(","):
        for name in names() if what == "eight" else FALLING.split():
            done = any(row["network"] == name for row in found[what])
            if done or not any(part in name for part in args.only.split(",")):
                continue
            net, shape = build(name)
            x = torch.randn(6, *shape, generator=torch.Generator().manual_seed(1))
            try:
                row = at_eight(name, net, x) if what == "eight" else falling(name, net, x, args.most)
            except SnncError as error:
                row = {"network": name, "error": None, "why": str(error)}
            print(row, flush=True)
            found[what].append(row)
            with atomic_write(args.out) as temporary:
                temporary.write_text(json.dumps({"provenance": provenance(), **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
