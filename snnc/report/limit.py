"""The quantised limit: what the same thresholds give once no spike comes too early or too late."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from snnc.ir.neurons import Neuron
from snnc.ir.temporal import Decode, Encode, Frames, Restart, StepCurrent, TemporalMax


class QuantisedLimit(fx.Interpreter):
    """Runs a spiking graph as the clip-quantised ANN that it tends to: one pass, no time.

    With z the current, theta the height of a spike, top the largest output of one step and t the number of steps, each
    neuron gives

        theta / t * clip(floor((v0 + t z) / theta), 0, t top / theta)

    which is `ClipQuant` with t top / theta levels. A layer-synchronous network of `AverageIF` with the same thresholds
    gives the same after t steps, for 0 <= v0 <= theta (Yan et al., arXiv 2211.08410). What a network loses against it
    is unevenness; what it loses against the ANN is clipping and quantisation too.

    Neurons that calibrate on each sample are taken at their nominal v0; a delayed readout has no meaning here.

    Args:
        graph: a spiking graph.
        t: steps, which are levels.
    """

    def __init__(self, graph: fx.GraphModule, t: int) -> None:
        super().__init__(graph)
        self.t = t

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        module = self.fetch_attr(target)
        if isinstance(module, Neuron):
            return self._fire(module, args[0])
        if isinstance(module, Encode | Decode | StepCurrent):  # the last adds up to nothing over all steps
            return args[0]
        if isinstance(module, Frames):  # linear layers give the mean of their currents for the mean of the frames
            return args[0].mean(1)
        if isinstance(module, Restart):
            module = module.body
        if isinstance(module, TemporalMax):
            return module.pool(args[0])
        return super().call_module(target, args, kwargs)

    def _fire(self, neuron: Neuron, z: Tensor) -> Tensor:
        theta, v0, top = neuron.theta, neuron.v0, neuron.binary()[0]
        most = torch.round(top / theta) * self.t
        count = torch.minimum(torch.floor((v0 + z * self.t) / theta).clamp_min(0), most)
        return count * theta / self.t
