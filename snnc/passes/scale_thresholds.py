"""Clip bounds, which become thresholds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, fx

from snnc.calibrate.statistics import shaped
from snnc.ir.dialect import ClipQuant
from snnc.ir.graph import Stage, calls
from snnc.passes.pipeline import Context, Pass
from snnc.processes import dealt


@dataclass(frozen=True)
class ScaleThresholds(Pass):
    """Chooses the clip bound `lam` (later the threshold `theta`) of every activation that `quantize-activations` made.

    Bounds that the network was trained with are kept.

    Options:
        rule: "max": the largest activation; "percentile": the one that `percent` % do not exceed (Rueckauer et al.
            2017); "mse": the bound of least mean square error of the rounding quantiser at its number of levels.
        per: one bound a "channel" or a "layer".
        percent: for rule "percentile".
        factor: multiplies every bound.
    """

    name = "scale-thresholds"
    takes = (Stage.QUANTIZED,)
    requires = (Context.statistics, Context.ceilings)
    source = "max, percentile: Rueckauer et al. 2017; mse: Li et al., ICML 2021 (arXiv 2106.06984), with rounding"

    rule: Literal["max", "percentile", "mse"] = "mse"
    per: Literal["channel", "layer"] = "channel"
    percent: float = 99.9
    factor: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("percent", 0 < self.percent <= 100, "above 0, 100 at most, such as 99.9")
        self.require("factor", 0 < self.factor < math.inf, "a number above 0, such as 1")

    def apply(self, graph: fx.GraphModule, context: Context) -> int:
        sites = [(node, module) for node, module in calls(graph, ClipQuant) if node.name in context.statistics]

        def bound(i: int) -> Tensor:
            node, module = sites[i]
            statistics = context.statistics[node.name]
            if self.rule == "max":
                return statistics.maximum(self.per)
            if self.rule == "percentile":
                return statistics.percentile(self.percent, self.per)
            return statistics.mse(module.L, module.shift, self.per)

        bounds = context.track(dealt(len(sites), bound), "choosing thresholds", len(sites))
        for (node, module), found in zip(sites, bounds, strict=True):
            lam = shaped(found * self.factor, context.statistics[node.name].rank)
            module.lam = torch.minimum(lam, context.ceilings[node.name])
        kept = sum(1 for _ in calls(graph, ClipQuant)) - len(sites)
        if kept:
            context.notes.append(f"{kept} trained bounds kept")
        return len(sites)
