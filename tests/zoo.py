"""Small networks, each with one trap. Every test that speaks of "any network" runs over `ZOO`.

`ZOO[name]()` gives a network in eval mode, with batch statistics that are not the defaults, and the shape of one
sample. Seeds are fixed. `dyadic` rounds a network's numbers so that arithmetic on it is exact.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Net = tuple[nn.Module, tuple[int, ...]]
BATCHNORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def ready(net: nn.Module, *shape: int) -> Net:
    """Random batch statistics, eval mode."""
    for module in net.modules():
        if isinstance(module, BATCHNORMS):
            module.running_mean.uniform_(-0.4, 0.4)
            module.running_var.uniform_(0.5, 2.0)
            if module.affine:
                nn.init.uniform_(module.weight, 0.6, 1.4)
                nn.init.uniform_(module.bias, -0.2, 0.4)
    return net.eval(), shape


def dyadic(net: nn.Module, bits: int = 6) -> nn.Module:
    """Rounds every number to a multiple of `2 ** -bits`, in place.

    Batch variances become 1/4, 1 or 4 and `eps` 0, so that folding them stays on the grid, and the divisions in
    quantised activations are left alone.
    """
    grid = 2.0**bits
    with torch.no_grad():
        for module in net.modules():
            for name, value in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
                if value.is_floating_point() and name != "running_var":
                    value.copy_((value * grid).round() / grid)
            if isinstance(module, BATCHNORMS):
                module.eps = 1e-30  # nothing beside the variance; torch before 2.12 refuses 0
                module.running_var.copy_(4.0 ** (module.running_var.log2() / 2).round().clamp(-1, 1))
    return net


class Plain(nn.Module):
    """Nothing special: the baseline."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu1 = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU()
        self.conv2, self.bn2, self.relu2 = nn.Conv2d(6, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU()
        self.pool, self.fc = nn.AvgPool2d(2), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.relu2(self.bn2(self.conv2(x)))
        return self.fc(torch.flatten(self.pool(x), 1))


class Block(nn.Module):
    """A residual block; where shapes differ, the shortcut slices and pads (option A)."""

    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o)
        self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        self.extra = o - i

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.extra:
            half = self.extra // 2
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, self.extra - half))
        y += x
        return F.relu(y)


class Residual(nn.Module):
    """Joins of a main path with an identity and with a padded slice; `+=` must not change the shortcut's value."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 6, 3, 1, 1, bias=False), nn.BatchNorm2d(6)
        self.layer1 = nn.Sequential(Block(6, 6, 1), Block(6, 12, 2))
        self.fc = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer1(F.relu(self.bn(self.conv(x))))
        x = F.avg_pool2d(x, x.size()[3])
        return self.fc(x.view(x.size(0), -1))


class PreActivation(nn.Module):
    """BatchNorm and ReLU before the convolution, so BN cannot fold backwards."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.bn1, self.conv1 = nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3, padding=1)
        self.bn2, self.conv2 = nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3, padding=1)
        self.bn3, self.fc = nn.BatchNorm2d(6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.conv1(torch.relu(self.bn1(x)))
        x = x + self.conv2(torch.relu(self.bn2(y)))
        return self.fc(torch.relu(self.bn3(x)).mean((2, 3)))


class SharedRelu(nn.Module):
    """One ReLU object, called at four places."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU(inplace=True)
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), self.act, nn.Conv2d(6, 6, 3), self.act)
        self.conv, self.fc1, self.fc2 = nn.Conv2d(6, 8, 3), nn.Linear(32, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv(self.body(x)))
        return self.fc2(self.act(self.fc1(x.flatten(1))))


class SharedConv(nn.Module):
    """One convolution called twice, each time with a BatchNorm of its own: folding must not see the other."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.bns, self.fc = nn.ModuleList([nn.BatchNorm2d(6), nn.BatchNorm2d(6)]), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for bn in self.bns:
            x = F.relu(bn(self.conv(x)))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Functional(nn.Module):
    """Parameters by themselves, and functions of them: no module of `torch.nn` inside."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.b1 = nn.Parameter(torch.randn(6, 3, 3, 3) * 0.3), nn.Parameter(torch.randn(6) * 0.1)
        self.gain, self.shift = nn.Parameter(torch.rand(6) + 0.5), nn.Parameter(torch.randn(6) * 0.1)
        self.register_buffer("mean", torch.randn(6) * 0.1)
        self.register_buffer("var", torch.rand(6) + 0.5)
        self.w2 = nn.Parameter(torch.randn(54, 8) * 0.2)
        self.w3, self.b3 = nn.Parameter(torch.randn(5, 8) * 0.5), nn.Parameter(torch.randn(5))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.w1, self.b1, stride=1, padding="same")
        x = F.batch_norm(x, self.mean, self.var, self.gain, self.shift, training=False)
        x = torch.clamp(x, min=0)
        x = torch.nn.functional.max_pool2d(x, 3, 3)
        x = (torch.reshape(x, (x.shape[0], -1)) @ self.w2).clamp(0, 2.5)
        return F.linear(F.dropout(x, 0.5, self.training), self.w3, self.b3)


class InPlace(nn.Module):
    """Everything in place, and a name that still means the tensor that was changed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.fc = nn.Linear(6 * 64, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        y = F.relu_(x)
        y = self.conv2(x + y)
        y.add_(x).relu_()
        z = y
        z *= 0.5
        return self.fc((y + z).clamp_(0, 6).view(-1, 384))


class MaxPools(nn.Module):
    """Max pooling before and after the ReLU, overlapping and padded."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()
        self.conv2, self.bn2 = nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.pool1, self.pool2, self.fc = nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2), nn.Linear(8 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(self.relu(self.bn1(self.conv1(x))))
        x = self.relu(self.pool2(self.bn2(self.conv2(x))))
        return self.fc(torch.flatten(x, 1))


class Dense(nn.Module):
    """Concatenations of values of different ages, each read again."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, 4, 3, padding=1)
        self.bn1, self.conv1 = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, padding=1, bias=False)
        self.bn3, self.fc = nn.BatchNorm2d(12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.conv0(x)]
        for bn, conv in ((self.bn1, self.conv1), (self.bn2, self.conv2)):
            features.append(conv(F.relu(bn(torch.cat(features, 1)))))
        x = F.relu(self.bn3(torch.cat(features, dim=1)))
        return self.fc(F.avg_pool2d(x, x.shape[2:]).flatten(1))


class Inverted(nn.Module):
    """Depthwise convolutions, ReLU6, and a residual join with no activation behind it (MobileNet-v2)."""

    def __init__(self) -> None:
        super().__init__()

        def unit(i: int, o: int, k: int, g: int) -> list[nn.Module]:
            return [nn.Conv2d(i, o, k, padding=k // 2, groups=g, bias=False), nn.BatchNorm2d(o)]

        self.stem = nn.Sequential(*unit(3, 4, 3, 1), nn.ReLU6(inplace=True))
        self.body = nn.Sequential(*unit(4, 8, 1, 1), nn.ReLU6(), *unit(8, 8, 3, 8), nn.ReLU6(), *unit(8, 4, 1, 1))
        self.last = nn.Sequential(*unit(4, 12, 1, 1), nn.Hardtanh(0, 6))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Dropout(0.2), nn.Linear(12, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.last(x + self.body(x)))


class Upsampled(nn.Module):
    """A decoder: nearest-neighbour scaling by size and by factor, pixel shuffle, a skip connection; it gives a map."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, 2, 1)
        self.up, self.mid = nn.Upsample(scale_factor=2), nn.Conv2d(14, 8, 3, padding=1)
        self.shuffle, self.out = nn.PixelShuffle(2), nn.Conv2d(2, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = F.relu(self.down1(x))
        y = self.up(F.relu(self.down2(skip)))
        y = F.relu(self.mid(torch.cat([y, skip], 1)))
        y = y + F.interpolate(y[:, :, :2, :2], size=(4, 4))
        return self.out(self.shuffle(y))


class Mlp(nn.Module):
    """Linear layers only, BatchNorm1d on vectors, and an input that is flattened already."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.bn1 = nn.Linear(12, 16, bias=False), nn.BatchNorm1d(16)
        self.fc2, self.bn2 = nn.Linear(16, 16), nn.BatchNorm1d(16, affine=False)
        self.fc3 = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.fc1(x)).relu()
        x = F.threshold(self.bn2(self.fc2(x)), 0, 0)
        return self.fc3(x)


class Shuffle(nn.Module):
    """Channels split, shuffled by way of the input's sizes, and joined (ShuffleNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv, self.bn, self.fc = nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.BatchNorm2d(4), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        a, b = x.chunk(2, dim=1)
        x = torch.cat((a, F.relu(self.bn(self.conv(b)))), dim=1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.fc(x.mean([-2, -1]))


class Lopsided(nn.Module):
    """Padding on two sides only, before strided convolutions, and a padding that is not zero."""

    def __init__(self) -> None:
        super().__init__()
        self.pad, self.conv1 = nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 6, 3, 2)
        self.conv2 = nn.Conv2d(6, 6, 3, padding="same", dilation=2)
        self.conv3 = nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect")
        self.fc = nn.Linear(96, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(self.pad(x)))
        x = F.relu(self.conv2(x))
        return self.fc(F.relu(self.conv3(x)).flatten(1))


class GradFloor(torch.autograd.Function):
    """Rounds down, and lets gradients through: how QCFS is published."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.floor()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return grad


class Qcfs(nn.Module):
    """The published activation of QCFS: clip, floor with a shift, a trained bound."""

    def __init__(self, levels: int = 4, bound: float = 2.0) -> None:
        super().__init__()
        self.thresh, self.t = nn.Parameter(torch.tensor([bound])), levels

    def forward(self, x: Tensor) -> Tensor:
        x = torch.clamp(x / self.thresh, 0, 1)
        return GradFloor.apply(x * self.t + 0.5) / self.t * self.thresh


class QcfsNet(nn.Module):
    """Quantised activations written out as arithmetic around a custom autograd function."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.act1 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), Qcfs(4, 2.0)
        self.conv2, self.act2, self.pool = nn.Conv2d(6, 6, 3, padding=1), Qcfs(8, 1.0), nn.AvgPool2d(2)
        self.fc = nn.Linear(96, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.conv1(x)))
        return self.fc(torch.flatten(self.pool(self.act2(self.conv2(x))), 1))


class CqNet(nn.Module):
    """Clip-floor activations, and a floor behind a pool whose bound only follows from what comes before it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.pool = (
            nn.Conv2d(3, 6, 3, padding=1),
            nn.Conv2d(6, 6, 3, padding=1),
            nn.AvgPool2d(2),
        )
        self.fc = nn.Linear(96, 5)

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.conv1, self.conv2):
            x = torch.floor(torch.clamp(conv(x), 0, 1) * 8) / 8
        x = torch.floor(self.pool(x) * 8) / 8
        return self.fc(x.flatten(1))


class Head(nn.Module):
    """A log-softmax on the logits, which are a fully convolutional map's global maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.log_softmax(self.conv2(F.relu(self.conv1(x))).amax((2, 3)), dim=-1)


class Normalised(nn.Module):
    """Normalises its own input, by buffers with a dimension for the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.25, 0.5, 0.125]).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.5, 0.25, 2.0]).reshape(1, 3, 1, 1))
        self.conv, self.fc = nn.Conv2d(3, 6, 3, 2), nn.Linear(54, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean) / self.std
        return self.fc(F.relu(self.conv(x)).flatten(1))


def _conv1d() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(3, 6, 5, padding=2), nn.BatchNorm1d(6), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(6, 6, 3, padding=2, dilation=2), nn.ReLU(), nn.AvgPool1d(8), nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip


def _conv3d() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(2, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(4, 4, 1), nn.ReLU(),
        nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 5),
    )  # fmt: skip


def _decoder() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 3, 2, 1, output_padding=1, groups=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1),
    )  # fmt: skip


def _dropout() -> nn.Module:
    return nn.Sequential(
        nn.Dropout2d(0.1), nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.Dropout(0.5, inplace=True), nn.Identity(),
        nn.Flatten(), nn.AlphaDropout(0.1), nn.Linear(216, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 5),
        nn.Softmax(dim=1),
    )  # fmt: skip


def entry(seed: int, make: Callable[[], nn.Module], *shape: int) -> Callable[[], Net]:
    """A network of the zoo, its seed its own."""

    def build() -> Net:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return ready(make(), *(shape or (3, 8, 8)))

    return build


ZOO: dict[str, Callable[[], Net]] = {
    "plain": entry(1, Plain),
    "residual": entry(2, Residual),
    "preactivation": entry(3, PreActivation),
    "shared-relu": entry(4, SharedRelu),
    "shared-conv": entry(5, SharedConv),
    "functional": entry(6, Functional, 3, 9, 9),
    "in-place": entry(7, InPlace),
    "max-pools": entry(8, MaxPools),
    "dense": entry(9, Dense),
    "inverted": entry(10, Inverted),
    "conv1d": entry(11, _conv1d, 3, 16),
    "conv3d": entry(12, _conv3d, 2, 4, 4, 4),
    "decoder": entry(13, _decoder),
    "upsampled": entry(14, Upsampled),
    "mlp": entry(15, Mlp, 12),
    "shuffle": entry(16, Shuffle),
    "lopsided": entry(17, Lopsided),
    "qcfs": entry(18, QcfsNet),
    "cq": entry(19, CqNet),
    "head": entry(20, Head),
    "normalised": entry(21, Normalised),
    "dropout": entry(22, _dropout),
}


def sample(shape: tuple[int, ...], batch: int = 4, bits: int | None = None) -> Tensor:
    """A batch of random input, on a dyadic grid where `bits` says so."""
    generator = torch.Generator().manual_seed(math.prod(shape))
    x = torch.randn((batch, *shape), generator=generator)
    return x if bits is None else (x * 2**bits).round() / 2**bits
