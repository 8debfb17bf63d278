"""Weights against what the neurons behind them emit: what a least squares fit to currents does not see.

A layer is fitted to the currents that the neurons behind it should get. What these emit then differs from what they
should: by rounding, clipping and the order of the spikes. Here this is looked at, at some of the layer's outputs
(`snnc.calibrate.rows`).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.calibrate.holding import frozen, size_of
from snnc.calibrate.regression import Rows, centred, solved
from snnc.calibrate.rows import covered, outputs, patches, positions
from snnc.calibrate.sweep import SweepSite
from snnc.ir.dialect import Add
from snnc.ir.graph import module_of
from snnc.ir.neurons import Neuron
from snnc.ir.temporal import StepCurrent
from snnc.processes import Pieces, Shards

ROWS = 2**17  # rows times steps, about
LARGEST = 2**27  # numbers that all rows are computed from, where a row of each sample has no more
KEPT = 0.75  # of the rows of a shard, that are fitted to; the others say which correction is best


@dataclass
class Stepped:
    """Some outputs of a layer within time, and what they are computed from at each step.

    Attributes:
        layer: convolution or linear layer.
        neuron: the node of the neurons behind it.
        source: what it is given, `[T * N, ...]`.
        at: positions of the outputs, `[N, each]`.
        x: `[T, R, groups, inputs]`, R = N * each rows.
    """

    layer: Any
    neuron: fx.Node
    source: Pieces
    at: Pieces
    x: Pieces

    @classmethod
    def of(cls, graph: fx.GraphModule, site: SweepSite, generator: torch.Generator) -> Stepped | None:
        """Those of the layer at `site`; None where it is not covered, or where no neurons alone are behind it."""
        layer, (source,), T, shards = site.module, site.inputs, site.sweep.decode.T, site.sweep.shards
        neuron = behind(graph, site.node)
        tokens = isinstance(layer, nn.Linear) and len(size_of(source)) > 2
        if neuron is None or tokens or not covered(layer):
            return None
        numbers = T * layer.weight[0].numel() * getattr(layer, "groups", 1)  # of one row
        at = positions(site.wanted, shards, min(ROWS // T, LARGEST // numbers), generator)
        now = frozen(layer)
        x = site.sweep.memory.hold(lambda i: patches(now, source[i], at[i]).unflatten(0, (T, -1)), source, light=True)
        return cls(layer, neuron, source, at, x)

    def correct(self, site: SweepSite, ridge: float, rounds: int) -> Pieces:
        """Moves weights and bias by what the neurons at `site` emit at the rows; gives their new current. In place.

        The slope of a neuron is taken for 1: `change = (covariance + pull)^-1 mean x (wanted - emitted)`, again and
        again. A neuron that is silent or emits at every step takes no notice, and no row shows an error where that is
        right. Of the corrections each channel keeps the one of least square error at rows that were not fitted to.
        """
        (currents,) = site.inputs
        if size_of(currents)[1] != len(self.layer.weight):
            return currents  # the layer's channel is spread over several
        neuron, sweep = at_rows(site.module), site.sweep
        current = {i: outputs(one, self.at[i]) for i, one in currents.items()}
        wanted = {i: outputs(one, self.at[i]) for i, one in site.wanted.items()}
        fit = _Fit({i: sweep.decode(x.flatten(0, 1)) for i, x in self.x.items()}, sweep.shards, ridge)

        def missing(weight: Tensor, bias: Tensor) -> Pieces:
            found = {}
            for i, x in self.x.items():
                more = torch.einsum("trgi,goi->trgo", x, weight).reshape(len(current[i]), -1) + bias
                found[i] = wanted[i] - sweep.decode(neuron(current[i] + more))
            return found

        groups, inputs = size_of(self.x)[2:]
        old = self.layer.weight.reshape(groups, -1, inputs)
        weight, bias = best = torch.zeros_like(old), torch.zeros_like(old[..., 0]).flatten()
        left = missing(weight, bias)
        least = fit.error(left)
        for _ in range(rounds):
            step, shift = fit.step(left)
            weight, bias = weight + step.to(weight), bias + shift.to(bias)
            left = missing(weight, bias)
            error = fit.error(left)
            better = error < least
            best = torch.where(better.reshape(groups, -1, 1), weight, best[0]), torch.where(better, bias, best[1])
            least = torch.minimum(error, least)
        change = copy.deepcopy(self.layer)
        change.weight, change.bias = _constant(best[0].reshape(self.layer.weight.shape)), _constant(best[1])
        before = torch.zeros_like(bias) if self.layer.bias is None else self.layer.bias
        self.layer.weight, self.layer.bias = _constant(self.layer.weight + change.weight), _constant(before + best[1])
        return sweep.memory.hold(lambda i: currents[i] + change(self.source[i]), currents, self.source)


class _Fit:
    """Changes of weights that take an error away, by least squares over rows; the last rows of a shard only judge."""

    def __init__(self, x: Pieces, shards: Shards, ridge: float) -> None:
        self.shards = shards
        alike = {i: one.new_ones(_kept(one), 1, 1) for i, one in x.items()}
        self.rows: Rows = {i: (one[: _kept(one)], one[: _kept(one)], alike[i]) for i, one in x.items()}
        self.count, self.mean, _ = centred(self.rows, shards)
        inputs = self.mean.shape[1]
        self.gram = self._sum(self.rows)
        variance = self.gram.diagonal(dim1=-2, dim2=-1).mean(-1)
        self.pull = torch.where(variance > 0, variance * (ridge + inputs / self.count), torch.ones_like(variance))

    def step(self, missing: Pieces) -> tuple[Tensor, Tensor]:
        """Change of weights `[groups, outputs, inputs]` and biases, for errors `[R, C]`."""
        groups = len(self.mean)
        rows: Rows = {
            i: (self.rows[i][0], one[: _kept(one)].reshape(-1, groups, one.shape[1] // groups), self.rows[i][2])
            for i, one in missing.items()
        }
        _, _, mean = centred(rows, self.shards)
        weight = solved(self.gram, self.pull, self._sum(rows)).transpose(1, 2)
        return weight, (mean - (weight @ self.mean[:, :, None])[:, :, 0]).flatten()

    def error(self, missing: Pieces) -> Tensor:
        """Sum of squares of each channel, over the rows that only judge."""
        (found,) = self.shards.total(lambda i: (missing[i][_judged(missing[i])].double().square().sum(0),))
        return found

    def _sum(self, rows: Rows) -> Tensor:
        (found,) = self.shards.total(lambda i: (torch.einsum("rgi,rgo->gio", *rows[i][:2]).double(),))
        return found / self.count


def behind(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The neurons that a layer's output goes to and nothing else does, at most through sums and currents."""
    while len(node.users) == 1:
        (node,) = node.users
        module = module_of(graph, node) if node.op == "call_module" else None
        if isinstance(module, Neuron):
            return node
        if not isinstance(module, Add | StepCurrent):
            return None
    return None


def at_rows(neuron: Neuron) -> Neuron:
    """The neurons of a layer for rows `[T * R, C]`: one threshold each channel."""
    own = copy.deepcopy(neuron)
    own.theta, own.v0 = (value.flatten() if value.dim() else value for value in (own.theta, own.v0))
    return own


def _kept(rows: Tensor) -> int:
    return max(1, int(KEPT * len(rows)))


def _judged(rows: Tensor) -> slice:
    return slice(_kept(rows), None) if _kept(rows) < len(rows) else slice(None)


def _constant(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value, requires_grad=False)
