"""The simulators that read NIR, each with the settings that NIR has no field for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snnc.readers.foreign import Foreign, library


def reached(above: Tensor) -> Tensor:
    """1 where a potential reaches the threshold, of which it is so far above."""
    return (above >= 0).to(above.dtype)


def wired(graph: Any, convert: Callable[[Any], nn.Module]) -> nn.Module:
    """A graph whose nodes a simulator converts, put together by nirtorch.

    The simulators' own `from_nir` puts nodes together by `nirtorch.load`, which is deprecated: it runs a node that
    reads several before all of these have run.
    """
    kinds = {type(node) for node in graph.nodes.values()} - {type(graph.nodes[end]) for end in ("input", "output")}
    net: nn.Module = library("nirtorch", "nirtorch").nir_to_torch(graph, dict.fromkeys(kinds, convert))
    return net


def even(graph: Any) -> Any:
    """A graph whose thresholds are all 1, for importers that take one a layer; they are set afterwards."""
    found = copy.copy(graph)
    found.nodes = {
        name: replace(node, v_threshold=np.ones_like(node.v_threshold)) if hasattr(node, "v_threshold") else node
        for name, node in graph.nodes.items()
    }
    return found


def keep_batch(net: nn.Module) -> None:
    """Makes every flattening leave the batch alone: NIR counts dimensions without it."""
    for module in net.modules():
        if isinstance(module, nn.Flatten) and module.start_dim >= 0:
            module.start_dim += 1
            module.end_dim += 1 if module.end_dim >= 0 else 0


class SpikingJelly(Foreign):
    """SpikingJelly 2.0. Its neurons have one threshold a layer, so no fixed-point network has a place."""

    simulator = package = "spikingjelly"

    def imported(self) -> nn.Module:
        exchange = library("spikingjelly.activation_based.nir_exchange", self.package)
        net: nn.Module = exchange.import_from_nir(self.graph, dt=1.0)  # r is 1 / dt, so a step lasts 1
        return net

    def adjusted(self, name: str, module: Any) -> Any:
        module.module.v_reset = None  # by subtraction
        return module

    def begin(self, batch: int) -> Any:
        for name, module in self.neurons.items():
            module.module.v = self.potentials(name, batch)


class Sinabs(Foreign):
    """Sinabs 3.1. It reads no average pools, and drops the padding of sum pools."""

    simulator = package = "sinabs"

    def imported(self) -> nn.Module:
        convert = library("sinabs.nir", self.package)._import_sinabs_module
        return wired(self.graph, lambda node: convert(node, batch_size=None, num_timesteps=self.T))

    def adjusted(self, name: str, module: Any) -> Any:
        module.spike_fn = library("sinabs.activation", self.package).SingleSpike  # it fires several in a step
        module.min_v_mem = None  # it bounds potentials from below
        return module

    def begin(self, batch: int) -> Any:
        for name, module in self.neurons.items():
            start: Any = self.potentials(name, batch)
            module.init_state_with_shape(tuple(start.shape))
            module.v_mem = start

    def steps(self, x: Tensor) -> Tensor:
        self.begin(len(x))
        output, _ = self.net(self.rows(x))
        return self.by_step(output, len(x))

    def by_step(self, train: Tensor, batch: int) -> Tensor:
        return train.reshape(batch, self.T, *train.shape[1:]).transpose(0, 1)


class SnnTorch(Foreign):
    """snnTorch 1.0, whose own importer takes one threshold a layer and adds a leak.

    A step of its neurons adds up in another order than snnc's, which in floating point moves a spike in hundreds of
    thousands. Here it adds up in snnc's.
    """

    simulator = package = "snntorch"

    def imported(self) -> nn.Module:
        net: nn.Module = library("snntorch.import_nir", self.package).import_from_nir(even(self.graph))
        keep_batch(net)
        return net

    def adjusted(self, name: str, module: Any) -> Any:
        module.init_hidden = True  # the state stays in the module, and the output is a tensor
        module.beta = torch.tensor(1.0)  # no leak
        module.threshold = self.thresholds(name)
        module.spike_grad = reached  # it fires above the threshold
        # Without a delay a potential that is still above the threshold is reset before it is compared.
        module.reset_delay = True
        # The same sum in snnc's order: the current comes last, where snnTorch subtracts last.
        module.state_function = lambda current: module.mem - module.reset * module.threshold + current
        return module

    def begin(self, batch: int) -> Any:
        for name, module in self.neurons.items():
            module.mem = self.potentials(name, batch)


class Norse(Foreign):
    """Norse 1.1. It reads no average pools, and drops the padding of sum pools.

    Norse's integrate-and-fire neurons reset to a value. Here they take a step of snnc's instead, with Norse's function
    `reset_subtract`.
    """

    simulator = package = "norse"

    def imported(self) -> nn.Module:
        net = wired(self.graph, library("norse.torch.utils.import_nir", self.package)._import_norse_module)
        keep_batch(net)
        return net

    def adjusted(self, name: str, module: Any) -> Any:
        subtract = library("norse.torch.functional.reset", self.package).reset_subtract
        kind = library("norse.torch.functional.iaf", self.package).IAFFeedForwardState

        def step(current: Tensor, state: Any, p: Any, dt: float) -> tuple[Tensor, Any]:
            u = state.v + current
            spikes = reached(u - p.v_th)
            return spikes, kind(v=subtract(spikes, u, p.v_reset, p.v_th))

        module.activation = step
        module.state_fallback = lambda current: kind(v=self.potentials(name, len(current)))
        return module

    def begin(self, batch: int) -> Any:
        return None
