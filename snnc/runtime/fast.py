"""Runs a spiking graph by a plan: the same windows, the same spikes, less work."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from snnc.ir.dialect import Grid, Pad
from snnc.ir.graph import phases
from snnc.ir.neurons import OffsetIF
from snnc.ir.temporal import Decode
from snnc.runtime.counts import MOVES
from snnc.runtime.cpu import scan
from snnc.runtime.plan import Plan, constants
from snnc.runtime.runner import Observer, Runner, Window
from snnc.structure import Samples, Tree


class FastRunner(Runner):
    """Executes one spiking graph by its plan.

    Attributes:
        made: the plan.
        whole: every node's value is formed, for an observer.
        once: linear layers behind the last neuron run once, since only the final readout is wanted.
    """

    def __init__(self, made: Plan, whole: bool = False, once: bool = False) -> None:
        super().__init__(made.graph)
        self.made, self.whole, self.once = made, whole, once and made.fixed
        self.one: bool | None = None  # layers and their neurons in one kernel or not; None where the rows decide
        self.flags: dict[str, Tensor] | None = None  # while a run is recorded, which may not ask what came out
        self.zero: dict[tuple[torch.Size, ...], dict[fx.Node, Tensor]] = {}  # recordings read what is kept here
        joins = {} if whole else made.joins
        absorbed = {node for join in joins.values() for node in join.absorbed}
        self.reads = {node: node.all_input_nodes for node in made.graph.graph.nodes if node not in absorbed}
        self.reads |= {node: join.reads for node, join in joins.items()}
        self.constant = set() if whole else constants(made)
        decodes = {node for node in self.walked if isinstance(self.modules[node], Decode)}
        late = {*made.tail, *decodes} if self.once else set()
        self.walked = [node for node in self.walked if node in self.reads and node not in late]
        self.last = self._last_uses({n: r for n, r in self.reads.items() if n not in late}, phases(made.graph))

    def run(
        self, x: Samples, window: int | None = None, anytime: bool = False, observe: Observer | None = None
    ) -> Tree:
        """See `Runner.run`."""
        if observe is None:
            return super().run(x, window, anytime)
        return super().run(x, window, anytime, lambda node, value, width: observe(node, value.float(), width))

    def _outside(self, module: Any, *fed: Tensor) -> Tensor:
        result = super()._outside(module, *fed)
        # From here on all numbers are integers, and their order in memory is free.
        return _near(result) if self.made.fixed and isinstance(module, Grid) else result

    def _check(self, name: str, finite: Tensor) -> None:
        if self.flags is None:
            super()._check(name, finite)
        else:
            self.flags[name] = finite

    def _encoded(self, node: fx.Node, source: Tensor, now: Window) -> Tensor:
        if node in self.constant:
            return _near(source) if self.made.fixed else _in_one_piece(source)
        return self._summed(node, super()._encoded(node, source, now), now)

    def _framed(self, node: fx.Node, source: Tensor, now: Window) -> Tensor:
        return self._summed(node, super()._framed(node, source, now), now)

    def _value(self, node: fx.Node, values: dict[fx.Node, Tensor], now: Window) -> Tensor:
        return self._summed(node, self._quick(node, values, now), now)

    def _quick(self, node: fx.Node, values: dict[fx.Node, Tensor], now: Window) -> Tensor:
        made = self.made
        if layer := made.layers.get(node):
            return layer(values[node.all_input_nodes[0]])
        if node in made.joins:
            return self._scanned(node, values, now)
        moves = isinstance(self.modules[node], (*MOVES, Pad))
        if not made.fixed or (node in made.bound and moves):
            return super()._value(node, values, now)
        result = super()._value(node, {source: values[source].float() for source in self.reads[node]}, now)
        return result.to(torch.uint8) if node in made.bound else result

    def _scanned(self, node: fx.Node, values: dict[fx.Node, Tensor], now: Window) -> Tensor:
        """Spikes of a layer of neurons, in one pass."""
        join, reads = self.made.joins[node], self.reads[node]
        fed = [_near(values[r]) if self.made.fixed else _in_one_piece(values[r]) for r in reads]
        if join.layer and not self.whole:
            one = join.layer.fills(fed[0], now.width) if self.one is None else self.one
            if one and join.layer.takes(*fed):
                now.states[node], spikes = join.layer.fire(now.states.get(node), now.width, now.start, *fed)
                return spikes
            fed[0] = join.layer(fed[0])
        current, *more = fed
        current, state = current.float(), now.states.get(node)
        order = state[1] if state else scan.memory(current)  # of a cut-out of one row torch tells another one
        current = current.contiguous(memory_format=order)
        joined = more[0] if more else None
        if joined is not None and (joined.shape != current.shape or joined.stride() != current.stride()):
            current, joined = join.added(current, joined), None
        constant = reads[0] in self.constant
        if isinstance(neuron := join.scan.neuron, OffsetIF):
            start = join.scan.state(neuron.calibrated(current.unflatten(0, (now.width, -1))[: neuron.rho]), current)
            return join.scan(start, current, now.width)[1]
        begin = None if self.whole else now.start
        potentials, spikes = join.scan(state and state[0], current, now.width, joined, constant, begin)
        now.states[node] = potentials, order
        return spikes

    def _summed(self, node: fx.Node, value: Tensor, now: Window) -> Tensor:
        """Adds a value to what the tail will read; gives the value."""
        if self.once and node in self.made.sums:
            first = max(now.start, self.skip + self.late) - now.start
            stop = min(now.width, self.skip + self.read - now.start)
            if first < stop:
                by_step = value.unflatten(0, (now.width, -1))[first:stop]
                part = by_step[0].to(torch.float32, copy=True)
                for one in by_step[1:]:  # three times as fast as a sum of bytes
                    part += one
                part = part.double()
                now.totals[node] = now.totals[node] + part if node in now.totals else part
        return value

    def _decode(self, node: fx.Node, value: Tensor, now: Window, anytime: bool) -> None:
        super()._decode(node, value.float(), now, anytime)  # bytes would count no more than 255 steps

    def _means(self, totals: dict[fx.Node, Tensor]) -> dict[fx.Node, Tensor]:
        """The readouts. With F what is behind the last neuron: sum of F(s) = F(sum of s) + (steps - 1) F(0)."""
        if not self.once:
            return super()._means(totals)
        steps = self.read - self.late
        full = self._tail(totals)
        rest = self._silent({node: total[:1] for node, total in totals.items()})
        return {node: _near((value + (steps - 1) * rest[node]).round().float()) / steps for node, value in full.items()}

    def _silent(self, totals: dict[fx.Node, Tensor]) -> dict[fx.Node, Tensor]:
        """F(0), for sums of one sample: the same in every call."""
        shapes = tuple(total.shape for total in totals.values())
        if shapes not in self.zero:
            zero = self._tail({node: torch.zeros_like(total) for node, total in totals.items()})
            if self.flags is not None:
                return zero
            self.zero[shapes] = zero
        return self.zero[shapes]

    def _tail(self, values: dict[fx.Node, Tensor]) -> dict[fx.Node, Tensor]:
        """The value in front of each readout, for one value of everything that the tail reads."""
        values = dict(values)
        for node, module in self.made.tail.items():
            values[node] = module(*(values[source] for source in node.args if isinstance(source, fx.Node)))
        decodes = (node for node, module in self.modules.items() if isinstance(module, Decode))
        return {node: values[node.all_input_nodes[0]] for node in decodes}


def _near(x: Tensor) -> Tensor:
    """A value with its channels closest together in memory."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x.contiguous()


def _in_one_piece(x: Tensor) -> Tensor:
    """A contiguous value, in its own order of memory if that is one of the two usual ones, as in the reference.

    A cut-out of either is copied in that order.
    """
    if not (scan.last(x) or x.is_contiguous()):
        x = x.clone()
    return x if scan.last(x) else x.contiguous()
