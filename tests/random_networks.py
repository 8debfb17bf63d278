"""Random networks of the dialect for hypothesis, spelled as authors spell them.

`networks()` draws a module in eval mode and the shape of one sample: convolutions in one to three dimensions, or linear
layers alone, with odd sizes, groups, strides, dilations and paddings; normalisation in every place; pools of all kinds;
sums, concatenations, slices, paddings and scalings; as modules, as functions and in place. Every number is a small
dyadic one (`tests.nets.fill`), so in double precision all arithmetic is exact, and averages are over powers of two
unless `dyadic` is False.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.nets import fill

Shape = tuple[int, ...]
Draw = Callable[[st.SearchStrategy[Any]], Any]

# One activation each, in the spellings that authors use.
SPELLED: dict[str, Callable[[Tensor], Tensor]] = {
    "F.relu": F.relu,
    "F.relu inplace": lambda x: F.relu(x, inplace=True),
    "torch.relu": torch.relu,
    "method": lambda x: x.relu(),
    "relu_": lambda x: x.relu_(),
    "clamp": lambda x: x.clamp(min=0),
    "F.relu6": F.relu6,
    "hardtanh": lambda x: F.hardtanh(x, 0.0, 4.0),
    "maximum": lambda x: torch.clamp_min(x, 0),
    "bounded": lambda x: torch.clamp(x, 0, 2),
}
JOINS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "+": lambda a, b: a + b,
    "torch.add": torch.add,
    "add_": lambda a, b: a.add_(b),
    "-": lambda a, b: a - b,
}
SCALINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "x * c": lambda x: x * 0.5,
    "x + c": lambda x: x + 0.25,
    "c - x": lambda x: 1 - x,
    "x / c": lambda x: x / 2,
    "mul_": lambda x: x.mul_(0.5),
    "-x": lambda x: -x,
}


class Spelled(nn.Module):
    """A function without parameters, by its name in a table."""

    def __init__(self, table: dict[str, Callable[[Tensor], Tensor]], name: str) -> None:
        super().__init__()
        self.function, self.name = table[name], name

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def extra_repr(self) -> str:
        return self.name


class Functional(nn.Module):
    """A convolution, linear layer or normalisation that an author calls as a function of its parameters."""

    def __init__(self, owner: nn.Module) -> None:
        super().__init__()
        self.owner = owner

    def forward(self, x: Tensor) -> Tensor:
        m: Any = self.owner
        if isinstance(m, nn.Linear):
            return F.linear(x, m.weight, m.bias)
        if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            conv = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[m.weight.dim()]
            return conv(x, m.weight, m.bias, m.stride, m.padding, m.dilation, m.groups)
        return F.batch_norm(x, m.running_mean, m.running_var, m.weight, m.bias, False, 0.1, m.eps)


class Join(nn.Module):
    """A residual block: the body's value and the shortcut's, joined."""

    def __init__(self, body: nn.Module, shortcut: nn.Module, how: str) -> None:
        super().__init__()
        self.body, self.shortcut, self.how = body, shortcut, how

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.shortcut(x) if len(list(self.shortcut.children())) else x
        return JOINS[self.how](self.body(x), shortcut)

    def extra_repr(self) -> str:
        return self.how


class Cat(nn.Module):
    """The value, or a part of it, beside what a body makes of it."""

    def __init__(self, body: nn.Module, chunked: bool) -> None:
        super().__init__()
        self.body, self.chunked = body, chunked

    def forward(self, x: Tensor) -> Tensor:
        if self.chunked:
            a, b = x.chunk(2, dim=1)
            return torch.cat((a, self.body(b)), dim=1)
        return torch.cat([self.body(x), x], 1)


class Route(nn.Module):
    """Values moved about: a slice, a padding, a shuffle of channels, a nearest neighbour."""

    def __init__(self, how: str, amount: int, shape: Shape) -> None:
        super().__init__()
        self.how, self.amount, self.shape = how, amount, shape

    def forward(self, x: Tensor) -> Tensor:
        channels, *sizes = self.shape
        match self.how:
            case "slice":
                return x[:, :, :: self.amount]
            case "channels":
                return x[:, self.amount :]
            case "pad":
                return F.pad(x, (0, self.amount, 1, 0) if len(sizes) > 1 else (self.amount, 0))
            case "shuffle":
                x = x.view(x.size(0), channels // self.amount, self.amount, *sizes).transpose(1, 2)
                return x.reshape(-1, channels, *sizes)
            case _:
                return F.interpolate(x, scale_factor=self.amount)

    def extra_repr(self) -> str:
        return f"{self.how} {self.amount}"


def kind(name: str, dims: int) -> Any:
    return getattr(nn, f"{name}{dims}d")


def chance(draw: Draw, *of: Any) -> Any:
    return draw(st.sampled_from(of))


def divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def weighted(draw: Draw, shape: Shape, same: bool = False) -> nn.Module:
    """A linear layer or a convolution; with `same` one that keeps the shape."""
    channels, *sizes = shape
    out = channels if same else chance(draw, 2, 3, 4, 6)
    bias = draw(st.booleans())
    if not sizes:
        made: Any = nn.Linear(channels, out, bias)
        return Functional(made) if draw(st.booleans()) else made
    kernel, stride, padding, dilation = [], [], [], []
    for size in sizes:
        k = chance(draw, *([1, 3] if same else [k for k in (1, 2, 3) if k <= size]))
        d = 1 if k == 1 else chance(draw, *[d for d in (1, 2) if same or d * (k - 1) < size])
        kernel.append(k)
        dilation.append(d)
        padding.append(d * (k - 1) // 2 if same else draw(st.integers(0, min(2, size - 1))))
        stride.append(1 if same else chance(draw, 1, 1, 2))
    groups = chance(draw, *[g for g in divisors(channels) if out % g == 0])
    others = ("reflect", "replicate", "circular")
    fits = len(sizes) < 3 and all(p < size for p, size in zip(padding, sizes, strict=True))
    mode = chance(draw, "zeros", "zeros", "zeros", *(others if fits else ()))
    made = kind("Conv", len(sizes))(
        channels, out, tuple(kernel), tuple(stride), tuple(padding), tuple(dilation), groups, bias, mode
    )
    return Functional(made) if mode == "zeros" and draw(st.booleans()) else made


def transposed(draw: Draw, shape: Shape) -> nn.Module:
    """A transposed convolution, which doubles the sizes or so."""
    channels, *sizes = shape
    if not sizes or max(sizes) > 6:
        return weighted(draw, shape)
    out, stride = chance(draw, 2, 4), chance(draw, 1, 2)
    groups = chance(draw, *[g for g in divisors(channels) if out % g == 0])
    extra = draw(st.integers(0, stride - 1))
    return kind("ConvTranspose", len(sizes))(channels, out, chance(draw, 2, 3), stride, 0, extra, groups)


def norm(draw: Draw, shape: Shape) -> nn.Module:
    made = kind("BatchNorm", max(1, len(shape) - 1))(shape[0], affine=draw(st.booleans()))
    return Functional(made) if draw(st.booleans()) else made


def activation(draw: Draw, shape: Shape) -> nn.Module:
    own = (nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.Hardtanh(0.0, 2.0), nn.Threshold(0.0, 0.0))
    return chance(draw, *own) if draw(st.booleans()) else Spelled(SPELLED, chance(draw, *SPELLED))


def scaling(draw: Draw, shape: Shape) -> nn.Module:
    return Spelled(SCALINGS, chance(draw, *SCALINGS))


def pool(draw: Draw, shape: Shape, dyadic: bool) -> nn.Module:
    """Average or maximum, over a window or down to a size."""
    sizes = shape[1:]
    if not sizes:
        return activation(draw, shape)
    most = draw(st.booleans())
    exact = dyadic and not most
    fits = [k for k in ((1, 2) if exact else (1, 2, 3)) if k <= min(sizes)]
    k = tuple(chance(draw, *fits) for _ in sizes)
    stride, ceil = chance(draw, None, 1, 2), not exact and draw(st.booleans())
    padding = tuple(draw(st.integers(0, one // 2)) for one in k)
    if not exact and draw(st.integers(0, 3)) == 0:
        return kind("AdaptiveMaxPool" if most else "AdaptiveAvgPool", len(sizes))(draw(st.integers(1, min(sizes))))
    if most:
        dilation = chance(draw, 1, 1, 2) if 2 * (max(k) - 1) < min(sizes) else 1
        return kind("MaxPool", len(sizes))(k, stride, padding, dilation, ceil_mode=ceil)
    return kind("AvgPool", len(sizes))(k, stride, padding, ceil, exact or draw(st.booleans()))


def route(draw: Draw, shape: Shape) -> nn.Module:
    channels, *sizes = shape
    options = [("channels", draw(st.integers(1, 2)))] if channels > 2 else []
    if sizes:
        options += [("slice", 2), ("pad", draw(st.integers(1, 2)))]
        options += [("nearest", 2)] if max(sizes) < 5 else []
    options += [("shuffle", g) for g in divisors(channels)[1:-1]]
    how, amount = chance(draw, *(options or [("shuffle", 1)]))
    return Route(how, amount, shape)


def residual(draw: Draw, shape: Shape) -> nn.Module:
    body = [weighted(draw, shape, same=True)]
    if draw(st.booleans()):
        body.append(norm(draw, shape))
    if draw(st.booleans()):
        first = [norm(draw, shape)] if draw(st.booleans()) else []
        body = [*first, nn.ReLU(), *body] if draw(st.booleans()) else [*body, nn.ReLU(), weighted(draw, shape, True)]
    shortcut = [weighted(draw, shape, same=True)] if draw(st.booleans()) else []
    return Join(nn.Sequential(*body), nn.Sequential(*shortcut), chance(draw, *JOINS))


def cat(draw: Draw, shape: Shape) -> nn.Module:
    channels, *sizes = shape
    chunked = channels % 2 == 0 and draw(st.booleans())
    part = (channels // 2 if chunked else channels, *sizes)
    body = [weighted(draw, part, same=True)]
    body += [norm(draw, part)] if draw(st.booleans()) else []
    return Cat(nn.Sequential(*body, *([nn.ReLU()] if draw(st.booleans()) else [])), chunked)


def head(draw: Draw, shape: Shape, dyadic: bool) -> list[nn.Module]:
    """From a map to class scores, or a map as it is."""
    sizes = shape[1:]
    made: list[nn.Module] = []
    if sizes:
        pools = [nn.Flatten(), kind("AdaptiveMaxPool", len(sizes))(1)]
        average = kind("AdaptiveAvgPool", len(sizes))(1)
        pools += [] if dyadic and torch.Size(sizes).numel() & (torch.Size(sizes).numel() - 1) else [average]
        made = [chance(draw, *pools)]
        made += [] if isinstance(made[0], nn.Flatten) else [nn.Flatten()]
        shape = (after(nn.Sequential(*made), shape)[0],)
    if draw(st.booleans()):
        made += [nn.Linear(shape[0], 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout()]
        shape = (8,)
    return [*made, nn.Linear(shape[0], 4)]


def after(module: nn.Module, shape: Shape) -> Shape:
    """The shape of a sample behind a module."""
    with torch.no_grad():
        return tuple(module.eval()(torch.zeros(2, *shape)).shape[1:])


@st.composite
def networks(draw: Draw, dyadic: bool = True) -> tuple[nn.Module, Shape]:
    """A network with at least one activation, in eval mode, and the shape of one sample."""
    dims = chance(draw, 2, 2, 1, 3, 0)
    shape = start = (chance(draw, 2, 3, 4), *(draw(st.integers(3, 4 if dims == 3 else 7)) for _ in range(dims)))
    makers = [weighted, weighted, norm, activation, activation, residual, cat, route, scaling, transposed]
    layers: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 6))):
        make = chance(draw, *makers, pool)
        layer = pool(draw, shape, dyadic) if make is pool else make(draw, shape)
        shape = after(layer, shape)
        layers.append(layer)
    layers += [weighted(draw, shape, same=True), activation(draw, shape)]
    layers += head(draw, shape, dyadic)
    net = nn.Sequential(*layers)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    for module in net.modules():
        if not list(module.children()):
            fill(module, generator)
    return net.eval(), start
