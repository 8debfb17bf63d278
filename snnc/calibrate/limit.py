"""How much memory a calibration may take, and into what shards samples are cut so that it can do with little."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

from torch import fx

from snnc.calibrate.observe import watch
from snnc.errors import RecipeError
from snnc.ir.frames import folded
from snnc.launched import neighbours
from snnc.memory import free, resident
from snnc.processes import Shards
from snnc.structure import Samples

log = logging.getLogger(__name__)

SAMPLES = 64  # of a shard at most, which a layer computes at a time
SHARD = 2**27  # bytes of the largest value of a shard, unless one sample has more
BESIDE = 7  # such values that a layer needs while it is computed


def sharded(samples: int, largest: int) -> Shards:
    """How samples are cut for a calibration: by the network and T alone, since sums depend on it.

    Args:
        samples: all of them.
        largest: bytes of the largest value of one sample, over all steps.
    """
    return Shards.of(samples, max(1, min(SAMPLES, SHARD // largest)))


def largest_value(graph: fx.GraphModule, x: Samples, T: int) -> int:
    """Bytes of the largest value of one sample over T steps.

    Args:
        graph: without neurons; where it runs on each frame its values hold all steps already.
        x: input `[N, ...]`, of which the first sample is run.
        T: steps.
    """
    sizes: list[int] = []
    watch(graph, x[:1], lambda _, value: sizes.append(value.nbytes))
    return max(sizes) * (1 if folded(graph) else T)


def allowed(limit: float | None) -> float:
    """Bytes that this process may hold; without a limit what it holds, and its part of half of what is free."""
    return resident() + free() / 2 / neighbours() if limit is None else limit


def least(largest: int) -> float:
    """Bytes that a calibration takes whatever the limit, from those of the largest value of a shard.

    That is what the process holds already, and what a layer needs while it is computed.
    """
    return resident() + BESIDE * largest


def limited(memory: Any, graph: fx.GraphModule, batches: Sequence[Samples] | None, T: int) -> float | None:
    """A limit in GB as bytes; warns where a calibration over T steps takes more in any case.

    Raises:
        RecipeError: it is no amount of memory.
    """
    if memory is None:
        return None
    if isinstance(memory, bool) or not isinstance(memory, int | float) or not 0 < memory < math.inf:
        raise RecipeError(f"memory is {memory!r}.", "GB that the process may hold, more than 0, such as 4")
    limit = 1e9 * memory
    if batches:
        largest = largest_value(graph, batches[0], T)
        shard = sharded(sum(map(len, batches)), largest).sizes[0]
        if (needed := least(shard * largest)) > limit:
            log.warning(
                "Calibration takes at least %.3g GB, and %.3g GB are allowed: this process holds %.3g GB already, and "
                "a layer is computed for %d samples at a time.",
                needed / 1e9, memory, resident() / 1e9, shard,
            )  # fmt: skip
    return limit
