"""Spellings of tables that are looked up by whole numbers, which have to be an input of the network."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx, nn

from snnc.capture.lowering import Site
from snnc.capture.values import INPUT
from snnc.ir.embedding import Embedding

TABLE = "a constant table of floats, one row for each number"


def embedding(at: Site, x: Any, weight: Any, padding_idx: Any = None, max_norm: Any = None, *_: Any, **__: Any) -> Any:
    """`F.embedding`: rows of a table. At inference a padding row is a row like the others."""
    if max_norm is not None:
        at.refuse("changes its table at each call (max_norm)", "the table as it is after training, without max_norm")
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        at.refuse("reads a table that is no constant matrix", TABLE)
    if isinstance(x, Tensor):  # such as the places of a sequence, which every sample shares
        return weight.detach()[x.long()]
    if not isinstance(x, fx.Node):
        at.refuse("is read by what is no value of a sample", INPUT)
    return at.emit(Embedding(weight.detach().clone()), x)


def module(at: Site, layer: nn.Embedding, x: Any) -> Any:
    """`nn.Embedding`."""
    return embedding(at, x, layer.weight, layer.padding_idx, layer.max_norm)


def exported(at: Site, weight: Any, x: Any, *_: Any) -> Any:
    """`aten.embedding`, whose table comes first."""
    return embedding(at, x, weight)


def gathered(at: Site, weight: Tensor, x: Any, axis: int) -> Any:
    """ONNX's `Gather` of rows of a constant."""
    if axis % max(1, weight.dim()) != 0 or not weight.is_floating_point():
        at.refuse("picks entries of a constant along another dimension than the first", TABLE)
    return embedding(at, x, weight)


def whole(at: Site, x: Any, *_: Any, **__: Any) -> Any:
    """`x.long()`, `x.int()`: nothing, for what is looked up."""
    if isinstance(x, fx.Node) and x in at.lowering.whole:
        return x
    return at.refuse("casts data to integers", "keep data in floating point")
