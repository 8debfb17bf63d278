"""Grids of least error, and weights rounded one after the other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from snnc.ir.dialect import TRANSPOSED

FITS = tuple(1 - 0.02 * i for i in range(31))  # shares of the grid that holds the largest weight, tried as grids
WIDEST = 2048  # inputs of a layer beyond which the matrix of its inputs is not worth its size
DAMPING = 0.01
NEAR = tuple(0.8 + 0.05 * i for i in range(9))  # shares of a grid, tried around it


def rows_of(layer: Any, weight: Tensor) -> Tensor:
    """Weights as `[groups, outputs, inputs, k]`."""
    groups = getattr(layer, "groups", 1)
    if isinstance(layer, TRANSPOSED):
        return weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1).transpose(1, 2)
    return weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)


def back(layer: Any, rows: Tensor) -> Tensor:
    """Weights in the layer's own shape, from `rows_of`."""
    return (rows.transpose(1, 2) if isinstance(layer, TRANSPOSED) else rows).reshape(layer.weight.shape)


def scaled(layer: Any, inputs: Tensor) -> Tensor:
    """Weights `[groups, outputs, inputs, k]` for an input that is integers times `inputs` `[inputs of the layer]`."""
    rows = rows_of(layer, layer.weight.double())
    return rows * inputs.double().reshape(rows.shape[0], 1, rows.shape[2], 1)


def best_grid(members: list[tuple[Tensor, Tensor, int]], fits: tuple[float, ...] = FITS) -> Tensor:
    """The grid `[outputs]` on which some populations of weights lie with the least square error.

    Args:
        members: weights `[outputs, n]`, how much the square error of each counts (broadcastable), and the largest
            integer that one may become.
        fits: shares of the grid that clips nothing.
    """
    full = torch.stack([w.abs().amax(1) / most for w, _, most in members]).amax(0)
    full = torch.where(full > 0, full, torch.full_like(full, float(full.max()) or 1.0))
    least, best = torch.full_like(full, float("inf")), full
    for fit in fits:
        grid = full * fit
        error = torch.zeros_like(full)
        for w, counts, most in members:
            q = (w / grid[:, None]).round().clamp(-most, most)
            error = error + ((w - q * grid[:, None]).square() * counts).sum(1)
        better = error < least
        least, best = torch.where(better, error, least), torch.where(better, grid, best)
    return best


def nearest(weights: Tensor, grid: Tensor, most: int, gram: Tensor) -> Tensor:
    """The grid `[groups * outputs]` near another on which a layer's output has the least square error, once rounded.

    Args:
        weights: `[groups, outputs, n]`.
        grid: `[groups * outputs]`.
        most: largest integer.
        gram: covariance of the layer's inputs `[groups, n, n]`.
    """
    groups, outputs, n = weights.shape
    tried = grid.reshape(groups, 1, outputs, 1) * torch.tensor(NEAR, dtype=grid.dtype)[:, None, None]
    whole = rounded((weights[:, None] / tried).flatten(1, 2), most, gram).reshape(groups, len(NEAR), outputs, n)
    error = weights[:, None] - whole * tried
    seen = ((error @ _damped(gram)[:, None]) * error).sum(3)
    return tried[..., 0].gather(1, seen.argmin(1)[:, None]).flatten()


def rounded(target: Tensor, most: int, gram: Tensor | None = None) -> Tensor:
    """Integers for weights `[groups, outputs, n]` in units of their grid.

    With `gram` `[groups, n, n]`, the covariance of the layer's inputs, weights are rounded one after the other, and
    those that are left make up for the error so far: of all the errors that one may make, the layer's output sees
    those least that its inputs never show. Without it each is rounded by itself.

    Source: optimal brain quantisation in the order and form of GPTQ (Frantar et al., ICLR 2023, arXiv 2210.17323),
    the columns with the largest variance first.
    """
    if gram is None:
        return target.round().clamp(-most, most)
    result = torch.empty_like(target)
    for group, (weights, cov) in enumerate(zip(target, _damped(gram.to(target)), strict=True)):
        order = cov.diagonal().argsort(descending=True)
        w, h = weights[:, order].clone(), cov[order][:, order]
        upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
        for i in range(len(h)):
            whole = w[:, i].round().clamp(-most, most)
            error = (w[:, i] - whole) / upper[i, i]
            w[:, i + 1 :] -= error[:, None] * upper[i, i + 1 :]
            result[group, :, order[i]] = whole
    return result


def _damped(gram: Tensor) -> Tensor:
    """A covariance in which every input varies."""
    mean = gram.diagonal(dim1=1, dim2=2).mean(1)
    pull: Tensor = (DAMPING * mean).clamp_min(1e-12)[:, None, None] * torch.eye(gram.shape[1], dtype=gram.dtype)
    return gram + pull
