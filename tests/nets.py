"""Tiny networks with dyadic numbers, built node by node, each with one trap.

Every weight, bound and input is a small multiple of a power of two, so float32 sums on them are exact in any
order: where two ways to run a network should agree, they agree to the bit.

`NETS[name]()` gives a graph of stage ANN and the shape of one sample.
"""

from collections.abc import Callable

import torch
from torch import Tensor, fx, nn

from snnc.calibrate.observe import watch
from snnc.ir import dialect
from snnc.ir.dialect import ClipQuant
from snnc.ir.graph import GraphBuilder, Stage, calls, replace
from snnc.passes import CalibrateOffset, FoldBatchNorm, InsertNeurons
from snnc.passes.pipeline import Context, Pass, Pipeline

Net = tuple[fx.GraphModule, tuple[int, ...]]


def fill(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """Dyadic numbers into a module: multiples of 1/8, and batch variances whose roots are powers of two."""

    def pick(values: list[float], shape: torch.Size) -> Tensor:
        return torch.tensor(values)[torch.randint(len(values), shape, generator=generator)]

    norm = isinstance(module, dialect.BATCHNORMS)
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if name == "running_var":
                value.copy_(pick([0.25, 1.0, 4.0], value.shape))
            elif norm and name == "weight":
                value.copy_(pick([0.5, 1.0, 2.0, -1.0], value.shape))
            elif value.is_floating_point():
                value.copy_(torch.randint(-4, 6, value.shape, generator=generator) / 8)
    if norm:
        module.eps = 1e-30  # nothing beside the variance; torch before 2.12 refuses 0
    return module


class Dyadic(GraphBuilder):
    """A `GraphBuilder` that fills each module as it comes."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def call(self, name: str, module: nn.Module, *inputs: fx.Node) -> fx.Node:
        if not isinstance(module, ClipQuant | dialect.Affine | dialect.Mix):
            fill(module, self.generator)
        return super().call(name, module, *inputs)

    def chain(self, x: fx.Node, **modules: nn.Module) -> fx.Node:
        """One module after the other."""
        for name, module in modules.items():
            x = self.call(name, module, x)
        return x


def mlp(b: Dyadic, x: fx.Node) -> fx.Node:
    """Linear layers and vectors only."""
    return b.chain(x, fc1=nn.Linear(6, 8), relu1=nn.ReLU(), fc2=nn.Linear(8, 8), relu2=nn.ReLU(), fc3=nn.Linear(8, 4))


def single(b: Dyadic, x: fx.Node) -> fx.Node:
    """One activation: its input is constant in time."""
    return b.chain(x, fc1=nn.Linear(6, 8), relu1=nn.ReLU(), fc2=nn.Linear(8, 4))


def conv(b: Dyadic, x: fx.Node) -> fx.Node:
    """Convolutions, normalisation and average pooling."""
    return b.chain(
        x, conv1=nn.Conv2d(3, 4, 3, padding=1, bias=False), bn1=nn.BatchNorm2d(4), relu1=nn.ReLU(),
        conv2=nn.Conv2d(4, 6, 3, 2, 1), bn2=nn.BatchNorm2d(6), relu2=nn.ReLU(), pool=nn.AvgPool2d(2),
        flatten=nn.Flatten(), fc=nn.Linear(6, 4),
    )  # fmt: skip


def residual(b: Dyadic, x: fx.Node) -> fx.Node:
    """An identity shortcut, and one with a convolution; the activation stands behind the join."""
    x = b.chain(x, stem=nn.Conv2d(3, 4, 3, padding=1), bn0=nn.BatchNorm2d(4), relu0=nn.ReLU())
    y = b.chain(x, conv1=nn.Conv2d(4, 4, 3, padding=1), bn1=nn.BatchNorm2d(4), relu1=nn.ReLU())
    y = b.chain(y, conv2=nn.Conv2d(4, 4, 3, padding=1), bn2=nn.BatchNorm2d(4))
    x = b.call("relu2", nn.ReLU(), b.call("join1", dialect.Add(), x, y))
    y = b.chain(x, conv3=nn.Conv2d(4, 6, 3, 2, 1), bn3=nn.BatchNorm2d(6))
    x = b.chain(x, short=nn.Conv2d(4, 6, 1, 2), bn4=nn.BatchNorm2d(6))
    x = b.call("relu3", nn.ReLU(), b.call("join2", dialect.Add(), y, x))
    return b.chain(x, pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(6, 4))


def preactivation(b: Dyadic, x: fx.Node) -> fx.Node:
    """Normalisation behind a join and before a padded convolution: nothing can take it."""
    x = b.chain(x, stem=nn.Conv2d(3, 4, 3, padding=1))
    y = b.chain(x, bn1=nn.BatchNorm2d(4), relu1=nn.ReLU(), conv1=nn.Conv2d(4, 4, 3, padding=1))
    x = b.call("join", dialect.Add(), y, x)
    x = b.chain(x, bn2=nn.BatchNorm2d(4), relu2=nn.ReLU(), bn3=nn.BatchNorm2d(4), conv2=nn.Conv2d(4, 4, 3, padding=1))
    return b.chain(x, relu3=nn.ReLU(), mean=dialect.Mean((2, 3)), fc=nn.Linear(4, 4))


def maxpool(b: Dyadic, x: fx.Node) -> fx.Node:
    """Max pooling of spikes: overlapping and padded, then one that is outside of time."""
    return b.chain(
        x, conv1=nn.Conv2d(3, 4, 3, padding=1), relu1=nn.ReLU(), pool1=nn.MaxPool2d(3, 2, 1),
        conv2=nn.Conv2d(4, 6, 2), relu2=nn.ReLU(), pool2=nn.MaxPool2d(2, ceil_mode=True),
        flatten=nn.Flatten(), fc=nn.Linear(24, 4),
    )  # fmt: skip


def pool_first(b: Dyadic, x: fx.Node) -> fx.Node:
    """Max pooling of currents: before time, and in it, each before the activation."""
    return b.chain(
        x, conv1=nn.Conv2d(3, 4, 3, padding=1), pool1=nn.MaxPool2d(2), relu1=nn.ReLU(),
        conv2=nn.Conv2d(4, 4, 3, padding=1), pool2=nn.AdaptiveMaxPool2d(2), relu2=nn.ReLU(),
        flatten=nn.Flatten(), fc=nn.Linear(16, 4),
    )  # fmt: skip


def dense(b: Dyadic, x: fx.Node) -> fx.Node:
    """Concatenation of an input that is still before time with one that is in it."""
    x = b.chain(x, stem=nn.Conv2d(3, 4, 3, padding=1))
    y = b.chain(x, bn1=nn.BatchNorm2d(4), relu1=nn.ReLU(), conv1=nn.Conv2d(4, 2, 3, padding=1))
    x = b.call("cat1", dialect.Concat(1), x, y)
    y = b.chain(x, bn2=nn.BatchNorm2d(6), relu2=nn.ReLU(), conv2=nn.Conv2d(6, 2, 3, padding=1))
    x = b.call("cat2", dialect.Concat(1), x, y)
    return b.chain(
        x,
        bn3=nn.BatchNorm2d(8),
        relu3=nn.ReLU(),
        pool=dialect.OwnSizeAvgPool2d(2),
        flat=nn.Flatten(),
        fc=nn.Linear(8, 4),
    )


def skip(b: Dyadic, x: fx.Node) -> fx.Node:
    """From the input straight to the output: a value from before time meets one from after it."""
    y = b.chain(x, fc1=nn.Linear(6, 8), relu1=nn.ReLU(), fc2=nn.Linear(8, 8), relu2=nn.ReLU(), fc3=nn.Linear(8, 4))
    z = b.chain(x, short=nn.Linear(6, 4))
    return b.call("join", dialect.Add(), y, z)


def double(b: Dyadic, x: fx.Node) -> fx.Node:
    """A value added to itself: analog, as spikes, and as a readout."""
    x = b.chain(b.call("twice0", dialect.Add(), x, x), fc1=nn.Linear(6, 8), relu1=nn.ReLU())
    x = b.chain(b.call("twice1", dialect.Add(), x, x), fc2=nn.Linear(8, 8), relu2=nn.ReLU())
    return b.chain(b.call("twice2", dialect.Add(), x, x), fc3=nn.Linear(8, 4))


def early(b: Dyadic, x: fx.Node) -> fx.Node:
    """The readout reads the first neurons too, which the second still need."""
    x = b.chain(x, fc1=nn.Linear(6, 8), relu1=nn.ReLU())
    y = b.chain(x, fc2=nn.Linear(8, 8), relu2=nn.ReLU())
    return b.chain(b.call("cat", dialect.Concat(1), x, y), fc3=nn.Linear(16, 4))


def shared(b: Dyadic, x: fx.Node) -> fx.Node:
    """One convolution, read by its normalisation and by another layer: folding would change the other's input."""
    x = b.chain(x, stem=nn.Conv2d(3, 4, 3, padding=1))
    y = b.chain(x, bn1=nn.BatchNorm2d(4), relu1=nn.ReLU(), conv1=nn.Conv2d(4, 4, 1))
    z = b.chain(x, bn2=nn.BatchNorm2d(4), relu2=nn.ReLU(), conv2=nn.Conv2d(4, 4, 1))
    x = b.call("relu3", nn.ReLU(), b.call("minus", dialect.Sub(), y, z))
    return b.chain(x, flatten=nn.Flatten(), fc=nn.Linear(256, 4))


def conv1d(b: Dyadic, x: fx.Node) -> fx.Node:
    """One dimension, dilated; a max pool in time and normalisation behind a join."""
    x = b.chain(x, conv1=nn.Conv1d(3, 4, 3, padding=1), bn1=nn.BatchNorm1d(4), relu1=nn.ReLU(), pool=nn.MaxPool1d(2))
    y = b.chain(x, conv2=nn.Conv1d(4, 4, 3, padding=2, dilation=2))
    x = b.call("join", dialect.Add(), x, y)
    x = b.chain(x, bn2=nn.BatchNorm1d(4), relu2=nn.ReLU(), mean=nn.AvgPool1d(8))
    return b.chain(x, flatten=nn.Flatten(), fc=nn.Linear(4, 4))


def conv3d(b: Dyadic, x: fx.Node) -> fx.Node:
    """Three dimensions."""
    return b.chain(
        x, conv1=nn.Conv3d(2, 4, 3, padding=1), bn1=nn.BatchNorm3d(4), relu1=nn.ReLU(), pool=nn.MaxPool3d(2),
        conv2=nn.Conv3d(4, 4, 1), relu2=nn.ReLU(), mean=nn.AdaptiveAvgPool3d(1), flatten=nn.Flatten(),
        fc=nn.Linear(4, 4),
    )  # fmt: skip


def decoder(b: Dyadic, x: fx.Node) -> fx.Node:
    """Grouped transposed convolution, upsampling and pixel shuffle; the output is a map."""
    x = b.chain(x, conv1=nn.Conv2d(3, 8, 3, 2, 1), bn1=nn.BatchNorm2d(8), relu1=nn.ReLU())
    x = b.chain(x, up1=nn.ConvTranspose2d(8, 4, 3, 2, 1, output_padding=1, groups=2), bn2=nn.BatchNorm2d(4))
    x = b.chain(x, relu2=nn.ReLU(), shuffle=nn.PixelShuffle(2), conv2=nn.Conv2d(1, 2, 3, 2, 1))
    return b.chain(x, up2=nn.Upsample(scale_factor=2), bn3=nn.BatchNorm2d(2), relu3=nn.ReLU(), conv3=nn.Conv2d(2, 2, 1))


def inverted(b: Dyadic, x: fx.Node) -> fx.Node:
    """Depthwise convolution, activations that are clipped already, a join without an activation behind it."""
    x = b.chain(x, stem=nn.Conv2d(3, 4, 3, padding=1), bn0=nn.BatchNorm2d(4), relu0=nn.Hardtanh(0.0, 4.0))
    y = b.chain(x, conv1=nn.Conv2d(4, 8, 1), bn1=nn.BatchNorm2d(8), relu1=nn.Hardtanh(0.0, 4.0))
    y = b.chain(y, conv2=nn.Conv2d(8, 8, 3, padding=1, groups=8), bn2=nn.BatchNorm2d(8), relu2=nn.Hardtanh(0.0, 4.0))
    y = b.chain(y, conv3=nn.Conv2d(8, 4, 1), bn3=nn.BatchNorm2d(4))
    x = b.call("join", dialect.Add(), x, y)
    return b.chain(x, conv4=nn.Conv2d(4, 4, 1), relu3=nn.ReLU(), mean=dialect.Mean((2, 3)), fc=nn.Linear(4, 4))


def routes(b: Dyadic, x: fx.Node) -> fx.Node:
    """Slices, padding, reshaping and permuting between neurons."""
    x = b.chain(x, conv1=nn.Conv2d(3, 4, 3), relu1=nn.ReLU())
    y = b.chain(x, first=dialect.Slice(((0, 2, 1), (None, None, 2))), pad=dialect.Pad((0, 0, 0, 3)))
    z = b.chain(
        x, second=dialect.Slice(((2, None, 1),)), shape=dialect.Reshape((2, 36)), back=dialect.Reshape((2, 6, 6))
    )
    x = b.call("cat", dialect.Concat(1), y, z)
    x = b.chain(x, turn=dialect.Permute((0, 1, 3, 2)), conv2=nn.Conv2d(4, 4, 3), relu2=nn.ReLU())
    return b.chain(x, flatten=nn.Flatten(), fc=nn.Linear(64, 4))


def picked(b: Dyadic, x: fx.Node) -> fx.Node:
    """Entries in another order, some twice, between neurons, behind them, and before the first; and mixes of them."""
    x = b.chain(x, conv1=nn.Conv2d(3, 4, 3), flip=dialect.Take(3, FLIPPED), relu1=nn.ReLU())
    y = b.chain(x, order=dialect.Take(1, torch.tensor([2, 0, 0, 3])), rows=dialect.Take(2, torch.tensor([5, 1, 0])))
    y = b.chain(y, conv2=nn.Conv2d(4, 4, 3, padding=1), relu2=nn.ReLU(), larger=dialect.Mix(2, LARGER))
    x = b.call("join", dialect.Add(), x, y)
    x = b.chain(x, sums=dialect.Mix(3, torch.ones(6, 6).tril()), conv3=nn.Conv2d(4, 4, 3), relu3=nn.ReLU())
    return b.chain(x, channels=dialect.Mix(1, MIXED), flatten=nn.Flatten(), fc=nn.Linear(48, 4))


# From three values to six, as bilinear interpolation has it, and from four channels to three.
FLIPPED = torch.arange(5, -1, -1)
LARGER = torch.tensor([[4, 0, 0], [3, 1, 0], [1, 3, 0], [0, 3, 1], [0, 1, 3], [0, 0, 4]]) / 4
MIXED = torch.tensor([[1.0, 0.0, 0.5, 0.0], [0.0, -1.0, 0.0, 0.25], [0.0, 0.0, 0.5, 0.5]])


def trained(b: Dyadic, x: fx.Node) -> fx.Node:
    """Activations with trained bounds, one that rounds and one that floors."""
    bound = torch.tensor([0.5, 1.0, 2.0, 1.0]).reshape(4, 1, 1)
    x = b.chain(x, conv1=nn.Conv2d(3, 4, 3, padding=1), bn1=nn.BatchNorm2d(4), act1=ClipQuant(bound, 4))
    x = b.chain(x, conv2=nn.Conv2d(4, 4, 3, padding=1), act2=ClipQuant(torch.tensor(2.0), 4, 0.0))
    return b.chain(x, flatten=nn.Flatten(), fc=nn.Linear(256, 4))


def bare(b: Dyadic, x: fx.Node) -> fx.Node:
    """The activation acts on the input itself, and the output is an activation, read through a softmax."""
    return b.chain(
        x, relu1=nn.ReLU(), pool=nn.MaxPool2d(2), scale=dialect.Affine(torch.tensor(0.5), torch.tensor(0.125)),
        conv=nn.Conv2d(3, 4, 4), relu2=nn.ReLU(), flatten=nn.Flatten(), head=nn.Softmax(1),
    )  # fmt: skip


IMAGE = (3, 8, 8)
MAKERS: dict[str, tuple[Callable[[Dyadic, fx.Node], fx.Node], tuple[int, ...]]] = {
    "mlp": (mlp, (6,)),
    "single": (single, (6,)),
    "conv": (conv, (3, 4, 4)),
    "residual": (residual, IMAGE),
    "preactivation": (preactivation, IMAGE),
    "maxpool": (maxpool, IMAGE),
    "pool-first": (pool_first, IMAGE),
    "dense": (dense, IMAGE),
    "skip": (skip, (6,)),
    "double": (double, (6,)),
    "early": (early, (6,)),
    "shared": (shared, IMAGE),
    "conv1d": (conv1d, (3, 16)),
    "conv3d": (conv3d, (2, 4, 4, 4)),
    "decoder": (decoder, IMAGE),
    "inverted": (inverted, IMAGE),
    "routes": (routes, IMAGE),
    "trained": (trained, IMAGE),
    "bare": (bare, IMAGE),
    "picked": (picked, IMAGE),
}


def entry(seed: int, make: Callable[[Dyadic, fx.Node], fx.Node], shape: tuple[int, ...]) -> Callable[[], Net]:
    def build() -> Net:
        b = Dyadic(seed)
        return b.finish(make(b, b.input())), shape

    return build


NETS: dict[str, Callable[[], Net]] = {
    name: entry(seed, make, shape) for seed, (name, (make, shape)) in enumerate(MAKERS.items())
}


def sample(shape: tuple[int, ...], batch: int = 4, seed: int = 0) -> Tensor:
    """Input on a grid of 1/8, from -2 to 2."""
    return torch.randint(-16, 17, (batch, *shape), generator=torch.Generator().manual_seed(seed)) / 8


def folded(name: str) -> Net:
    """The net without batch normalisation."""
    graph, shape = NETS[name]()
    context = Context(T=4, calibration=[sample(shape)])
    return Pipeline((FoldBatchNorm(),)).run(graph, context).graph, shape


def quantized(name: str, L: int = 4, shift: float = 0.5, units: int = 1) -> Net:
    """The net with clip bounds on its activations, in turn one for each channel and one for the layer.

    Each is a dyadic number times `units`, so that a graded neuron of as many units has a dyadic theta.
    """
    graph, shape = folded(name)
    sizes: dict[fx.Node, torch.Size] = {}
    watch(graph, sample(shape, 1), lambda node, value: sizes.update({node: value.shape}))
    for index, (node, _) in enumerate(calls(graph, *dialect.ACTIVATIONS)):
        size = sizes[node]
        bound = torch.tensor([1.0, 2.0, 0.5, 4.0])[torch.arange(size[1]) % 4].reshape(-1, *[1] * (len(size) - 2))
        replace(graph, node, ClipQuant((torch.tensor(2.0) if index % 2 else bound) * units, L, shift))
    return graph, shape


def spiking(
    name: str,
    T: int = 4,
    L: int | None = None,
    shift: float = 0.5,
    cos: CalibrateOffset | None = None,
    then: Pass | None = None,
    units: int = 1,
) -> Net:
    """The net with neurons, and with offset calibration where `cos` says how, or the neurons that `then` chooses."""
    graph, shape = quantized(name, L or T, shift, units)
    passes = (InsertNeurons(), *(one for one in (cos, then) if one))
    return Pipeline(passes).run(graph, Context(T=T), Stage.QUANTIZED).graph, shape
