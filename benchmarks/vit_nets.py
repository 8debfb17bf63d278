"""The vision transformer and the gated CNN of `vit.py` and `vit_peer.py`, their training and their images."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Vit(nn.Module):
    """Blocks with normalisation in front."""

    def __init__(self, width: int = 48, depth: int = 3, heads: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 7, 7)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.place = nn.Parameter(torch.randn(1, 17, width) * 0.1)
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place
        return self.head(self.blocks(x)[:, 0])


class Gated(nn.Module):
    """Inverted bottlenecks with squeeze-and-excitation."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(Bottleneck(width, F.silu), nn.AvgPool2d(2), Bottleneck(width, F.hardswish))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.norm(self.stem(x)))
        return self.head(self.blocks(x).mean((2, 3)))


class Bottleneck(nn.Module):
    """Wide, depthwise, gated, narrow, and the input added."""

    def __init__(self, width: int, act: Any) -> None:
        super().__init__()
        wide = 4 * width
        self.up, self.n1 = nn.Conv2d(width, wide, 1, bias=False), nn.BatchNorm2d(wide)
        self.deep, self.n2 = nn.Conv2d(wide, wide, 3, 1, 1, groups=wide, bias=False), nn.BatchNorm2d(wide)
        self.less, self.more = nn.Conv2d(wide, wide // 4, 1), nn.Conv2d(wide // 4, wide, 1)
        self.down, self.n3 = nn.Conv2d(wide, width, 1, bias=False), nn.BatchNorm2d(width)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.n2(self.deep(self.act(self.n1(self.up(x))))))
        gate = F.hardsigmoid(self.more(F.relu(self.less(y.mean((2, 3), keepdim=True)))))
        return x + self.n3(self.down(y * gate))


def train(net: nn.Module, x: Tensor, y: Tensor, epochs: int) -> nn.Module:
    """AdamW with one cycle of the learning rate."""
    steps = epochs * (len(x) // 200)
    optimiser = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, steps, pct_start=0.2)
    net.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(200):
            if len(rows) < 200:
                continue
            loss = F.cross_entropy(net(x[rows]), y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return net.eval()


def images(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    """MNIST's "train" or "test" images `[N, 1, 28, 28]`, pixels over 255, and their labels."""
    spec = importlib.util.spec_from_file_location("data_common", folder / "common.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"{folder} has no common.py.")
    common = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(common)
    pixels, labels = common.load_idx("mnist", part)
    return torch.tensor(pixels).float().reshape(-1, 1, 28, 28) / 255, torch.tensor(labels).long()


def trained(name: str, weights: Path | None, x: Tensor, y: Tensor, epochs: int) -> nn.Module:
    """A network, from its file in `weights` where there is one; trained, and written there, where there is none."""
    net = {"vit": Vit, "gated": Gated}[name]()
    file = weights / f"{name}.pt" if weights else None
    if file and file.exists():
        net.load_state_dict(torch.load(file, weights_only=True))
        return net.eval()
    train(net, x, y, epochs)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(net.state_dict(), file)
    return net


NETS = ("vit", "gated")
