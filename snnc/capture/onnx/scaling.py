"""ONNX `Upsample` and `Resize`: a map scaled to the nearest pixel, or by linear and cubic interpolation."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.capture import gathering, resizing
from snnc.capture.onnx import smoothing
from snnc.capture.onnx.model import AGAIN
from snnc.capture.onnx.site import OnnxSite

HALVES = "coordinate_transformation_mode half_pixel and nearest_mode floor"
MOST_SIDE = 2**14  # of a map that is scaled
WHOLE = 1e-4  # of a value: what a factor in float32 may miss a whole size by


def upsample(at: OnnxSite, x: fx.Node, scales: Any = None) -> Any:
    """`Upsample`, and `Resize` as it was in opset 10."""
    scales = _reals(at, at.get("scales") if scales is None else scales)
    # These versions leave open which pixel a smaller map takes; runtimes differ.
    return _resize(
        at, x, scales, None, "asymmetric", *(("floor", "ceil") if min(scales, default=1) < 1 else ("floor",))
    )


def resize(at: OnnxSite, x: fx.Node, roi: Any = None, scales: Any = None, sizes: Any = None) -> Any:
    """`Resize`."""
    if at.opset < 11:
        return upsample(at, x, roi)
    if at.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        at.refuse("keeps the aspect ratio", "scale by constant factors")
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
    """Maps scaled dimension by dimension; nearest values by all of the given roundings, which have to agree."""
    before = at.known(x)
    if not (sizes or (scales and len(scales) == len(before) + 1)):
        at.refuse("has no scale for each dimension", AGAIN)
    after = list(sizes[1:]) if sizes else [math.floor(n * s) for n, s in zip(before, scales[1:], strict=True)]
    if after[0] != before[0] or (scales and scales[0] != 1):
        at.refuse("scales the batch or the channels", "scale maps alone")
    if not all(0 < new <= MOST_SIDE for new in after):
        at.refuse(f"scales a map to {after[1:]}", "check its scales")
    cut = scales and any(abs(n * s - new) > WHOLE for n, s, new in zip(before, scales[1:], after, strict=True))
    if placed == "align_corners" and cut:
        at.refuse("scales to a part of a value, which the standard and its runtimes read differently", HALVES)
    mode = at.get("mode", "nearest")
    if mode != "nearest":
        return _smooth(at, x, mode, scales, after, placed)
    same = True
    lines = []
    for axis, (old, new) in enumerate(zip(before[1:], after[1:], strict=True), 2):
        factor = Fraction(scales[axis]) if scales else Fraction(new, old)
        found = [_sources(old, new, factor, placed, one) for one in rounded]
        if not found[0] or any(one != found[0] for one in found):
            at.refuse(f"places values by '{placed}' and '{' or '.join(rounded)}'", HALVES)
        lines.append(found[0])
        given = {"scale_factor": scales[axis]} if scales else {"size": new}
        line = torch.arange(old, dtype=torch.float32).reshape(1, 1, old)
        same &= found[0] == nn.Upsample(mode="nearest", **given)(line).flatten().int().tolist()
    if not same:
        for dim, one in enumerate(lines, 2):
            x = gathering.index_select(at, x, dim, torch.tensor(one))
        return x
    if scales:
        return resizing.interpolate(at, x, None, tuple(scales[2:]))
    return resizing.interpolate(at, x, tuple(after[1:]))


def cumsum(at: OnnxSite, x: fx.Node, axis: Any) -> Any:
    """`CumSum`: of what stands before, and from the back, where its attributes say so."""
    dim = at.axis(x, (at.numbers(axis) or [0])[0])
    weight = torch.ones([at.known(x)[dim - 1]] * 2).tril(-1 if at.get("exclusive", 0) else 0)
    return resizing.mixed(at, x, dim, weight.mT if at.get("reverse", 0) else weight)


def grid_sample(at: OnnxSite, x: fx.Node, grid: Any) -> Any:
    """`GridSample` at constant places."""
    mode, border = (str(at.get(*named)) for named in (("mode", "linear"), ("padding_mode", "zeros")))
    known = {"linear": "bilinear", "cubic": "bicubic"}
    return resizing.grid_sample(at, x, grid, known.get(mode, mode), border, bool(at.get("align_corners", 0)))


def _smooth(at: OnnxSite, x: fx.Node, mode: str, scales: Any, after: list[int], placed: str) -> Any:
    """Linear and cubic interpolation: a matrix for each dimension."""
    if at.opset < 11:
        at.refuse("leaves open where new values stand; runtimes differ", "export it with opset 11 or newer")
    if mode not in ("linear", "cubic"):
        at.refuse(f"scales a map by '{mode}'", "mode nearest, linear or cubic")
    curve = smoothing.linear if mode == "linear" else smoothing.cubic(float(at.get("cubic_coeff_a", -0.75)))
    narrowed = bool(at.get("antialias", 0))
    excluded = bool(at.get("exclude_outside", 0))
    for dim, (old, new) in enumerate(zip(at.known(x)[1:], after[1:], strict=True), 2):
        factor = Fraction(scales[dim]) if scales else Fraction(new, old)
        places = _places(old, new, factor, placed)
        if not places:
            at.refuse(f"places values by '{placed}'", HALVES)
        if factor == 1 and old == new:
            continue
        wide = max(Fraction(1), 1 / factor) if narrowed else Fraction(1)
        weight = smoothing.matrix(places, old, curve, 1 if mode == "linear" else 2, excluded, wide)
        x = resizing.mixed(at, x, dim, weight)
    return x


def _places(old: int, new: int, scale: Fraction, placed: str) -> list[Fraction]:
    """Where the `new` values stand among the old ones, in exact arithmetic; nothing for ways that are not known."""
    half = Fraction(1, 2)
    centred = half / scale - half
    step, first = {
        "asymmetric": (1 / scale, Fraction(0)),
        "half_pixel": (1 / scale, centred),
        "pytorch_half_pixel": (1 / scale, centred) if new > 1 else (Fraction(0), Fraction(0)),
        "align_corners": (Fraction(old - 1, max(1, new - 1)), Fraction(0)),
        "half_pixel_symmetric": (1 / scale, Fraction(old, 2) * (1 - Fraction(new) / (old * scale)) + centred),
    }.get(placed, (None, Fraction(0)))
    return [] if step is None else [step * i + first for i in range(new)]


def _sources(old: int, new: int, scale: Fraction, placed: str, rounded: str) -> list[int]:
    """Which values ONNX copies to the `new` places; nothing for ways that are not known."""
    half = Fraction(1, 2)
    nearest = {
        "floor": math.floor,
        "ceil": math.ceil,
        "round_prefer_floor": lambda place: math.ceil(place - half),
        "round_prefer_ceil": lambda place: math.floor(place + half),
    }.get(rounded)
    places = _places(old, new, scale, placed) if nearest else []
    return [min(max(nearest(place), 0), old - 1) for place in places] if nearest else []
