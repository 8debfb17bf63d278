"""Constant errors of a current, taken out of the integers before it."""

from __future__ import annotations

from torch import Tensor, fx

from snnc.calibration import add_current, biased_layer
from snnc.dialect import Affine
from snnc.graph import module_of
from snnc.temporal import StepCurrent


def take_away(graph: fx.GraphModule, node: fx.Node, current: Tensor, units: Tensor) -> Tensor:
    """The current of a neuron layer less `units` `[C, 1, ...]`, integers that go into a bias or shift before it.

    Where there is none that this layer alone reads, nothing changes, and the same `current` comes back.
    """
    (source,) = node.all_input_nodes
    module = module_of(graph, source)
    if biased_layer(graph, source, units) is not None:
        add_current(graph, node, -units)
    elif isinstance(module, Affine | StepCurrent) and len(source.users) == 1:
        module.shift = module.shift - units.to(module.shift)
    else:
        return current
    return current - units.to(current)
