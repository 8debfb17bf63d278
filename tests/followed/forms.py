"""Hints on the forms that a network is written in, on integers, and on networks that run."""

import functools

import torch
import torch.nn.functional as F
from torch import nn

import snnc
from snnc.backends import OnnxModel
from snnc.passes import PASSES
from snnc.recipes import recipe
from tests.followed import NET, X, Y, compiled

SHAPE = (3, 8, 8)
FIXED, FAR = PASSES["fixed-point"](), torch.full((6, 4), 3e38)
PLACES = torch.arange(64.0).reshape(8, 8) / 64


class Body(nn.Module):
    """A network with one function between its layers."""

    def __init__(self, function, kind=nn.Conv2d):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.function = kind(3, 4, 1), function
        self.linear, self.map, self.last = nn.Linear(8, 3), nn.Conv2d(4, 4, 1), nn.LazyLinear(3)

    def forward(self, x):
        return self.last(F.relu(self.function(self, F.relu(self.first(x)))).flatten(1))


def net(function, shape=SHAPE):
    made = Body(function, {2: nn.Conv1d, 3: nn.Conv2d, 4: nn.Conv3d}[len(shape)])
    made(torch.zeros(2, *shape))
    return made.eval()


def layer(*modules, shape=SHAPE):
    """With some layers in the place of the function."""
    made = net(lambda n, x: nn.Sequential(*modules)(x), shape)
    return nn.Sequential(made.first, nn.ReLU(), *modules, nn.ReLU(), nn.Flatten(), made.last).eval()


def nir(path, made, shape=SHAPE):
    snnc.save(snnc.compile(made, 2, "data-free", input_shape=shape), path / "net.nir")


def told(n, path, function):
    nir(path, net(function))


@functools.cache
def maps():
    return torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(0))


def integers(made=NET, x=X, T=2, which="opi", **options):
    plain = recipe(which).pipeline
    return snnc.compile(made, T, snnc.Pipeline((*plain, PASSES["fixed-point"](**options))), x)


@functools.cache
def curved():
    """With an operation that ONNX has otherwise."""
    made = nn.Sequential(nn.Conv2d(3, 4, 1), nn.LocalResponseNorm(2), nn.Flatten(), nn.Linear(256, 2)).eval()
    return snnc.compile(made, 2, "telescoped", maps())


def loud(outputs=3):
    """Without negative weights."""
    made = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, outputs)).eval()
    for value in made.parameters():
        nn.init.ones_(value)
    return made


def free(**options):
    return snnc.compile(NET, 2, "data-free", **options)


class Two(nn.Module):
    """With two inputs."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.last = nn.Linear(4, 5), nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x, z):
        return self.last((self.a(x) + self.b(z)).relu())


def two(which="best", data=({"x": X, "z": X},), **options):
    torch.manual_seed(0)
    return snnc.compile(Two().eval(), 2, which, list(data), **options)


# The hint, what gets it, and what it says to do: functions of a compiled network and a folder.
ROWS = [
    # NIR
    ("padding on both sides alike, and a square kernel",
     lambda n, p: told(n, p, lambda n, x: F.pad(x[..., ::2], (0, 0, 0, 3))),
     lambda n, p: told(n, p, lambda n, x: F.pad(x[..., ::2, ::2], (1, 1, 1, 1)))),
    ("a network in one or two dimensions", lambda n, p: nir(p, layer(nn.Identity(), shape=(3, 2, 2, 2)), (3, 2, 2, 2)),
     lambda n, p: nir(p, layer(nn.Identity()))),
    ("padding with zeros", lambda n, p: nir(p, layer(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"))),
     lambda n, p: nir(p, layer(nn.Conv2d(4, 4, 3, padding=1)))),
    ("padding with zeros", lambda n, p: integers(layer(nn.ConstantPad2d(1, 1.0)), maps()),
     lambda n, p: integers(layer(nn.ZeroPad2d(1)), maps())),
    ("flatten before it", lambda n, p: told(n, p, lambda n, x: n.linear(x)), lambda n, p: nir(p, layer(nn.Flatten(),
     nn.Linear(256, 3)))),
    ("one factor a channel", lambda n, p: told(n, p, lambda n, x: n.map(x * PLACES)),
     lambda n, p: told(n, p, lambda n, x: n.map(x * PLACES[0, :4].reshape(4, 1, 1)))),
    ("values of one shape", lambda n, p: told(n, p, lambda n, x: x + x.mean((2, 3), keepdim=True)),
     lambda n, p: told(n, p, lambda n, x: x + n.map(x))),
    ("ceil_mode=False", lambda n, p: nir(p, layer(nn.AvgPool2d(3, 2, ceil_mode=True))),
     lambda n, p: nir(p, layer(nn.AvgPool2d(3, 2, ceil_mode=False)))),
    ("ceil_mode=False", lambda n, p: integers(layer(nn.AvgPool2d(3, 2, ceil_mode=True)), maps()),
     lambda n, p: integers(layer(nn.AvgPool2d(3, 2, ceil_mode=False)), maps())),
    ("count_include_pad=True, or no padding",
     lambda n, p: nir(p, layer(nn.AvgPool2d(3, 2, 1, count_include_pad=False))),
     lambda n, p: (nir(p, layer(nn.AvgPool2d(3, 2, 1))), nir(p, layer(nn.AvgPool2d(2, count_include_pad=False))))),
    ("an output size that divides the input's", lambda n, p: nir(p, layer(nn.AdaptiveAvgPool2d(3))),
     lambda n, p: nir(p, layer(nn.AdaptiveAvgPool2d(4)))),
    ("an output size that divides the input's", lambda n, p: integers(layer(nn.AdaptiveAvgPool2d(3)), maps()),
     lambda n, p: integers(layer(nn.AdaptiveAvgPool2d(4)), maps())),
    ("the mean over all places of a map", lambda n, p: told(n, p, lambda n, x: x.mean(1)),
     lambda n, p: told(n, p, lambda n, x: x.mean((2, 3)))),
    ("nn.Flatten()", lambda n, p: nir(p, layer(nn.Flatten(2))), lambda n, p: nir(p, layer(nn.Flatten()))),
    # ONNX and exported programs
    ("--input-shape, such as --input-shape 3,32,32, or calibration data", lambda n, p: snnc.save(free(), p / "n.pt2"),
     lambda n, p: (snnc.save(free(input_shape=(4,)), p / "n.pt2"), snnc.save(n, p / "m.pt2"))),
    ("the backend torch or pt2", lambda n, p: snnc.save(curved(), p / "net.onnx"),
     lambda n, p: [snnc.save(curved(), p / form) for form in ("net.snn", "net.pt2")]),
    ("network.float()", lambda n, p: snnc.save(compiled().double(), p / "net.onnx"),
     lambda n, p: snnc.save(compiled().double().float(), p / "net.onnx")),
    # fixed point
    ("the network up to there", lambda n, p: integers(nn.Sequential(*NET, nn.Softmax(1), nn.Linear(3, 2)).eval()),
     lambda n, p: integers(NET)),
    ("it in float32, as it was compiled or saved", lambda n, p: integers().to("cpu").half()(X.half()),
     lambda n, p: integers()(X)),
    ("this pass before fixed-point",
     lambda n, p: PASSES["use-signed-neurons"]().apply(integers().graph, snnc.Context(2)),
     lambda n, p: snnc.compile(NET, 2, snnc.Pipeline((*recipe("opi").pipeline, PASSES["use-signed-neurons"](),
     PASSES["fixed-point"]())), X)),
    # networks that run
    ("--device cpu", lambda n, p: snnc.load(snnc.save(n, p / "net.snn"), device="cuda:99"),
     lambda n, p: snnc.load(snnc.save(n, p / "net.snn"), device="cpu")),
    ("--device cpu or --device cuda", lambda n, p: snnc.load(snnc.save(n, p / "net.onnx"), device="mps"),
     lambda n, p: snnc.load(snnc.save(n, p / "net.onnx"), device="cpu")),
    ("a file that was written in floats: snnc.save(net, OUT, snnc.backends.OnnxModel(integers=False))",
     lambda n, p: snnc.load(snnc.save(integers(), p / "net.onnx"), device="cuda"),
     lambda n, p: snnc.load(snnc.save(integers(), p / "net.onnx", OnnxModel(integers=False)))(X)),
    ("a file that was written with it: compile without --single-output",
     lambda n, p: snnc.load(snnc.save(n, p / "net.onnx", OnnxModel(anytime=False))).readout(X),
     lambda n, p: snnc.load(snnc.save(n, p / "net.onnx")).readout(X)),
    ("input in the range that it was trained on", lambda n, p: snnc.compile(loud(), 2, "data-free")(FAR),
     lambda n, p: free()(X)),
    ("the network it was made from",
     lambda n, p: snnc.compile(snnc.networks.staged.staged(torch.load(snnc.save(n, p / "net.snn")), "it"), 2),
     lambda n, p: compiled()),
    ("the float network that it was quantised from; snnc quantises itself",
     lambda n, p: snnc.files.load_model(torch.save(nn.Sequential(torch.ao.nn.quantized.FloatFunctional()), p / "n.pt")
     or p / "n.pt"), lambda n, p: compiled()),
    ("samples of the shape that the network was trained on", lambda n, p: free()(X[:, :2]), lambda n, p: free()(X)),
    ("a classifier", lambda n, p: snnc.search(nn.Sequential(NET[0], nn.ReLU(), nn.Unflatten(1, (5, 1))).eval(), X),
     lambda n, p: snnc.search(NET, X, 100, recipes=["opi"], steps=[2])),
    ("two forms of one network, or two networks for one task",
     lambda n, p: snnc.verify(n, snnc.compile(loud(2), 2, "data-free"), X),
     lambda n, p: snnc.verify(n, snnc.load(snnc.save(n, p / "net.onnx")), X)),
    ("the model that 'snnc compile' was given",
     lambda n, p: snnc.explain(n, nn.Sequential(*NET[:2], nn.Linear(5, 5), *NET[1:]).eval(), (X, Y)),
     lambda n, p: snnc.explain(n, NET, (X, Y))),
    ("a recipe without calibrate-offset, average-input and wait-for-input",
     lambda n, p: list(compiled("cos").stream(X)), lambda n, p: list(compiled("opi").stream(X))),
    # several inputs
    ("the backend torch, pt2 or onnx", lambda n, p: snnc.save(two(), p / "net.nir"),
     lambda n, p: [snnc.save(two(), p / form) for form in ("net.snn", "net.pt2", "net.onnx")]),
    ("a recipe without encode-input, such as 'best'", lambda n, p: two("low-latency"), lambda n, p: two("best")),
    ("the network without --fixed-point", lambda n, p: two(snnc.Pipeline((*recipe("opi").pipeline, FIXED))),
     lambda n, p: two("opi")),
    ("one tensor for each input", lambda n, p: two()(X), lambda n, p: (two()(X, X), two()(x=X, z=X))),
    ("one batch, of all inputs alike", lambda n, p: two()(X, X[:3]), lambda n, p: two()(X[:3], X[:3])),
    ("one batch, of all alike", lambda n, p: two(data=[{"x": X, "z": X[:3]}]), lambda n, p: two()),
    ("x[None] of one sample, or torch.stack(x) of several",
     lambda n, p: snnc.compile(layer(nn.Identity()), 2, "opi", maps()[0]),
     lambda n, p: (snnc.compile(layer(nn.Identity()), 2, "opi", maps()[0][None]),
     snnc.compile(layer(nn.Identity()), 2, "opi", torch.stack(list(maps()))))),
]  # fmt: skip
