"""Attention, as a function and as the modules of `torch.nn`, in terms of linear layers, products and softmax."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from snnc.capture import choices, curved, layers, norms, pools, routes, spellings
from snnc.capture.layout import MOVED, Laid, permute
from snnc.capture.lowering import Site
from snnc.capture.values import Batch, Spelling, Truth
from snnc.ir.curved import MatMul


def attention(
    at: Site, q: Any, k: Any, v: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
    scale: float | None = None, enable_gqa: bool = False, **_: Any,
) -> Any:  # fmt: skip
    """`F.scaled_dot_product_attention`: values are `[B, ..., N, C]`."""
    return _attended(at, q, k, v, attn_mask, dropout_p, is_causal, scale, enable_gqa)[0]


def _attended(
    at: Site, q: Any, k: Any, v: Any, mask: Any, dropout: float, causal: bool, scale: Any, grouped: bool
) -> tuple[Any, Any]:
    """The values attended to, and the weights of attention."""
    if dropout:
        at.refuse("drops values at inference as well", "dropout_p=0.0 in eval mode")
    ranks = {at.rank(x) if isinstance(x, fx.Node) else None for x in (q, k, v)}
    if len(ranks) != 1 or (ranks.copy().pop() or 0) < 3:
        at.refuse("attends across the batch", "query, key and value of shape [B, ..., N, C], all from the input")
    length, size = at.known(q)[-2:]
    if grouped and at.known(q)[-3] != at.known(k)[-3]:
        return _grouped(at, q, k, v, mask, causal, scale)
    if causal:
        mask = torch.ones(length, at.known(k)[-2], dtype=torch.bool).tril()
    scores = at.emit(MatMul(), q, routes.transpose(at, k, -2, -1), part="scores")
    scores = spellings.mul(at, scores, 1 / math.sqrt(size) if scale is None else scale)
    scores = masked(at, scores, mask)
    weights = at.emit(nn.Softmax((at.rank(scores) or 0) - 1), scores, part="softmax")
    return at.emit(MatMul(), weights, v, part="attended"), weights


def _grouped(at: Site, q: Any, k: Any, v: Any, mask: Any, causal: bool, scale: float | None) -> tuple[Any, Any]:
    """Several heads of queries for each head of keys, as one more dimension."""
    *front, heads, length, size = at.known(q)
    few = at.known(k)[-3]
    if isinstance(mask, Tensor) and mask.dim() > 2:
        at.refuse("masks groups of heads one by one", "a mask of two dimensions")
    q = routes.reshape(at, q, Batch(), *front, few, heads // few, length, size)
    k, v = (routes.unsqueeze(at, x, (at.rank(x) or 0) - 2) for x in (k, v))
    y, weights = _attended(at, q, k, v, mask, 0.0, causal, scale, False)
    return routes.reshape(at, y, Batch(), *front, heads, length, at.known(y)[-1]), weights


def masked(at: Site, scores: Any, mask: Any) -> Any:
    """Scores with what must not be seen far below all others."""
    if mask is None:
        return scores
    if isinstance(mask, Truth):
        return choices.where(at, mask, scores, -spellings.FAR)
    if isinstance(mask, fx.Node):
        return spellings.add(at, scores, mask)
    if not isinstance(mask, Tensor):
        raise TypeError(f"a mask is a tensor, not {mask!r}")
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=at.lowering.like.dtype).masked_fill(~mask, -spellings.FAR)
    mask = choices.finite(mask.to(at.lowering.like.dtype))
    if bool((mask.amax(-1) <= -spellings.FAR).any()):
        at.refuse("masks every value that one query could see", "a mask that leaves each query something")
    return scores if not mask.any() else spellings.add(at, scores, mask)


def multihead(
    at: Site, module: Any, query: Any, key: Any, value: Any, key_padding_mask: Any = None, need_weights: bool = True,
    attn_mask: Any = None, average_attn_weights: bool = True, is_causal: bool = False,
) -> Any:  # fmt: skip
    """`nn.MultiheadAttention`. What is called causal there must come with its mask."""
    if module.bias_k is not None or module.add_zero_attn:
        at.refuse("attends to constants of its own", "add_bias_kv and add_zero_attn left out")
    if key_padding_mask is not None and not _all_seen(key_padding_mask):
        at.refuse("masks keys of each sample", "a mask that is the same for all samples")
    order = [1, 0, 2]
    if module.batch_first:
        fed = [query, key, value]
    else:
        fed = [permute(at, x, order) if isinstance(x, Laid) else x for x in (query, key, value)]
        if not all(isinstance(x, Laid) for x in (query, key, value)):
            at.refuse("attends across the batch", "batch_first=True, or the batch as the second dimension")
    if not all(isinstance(x, fx.Node) and at.rank(x) == 3 for x in fed):
        at.refuse(*MOVED)
    if isinstance(attn_mask, Tensor) and attn_mask.dim() == 3:
        at.refuse("masks each sample and head by itself", "a mask of two dimensions")
    if isinstance(attn_mask, Tensor) and attn_mask.dtype == torch.bool:
        attn_mask = ~attn_mask  # here True is what must not be seen
    weights, biases = projections(module)
    y, seen = _heads(at, fed, module.num_heads, weights, biases, module.out_proj, attn_mask)
    seen = pools.mean(at, seen, 1) if average_attn_weights else seen
    if not module.batch_first:
        y = permute(at, y, order)
    return y, (seen if need_weights else None)


def _all_seen(mask: Any) -> bool:
    return isinstance(mask, Tensor) and not mask.any()


def projections(module: Any) -> tuple[list[Tensor], list[Tensor | None]]:
    """Weights and biases of query, key and value."""
    if module.in_proj_weight is not None:
        weights = list(module.in_proj_weight.chunk(3))
    else:
        weights = [module.q_proj_weight, module.k_proj_weight, module.v_proj_weight]
    bias = module.in_proj_bias
    return weights, list(bias.chunk(3)) if bias is not None else [None, None, None]


def _heads(at: Site, fed: list[Any], heads: int, weights: Any, biases: Any, out: Any, mask: Any) -> tuple[Any, Any]:
    """Attention of several heads over values `[B, N, C]`, and the weights of attention `[B, heads, N, N]`."""
    parts = []
    for x, weight, bias in zip(fed, weights, biases, strict=True):
        x = layers.linear(at, x, weight, bias)
        length, size = at.known(x)
        x = routes.reshape(at, x, Batch(), length, heads, size // heads)
        parts.append(routes.permute(at, x, 0, 2, 1, 3))
    q, k, v = parts
    y, seen = _attended(at, q, k, v, mask, 0.0, False, None, False)
    _, length, size = at.known(y)
    y = routes.permute(at, y, 0, 2, 1, 3)
    y = routes.reshape(at, y, Batch(), length, heads * size)
    return layers.linear(at, y, out.weight, out.bias), seen


ACTIVATIONS: dict[Any, Spelling] = {
    functional.relu: spellings.relu,
    torch.relu: spellings.relu,
    functional.gelu: curved.gelu,
    functional.silu: curved.SPELLINGS["silu"],
}


def encoder_layer(
    at: Site, module: Any, src: Any, src_mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool = False
) -> Any:
    """`nn.TransformerEncoderLayer`."""
    first = module.self_attn.batch_first
    x = src
    if not first:
        if not isinstance(src, Laid):
            at.refuse("attends across the batch", "batch_first=True, or the batch as the second dimension")
        x = permute(at, src, [1, 0, 2])
    if not (isinstance(x, fx.Node) and at.rank(x) == 3):
        at.refuse(*MOVED)
    if src_key_padding_mask is not None and not _all_seen(src_key_padding_mask):
        at.refuse("masks keys of each sample", "a mask that is the same for all samples")
    if isinstance(src_mask, Tensor) and src_mask.dtype == torch.bool:
        src_mask = ~src_mask
    inside = module.activation
    own = ACTIVATIONS.get(inside)

    def attend(x: Any) -> Any:
        attn = module.self_attn
        return _heads(at, [x] * 3, attn.num_heads, *projections(attn), attn.out_proj, src_mask)[0]

    def feed(x: Any) -> Any:
        x = layers.linear(at, x, module.linear1.weight, module.linear1.bias)
        x = own(at, x) if own else at.apply(inside, x)
        return layers.linear(at, x, module.linear2.weight, module.linear2.bias)

    for part, norm in ((attend, module.norm1), (feed, module.norm2)):
        if module.norm_first:
            x = spellings.add(at, x, part(at.apply(norm, x)))
        else:
            x = at.apply(norm, spellings.add(at, x, part(x)))
    return x if first else permute(at, x, [1, 0, 2])


def encoder(
    at: Site, module: Any, src: Any, mask: Any = None, src_key_padding_mask: Any = None, is_causal: Any = None
) -> Any:
    """`nn.TransformerEncoder`."""
    x = src
    for layer in module.layers:
        x = at.apply(layer, x, mask, src_key_padding_mask)
    if module.norm is None:
        return x
    if isinstance(x, Laid):
        return permute(at, at.apply(module.norm, permute(at, x, [1, 0, 2])), [1, 0, 2])
    return at.apply(module.norm, x)


# What `torch.export` makes of these modules' fast path.


class _Out:
    def __init__(self, weight: Any, bias: Any) -> None:
        self.weight, self.bias = weight, bias


def fast_layer(
    at: Site, src: Any, embed: int, heads: int, qkv_w: Any, qkv_b: Any, out_w: Any, out_b: Any, use_gelu: bool,
    norm_first: bool, eps: float, w1: Any, b1: Any, w2: Any, b2: Any, up_w: Any, up_b: Any, down_w: Any, down_b: Any,
    mask: Any = None, mask_type: Any = None,
) -> Any:  # fmt: skip
    """ATen's `_transformer_encoder_layer_fwd`."""
    mask = _fast_mask(at, mask, mask_type)
    out = _Out(out_w, out_b)

    def attend(x: Any) -> Any:
        return _heads(at, [x] * 3, heads, qkv_w.chunk(3), qkv_b.chunk(3), out, mask)[0]

    def feed(x: Any) -> Any:
        x = layers.linear(at, x, up_w, up_b)
        x = curved.gelu(at, x) if use_gelu else spellings.relu(at, x)
        return layers.linear(at, x, down_w, down_b)

    x = src
    for part, weight, bias in ((attend, w1, b1), (feed, w2, b2)):
        if norm_first:
            x = spellings.add(at, x, part(norms.layer_norm(at, x, (embed,), weight, bias, eps)))
        else:
            x = norms.layer_norm(at, spellings.add(at, x, part(x)), (embed,), weight, bias, eps)
    return x


def fast_attention(
    at: Site, query: Any, key: Any, value: Any, embed: int, heads: int, qkv_w: Any, qkv_b: Any, out_w: Any, out_b: Any,
    mask: Any = None, need_weights: bool = True, average: bool = True, mask_type: Any = None,
) -> Any:  # fmt: skip
    """ATen's `_native_multi_head_attention`."""
    fed = [query, key, value]
    y, seen = _heads(
        at, fed, heads, qkv_w.chunk(3), qkv_b.chunk(3), _Out(out_w, out_b), _fast_mask(at, mask, mask_type)
    )
    return y, pools.mean(at, seen, 1) if average else seen


def _fast_mask(at: Site, mask: Any, kind: Any) -> Any:
    if mask is None:
        return None
    if not isinstance(mask, Tensor) or kind not in (0, None) or mask.dim() != 2:
        at.refuse("masks keys of each sample", "a mask that is the same for all samples")
    return ~mask if mask.dtype == torch.bool else mask


SPELLINGS: dict[str, Spelling] = {"scaled_dot_product_attention": attention}
OWN: dict[type[nn.Module], Spelling] = {
    nn.MultiheadAttention: multihead,
    nn.TransformerEncoderLayer: encoder_layer,
    nn.TransformerEncoder: encoder,
}
# These read the view of a value themselves.
LAID = frozenset({"MultiheadAttention", "TransformerEncoderLayer", "TransformerEncoder"})
