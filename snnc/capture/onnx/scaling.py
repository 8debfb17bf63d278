"""ONNX `Upsample` and `Resize`: a map scaled to the nearest pixel."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.capture import layers
from snnc.capture.onnx.site import OnnxSite

MOST_SIDE = 2**14  # of a map that is scaled


def upsample(at: OnnxSite, x: fx.Node, scales: Any = None) -> Any:
    """`Upsample`, and `Resize` as it was in opset 10."""
    scales = _reals(at, at.get("scales") if scales is None else scales)
    # These versions leave open which pixel a smaller map takes; runtimes differ.
    return _resize(
        at, x, scales, None, "asymmetric", *(("floor", "ceil") if min(scales, default=1) < 1 else ("floor",))
    )


def resize(at: OnnxSite, x: fx.Node, roi: Any = None, scales: Any = None, sizes: Any = None) -> Any:
    """`Resize` to the nearest value."""
    if at.opset < 11:
        return upsample(at, x, roi)
    if at.get("keep_aspect_ratio_policy", "stretch") != "stretch" or at.get("antialias", 0):
        at.refuse("keeps the aspect ratio, or smooths", "scale by constant factors, mode nearest")
    rank = len(at.known(x)) + 1
    axes = [a % rank for a in at.get("axes", range(rank))]
    factors: list[Any] | None = None
    if isinstance(scales, Tensor) and scales.numel():
        factors = [1.0] * rank
        for axis, factor in zip(axes, _reals(at, scales), strict=True):
            factors[axis] = factor
    wanted = at.numbers(sizes)
    if wanted:
        whole = [None, *at.known(x)]
        for axis, size in zip(axes, wanted, strict=True):
            whole[axis] = None if axis == 0 else at.integer(size)
        wanted = whole
    modes = at.get("coordinate_transformation_mode", "half_pixel"), at.get("nearest_mode", "round_prefer_floor")
    return _resize(at, x, factors, wanted, *modes)


def _reals(at: OnnxSite, values: Any) -> list[float]:
    if isinstance(values, Tensor):
        values = values.flatten().tolist()
    if not isinstance(values, (list, tuple)):
        at.refuse("scales a map by what is no constant", "export it with constant scales")
    return [float(v) for v in values]


def _resize(at: OnnxSite, x: fx.Node, scales: Any, sizes: Any, placed: str, *rounded: str) -> Any:
    """Maps scaled so that each value is a copy of one, by all of the given roundings; refuses where torch's differs."""
    if at.get("mode", "nearest") != "nearest":
        at.refuse(f"scales a map by '{at.get('mode')}'", "mode nearest, and train the network with it")
    before = at.known(x)
    if not (sizes or (scales and len(scales) == len(before) + 1)):
        at.refuse("has no scale for each dimension", "check the file")
    after = list(sizes[1:]) if sizes else [math.floor(n * s) for n, s in zip(before, scales[1:], strict=True)]
    if after[0] != before[0] or (scales and scales[0] != 1):
        at.refuse("scales the batch or the channels", "scale maps alone")
    if not all(0 < new <= MOST_SIDE for new in after):
        at.refuse(f"scales a map to {after[1:]}", "check its scales")
    for axis, (old, new) in enumerate(zip(before[1:], after[1:], strict=True), 2):
        factor = Fraction(scales[axis]) if scales else Fraction(new, old)
        want = [_sources(old, new, factor, placed, one) for one in rounded]
        given = {"scale_factor": scales[axis]} if scales else {"size": new}
        line = torch.arange(old, dtype=torch.float32).reshape(1, 1, old)
        have = nn.Upsample(mode="nearest", **given)(line).flatten().int().tolist()
        if any(one != have for one in want):
            at.refuse(
                f"places values by '{placed}' and '{' or '.join(rounded)}', which torch's nearest mode does not",
                "coordinate_transformation_mode asymmetric and nearest_mode floor",
            )
    if scales:
        return layers.interpolate(at, x, None, tuple(scales[2:]))
    return layers.interpolate(at, x, tuple(after[1:]))


def _sources(old: int, new: int, scale: Fraction, placed: str, rounded: str) -> list[int]:
    """Which values ONNX copies to the `new` places, in exact arithmetic; nothing for ways that are not known."""
    half = Fraction(1, 2)
    centred = half / scale - half
    step, first = {
        "asymmetric": (1 / scale, Fraction(0)),
        "half_pixel": (1 / scale, centred),
        "pytorch_half_pixel": (1 / scale, centred) if new > 1 else (Fraction(0), Fraction(0)),
        "align_corners": (Fraction(old - 1, max(1, new - 1)), Fraction(0)),
        "half_pixel_symmetric": (1 / scale, Fraction(old, 2) * (1 - Fraction(new) / (old * scale)) + centred),
    }.get(placed, (Fraction(0), Fraction(0)))
    nearest = {
        "floor": math.floor,
        "ceil": math.ceil,
        "round_prefer_floor": lambda place: math.ceil(place - half),
        "round_prefer_ceil": lambda place: math.floor(place + half),
    }.get(rounded)
    if nearest is None or not step:
        return []
    return [min(max(nearest(step * i + first), 0), old - 1) for i in range(new)]
