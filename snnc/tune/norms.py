"""Batch normalisation for the time of training.

A converted network has none: it was folded into the weights. Between coarse quantisers that makes training slow, since
whatever one layer learns shifts the currents of every layer behind it. `added` puts a normalisation behind each layer
that feeds neurons; `folded` moves it into the weights again.

Currents of single steps (`StepCurrent`) hold for the weights that they were measured with, so they are measured anew
as training goes: `Evened`.
"""

from __future__ import annotations

from typing import Any

import networkx as nx
import torch
from torch import Tensor, fx, nn
from torch.func import functional_call
from torch.nn import functional

from snnc.calibrate.algebra import scale_outputs
from snnc.errors import DataError
from snnc.ir.dialect import CONVOLUTIONS, ClipQuant
from snnc.ir.graph import PLACES, Place, calls, replace, view
from snnc.ir.neurons import Neuron
from snnc.ir.temporal import StepCurrent
from snnc.processes import dealt

MOMENTUM = 0.1


class RunningNorm(nn.Module):
    """Base: a module with running statistics.

    Attributes:
        momentum: of the running statistics; None averages over all batches since `forget`.
        seen: batches noted since then.
        fresh: statistics of the last batch, which nothing has noted yet.
    """

    def __init__(self, fresh: Tensor) -> None:
        super().__init__()
        self.momentum: float | None = MOMENTUM
        self.seen = 0
        self.fresh = fresh

    def running(self) -> tuple[Tensor, ...]:
        """The running statistics, in the order of `fresh`."""
        raise NotImplementedError

    def note(self, fresh: Tensor) -> None:
        """Lets the statistics of a batch, or of all its shards, into the running ones."""
        self.seen += 1
        momentum = 1 / self.seen if self.momentum is None else self.momentum
        for own, new in zip(self.running(), fresh, strict=True):
            own.lerp_(new.reshape(own.shape), momentum)

    def forget(self) -> None:
        """Starts the running statistics anew, as an average over what comes."""
        self.momentum, self.seen = None, 0


class Evened(RunningNorm):
    """Currents of single steps as running statistics of what evens a batch; see `snnc.passes.EvenCurrents`.

    Attributes:
        step: the `StepCurrent`, whose shifts of a channel add up to zero over time.
    """

    def __init__(self, step: StepCurrent) -> None:
        super().__init__(step.shift.clone())
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        """The currents `[T * B, C, ...]`, evened by what was noted before."""
        with torch.no_grad():
            own = x.detach().reshape(self.step.T, -1, *x.shape[1:]).transpose(1, 2).flatten(2).float().mean(2)
            self.fresh = (own.mean(0) - own).reshape(self.step.shift.shape)
        return self.step(x)

    def running(self) -> tuple[Tensor, ...]:
        return self.step.shift.unbind(0)


class Normed(RunningNorm):
    """A layer with batch normalisation behind it, by the statistics of the batch.

    Attributes:
        layer: the convolution or linear layer. Its bias is frozen: the normalisation takes any bias out again.
        weight, bias: `[C]`, the standard deviation and the mean that the output is given.
        mean, var: `[C]`, running statistics of what the layer gives.
        fresh: `[2, C]`, mean and variance of the last batch.
        eps: added to the variance.
    """

    mean: Tensor
    var: Tensor

    def __init__(self, layer: Any, mean: Tensor, var: Tensor, eps: float = 1e-5) -> None:
        super().__init__(torch.stack([mean, var]))
        self.layer, self.eps = layer, eps
        if layer.bias is None:
            layer.bias = nn.Parameter(torch.zeros_like(mean))
        layer.bias.requires_grad_(False)
        self.weight, self.bias = nn.Parameter((var + eps).sqrt()), nn.Parameter(mean.clone())
        self.register_buffer("mean", mean.clone())
        self.register_buffer("var", var.clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.measured(x)[0]

    def measured(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The normalised output, and the scale and shift `[C]` (off the tape) that made it."""
        mean, var = torch.zeros_like(self.mean), torch.zeros_like(self.var)
        value = self.layer(x)
        if value.numel() == value.shape[1]:
            raise DataError(
                "A batch of one sample has no variance to normalise by.", "a larger batch, more data, or norms 'none'"
            )
        out = functional.batch_norm(value, mean, var, self.weight, self.bias, True, 1.0, self.eps)
        count = value.numel() // value.shape[1]
        var = var * ((count - 1) / count)  # the running variance of torch is unbiased, what it divides by is not
        self.fresh = torch.stack([mean, var])
        return out, *self._affine(mean, var)

    def running(self) -> tuple[Tensor, ...]:
        return self.mean, self.var

    def steps(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """The output for single steps `[T * B, ...]`, normalised by what was measured on their mean."""
        weight = self.layer.weight * scale.reshape(-1, *[1] * (self.layer.weight.dim() - 1))
        changed = {"weight": weight, "bias": self.layer.bias * scale + shift}
        return functional_call(self.layer, changed, (x,))

    @torch.no_grad()
    def folded(self) -> nn.Module:
        """The layer alone, with the normalisation by running statistics in its weights. In place."""
        scale_outputs(self.layer, *self._affine(self.mean, self.var))
        return self.layer

    def _affine(self, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        scale = self.weight.detach() * (var + self.eps).rsqrt()
        return scale, self.bias.detach() - mean * scale


PLACES.add((Normed, Evened), Place())


def sites(graph: fx.GraphModule, dims: dict[str, int]) -> list[fx.Node]:
    """Layers whose output reaches an activation: convolutions, and linear layers on vectors.

    Args:
        graph: an opened graph.
        dims: number of dimensions of each node's value, by name.
    """
    net = view(graph)
    neurons = [node for node, _ in calls(graph, Neuron, ClipQuant)]
    feeding = set().union(*(nx.ancestors(net, node) for node in neurons))
    found = [(node, module) for node, module in calls(graph, *CONVOLUTIONS, nn.Linear) if node in feeding]
    return [node for node, module in found if not isinstance(module, nn.Linear) or dims[node.name] == 2]


def added(graph: fx.GraphModule, moments: dict[str, tuple[Tensor, Tensor]]) -> None:
    """Puts a normalisation behind each layer of `moments`: its mean and variance `[C]`. In place.

    Started from the moments that a layer has, it changes nothing but the batch's own deviation from them.
    """
    for node, module in calls(graph):
        if node.name in moments:
            mean, var = moments[node.name]
            replace(graph, node, Normed(module, mean, var))


def evened(graph: fx.GraphModule) -> None:
    """Has currents of single steps follow the training. In place."""
    for node, module in calls(graph, StepCurrent):
        replace(graph, node, Evened(module))


def removed(graph: fx.GraphModule) -> None:
    """Folds every normalisation, and leaves the currents of single steps as they are. In place."""
    for node, module in calls(graph, Normed):
        replace(graph, node, module.folded())
    for node, module in calls(graph, Evened):
        replace(graph, node, module.step)


def aim(graph: fx.GraphModule, wanted: dict[str, tuple[Tensor, Tensor]]) -> None:
    """Has normalisations give their layers' outputs a mean and variance `[C]`. In place."""
    for node, module in calls(graph, Normed):
        if node.name in wanted:
            mean, var = wanted[node.name]
            module.weight.data.copy_((var + module.eps).sqrt())
            module.bias.data.copy_(mean)


@torch.no_grad()
def moments(forward: Any, batches: list[Tensor]) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, int]]:
    """Mean and biased variance `[C]` of each value `[B, C, ...]` of a graph, and how many dimensions it has, by node.

    Args:
        forward: a `snnc.tune.forward.Forward` over the graph.
        batches: input.
    """

    def seen(i: int) -> dict[str, tuple[Any, ...]]:
        found: dict[str, tuple[Any, ...]] = {}

        def see(node: fx.Node, value: Any) -> None:
            if isinstance(value, Tensor) and value.dim() > 1:
                by_channel = value.double().transpose(0, 1).flatten(1)
                sums = by_channel.sum(1), by_channel.square().sum(1)
                found[node.name] = value.dim(), by_channel.shape[1], *sums

        forward.see = see
        forward.run(batches[i])
        forward.see = None
        return found

    sums: dict[str, list[Any]] = {}
    dims: dict[str, int] = {}
    for found in dealt(len(batches), seen):
        for name, (dim, *parts) in found.items():
            dims[name] = dim
            sums[name] = [a + b for a, b in zip(sums[name], parts, strict=True)] if name in sums else parts
    means = {name: ((s / n).float(), (q / n - (s / n) ** 2).clamp_min(0).float()) for name, (n, s, q) in sums.items()}
    return means, dims
