"""Least squares for the weights of one layer."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def refit(layer: Any, x: Tensor, wanted: Tensor, ridge: float, positions: int, generator: torch.Generator) -> bool:
    """Moves weights and bias of a layer to those of least squares, `layer(x)` to `wanted`. In place.

    Minimises `mean |W x + b - wanted|^2 + strength |W - W0|^2`, with W0 the weights that it had and `strength` the
    mean variance of an input times `ridge + inputs / rows`: few data move little.

    Args:
        layer: convolution (1d, 2d; grouped too) or linear layer.
        x: its input `[N, C, ...]`.
        wanted: `[N, outputs, ...]`.
        ridge: strength of the pull to the old weights, relative to the variance of an input.
        positions: rows of the regression that are drawn, over all samples.
        generator: of the draw.

    Returns:
        False where the kind of layer is not covered, and nothing was done.
    """
    drawn = equations(layer, x, wanted, positions, generator)
    if drawn is None:
        return False
    X, Y = drawn  # [R, groups, inputs], [R, groups, outputs]
    weight = layer.weight.double().reshape(X.shape[1], Y.shape[2], X.shape[2])
    mean_x, mean_y = X.mean(0), Y.mean(0)
    X, Y = X - mean_x, Y - mean_y
    if X.shape[2] > len(X):  # more unknowns than equations: the same solution from a system of the rows
        return _dual(layer, X, Y, weight, mean_x, mean_y, ridge)
    gram = torch.einsum("rgi,rgj->gij", X, X).double() / len(X)
    cross = torch.einsum("rgi,rgo->gio", X, Y).double() / len(X)
    variance = gram.diagonal(dim1=-2, dim2=-1).mean(-1)
    strength = variance * (ridge + X.shape[2] / len(X))
    missing = cross - gram @ weight.transpose(1, 2)
    # A group that never varies tells nothing: an identity instead of zeros leaves its weights alone.
    pull = torch.where(strength > 0, strength, torch.ones_like(strength))
    change = torch.linalg.solve(gram + pull[:, None, None] * torch.eye(gram.shape[-1], dtype=gram.dtype), missing)
    return _store(layer, weight + change.transpose(1, 2), mean_x, mean_y)


def _dual(layer: Any, X: Tensor, Y: Tensor, weight: Tensor, mean_x: Tensor, mean_y: Tensor, ridge: float) -> bool:
    """`refit` by `change = X^T (X X^T + rows * strength)^-1 missing`, for centred rows fewer than inputs."""
    rows, groups, inputs = X.shape
    variance = X.double().square().mean((0, 2))
    pull = rows * variance * (ridge + inputs / rows)
    pull = torch.where(pull > 0, pull, torch.ones_like(pull))
    missing = torch.stack([Y[:, g] - X[:, g] @ weight[g].T.to(X) for g in range(groups)]).double()
    kernel = torch.einsum("rgi,sgi->grs", X, X).double() + pull[:, None, None] * torch.eye(rows, dtype=torch.float64)
    solved = torch.linalg.solve(kernel, missing)
    change = torch.einsum("rgi,gro->goi", X, solved.to(X)).double()
    return _store(layer, weight + change, mean_x, mean_y)


def _store(layer: Any, weight: Tensor, mean_x: Tensor, mean_y: Tensor) -> bool:
    bias = mean_y.double() - (weight @ mean_x.double()[:, :, None])[:, :, 0]
    if not (torch.isfinite(weight).all() and torch.isfinite(bias).all()):
        return False
    layer.weight = torch.nn.Parameter(weight.reshape(layer.weight.shape).to(layer.weight), requires_grad=False)
    layer.bias = torch.nn.Parameter(bias.flatten().to(layer.weight), requires_grad=False)
    return True


def equations(
    layer: Any, x: Tensor, wanted: Tensor, positions: int, generator: torch.Generator
) -> tuple[Tensor, Tensor] | None:
    """Rows of a regression, `[R, groups, inputs]` and `[R, groups, outputs]`; None for a layer that is not covered."""
    if isinstance(layer, torch.nn.Linear):
        x, wanted = x.reshape(-1, 1, x.shape[-1]), wanted.reshape(-1, 1, wanted.shape[-1])
        at = torch.randperm(len(x), generator=generator)[:positions].to(x.device) if len(x) > positions else slice(None)
        return x[at], wanted[at]
    if not isinstance(layer, torch.nn.Conv1d | torch.nn.Conv2d) or layer.padding_mode != "zeros":
        return None
    if layer.padding == "same":
        return None
    two = [tuple(getattr(layer, name)) for name in ("kernel_size", "dilation", "padding", "stride")]
    if layer.padding == "valid":
        two[2] = (0,) * len(two[0])
    if isinstance(layer, torch.nn.Conv1d):
        x, wanted = x[:, :, None], wanted[:, :, None]
        two = [(rest, *pair) for rest, pair in zip((1, 1, 0, 1), two, strict=True)]
    sites = math.prod(wanted.shape[2:])
    each = max(1, min(sites, positions // len(x)))
    rows, targets = [], []
    for part, goal in zip(x.split(64), wanted.split(64), strict=True):
        at = torch.rand(len(part), sites, generator=generator).argsort(1)[:, None, :each].to(part.device)
        patches = torch.nn.functional.unfold(part, *two)
        rows.append(patches.gather(2, at.expand(-1, patches.shape[1], -1)).transpose(1, 2).flatten(0, 1))
        flat = goal.flatten(2)
        targets.append(flat.gather(2, at.expand(-1, flat.shape[1], -1)).transpose(1, 2).flatten(0, 1))
    groups = layer.groups
    X, Y = torch.cat(rows), torch.cat(targets)
    return X.reshape(len(X), groups, -1), Y.reshape(len(Y), groups, -1)
