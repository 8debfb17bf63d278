"""Curved operations in every spelling: the graph is the function of the network, and holds what stands for it."""

import io
import math
import warnings

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from snnc.capture import blockers, capture

MAPS, TOKENS = (4, 6, 6), (5, 8)


class Net(nn.Module):
    """A layer, what is tried, and another layer."""

    def __init__(self, body, shape, *layers):
        super().__init__()
        kind = (lambda: nn.Conv2d(4, 4, 1)) if len(shape) == 3 else (lambda: nn.Linear(8, 8))
        self.front, self.body, self.layers, self.back = kind(), body, nn.ModuleList(layers), kind()
        self.register_buffer("mask", torch.ones(5, 5).tril().log())  # 0 and minus infinity
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.scale = nn.Parameter(torch.rand(4, 1, 1) + 0.5)

    def forward(self, x):
        return self.back(self.body(self, self.front(x)))


def net(body, shape, *layers):
    torch.manual_seed(0)
    return Net(body, shape, *layers).eval()


def as_onnx(model, x, opset=17):
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises its other exporter, which needs packages of its own
        torch.onnx.export(
            model, (x,), file, dynamo=False, opset_version=opset, input_names=["x"], dynamic_axes={"x": {0: "n"}}
        )
    return onnx.load_from_string(file.getvalue())


def kinds(graph):
    return [type(module).__name__ for module in graph.children()]


def same(model, shape, door="live"):
    """The graph, once it has given what the network gives."""
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    if door == "live":
        graph = capture(model, shape)
    elif door == "onnx":
        graph = capture(as_onnx(model, x), shape)
    else:
        graph = capture(torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},), strict=False))
    with torch.no_grad():
        want = model(x)
        torch.testing.assert_close(graph(x), want, rtol=1e-5, atol=1e-5 * float(want.abs().max()))
        torch.testing.assert_close(graph(x[:1]), want[:1], rtol=1e-5, atol=1e-5 * float(want.abs().max()))
    return graph


LAYERS = [
    nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Hardswish(), nn.Hardsigmoid(), nn.Sigmoid(), nn.Tanh(), nn.ELU(0.7),
    nn.SELU(), nn.CELU(0.6), nn.Softplus(2.0, 5.0), nn.Mish(), nn.LeakyReLU(0.2), nn.PReLU(), nn.PReLU(4),
    nn.RReLU(), nn.LogSigmoid(), nn.Softsign(), nn.Tanhshrink(), nn.Softshrink(0.3), nn.Hardshrink(0.3),
    nn.Hardtanh(-1, 2), nn.Softmax(1), nn.Softmax2d(), nn.Softmin(2), nn.LogSoftmax(-1), nn.LayerNorm(6),
    nn.LayerNorm((4, 6, 6), elementwise_affine=False), nn.LayerNorm([6, 6], bias=False), nn.RMSNorm(6),
    nn.RMSNorm((6, 6), eps=1e-3), nn.GroupNorm(2, 4), nn.GroupNorm(4, 4, affine=False), nn.InstanceNorm2d(4),
    nn.InstanceNorm2d(4, affine=True), nn.LocalResponseNorm(3), nn.SiLU(inplace=True),
]  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_layers(layer):
    same(net(lambda m, x: m.layers[0](x), MAPS, layer), MAPS)


FUNCTIONS = {
    "abs": lambda m, x: abs(x),
    "powers": lambda m, x: x**2 + x**3 + (x * x + 1) ** 0.5 + (x * x + 1) ** -1 + 2.0**x,
    "roots": lambda m, x: (x * x + 1).sqrt() + torch.rsqrt(x**2 + 1) + torch.log2(x.square() + 1),
    "waves": lambda m, x: torch.sin(x) + x.cos() + torch.erf(x) + torch.atan(x) + torch.expm1(-x.abs()),
    "reciprocal": lambda m, x: 1 / (x**2 + 1),
    "gate": lambda m, x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
    "quotient": lambda m, x: x / (x.abs().sum(1, keepdim=True) + 1),
    "where": lambda m, x: torch.where(x > 0.1, x, 0.3 * x),
    "where, of values": lambda m, x: torch.where(x <= x.mean((2, 3), keepdim=True), x * 2, -0.5),
    "no number": lambda m, x: torch.where(torch.isnan(x), 0.0, x) + torch.nan_to_num(x.softmax(1)) * x.isfinite(),
    "masks": lambda m, x: x.masked_fill((x > 0) & ~(x >= 1), 3.0) + (x != 0.5).float() * x + (x < 0) * x,
    "clamps": lambda m, x: x.clamp(-1, 1) + x.clamp(min=-0.5) + torch.clamp_max(x, 0.7),
    "larger": lambda m, x: torch.maximum(x, -x) + torch.min(x, x * x),
    "extremes": lambda m, x: x - x.amax(1, keepdim=True) + x.min(2, keepdim=True).values + x.max(3, True)[0],
    "spread": lambda m, x: x / (x.var(1, keepdim=True) + 1) + x.std((2, 3), keepdim=True, unbiased=False),
    "lengths": lambda m, x: x / (x.norm(dim=1, keepdim=True) + 1) + F.normalize(x) + F.normalize(x, p=1, dim=-1),
    "functions": lambda m, x: F.silu(x) + F.elu(x, 0.5) + F.leaky_relu(x, 0.1) + F.softplus(x) + F.mish(x) + F.gelu(x),
    "in place": lambda m, x: F.leaky_relu_(x.mul(2), 0.1) + x.sigmoid().mul_(x.tanh()),
    "norms": lambda m, x: F.layer_norm(x, (6,)) + F.group_norm(x, 2) + F.instance_norm(x) + F.local_response_norm(x, 2),
    "glu": lambda m, x: F.glu(torch.cat([x, x * 2], 1), 1),
    "products": lambda m, x: x @ x.transpose(2, 3) + torch.einsum("bchw,bcvw->bchv", x, x),
    "einsum": lambda m, x: torch.einsum("nchw,ncvw->nhvc", x, x).permute(0, 3, 1, 2),
    "logsumexp": lambda m, x: x - torch.logsumexp(x, 1, keepdim=True) + x.logsumexp((1, 3))[:, None, :, None],
    "products of entries": lambda m, x: x.cumprod(2) + x.tanh().prod(1, keepdim=True) + (x + 1).prod(-1)[..., None],
    "addcmul": lambda m, x: torch.addcmul(x, x.tanh(), m.scale, value=0.5) + torch.addcmul(m.scale, x, x.relu()),
    "addcdiv": lambda m, x: x.addcdiv(x, m.scale, value=-2) + torch.addcdiv(m.scale, m.scale, x * x + 1),
    "angles": lambda m, x: (
        torch.tan(x.tanh()) + x.sinh() + x.cosh() + torch.asin(x.tanh() / 2) + torch.arccos(x.tanh())
    ),
    "areas": lambda m, x: torch.asinh(x) + torch.acosh(x.abs() + 2) + torch.atanh(x.tanh() / 2) + torch.erfc(x),
    "of two": lambda m, x: torch.logaddexp(x, -x) + torch.hypot(x, x + 1) + torch.fmax(x, m.scale) + torch.fmin(x, -x),
    "bounds": lambda m, x: x.clamp(x.mean((2, 3), keepdim=True), m.scale) + x.clamp(max=x.amax(1, keepdim=True) / 2),
    "cosines": lambda m, x: (
        x * F.cosine_similarity(x, m.scale, 1)[:, None] + F.cosine_similarity(x, x**2, -1)[..., None]
    ),
    "norm of order 3": lambda m, x: x / (torch.linalg.vector_norm(x, 3, 1, keepdim=True) + F.normalize(x, 3).abs() + 1),
    "lerp": lambda m, x: torch.lerp(x, x.relu(), 0.3) + x.lerp(m.scale, m.scale) + torch.lerp(m.scale, m.scale, x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    same(net(FUNCTIONS[name], MAPS), MAPS)


def test_layers_of_two_values():
    layers = nn.Bilinear(6, 3, 6), nn.CosineSimilarity(dim=2)
    same(net(lambda m, x: m.layers[0](x, x[..., :3].tanh()) + m.layers[1](x, x**2)[:, :, None], MAPS, *layers), MAPS)


def heads(x, count=2):
    """Query, key and value as vision transformers cut them: the batch second."""
    n, length, width = x.shape
    return torch.cat([x, x * 2, x - 1], 2).reshape(n, length, 3, count, width // count).permute(2, 0, 3, 1, 4)


def attend(m, x):
    q, k, v = heads(x).unbind(0)
    weights = ((q @ k.transpose(-2, -1)) * 0.5).softmax(dim=-1)
    return (weights @ v).transpose(1, 2).reshape(x.shape)


def attend_fast(m, x):
    q, k, v = heads(x)[0], heads(x)[1], heads(x)[2]
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(x.shape)


def batch_second(m, x):
    y = x.transpose(0, 1)
    return m.layers[0](y, y, y, need_weights=False)[0].transpose(0, 1)


def windows(m, x):
    """Two windows of tokens, joined with the batch."""
    n = x.shape[0]
    y = x[:, :4].reshape(n, 2, 2, 8).reshape(-1, 2, 8)
    y = (y @ y.transpose(1, 2)).softmax(-1) @ F.relu(m.layers[0](y))
    return y.view(n, 4, 8) + x[:, 1:]


def places(m, x):
    """An encoding of places that is made for a whole batch, as EdgeNeXt and DETR do."""
    rows = (~torch.zeros(x.shape[0], 5, dtype=torch.bool)).cumsum(1, dtype=torch.float32)
    rows = rows[:, :, None] / (rows[:, -1:, None] + 1e-6) * torch.arange(1, 9)
    return (x + m.layers[0](torch.stack((rows[:, :, 0::2].sin(), rows[:, :, 1::2].cos()), dim=3).flatten(2))).tanh()


def normed(m, x):
    """Features of tokens that are joined with the batch, each normalised by constants, as LeViT does."""
    return m.layers[0](x.flatten(0, 1)).reshape_as(x).tanh()


def shifted(m, x):
    """Padded, spread and normalised where the batch shares a dimension, as HaloNet and Swin 2 do."""
    y = F.pad(x.reshape(x.shape[0] * 5, 8), [1, 2]).reshape(-1, 5, 11)[:, :, 1:9].relu()
    heads = x.reshape(-1, 5, 2, 4).transpose(1, 2).reshape(-1, 5, 4)
    heads = F.normalize(heads, dim=-1) / (heads.reshape(-1, 1, 5, 4).expand(-1, 2, -1, -1)[:, 1] ** 2 + 1)
    return y + heads.reshape(-1, 2, 5, 4).transpose(1, 2).reshape(x.shape)


def assigned(m, x):
    """Parts of values and of constants that are written to, as temporal shifts and attention masks are."""
    y = torch.zeros_like(x)
    y[:, 1:, :4] = x[:, :-1, :4]
    y[:, :, 4:] = x[:, :, 4:].relu()
    y[:, 0, ::2] = 0.5
    z = x.clone()
    z[:, :, 2] = y[:, :, 1]
    z[:, 1:4:2] = y[:, 2:4] * 2
    mask = x.new_zeros(5, 8)
    mask[:3, 2:] = 1
    return y + z * mask


def layer(**more):
    return nn.TransformerEncoderLayer(8, 2, 16, **more)


def stack(**more):
    return nn.TransformerEncoder(layer(**more), 2, enable_nested_tensor=False)


ATTENTION = {
    "by hand": (attend,),
    "scaled_dot_product_attention": (attend_fast,),
    "module": (lambda m, x: m.layers[0](x, x, x)[0], nn.MultiheadAttention(8, 2, batch_first=True)),
    "module, batch second": (batch_second, nn.MultiheadAttention(8, 2)),
    "layer with a mask": (lambda m, x: m.layers[0](x, src_mask=m.mask), layer(batch_first=True, norm_first=True)),
    "encoder": (lambda m, x: m.layers[0](x), stack(batch_first=True, activation="gelu")),
    "encoder, batch second": (lambda m, x: m.layers[0](x.permute(1, 0, 2)).permute(1, 0, 2), stack()),
    "windows": (windows, nn.Linear(8, 8)),
    "places": (places, nn.Linear(8, 8)),
    "normed": (normed, nn.BatchNorm1d(8)),
    "shifted": (shifted,),
    "assigned": (assigned,),
    "constants of every sample": (
        lambda m, x: (x * torch.ones_like(x) + torch.full_like(x, 0.5) + x.new_full((x.size(0), 5, 8), 2)).tanh(),
    ),
    "class token": (lambda m, x: torch.cat([m.token.expand(x.shape[0], -1, -1), x], 1).tanh(),),
}


@pytest.mark.parametrize("door", ["live", "export", "onnx"])
@pytest.mark.parametrize("name", ATTENTION)
def test_attention(name, door):
    body, *layers = ATTENTION[name]
    if door == "onnx" and name in ("scaled_dot_product_attention", "assigned"):
        pytest.skip("the exporter writes causal masks, and what is assigned, with operations of its own")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, out of its exporter
        same(net(body, TOKENS, *layers), TOKENS, door)


def test_what_exporters_take_apart_is_whole_again():
    """SiLU, hard swish, GELU and layer normalisation, as ONNX and as authors write them."""

    def body(m, x):
        x = (x - x.mean(-1, keepdim=True)) / torch.sqrt((x - x.mean(-1, keepdim=True)).pow(2).mean(-1, True) + 1e-6)
        x = 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5)
        x = x * F.relu6(x + 3) / 6
        return x * x.sigmoid()

    wanted = {"GELU", "Hardswish", "LayerNorm", "Linear", "RMSNorm", "SiLU"}
    assert set(kinds(same(net(body, TOKENS), TOKENS))) == wanted
    assert set(kinds(same(net(body, TOKENS), TOKENS, "onnx"))) == wanted
    layers = nn.GELU(), nn.LayerNorm(8), nn.SiLU(), nn.Hardswish()
    graph = same(net(lambda m, x: nn.Sequential(*m.layers)(x), TOKENS, *layers), TOKENS, "onnx")
    assert sorted(kinds(graph)) == ["GELU", "Hardswish", "LayerNorm", "Linear", "Linear", "SiLU"]


REFUSED = {
    "softmax over the batch": lambda m, x: x.softmax(0),
    "normalised over the batch": lambda m, x: F.layer_norm(x, (3, 5, 8)),
    "attention over the batch": lambda m, x: m.layers[0](x, x, x)[0],
    "products across the batch": lambda m, x: torch.einsum("bij,cij->bij", x, x),
    "the batch joined": lambda m, x: x.reshape(-1, 8).softmax(0).reshape(x.shape),
    "the batch left in the middle": lambda m, x: x.transpose(0, 1),
    "dropout in attention": lambda m, x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.5),
    "a truth as a number": lambda m, x: x + ((x > 0) + (x < 1)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_mixes_samples_or_is_random_is_refused(name):
    assert blockers(net(REFUSED[name], TOKENS, nn.MultiheadAttention(8, 2)), TOKENS)
