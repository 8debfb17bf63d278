"""Samples that change in time, on their way to a network of single frames: how many frames, and whether they fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from snnc.capture.doors import blockers
from snnc.errors import DataError, RecipeError
from snnc.ir.frames import WAYS_HINT
from snnc.structure import Samples, Shape, changed, each, several_shapes

DATA_HINT = "samples [N, T, ...], T frames each; where time stands first, x.transpose(0, 1), or --time-first"


def counted_frames(samples: Samples | None, T: int | None) -> int:
    """The number of frames in samples `[B, T, ...]`; T itself where there are none.

    Raises:
        DataError: no frames, or another number than T.
        RecipeError: neither samples nor T tell it.
    """
    if samples is None:
        if T is None:
            raise RecipeError(
                "Nothing tells how many frames a sample has.", "--T FRAMES (T= in Python), or calibration data"
            )
        return T
    counts = {one.shape[1] if one.dim() > 2 else 0 for one in each(samples)}
    if len(counts) > 1 or 0 in counts:
        sizes = " and ".join(str(tuple(one.shape)) for one in each(samples))
        raise DataError(f"The calibration data of shape {sizes} are not frames, one number of them for all.", DATA_HINT)
    (found,) = counts
    if T is not None and found != T:
        if len(samples) == T:
            raise DataError(f"The calibration data have {T} in front, the number of frames.", DATA_HINT)
        raise DataError(
            f"The calibration data have {found} frames a sample, and T is {T}.", f"--T {found}, or data of {T} frames"
        )
    return found


def one_frame(samples: Samples) -> Samples:
    """The first frame of each sample."""
    return changed(lambda one: one[:, 0], samples)


def framed_shape(shape: Shape, T: int) -> Shape:
    """The shape of a sample of T frames, from that of one frame; of several inputs one each."""
    return tuple((T, *one) for one in shape) if several_shapes(shape) else (T, *shape)


def misframed(model: Any, shape: Sequence[Any], frames: str | bool | None) -> DataError | None:
    """What to say of calibration samples of a `shape` that do not go through a network, if frames are why."""
    if several_shapes(shape) or len(shape) < 2:
        return None
    if frames and not blockers(model, tuple(shape)):
        return DataError(
            f"Samples of shape {tuple(shape)} go through the network as they are, so they hold no frames.",
            f"the network compiled without frames, or {DATA_HINT}",
        )
    if not frames and not blockers(model, tuple(shape[1:])):
        return DataError(
            f"Samples of shape {tuple(shape)} do not go through the network, and their parts of shape "
            f"{tuple(shape[1:])} do, as frames would.",
            f"--frames (frames= in Python): {WAYS_HINT}",
        )
    return None
