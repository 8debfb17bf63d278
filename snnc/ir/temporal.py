"""Modules that know about time.

Time is folded into the batch: a value that varies in time is `[T * B, ...]`, step after step (all samples of step 1
first). A `Temporal` module walks its steps one after another; everything else in a graph is blind to time.
`Encode` stands where a time-constant value meets time, `Frames` where one comes in that changes from step to step,
`Decode` where time ends.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from snnc.ir.curved import CURVED, degree
from snnc.ir.dialect import Mean, describe, is_count, register


class Temporal(nn.Module):
    """A module with a state that lives from step to step.

    Subclasses write `initial` and `step`, both pure. `streaming` is True where an output may leave at the step whose
    input arrived; a module that must first see several steps sets it False and overrides `forward`.

    `tau` steps are a first pass, after which the module starts anew with what it has learnt; 0 where there is none.
    """

    streaming: ClassVar[bool] = True
    tau: int = 0

    def __init__(self, T: int) -> None:
        super().__init__()
        self.T = T

    def fault(self) -> str:
        """What is wrong with the parameters, such as "has rho = 0"; empty where nothing is."""
        return "" if is_count(self.T) else f"has T = {self.T!r}, not a whole number of steps"

    def initial(self, current: Tensor) -> Any:
        """State before the first step, for one step's input `current` `[B, ...]`."""
        raise NotImplementedError(f"{type(self).__name__}.initial")

    def step(self, state: Any, current: Tensor) -> tuple[Any, Tensor]:
        """One step: state and input `[B, ...]` to the next state and the output `[B, ...]`."""
        raise NotImplementedError(f"{type(self).__name__}.step")

    def walk(self, state: Any, current: Tensor, steps: int, *more: Tensor) -> tuple[Any, Tensor]:
        """`steps` steps from `state` over a folded input `[steps * B, ...]`; gives state and folded output.

        A module with several inputs takes the others as `more`.
        """
        outputs = []
        for one in zip(*(x.reshape(steps, -1, *x.shape[1:]).unbind(0) for x in (current, *more)), strict=True):
            if state is None:
                state = self.initial(one[0])
            state, output = self.step(state, *one)
            outputs.append(output)
        return state, torch.cat(outputs)

    def forward(self, current: Tensor, *more: Tensor) -> Tensor:  # most take one
        """`[T * B, ...]` to `[T * B, ...]`."""
        return self.walk(None, current, self.T, *more)[1]


@register("T")
class Encode(nn.Module):
    """Repeats a time-constant value `[B, ...]` at each of `T` steps: `[T * B, ...]` (direct coding)."""

    def __init__(self, T: int) -> None:
        super().__init__()
        self.T = T

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat(self.T, *[1] * (x.dim() - 1))

    def extra_repr(self) -> str:
        return f"T={self.T}"


@register("T")
class Frames(nn.Module):
    """Brings in a value that changes in time, `[B, T, ...]`, one frame at each of `T` steps: `[T * B, ...]`."""

    def __init__(self, T: int) -> None:
        super().__init__()
        self.T = T

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != self.T:
            raise ValueError(f"{x.shape[1]} frames for {self.T} steps")
        # Not flattened as a whole: torch.export would ask for batches of one size where an activation comes next.
        return torch.cat(x.unbind(1))

    @staticmethod
    def window(x: Tensor, start: int, width: int) -> Tensor:
        """The frames of `width` steps from `start` on, folded."""
        return x[:, start : start + width].transpose(0, 1).flatten(0, 1)

    def extra_repr(self) -> str:
        return f"T={self.T}"


@register("T")
class FrameMean(Mean):
    """The mean of a sample's frames, `[B, T, ...]` to `[B, ...]`: what a network took that is not spiking yet."""

    def __init__(self, T: int) -> None:
        super().__init__((1,))
        self.T = T


@register("T", "read", skip=0, late=0)
class Decode(nn.Module):
    """Mean over the last `read - late` of the `read` steps after `skip`, of `T`: `[T * B, ...]` to `[B, ...]`.

    The first `late` steps are waited for and not counted: a delayed readout. Up to then a running readout is the mean
    of what there is.
    """

    def __init__(self, T: int, read: int, skip: int = 0, late: int = 0) -> None:
        super().__init__()
        self.T, self.read, self.skip, self.late = T, read, skip, late

    def forward(self, x: Tensor) -> Tensor:
        return self._steps(x)[self.late :].sum(0) / (self.read - self.late)

    def _steps(self, x: Tensor) -> Tensor:
        return x.reshape(self.T, -1, *x.shape[1:])[self.skip : self.skip + self.read]

    def running(self, x: Tensor) -> Tensor:
        """The mean after each of the steps that are read, folded: `[read * B, ...]`."""
        parts = [part for part in self._steps(x).split([self.late, self.read - self.late]) if len(part)]
        # Not flattened as a whole: torch.export could not tell that a network which ends in spikes takes any batch.
        return torch.cat([step for part in parts for step in running_mean(part)[0].unbind()])

    def extra_repr(self) -> str:
        more = "".join(f", {name}={value}" for name in ("skip", "late") if (value := getattr(self, name)))
        return f"T={self.T}, read={self.read}{more}"


def running_mean(steps: Tensor, before: Tensor | float = 0.0, seen: int = 0) -> tuple[Tensor, Tensor]:
    """The mean after each of `steps` `[n, B, ...]`, and their sum; `before` is the sum of `seen` earlier steps."""
    total = before + steps.cumsum(0)
    count = torch.arange(seen + 1, seen + len(steps) + 1, dtype=steps.dtype, device=steps.device)
    return total / count.reshape(-1, *[1] * (steps.dim() - 1)), total[-1]


@register("T", "shift")
class StepCurrent(Temporal):
    """Adds a current of its own to each step: `x(t) + shift[t]`.

    Attributes:
        shift: `[T, C, 1, ...]`, unit of the current.
    """

    shift: Tensor

    def __init__(self, T: int, shift: Tensor) -> None:
        super().__init__(T)
        self.register_buffer("shift", shift)

    def initial(self, current: Tensor) -> int:
        return 0

    def step(self, state: int, current: Tensor) -> tuple[int, Tensor]:
        return state + 1, current + self.shift[state]

    def walk(self, state: Any, current: Tensor, steps: int, *more: Tensor) -> tuple[Any, Tensor]:
        if torch.compiler.is_compiling():  # torch.export cannot follow this for any batch
            return super().walk(state, current, steps)
        first, shift = state or 0, self.shift
        part = shift[first : first + steps].reshape(steps, *[1] * (current.dim() - shift.dim() + 1), *shift.shape[1:])
        return first + steps, (current.reshape(steps, -1, *current.shape[1:]) + part).flatten(0, 1)

    def fault(self) -> str:
        fits = self.shift.dim() > 0 and len(self.shift) == self.T
        return super().fault() or (
            "" if fits else f"has currents of shape {tuple(self.shift.shape)} for {self.T} steps"
        )

    def extra_repr(self) -> str:
        return f"T={self.T}, shift={describe(self.shift)}"


@register("T", "body")
class Telescoped(Temporal):
    """Emits what `t f(mean of the input up to step t)` grew by, f being `body`, of one or more inputs.

    With `X_i(t)` the sum of input i up to step t,

        y(t) = G(t) - G(t-1),    G(t) = t f(X_1(t) / t, ..., X_n(t) / t),    G(0) = 0

    so that the mean of the output after t steps is f of the means of the inputs, for any f, after every step: the sum
    telescopes. The output is a value of either sign, and no spike.

    Where f is homogeneous of degree d the factors join: `G(t) = t^(1-d) f(X(t))`. A maximum and a leaky ReLU (d = 1)
    need no mean at all. For a product (d = 2) the sums have the product `A B / t`, and `A B` grows by
    `a B + A b + a b`: where the inputs are spikes, by additions alone.

    Source: ours; the rate form of what SpikingJelly calls temporal difference, and decision 34.

    Attributes:
        body: the module of the curved operation, blind to time.
    """

    body: Any

    def __init__(self, T: int, body: nn.Module) -> None:
        super().__init__(T)
        self.body = body

    def grown(self, t: int, *sums: Tensor) -> Tensor:
        """`G(t)` for the sums of the inputs after t steps."""
        d = degree(self.body)
        if t == 1:
            total: Tensor = self.body(*sums)
        elif d is None:
            total = self.body(*(total / t for total in sums)) * t
        else:
            total = self.body(*sums)
            total = total / float(t ** (d - 1)) if d > 1 else total * float(t ** (1 - d)) if d < 1 else total
        return total

    def step(self, state: Any, *currents: Tensor) -> tuple[Any, Tensor]:
        """One step. The state is the number of steps so far, the sums, and `G`; None before the first."""
        if state is None:
            made = self.grown(1, *currents)
            return (1, currents, made), made
        t, sums, before = state
        sums = tuple(total + current for total, current in zip(sums, currents, strict=True))
        made = self.grown(t + 1, *sums)
        return (t + 1, sums, made), made - before

    def initial(self, current: Tensor) -> Any:
        return None

    def fault(self) -> str:
        return super().fault() or ("" if isinstance(self.body, CURVED) else "telescopes what is no curved operation")

    def extra_repr(self) -> str:
        return f"T={self.T}"


class TemporalMax(Temporal):
    """Base of the lowerings of max pooling. `pool` is the `torch.nn` pool that the network had."""

    pool: Any

    def __init__(self, T: int, pool: nn.Module) -> None:
        Temporal.__init__(self, T)
        self.pool = pool

    def extra_repr(self) -> str:
        return f"T={self.T}"


@register("T", "pool")
class RunningMax(TemporalMax, Telescoped):
    """`Telescoped` for a max pool: emits what the maximum of the running sums grew by.

    With `c_i(t)` the sum of input `i` up to step `t`, the output is `max_i c_i(t) - max_i c_i(t-1)`, so its sum over
    any number of steps is the maximum of the sums: a pooled rate is the maximum of the rates, as in the ANN. Inputs
    that are spikes of one height give outputs that are 0 or one spike, since no `c_i` grows by more than one. (Up to
    float rounding of the sums, where the height is not dyadic; a silent step is exactly 0.)
    """

    @property
    def body(self) -> Any:
        return self.pool


@register("T", "pool")
class GatedMax(TemporalMax):
    """Forwards the input whose running sum is largest (Rueckauer et al. 2017).

    Its sum is not the maximum of the sums when the leader changes, so it converges more slowly than `RunningMax`;
    kept for comparison.
    """

    def initial(self, current: Tensor) -> Tensor:
        return torch.zeros_like(current)

    def step(self, state: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        total = state + current
        p = self.pool
        dims = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d).index(type(p)) + 1
        pool: Any = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[dims - 1]
        _, index = pool(total, p.kernel_size, p.stride, p.padding, p.dilation, p.ceil_mode, return_indices=True)
        flat = current.flatten(-dims).gather(-1, index.flatten(-dims))
        return total, flat.reshape(index.shape)


@register("T", "pool")
class StepMax(TemporalMax):
    """The maximum at each step by itself. WRONG for rates: it over-estimates, and more so as T grows.

    What most libraries do; kept so that the damage can be measured.
    """

    def initial(self, current: Tensor) -> Tensor:
        return current.new_zeros(())

    def step(self, state: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        return state, self.pool(current)


@register("T", "body", "tau")
class Restart(Temporal):
    """A lowering of a curved operation that starts anew after `tau` steps: a first pass has no part in the second."""

    def __init__(self, T: int, body: Temporal, tau: int) -> None:
        super().__init__(T)
        self.body, self.tau = body, tau

    def initial(self, current: Tensor) -> tuple[Any, int]:
        return self.body.initial(current), 0

    def step(self, state: tuple[Any, int], *currents: Tensor) -> tuple[tuple[Any, int], Tensor]:
        inner, clock = state
        if clock == self.tau:
            inner = self.body.initial(currents[0])
        inner, output = self.body.step(inner, *currents)
        return (inner, clock + 1), output

    def fault(self) -> str:
        kinds = (TemporalMax, Telescoped)
        return super().fault() or ("" if isinstance(self.body, kinds) else "restarts what is no curved operation")

    def extra_repr(self) -> str:
        return f"T={self.T}, tau={self.tau}"


TIME = (Encode, Frames, Decode, Temporal)  # what a spiking network has beside layers; a base stands for all below it

MAXPOOL_LOWERINGS: dict[str, type[TemporalMax]] = {
    "running-max": RunningMax,
    "gate": GatedMax,
    "per-step": StepMax,
}
