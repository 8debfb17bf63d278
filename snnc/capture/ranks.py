"""Values in which torch would take the samples of a batch for something else: layers tell those by their dimensions."""

from __future__ import annotations

from torch import nn

from snnc.capture.bounds import CLIPS, ROUNDINGS
from snnc.capture.values import Refused
from snnc.ir import dialect

# Layers that read a value with a dimension less as one sample without a batch.
SPATIAL = (*dialect.CONVOLUTIONS, *dialect.TRANSPOSED, *dialect.AVERAGE_POOLS, *dialect.MAX_POOLS)
# Layers that want a dimension beside the batch: neurons count channels there.
ACTING = (nn.Linear, nn.Flatten, nn.Upsample, *dialect.ACTIVATIONS, dialect.ClipQuant, *CLIPS, *ROUNDINGS)


def check_rank(module: nn.Module, rank: int | None) -> None:
    """Refuses a value with too few dimensions, or too many, where their number is known.

    Args:
        module: what it goes into.
        rank: its number of dimensions, the batch included.

    Raises:
        Refused: says how many it takes.
    """
    if rank is None:
        return
    least = 4 if isinstance(module, nn.PixelShuffle) else 0
    if isinstance(module, SPATIAL):
        least = 2 + int(type(module).__name__[-2])
    if rank < least or (rank > least and isinstance(module, SPATIAL)):
        why = f"takes {least} dimensions, the batch and the channels among them, and gets a value with {rank}"
        more = ": x.unsqueeze(1) adds one for a single channel" if rank < least else ""
        raise Refused(why, f"bring it to {least} dimensions{more}")
    if rank < 2 and isinstance(module, ACTING):
        why = "acts on a value of one number for each sample, without a dimension beside the batch"
        raise Refused(why, "keep that dimension here, as in relu(linear(x)), and take it out after: y.squeeze(1)")
