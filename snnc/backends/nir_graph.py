"""A spiking graph, one step of it, as nodes and edges of NIR.

Every module becomes nodes that all readers know: `Affine`, `Conv1d`, `Conv2d`, `AvgPool2d`, `Flatten`, `IF`. Where NIR
has no node (joining, slicing, padding, factors) a fixed kernel of zeros and ones does the same. Several edges into one
node add up, so a sum needs no node of its own.

Shapes are those of one sample, `[C, H, W]`, `[C, N]` or `[F]`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor, fx, nn

from snnc import dialect
from snnc.backends.kernels import Axis, dense, square
from snnc.errors import Blocker
from snnc.graph import module_of
from snnc.neurons import IF, Neuron
from snnc.temporal import Restart, TemporalMax

Shape = tuple[int, ...]


class _Refused(Exception):
    """A node that NIR cannot say: why, and what to try."""


@dataclass(frozen=True)
class _Value:
    """What a node of the graph gives: the sum of what some NIR nodes give."""

    sources: tuple[str, ...]
    shape: Shape


class Lowering:
    """Builds the NIR nodes and edges of a graph whose spikes have height 1 and whose encoders are gone.

    Attributes:
        nodes, edges: of the NIR graph.
        blockers: what could not be said.
        grid: how the reader has to round its input, as metadata; empty where it need not.
    """

    def __init__(self, graph: fx.GraphModule, shapes: dict[fx.Node, Shape]) -> None:
        self.graph, self.shapes = graph, shapes
        self.nodes: dict[str, nir.NIRNode] = {}
        self.edges: list[tuple[str, str]] = []
        self.blockers: list[Blocker] = []
        self.grid: dict[str, Any] = {}
        self.values: dict[fx.Node, _Value] = {}

    def run(self) -> None:
        """Lowers every node."""
        for node in self.graph.graph.nodes:
            shape = self.shapes[node]
            if node.op == "placeholder":
                self.values[node] = self.put("input", nir.Input(np.array(shape)), (), shape)
            elif node.op == "output":
                self.finish(self.values[node.all_input_nodes[0]])
            elif not self.merged(node):
                self.values[node] = self.lowered(node)

    def lowered(self, node: fx.Node) -> _Value:
        """The value of one call; where it is refused, a value to go on with."""
        module = module_of(self.graph, node)
        rule = next((rule for kinds, rule in RULES if isinstance(module, kinds)), _unknown)
        try:
            return rule(self, node, module)
        except _Refused as refusal:
            why, hint = refusal.args
            self.blockers.append(Blocker(node.name, type(module).__name__, why, hint))
            return _Value(("input",), self.shapes[node])

    def merged(self, node: fx.Node) -> bool:
        """Whether this is padding of a map that the convolutions behind it take."""
        pads = self.padding(node)
        users = [module_of(self.graph, user) if user.op == "call_module" else None for user in node.users]
        inner = pads is not None and len(pads) < len(self.shapes[node])
        return inner and all(isinstance(user, dialect.CONVOLUTIONS) for user in users)

    def padding(self, node: fx.Node) -> list[tuple[int, int]] | None:
        """Zeros that a node puts before and after each of the last dimensions, where that is what it does."""
        module = module_of(self.graph, node) if node.op == "call_module" else None
        if not isinstance(module, dialect.Pad) or module.mode != "constant" or module.value != 0:
            return None
        return list(zip(module.pads[::2], module.pads[1::2], strict=True))[::-1]

    def put(self, name: str, node: nir.NIRNode, sources: tuple[str, ...], shape: Shape) -> _Value:
        """One NIR node that reads `sources`."""
        free = name
        while free in self.nodes or (free in ("input", "output") and not isinstance(node, nir.Input | nir.Output)):
            free = f"{free}_"
        self.nodes[free] = node
        self.edges += [(source, free) for source in sources]
        return _Value((free,), shape)

    def finish(self, value: _Value) -> None:
        """The output, which reads one node alone."""
        if len(value.sources) > 1:
            value = self.mixed("readout", value, torch.eye(value.shape[0]))
        self.put("output", nir.Output(np.array(value.shape)), value.sources, value.shape)

    def mixed(self, name: str, value: _Value, matrix: Tensor, shift: Tensor | None = None) -> _Value:
        """Channels mixed by a matrix `[out, in]`, with `shift` `[out]`, at each place of a map alike."""
        if len(value.shape) > 1:
            axes = tuple(Axis(size, size) for size in value.shape[1:])
            return self.convolved(name, value, matrix.reshape(*matrix.shape, *[1] * len(axes)), axes, shift)
        bias = torch.zeros(len(matrix)) if shift is None else shift
        return self.put(name, nir.Affine(_array(matrix), _array(bias)), value.sources, (len(matrix),))

    def convolved(
        self, name: str, value: _Value, weight: Tensor, axes: tuple[Axis, ...], bias: Tensor | None
    ) -> _Value:
        """A convolution of one group."""
        found = square(weight.detach(), axes)
        if found is None:
            raise _Refused(
                "no square kernel with the same padding on both sides, which is what NIR has, reads the same",
                "padding on both sides alike, and a square kernel",
            )
        kernel = _array(found.weight)
        offset = _array(torch.zeros(len(weight)) if bias is None else bias)
        sizes = tuple(axis.size for axis in axes)
        if len(axes) == 1:
            (stride,), (padding,), (dilation,) = found.stride, found.padding, found.dilation
            node = nir.Conv1d(sizes[0], kernel, stride, padding, dilation, 1, offset)
        else:
            node = nir.Conv2d(sizes, kernel, found.stride, found.padding, found.dilation, 1, offset)
        return self.put(name, node, value.sources, (len(weight), *(axis.out for axis in axes)))

    def placed(self, name: str, value: _Value, channels: range, axes: tuple[Axis, ...]) -> _Value:
        """Parts of a value at other places: output channel `i` is channel `channels[i]`, or 0 where there is none."""
        matrix = torch.zeros(len(channels), value.shape[0])
        for row, channel in enumerate(channels):
            if 0 <= channel < value.shape[0]:
                matrix[row, channel] = 1
        if not axes:
            return self.mixed(name, value, matrix)
        return self.convolved(name, value, matrix.reshape(*matrix.shape, *[1] * len(axes)), axes, None)

    def added(self, name: str, *values: _Value) -> _Value:
        """The sum. NIR has no two edges between the same nodes, so what is added twice is copied."""
        sources: list[str] = []
        for value in values:
            for source in value.sources:
                if source in sources:
                    one = _Value((source,), value.shape)
                    (source,) = self.mixed(f"{name}_again", one, torch.eye(value.shape[0])).sources
                sources.append(source)
        return _Value(tuple(sources), values[0].shape)


def _array(values: Tensor) -> np.ndarray[Any, Any]:
    return values.detach().to(torch.float32).contiguous().numpy()


def _input(at: Lowering, node: fx.Node) -> _Value:
    return at.values[node.all_input_nodes[0]]


def _neuron(at: Lowering, node: fx.Node, module: Neuron) -> _Value:
    if type(module) is not IF:
        raise _Refused(
            "NIR has no neuron like it; its own fires spikes of one height, at the step whose input arrived",
            "a recipe with plain neurons, such as 'best', 'opi' or 'qcfs'",
        )
    value = _input(at, node)
    theta, v0 = (_array(part.expand(value.shape)) for part in (module.theta, module.v0))
    # The potential to start from and the reset stand in no field of NIR: see docs/nir.md.
    said = {"reset": "subtract", "fires": "v >= v_threshold", "v0": v0}
    neuron = nir.IF(np.ones_like(theta), theta, np.zeros_like(theta), metadata=said)
    return at.put(node.name, neuron, value.sources, value.shape)


def _grid(at: Lowering, node: fx.Node, module: dialect.Grid) -> _Value:
    (source,) = node.all_input_nodes
    if source.op != "placeholder" or len(source.users) > 1:
        raise _Refused("NIR does not round", "a network that rounds its input alone")
    scale = _array(module.scale.expand(at.shapes[node]))
    said = (
        "clip(round(x * input_scale), input_low, input_high), the same at every step; halves go to the even neighbour"
    )
    at.grid = {"input": said, "input_scale": scale, "input_low": module.low, "input_high": module.high}
    return at.values[source]


def _convolution(at: Lowering, node: fx.Node, module: Any) -> _Value:
    if isinstance(module, nn.Conv3d):
        raise _Refused("NIR has no convolution in three dimensions", "a network of Conv1d or Conv2d layers")
    if module.padding_mode != "zeros":
        raise _Refused(f"NIR has no padding but zeros, and this is {module.padding_mode}", "padding with zeros")
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


def _linear(at: Lowering, node: fx.Node, module: nn.Linear) -> _Value:
    value = _input(at, node)
    if len(value.shape) > 1:
        raise _Refused("NIR has no linear layer over the last dimension of a map", "flatten before it")
    return at.mixed(node.name, value, module.weight, module.bias)


def _affine(at: Lowering, node: fx.Node, module: dialect.Affine) -> _Value:
    value = _input(at, node)
    scale, shift = (part.expand(value.shape).flatten(1) if len(value.shape) > 1 else part.expand(value.shape)[:, None]
                    for part in (module.scale, module.shift))  # fmt: skip
    if not ((scale == scale[:, :1]).all() and (shift == shift[:, :1]).all()):
        raise _Refused("its factors differ from place to place", "one factor a channel")
    return at.mixed(node.name, value, scale[:, 0].diag(), shift[:, 0])


def _add(at: Lowering, node: fx.Node, module: nn.Module) -> _Value:
    a, b = (at.values[source] for source in node.args if isinstance(source, fx.Node))
    if a.shape != b.shape:
        raise _Refused(f"it adds shapes {a.shape} and {b.shape}", "values of one shape")
    if isinstance(module, dialect.Sub):
        b = at.mixed(f"{node.name}_minus", b, -torch.eye(b.shape[0]))
    return at.added(node.name, a, b)


def _concat(at: Lowering, node: fx.Node, module: dialect.Concat) -> _Value:
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


def _pad(at: Lowering, node: fx.Node, module: dialect.Pad) -> _Value:
    value, whole = _input(at, node), at.shapes[node]
    pads = at.padding(node)
    if pads is None:
        raise _Refused("NIR has no padding but zeros", "padding with zeros")
    low = [0] * (len(whole) - len(pads)) + [before for before, _ in pads]
    axes = tuple(Axis(value.shape[d], whole[d], first=-low[d]) for d in range(1, len(whole)))
    return at.placed(node.name, value, range(-low[0], whole[0] - low[0]), axes)


def _slice(at: Lowering, node: fx.Node, module: dialect.Slice) -> _Value:
    value = _input(at, node)
    ranges = [range(*slice(*part).indices(size)) for part, size in zip(module.ranges, value.shape, strict=False)]
    ranges += [range(size) for size in value.shape[len(ranges) :]]
    if tuple(map(len, ranges)) == value.shape:
        return value
    axes = tuple(
        Axis(size, len(part), part.step, part.start) for size, part in zip(value.shape[1:], ranges[1:], strict=True)
    )
    return at.placed(node.name, value, ranges[0], axes)


def _pool(at: Lowering, node: fx.Node, module: Any) -> _Value:
    value, out = _input(at, node), at.shapes[node][1:]
    sizes = value.shape[1:]
    if len(sizes) > 2:
        raise _Refused("NIR has no pooling in three dimensions", "a network in one or two dimensions")
    kernel, stride, padding = _window(module, sizes, out)
    if any((s + 2 * p - k) // t + 1 != o for s, k, t, p, o in zip(sizes, kernel, stride, padding, out, strict=True)):
        raise _Refused("its last window is cut off (ceil_mode)", "ceil_mode=False")
    if any(padding) and not getattr(module, "count_include_pad", True):
        raise _Refused("it does not count padding (count_include_pad=False)", "count_include_pad=True, or no padding")
    if getattr(module, "divisor_override", None):
        raise _Refused("it has a divisor of its own", "an average pool without divisor_override")
    return _averaged(at, node.name, value, kernel, stride, padding, out)


def _averaged(
    at: Lowering, name: str, value: _Value, kernel: Shape, stride: Shape, padding: Shape, out: Shape
) -> _Value:
    if len(kernel) == 2:
        pool = nir.AvgPool2d(*(np.array(part) for part in (kernel, stride, padding)))
        return at.put(name, pool, value.sources, (value.shape[0], *out))
    weight = torch.eye(value.shape[0])[..., None].expand(-1, -1, *kernel) / kernel[0]
    return at.convolved(name, value, weight, (Axis(value.shape[1], out[0], stride[0], -padding[0], *kernel),), None)


def _window(module: Any, sizes: Shape, out: Shape) -> tuple[Shape, Shape, Shape]:
    """Kernel, stride and padding of an average pool."""
    none = (0,) * len(sizes)
    if isinstance(module, nn.AdaptiveAvgPool1d | nn.AdaptiveAvgPool2d):
        if any(size % part for size, part in zip(sizes, out, strict=True)):
            raise _Refused(f"its windows differ, from {sizes} to {out}", "an output that divides the input's size")
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


def _mean(at: Lowering, node: fx.Node, module: dialect.Mean) -> _Value:
    value = _input(at, node)
    rank = len(value.shape) + 1
    if len(value.shape) not in (2, 3) or sorted(d % rank for d in module.dims) != list(range(2, rank)):
        raise _Refused("NIR has no mean but that over a map", "the mean over all places of a map")
    pooled = _averaged(at, node.name, value, value.shape[1:], value.shape[1:], (0,) * (rank - 2), (1,) * (rank - 2))
    return pooled if module.keepdim else _flat(at, f"{node.name}_flat", pooled)


def _reshape(at: Lowering, node: fx.Node, module: nn.Module) -> _Value:
    value, shape = _input(at, node), at.shapes[node]
    if shape == value.shape:
        return value
    if len(shape) > 1:
        raise _Refused("NIR has no change of shape but flattening all of a sample", "nn.Flatten()")
    return _flat(at, node.name, value)


def _flat(at: Lowering, name: str, value: _Value) -> _Value:
    node = nir.Flatten({"input": np.array(value.shape)}, start_dim=0, end_dim=-1)
    return at.put(name, node, value.sources, (int(np.prod(value.shape)),))


def _max(at: Lowering, node: fx.Node, module: nn.Module) -> _Value:
    raise _Refused("NIR has no maximum", "average pooling or a strided convolution in its place")


def _head(at: Lowering, node: fx.Node, module: nn.Module) -> _Value:
    raise _Refused("NIR has no softmax", "the network without it, whose largest logit is the same class")


def _unknown(at: Lowering, node: fx.Node, module: nn.Module) -> _Value:
    raise _Refused("NIR has no such node", "another operation, or another backend")


RULES: tuple[tuple[Any, Callable[[Lowering, fx.Node, Any], _Value]], ...] = (
    (Neuron, _neuron),
    (dialect.Grid, _grid),
    (dialect.CONVOLUTIONS, _convolution),
    (nn.Linear, _linear),
    (dialect.Affine, _affine),
    ((dialect.Add, dialect.Sub), _add),
    (dialect.Concat, _concat),
    (dialect.Pad, _pad),
    (dialect.Slice, _slice),
    (dialect.AVERAGE_POOLS, _pool),
    (dialect.Mean, _mean),
    ((nn.Flatten, dialect.Reshape), _reshape),
    ((*dialect.MAX_POOLS, TemporalMax, Restart), _max),
    (dialect.HEADS, _head),
)
