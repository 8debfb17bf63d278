"""Moving a per-channel `scale` and `shift` (both `[C]`) into the weights of a layer. Computed in float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from snnc.ir.dialect import TRANSPOSED


def scale_outputs(module: Any, scale: Tensor, shift: Tensor) -> None:
    """Makes a convolution or linear layer compute `f(x) * scale + shift`. In place."""
    weight = module.weight.double()
    s = scale.double()
    if isinstance(module, TRANSPOSED):
        # [in, out / groups, ...]: the outputs of group g are fed by the inputs of group g.
        groups = module.groups
        parts = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
        scaled = (parts * s.reshape(groups, 1, -1, 1)).reshape(weight.shape)
    else:
        scaled = weight * s.reshape(-1, *[1] * (weight.dim() - 1))
    bias = torch.zeros_like(s) if module.bias is None else module.bias.double()
    _store(module, scaled, bias * s + shift.double())


def scale_inputs(module: Any, scale: Tensor, shift: Tensor | None = None) -> None:
    """Makes a convolution or linear layer compute `f(x * scale + shift)`. In place.

    With a shift the layer must not pad with zeros: the padding is not shifted. `scale` may be shorter than the
    inputs of a linear layer, `[C]` before a flatten: each entry then stands for `in_features / C` inputs.
    """
    weight = module.weight.double()
    s = scale.double()
    t = torch.zeros_like(s) if shift is None else shift.double()
    if isinstance(module, nn.Linear) and len(s) != module.in_features:
        s, t = (v.repeat_interleave(module.in_features // len(s)) for v in (s, t))
    if isinstance(module, TRANSPOSED):
        if shift is not None:
            raise ValueError("a shift cannot be moved into a transposed convolution")
        _store(module, weight * s.reshape(-1, *[1] * (weight.dim() - 1)), None)
        return
    groups = getattr(module, "groups", 1)
    parts = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    moved = (parts * t.reshape(groups, 1, -1, 1)).sum((2, 3)).flatten()
    scaled = (parts * s.reshape(groups, 1, -1, 1)).reshape(weight.shape)
    bias = torch.zeros_like(moved) if module.bias is None else module.bias.double()
    _store(module, scaled, None if shift is None else bias + moved)


def _store(module: Any, weight: Tensor, bias: Tensor | None) -> None:
    kind = module.weight
    module.weight = nn.Parameter(weight.to(kind), requires_grad=False)
    if bias is not None:
        module.bias = nn.Parameter(bias.to(kind), requires_grad=False)


def outputs_of(module: Any) -> int:
    """Output channels (or features) of a layer with weights."""
    return int(getattr(module, "out_channels", 0) or module.out_features)


def inputs_of(module: Any) -> int:
    """Input channels (or features) of a layer with weights."""
    return int(getattr(module, "in_channels", 0) or module.in_features)
