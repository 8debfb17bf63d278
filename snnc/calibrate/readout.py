"""A linear layer whose largest output counts: fitted to classes as well as to scores."""

from __future__ import annotations

import torch
from torch import Tensor, nn

ROUNDS = 60  # of the search, at most


def by_classes(layer: nn.Linear, x: Tensor, scores: Tensor, pull: float) -> None:
    """Moves weights and bias to where the layer's classes, and its values, are those of `scores`. In place.

    Minimises `mean KL(softmax(z), softmax(y)) + mean |y - z|^2 / variance of z + pull * variance of x |W - W_before|^2`
    with y = W x + b and z the scores. The second term keeps values right, which may not be class scores after all. The
    problem is convex, and is solved in float64 by L-BFGS.

    Args:
        layer: where the search starts from.
        x: its input `[N, inputs]`.
        scores: `[N, classes]`, two classes or more.
        pull: strength of the pull to the old weights.
    """
    x, scores = x.double(), scores.double()
    right, unit = scores.softmax(1), scores.var(0, unbiased=False).mean().clamp_min(1e-30)
    mean, spread = x.mean(0), x.var(0, unbiased=False).mean().sqrt().clamp_min(1e-30)
    given = (x - mean) / spread
    held = layer.weight.detach().double()
    old = held.new_zeros(len(held)) if layer.bias is None else layer.bias.detach().double()
    before = nn.functional.linear(x, held, old)
    with torch.enable_grad():
        weight = torch.zeros_like(layer.weight, dtype=torch.float64).requires_grad_(True)
        bias = torch.zeros(len(weight), dtype=torch.float64, device=weight.device).requires_grad_(True)
        search = torch.optim.LBFGS([weight, bias], max_iter=ROUNDS, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            search.zero_grad()
            found = before + nn.functional.linear(given, weight, bias)
            value = pull * weight.square().sum() - (right * found.log_softmax(1)).sum(1).mean()
            value = value + (found - scores).square().mean() / unit
            value.backward()
            return value

        search.step(loss)
    moved = weight.detach() / spread
    shift = bias.detach() - moved @ mean
    if not (torch.isfinite(moved).all() and torch.isfinite(shift).all()):
        return
    layer.weight, layer.bias = (
        nn.Parameter(value.to(layer.weight), requires_grad=False) for value in (held + moved, old + shift)
    )
