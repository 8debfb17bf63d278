"""Stand-ins for the results of refused operations, so that operations that read these are examined too.

The shape comes from the traced graph if it holds one, or from the operation itself, run on tensors without data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.capture.lowering import Lowering
from snnc.capture.refusals import Reason
from snnc.capture.values import LOST, Batch, Filled, Refused

# Samples in a batch that is run for its shape: a number that no author writes into a network.
SAMPLES = 13


def leaves(value: Any) -> Iterator[Any]:
    """The values within nested tuples, lists, dicts and slices."""
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from leaves(item)
    elif isinstance(value, dict):
        yield from leaves(list(value.values()))
    elif isinstance(value, slice):
        yield from leaves((value.start, value.stop, value.step))
    else:
        yield value


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """Nested tuples, lists, dicts and slices with each of their values changed."""
    if isinstance(value, (tuple, list)):
        items = [mapped(item, change) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, dict):
        return {k: mapped(v, change) for k, v in value.items()}
    if isinstance(value, slice):
        return slice(*(mapped(v, change) for v in (value.start, value.stop, value.step)))
    return change(value)


def caller(node: fx.Node, module: nn.Module | None) -> Callable[..., Any]:
    """What a node of a traced graph calls."""
    if module is not None:
        return module
    if node.op == "call_method":
        return lambda x, *args, **kwargs: getattr(x, str(node.target))(*args, **kwargs)
    assert callable(node.target)
    return node.target


def is_said(lowering: Lowering, refused: Refused, product: bool, values: Sequence[Any]) -> bool:
    """Whether a refusal is one: not where it may come from what is not known of another operation's result."""
    return bool(refused.reason) or (product and not refused.shape) or not lowering.is_lost(values)


def result_of(
    lowering: Lowering, node: fx.Node, module: nn.Module | None, args: Any, kwargs: Any, reason: Reason
) -> Any:
    """Stand-ins in the form of what `node` gives: one, several, or `LOST` for what is no value of a sample."""
    inputs = tuple(v for v in leaves((args, kwargs)) if isinstance(v, fx.Node))
    told = node.meta.get("val")
    if told is None and lowering.shaped:
        told = _run(lowering, node, module, args, kwargs)
    if told is None:
        if reason.alike and inputs:
            return _alike(lowering, inputs, reason)
        return lowering.stand_in(None, None, inputs, reason) if inputs else LOST

    def stand(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return LOST
        return lowering.stand_in(sample(value, lowering), None, inputs, reason)

    return mapped(told, stand)


def _alike(lowering: Lowering, inputs: tuple[fx.Node, ...], reason: Reason) -> fx.Node:
    first = inputs[0]
    shape, rank = lowering.shapes.shape(first), lowering.shapes.rank(first)
    node = lowering.stand_in(shape, rank, inputs, reason)
    if first not in lowering.lost:
        lowering.lost.discard(node)  # no less is known of it than of its input
    return node


def sample(value: Tensor, lowering: Lowering) -> tuple[int, ...] | None:
    """The shape of one sample of a value whose batch comes first; None for others."""
    if not value.dim():
        return None
    batch, *sizes = value.shape
    first = not isinstance(batch, int) or batch in (SAMPLES, lowering.batch)
    return tuple(sizes) if first and all(isinstance(n, int) for n in sizes) else None


def _run(lowering: Lowering, node: fx.Node, module: nn.Module | None, args: Any, kwargs: Any) -> Any:
    """What an operation gives on tensors without data, or None where it cannot be run on them."""
    like = lowering.like

    def meta(value: Any) -> Any:
        if isinstance(value, fx.Node):
            shape = lowering.shapes.shape(value)
            if shape is None:
                raise LookupError(value)
            return torch.empty((SAMPLES, *shape), dtype=like.dtype, device="meta")
        if isinstance(value, Filled):
            return torch.empty((SAMPLES, *value.sizes), dtype=like.dtype, device="meta")
        if isinstance(value, Tensor):
            return torch.empty_like(value, device="meta")
        return SAMPLES if isinstance(value, Batch) else value

    try:
        args, kwargs = mapped(args, meta), mapped(kwargs, meta)
        with torch.no_grad():
            if module is None:
                return caller(node, None)(*args, **kwargs)
            state = {name: torch.empty_like(value, device="meta") for name, value in module.state_dict().items()}
            return torch.func.functional_call(module, state, args, kwargs)
    except Exception:  # whatever the author's functions make of such tensors
        return None
