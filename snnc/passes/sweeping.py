"""The common part of passes that walk through a spiking network and the network before conversion side by side."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import fx

from snnc.calibrate.sweep import Sweep, SweepSite
from snnc.checks import MOST_ROUNDS
from snnc.ir.graph import Stage
from snnc.passes.pipeline import Context, Pass
from snnc.processes import Pieces
from snnc.structure import joined

log = logging.getLogger(__name__)

SAMPLES = 1024  # that a pass takes at most, unless its recipe says another number


@dataclass(frozen=True)
class SweepPass(Pass):
    """Base of the passes that go layer by layer, from the input to the output, against the network before conversion.

    Options:
        samples: calibration samples at most.
    """

    takes = (Stage.SPIKING,)
    requires = (Context.reference,)

    samples: int = field(default=SAMPLES, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("samples", self.samples >= 1, "1 or more")

    def rows(self, context: Context) -> int:
        return context.seen(self.samples) * context.T

    def sweep(self, graph: fx.GraphModule, context: Context, visit: Callable[[SweepSite], Pieces | None]) -> None:
        """Shows every layer to `visit` in its turn (`snnc.calibrate.sweep`), and notes on how many samples.

        Raises:
            SnncError: there is no calibration data.
        """
        given = joined(context.data(f"Pass '{self.name}'"))
        x = given[: self.samples]
        if len(x) < len(given) and self.samples == SAMPLES:
            log.warning(
                "'%s' takes %d of the %d calibration samples; --set %s.samples=%d takes all.",
                self.name, len(x), len(given), self.name, len(given),
            )  # fmt: skip
        Sweep(graph, context.reference, x, context.memory).run(visit, context.track)
        context.notes.append(f"on {len(x)} samples")


@dataclass(frozen=True)
class RoundsPass(SweepPass):
    """Base of those that correct the mean of each channel, again and again.

    Options:
        rounds: simulations of each layer; every one corrects what the one before left.
    """

    rounds: int = field(default=3, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("rounds", 1 <= self.rounds <= MOST_ROUNDS, f"1 to {MOST_ROUNDS}")

    def rows(self, context: Context) -> int:
        return self.rounds * super().rows(context)
