"""Runs a spiking graph in windows of time, from step by step to all steps at once.

Calling the graph itself folds all T steps into the batch: `T * B` rows at once. The runner walks the same modules over
windows of a few steps and carries the neurons' states from window to window, so that memory is bounded by the
window and not by T. A window of one step is the streaming order of a neuromorphic chip; a window of T is the
graph call. The spikes are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.errors import DataError, SnncError
from snnc.ir.dialect import CONVOLUTIONS, TRANSPOSED
from snnc.ir.graph import calls, phases, steps
from snnc.ir.neurons import SCHEDULES, Neuron
from snnc.ir.temporal import Decode, Encode, Frames, Temporal, running_mean
from snnc.runtime.exact import in_double
from snnc.steady import exact
from snnc.structure import Samples, Tree, each, mapped

# Called with each node inside time, its value [steps * B, ...] and the number of steps in it.
Observer = Callable[[fx.Node, Tensor, int], None]


@dataclass
class Window:
    """Some steps of one run.

    Attributes:
        outer: values outside time, which running readouts join.
        states: of the neurons, from window to window.
        totals: what was summed over time so far.
        start: the first step.
        width: how many steps.
        held: steps whose frames are not among those that are given, where a run goes on from an earlier one.
    """

    outer: dict[fx.Node, Tensor] = field(default_factory=dict)
    states: dict[fx.Node, Any] = field(default_factory=dict)
    totals: dict[fx.Node, Tensor] = field(default_factory=dict)
    start: int = 0
    width: int = 0
    held: int = 0


class Runner:
    """Executes one spiking graph. Holds no state between calls.

    Attributes:
        T: steps that are simulated.
        read: steps that are read out; fewer than T where calibration needs a longer window (rho > T).
        skip: steps before those that are read out: a first pass.
        late: the first of those that are read out, which the final readout does not count.
        integers: whether spikes are counted, as in fixed-point networks.
        streaming: False where a layer must see input of later steps before it emits.
        schedule: how the network runs, one of `snnc.ir.neurons.SCHEDULES`.
    """

    def __init__(self, graph: fx.GraphModule) -> None:
        self.graph = graph
        self.modules = dict(calls(graph))
        phase = phases(graph)
        self.order = {p: [n for n in graph.graph.nodes if phase[n] == p] for p in ("before", "in", "after")}
        # In graph order, so that a readout in the middle of the network is fed before its source dies.
        decodes = {node for node, _ in calls(graph, Decode)}
        self.walked = [n for n in graph.graph.nodes if phase[n] == "in" or n in decodes]
        self.T = steps(graph)
        self.read, self.skip, self.late = next((int(m.read), int(m.skip), int(m.late)) for _, m in calls(graph, Decode))
        self.schedule = max((m.schedule for _, m in calls(graph, Neuron)), key=SCHEDULES.index, default=SCHEDULES[0])
        self.integers = any(m.unit for _, m in calls(graph, Neuron))
        self.streaming = all(module.streaming for _, module in calls(graph, Temporal))
        self.last = self._last_uses({node: node.all_input_nodes for node in graph.graph.nodes}, phase)

    @staticmethod
    def _last_uses(reads: dict[fx.Node, list[fx.Node]], phase: dict[fx.Node, str]) -> dict[fx.Node, list[fx.Node]]:
        """For each node, the values that it is the last to read.

        Values outside time outlive the loop over windows; values inside die at their last use.
        """
        final = {source: node for node, sources in reads.items() for source in sources}
        last: dict[fx.Node, list[fx.Node]] = {}
        for source, node in final.items():
            if phase[source] == "in":
                last.setdefault(node, []).append(source)
        return last

    def run(
        self, x: Samples, window: int | None = None, anytime: bool = False, observe: Observer | None = None
    ) -> Tree:
        """Runs one batch.

        Args:
            x: input `[B, ...]`, or a batch of several.
            window: steps at a time; all of them where None.
            anytime: read out after every step instead of after the last.
            observe: sees the value of every node inside time.

        Returns:
            `[B, ...]`, the network's output for the mean over time; with `anytime` `[read, B, ...]`. Of several outputs
            each is that, in the network's own containers.

        Raises:
            SnncError: a window shorter than T for a network that is not streaming.
        """
        most = self.T if window is None else min(window, self.T)
        if most < self.T and not self.streaming:
            raise SnncError(
                f"This network is {self.schedule}: a layer must see input of later steps before its first spike, so "
                "it cannot run step by step.",
                "a recipe without calibrate-offset, average-input and wait-for-input, such as 'opi'",
            )
        with exact():
            return self._run(x, most, anytime, observe)

    def _run(self, x: Samples, most: int, anytime: bool, observe: Observer | None) -> Tree:
        now = Window()
        self._execute("before", now.outer, x)
        outputs = []
        for now.start in range(0, self.T, most):
            now.width = min(most, self.T - now.start)
            self._walk(now, observe, anytime)
            if anytime and (read := len(self._read(now))):
                found = self._execute("after", dict(now.outer), x, repeat=read)
                outputs.append(mapped(lambda one, n=read: one.reshape(n, len(x), *one.shape[1:]), found))
        if anytime:
            return mapped(lambda *parts: torch.cat(parts), *outputs)
        now.outer.update(self._means(now.totals))
        return self._execute("after", now.outer, x)

    def step(self, x: Samples, now: Window) -> Tree:
        """One frame `[B, 1, ...]` of each input, from where `now` stands, which goes on; gives the readout."""
        with exact():
            now.held, now.width = now.start, 1
            now.outer = {}
            self._execute("before", now.outer, x)
            self._walk(now, None, True)
            now.start += 1
            return self._execute("after", now.outer, x)

    def _means(self, totals: dict[fx.Node, Tensor]) -> dict[fx.Node, Tensor]:
        """The readouts, from what was summed over time."""
        return {node: total / (self.read - self.late) for node, total in totals.items()}

    def _execute(self, phase: str, values: dict[fx.Node, Tensor], x: Samples, repeat: int = 1) -> Tree:
        """Runs the nodes before or after time; gives what the network returns, where that is known by then."""
        given = iter(each(x))
        for node in self.order[phase]:
            if node.op == "placeholder":
                values[node] = next(given)
            elif node.op == "output":
                return mapped(lambda one: self._repeated(values, one, repeat, x), node.args[0])
            elif not isinstance(module := self.modules[node], Decode):  # whose value the walk through time puts there
                values[node] = self._outside(module, *(self._repeated(values, n, repeat, x) for n in node.args))
        return None

    def _outside(self, module: Any, *fed: Tensor) -> Tensor:
        """The value of a module that stands before or after time."""
        return self._called(module, *fed)

    def _called(self, module: nn.Module, *fed: Tensor, inside: bool = False) -> Tensor:
        """The value of a module that keeps nothing from step to step, and stands inside time or not."""
        if self.integers and fed[0].is_cuda and isinstance(module, (*CONVOLUTIONS, *TRANSPOSED)):
            return in_double(module, fed[0], inside)
        result: Tensor = module(*fed)
        return result

    def _repeated(self, values: dict[fx.Node, Tensor], node: fx.Node, repeat: int, x: Samples) -> Tensor:
        """A value; one from before time is repeated where running readouts are folded into the batch."""
        value = values[node]
        return value.repeat(repeat, *[1] * (value.dim() - 1)) if repeat > 1 and len(value) == len(x) else value

    def _walk(self, now: Window, observe: Observer | None, anytime: bool) -> None:
        """One window: updates states and totals, and with `anytime` leaves running means in `now.outer`."""
        values: dict[fx.Node, Tensor] = {}
        for node in self.walked:
            module = self.modules[node]
            if isinstance(module, Encode):
                source = now.outer[node.all_input_nodes[0]]
                if now.start == 0:
                    self._check(node.all_input_nodes[0].name, torch.isfinite(source).all())
                values[node] = self._encoded(node, source, now)
            elif isinstance(module, Frames):
                values[node] = self._framed(node, now.outer[node.all_input_nodes[0]], now)
            elif isinstance(module, Decode):
                self._decode(node, values[node.all_input_nodes[0]], now, anytime)
            else:
                values[node] = self._value(node, values, now)
            if observe and node in values:
                observe(node, values[node], now.width)
            for dead in self.last.get(node, ()):
                values.pop(dead, None)

    def _check(self, name: str, finite: Tensor) -> None:
        """Refuses a value that is to be repeated in time, and is no number."""
        if not finite:
            raise DataError(f"'{name}' is NaN or infinite for this input.", "input in the range that it was trained on")

    def _encoded(self, node: fx.Node, source: Tensor, now: Window) -> Tensor:
        """A value from before time, at each step of a window; it lies in memory as it did."""
        return torch.cat([source] * now.width)

    def _framed(self, node: fx.Node, source: Tensor, now: Window) -> Tensor:
        """The frames of a window."""
        return near(Frames.window(source, now.start - now.held, now.width).contiguous())

    def _value(self, node: fx.Node, values: dict[fx.Node, Tensor], now: Window) -> Tensor:
        """The value of a node inside time; leaves its state in `now.states`."""
        module = self.modules[node]
        result: Tensor
        fed = [values[source] for source in node.args if isinstance(source, fx.Node)]
        if isinstance(module, Temporal) and module.streaming:
            first, *more = fed
            now.states[node], result = module.walk(now.states.get(node), first, now.width, *more)
        else:
            result = self._called(module, *fed, inside=True)
        return result

    def _read(self, now: Window) -> range:
        """Those steps of a window that are read out."""
        return range(max(now.start, self.skip), min(now.start + now.width, self.skip + self.read))

    def _decode(self, node: fx.Node, value: Tensor, now: Window, anytime: bool) -> None:
        read = self._read(now)
        if not read:
            return
        by_step = value.reshape(now.width, -1, *value.shape[1:])
        # A delayed readout starts anew when it begins to count.
        turn = min(max(self.skip + self.late, read.start), read.stop)
        means = []
        for first, begin, end in ((self.skip, read.start, turn), (self.skip + self.late, turn, read.stop)):
            if begin == end:
                continue
            seen, part = begin - first, by_step[begin - now.start : end - now.start]
            before = now.totals[node] if seen else torch.zeros_like(part[0])
            if anytime:
                mean, now.totals[node] = running_mean(part, before, seen)
                means.append(mean)
            else:
                now.totals[node] = before + part.sum(0)
        if anytime:
            now.outer[node] = torch.cat(means).flatten(0, 1)


def near(x: Tensor) -> Tensor:
    """An input with its channels closest together in memory, which is how convolutions on CPUs run fastest."""
    images = x.dim() == 4 and x.device.type == "cpu" and x.dtype == torch.float32
    return x.contiguous(memory_format=torch.channels_last) if images else x
