"""Tables that whole numbers look up."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from snnc.ir.dialect import register


@register("weight")
class Embedding(nn.Module):
    """Rows of a table, by whole numbers: `[B, ...]` to `[B, ..., D]`. It stands before time.

    No layer, although it has weights: no current goes into it, and nothing calibrates them.

    Attributes:
        weight: the table, `[N, D]`.
    """

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        if weight.dim() != 2 or not weight.numel():
            raise ValueError(f"a table of shape {tuple(weight.shape)}")
        self.register_buffer("weight", weight)

    def forward(self, x: Tensor) -> Tensor:
        return functional.embedding(x.long(), self.weight)

    def extra_repr(self) -> str:
        return f"rows={self.weight.shape[0]}, size={self.weight.shape[1]}"
