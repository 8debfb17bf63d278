"""Forward passes with a gradient, over opened graphs.

`Quantised` runs a graph of stage QUANTIZED; `ByRate` and `InTime` run a spiking one, and their values are those of
the spiking network itself. They differ in the gradient and in what it costs, counted in passes over the layers
inside time:

    InTime   every step is on the tape: T forward and 2 T backward
    ByRate   the T steps leave no tape; beside them their mean over time is carried, on the tape: T + 1 forward and
             2 backward (1 forward in all where T = 1, since the one step is its own mean)

A layer between neurons is linear, so the mean of its outputs is its output for the mean of the inputs, and what
`ByRate` carries is exact up to rounding. At a neuron it takes the mean of the spikes that were emitted; see
`snnc.tune.surrogate.Rate` for its gradient. A delayed readout takes its value from the later steps, and its gradient
from the mean of all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.errors import RecipeError
from snnc.ir.curved import CURVED
from snnc.ir.dialect import LINEAR, TRAINED, ClipQuant, Grid
from snnc.ir.embedding import Embedding
from snnc.ir.graph import calls, steps
from snnc.ir.neurons import IF, NEURONS, STREAMING, Neuron, fires
from snnc.ir.rows import Refusal, Table
from snnc.ir.temporal import (
    Decode,
    Encode,
    FrameMean,
    Frames,
    GatedMax,
    Restart,
    RunningMax,
    StepCurrent,
    StepMax,
    Telescoped,
    Temporal,
)
from snnc.tune.norms import Evened, Normed
from snnc.tune.surrogate import Levels, Rate, Spike, Straight


@dataclass
class Carried:
    """A value inside time: the steps `[T * B, ...]` without a gradient, and their mean `[B, ...]` with one."""

    steps: Tensor
    mean: Tensor


class Forward(fx.Interpreter):
    """Base: runs an opened graph, `Forward(graph).run(x)`, and shows what flows through it.

    Attributes:
        see: called with each node and its value `[B, ...]`, inside time the mean; None for nobody.
    """

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.see: Callable[[fx.Node, Tensor], None] | None = None

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if self.see is not None:
            self.see(n, value.mean if isinstance(value, Carried) else value)
        return value


class Quantised(Forward):
    """The clip-quantised network, with the straight-through gradient."""

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        module = self.fetch_attr(target)
        if isinstance(module, ClipQuant):
            return Levels.apply(args[0], module.lam, module.L, module.shift)
        return super().call_module(target, args, kwargs)


def fired(neuron: IF, current: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What `IF` emits for a folded current `[T * B, ...]`, in `dtype`, and its mean over time `[B, ...]`.

    The same arithmetic as `IF.step`, in the precision of the potential, with fewer passes over memory.
    """
    T, height = neuron.T, neuron.height.to(dtype)
    currents = current.reshape(T, -1, *current.shape[1:])
    spikes = torch.empty(currents.shape, dtype=dtype, device=current.device)
    v: Tensor = neuron.v0
    for t in range(T):
        u = currents[t].to(v.dtype) + v
        spike = fires(u, neuron.theta)
        torch.mul(spike, height, out=spikes[t]) if spike.dtype == dtype else spikes[t].copy_(spike).mul_(height)
        if t < T - 1:
            v = u.sub_(spike.mul_(neuron.theta))
    phi = spikes[0] if T == 1 else spikes.float().sum(0).div_(T).to(dtype)
    return spikes.flatten(0, 1), phi


class ByRate(Forward):
    """The spiking network, with the gradient of its rates. `shape` is that of `snnc.tune.surrogate.Rate`."""

    def __init__(self, graph: fx.GraphModule, shape: str = "triangle") -> None:
        super().__init__(graph)
        self.T, self.shape = steps(graph), shape

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        module = self.fetch_attr(target)
        timed = any(isinstance(value, Carried) for value in args)
        if not timed and not isinstance(module, Encode):
            return super().call_module(target, args, kwargs)
        return GRADIENTS(module)(self, module, args)

    def carried(self, mean: Tensor, steps: Callable[[], Tensor]) -> Carried:
        """A value whose mean is known; what runs the `steps` is called where there is more than one."""
        if self.T == 1:
            return Carried(mean.detach(), mean)
        with torch.no_grad():
            return Carried(steps(), mean)


def _encoded(run: ByRate, module: Encode, args: Sequence[Any]) -> Carried:
    return Carried(module(args[0].detach()), args[0])


def _decoded(run: ByRate, module: Decode, args: Sequence[Carried]) -> Tensor:
    (value,) = args
    if module.read - module.late == run.T:
        return value.mean
    return Straight.apply(value.mean, module(value.steps.float()))


def _spiking(run: ByRate, module: IF, args: Sequence[Carried]) -> Carried:
    (value,) = args
    with torch.no_grad():
        spikes, phi = fired(module, value.steps, value.mean.dtype)
    return Carried(spikes, Rate.apply(value.mean, phi, module.theta, module.v0, run.T, run.shape))


def _linear(run: ByRate, module: Any, args: Sequence[Carried]) -> Carried:
    mean = module(*(value.mean for value in args))
    return run.carried(mean, lambda: module(*(value.steps for value in args)))


def _pooled(run: ByRate, module: RunningMax, args: Sequence[Carried]) -> Carried:
    (value,) = args
    return run.carried(module.pool(value.mean), lambda: module(value.steps))


def _normed(run: ByRate, module: Normed, args: Sequence[Carried]) -> Carried:
    (value,) = args
    mean, scale, shift = module.measured(value.mean)
    return run.carried(mean, lambda: module.steps(value.steps, scale, shift))


def _evened(run: ByRate, module: Evened | StepCurrent, args: Sequence[Carried]) -> Carried:
    (value,) = args  # whose mean stays, since the shifts add up to zero
    return run.carried(value.mean, lambda: module(value.steps))


UNKNOWN = Refusal("has no gradient here", "the recipe 'best', or kind='quantised'")

# Exact: a neuron that subclasses another fires otherwise.
GRADIENTS: Table[Callable[[ByRate, Any, Sequence[Any]], Any]] = Table(
    "gradients",
    __name__,
    {
        LINEAR: _linear,
        IF: _spiking,
        RunningMax: _pooled,
        (StepCurrent, Evened): _evened,
        Normed: _normed,
        Encode: _encoded,
        Decode: _decoded,
        (Frames, FrameMean): Refusal(
            "takes input that changes in time, which training does not", "the network without frames"
        ),
        (Telescoped, GatedMax, StepMax, Restart, *(kind for kind in NEURONS if kind is not IF)): UNKNOWN,
        Embedding: Refusal(
            "looks a table up, and training knows inputs of amounts alone", "the network without training"
        ),
        CURVED: Refusal("acts on single steps, which is not its rate", UNKNOWN.hint),
        Grid: Refusal("gives integers, which training would leave", "the network compiled without fixed-point"),
        TRAINED: Refusal("belongs to a network without spikes", "kind='quantised'"),
    },
    exact=nn.Module,
)


class InTime(Forward):
    """The spiking network, with surrogate gradients through every step.

    The reset is on the tape too. `shape` is that of the surrogate, see `snnc.tune.surrogate.Spike`.
    """

    def __init__(self, graph: fx.GraphModule, shape: str = "triangle") -> None:
        super().__init__(graph)
        self.T, self.shape = steps(graph), shape

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        module = self.fetch_attr(target)
        if not isinstance(module, IF):
            return super().call_module(target, args, kwargs)
        currents = args[0].reshape(self.T, -1, *args[0].shape[1:])
        v, outputs = module.initial(currents[0]), []
        for current in currents.unbind(0):
            u = v + current
            spike = Spike.apply(u, module.theta, self.shape) * module.theta
            v = u - spike
            outputs.append(spike)
        return torch.cat(outputs)


def require_trainable(graph: fx.GraphModule) -> None:
    """Refuses a spiking graph whose gradient is not known here.

    Raises:
        RecipeError: a temporal module that is no plain `IF`, `RunningMax` or `StepCurrent`, or a readout that leaves
            steps out; names it.
    """
    if units := [node.name for node, neuron in calls(graph, Neuron) if neuron.unit]:
        raise RecipeError(
            f"The weights around '{units[0]}' are integers, which training would leave.",
            "the network compiled without fixed-point",
        )
    for node, module in calls(graph, Temporal):
        row = GRADIENTS.row(type(module))
        if isinstance(row, Refusal):
            late = isinstance(module, Neuron) and module.schedule != STREAMING
            why = f"is {module.schedule}" if late else row.why
            raise RecipeError(
                f"'{node.name}' is a {type(module).__name__}, which {why}; spike-aware tuning takes plain IF neurons "
                "that stream, and max pools lowered as running-max.",
                row.hint,
            )
    for node, module in calls(graph, Decode):
        if module.read != module.T:
            raise RecipeError(f"'{node.name}' reads {module.read} of {module.T} steps, not all of them.", UNKNOWN.hint)
