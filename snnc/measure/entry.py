"""What a network wants to be given: the shape of a sample, the order of its dimensions, and the range of its values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.errors import SnncError
from snnc.ir.curved import Clip
from snnc.ir.dialect import BATCHNORMS, Affine, ClipQuant, Permute, Reshape
from snnc.ir.graph import entries, module_of
from snnc.ir.shapes import every_shape, guess_input
from snnc.ir.whole import places

TOLD, GIVEN, GUESSED = "the network", "you", "a guess"
FEW = 4  # values that a sentence lists


@dataclass(frozen=True)
class Wanted:
    """What the network says of its input.

    Attributes:
        shape: of one sample, without the batch; of several inputs one each. None where nothing tells it.
        told_by: "the network", "you", or "a guess": some shape that its layers take. Others may fit as well.
        layout: the order of the dimensions.
        values: what the values should be, as far as the first layers tell; None where they tell nothing.
    """

    shape: list[Any] | None
    told_by: str | None
    layout: str | None
    values: str | None


def entry(graph: fx.GraphModule, own: Sequence[Any] | None, given: Sequence[Any] | None) -> Wanted:
    """What a graph of stage `ANN` says of its input.

    Args:
        graph: the network.
        own: the shape of one sample that the file holds, if it holds one.
        given: that which the user gave.
    """
    shape: Sequence[Any] | None = own or given
    told_by: str | None = TOLD if own else GIVEN
    if len(entries(graph)) > 1 or places(graph):
        known = None if shape is None else [list(one) if isinstance(one, tuple) else one for one in shape]
        return Wanted(known, told_by if shape else None, None, _kinds(graph))
    if shape is None:
        guess = guess_input(graph)
        shape, told_by = (None, None) if guess is None else (guess.shape[1:], GUESSED)
        if shape and _only(graph, shape):
            told_by = TOLD
    first = list(_first(graph))
    return Wanted(None if shape is None else list(shape), told_by, _layout(first, shape), _values(first))


def _kinds(graph: fx.GraphModule) -> str | None:
    """Which of several inputs are whole numbers."""
    rows = {str(node.target): count for node, count in places(graph).items()}
    told = [f"'{name}' whole numbers from 0 to {count - 1}, places in a table" for name, count in rows.items()]
    others = "" if len(rows) == len(entries(graph)) else "; the others as in training"
    return ", ".join(told) + others if rows else None


def _only(graph: fx.GraphModule, shape: Sequence[int]) -> bool:
    """Whether the layers take no other size than that which was found."""
    for more in (1, 2, 4, 8):
        for sign in (1, -1):
            other = (shape[0], *(size + sign * more for size in shape[1:]))
            try:
                if other != tuple(shape) and min(other) > 0:
                    every_shape(graph, other)
                    return False
            except SnncError:
                continue
    return True


def _first(graph: fx.GraphModule) -> Iterator[nn.Module]:
    """The modules that the input goes through, until its way parts."""
    node = next(iter(graph.graph.nodes))
    while len(node.users) == 1 and (user := next(iter(node.users))).op == "call_module":
        yield module_of(graph, user)
        node = user


def _layout(first: Sequence[nn.Module], shape: Sequence[int] | None) -> str | None:
    if shape is None or len(shape) < 2:
        return None if shape is None else "features"
    last = (0, len(shape), *range(1, len(shape)))
    if first and isinstance(first[0], Permute) and first[0].dims == last:
        return "channels last"
    return "channels first" if _takes_channels(first) else None


def _takes_channels(first: Sequence[nn.Module]) -> bool:
    """Whether a layer that knows channels comes before the dimensions are moved."""
    for module in first:
        if isinstance(module, (Permute, nn.Flatten, Reshape, nn.Linear)):
            return False
        if hasattr(module, "in_channels") or isinstance(module, BATCHNORMS):
            return True
    return False


def _values(first: Sequence[nn.Module]) -> str | None:
    """What the first layer that bounds, shifts or scales values tells of them."""
    scale, shift = torch.tensor(1.0), torch.tensor(0.0)
    shifted = False
    for module in first:
        if isinstance(module, Affine):
            scale, shift = module.scale * scale, module.scale * shift + module.shift
            shifted = True
        elif not isinstance(module, (Permute, nn.Flatten, Reshape)):
            if not shifted and (told := _bounded(module)):
                return told
            break
    return _normalised(scale.flatten(), shift.flatten()) if shifted else None


def _bounded(module: Any) -> str | None:
    if isinstance(module, BATCHNORMS):
        if module.running_mean is None or module.running_var is None:
            return None
        mean, std = module.running_mean, module.running_var.sqrt()
        return f"in training their mean was {_numbers(mean)}, their standard deviation {_numbers(std)}"
    if isinstance(module, nn.Hardtanh) and not isinstance(module, nn.ReLU6):
        return f"{module.min_val:g} to {module.max_val:g}; others are clipped"
    if isinstance(module, Clip) and module.low is not None and module.high is not None:
        return f"{_numbers(module.low)} to {_numbers(module.high)}; others are clipped"
    if isinstance(module, ClipQuant):
        return f"0 to {_numbers(module.lam)} in {module.L} levels; others are clipped"
    return None


def _normalised(scale: Tensor, shift: Tensor) -> str | None:
    """Of a network that normalises its input itself: `(x - mean) / std` as `x * scale + shift`."""
    if not bool((scale != 0).all()):
        return None
    mean, std = (-shift / scale).double(), (1 / scale).double()
    large = float(torch.maximum(mean.abs().max(), std.abs().max()))
    whole = "0 to 255, as bytes are" if large > 2 else "0 to 1, as bytes over 255 are"
    parts = [f"subtracts {_numbers(mean)}"] if bool((mean != 0).any()) else []
    parts += [f"divides by {_numbers(std)}"]
    return f"the network normalises them itself (it {' and '.join(parts)}), so probably {whole}"


def _numbers(values: Tensor) -> str:
    """A few numbers; of many the least and the greatest."""
    flat = [float(f"{value:.4g}") for value in torch.as_tensor(values).flatten().tolist()]
    if len(set(flat)) == 1:
        return f"{flat[0]:g}"
    return ", ".join(f"{v:g}" for v in flat) if len(flat) <= FEW else f"{min(flat):g} .. {max(flat):g}"
