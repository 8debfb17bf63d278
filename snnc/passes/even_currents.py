"""A current for every channel and step, against the unevenness that all samples have in common."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from snnc.calibrate.sweep import SweepSite
from snnc.ir.graph import calls, insert
from snnc.ir.neurons import PIPELINED, STREAMING, Neuron
from snnc.ir.temporal import StepCurrent
from snnc.passes.pipeline import Context
from snnc.passes.sweeping import SweepPass
from snnc.passes.wait_for_input import steady
from snnc.processes import Pieces, Shards


@dataclass(frozen=True)
class EvenCurrents(SweepPass):
    """Takes out of every step's current what it departs from the mean over all steps, in the mean of each channel.

    All neurons start alike, so the first spikes of a layer come in waves: too few at one step, too many at the next.
    The part of these waves that every sample has is known beforehand, and a current of the opposite sign, one for each
    channel and step, takes it away before the neuron sees it:

        shift_c(t) = gain * (mean over steps of m_c - m_c(t)),    m_c(t) the mean over samples and positions of I(t)

    The shifts of a channel add up to zero over the T steps. Layer by layer, from the input to the output, each on the
    spikes that the evened layers before it emit. No labels. What is found holds at this T alone. A chip needs a bias
    that it can set at each step.

    Calibrate weights or biases afterwards: they then see the currents that are left.

    Options:
        gain: 1 takes away all of it, 0 nothing.
        samples: calibration samples at most.
    """

    name = "even-currents"
    source = "ours, on currents and in closed form; after FTBC, which learns a bias for each step from the outputs"

    gain: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("gain", 0 <= self.gain < math.inf, "0 or more, such as 1")

    def changes_steps(self, T: int) -> bool:
        return self.gain != 0 and T > 1

    def apply(self, graph: fx.GraphModule, context: Context) -> int:
        if not self.changes_steps(context.T):
            return 0
        even = steady(graph)
        shifts: dict[fx.Node, Tensor] = {}

        def visit(site: SweepSite) -> Pieces | None:
            if not isinstance(site.module, Neuron) or site.node in even:
                return None
            if site.module.schedule not in (STREAMING, PIPELINED):  # it sees all steps before its first spike, or twice
                return None
            (current,), T = site.inputs, context.T
            shift = shifts[site.node] = self.gain * departure(current, T, site.sweep.shards)

            def emitted(i: int) -> Tensor:
                now = current[i]
                by_step = now.reshape(T, -1, *now.shape[1:])
                return site.module((by_step + shift[:, None]).flatten(0, 1))

            return site.sweep.memory.hold(emitted, current, unit=site.module.height)

        self.sweep(graph, context, visit)
        for node, shift in shifts.items():
            source = node.all_input_nodes[0]
            step = insert(graph, f"{node.name}_step", StepCurrent(context.T, shift), source)
            node.replace_input_with(source, step)
        left = sum(1 for node, _ in calls(graph, Neuron) if node not in even) - len(shifts)
        if left:
            context.notes.append(f"{left} layers that do not stream are left as they are")
        return len(shifts)


def departure(current: Pieces, T: int, shards: Shards) -> Tensor:
    """Mean over all steps minus the mean of each step, `[T, C, 1, ...]`, of folded currents `[T * B, C, ...]`."""

    def sums(i: int) -> tuple[Tensor, ...]:
        now = current[i]
        by_step = now.reshape(T, -1, *now.shape[1:])
        found = by_step.double().sum([1, *range(3, by_step.dim())]).reshape(T, -1, *[1] * (by_step.dim() - 3))
        return found, torch.tensor(by_step.numel() // found.numel()), torch.zeros((), dtype=by_step.dtype)

    total, count, like = shards.total(sums)
    mean = total / count
    return (mean.mean(0) - mean).to(like)
