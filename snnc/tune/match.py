"""Every layer against the original network: what a neuron's rate was meant to be."""

from __future__ import annotations

import torch
from torch import Tensor, fx
from torch.nn import functional

from snnc.ir.dialect import ACTIVATIONS, ClipQuant
from snnc.ir.graph import calls
from snnc.ir.neurons import IF
from snnc.tune.forward import Forward


def matched(graph: fx.GraphModule, teacher: fx.GraphModule) -> frozenset[str]:
    """Names of the neurons that stand where the original network has an activation: conversion keeps them."""
    activations = {node.name for node, _ in calls(teacher, *ACTIVATIONS, ClipQuant)}
    return frozenset(node.name for node, _ in calls(graph, IF, ClipQuant) if node.name in activations)


def seen(forward: Forward, x: Tensor, names: frozenset[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """The output for `x`, and the values `[B, ...]` of the nodes of these names: rates inside time."""
    found: dict[str, Tensor] = {}

    def see(node: fx.Node, value: Tensor) -> None:
        if node.name in names:  # `InTime` shows every step
            found[node.name] = value.unflatten(0, (-1, len(x))).mean(0) if len(value) > len(x) else value

    forward.see = see
    try:
        return forward.run(x), found
    finally:
        forward.see = None


def mismatch(rates: dict[str, Tensor], activations: dict[str, Tensor]) -> Tensor:
    """Mean over layers of the square error of rates, over the variance of the activation (Romero et al. 2015).

    A gradient that comes back through many coarse layers tells a layer little; this term tells each layer its own goal.
    """
    errors = [
        functional.mse_loss(rates[name].float(), wanted.float()) / wanted.float().var().clamp_min(1e-12)
        for name, wanted in activations.items()
    ]
    return torch.stack(errors).mean()
