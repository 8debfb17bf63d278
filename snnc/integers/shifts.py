"""Constant errors of a current, taken out of the integers before it."""

from __future__ import annotations

from torch import Tensor, fx

from snnc.calibrate.sweep import add_current, biased_layer
from snnc.ir.dialect import Affine
from snnc.ir.graph import module_of
from snnc.ir.temporal import StepCurrent


def take_away(graph: fx.GraphModule, node: fx.Node, units: Tensor) -> bool:
    """Takes `units` `[C, 1, ...]` out of the current of a neuron layer: integers, by a bias or shift before it.

    Where there is none that this layer alone reads, nothing changes, and it gives False.
    """
    (source,) = node.all_input_nodes
    module = module_of(graph, source)
    if biased_layer(graph, source, units) is not None:
        add_current(graph, node, -units)
    elif isinstance(module, Affine | StepCurrent) and len(source.users) == 1:
        module.shift = module.shift - units.to(module.shift)
    else:
        return False
    return True
