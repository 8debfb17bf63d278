"""The peer rows of `vit.py`: SpikingJelly's recipes for transformers, on the same network and images.

    peer/bin/python benchmarks/vit_peer.py --data FOLDER --weights WEIGHTS --out vit_peer.json

Runs in an environment of its own, without snnc; `benchmarks/peers.txt` pins it and says how to make it. WEIGHTS holds
the networks that `vit.py --weights WEIGHTS` trained.

The peer looks for modules, so it is given a twin of the transformer, block by block, which is first compared with the
original. Two of its recipes are for such networks: `STATransformerRecipe` in the mode "spiking_encoder", which puts
encoders of either sign and any height behind normalisation, GELU and attention, with thresholds that it finds on
training images, at `threshold_scale` 1 and at 0.5, as in its example for ImageNet; and `TransformerTDEquivalentRecipe`,
which has no spikes. The input is divided by T, and the readout is the sum of all steps, as its recipes mean it. Where a
recipe refuses a network, its own words are kept.
"""

from __future__ import annotations

import argparse
import json
import os
from importlib import metadata
from pathlib import Path
from typing import Any

try:
    from spikingjelly.activation_based import ann2snn, functional
except ModuleNotFoundError as missing:
    lacks = f"this one lacks {missing.name}: see benchmarks/peers.txt."
    raise SystemExit(f"The peer runs in an environment of its own, and {lacks}") from None
import torch
from torch import Tensor, nn
from vit_nets import Gated, Vit, images

BATCH = 100


class Block(nn.Module):
    """A layer of the encoder, as modules."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.norm1, self.attention, self.norm2 = layer.norm1, layer.self_attn, layer.norm2
        self.wide, self.bend, self.narrow = layer.linear1, nn.GELU(), layer.linear2

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        y, _ = self.attention(y, y, y, need_weights=False)
        x = x + y
        return x + self.narrow(self.bend(self.wide(self.norm2(x))))


class Twin(nn.Module):
    """`Vit` without `nn.TransformerEncoder`, which the peer does not look into."""

    def __init__(self, net: Vit) -> None:
        super().__init__()
        self.patches, self.token, self.place, self.head = net.patches, net.token, net.place, net.head
        self.blocks, self.norm = nn.Sequential(*map(Block, net.blocks.layers)), net.blocks.norm

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(n, -1, -1), x], 1) + self.place
        return self.head(self.norm(self.blocks(x))[:, 0])


def recipes(calibration: Tensor, T: int) -> dict[str, Any]:
    """The peer's recipes by name."""
    data = list(calibration.split(BATCH))
    made: dict[str, Any] = {
        f"sta/{scale}": ann2snn.STATransformerRecipe(data, time_steps=T, mode="spiking_encoder", threshold_scale=scale)
        for scale in (1.0, 0.5)
    }
    return {**made, "td": ann2snn.TransformerTDEquivalentRecipe(time_steps=T)}


@torch.no_grad()
def main() -> None:
    """Converts, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("SNNC_DATA"))
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.add_argument("--weights", type=Path, required=True, help="folder of the trained networks")
    parser.add_argument("--images", type=int, default=1000, help="test images")
    parser.add_argument("--samples", type=int, default=512, help="training images that calibrate")
    parser.add_argument("--steps", default="1,2,4,8,16,32")
    args = parser.parse_args()
    calibration = images(args.data, "train")[0][: args.samples]
    test, labels = (part[: args.images] for part in images(args.data, "test"))
    net, gated = Vit(), Gated()
    for name, one in (("vit", net), ("gated", gated)):
        one.load_state_dict(torch.load(args.weights / f"{name}.pt", weights_only=True))
    twin = Twin(net.eval()).eval()
    torch.testing.assert_close(twin(test[:BATCH]), net(test[:BATCH]), rtol=1e-4, atol=1e-4)
    rows: list[dict[str, Any]] = []
    for name, one in (("vit", twin), ("gated", gated.eval())):
        ann = torch.cat([one(part) for part in test.split(BATCH)]).argmax(1)
        for T in map(int, args.steps.split(",")):
            for which, recipe in recipes(calibration, T).items():
                row: dict[str, Any] = {"net": name, "recipe": which, "T": T}
                try:
                    spiking = ann2snn.Converter(recipe=recipe).convert(one).eval()
                    functional.set_step_mode(spiking, "m")
                    found = torch.cat([read(spiking, part, T) for part in test.split(BATCH)]).argmax(1)
                    row["accuracy"] = 100 * float((found == labels).float().mean())
                    row["agreement"] = 100 * float((found == ann).float().mean())
                except (ValueError, TypeError, NotImplementedError, RuntimeError) as error:
                    row["refused"] = str(error).strip().splitlines()[0]
                rows.append(row)
                print(row, flush=True)
    versions = {name: metadata.version(name) for name in ("spikingjelly", "torch")}
    args.out.write_text(json.dumps({"versions": versions, "rows": rows}, indent=1) + "\n")


def read(spiking: Any, x: Tensor, T: int) -> Tensor:
    """The sum of the outputs of all steps, each fed with its share of the input."""
    functional.reset_net(spiking)
    total: Tensor = spiking((x / T).expand(T, *x.shape)).sum(0)
    return total


if __name__ == "__main__":
    main()
