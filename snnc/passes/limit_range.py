"""Value-range encoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import fx

from snnc.checks import MOST_STEPS
from snnc.errors import SnncError
from snnc.ir.dialect import ClipQuant
from snnc.ir.graph import Stage, calls, replace
from snnc.passes.pipeline import Context, Pass


@dataclass(frozen=True)
class LimitRange(Pass):
    """Gives every activation T levels at a resolution finer than 1 / T, and cuts off the range that they do not reach.

    With lam the bound of the whole range, N the resolution and M = T / N,

        a = floor(N clip(z, 0, M lam) / lam) lam / N

    is `ClipQuant` with bound M lam, L = T and shift 0, since M / T = 1 / N. A neuron tells T + 1 values apart in T
    steps: value-range (VR) encoding spends them where activations are frequent. Made for networks that are retrained
    with it.

    A trained `ClipQuant` of T levels already has its range, and is kept.

    No data. What it costs: what exceeds M lam is clipped.

    Options:
        resolution: N, levels of the whole range, a number from T up (not necessarily whole); "auto": 1.25 T, and 2.5
            at least, which are the paper's 10 at T = 8, 20 at 16, 40 at 32 and 2.5 at 1.
        shift: of the `ClipQuant`. 0 floors, 0.5 rounds. The small default floors, and lets a tie fire that rounding
            errors left below the edge, as the paper's threshold M - 0.001 does.
    """

    name = "limit-range"
    takes = (Stage.QUANTIZED,)
    uses = (Context.ceilings,)
    source = "VR encoding: Yan, Zhou, Wong (arXiv 2211.08410)"

    resolution: float | Literal["auto"] = "auto"
    shift: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = isinstance(self.resolution, str) or 1 <= self.resolution <= MOST_STEPS
        self.require("resolution", fits, f"T or more, {MOST_STEPS} at most, or 'auto'")
        self.require("shift", 0 <= self.shift < 1, "0.001 to floor, 0.5 to round")

    def apply(self, graph: fx.GraphModule, context: Context) -> int:
        N = max(1.25 * context.T, 2.5) if isinstance(self.resolution, str) else self.resolution
        if context.T > N:
            raise SnncError(
                f"{context.T} steps reach beyond a range of {N:g} levels.", f"a resolution of {context.T} or more"
            )
        sites = kept = trained = 0
        for node, quant in calls(graph, ClipQuant):
            if quant.L == context.T and node.name not in context.ceilings:
                kept += 1
                continue
            trained += node.name not in context.ceilings
            replace(graph, node, ClipQuant(quant.lam * (context.T / N), context.T, self.shift))
            sites += 1
        if trained:
            context.notes.append(
                f"{trained} bounds that were trained with other levels than {context.T} are limited too"
            )
        if kept:
            context.notes.append(f"{kept} activations were trained with {context.T} levels and keep their range")
        return sites
