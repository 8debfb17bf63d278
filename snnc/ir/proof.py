"""The proof that a fixed-point network is exact: a bound on every integer in it.

float32 holds every integer up to 2^24, and adds integers without rounding, in any order, as long as sums stay below. So
if all parameters are integers, and all values are proved to stay below 2^24, a network gives the same numbers wherever
it runs. The proof reads the graph alone. It is interval arithmetic in float64, over channels where those are known and
over the whole value elsewhere:

    layer          each partial sum lies between (sum of all negative products) and (sum of all positive products), bias
                   included with either, since it may come first or last
    neuron         `Neuron.charge`, the largest potential for the largest current
    pool in time   T times the largest input: its running sums
    readout        the sum of all steps that are read

Zero is always among the values that a layer may read: borders are padded with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.errors import VerifyError
from snnc.ir.curved import BENT
from snnc.ir.dialect import (
    AVERAGE_POOLS,
    CONVOLUTIONS,
    HEADS,
    MAX_POOLS,
    TRAINED,
    TRANSPOSED,
    WEIGHTED,
    Add,
    Affine,
    Concat,
    Grid,
    Mean,
    Mix,
    Pad,
    Permute,
    Reshape,
    Slice,
    Sub,
    Take,
)
from snnc.ir.embedding import Embedding
from snnc.ir.neurons import Neuron, OffsetIF
from snnc.ir.rows import Refusal, Table
from snnc.ir.spans import LIMIT, Row, Span, double, integers, note, shared, significant
from snnc.ir.temporal import Decode, Encode, Frames, Restart, StepCurrent, Telescoped, TemporalMax
from snnc.steady import steady

ANALOG, READ = "analog", "read"  # values before the grid, and behind a readout
Known = Span | str
Bound = Callable[[str, Any, Sequence[Span], list["Row"]], Known]


@steady()
def prove(graph: fx.GraphModule) -> list[Row]:
    """Proves that no integer of a fixed-point graph reaches 2^24.

    Returns:
        A row for each layer with weights or factors, each neuron layer, pool in time and readout.

    Raises:
        VerifyError: names the node that breaks the proof: a parameter that is no integer, an operation that leaves the
            integers, or a bound that is too large.
    """
    rows = bounded(graph)
    for row in rows:
        if row.bound >= LIMIT:
            raise VerifyError(
                f"'{row.name}' may reach {row.bound:,}, and float32 is exact below 2^24 = {LIMIT:,} alone."
            )
    return [row for row in rows if row.module not in ("Add", "Sub")]


def bounded(graph: fx.GraphModule) -> list[Row]:
    """The rows of `prove`, those of joins too, however large their bounds are.

    Raises:
        VerifyError: a number or an operation that does not belong to a fixed-point network.
    """
    rows: list[Row] = []
    known: dict[fx.Node, Known] = {}
    for node in graph.graph.nodes:
        sources = [known[source] for source in node.args if isinstance(source, fx.Node)]
        if node.op == "placeholder":
            known[node] = ANALOG
        elif node.op == "call_module":
            known[node] = _visit(node.name, graph.get_submodule(str(node.target)), sources, rows)
        elif any(known[source] != READ for source in node.all_input_nodes):
            raise VerifyError("An output of a fixed-point network is no readout.")
    return rows


def _visit(name: str, module: Any, sources: list[Known], rows: list[Row]) -> Known:
    kind = type(module).__name__
    rule = PROOFS.at(name, module, VerifyError)
    if isinstance(module, Grid):
        if sources != [ANALOG]:
            raise VerifyError(f"'{name}' puts values on a grid that are on one already.")
        return Span(double(float(module.low)), double(float(module.high)))
    if isinstance(module, Frames) and sources == [ANALOG]:
        return ANALOG
    if READ in sources:
        if set(sources) == {READ} and rule.read(module):
            return READ
        raise VerifyError(f"'{name}' ({kind}) computes with what is read out, which is no integer.")
    spans = [value for value in sources if isinstance(value, Span)]
    if len(spans) < len(sources) or not spans:
        raise VerifyError(f"'{name}' reads the analog input, and not its grid.")
    return rule.bound(name, module, spans, rows)


def _layer(name: str, module: Any, spans: Sequence[Span], rows: list[Row]) -> Span:
    (x,) = spans
    weight = integers(f"{name}.weight", module.weight)
    outputs = weight.shape[1] * module.groups if isinstance(module, TRANSPOSED) else weight.shape[0]
    bias = torch.zeros(outputs, dtype=torch.float64)
    if module.bias is not None:
        bias = integers(f"{name}.bias", module.bias).cpu()
    parts = weight.cpu().flatten(2) if weight.dim() > 2 else weight.cpu()[:, :, None]
    groups = getattr(module, "groups", 1)
    if isinstance(module, TRANSPOSED):  # [in, out / groups, k]; at a stride an output sees a part of the kernel at most
        parts = parts.reshape(groups, -1, *parts.shape[1:]).transpose(1, 2)
    else:
        parts = parts.reshape(groups, -1, *parts.shape[1:])
    inputs = groups * parts.shape[2]
    x = x if isinstance(module, (*CONVOLUTIONS, *TRANSPOSED)) and x.low.shape in ((), (inputs,)) else x.whole()
    low, high = (
        v.clamp(**{k: 0.0}).expand(inputs).reshape(groups, 1, -1) for v, k in ((x.low, "max"), (x.high, "min"))
    )
    positive, negative = parts.clamp_min(0).sum(3), parts.clamp_max(0).sum(3)
    up = (positive * high + negative * low).sum(2).flatten()
    down = (positive * low + negative * high).sum(2).flatten()
    bound = torch.maximum(up + bias.clamp_min(0), -down - bias.clamp_max(0))
    magnitude = int(x.size.max())
    each = parts.flatten(2).flatten(0, 1)
    bits = int((each.abs().amax(1) / shared(each)).max()).bit_length() + 1
    note(rows, name, module, bound, bits, max(significant(weight), (magnitude - 1).bit_length(), 1))
    if weight.dim() == 2:
        return Span(down + bias, up + bias).whole()
    return Span(down + bias, up + bias, weight.dim() - 1)


def _matched(x: Span, *parameters: Tensor) -> tuple[Span, list[Tensor]]:
    """A value and parameters of a module so that they broadcast: over channels where that is sure, else flattened.

    Where they are flattened, the caller must take their largest value.
    """
    channels = all(
        p.numel() == 1 or (p.dim() == x.rank and p.numel() == p.shape[0] and x.low.shape in ((), p.shape[:1]))
        for p in parameters
    )
    flat = [p.flatten() if p.numel() > 1 else p.reshape(()) for p in (q.cpu() for q in parameters)]
    if channels:
        return x, flat
    return x.whole(x.rank), flat


def _affine(name: str, module: Affine, spans: Sequence[Span], rows: list[Row]) -> Span:
    (x,) = spans
    scale, shift = integers(f"{name}.scale", module.scale), integers(f"{name}.shift", module.shift)
    scale, shift = torch.broadcast_tensors(scale, shift)
    seen, (s, t) = _matched(x, scale, shift)
    ends = torch.stack([seen.low * s, seen.high * s])
    low, high = ends.amin(0), ends.amax(0)
    bound = torch.maximum(torch.maximum(low.abs(), high.abs()), torch.maximum((low + t).abs(), (high + t).abs()))
    note(rows, name, module, bound, int(s.abs().max()).bit_length() + 1)
    found = Span(low + t, high + t, x.rank)
    sure = seen is x and found.low.shape in ((), x.low.shape if x.low.dim() else s.shape)
    return found if sure and (s.dim() == 0 or scale.dim() == x.rank) else found.whole(x.rank)


def _stepped(name: str, module: StepCurrent, spans: Sequence[Span], rows: list[Row]) -> Span:
    (x,) = spans
    shift = integers(f"{name}.shift", module.shift)
    seen, (low, high) = _matched(x, shift.amin(0), shift.amax(0))
    if seen is not x:
        low, high = low.min(), high.max()
    found = Span(seen.low + low, seen.high + high, x.rank)
    note(rows, name, module, torch.maximum(seen.size, found.size))
    return found


def _join(name: str, module: Any, spans: Sequence[Span], rows: list[Row]) -> Span:
    a, b = spans
    if a.low.shape != b.low.shape or a.rank != b.rank:
        ranks = {a.rank, b.rank} - {None}
        a, b = a.whole(), b.whole()
        a = Span(a.low, a.high, ranks.pop() if len(ranks) == 1 else None)
    low, high = (a.low - b.high, a.high - b.low) if isinstance(module, Sub) else (a.low + b.low, a.high + b.high)
    found = Span(low, high, a.rank)
    note(rows, name, module, found.size)
    return found


def _neuron(name: str, module: Neuron, spans: Sequence[Span], rows: list[Row]) -> Span:
    (x,) = spans
    theta, v0 = integers(f"{name}.theta", module.theta), integers(f"{name}.v0", module.v0)
    if isinstance(module, OffsetIF) and not module.unit:
        raise VerifyError(f"'{name}' shifts potentials by a margin that is no integer.")
    seen, (theta, v0) = _matched(x, theta, v0)
    if seen is not x:
        theta, v0 = theta.max(), v0.abs().max()
    note(rows, name, module, module.charge(theta, v0.abs(), seen.size))
    low, high = module.reach()
    height = module.height.double().max().cpu()
    return Span(low * height, high * height, x.rank)


def _pool(name: str, module: Any, spans: Sequence[Span], rows: list[Row]) -> Span:
    note(rows, name, module, spans[0].size * module.T)
    return spans[0]


def _readout(name: str, module: Decode, spans: Sequence[Span], rows: list[Row]) -> str:
    note(rows, name, module, spans[0].size * module.read)
    return READ


def _kept(name: str, module: Any, spans: Sequence[Span], rows: list[Row]) -> Span:
    return spans[0]


def _softened(name: str, module: Any, spans: Sequence[Span], rows: list[Row]) -> Span:
    raise VerifyError(f"'{name}' ({type(module).__name__}) leaves the integers.")


def _concat(name: str, module: Concat, spans: Sequence[Span], rows: list[Row]) -> Span:
    ranks = {one.rank for one in spans}
    rank = ranks.pop() if len(ranks) == 1 else None
    if module.dim == 1 and rank is not None and all(one.low.dim() for one in spans):
        return Span(torch.cat([one.low for one in spans]), torch.cat([one.high for one in spans]), rank)
    return Span(torch.stack([s.low.min() for s in spans]).min(), torch.stack([s.high.max() for s in spans]).max(), rank)


def _pad(name: str, module: Pad, spans: Sequence[Span], rows: list[Row]) -> Span:
    (x,) = spans
    value = integers(f"{name}.value", torch.tensor(module.value))
    padded = Span(x.low.clamp_max(float(value)), x.high.clamp_min(float(value)), x.rank)
    inside = x.rank is not None and len(module.pads) < 2 * x.rank
    return padded if inside else padded.whole(x.rank)


def _slice(name: str, module: Slice, spans: Sequence[Span], rows: list[Row]) -> Span:
    (x,) = spans
    keeps = x.low.dim() == 0 or not module.ranges or module.ranges[0] == (None, None, None)
    return x if keeps else Span(x.low[slice(*module.ranges[0])], x.high[slice(*module.ranges[0])], x.rank)


def _take(name: str, module: Take, spans: Sequence[Span], rows: list[Row]) -> Span:
    (x,) = spans
    chosen = x.low.dim() > 0 and module.dim == 1
    return Span(x.low[module.index.cpu()], x.high[module.index.cpu()], x.rank) if chosen else x


def _moved(rank: Callable[[Any], int | None]) -> Bound:
    """Of routes behind which channels are no longer known; `rank` is that of a sample."""
    return lambda name, module, spans, rows: spans[0].whole(rank(module))


def _factor(module: Affine) -> bool:
    return not module.shift.any()


@dataclass(frozen=True)
class Proof:
    """How far a module's integers reach.

    Attributes:
        bound: by its name, itself, and the spans of what it reads, what it gives; adds to the rows.
        read: whether it may also act on what was read out, which is no integer.
    """

    bound: Bound
    read: Callable[[Any], bool] = lambda module: False


def _anywhere(bound: Bound) -> Proof:
    return Proof(bound, lambda module: True)


LEAVES = Refusal("leaves the integers", "")

PROOFS: Table[Proof] = Table(
    "proofs",
    __name__,
    {
        Grid: Proof(_kept),
        WEIGHTED: Proof(_layer),
        Affine: Proof(_affine, _factor),
        (Add, Sub): Proof(_join),
        Neuron: Proof(_neuron),
        StepCurrent: Proof(_stepped),
        (TemporalMax, Restart): Proof(_pool),
        Decode: Proof(_readout),
        (Encode, Frames): Proof(_kept),
        (*MAX_POOLS, nn.Upsample): _anywhere(_kept),
        HEADS: _anywhere(_softened),
        Concat: _anywhere(_concat),
        Pad: _anywhere(_pad),
        Slice: _anywhere(_slice),
        Take: _anywhere(_take),
        Reshape: _anywhere(_moved(lambda module: len(module.shape))),
        Permute: _anywhere(_moved(lambda module: len(module.dims) - 1)),
        (nn.Flatten, nn.PixelShuffle): _anywhere(_moved(lambda module: None)),
        (*AVERAGE_POOLS, Mean, Mix, Embedding, *TRAINED, *BENT, Telescoped): LEAVES,
    },
)
