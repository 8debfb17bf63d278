"""ONNX's attention (`Attention`, opset 23) and rotary positions (`RotaryEmbedding`), by way of torch's functions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from snnc.capture import attention as torch_attention
from snnc.capture import joining, routes, spellings
from snnc.capture.onnx.curved import decimal
from snnc.capture.onnx.model import AGAIN
from snnc.capture.onnx.site import OnnxSite
from snnc.capture.values import Batch

FLOAT32 = 1  # ONNX's number of the type


def attention(
    at: OnnxSite, q: Any, k: Any, v: Any, mask: Any = None, past_key: Any = None, past_value: Any = None,
    lengths: Any = None,
) -> Any:  # fmt: skip
    """`Attention` on values `[B, N, heads C]` with the number of heads, or on `[B, heads, N, C]`."""
    if past_key is not None or past_value is not None or lengths is not None:
        at.refuse("attends to keys of earlier calls", "export it without a cache")
    if at.get("softcap", 0.0):
        at.refuse("caps its scores", "softcap = 0")
    if at.get("softmax_precision", FLOAT32) not in (0, FLOAT32):
        at.refuse("takes its softmax in another precision", "softmax_precision left out")
    at.get("qk_matmul_output_mode")  # of an output that is missed where anything reads it
    causal, scale = bool(at.get("is_causal", 0)), at.get("scale")
    ranks = {at.rank(x) if isinstance(x, fx.Node) else None for x in (q, k, v)}
    joined = ranks == {3}
    if joined:
        heads, few = int(at.get("q_num_heads", 0)), int(at.get("kv_num_heads", 0))
        q, k, v = _parted(at, q, heads), _parted(at, k, few), _parted(at, v, few)
    elif ranks != {4}:
        at.refuse("attends across the batch", "query, key and value of shape [B, ..., N, C], all from the input")
    mask = _seen(at, mask, causal, at.known(q)[-2], at.known(k)[-2])
    scale = None if scale is None else decimal(scale)
    y = torch_attention.attention(at, q, k, v, mask, scale=scale, enable_gqa=True)
    if not joined:
        return y
    heads, length, size = at.known(y)
    return routes.reshape(at, routes.transpose(at, y, 1, 2), Batch(), length, heads * size)


def _parted(at: OnnxSite, x: fx.Node, heads: int) -> Any:
    """`[B, N, heads C]` as `[B, heads, N, C]`."""
    length, width = at.known(x)
    if heads < 1 or width % heads:
        at.refuse(f"parts {width} features into {heads} heads", AGAIN)
    return routes.transpose(at, routes.reshape(at, x, Batch(), length, heads, width // heads), 1, 2)


def _seen(at: OnnxSite, mask: Any, causal: bool, length: int, keys: int) -> Any:
    """The mask as torch's attention reads it. Constants of truth values come as whole numbers."""
    if isinstance(mask, Tensor):
        mask = mask if mask.is_floating_point() else mask != 0
        if mask.shape[-1] != keys:
            at.refuse(f"masks {mask.shape[-1]} keys of {keys}", AGAIN)
    if not causal:
        return mask
    seen = torch.ones(length, keys, dtype=torch.bool).tril()
    if mask is None:
        return seen
    if not isinstance(mask, Tensor):
        at.refuse("is causal and has a mask from data", "is_causal = 0 with a mask that holds both")
    return mask & seen if mask.dtype == torch.bool else mask.masked_fill(~seen, -torch.inf)


def rotary(at: OnnxSite, x: Any, cosines: Any, sines: Any, places: Any = None) -> Any:
    """`RotaryEmbedding` by constant angles: each pair of features is turned by the angle of its position."""
    if not all(isinstance(c, Tensor) for c in (cosines, sines)) or not (places is None or isinstance(places, Tensor)):
        at.refuse("turns values by angles from data", "constant angles and positions")
    heads, rank = int(at.get("num_heads", 0)), at.rank(x)
    if rank not in (3, 4):
        at.refuse("turns other than values of shape [B, N, C] or [B, heads, N, C]", AGAIN)
    y = _parted(at, x, heads) if rank == 3 else x
    few, length, size = at.known(y)
    turned = int(at.get("rotary_embedding_dim", 0)) or size
    if any(len(c) != 1 for c in ([cosines, sines] if places is None else [places])):
        at.refuse("turns each sample by angles of its own", "angles or positions that all samples share: [1, N, ...]")
    if places is not None:
        cosines, sines = cosines[places.long()], sines[places.long()]
    if any(tuple(c.shape) != (1, length, turned // 2) for c in (cosines, sines)):
        at.refuse(f"has angles of shape {tuple(cosines.shape)} for {length} positions and {turned} features", AGAIN)
    cosines, sines = (c.reshape(1, 1, length, turned // 2).to(at.lowering.like.dtype) for c in (cosines, sines))
    apart = bool(at.get("interleaved", 0))
    start, stop, step = (1, turned, 2) if apart else (turned // 2, turned, 1)
    first = routes.slice_(at, y, 3, 0, turned if apart else turned // 2, step)
    second = routes.slice_(at, y, 3, start, stop, step)
    real = spellings.sub(at, spellings.mul(at, first, cosines), spellings.mul(at, second, sines))
    imaginary = spellings.add(at, spellings.mul(at, first, sines), spellings.mul(at, second, cosines))
    if apart:
        pairs = [routes.unsqueeze(at, part, 4) for part in (real, imaginary)]
        whole = routes.reshape(at, joining.cat(at, pairs, 4), Batch(), few, length, turned)
    else:
        whole = joining.cat(at, [real, imaginary], 3)
    if turned < size:
        whole = joining.cat(at, [whole, routes.slice_(at, y, 3, turned, size)], 3)
    return routes.reshape(at, routes.transpose(at, whole, 1, 2), Batch(), length, few * size) if rank == 3 else whole
