"""Least squares for the weights of one layer."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from snnc.calibrate.holding import size_of
from snnc.calibrate.rows import covered, outputs, patches, positions
from snnc.processes import Pieces, Shards, dealt

# Of a regression, by shard: inputs [R, groups, inputs], outputs [R, groups, outputs], and what a row counts [R, 1, 1].
Rows = dict[int, tuple[Tensor, Tensor, Tensor]]


def refit(
    layer: Any,
    x: Pieces,
    wanted: Pieces,
    shards: Shards,
    ridge: float,
    count: int,
    generator: torch.Generator,
    counts: Tensor | None = None,
) -> bool:
    """Moves weights and bias of a layer to those of least squares, `layer(x)` to `wanted`. In place.

    Minimises `mean |W x + b - wanted|^2 + strength |W - W0|^2`, with W0 the weights that it had and `strength` the
    mean variance of an input times `ridge + inputs / rows`: few data move little.

    Args:
        layer: convolution (1d, 2d; grouped too) or linear layer.
        x: its input `[N, C, ...]`.
        wanted: `[N, outputs, ...]`.
        shards: how both are cut.
        ridge: strength of the pull to the old weights, relative to the variance of an input.
        count: rows of the regression that are drawn, over all samples.
        generator: of the draw.
        counts: how much each position of a sample counts, mean 1, `[...]` without channels; None: all alike.

    Returns:
        False where the kind of layer is not covered, and nothing was done.
    """
    drawn = equations(layer, x, wanted, shards, count, generator, counts)
    if drawn is None:
        return False
    rows, mean_x, mean_y = centred(drawn, shards)
    (squares,) = shards.total(lambda i: (drawn[i][0].double().square().sum((0, 2)),))
    X, Y, _ = next(iter(drawn.values()))
    groups, inputs = X.shape[1:]
    weight = layer.weight.double().reshape(groups, Y.shape[2], inputs)
    strength = squares / (rows * inputs) * (ridge + inputs / rows)
    # A group that never varies says nothing about its weights: a number above zero leaves them alone.
    pull = torch.where(strength > 0, strength, torch.ones_like(strength))
    if inputs > rows:  # more unknowns than equations: the same solution from a system of the rows
        every = list(dealt(len(shards.sizes), lambda i: drawn[i]))
        X, Y, _ = (torch.cat(part) for part in zip(*every, strict=True))
        return _dual(layer, X, Y, weight, mean_x, mean_y, rows * pull)
    gram, cross = shards.total(lambda i: (_product(drawn[i][0], drawn[i][0]), _product(*drawn[i][:2])))
    gram, cross = gram.div_(rows), cross.div_(rows)
    change = solved(gram, pull, cross - gram @ weight.transpose(1, 2))
    return _store(layer, weight + change.transpose(1, 2), mean_x, mean_y)


def solved(gram: Tensor, pull: Tensor, missing: Tensor) -> Tensor:
    """`(gram + pull 1)^-1 missing` of each group."""
    system = gram.clone()  # by far the largest thing that a wide layer needs, so there is one copy of it
    system.diagonal(dim1=-2, dim2=-1).add_(pull[:, None])
    return torch.linalg.solve(system, missing)


def centred(drawn: Rows, shards: Shards) -> tuple[float, Tensor, Tensor]:
    """Takes the mean over all rows out of rows, in place; gives their number and both means, in float64.

    A row that counts w stands for w rows: it is multiplied by the root of w.
    """

    def sums(i: int) -> tuple[Tensor, ...]:
        X, Y, w = drawn[i]
        return w.double().sum(), (X * w).double().sum(0), (Y * w).double().sum(0)

    rows, mean_x, mean_y = shards.total(sums)
    mean_x, mean_y = mean_x / rows, mean_y / rows
    for i, (X, Y, w) in drawn.items():
        root = w.sqrt()
        drawn[i] = (X - mean_x.to(X)) * root, (Y - mean_y.to(Y)) * root, w
    return float(rows), mean_x, mean_y


def _product(X: Tensor, Y: Tensor) -> Tensor:
    return torch.einsum("rgi,rgj->gij", X, Y).double()


def covariance(drawn: Rows, shards: Shards) -> Tensor:
    """Covariance `[groups, inputs, inputs]` of the inputs of rows, which are centred. In place."""
    rows, _, _ = centred(drawn, shards)
    (gram,) = shards.total(lambda i: (_product(drawn[i][0], drawn[i][0]),))
    return gram / rows


def _dual(layer: Any, X: Tensor, Y: Tensor, weight: Tensor, mean_x: Tensor, mean_y: Tensor, pull: Tensor) -> bool:
    """`refit` by `change = X^T (X X^T + pull)^-1 missing`, for centred rows fewer than inputs."""
    groups = X.shape[1]
    missing = torch.stack([Y[:, g] - X[:, g] @ weight[g].T.to(X) for g in range(groups)]).double()
    kernel = torch.einsum("rgi,sgi->grs", X, X).double()
    change = torch.einsum("rgi,gro->goi", X, solved(kernel, pull, missing).to(X)).double()
    return _store(layer, weight + change, mean_x, mean_y)


def _store(layer: Any, weight: Tensor, mean_x: Tensor, mean_y: Tensor) -> bool:
    bias = mean_y.double() - (weight @ mean_x.double()[:, :, None])[:, :, 0]
    if not (torch.isfinite(weight).all() and torch.isfinite(bias).all()):
        return False
    layer.weight = torch.nn.Parameter(weight.reshape(layer.weight.shape).to(layer.weight), requires_grad=False)
    layer.bias = torch.nn.Parameter(bias.flatten().to(layer.weight), requires_grad=False)
    return True


def equations(
    layer: Any,
    x: Pieces,
    wanted: Pieces,
    shards: Shards,
    count: int,
    generator: torch.Generator,
    counts: Tensor | None = None,
) -> Rows | None:
    """Rows of a regression, from the shards of this process; None for a layer that is not covered.

    Random numbers do not depend on which shards these are: the generator moves on for all shards.
    """
    if isinstance(layer, torch.nn.Linear):
        return _vectors(x, wanted, shards, count, generator, counts)
    if not covered(layer):
        return None
    at = positions(wanted, shards, count, generator)
    sites = math.prod(size_of(wanted)[2:])
    rows: Rows = {}
    for i, value in x.items():
        Y, w = outputs(wanted[i], at[i]), _counted(counts, sites, value)[at[i].flatten()]
        rows[i] = patches(layer, value, at[i]), Y.reshape(len(Y), layer.groups, -1), w
    return rows


def _vectors(
    x: Pieces, wanted: Pieces, shards: Shards, count: int, generator: torch.Generator, counts: Tensor | None
) -> Rows:
    """Rows for a linear layer: every vector, or as many as were asked for, drawn over all shards."""
    first = next(iter(x))
    each = math.prod(size_of(x)[:-1]) // shards.sizes[first]  # vectors of one sample
    total = each * shards.samples
    drawn = torch.randperm(total, generator=generator)[:count] if total > count else torch.arange(total)
    rows: Rows = {}
    for i, value in x.items():
        start, size = each * sum(shards.sizes[:i]), each * shards.sizes[i]
        at = (drawn[(drawn >= start) & (drawn < start + size)] - start).to(value.device)
        X, Y = (v.reshape(-1, 1, v.shape[-1])[at] for v in (value, wanted[i]))
        rows[i] = X, Y, _counted(counts, each, value)[at % each]
    return rows


def _counted(counts: Tensor | None, positions: int, like: Tensor) -> Tensor:
    """What rows from each position of a sample count, `[positions, 1, 1]`."""
    given = torch.ones(positions) if counts is None else counts
    return given.reshape(positions, 1, 1).to(like)
