"""How much a network's output depends on each position of each value inside it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, fx

from snnc.calibrate.observe import watch

SAMPLES = 64  # that gradients are taken of


def relevance(graph: fx.GraphModule, x: Tensor, seed: int) -> Mapping[str, Tensor]:
    """Mean square gradient of the output by each value in a graph, `[...]` without the batch, by the node's name.

    The gradient is that of the output's sum with random signs, so in the mean over draws its square is that of all
    entries of the output together. Values that the output does not depend on, or not smoothly, are left out.

    Args:
        graph: a network without time.
        x: samples `[N, ...]`, of which the first `SAMPLES` are used.
        seed: of the signs.
    """
    values: dict[str, Tensor] = {}
    with torch.enable_grad():
        given = x[:SAMPLES].clone().requires_grad_(True)

        def see(node: fx.Node, value: Tensor) -> None:
            if node.op == "call_module" and value.requires_grad:
                values[node.name] = value

        output = watch(graph, given, see, gradients=True)
        signs = torch.randint(0, 2, output.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        found = torch.autograd.grad((output * signs.to(output)).sum(), list(values.values()), allow_unused=True)
    return {
        name: gradient.detach().square().mean(0)
        for name, gradient in zip(values, found, strict=True)
        if gradient is not None
    }


def counts(relevant: Tensor | None, last: bool) -> Tensor | None:
    """How much each position counts, mean 1, `[...]` without channels; None where that is unknown, or there is one.

    Args:
        relevant: what `relevance` gives for a value.
        last: channels are the last dimension, not the first.
    """
    if relevant is None or relevant.dim() < 2:
        return None
    found = relevant.mean(-1 if last else 0)
    mean = found.mean()
    return found / mean if bool(torch.isfinite(found).all()) and float(mean) > 0 else None
