"""Thresholds into the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.calibrate.algebra import inputs_of, outputs_of, scale_inputs, scale_outputs
from snnc.ir.dialect import WEIGHTED, Affine, ClipQuant
from snnc.ir.graph import Stage, calls, insert, module_of
from snnc.passes.pipeline import Context, Pass


@dataclass(frozen=True)
class NormalizeThresholds(Pass):
    """Moves every bound into the weights around it, so that each becomes 1 and each spike has height 1.

    The same network: "threshold scaling" and "weight normalisation" are one method in two notations. A factor
    that no layer can take (a residual join, a pool on the way) stays as an `Affine`.
    """

    name = "normalize-thresholds"
    takes = (Stage.QUANTIZED,)
    exact = True
    uses = (Context.ceilings,)
    provides = (Context.ceilings,)  # in the unit that is then
    spoils = (Context.statistics,)
    changes_units = "currents"
    source = "weight normalisation: Diehl et al. 2015; equivalence: Bu et al., AAAI 2022 (arXiv 2202.01440)"

    def apply(self, graph: fx.GraphModule, context: Context) -> int:
        sites, ceilings = 0, dict(context.ceilings)
        for node, module in calls(graph, ClipQuant):
            lam = module.lam.clone()
            divide_before(graph, node, lam)
            multiply_behind(graph, node, lam)
            module.lam = torch.ones_like(lam)
            if node.name in ceilings:
                ceilings[node.name] = ceilings[node.name] / lam
            sites += 1
        context.ceilings = ceilings
        return sites


def _takes(layer: Any, lam: Tensor) -> bool:
    """Whether a factor of this shape can go into a layer: a linear one counts along the last dimension only."""
    return isinstance(layer, WEIGHTED) and (not isinstance(layer, nn.Linear) or lam.numel() == 1 or lam.dim() == 1)


def _vector(lam: Tensor, size: int) -> Tensor:
    return lam.flatten().expand(size) if lam.numel() == 1 else lam.flatten()


def divide_before(graph: fx.GraphModule, node: fx.Node, lam: Tensor) -> None:
    """Divides what a node reads by `lam`, shape as a bound: in the weights of the layer before it where that can."""
    source = node.all_input_nodes[0]
    layer = module_of(graph, source) if source.op == "call_module" else None
    if _takes(layer, lam) and len(source.users) == 1:
        scale = _vector(1 / lam, outputs_of(layer))
        scale_outputs(layer, scale, torch.zeros_like(scale))
        return
    factor = insert(graph, f"{node.name}_unit", Affine(1 / lam, torch.zeros_like(lam)), source)
    node.replace_input_with(source, factor)


def multiply_behind(graph: fx.GraphModule, node: fx.Node, lam: Tensor) -> None:
    """Multiplies what others read of a node's value by `lam`, shape as a bound: in their weights where all can."""
    users = list(node.users)
    layers: list[Any] = [module_of(graph, user) if user.op == "call_module" else None for user in users]
    if all(_takes(layer, lam) for layer in layers):
        for layer in layers:
            scale_inputs(layer, _vector(lam, inputs_of(layer)))
        return
    factor = insert(graph, f"{node.name}_height", Affine(lam, torch.zeros_like(lam)), node)
    for user in users:
        user.replace_input_with(node, factor)
