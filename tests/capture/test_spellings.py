"""Every spelling of an operation becomes the module that stands for it, by both doors."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snnc.capture import capture
from tests.capture.test_capture import archived, signature


class Net(nn.Module):
    """A convolution, and then whatever the test writes, on maps of shape `[4, 6, 6]`."""

    def __init__(self, body, *layers: nn.Module) -> None:
        super().__init__()
        self.conv, self.body, self.layers = nn.Conv2d(3, 4, 3), body, nn.ModuleList(layers)
        self.per_channel = nn.Parameter(torch.rand(4, 1, 1) + 0.5)
        self.scalar = nn.Parameter(torch.tensor([1.5]))
        self.register_buffer("zero", torch.zeros(()))
        self.register_buffer("buffer", torch.randn(1, 4, 1, 1))
        self.register_buffer("mean", torch.randn(4))
        self.weight, self.bias = nn.Parameter(torch.randn(5, 4, 1, 1)), nn.Parameter(torch.randn(5))
        self.register_buffer("places", torch.tensor([5, 0, 3, 3]).reshape(1, 1, 1, 4))
        self.register_buffer("grid", torch.linspace(-1.2, 1, 30).reshape(1, 3, 5, 2))
        self.matrix = nn.Parameter(torch.randn(6, 3))
        self.groups = nn.Parameter(torch.randn(4, 6, 2))
        self.up = nn.Parameter(torch.randn(4, 2, 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, self.conv(x))


def build(body, *layers):
    torch.manual_seed(0)
    return Net(body, *layers).eval()


def kinds(graph):
    return [row[1] for row in signature(graph)][1:]


def check(net, expected, tolerance=1e-6, shape=(3, 8, 8)):
    """The symbolic door gives `expected` after the convolution, and the function of the network itself."""
    graph = capture(net, shape)
    assert kinds(graph) == expected
    x = torch.randn((4, *shape), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(graph(x), net(x), rtol=tolerance, atol=tolerance)


ACTIVATIONS = {
    "nn.ReLU": (lambda m, x: m.layers[0](x), ["ReLU"], nn.ReLU()),
    "nn.ReLU in place": (lambda m, x: m.layers[0](x), ["ReLU"], nn.ReLU(inplace=True)),
    "F.relu": (lambda m, x: F.relu(x), ["ReLU"]),
    "F.relu in place": (lambda m, x: F.relu(x, inplace=True), ["ReLU"]),
    "F.relu True": (lambda m, x: F.relu(x, True), ["ReLU"]),
    "F.relu_": (lambda m, x: F.relu_(x), ["ReLU"]),
    "torch.relu": (lambda m, x: torch.relu(x), ["ReLU"]),
    "torch.relu_": (lambda m, x: torch.relu_(x), ["ReLU"]),
    "x.relu": (lambda m, x: x.relu(), ["ReLU"]),
    "x.relu_": (lambda m, x: x.relu_(), ["ReLU"]),
    "x.clamp min": (lambda m, x: x.clamp(min=0), ["ReLU"]),
    "x.clamp 0": (lambda m, x: x.clamp(0), ["ReLU"]),
    "x.clamp_min": (lambda m, x: x.clamp_min(0), ["ReLU"]),
    "torch.clamp min": (lambda m, x: torch.clamp(x, min=0.0), ["ReLU"]),
    "torch.clip": (lambda m, x: torch.clip(x, 0, None), ["ReLU"]),
    "F.threshold": (lambda m, x: F.threshold(x, 0, 0), ["ReLU"]),
    "nn.Threshold": (lambda m, x: m.layers[0](x), ["ReLU"], nn.Threshold(0, 0)),
    "torch.maximum": (lambda m, x: torch.maximum(x, m.zero), ["ReLU"]),
    "nn.ReLU6": (lambda m, x: m.layers[0](x), ["Hardtanh"], nn.ReLU6()),
    "F.relu6": (lambda m, x: F.relu6(x), ["Hardtanh"]),
    "nn.Hardtanh": (lambda m, x: m.layers[0](x), ["Hardtanh"], nn.Hardtanh(0, 2)),
    "F.hardtanh": (lambda m, x: F.hardtanh(x, 0.0, 2.0), ["Hardtanh"]),
    "F.hardtanh_": (lambda m, x: F.hardtanh_(x, 0.0, 2.0), ["Hardtanh"]),
    "x.clamp": (lambda m, x: x.clamp(0, 2), ["Hardtanh"]),
    "torch.clamp tensors": (lambda m, x: torch.clamp(x, m.zero, m.scalar), ["Hardtanh"]),
    "relu then clamp_max": (lambda m, x: torch.clamp_max(x.relu(), 2), ["Hardtanh"]),
    "relu then minimum": (lambda m, x: torch.minimum(F.relu(x), m.scalar), ["Hardtanh"]),
    "relu then relu": (lambda m, x: F.relu(F.relu(x)), ["ReLU"]),
    "clamp by channel": (lambda m, x: torch.minimum(F.relu(x), m.per_channel), ["Affine", "Hardtanh", "Affine"]),
}

# Each of these stands behind a ReLU.
OTHERS = {
    # arithmetic
    "+ number": (lambda m, x: x + 0.5, ["Affine"]),
    "number +": (lambda m, x: 0.5 + x, ["Affine"]),
    "+ parameter": (lambda m, x: x + m.per_channel, ["Affine"]),
    "+ buffer": (lambda m, x: x + m.buffer, ["Affine"]),
    "add_ buffer": (lambda m, x: x.add_(m.buffer), ["Affine"]),
    "torch.add alpha": (lambda m, x: torch.add(x, m.buffer, alpha=2), ["Affine"]),
    "torch.add two, alpha": (
        lambda m, x: torch.add(m.layers[0](x), x, alpha=0.5),
        ["MaxPool2d", "Affine", "Add"],
        nn.MaxPool2d(3, 1, 1),
    ),
    "+ itself": (lambda m, x: x + x, ["Add"]),
    "x.add": (lambda m, x: x.add(m.layers[0](x)), ["MaxPool2d", "Add"], nn.MaxPool2d(3, 1, 1)),
    "+=": (lambda m, x: _iadd(x, m.layers[0](x)), ["MaxPool2d", "Add"], nn.MaxPool2d(3, 1, 1)),
    "-": (lambda m, x: m.layers[0](x) - x, ["MaxPool2d", "Sub"], nn.MaxPool2d(3, 1, 1)),
    "torch.sub": (lambda m, x: torch.sub(m.layers[0](x), x), ["MaxPool2d", "Sub"], nn.MaxPool2d(3, 1, 1)),
    "- number": (lambda m, x: x - 0.5, ["Affine"]),
    "number -": (lambda m, x: 0.5 - x, ["Affine"]),
    "torch.rsub": (lambda m, x: torch.rsub(x, 0.5), ["Affine"]),
    "-x": (lambda m, x: -x, ["Affine"]),
    "torch.neg": (lambda m, x: torch.neg(x), ["Affine"]),
    "* number": (lambda m, x: x * 0.5, ["Affine"]),
    "number *": (lambda m, x: 0.5 * x, ["Affine"]),
    "* parameter": (lambda m, x: x * m.per_channel, ["Affine"]),
    "torch.mul": (lambda m, x: torch.mul(x, m.scalar), ["Affine"]),
    "mul_": (lambda m, x: x.mul_(2), ["Affine"]),
    "*=": (lambda m, x: _imul(x, 2), ["Affine"]),
    "/ number": (lambda m, x: x / 3, ["Affine"]),
    "/ parameter": (lambda m, x: x / m.per_channel, ["Affine"]),
    "torch.div": (lambda m, x: torch.div(x, 3), ["Affine"]),
    "folded constants": (lambda m, x: x * (m.per_channel.abs() + 1).sqrt() / 2, ["Affine", "Affine"]),
    "* 1 and + 0": (lambda m, x: x * 1 + 0, []),
    # flattening and reshaping
    "torch.flatten": (lambda m, x: torch.flatten(x, 1), ["Flatten"]),
    "torch.flatten by name": (lambda m, x: torch.flatten(x, start_dim=1), ["Flatten"]),
    "x.flatten": (lambda m, x: x.flatten(1), ["Flatten"]),
    "nn.Flatten": (lambda m, x: m.layers[0](x), ["Flatten"], nn.Flatten()),
    "view size(0)": (lambda m, x: x.view(x.size(0), -1), ["Flatten"]),
    "view shape[0]": (lambda m, x: x.view(x.shape[0], -1), ["Flatten"]),
    "view size()[0]": (lambda m, x: x.view(x.size()[0], 144), ["Flatten"]),
    "view -1": (lambda m, x: x.view(-1, 144), ["Flatten"]),
    "view list": (lambda m, x: x.view([-1, 144]), ["Flatten"]),
    "view product": (lambda m, x: x.view(-1, x.size(1) * x.size(2) * x.size(3)), ["Flatten"]),
    "reshape": (lambda m, x: x.reshape(x.size(0), -1), ["Flatten"]),
    "torch.reshape": (lambda m, x: torch.reshape(x, (-1, 144)), ["Flatten"]),
    "torch.reshape by name": (lambda m, x: torch.reshape(x, shape=(-1, 144)), ["Flatten"]),
    "view to maps": (lambda m, x: x.view(x.size(0), 2, 2, 6, 6), ["Reshape"]),
    "flatten the map": (lambda m, x: x.flatten(2), ["Reshape"]),
    "nn.Unflatten": (lambda m, x: m.layers[0](x), ["Reshape"], nn.Unflatten(1, (2, 2))),
    "reshape twice": (lambda m, x: x.reshape(-1, 2, 2, 6, 6).flatten(1), ["Flatten"]),
    "reshape back": (lambda m, x: x.flatten(1).view(-1, 4, 6, 6), []),
    "view_as": (lambda m, x: x.flatten(1).view_as(x), []),
    "squeeze": (lambda m, x: F.adaptive_avg_pool2d(x, 1).squeeze(), ["AdaptiveAvgPool2d", "Flatten"]),
    "squeeze twice": (
        lambda m, x: F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1),
        ["AdaptiveAvgPool2d", "Flatten"],
    ),
    "unsqueeze": (lambda m, x: x.unsqueeze(2), ["Reshape"]),
    "unsqueeze last": (lambda m, x: x.unsqueeze(-1), ["Reshape"]),
    "permute": (lambda m, x: x.permute(0, 2, 3, 1), ["Permute"]),
    "permute from the back": (lambda m, x: torch.permute(x, (0, -1, 1, 2)), ["Permute"]),
    "transpose": (lambda m, x: x.transpose(1, -1), ["Permute"]),
    "permute and contiguous": (lambda m, x: x.permute(0, 2, 1, 3).contiguous().flatten(1), ["Permute", "Flatten"]),
    "nn.ChannelShuffle": (lambda m, x: m.layers[0](x), ["Reshape", "Permute", "Reshape"], nn.ChannelShuffle(2)),
    # slicing and joining
    "slice": (lambda m, x: x[:, 1:3], ["Slice"]),
    "slice with steps": (lambda m, x: x[:, :, ::2, ::2], ["Slice"]),
    "slice with ellipsis": (lambda m, x: x[..., 1:], ["Slice"]),
    "slice from the back": (lambda m, x: x[:, -2:, :-1], ["Slice"]),
    "slice of everything": (lambda m, x: x[:, :, :], []),
    "index": (lambda m, x: x[:, 2], ["Slice", "Reshape"]),
    "index last": (lambda m, x: x[..., -1], ["Slice", "Reshape"]),
    "index none": (lambda m, x: x[:, None], ["Reshape"]),
    "select": (lambda m, x: x.select(1, 2), ["Slice", "Reshape"]),
    "narrow": (lambda m, x: torch.narrow(x, 1, 1, 2), ["Slice"]),
    "split": (lambda m, x: torch.split(x, 3, 1)[1], ["Slice"]),
    "split list": (lambda m, x: _plus(*x.split([1, 3], dim=1)), ["Slice", "Slice", "Add"]),
    "chunk": (lambda m, x: torch.cat(x.chunk(2, 1)[::-1], 1), ["Slice", "Slice", "Concat"]),
    "unbind": (lambda m, x: x.unbind(1)[3], ["Slice", "Reshape"]),
    "cat": (lambda m, x: torch.cat([x, x], 1), ["Concat"]),
    "cat from the back": (lambda m, x: torch.cat((x, x), dim=-1), ["Concat"]),
    "concat": (lambda m, x: torch.concat((x, x), axis=2), ["Concat"]),
    "stack": (lambda m, x: torch.stack((x, x), 1), ["Reshape", "Reshape", "Concat"]),
    "cat zeros": (lambda m, x: torch.cat((x, torch.zeros_like(x)), 1), ["Pad"]),
    "cat new zeros": (lambda m, x: torch.cat((x.new_zeros(x.size(0), 2, 6, 6), x), 1), ["Pad"]),
    # picking by constants
    "x.flip": (lambda m, x: x.flip(3), ["Take"]),
    "torch.flip": (lambda m, x: torch.flip(x, [2, -1]), ["Take", "Take"]),
    "fliplr": (lambda m, x: torch.fliplr(x), ["Take"]),
    "roll": (lambda m, x: torch.roll(x, 2, 2), ["Take"]),
    "x.roll": (lambda m, x: x.roll((1, -2), (2, 3)), ["Take", "Take"]),
    "rot90": (lambda m, x: torch.rot90(x, 1, (2, 3)), ["Reshape", "Take", "Reshape"]),
    "rot90 twice": (lambda m, x: x.rot90(2, (2, 3)), ["Take", "Take"]),
    "index_select": (lambda m, x: torch.index_select(x, 1, torch.tensor([2, 0, 3])), ["Take"]),
    "list": (lambda m, x: x[:, [2, 0, 1]], ["Take"]),
    "list with slices": (lambda m, x: x[:, 1:, [-1, 0]], ["Slice", "Take"]),
    "list in equal steps": (lambda m, x: x[..., [0, 2, 4]], ["Slice"]),
    "list of all": (lambda m, x: x[:, [0, 1, 2, 3]], []),
    "list and new dimension": (lambda m, x: x[:, None, [1, 0]], ["Reshape", "Take"]),
    "tensor": (lambda m, x: x[..., torch.tensor([3, 3, 0])], ["Take"]),
    "tensor of two dimensions": (
        lambda m, x: x[:, torch.tensor([[0, 1], [3, 2]])],
        ["Flatten", "Take", "Reshape"],
    ),
    "truth values": (lambda m, x: x[:, torch.tensor([True, False, True, True])], ["Take"]),
    "two lists": (lambda m, x: x[:, [0, 1, 2], [1, 1, 5]], ["Flatten", "Take", "Reshape"]),
    "take_along_dim": (lambda m, x: torch.take_along_dim(x, m.places, 3), ["Take"]),
    "takes in a row": (lambda m, x: x.flip(1)[:, [1, 0, 2]], ["Take"]),
    "flipped back": (lambda m, x: x.flip(1).flip(1), []),
    "repeat": (lambda m, x: x.repeat(1, 2, 1, 3), ["Take", "Take"]),
    "tile": (lambda m, x: torch.tile(x, (2,)), ["Take"]),
    "repeat_interleave": (lambda m, x: x.repeat_interleave(2, dim=1), ["Take"]),
    "repeat_interleave each": (lambda m, x: torch.repeat_interleave(x, torch.tensor([1, 0, 2, 3]), 1), ["Take"]),
    "expand": (
        lambda m, x: x.mean((2, 3), keepdim=True).expand(-1, -1, 6, 6),
        ["AdaptiveAvgPool2d", "Take", "Take"],
    ),
    "expand_as": (lambda m, x: x.mean(1, keepdim=True).expand_as(x), ["Mean", "Take"]),
    "broadcast_to": (lambda m, x: torch.broadcast_to(x.mean(1, True), (x.size(0), 3, 6, 6)), ["Mean", "Take"]),
    "x.unfold": (lambda m, x: x.unfold(3, 3, 2), ["Take", "Reshape"]),
    "F.unfold": (lambda m, x: F.unfold(x, 3, 1, 1), ["Pad", "Reshape", "Take", "Reshape"]),
    "nn.Unfold": (
        lambda m, x: m.layers[0](x),
        ["Pad", "Reshape", "Take", "Reshape"],
        nn.Unfold((2, 3), dilation=(2, 1), padding=1, stride=2),
    ),
    "F.fold": (lambda m, x: F.fold(x.flatten(2), (7, 7), 2), ["ConvTranspose2d"]),
    "nn.Fold": (
        lambda m, x: m.layers[0](x.flatten(2)),
        ["ConvTranspose2d"],
        nn.Fold((12, 11), (2, 2), dilation=(2, 1), padding=1, stride=(2, 2)),
    ),
    "F.pixel_unshuffle": (lambda m, x: F.pixel_unshuffle(x, 2), ["Reshape", "Permute", "Reshape"]),
    "nn.PixelUnshuffle": (lambda m, x: m.layers[0](x), ["Reshape", "Permute", "Reshape"], nn.PixelUnshuffle(3)),
    "diagonal": (lambda m, x: x.diagonal(1, 2, 3), ["Reshape", "Slice"]),
    "tril": (lambda m, x: torch.tril(x, 1), ["Affine"]),
    "x.triu": (lambda m, x: x.triu(), ["Affine"]),
    "slice_scatter": (
        lambda m, x: torch.slice_scatter(x, x[:, :2] * 2, 1, 1, 3),
        ["Slice", "Affine", "Concat", "Take"],
    ),
    "select_scatter": (
        lambda m, x: torch.select_scatter(x, torch.zeros_like(x[:, 0]), 1, 2),
        ["Affine"],
    ),
    # padding
    "F.pad": (lambda m, x: F.pad(x, (1, 0, 2, 1)), ["Pad"]),
    "F.pad value": (lambda m, x: F.pad(x, (0, 0, 0, 0, 1, 1), value=2.0), ["Pad"]),
    "F.pad reflect": (lambda m, x: F.pad(x, (1, 1, 1, 1), mode="reflect"), ["Pad"]),
    "F.pad nothing": (lambda m, x: F.pad(x, (0, 0, 0, 0)), []),
    "nn.ZeroPad2d": (lambda m, x: m.layers[0](x), ["Pad"], nn.ZeroPad2d(1)),
    "nn.ConstantPad2d": (lambda m, x: m.layers[0](x), ["Pad"], nn.ConstantPad2d((1, 0, 0, 0), 0.5)),
    "nn.ReflectionPad2d": (lambda m, x: m.layers[0](x), ["Pad"], nn.ReflectionPad2d(1)),
    "nn.ReplicationPad2d": (lambda m, x: m.layers[0](x), ["Pad"], nn.ReplicationPad2d(1)),
    # pooling
    "nn.AvgPool2d": (lambda m, x: m.layers[0](x), ["AvgPool2d"], nn.AvgPool2d(2)),
    "nn.AvgPool2d padded": (lambda m, x: m.layers[0](x), ["AvgPool2d"], nn.AvgPool2d(3, 2, 1, count_include_pad=False)),
    "nn.AvgPool2d divisor": (lambda m, x: m.layers[0](x), ["AvgPool2d"], nn.AvgPool2d(2, divisor_override=3)),
    "nn.AvgPool2d whole": (lambda m, x: m.layers[0](x), ["AdaptiveAvgPool2d"], nn.AvgPool2d(6)),
    "F.avg_pool2d": (lambda m, x: F.avg_pool2d(x, 3, stride=1, padding=1), ["AvgPool2d"]),
    "F.avg_pool2d whole": (lambda m, x: F.avg_pool2d(x, 6), ["AdaptiveAvgPool2d"]),
    "F.avg_pool2d size()[3]": (lambda m, x: F.avg_pool2d(x, x.size()[3]), ["AdaptiveAvgPool2d"]),
    "F.avg_pool2d size(2)": (lambda m, x: F.avg_pool2d(x, x.size(2)), ["AdaptiveAvgPool2d"]),
    "F.avg_pool2d size()[2:]": (lambda m, x: F.avg_pool2d(x, x.size()[2:]), ["AdaptiveAvgPool2d"]),
    "F.avg_pool2d shape[-2:]": (lambda m, x: F.avg_pool2d(x, x.shape[-2:]), ["AdaptiveAvgPool2d"]),
    "F.avg_pool2d half": (lambda m, x: F.avg_pool2d(x, x.size(2) // 2), ["AvgPool2d"]),
    "nn.AdaptiveAvgPool2d": (lambda m, x: m.layers[0](x), ["AdaptiveAvgPool2d"], nn.AdaptiveAvgPool2d((2, None))),
    "F.adaptive_avg_pool2d": (lambda m, x: F.adaptive_avg_pool2d(x, (1, 1)), ["AdaptiveAvgPool2d"]),
    "mean": (lambda m, x: x.mean((2, 3)), ["AdaptiveAvgPool2d", "Flatten"]),
    "mean from the back": (lambda m, x: torch.mean(x, dim=[-1, -2]), ["AdaptiveAvgPool2d", "Flatten"]),
    "mean kept": (lambda m, x: x.mean(dim=(2, 3), keepdim=True), ["AdaptiveAvgPool2d"]),
    "mean axis": (lambda m, x: torch.mean(x, axis=(2, 3)), ["AdaptiveAvgPool2d", "Flatten"]),
    "mean twice": (lambda m, x: x.mean(3).mean(2), ["Mean", "AdaptiveAvgPool1d", "Flatten"]),
    "mean of channels": (lambda m, x: x.mean(1, keepdim=True), ["Mean"]),
    "sum": (lambda m, x: x.sum((2, 3)), ["AdaptiveAvgPool2d", "Flatten", "Affine"]),
    "sum kept": (lambda m, x: torch.sum(x, dim=(2, 3), keepdim=True), ["AdaptiveAvgPool2d", "Affine"]),
    "sum of channels": (lambda m, x: x.sum(1), ["Mean", "Affine"]),
    "nn.MaxPool2d": (lambda m, x: m.layers[0](x), ["MaxPool2d"], nn.MaxPool2d(3, 2, 1)),
    "nn.MaxPool2d ceil": (lambda m, x: m.layers[0](x), ["MaxPool2d"], nn.MaxPool2d(4, ceil_mode=True)),
    "F.max_pool2d": (lambda m, x: F.max_pool2d(x, 2), ["MaxPool2d"]),
    "torch.max_pool2d": (lambda m, x: torch.max_pool2d(x, 2), ["MaxPool2d"]),
    "F.max_pool2d whole": (lambda m, x: F.max_pool2d(x, kernel_size=x.size()[2:]), ["MaxPool2d"]),
    "F.adaptive_max_pool2d": (lambda m, x: F.adaptive_max_pool2d(x, 2), ["AdaptiveMaxPool2d"]),
    "nn.AdaptiveMaxPool2d": (lambda m, x: m.layers[0](x), ["AdaptiveMaxPool2d"], nn.AdaptiveMaxPool2d(1)),
    "amax": (lambda m, x: x.amax((2, 3)), ["AdaptiveMaxPool2d", "Flatten"]),
    "torch.amax kept": (lambda m, x: torch.amax(x, dim=(-2, -1), keepdim=True), ["AdaptiveMaxPool2d"]),
    "max": (lambda m, x: x.flatten(2).max(2)[0], ["Reshape", "AdaptiveMaxPool1d", "Flatten"]),
    "max values": (lambda m, x: torch.max(x.flatten(2), dim=-1).values, ["Reshape", "AdaptiveMaxPool1d", "Flatten"]),
    "max unpacked": (lambda m, x: _first(*x.flatten(2).max(2, True)), ["Reshape", "AdaptiveMaxPool1d"]),
    "max of two": (lambda m, x: torch.max(x, m.zero), []),
    "max_pool1d": (lambda m, x: F.max_pool1d(x.flatten(2), 2), ["Reshape", "MaxPool1d"]),
    "avg_pool1d": (lambda m, x: F.avg_pool1d(x.flatten(2), 2), ["Reshape", "AvgPool1d"]),
    "avg_pool3d": (lambda m, x: F.avg_pool3d(x.unsqueeze(1), 2), ["Reshape", "AvgPool3d"]),
    # layers as functions
    "F.conv2d": (lambda m, x: F.conv2d(x, m.weight, m.bias, padding=1), ["Conv2d"]),
    "F.conv2d grouped": (lambda m, x: F.conv2d(x, m.weight[:4, :1], groups=4), ["Conv2d"]),
    "F.conv_transpose2d": (lambda m, x: F.conv_transpose2d(x, m.up, stride=2), ["ConvTranspose2d"]),
    "conv circular": (
        lambda m, x: m.layers[0](x),
        ["Pad", "Conv2d"],
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
    ),
    "F.linear": (lambda m, x: F.linear(x, m.matrix.t()), ["Linear"]),
    "matmul": (lambda m, x: torch.matmul(x, m.matrix), ["Linear"]),
    "@": (lambda m, x: x @ m.matrix, ["Linear"]),
    "matrix @": (lambda m, x: m.matrix.t() @ x, ["Permute", "Linear", "Permute"]),
    "addmm": (
        lambda m, x: torch.addmm(m.matrix[0], x.mean((2, 3)), m.matrix[:4]),
        ["AdaptiveAvgPool2d", "Flatten", "Linear"],
    ),
    "einsum with a constant": (lambda m, x: torch.einsum("nchw,wv->nchv", x, m.matrix), ["Linear"]),
    "einsum, the constant first": (
        lambda m, x: torch.einsum("dc,nchw->ndhw", m.weight.flatten(1), x),
        ["Permute", "Linear", "Permute"],
    ),
    "einsum in groups": (
        lambda m, x: torch.einsum("nchw,cwv->nchv", x, m.groups),
        ["Permute", "Reshape", "Conv1d", "Reshape", "Permute"],
    ),
    "einsum number by number": (lambda m, x: torch.einsum("nchw,ch->nchw", x, m.matrix[:4].repeat(1, 2)), ["Affine"]),
    "einsum with two constants": (
        lambda m, x: torch.einsum("...w,wv,v->...v", x, m.matrix, m.mean[:3]),
        ["Linear"],
    ),
    "einsum of one value": (lambda m, x: torch.einsum("nchw->nwc", x), ["Mean", "Affine", "Permute"]),
    "tensordot": (lambda m, x: torch.tensordot(x, m.matrix, dims=([3], [0])), ["Linear"]),
    "inner": (lambda m, x: torch.inner(x, m.matrix.t()), ["Linear"]),
    "F.batch_norm": (lambda m, x: F.batch_norm(x, m.mean, m.mean.exp(), m.bias[:4]), ["BatchNorm2d"]),
    # scaling maps
    "nn.Upsample": (lambda m, x: m.layers[0](x), ["Upsample"], nn.Upsample(scale_factor=2)),
    "nn.Upsample size": (lambda m, x: m.layers[0](x), ["Upsample"], nn.Upsample(size=12)),
    "F.interpolate": (lambda m, x: F.interpolate(x, scale_factor=(2, 3)), ["Upsample"]),
    "F.interpolate size": (lambda m, x: F.interpolate(x, size=(9, 9), mode="nearest"), ["Upsample"]),
    "F.interpolate half": (lambda m, x: F.interpolate(x, scale_factor=1.5), ["Upsample"]),
    "F.interpolate bilinear": (lambda m, x: F.interpolate(x, scale_factor=2, mode="bilinear"), ["Mix", "Mix"]),
    "F.interpolate corners": (
        lambda m, x: F.interpolate(x, size=(9, 6), mode="bilinear", align_corners=True),
        ["Mix"],
    ),
    "F.interpolate by the factor": (lambda m, x: F.interpolate(x, scale_factor=1.7, mode="bilinear"), ["Mix", "Mix"]),
    "F.interpolate by sizes": (
        lambda m, x: F.interpolate(x, scale_factor=1.7, mode="bilinear", recompute_scale_factor=True),
        ["Mix", "Mix"],
    ),
    "F.interpolate smoothed": (
        lambda m, x: F.interpolate(x, size=(4, 3), mode="bilinear", antialias=True),
        ["Mix", "Mix"],
    ),
    "F.interpolate third": (lambda m, x: F.interpolate(x, scale_factor=1 / 3, mode="bilinear"), ["Slice"]),
    "F.interpolate bicubic": (lambda m, x: F.interpolate(x, scale_factor=(1.5, 2.2), mode="bicubic"), ["Mix", "Mix"]),
    "F.interpolate bicubic smoothed": (
        lambda m, x: F.interpolate(x, scale_factor=0.6, mode="bicubic", antialias=True),
        ["Mix", "Mix"],
    ),
    "F.interpolate linear": (lambda m, x: F.interpolate(x.flatten(2), size=50, mode="linear"), ["Reshape", "Mix"]),
    "F.interpolate trilinear": (
        lambda m, x: F.interpolate(x.unsqueeze(1), scale_factor=2, mode="trilinear"),
        ["Reshape", "Mix", "Mix", "Mix"],
    ),
    "F.interpolate area": (lambda m, x: F.interpolate(x, size=(4, 5), mode="area"), ["AdaptiveAvgPool2d"]),
    "F.interpolate nearest-exact": (
        lambda m, x: F.interpolate(x, scale_factor=1.7, mode="nearest-exact"),
        ["Take", "Take"],
    ),
    "F.interpolate nearest by sizes": (
        lambda m, x: F.interpolate(x, scale_factor=1.7, recompute_scale_factor=True),
        ["Upsample"],
    ),
    "F.interpolate to another": (
        lambda m, x: F.interpolate(F.max_pool2d(x, 2), x.shape[-2:], mode="bilinear", align_corners=False),
        ["MaxPool2d", "Mix", "Mix"],
    ),
    "nn.Upsample bilinear": (
        lambda m, x: m.layers[0](x),
        ["Mix", "Mix"],
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
    ),
    "nn.UpsamplingBilinear2d": (lambda m, x: m.layers[0](x), ["Mix", "Mix"], nn.UpsamplingBilinear2d(scale_factor=2)),
    "nn.UpsamplingNearest2d": (lambda m, x: m.layers[0](x), ["Upsample"], nn.UpsamplingNearest2d(size=9)),
    "F.grid_sample": (
        lambda m, x: F.grid_sample(x, m.grid.expand(x.size(0), -1, -1, -1), align_corners=False),
        ["Reshape", "Mix", "Reshape"],
    ),
    "gather": (lambda m, x: x.gather(3, m.places.expand(x.size(0), 4, 6, -1)), ["Take"]),
    # running sums
    "cumsum": (lambda m, x: x.cumsum(2), ["Mix"]),
    "torch.cumsum": (lambda m, x: torch.cumsum(x, dim=-1), ["Mix"]),
    "F.pixel_shuffle": (lambda m, x: F.pixel_shuffle(x, 2), ["PixelShuffle"]),
    # nothing
    "nn.Identity": (lambda m, x: m.layers[0](x), [], nn.Identity()),
    "nn.Dropout": (lambda m, x: m.layers[0](x), [], nn.Dropout()),
    "F.dropout": (lambda m, x: F.dropout(x, 0.5, m.training), []),
    "F.dropout2d": (lambda m, x: F.dropout2d(x, training=m.training), []),
    "contiguous": (lambda m, x: x.contiguous(), []),
    "clone and detach": (lambda m, x: x.clone().detach(), []),
    "to": (lambda m, x: x.to(torch.float32).float().to(x.device), []),
    # heads
    "F.softmax": (lambda m, x: F.softmax(x.flatten(1), dim=1), ["Flatten", "Softmax"]),
    "x.softmax": (lambda m, x: x.flatten(1).softmax(-1), ["Flatten", "Softmax"]),
    "nn.LogSoftmax": (lambda m, x: m.layers[0](x.flatten(1)), ["Flatten", "LogSoftmax"], nn.LogSoftmax(-1)),
    "torch.log_softmax": (lambda m, x: torch.log_softmax(x.flatten(1), 1), ["Flatten", "LogSoftmax"]),
}


def _plus(x, y):
    return x + y


def _first(x, _):
    return x


def _iadd(x, y):
    x += y
    return x


def _imul(x, y):
    x *= y
    return x


@pytest.mark.parametrize("case", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_activations(case):
    body, expected, *layers = case
    check(build(body, *layers), expected)


@pytest.mark.parametrize("case", OTHERS.values(), ids=OTHERS)
def test_others(case):
    body, expected, *layers = case
    check(build(lambda m, x: body(m, F.relu(x)), *layers), ["ReLU", *expected], tolerance=1e-5)


LENGTHS = {
    "view len": (lambda m, x: x.view(len(x), -1), ["Flatten"]),
    "len of the shape": (lambda m, x: x.flatten(len(x.shape) - 3), ["Flatten"]),
}


@pytest.mark.parametrize("case", LENGTHS.values(), ids=LENGTHS)
def test_lengths(case):
    """`torch.export` takes a length for a constant."""
    body, expected = case
    check(build(lambda m, x: body(m, F.relu(x))), ["ReLU", *expected])


def groups():
    """All spellings, a dozen to a network: exporting each by itself takes minutes."""
    cases = [*ACTIVATIONS.items(), *OTHERS.items()]
    return [cases[i : i + 12] for i in range(0, len(cases), 12)]


@pytest.mark.parametrize("cases", groups(), ids=lambda cases: cases[0][0])
def test_exported_programs_give_the_same(cases):
    """Each spelling works on a value of its own; their results are joined."""

    def body(m, x):
        return torch.cat([case[0](Layers(m, i), F.relu(x + i)).flatten(1) for i, (_, case) in enumerate(cases)], 1)

    net = build(body, *[case[2] if len(case) > 2 else nn.Identity() for _, case in cases])
    symbolic, exported = capture(net, (3, 8, 8)), capture(archived(net, (3, 8, 8)))
    assert [row[1:] for row in signature(exported)] == [row[1:] for row in signature(symbolic)]
    x = torch.randn((4, 3, 8, 8), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(exported(x), net(x), rtol=1e-5, atol=1e-5)


class Layers:
    """The network as one of its spellings sees it: `layers[0]` is its own."""

    def __init__(self, net, place):
        self.net, self.layers = net, [net.layers[place]]

    def __getattr__(self, name):
        return getattr(self.net, name)
