"""Single outputs of a layer with all that they are computed from, at each step: rows of a regression.

A layer has far more outputs than a fit needs. So a few positions are drawn for each sample, and what a fit does again
and again, it does for these alone.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from snnc.calibrate.holding import size_of
from snnc.processes import Pieces, Shards


def covered(layer: Any) -> bool:
    """Whether `patches` knows what an output of a layer is computed from."""
    if isinstance(layer, torch.nn.Linear):
        return True
    known = isinstance(layer, torch.nn.Conv1d | torch.nn.Conv2d)
    return known and layer.padding_mode == "zeros" and layer.padding != "same"


def positions(value: Pieces, shards: Shards, rows: int, generator: torch.Generator) -> Pieces:
    """Positions of `[N, C, ...]` for each sample, `[N, each]`, so that all together they are about `rows`.

    Random numbers do not depend on which shards are in this process: the generator moves on for all of them.
    """
    sites = math.prod(size_of(value)[2:])
    each = max(1, min(sites, rows // shards.samples))
    draws = {i: torch.rand(size, sites, generator=generator) for i, size in enumerate(shards.sizes)}
    return {i: draws[i].argsort(1)[:, :each] for i in value}


def outputs(value: Tensor, at: Tensor) -> Tensor:
    """Values `[M, C, ...]` at positions `[N, each]`: `[M * each, C]`. M is N, or N times the steps."""
    at = at.repeat(len(value) // len(at), 1)
    flat = value.reshape(*value.shape[:2], -1)
    return flat.gather(2, at[:, None].expand(-1, flat.shape[1], -1)).transpose(1, 2).flatten(0, 1)


def patches(layer: Any, x: Tensor, at: Tensor) -> Tensor:
    """What a layer computes its outputs at positions `[N, each]` from: `[M * each, groups, inputs]`, as its weights."""
    if isinstance(layer, torch.nn.Linear):
        return x[:, None]
    size, gap, pad, stride = (getattr(layer, name) for name in ("kernel_size", "dilation", "padding", "stride"))
    if pad == "valid":
        pad = (0,) * len(size)
    if isinstance(layer, torch.nn.Conv1d):
        x = x[:, :, None]
        size, gap, pad, stride = (1, *size), (1, *gap), (0, *pad), (1, *stride)
    x = functional.pad(x, (pad[1], pad[1], pad[0], pad[0]))
    height, width = x.shape[2:]
    across = (width - gap[1] * (size[1] - 1) - 1) // stride[1] + 1
    flat = x.permute(0, 2, 3, 1).reshape(len(x), height * width, -1)
    at = at.repeat(len(x) // len(at), 1)
    corner = (at // across) * stride[0] * width + (at % across) * stride[1]
    sample = torch.arange(len(x), device=x.device)[:, None]
    taps = [flat[sample, corner + i * gap[0] * width + j * gap[1]] for i in range(size[0]) for j in range(size[1])]
    return torch.stack(taps, -1).reshape(at.numel(), layer.groups, -1)
