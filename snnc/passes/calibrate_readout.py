"""The last layer against what it is used for: the classes of the network before conversion."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, fx, nn

from snnc.calibrate.holding import size_of
from snnc.calibrate.readout import by_classes
from snnc.calibrate.regression import refit
from snnc.calibrate.sweep import SweepSite
from snnc.ir.dialect import HEADS
from snnc.ir.graph import module_of
from snnc.ir.temporal import Decode
from snnc.passes.pipeline import Context
from snnc.passes.sweeping import SweepPass
from snnc.processes import Pieces, Shards, dealt


@dataclass(frozen=True)
class CalibrateReadout(SweepPass):
    """Refits the last linear layer to the steps that are read out, and then to the classes before conversion.

    `calibrate-weights` fits the last layer as all others, to the mean over all steps. What is read out may be the later
    steps alone, and scores that are near may still have another largest one. With x what the layer is given at the
    steps that count, and z what it gave before conversion:

        W, b <- argmin  mean |W x + b - z|^2  +  strength |W - W_before|^2
        W, b <- argmin  mean KL(softmax(z), softmax(y))  +  mean |y - z|^2 / variance of z  +  pull |W - W_before|^2

    with y = W x + b. Both problems are convex. `strength` is that of `calibrate-weights`; it and `pull` are in units of
    the variance of an input. No labels. Where the last layer is not linear, or gives more than one row for a sample,
    nothing is done.

    Options:
        fit: "classes": as above; "squares": the first line alone, for outputs that are no class scores. A single
            number is fitted by squares in any case.
        ridge: of `strength`, in the first line.
        pull: of the second line.
        samples: calibration samples at most.
    """

    name = "calibrate-readout"
    source = "ours; distillation (Hinton et al., arXiv 1503.02531) of the last layer alone, which is a convex problem"

    fit: Literal["classes", "squares"] = "classes"
    ridge: float = 0.03
    pull: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("ridge", 0 <= self.ridge < math.inf, "0 or more")
        self.require("pull", 0 < self.pull < math.inf, "above 0, such as 0.1")

    def apply(self, graph: fx.GraphModule, context: Context) -> int:
        last = readout(graph)
        if last is None:
            context.notes.append("the last layer is not linear")
            return 0
        generator = torch.Generator().manual_seed(context.seed)
        sites = 0

        def visit(site: SweepSite) -> None:
            nonlocal sites
            if site.node is not last or len(size_of(site.wanted)) != 2:
                return
            layer, shards = site.module, site.sweep.shards
            seen = site.sweep.means(site.node, site.inputs[0])
            sites += refit(layer, seen, site.wanted, shards, self.ridge, shards.samples, generator)
            if self.fit == "classes" and layer.out_features > 1:
                by_classes(layer, gathered(seen, shards), gathered(site.wanted, shards), self.pull)

        self.sweep(graph, context, visit)
        return sites


def gathered(value: Pieces, shards: Shards) -> Tensor:
    """A value of all samples, on every process."""
    return torch.cat(list(dealt(len(shards.sizes), lambda i: value[i])))


def readout(graph: fx.GraphModule) -> fx.Node | None:
    """The linear layer whose output, a row for each sample, is that of the network; None where there is none such."""
    (result,) = (node for node in graph.graph.nodes if node.op == "output")
    nodes = result.all_input_nodes
    while len(nodes) == 1 and nodes[0].op == "call_module" and len(nodes[0].users) == 1:
        module = module_of(graph, nodes[0])
        if isinstance(module, nn.Linear):
            return nodes[0]
        if not isinstance(module, (Decode, *HEADS)):
            return None
        nodes = nodes[0].all_input_nodes
    return None
