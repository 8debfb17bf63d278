"""What the passes that choose neurons share."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, fx

from snnc.errors import SnncError
from snnc.ir.graph import calls, replace
from snnc.ir.neurons import BipolarIF, Neuron
from snnc.ir.temporal import Decode, Encode, Frames, Restart, StepCurrent, Telescoped, Temporal, TemporalMax


def swap_neurons(graph: fx.GraphModule, make: Callable[[fx.Node, Tensor, Tensor], Neuron]) -> int:
    """Replaces every neuron but encoders by `make(node, theta, v0)`; gives their number.

    An encoder emits values of either sign, which no other neuron does.

    theta and v0 are those of a binary neuron, so the last pass that chooses decides, whatever was there before.
    """
    neurons = [(node, neuron) for node, neuron in calls(graph, Neuron) if not encodes(neuron)]
    if units := [node.name for node, neuron in neurons if neuron.unit]:
        raise SnncError(
            f"the spikes of '{units[0]}' are counts: the weights behind it hold its threshold.",
            "this pass before fixed-point",
        )
    for node, neuron in neurons:
        replace(graph, node, make(node, *neuron.binary()))
    return len(neurons)


def encodes(neuron: Neuron) -> bool:
    """Whether a neuron encodes values of either sign, and stands for no activation."""
    return isinstance(neuron, BipolarIF) and not neuron.rectified


def set_time(graph: fx.GraphModule, T: int, tau: int = 0) -> None:
    """Makes everything in time simulate `T` steps. Readouts skip the first `tau` of them, which are a first pass.

    Raises:
        SnncError: currents of single steps (`StepCurrent`) were found for another number of steps.
    """
    for node, module in calls(graph, StepCurrent):
        if module.T != T:
            raise SnncError(
                f"the currents of single steps at '{node.name}' hold for T = {module.T} steps, not {T}.",
                "this pass before even-currents, or --set even-currents.gain=0",
            )
    for node, _ in calls(graph, BipolarIF):
        if tau:
            raise SnncError(
                f"'{node.name}' (BipolarIF) follows its input from the first step on, and cannot start anew.",
                "a recipe without mask-residual, such as 'telescoped'",
            )
    for node, module in calls(graph, Encode, Frames, Decode, Temporal):
        kept = module.body if isinstance(module, Restart) else module
        kept.T = T
        if isinstance(kept, Decode):
            kept.skip = tau
        if isinstance(kept, (TemporalMax, Telescoped)):
            replace(graph, node, Restart(T, kept, tau) if tau else kept)
