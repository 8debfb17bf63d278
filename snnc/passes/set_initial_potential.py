"""Initial membrane potentials."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import fx

from snnc.ir.exchange import encodes
from snnc.ir.graph import Stage, calls
from snnc.ir.neurons import Neuron
from snnc.passes.pipeline import Context, Pass


@dataclass(frozen=True)
class SetInitialPotential(Pass):
    """Sets `v0` of every neuron.

    For a constant current that is uniform in [0, theta] the expected error of the rate is `(v0 / theta - 1/2) / T`
    and the expected squared error `(1/12 + (v0 / theta - 1/2)^2) / T^2`: both are least at `v0 = theta / 2`.

    Options:
        rule: "half": theta / 2, the optimum; "zero"; "fraction": `fraction * theta`; "uniform" and "normal":
            random, one draw for each neuron parameter, uniform in [0, theta] or normal around theta / 2 with
            standard deviation theta / 6 (the paper's comparisons).
        fraction: for rule "fraction", in units of theta.
    """

    name = "set-initial-potential"
    takes = (Stage.SPIKING,)
    source = "OPI: Bu et al., AAAI 2022 (arXiv 2202.01440)"

    rule: Literal["half", "zero", "fraction", "uniform", "normal"] = "half"
    fraction: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("fraction", math.isfinite(self.fraction), "a number, such as 0.5")

    def apply(self, graph: fx.GraphModule, context: Context) -> int:
        generator = torch.Generator().manual_seed(context.seed)
        sites = 0
        for _, neuron in calls(graph, Neuron):
            if encodes(neuron):  # it rounds
                continue
            theta = neuron.theta
            if self.rule == "uniform":
                share = torch.rand(theta.shape, generator=generator)
            elif self.rule == "normal":
                share = 0.5 + torch.randn(theta.shape, generator=generator) / 6
            else:
                share = torch.tensor({"half": 0.5, "zero": 0.0}.get(self.rule, self.fraction))
            neuron.v0 = theta * share.to(theta)
            sites += 1
        return sites
