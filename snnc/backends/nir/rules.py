"""How each module of the dialect becomes nodes of NIR. A rule that cannot do it says why, and what to try."""

from __future__ import annotations

import math
from typing import Any

import nir
import numpy as np
import torch
from torch import fx, nn

from snnc.backends.nir.graph import NirLowering, NirValue, Rule, Shape, array
from snnc.backends.squared import Axis, dense
from snnc.calibrate.pointwise import find
from snnc.errors import Blocker
from snnc.ir import dialect
from snnc.ir.curved import BENT
from snnc.ir.embedding import Embedding
from snnc.ir.graph import calls
from snnc.ir.neurons import IF, Neuron
from snnc.ir.rows import Refusal, Refused, Table
from snnc.ir.temporal import Decode, Encode, FrameMean, Frames, Restart, StepCurrent, Telescoped, TemporalMax
from snnc.passes import EvenCurrents, PiecewiseActivations
from snnc.passes.pipeline import Pipeline

SAME_CURRENTS = f"'snnc compile' with the same recipe and --set {EvenCurrents.name}.gain=0"
PLAIN_NEURONS = f"a recipe with plain neurons: 'opi', 'qcfs', or 'best' with --set {EvenCurrents.name}.gain=0"


def _input(at: NirLowering, node: fx.Node) -> NirValue:
    return at.values[node.all_input_nodes[0]]


def _neuron(at: NirLowering, node: fx.Node, module: Neuron) -> NirValue:
    if type(module) is not IF:  # a subclass does something else
        raise Refused(NO_NEURON.why, NO_NEURON.hint)
    value = _input(at, node)
    theta, v0 = (array(part.expand(value.shape)) for part in (module.theta, module.v0))
    # The potential to start from and the reset stand in no field of NIR: see docs/nir.md.
    said = {"reset": "subtract", "fires": "v >= v_threshold", "v0": v0, "rounded": int(node.name in at.rounded)}
    neuron = nir.IF(np.ones_like(theta), theta, np.zeros_like(theta), metadata=said)
    return at.put(node.name, neuron, value.sources, value.shape)


def _grid(at: NirLowering, node: fx.Node, module: dialect.Grid) -> NirValue:
    (source,) = node.all_input_nodes
    if source.op != "placeholder" or len(source.users) > 1:
        raise Refused("NIR does not round", "the backend torch, pt2 or onnx")
    scale = array(module.scale.expand(at.shapes[node]))
    said = "clip(round(x * input_scale), input_low, input_high); halves go to the even neighbour"
    at.grid = {"input": said, "input_scale": scale, "input_low": module.low, "input_high": module.high}
    return at.values[source]


def _convolution(at: NirLowering, node: fx.Node, module: Any) -> NirValue:
    if isinstance(module, nn.Conv3d):
        raise Refused("NIR has no convolution in three dimensions", "a network in one or two dimensions")
    if module.padding_mode != "zeros":
        raise Refused(f"NIR has no padding but zeros, and this is {module.padding_mode}", "padding with zeros")
    source, before = node.all_input_nodes[0], [0] * len(module.kernel_size)
    if at.merged(source):
        pads = at.padding(source) or []
        before[len(before) - len(pads) :] = [low for low, _ in pads]
        source = source.all_input_nodes[0]
    value = at.values[source]
    if module.padding == "same":
        own = [(d * (k - 1)) // 2 for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    else:
        own = [0] * len(before) if module.padding == "valid" else list(module.padding)
    axes = tuple(
        Axis(size, out, step, -low - pad, taps, dilation)
        for size, out, step, low, pad, taps, dilation in zip(
            value.shape[1:], at.shapes[node][1:], module.stride, before, own, module.kernel_size, module.dilation,
            strict=True,
        )
    )  # fmt: skip
    return at.convolved(node.name, value, dense(module.weight.detach(), module.groups), axes, module.bias)


def _linear(at: NirLowering, node: fx.Node, module: nn.Linear) -> NirValue:
    value = _input(at, node)
    if len(value.shape) > 1:
        raise Refused("NIR has no linear layer over the last dimension of a map", "flatten before it")
    return at.mixed(node.name, value, module.weight, module.bias)


def _affine(at: NirLowering, node: fx.Node, module: dialect.Affine) -> NirValue:
    value = _input(at, node)
    scale, shift = (part.expand(value.shape).flatten(1) if len(value.shape) > 1 else part.expand(value.shape)[:, None]
                    for part in (module.scale, module.shift))  # fmt: skip
    if not ((scale == scale[:, :1]).all() and (shift == shift[:, :1]).all()):
        raise Refused("its factors differ from place to place", "one factor a channel")
    return at.mixed(node.name, value, scale[:, 0].diag(), shift[:, 0])


def _add(at: NirLowering, node: fx.Node, module: nn.Module) -> NirValue:
    a, b = (at.values[source] for source in node.args if isinstance(source, fx.Node))
    if a.shape != b.shape:
        raise Refused(f"it adds shapes {a.shape} and {b.shape}", "values of one shape")
    if isinstance(module, dialect.Sub):
        b = at.mixed(f"{node.name}_minus", b, -torch.eye(b.shape[0]))
    return at.added(node.name, a, b)


def _concat(at: NirLowering, node: fx.Node, module: dialect.Concat) -> NirValue:
    whole, parts, start = at.shapes[node], [], 0
    along = module.dim - 1 if module.dim > 0 else len(whole) + module.dim
    for index, source in enumerate(node.args):
        value = at.values[source]  # type: ignore[index]
        size = value.shape[along]
        channels = range(-start, whole[0] - start) if along == 0 else range(whole[0])
        axes = tuple(Axis(value.shape[d], whole[d], first=-start if d == along else 0) for d in range(1, len(whole)))
        parts.append(at.placed(f"{node.name}_{index}", value, channels, axes))
        start += size
    return at.added(node.name, *parts)


def _pad(at: NirLowering, node: fx.Node, module: dialect.Pad) -> NirValue:
    value, whole = _input(at, node), at.shapes[node]
    pads = at.padding(node)
    if pads is None:
        raise Refused("NIR has no padding but zeros", "padding with zeros")
    low = [0] * (len(whole) - len(pads)) + [before for before, _ in pads]
    axes = tuple(Axis(value.shape[d], whole[d], first=-low[d]) for d in range(1, len(whole)))
    return at.placed(node.name, value, range(-low[0], whole[0] - low[0]), axes)


def _slice(at: NirLowering, node: fx.Node, module: dialect.Slice) -> NirValue:
    value = _input(at, node)
    ranges = [range(*slice(*part).indices(size)) for part, size in zip(module.ranges, value.shape, strict=False)]
    ranges += [range(size) for size in value.shape[len(ranges) :]]
    if tuple(map(len, ranges)) == value.shape:
        return value
    axes = tuple(
        Axis(size, len(part), part.step, part.start) for size, part in zip(value.shape[1:], ranges[1:], strict=True)
    )
    return at.placed(node.name, value, ranges[0], axes)


def _pool(at: NirLowering, node: fx.Node, module: Any) -> NirValue:
    value, out = _input(at, node), at.shapes[node][1:]
    sizes = value.shape[1:]
    if len(sizes) > 2:
        raise Refused("NIR has no pooling in three dimensions", "a network in one or two dimensions")
    kernel, stride, padding = window(module, sizes, out)
    if any((s + 2 * p - k) // t + 1 != o for s, k, t, p, o in zip(sizes, kernel, stride, padding, out, strict=True)):
        raise Refused("its last window is cut off (ceil_mode)", "ceil_mode=False")
    if any(padding) and not getattr(module, "count_include_pad", True):
        raise Refused("it does not count padding (count_include_pad=False)", "count_include_pad=True, or no padding")
    return _averaged(at, node.name, value, kernel, stride, padding, out, getattr(module, "divisor_override", None))


def _averaged(
    at: NirLowering,
    name: str,
    value: NirValue,
    kernel: Shape,
    stride: Shape,
    padding: Shape,
    out: Shape,
    divisor: int | None = None,
) -> NirValue:
    windows = tuple(np.array(part) for part in (kernel, stride, padding))
    if len(kernel) == 2 and divisor is None:
        return at.put(name, nir.AvgPool2d(*windows), value.sources, (value.shape[0], *out))
    # Readers compute a sum as n times the mean, which is exact for powers of two, and drop its padding.
    if len(kernel) == 2 and divisor == 1 and at.sums and not any(padding) and math.prod(kernel).bit_count() == 1:
        return at.put(name, nir.SumPool2d(*windows), value.sources, (value.shape[0], *out))
    one = torch.eye(value.shape[0]).reshape(*(value.shape[0],) * 2, *(1,) * len(kernel))
    weight = one.expand(-1, -1, *kernel) / (divisor or math.prod(kernel))
    axes = tuple(
        Axis(size, places, step, -pad, taps)
        for size, places, step, pad, taps in zip(value.shape[1:], out, stride, padding, kernel, strict=True)
    )
    return at.convolved(name, value, weight, axes, None)


def window(module: Any, sizes: Shape, out: Shape) -> tuple[Shape, Shape, Shape]:
    """Kernel, stride and padding of an average pool."""
    none = (0,) * len(sizes)
    if isinstance(module, nn.AdaptiveAvgPool1d | nn.AdaptiveAvgPool2d):
        if any(size % part for size, part in zip(sizes, out, strict=True)):
            raise Refused(f"its windows differ, from {sizes} to {out}", "an output size that divides the input's")
        kernel = tuple(size // part for size, part in zip(sizes, out, strict=True))
        return kernel, kernel, none
    if isinstance(module, dialect.OwnSizeAvgPool2d):
        kernel = (sizes[module.dim - 2],) * 2
        return kernel, kernel, none
    kernel, stride, padding = (
        (part,) * len(sizes) if isinstance(part, int) else tuple(part)
        for part in (module.kernel_size, module.stride, module.padding)
    )
    return kernel, stride, padding


def _mean(at: NirLowering, node: fx.Node, module: dialect.Mean) -> NirValue:
    value = _input(at, node)
    rank = len(value.shape) + 1
    if len(value.shape) not in (2, 3) or sorted(d % rank for d in module.dims) != list(range(2, rank)):
        raise Refused("NIR has no mean but that over a map", "the mean over all places of a map")
    pooled = _averaged(at, node.name, value, value.shape[1:], value.shape[1:], (0,) * (rank - 2), (1,) * (rank - 2))
    return pooled if module.keepdim else _flat(at, f"{node.name}_flat", pooled)


def _reshape(at: NirLowering, node: fx.Node, module: nn.Module) -> NirValue:
    value, shape = _input(at, node), at.shapes[node]
    if shape == value.shape:
        return value
    if len(shape) > 1:
        raise Refused("NIR has no change of shape but flattening all of a sample", "nn.Flatten()")
    return _flat(at, node.name, value)


def _flat(at: NirLowering, name: str, value: NirValue) -> NirValue:
    node = nir.Flatten({"input": np.array(value.shape)}, start_dim=0, end_dim=-1)
    return at.put(name, node, value.sources, (int(np.prod(value.shape)),))


NO_NEURON = Refusal(
    "NIR has no neuron like it; its own fires spikes of one height, at the step whose input arrived", PLAIN_NEURONS
)
NO_NODE = Refusal("NIR has no such node", "another operation, or another backend")

RULES: Table[Rule] = Table(
    "rules",
    __name__,
    {
        Neuron: NO_NEURON,
        IF: _neuron,
        dialect.Grid: _grid,
        dialect.CONVOLUTIONS: _convolution,
        nn.Linear: _linear,
        dialect.Affine: _affine,
        (dialect.Add, dialect.Sub): _add,
        dialect.Concat: _concat,
        dialect.Pad: _pad,
        dialect.Slice: _slice,
        dialect.AVERAGE_POOLS: _pool,
        dialect.Mean: _mean,
        (nn.Flatten, dialect.Reshape): _reshape,
        (*dialect.MAX_POOLS, TemporalMax, Restart): Refusal(
            "NIR has no maximum", "average pooling or a strided convolution in its place"
        ),
        (*BENT, Telescoped): Refusal(
            "NIR has no such function", "the backend torch, pt2 or onnx, or the network with ReLU in its place"
        ),
        dialect.HEADS: Refusal("NIR has no softmax", "the network without it, whose largest logit is the same class"),
        (*dialect.TRANSPOSED, dialect.Permute, dialect.Take, dialect.Mix, nn.Upsample, nn.PixelShuffle): NO_NODE,
        Embedding: Refusal("NIR has no table to look up", "the backend torch, pt2 or onnx"),
        StepCurrent: Refusal("NIR has no current that changes from step to step", SAME_CURRENTS),
        (Encode, Frames, Decode): Refusal("NIR describes one step, which has no borders", "the network without it"),
        (FrameMean, *dialect.TRAINED): Refusal("does not spike yet", "the network compiled"),
    },
)


def never(graph: fx.GraphModule, pipeline: Pipeline) -> list[Blocker]:
    """What NIR cannot say of a network before its passes, but for what these make ReLUs of."""
    found = []
    functions = {step for site in find(graph) for step, _ in site.steps}
    lowered = functions if any(isinstance(one, PiecewiseActivations) for one in pipeline) else set()
    for node, module in calls(graph):
        if node in lowered:
            continue
        row = RULES.row(type(module))
        if isinstance(row, Refusal) and not isinstance(module, dialect.TRAINED):
            found.append(Blocker(node.name, type(module).__name__, row.why, row.hint))
    return found
