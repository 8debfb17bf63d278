"""How layers and neurons are written on counts of spikes: see `counting`. Images have their channels last."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snnc.backends.onnx.block import Block, each
from snnc.backends.onnx.count_joins import Summand, Whole
from snnc.backends.onnx.count_texts import FEATURES, IMAGES, RISES, TAKES_BACK, TURNS, written_out
from snnc.backends.onnx.functions import Library, parsed
from snnc.runtime.cpu.integer import narrowed

_END = 2**63 - 1
HELD = 2**20  # bytes of weights, held for each step: a layer with more is a loop over steps
FEW = 16  # input channels: below it the windows of a product are too short to be worth gathering


@dataclass(frozen=True)
class CountSite:
    """Where something is written, and of neurons what they are.

    Attributes:
        block, library: what is written into.
        name: of the node in the graph.
        out: what the value should be called.
        T: steps.
        sample: shape of one sample of the value, channels last.
        neuron: its class.
        kind: spikes of one step that it emits and takes back at most.
        scale, charge: what makes levels of sums, float32 `[C]` and float64 `[T, C]`.
        clock: the step up to which each step sees its input, `[T]`.
    """

    block: Block
    library: Library
    name: str
    out: str
    T: int
    sample: list[int]
    neuron: str = ""
    kind: tuple[int, int] = (1, 0)
    scale: Tensor = field(default_factory=lambda: torch.ones(1))
    charge: Tensor = field(default_factory=lambda: torch.zeros(1, 1))
    clock: Tensor = field(default_factory=lambda: torch.ones(1))

    def const(self, part: str, value: Any, kind: Any) -> str:
        """Numbers that belong to this node."""
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        return self.block.typed(f"{self.name}.{part}", array.astype(kind))

    def function(self, key: str, name: str, **blanks: str) -> str:
        """A function of the file by its text, kept under a name."""
        made = parsed(key, len(self.sample) + 1, **blanks)
        made.name = name
        return self.library.keep(made)

    def waited(self, x: str) -> str:
        """A value as neurons that wait see it."""
        if torch.equal(self.clock, torch.arange(1, self.T + 1)):
            return x
        return self.block.call("Later", x, self.const("clock", self.clock - 1, np.int64), out=f"{x}.later", T=self.T)

    @property
    def firing(self) -> dict[str, str]:
        """What fills in the text of neurons that take spikes back, and of those that do not."""
        if self.kind[1]:
            return {"more": ", down", "turns": TAKES_BACK, "fire": TURNS}
        return {"more": "", "turns": "", "fire": RISES}

    def fire(self, function: str, kind: Any, *inputs: str) -> str:
        """A call of neurons; they take scale and charge last, the latter of a type `kind`."""
        up, down = self.kind
        charge = self.charge
        if kind is np.float32:  # so that it can be made as wide as a sample
            charge = charge.reshape(len(charge), *[1] * (len(self.sample) - 1), -1)
        own = self.const("scale", self.scale, np.float32), self.const("charge", charge, kind)
        more: Any = {"up": up, "down": down} if down else {"up": up}
        where = {"out": self.out, "label": self.name}
        return self.block.call(function, *inputs, *own, **where, T=self.T, sample=self.sample, **more)


def takes(m: Any, sample: tuple[int, ...]) -> bool:
    """Whether a layer reads counts: one whose padding is zeros, and written as numbers."""
    if isinstance(m, nn.Linear):
        return len(sample) == 1
    return m.padding_mode == "zeros" and not isinstance(m.padding, str) and len(sample) == 3


def terms(m: Any, counts: str, most: int, sample: tuple[int, ...]) -> tuple[Summand, ...]:
    """A layer as a part of what neurons add up."""
    weight = m.weight.detach().cpu().double()
    if isinstance(m, nn.Linear):
        return (Summand(counts, most, sample, weight[:, :, None, None]),)
    padding = (int(m.padding[0]), int(m.padding[1]))
    return (Summand(counts, most, sample, weight, m.stride, padding, m.dilation, m.groups),)


def layer(at: CountSite, whole: Whole) -> str:
    """A layer and its neurons in one; a sum of several reads what each of them reads, in order."""
    images = len(at.sample) == 3
    reads = list(dict.fromkeys(part.counts for part in whole.parts))
    form, name = (IMAGES, "Conv") if images else (FEATURES, "Linear")
    name = name if len(whole.parts) == 1 else "Join"
    texts = {**form, **_joined(whole, reads), **at.firing, "geometry": _geometry(whole.term)}
    if at.T * whole.term.weight.numel() > HELD:
        function = at.function("LayerCounts", f"{name}{at.neuron}", **texts)
    else:
        texts["steps"] = written_out(at.T, len(reads), texts)
        function = at.function("LayerSteps", f"{name}{at.neuron}", **texts)
    return at.fire(function, np.int32, *map(at.waited, reads), at.const("weight", whole.term.weight, np.int8))


def _joined(whole: Whole, reads: list[str]) -> dict[str, str]:
    """What fills in the text of a layer: how the parts of its input are put together."""
    constants, parts, made = [], [], []
    for k, part in enumerate(whole.parts):
        value = f"part{reads.index(part.counts)}"
        if part.stride != (1, 1):
            numbers = {"begin": [0, 0], "end": [_END, _END], "axes": [1, 2], "stride": list(part.stride)}
            constants += [f"{name}{k} = Constant <value_ints = {value}> ()" for name, value in numbers.items()]
            parts.append(f"few{k} = Slice ({value}, begin{k}, end{k}, axes{k}, stride{k})")
            value = f"few{k}"
        if part.factor != 1:
            constants.append(f"number{k} = Constant <value_int = {part.factor}> ()")
            constants.append(f"factor{k} = Cast <to = 2> (number{k})")
            parts.append(f"times{k} = Mul ({value}, factor{k})")
            value = f"times{k}"
        made.append(value)
    joined = f"given = Concat <axis = 3> ({', '.join(made)})" if len(made) > 1 else f"given = Identity ({made[0]})"
    more = range(1, len(reads))
    return {
        "others": "".join(f", x{k}" for k in more),
        "unfold": "\n".join(f"steps{k} = snnc.Unfold <T: int = @T> (x{k})" for k in more),
        "reads": "".join(f", steps{k}" for k in more),
        "givens": "".join(f" uint8[$dims] part{k}," for k in more),
        "count": str(len(reads) + 1),
        "before": "\n".join(constants),
        "parts": "\n".join([*parts, joined]),
    }


def neurons(at: CountSite, sums: str) -> str:
    """Neurons on a current that is summed."""
    return at.fire(at.function("SumCounts", f"Sum{at.neuron}", **at.firing), np.float32, at.waited(sums))


def steady(at: CountSite, current: str) -> str:
    """Neurons on a current that is the same at each step; what is added besides is there before the first."""
    return at.fire(at.function("SteadyCounts", f"Steady{at.neuron}", **at.firing), np.float32, current)


def bytes_of(at: CountSite, m: nn.Conv2d, counts: str) -> str:
    """A layer whose sums are counts again."""
    function = at.function("ByteSums", "ByteSums", geometry=_geometry(m))
    return at.block.call(function, counts, at.const("weight", m.weight, np.int8), out=at.out, label=at.name)


def highest(at: CountSite, pool: nn.MaxPool2d, counts: str) -> str:
    """The largest count of each window."""
    kernel, stride, padding = (each(v, 2) for v in (pool.kernel_size, pool.stride, pool.padding))
    first = at.block.op("Transpose", counts, out=f"{at.out}.first", perm=[0, 3, 1, 2])
    pooled = at.block.op(
        "MaxPool", first, out=f"{at.out}.pooled", kernel_shape=kernel, strides=stride, pads=padding * 2
    )
    return at.block.op("Transpose", pooled, out=at.out, label=at.name, perm=[0, 2, 3, 1])


def ramp(at: CountSite, current: str) -> str:
    """The sums of a current that is the same at each step."""
    clock = torch.arange(1, at.T + 1).reshape(-1, *[1] * (len(at.sample) + 1))
    return at.block.call("Ramp", current, at.const("times", clock, np.float32), out=at.out)


def scaled(at: CountSite, sums: str, scale: Tensor) -> str:
    """Sums times a factor for each channel."""
    return at.block.op("Mul", sums, at.const("scale", scale, np.float32), out=at.out)


def scaled_counts(at: CountSite, counts: str, scale: Tensor) -> str:
    """Counts times a factor for each channel."""
    return at.block.op("DequantizeLinear", counts, at.const("scale", scale, np.float32), out=at.out, axis=-1)


def sums_of(at: CountSite, m: Any, counts: str, sample: tuple[int, ...]) -> str:
    """The sums that a layer forms of counts, without its bias: of integers if its weights are small, and long enough.

    Args:
        at: where.
        m: the layer.
        counts: what it reads.
        sample: shape of one sample of that, channels first.
    """
    found = narrowed(m)
    inputs = sample[0]
    if found is None or getattr(m, "groups", 1) > 1 or inputs < FEW:
        return _floats(at, m, counts)
    narrow, unit = found
    if isinstance(m, nn.Linear):
        weight = at.const("weight", narrow.T, np.int8)
        total = at.block.op("MatMulInteger", counts, weight, out=f"{at.out}.total")
        made = at.block.op("Cast", total, out=at.out, to=1)
    else:
        weight = at.const("weight", narrow.permute(2, 3, 1, 0).reshape(-1, len(narrow)), np.int8)
        made = at.block.call("Product", counts, *_windows(at, m, sample), weight, out=at.out)
    return made if bool((unit == 1).all()) else at.block.op("Mul", made, at.const("unit", unit, np.float32), out=made)


def _windows(at: CountSite, m: nn.Conv2d, sample: tuple[int, ...]) -> list[str]:
    """What `Product` takes to gather the windows of a convolution."""
    channels, _, width = sample
    (tall, wide), (down, right) = m.kernel_size, (int(p) for p in m.padding)
    reach = width + 2 * right
    high, broad, _ = at.sample
    line, step = torch.arange(high) * m.stride[0] * reach, torch.arange(broad) * m.stride[1]
    rows = line[:, None, None, None] + (torch.arange(tall) * m.dilation[0] * reach)[:, None]
    columns = step[:, None, None] + torch.arange(wide) * m.dilation[1]
    parts = {
        "pads": [0, down, right, 0, 0, down, right, 0],
        "flat": [0, -1, channels],
        "rows": rows,
        "columns": columns[None],
        "back": [0, high, broad, tall * wide * channels],
    }
    return [at.const(part, value, np.int64) for part, value in parts.items()]


def _floats(at: CountSite, m: Any, counts: str) -> str:
    """The same in floats."""
    if isinstance(m, nn.Linear):
        x = at.block.op("Cast", counts, out=f"{at.out}.floats", to=1)
        return at.block.op("MatMul", x, at.const("weight", m.weight.T, np.float32), out=at.out)
    first = at.block.op("Transpose", counts, out=f"{at.out}.first", perm=[0, 3, 1, 2])
    x = at.block.op("Cast", first, out=f"{at.out}.floats", to=1)
    weight = at.const("weight", m.weight, np.float32)
    made = at.block.op("Conv", x, weight, out=f"{at.out}.conv", **_attributes(m))
    return at.block.op("Transpose", made, out=at.out, perm=[0, 2, 3, 1])


def _attributes(m: nn.Conv2d | Summand) -> dict[str, Any]:
    return {
        "kernel_shape": list(m.weight.shape[2:]),
        "strides": list(m.stride),
        "pads": [int(p) for p in m.padding] * 2,
        "dilations": list(m.dilation),
        "group": m.groups,
    }


def _geometry(m: nn.Conv2d | Summand) -> str:
    return ", ".join(f"{name} = {value}" for name, value in _attributes(m).items())
