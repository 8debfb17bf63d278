"""ReLU family to clip-quantisation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import fx, nn

from snnc.calibrate.observe import histograms, predict
from snnc.calibrate.statistics import Histogram, shaped
from snnc.checks import MOST_STEPS
from snnc.errors import RecipeError, SnncError
from snnc.ir.dialect import ACTIVATIONS, ClipQuant
from snnc.ir.graph import Stage, calls, module_of, replace
from snnc.ir.neurons.graded import MAX_BITS
from snnc.passes.pipeline import Context, Pass

MOST_LEVELS = 2**24  # whole numbers that float32 tells apart


@dataclass(frozen=True)
class QuantizeActivations(Pass):
    """Puts a `ClipQuant` in the place of every ReLU, ReLU6 and clamp.

    The bound is the largest activation of each channel; `scale-thresholds` refines it from the same statistics.
    Channels are the first dimension behind the batch. Where values are tokens, that dimension holds tokens: `features`
    takes the last one there. A `ClipQuant` that the network was trained with stays as it is.

    Options:
        bound: "data": one sweep over the calibration data; "moments": no data, normal approximation from what
            batch normalisation knew, propagated through the network; "trained": only bounds that the network
            brings, and an error where an activation has none.
        levels: levels L above zero, or "T", or "2T" (for offset-spike calibration with rho = 2T).
        bits: of a graded spike: L is the levels times 2^bits - 1, since a graded spike has that many heights at each
            step. Set it to the `bits` of `use-graded-neurons`; 1 is binary.
        least_levels: no fewer than this. With offset-spike calibration a neuron emits in max(T, rho) steps, so set
            this to rho: fewer levels than steps are too coarse.
        features: whether a bound found on data differs by feature, the last dimension, where a linear layer gives
            more than one vector a sample; without, it differs by token there.
        shift: 0.5 rounds (goes with v0 = theta / 2), 0 floors (goes with v0 = 0).
    """

    name = "quantize-activations"
    takes = (Stage.FOLDED,)
    gives = Stage.QUANTIZED
    uses = (Context.moments,)
    provides = (Context.statistics, Context.ceilings)
    source = "QCFS: Bu et al., ICLR 2022 (arXiv 2303.04347), clip-floor-shift activation"

    bound: Literal["data", "moments", "trained"] = "data"
    levels: int | Literal["T", "2T"] = "T"
    bits: int = 1
    least_levels: int = 1
    features: bool = False
    shift: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = isinstance(self.levels, str) or 1 <= self.levels <= MOST_STEPS
        self.require("levels", fits, f"1 to {MOST_STEPS}, or 'T', or '2T'")
        self.require("bits", 1 <= self.bits <= MAX_BITS, f"1..{MAX_BITS}")
        self.require("least_levels", 1 <= self.least_levels <= MOST_STEPS, f"1 to {MOST_STEPS}")
        self.require("shift", 0 <= self.shift < 1, "0.5 to round, 0 to floor")

    def apply(self, graph: fx.GraphModule, context: Context) -> int:
        levels = max(context.times(self.levels) * (2**self.bits - 1), self.least_levels)
        if levels > MOST_LEVELS:
            raise RecipeError(
                f"{context.times(self.levels)} levels for each of {2**self.bits - 1} heights of a spike are {levels}.",
                f"fewer steps, levels or bits: {MOST_LEVELS} levels at most, which float32 tells apart",
            )
        sites = [node for node, _ in calls(graph, *ACTIVATIONS)]
        if not sites:
            context.statistics, context.ceilings = {}, {}
            return 0
        if self.bound == "trained":
            raise SnncError(
                f"'{sites[0].name}' has no trained clip bound ({len(sites)} activations have none).",
                "the recipe 'cos' or 'opi' with calibration data, or 'data-free'",
            )
        if self.bound == "data":
            context.statistics = self._observe(graph, sites, context)
        else:
            example = context.example(graph)
            if example is None:
                raise SnncError("the shape of the input is unknown.", "--input-shape, such as --input-shape 3,32,32")
            found = predict(graph, example, context.moments)
            context.statistics = {site.name: found[site.name] for site in sites}
            known = sum(site.all_input_nodes[0].name in context.moments for site in sites)
            rest = len(sites) - known
            context.notes.append(
                f"no data was seen: thresholds come straight from batch normalisation in {known} of {len(sites)} layers"
                + (f", and are predicted from the layers before in {rest}" if rest else "")
            )
        ceilings = {}
        for node, module in calls(graph, *ACTIVATIONS):
            statistics = context.statistics[node.name]
            lam = shaped(statistics.maximum("channel"), statistics.rank)
            replace(graph, node, ClipQuant(clipped(lam, module), levels, self.shift))
            ceilings[node.name] = torch.tensor(getattr(module, "max_val", math.inf)).to(lam)
        context.ceilings = ceilings
        return len(sites)

    def _observe(self, graph: fx.GraphModule, sites: list[fx.Node], context: Context) -> dict[str, Histogram]:
        """What reaches each activation, by channel or by feature."""
        batches = context.track(context.data(f"Pass '{self.name}'"), "observing activations")
        last = {site.all_input_nodes[0] for site in sites if self.features and _linear(graph, site.all_input_nodes[0])}
        found = histograms(graph, sites, batches, lambda n, value: value.movedim(-1, 1) if n in last else value)
        for site in sites:
            if site.all_input_nodes[0] in last:
                found[site.name].rank = 0  # no dimensions stand behind the last
        return found


def _linear(graph: fx.GraphModule, node: fx.Node) -> bool:
    return node.op == "call_module" and isinstance(module_of(graph, node), nn.Linear)


def clipped(lam: torch.Tensor, module: nn.Module) -> torch.Tensor:
    """A bound above the activation's own (6 for ReLU6) would only waste levels."""
    return lam.clamp_max(module.max_val) if isinstance(module, nn.Hardtanh) else lam
