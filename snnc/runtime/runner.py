"""Runs a spiking graph in windows of time, from step by step to all steps at once.

Calling the graph itself folds all T steps into the batch: `T * B` rows at once. The runner walks the same modules over
windows of a few steps and carries the neurons' states from window to window, so that memory is bounded by the
window and not by T. A window of one step is the streaming order of a neuromorphic chip; a window of T is the
graph call. The spikes are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from snnc.errors import DataError, SnncError
from snnc.graph import calls, module_of, phases, steps
from snnc.neurons import SCHEDULES, Neuron
from snnc.temporal import Decode, Encode, Temporal, running_mean

# Called with each node inside time, its value [steps * B, ...] and the number of steps in it.
Observer = Callable[[fx.Node, Tensor, int], None]


class Runner:
    """Executes one spiking graph. Holds no state between calls.

    Attributes:
        T: steps that are simulated.
        read: steps that are read out; fewer than T where calibration needs a longer window (rho > T).
        skip: steps before those that are read out: a first pass.
        late: the first of those that are read out, which the final readout does not count.
        streaming: False where a layer must see input of later steps before it emits.
        schedule: how the network runs, one of `snnc.neurons.SCHEDULES`.
    """

    def __init__(self, graph: fx.GraphModule) -> None:
        self.graph = graph
        phase = phases(graph)
        self.order = {p: [n for n in graph.graph.nodes if phase[n] == p] for p in ("before", "in", "after")}
        # In graph order, so that a readout in the middle of the network is fed before its source dies.
        decodes = {node for node, _ in calls(graph, Decode)}
        self.walked = [n for n in graph.graph.nodes if phase[n] == "in" or n in decodes]
        self.T = steps(graph)
        self.read, self.skip, self.late = next((int(m.read), int(m.skip), int(m.late)) for _, m in calls(graph, Decode))
        self.schedule = max((m.schedule for _, m in calls(graph, Neuron)), key=SCHEDULES.index, default=SCHEDULES[0])
        self.streaming = all(module.streaming for _, module in calls(graph, Temporal))
        # Values outside time outlive the loop over windows; values inside die at their last use.
        self.last: dict[fx.Node, list[fx.Node]] = {}
        final = {source: node for node in graph.graph.nodes for source in node.all_input_nodes}
        for source, node in final.items():
            if phase[source] == "in":
                self.last.setdefault(node, []).append(source)

    def run(
        self, x: Tensor, window: int | None = None, anytime: bool = False, observe: Observer | None = None
    ) -> Tensor:
        """Runs one batch.

        Args:
            x: input `[B, ...]`.
            window: steps at a time; all of them where None.
            anytime: read out after every step instead of after the last.
            observe: sees the value of every node inside time.

        Returns:
            `[B, ...]`, the network's output for the mean over time; with `anytime` `[read, B, ...]`.

        Raises:
            SnncError: a window shorter than T for a network that is not streaming.
        """
        window = self.T if window is None else min(window, self.T)
        if window < self.T and not self.streaming:
            raise SnncError(
                f"This network is {self.schedule}: a layer must see input of later steps before its first spike, so "
                "it cannot run step by step.",
                "a recipe without calibrate-offset, average-input and wait-for-input, such as 'opi'",
            )
        outer: dict[fx.Node, Tensor] = {}
        self._execute("before", outer, x)
        states: dict[fx.Node, Any] = {}
        totals: dict[fx.Node, Tensor] = {}
        outputs = []
        for start in range(0, self.T, window):
            width = min(window, self.T - start)
            self._walk(outer, states, totals, start, width, observe, anytime)
            if anytime and (read := len(self._read(start, width))):
                result = self._execute("after", dict(outer), x, repeat=read)
                outputs.append(result.reshape(read, len(x), *result.shape[1:]))
        if anytime:
            return torch.cat(outputs)
        outer.update({node: total / (self.read - self.late) for node, total in totals.items()})
        return self._execute("after", outer, x)

    def _execute(self, phase: str, values: dict[fx.Node, Tensor], x: Tensor, repeat: int = 1) -> Tensor:
        """Runs the nodes before or after time; gives the last value."""
        result = x
        for node in self.order[phase]:
            if node.op == "placeholder":
                result = x
            elif node.op == "output":
                result = self._repeated(values, node.all_input_nodes[0], repeat, x)
            elif not isinstance(module := module_of(self.graph, node), Decode):
                result = module(*(self._repeated(values, n, repeat, x) for n in node.args))
            else:
                continue  # the walk through time has put its value there
            values[node] = result
        return result

    def _repeated(self, values: dict[fx.Node, Tensor], node: fx.Node, repeat: int, x: Tensor) -> Tensor:
        """A value; one from before time is repeated where running readouts are folded into the batch."""
        value = values[node]
        return value.repeat(repeat, *[1] * (value.dim() - 1)) if repeat > 1 and len(value) == len(x) else value

    def _walk(
        self,
        outer: dict[fx.Node, Tensor],
        states: dict[fx.Node, Any],
        totals: dict[fx.Node, Tensor],
        start: int,
        width: int,
        observe: Observer | None,
        anytime: bool,
    ) -> None:
        """One window: updates states and totals, and with `anytime` leaves running means in `outer`."""
        values: dict[fx.Node, Tensor] = {}
        for node in self.walked:
            module = module_of(self.graph, node)
            if isinstance(module, Encode):
                source = outer[node.all_input_nodes[0]]
                if start == 0 and not torch.isfinite(source).all():
                    raise DataError(
                        f"'{node.all_input_nodes[0].name}' is NaN or infinite for this input.",
                        "input in the range that the network was trained on",
                    )
                values[node] = source.repeat(width, *[1] * (source.dim() - 1))
            elif isinstance(module, Decode):
                self._decode(node, values[node.all_input_nodes[0]], outer, totals, start, width, anytime)
            elif isinstance(module, Temporal):
                (fed,) = node.all_input_nodes  # its value is not bound to a name, which would keep it
                if module.streaming:
                    states[node], values[node] = module.walk(states.get(node), values[fed], width)
                else:
                    values[node] = module(values[fed])
            else:
                values[node] = module(*(values[n] for n in node.args))
            if observe and node in values:
                observe(node, values[node], width)
            for dead in self.last.get(node, ()):
                values.pop(dead, None)

    def _read(self, start: int, width: int) -> range:
        """Those of the `width` steps from `start` that are read out."""
        return range(max(start, self.skip), min(start + width, self.skip + self.read))

    def _decode(
        self,
        node: fx.Node,
        value: Tensor,
        outer: dict[fx.Node, Tensor],
        totals: dict[fx.Node, Tensor],
        start: int,
        width: int,
        anytime: bool,
    ) -> None:
        read = self._read(start, width)
        if not read:
            return
        by_step = value.reshape(width, -1, *value.shape[1:])
        # A delayed readout starts anew when it begins to count.
        turn = min(max(self.skip + self.late, read.start), read.stop)
        means = []
        for first, begin, end in ((self.skip, read.start, turn), (self.skip + self.late, turn, read.stop)):
            if begin == end:
                continue
            seen, part = begin - first, by_step[begin - start : end - start]
            before = totals[node] if seen else torch.zeros_like(part[0])
            if anytime:
                mean, totals[node] = running_mean(part, before, seen)
                means.append(mean)
            else:
                totals[node] = before + part.sum(0)
        if anytime:
            outer[node] = torch.cat(means).flatten(0, 1)
