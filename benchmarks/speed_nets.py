"""The networks of `speed.py`, in plain torch, so that peers build the same ones in an environment of their own.

Their weights are random: what dense kernels cost does not depend on them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1, self.relu1 = nn.BatchNorm2d(outputs), nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2, self.relu2 = nn.BatchNorm2d(outputs), nn.ReLU()
        self.short: nn.Module = nn.Identity()
        if stride > 1:
            self.short = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(y + self.short(x))


def resnet20() -> nn.Module:
    """ResNet-20 for 32 x 32 images, with convolutions as shortcuts where sizes change."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    inputs = 16
    for outputs in (16, 32, 64):
        for block in range(3):
            layers.append(Block(inputs, outputs, 2 if block == 0 and outputs > 16 else 1))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def vgg16() -> nn.Module:
    """VGG-16 for 32 x 32 images, with average pools, which every simulator has."""
    layers: list[nn.Module] = []
    inputs = 3
    for outputs, repeat in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(repeat):
            layers += [nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
            inputs = outputs
        layers.append(nn.AvgPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10))


def resnet18() -> nn.Module:
    """ResNet-18 for 224 x 224 images, with an average pool behind its first layer, which every simulator has."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers.append(nn.AvgPool2d(3, 2, 1))
    inputs = 64
    for outputs in (64, 128, 256, 512):
        for block in range(2):
            layers.append(Block(inputs, outputs, 2 if block == 0 and outputs > 64 else 1))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


SIZE = {"resnet20": 32, "vgg16": 32, "resnet18": 224}


def build(name: str) -> nn.Module:
    """A network by name, the same one in every process."""
    torch.manual_seed(0)
    return {"resnet20": resnet20, "vgg16": vgg16, "resnet18": resnet18}[name]().eval()


def images(name: str, batch: int) -> Tensor:
    """Random images of the size that a network takes."""
    return torch.randn(batch, 3, SIZE[name], SIZE[name], generator=torch.Generator().manual_seed(batch))


def peak() -> float:
    """Most memory that this process has held, in MB. (`getrusage` would give its parent's, where that was larger.)"""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000
