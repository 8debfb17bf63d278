"""The closed set of modules that a graph may call, and how each is written to a file.

Ordinary layers are `torch.nn`'s own; what torch only has as a function (adding, slicing, padding ...) gets a
small module here. Each takes tensors whose first dimension is the batch, and never mixes samples: that is what
lets time be folded into the batch (`snnc.ir.temporal`).

Shapes in this file: `B` batch, `C` channels, `...` any further dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Add(nn.Module):
    """Sum of two values, shapes alike or broadcastable."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class Sub(nn.Module):
    """Difference of two values, shapes alike or broadcastable."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a - b


class Concat(nn.Module):
    """Values joined along `dim` (never the batch)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, *values: Tensor) -> Tensor:
        return torch.cat(values, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Affine(nn.Module):
    """`x * scale + shift`, with buffers that broadcast over one sample: shape `[]`, `[F]`, `[C, 1, 1]` ..."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift

    def extra_repr(self) -> str:
        return f"shape={tuple(self.scale.shape)}"


class Grid(nn.Module):
    """`clip(round(x * scale), low, high)`: an analog value on a grid of integers; halves go to the even neighbour.

    `scale` is a buffer that broadcasts over one sample, shape `[]` or `[C, 1, ...]`: points of the grid in one unit of
    the input. It multiplies, since one IEEE multiplication is the same everywhere, and so is rounding what it gives: in
    float32 always, for a product that rounds to a half in float32 does not do so in float64.
    """

    scale: Tensor

    def __init__(self, scale: Tensor, low: int, high: int) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        single = x.dtype == torch.float32  # an exported program would hold every conversion
        points = x * self.scale if single else (x.float() * self.scale.float()).to(x.dtype)
        return torch.round(points).clamp(self.low, self.high)

    def extra_repr(self) -> str:
        return f"scale={describe(self.scale)}, low={self.low}, high={self.high}"


class Pad(nn.Module):
    """`torch.nn.functional.pad`: `pads` counts from the last dimension, never reaches the batch."""

    def __init__(self, pads: tuple[int, ...], mode: str = "constant", value: float = 0.0) -> None:
        super().__init__()
        self.pads, self.mode, self.value = tuple(pads), mode, value

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x, self.pads, self.mode, self.value if self.mode == "constant" else None)

    def extra_repr(self) -> str:
        return f"{self.pads}, mode={self.mode!r}, value={self.value}"


class Slice(nn.Module):
    """`x[:, a:b:c, ...]`: `ranges` holds one `(start, stop, step)` for each dimension after the batch."""

    def __init__(self, ranges: tuple[tuple[int | None, int | None, int | None], ...]) -> None:
        super().__init__()
        self.ranges = tuple(tuple(r) for r in ranges)

    def forward(self, x: Tensor) -> Tensor:
        return x[(slice(None), *(slice(*r) for r in self.ranges))]

    def extra_repr(self) -> str:
        return f"{self.ranges}"


class Reshape(nn.Module):
    """`shape` is that of one sample; one entry may be -1."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], *self.shape)

    def extra_repr(self) -> str:
        return f"{self.shape}"


class Permute(nn.Module):
    """Dimensions in a new order; `dims[0]` is 0, the batch."""

    def __init__(self, dims: tuple[int, ...]) -> None:
        super().__init__()
        self.dims = tuple(dims)

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.dims)

    def extra_repr(self) -> str:
        return f"{self.dims}"


class Take(nn.Module):
    """Entries of dimension `dim` (never the batch) in an order of its own, some perhaps often and others never.

    Attributes:
        index: where each entry comes from, int64, 0 or more, shape `[N]`.
    """

    index: Tensor

    def __init__(self, dim: int, index: Tensor) -> None:
        super().__init__()
        if index.dtype != torch.int64 or index.dim() != 1 or not index.numel():
            raise ValueError(f"takes entries by {index.dtype} of shape {tuple(index.shape)}, not by a row of int64")
        if not index.is_meta and int(index.min()) < 0:
            raise ValueError(f"takes entry {int(index.min())}; places count from the front")
        self.dim = dim
        self.register_buffer("index", index)

    def forward(self, x: Tensor) -> Tensor:
        return x.index_select(self.dim, self.index)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, entries={self.index.numel()}"


class Mix(nn.Module):
    """Entries of dimension `dim` (never the batch) as sums of its entries, by a constant matrix `[out, in]`.

    No layer, although it has weights: they are no parameters, and nothing trains or calibrates them.
    """

    weight: Tensor

    def __init__(self, dim: int, weight: Tensor) -> None:
        super().__init__()
        self.dim = dim
        self.register_buffer("weight", weight)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x.transpose(self.dim, -1), self.weight).transpose(self.dim, -1)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, shape={tuple(self.weight.shape)}"


class Mean(nn.Module):
    """Mean over `dims`, none of them the batch."""

    def __init__(self, dims: tuple[int, ...], keepdim: bool = False) -> None:
        super().__init__()
        self.dims, self.keepdim = tuple(dims), keepdim

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(self.dims, keepdim=self.keepdim)

    def extra_repr(self) -> str:
        return f"{self.dims}, keepdim={self.keepdim}"


class OwnSizeAvgPool2d(nn.Module):
    """`F.avg_pool2d(x, x.size(dim))`: a square window as large as the input is along `dim` (2 or 3)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, x.shape[self.dim])

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class ClipQuant(nn.Module):
    """Clip to `lam` and round to `L` levels: `lam / L * clip(floor(x * L / lam + shift), 0, L)`.

    The activation that an integrate-and-fire neuron computes exactly, at `T = L` and constant input, from the initial
    potential `shift * theta`. Source: QCFS, Bu et al., ICLR 2022 (arXiv 2303.04347), equation of the
    quantisation clip-floor-shift activation; `shift = 0` is the clip-floor of Yan et al. (AAAI 2021).

    Attributes:
        lam: clip bound, unit of the activation, > 0; shape `[]` (one a layer) or `[C, 1, ...]` (one a channel).
        L: number of levels above zero.
        shift: 0.5 rounds, 0 floors.
    """

    lam: Tensor

    def __init__(self, lam: Tensor, L: int, shift: float = 0.5) -> None:
        super().__init__()
        self.register_buffer("lam", lam)
        self.L, self.shift = L, shift

    def forward(self, x: Tensor) -> Tensor:
        level = torch.floor(x * self.L / self.lam + self.shift).clamp(0, self.L)
        return level * self.lam / self.L

    def extra_repr(self) -> str:
        return f"L={self.L}, shift={self.shift}, lam={describe(self.lam)}"


class SignedQuant(nn.Module):
    """Clip to `[-lam, lam]` and round to `L` levels on either side: `lam / L * clip(floor(x L / lam + 1/2), -L, L)`.

    What a neuron of either sign computes at constant input, when a step of it reaches up to `units` thresholds and
    `L = units * T`. It stands where a value that is no spike meets weights, or a value that it is multiplied by.

    Attributes:
        lam: clip bound, unit of the value, > 0; shape `[]` (one a layer), `[C, 1, ...]` (one a channel, which is the
            first dimension behind the batch) or `[C]` (one a feature, the last dimension).
        L: number of levels above zero.
        units: thresholds that one step may emit; 1 is ternary.
    """

    lam: Tensor

    def __init__(self, lam: Tensor, L: int, units: int = 1) -> None:
        super().__init__()
        self.register_buffer("lam", lam)
        self.L, self.units = L, units

    def forward(self, x: Tensor) -> Tensor:
        level = torch.floor(x * self.L / self.lam + 0.5).clamp(-self.L, self.L)
        return level * self.lam / self.L

    def extra_repr(self) -> str:
        return f"L={self.L}, units={self.units}, lam={describe(self.lam)}"


def is_count(value: Any) -> bool:
    """Whether a value is a whole number, 1 or more."""
    return type(value) is int and value >= 1


def describe(values: Tensor) -> str:
    """A parameter in a few characters: its value, or its range over channels."""
    if values.numel() == 1:
        return f"{values.item():.4g}"
    return f"{values.min().item():.4g}..{values.max().item():.4g} ({values.numel()} channels)"


CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
WEIGHTED = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)
BATCHNORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
AVERAGE_POOLS = (
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
    OwnSizeAvgPool2d,
)
MAX_POOLS = (
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveMaxPool3d,
)
ROUTES = (Concat, Pad, Slice, Reshape, Permute, Take, nn.Flatten, nn.Upsample, nn.PixelShuffle)
LINEAR = (*WEIGHTED, *AVERAGE_POOLS, *ROUTES, Add, Sub, Affine, Mean, Mix)
ACTIVATIONS = (nn.ReLU, nn.Hardtanh)
HEADS = (nn.Softmax, nn.LogSoftmax)
TRAINED = (*BATCHNORMS, *ACTIVATIONS, ClipQuant, SignedQuant)  # what a network has before it spikes

_CONV = (
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "groups",
    "padding_mode",
)
_POOL = ("kernel_size", "stride", "padding", "ceil_mode")

# How each module is rebuilt: the names of the attributes that are also its constructor's arguments.
CONFIG: dict[type[nn.Module], tuple[str, ...]] = {
    **dict.fromkeys(CONVOLUTIONS, (*_CONV, "bias")),
    **dict.fromkeys(TRANSPOSED, (*_CONV, "output_padding", "bias")),
    nn.Linear: ("in_features", "out_features", "bias"),
    **dict.fromkeys(BATCHNORMS, ("num_features", "eps", "affine")),
    nn.AvgPool1d: (*_POOL, "count_include_pad"),
    nn.AvgPool2d: (*_POOL, "count_include_pad", "divisor_override"),
    nn.AvgPool3d: (*_POOL, "count_include_pad", "divisor_override"),
    **dict.fromkeys((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d), ("output_size",)),
    **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), (*_POOL, "dilation")),
    **dict.fromkeys((nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d), ("output_size",)),
    OwnSizeAvgPool2d: ("dim",),
    Concat: ("dim",),
    Pad: ("pads", "mode", "value"),
    Slice: ("ranges",),
    Reshape: ("shape",),
    Permute: ("dims",),
    Take: ("dim", "index"),
    Mix: ("dim", "weight"),
    nn.Flatten: ("start_dim", "end_dim"),
    nn.Upsample: ("size", "scale_factor", "mode"),
    nn.PixelShuffle: ("upscale_factor",),
    Add: (),
    Sub: (),
    Affine: ("scale", "shift"),
    Grid: ("scale", "low", "high"),
    Mean: ("dims", "keepdim"),
    nn.ReLU: (),
    nn.Hardtanh: ("min_val", "max_val"),
    nn.Softmax: ("dim",),
    nn.LogSoftmax: ("dim",),
    ClipQuant: ("lam", "L", "shift"),
    SignedQuant: ("lam", "L", "units"),
}


# Arguments that a module has had since files were written without them, and what those files mean.
ADDED: dict[type[nn.Module], dict[str, Any]] = {}
PLUGGED: dict[type, str] = {}  # classes from outside, and the plug-in that brought each: see `snnc.plugins`


def register(*fields: str, **added: Any) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Class decorator: adds a module to the dialect. `fields` are attributes that its constructor takes by name.

    `added` are further ones, which older files lack, with the value that they stand for there.
    """

    def add(cls: type[nn.Module]) -> type[nn.Module]:
        CONFIG[cls], ADDED[cls] = (*fields, *added), added
        return cls

    return add
