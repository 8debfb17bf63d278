"""What is trained: weights, biases, bounds, thresholds and initial potentials, opened for training and closed again."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.ir.dialect import Affine, ClipQuant
from snnc.ir.graph import calls
from snnc.ir.neurons import IF

# Buffers that training moves, by module. The first of a bound's names must stay above zero.
MOVED: dict[type[nn.Module], tuple[str, ...]] = {ClipQuant: ("lam",), IF: ("theta", "v0"), Affine: ("scale", "shift")}
BOUNDS = ("lam", "theta", "v0")
POSITIVE = ("lam", "theta")
LEAST = 1e-2  # of its first value; a bound at zero would divide by zero, and never come back


def opened(graph: fx.GraphModule) -> fx.GraphModule:
    """A copy whose weights, biases, bounds and potentials are parameters with a gradient, under their old names."""
    graph = copy.deepcopy(graph)
    for _, module in calls(graph):
        for name in MOVED.get(type(module), ()):
            value = module._buffers.pop(name)
            module.register_parameter(name, nn.Parameter(value.detach().clone()))
    return graph.requires_grad_(True)


def closed(graph: fx.GraphModule) -> fx.GraphModule:
    """A copy of an opened graph as the dialect has it: bounds and potentials are buffers, nothing has a gradient."""
    graph = copy.deepcopy(graph)
    for _, module in calls(graph):
        for name in MOVED.get(type(module), ()):
            value = module._parameters.pop(name)
            module.register_buffer(name, value.detach().clone())
    return graph.requires_grad_(False).eval()


def groups(graph: fx.GraphModule, weight_decay: float, decay_bounds: bool, bound_lr: float) -> list[dict[str, Any]]:
    """Parameter groups of an optimiser: weights; biases and affines (never decayed); bounds and potentials.

    Each has a `factor` for its learning rate.
    """
    kinds: dict[str, list[Tensor]] = {"weight": [], "bias": [], "bound": []}
    for name, value in graph.named_parameters():
        last = name.rpartition(".")[2]
        kinds["bound" if last in BOUNDS else "weight" if last == "weight" else "bias"].append(value)
    decay = {"weight": weight_decay, "bias": 0.0, "bound": weight_decay if decay_bounds else 0.0}
    factor = {"weight": 1.0, "bias": 1.0, "bound": bound_lr}
    return [
        {"params": values, "weight_decay": decay[kind], "factor": factor[kind]}
        for kind, values in kinds.items()
        if values
    ]


class RoundDown:
    """Keeps bounds and thresholds above a hundredth of what they started from."""

    def __init__(self, graph: fx.GraphModule) -> None:
        named = graph.named_parameters()
        self.least = [(v, v.detach().abs() * LEAST) for n, v in named if n.rpartition(".")[2] in POSITIVE]

    @torch.no_grad()
    def __call__(self) -> None:
        for value, least in self.least:
            torch.maximum(value, least, out=value)
