"""How many thresholds a sum of integers reaches, as operators of ONNX compute it: one product and one rounding.

For a threshold theta and an integer X the wanted number is `floor(X / theta)`. `QLinearConv` and `QuantizeLinear` give
`round((X + offset) * scale)`, in float32, with halves to even. Between two multiples of theta lie theta integers, and
the offset puts the edges of rounding between the last of them and the next multiple. So there is a range of scales that
give the wanted number for all integers; the one in its middle is taken, if the range is wide enough that a product
which is rounded cannot leave it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from snnc.ir.spans import LIMIT

ROOM = 2.0**-23  # on either side of a scale, relative: twice what a product in float32 is rounded by


def levels(theta: Tensor, most: int) -> tuple[Tensor, Tensor] | None:
    """Scale, float32, and offset, int64, for each threshold; None where no float32 number is good enough.

    Right for every integer X with a quotient up to `most`; of larger ones the result is `most` or more, and of negative
    ones 0 or less.

    Args:
        theta: positive integers `[C]`.
        most: the largest quotient that matters, at least 1.
    """
    theta = theta.detach().cpu().double()
    if float(theta.max()) * (most + 1) >= LIMIT:
        return None
    offset = -(theta / 2).floor()
    k = torch.arange(1, most + 1, dtype=torch.float64)[:, None]
    edge = k - 0.5
    lowest = (edge / (k * theta + offset)).amax(0)  # k theta has k of them
    highest = (edge / (k * theta - 1 + offset)).amin(0)  # one less has one less; infinite where that is 0
    scale = ((lowest + torch.minimum(highest, 2 * lowest)) / 2).float()
    good = (scale.double() * (1 - ROOM) > lowest) & (scale.double() * (1 + ROOM) < highest)
    return (scale, offset.long()) if bool(good.all()) else None
