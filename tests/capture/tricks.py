"""Networks that are not what they seem to a tracer: what Python lets authors hang on a module, and ask of an input.

Each trick takes a network and gives one that computes something else, as a rule, than its layers alone would tell.
"""

import functools
import random
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

SHAPE = (2, 6, 6)


class Net(nn.Module):
    """Small, with a layer of most kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.act, self.pool = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
        self.head = nn.Linear(4, 3)
        self.register_buffer("count", torch.zeros(()))
        self.drop = nn.Dropout(0.5)

    def ask(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(self.pool(self.act(self.norm(self.conv(self.ask(x))))))
        return self.head(self.drop(x.mean((2, 3))))


def make(seed: int = 0, cls: type[Net] = Net) -> Net:
    """A network of random numbers, its statistics too."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = cls()
        net.norm.running_mean.uniform_(-0.5, 0.5)
        net.norm.running_var.uniform_(0.5, 2)
    return net


Trick = Callable[[Net], nn.Module]
TRICKS: dict[str, Trick] = {}


def trick(function: Trick) -> Trick:
    TRICKS[function.__name__] = function
    return function


def asks(question: Callable[[Any, Any], Any], name: str) -> None:
    """A network that scales and shifts its input where `question(network, x)` is true."""

    class Asks(Net):
        def ask(self, x: Tensor) -> Tensor:
            return x * 2 - 0.5 if question(self, x) else x

    def swap(net: Net) -> nn.Module:
        if type(net) is Net:
            net.__class__ = Asks
        else:
            net.ask = types.MethodType(Asks.ask, net)
        return net

    TRICKS[name] = swap


def _raises(x: Any) -> bool:
    try:
        bool(x.sum() > 1e9)
    except Exception:
        return True
    return False


for _name, _question in {
    "isinstance Tensor": lambda m, x: isinstance(x, Tensor),
    "is_tensor": lambda m, x: torch.is_tensor(x),
    "type is Tensor": lambda m, x: type(x) is Tensor,
    "no Proxy": lambda m, x: not isinstance(x, fx.Proxy),
    "Proxy by name": lambda m, x: "Proxy" not in type(x).__name__,
    "has node": lambda m, x: not hasattr(x, "node"),
    "requires_grad": lambda m, x: not x.requires_grad,
    "grad mode": lambda m, x: torch.is_grad_enabled(),
    "scripting": lambda m, x: not torch.jit.is_scripting(),
    "tracing": lambda m, x: not torch.jit.is_tracing(),
    "compiling": lambda m, x: not torch.compiler.is_compiling(),
    "exporting": lambda m, x: not torch.compiler.is_exporting(),
    "fx tracing": lambda m, x: not torch.fx._symbolic_trace.is_fx_tracing(),
    "onnx export": lambda m, x: not torch.onnx.is_in_onnx_export(),
    "training": lambda m, x: not m.training,
    "training of a part": lambda m, x: not m.norm.training,
    "device": lambda m, x: x.device.type == "cpu",
    "is_cuda": lambda m, x: not x.is_cuda,
    "dtype": lambda m, x: x.dtype == torch.float32,
    "is_floating_point": lambda m, x: x.is_floating_point(),
    "data": lambda m, x: x.sum() > 0,
    "data by item": lambda m, x: x.sum().item() > 0,
    "many samples": lambda m, x: x.shape[0] > 4,
    "very many samples": lambda m, x: x.shape[0] > 16,
    "more samples by len": lambda m, x: len(x) > 16,
    "one sample": lambda m, x: len(x) == 1,
    "even number of samples": lambda m, x: x.size(0) % 2 == 0,
    "sides": lambda m, x: x.shape[-1] == 6,
    "rank": lambda m, x: x.dim() == 4,
    "contiguous": lambda m, x: x.is_contiguous(),
    "hash": lambda m, x: hasattr(x, "__dlpack__"),
    "raises": lambda m, x: not _raises(x),
    "eval mode of a parameter": lambda m, x: m.conv.weight.requires_grad,
    "python random": lambda m, x: random.random() > 0.5,
}.items():
    asks(_question, _name)


@trick
def pre_hook(net):
    net.register_forward_pre_hook(lambda m, args: ((args[0] - 0.45) / 0.225,))
    return net


@trick
def hook(net):
    net.register_forward_hook(lambda m, args, out: out * 3 - 1)
    return net


@trick
def hook_with_kwargs(net):
    net.register_forward_hook(lambda m, args, kwargs, out: out * (3 if not kwargs else 1), with_kwargs=True)
    return net


@trick
def hook_on_part(net):
    net.body.register_forward_hook(lambda m, args, out: out * 3)
    return net


@trick
def hook_on_leaf(net):
    net.act.register_forward_pre_hook(lambda m, args: (args[0] * 2,))
    return net


@trick
def recording_hook(net):
    seen = []
    net.body.register_forward_hook(lambda m, args, out: seen.append(out))
    return net


@trick
def backward_hooks(net):
    net.register_full_backward_hook(lambda m, a, b: None)
    net.body.register_full_backward_pre_hook(lambda m, a: None)
    net.conv.register_full_backward_hook(lambda m, a, b: None)
    return net


@trick
def forward_bound(net):
    net.forward = types.MethodType(lambda self, x: type(self).forward(self, 1 - x), net)
    return net


@trick
def forward_wrapped(net):
    old = net.forward
    net.forward = lambda x: old(x * 4 - 2)
    return net


@trick
def forward_partial(net):
    def scaled(x, by, run):
        return run(x * by)

    net.forward = functools.partial(scaled, by=3.0, run=net.forward)
    return net


def _doubling(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return 2 * function(*args, **kwargs)

    return wrapper


@trick
def forward_decorated(net):
    net.forward = _doubling(net.forward)
    return net


def _leaf(name, patch):
    def patched(net):
        part = getattr(net, name)
        part.forward = types.MethodType(patch, part)
        return net

    TRICKS[f"forward of {name}"] = patched


_leaf("conv", lambda m, x: F.conv2d(x * 4 - 2, m.weight, m.bias))
_leaf("norm", lambda m, x: x * 2)
_leaf("act", lambda m, x: torch.clamp(x, 0, 0.2))
_leaf("pool", lambda m, x: F.avg_pool2d(x, 2))
_leaf("head", lambda m, x: F.linear(x, m.weight * 3, m.bias))
_leaf("body", lambda m, x: m[1](m[0](x) * 2))
_leaf("drop", lambda m, x: x * 0.3)


@trick
def inner_function_of_conv(net):
    net.conv._conv_forward = lambda x, weight, bias: F.conv2d(x, weight * 2, bias)
    return net


@trick
def call_of_instance(net):
    net._call_impl = lambda x: 2 * net.forward(x)
    return net


def _swapped(name, base, **body):
    def swap(net):
        part = getattr(net, name)
        part.__class__ = type(f"My{base.__name__}", (base,), body)
        return net

    TRICKS[f"class of {name} with {', '.join(body) or 'nothing'}"] = swap


_swapped("conv", nn.Conv2d)
_swapped("norm", nn.BatchNorm2d)
_swapped("conv", nn.Conv2d, forward=lambda self, x: F.conv2d(x, self.weight) * 2)
_swapped("conv", nn.Conv2d, _conv_forward=lambda self, x, w, b: F.conv2d(x, w * 2, b))
_swapped("conv", nn.Conv2d, __call__=lambda self, x: nn.Module.__call__(self, x) * 2)
_swapped("act", nn.ReLU, forward=lambda self, x: F.relu(x - 0.5))
_swapped("act", nn.ReLU, __call__=lambda self, x: nn.Module.__call__(self, x - 0.5))
_swapped("norm", nn.BatchNorm2d, eps=property(lambda self: 0.7, lambda self, value: None))
_swapped("head", nn.Linear, weight=property(lambda self: self._parameters["weight"] * 2))
_swapped(
    "head",
    nn.Linear,
    __getattribute__=lambda self, n: (lambda v: v * 2 if n == "bias" else v)(nn.Linear.__getattribute__(self, n)),
)
_swapped("pool", nn.MaxPool2d, kernel_size=property(lambda self: 3, lambda self, value: None))
_swapped("drop", nn.Dropout, forward=lambda self, x: F.dropout(x, 0.5, True))
_swapped("drop", nn.Dropout, train=lambda self, mode=True: nn.Dropout.train(self, True))
_swapped("norm", nn.BatchNorm2d, train=lambda self, mode=True: nn.BatchNorm2d.train(self, True))


def _subclass(name, **body):
    def swap(net):
        net.__class__ = type("Mine", (type(net),), body)
        return net

    TRICKS[name] = swap


_subclass("call of class", __call__=lambda self, x: nn.Module.__call__(self, x) * 2)
_subclass("no_grad decorator", forward=torch.no_grad()(lambda self, x: Net.forward(self, x * 2)))
_subclass("inference mode", forward=torch.inference_mode()(lambda self, x: Net.forward(self, x * 2)))
_subclass("wraps", forward=_doubling(lambda self, x: Net.forward(self, x)))
_subclass("keyword", forward=lambda self, x, *, scale=2.0: Net.forward(self, x * scale))
_subclass("any arguments", forward=lambda self, *args, **kwargs: Net.forward(self, *args, **kwargs) * 2)
_subclass("getattr", __getattr__=lambda self, n: nn.Identity() if n == "act" else nn.Module.__getattr__(self, n))
_subclass("property", head=property(lambda self: lambda x: self._modules["head"](x) * 2))


def _autocast(self, x):
    with torch.autocast("cpu", torch.bfloat16):
        return Net.forward(self, x).float()


def _counting(self, x):
    self.calls = getattr(self, "calls", 0) + 1
    return Net.forward(self, x) * self.calls


def _counting_buffer(self, x):
    self.count += 1
    return Net.forward(self, x) * self.count


def _caching(self, x):
    if not hasattr(self, "kept"):
        self.kept = self.head.weight * 2
    return F.linear(Net.forward(self, x), self.kept[:, :3])


def _first_only(self, x):
    if not hasattr(self, "first"):
        self.first = x
    return Net.forward(self, x + self.first[:1])


def _running(self, x):
    self.count.mul_(0.9).add_(x.mean())
    return Net.forward(self, x - self.count)


def _centred(self, x):
    return Net.forward(self, x - x.mean(0, keepdim=True))


def _by_samples(self, x):
    return Net.forward(self, x) / x.shape[0]


def _string(self, x):
    return Net.forward(self, x * (2 if "tensor" in str(x) else 1))


def _numpy(self, x):
    return Net.forward(self, torch.from_numpy(x.detach().numpy() * 2))


def _item(self, x):
    return Net.forward(self, x) * float(self.head.weight[0, 0])


def _loop(self, x):
    return torch.stack([Net.forward(self, one[None])[0] for one in x])


def _set_data(self, x):
    self.head.weight.data.mul_(2)
    return Net.forward(self, x)


def _half(self, x):
    return Net.forward(self, x.half().float() * 2)


for _forward in (
    *(_autocast, _counting, _counting_buffer, _caching, _first_only, _running, _centred, _by_samples, _string),
    *(_numpy, _item, _loop, _set_data, _half),
):
    _subclass(_forward.__name__.strip("_"), forward=_forward)


@trick
def closure_over_self(net):
    net.body = types.SimpleNamespace(__call__=None) and _Lambda(lambda x: torch.relu(net.norm(net.conv(x))))
    net.forward = lambda x: net.head(net.body(x).repeat(1, 2, 1, 1)[:, :4].mean((2, 3)))
    return net


class _Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@trick
def modules_in_a_list(net):
    net.hidden = [nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)]
    old = net.act.forward
    net.act.forward = lambda x: old(net.hidden[1].eval()(net.hidden[0](x)))
    return net


@trick
def hidden_norm_in_training(net):
    hidden = types.SimpleNamespace(norm=nn.BatchNorm2d(2))
    net.ask = lambda x: hidden.norm(x)
    return net


@trick
def numpy_random(net):
    net.ask = lambda x: x * (1 + (np.random.rand() > 0.9))  # noqa: NPY002 (what an author might write)
    return net


@trick
def drawn_and_not_used(net):
    net.ask = lambda x: x * 2 if net.training or random.random() > -1 else x
    return net


@trick
def weights_of_another_network(net):
    other = make(7)
    net.ask = lambda x: x - other.conv.weight.sum()
    return net


@trick
def rebound_at_each_call(net):
    old = net.forward

    def forward(x):
        net.body[0].weight = nn.Parameter(net.body[0].weight * 1.5)
        return old(x)

    net.forward = forward
    return net


@trick
def static_forward(net):
    class Static(nn.Module):
        forward = staticmethod(lambda x: x * 2 - 0.5)

    net.act = nn.Sequential(nn.ReLU(), Static())
    return net


@trick
def callable_object(net):
    class Doubled:
        def __init__(self, run):
            self.run = run

        def __call__(self, x):
            return self.run(x) * 2

    net.pool.forward = Doubled(net.pool.forward)
    return net


@trick
def descriptor(net):
    class Doubling:
        def __get__(self, owner, cls=None):
            return self if owner is None else owner._modules["head"].weight * 2

    net.__class__ = type("Described", (type(net),), {"doubled": Doubling()})
    net.forward = lambda x: F.linear(type(net).forward(net, x)[:, :1].repeat(1, 1) * net.doubled.mean(), torch.eye(1))
    return net


@trick
def generator_of_layers(net):
    old = net.forward
    net.forward = lambda x: functools.reduce(lambda v, f: f(v), (f for f in (old, torch.neg)), x)
    return net


@trick
def train_overridden(net):
    net.__class__ = type("Stubborn", (type(net),), {"train": lambda self, mode=True: self})
    net.training = True
    return net


@trick
def wrapped_in_data_parallel(net):
    return nn.DataParallel(net) if not torch.cuda.is_available() else net


@trick
def padding_changed_later(net):
    net.conv.padding = (1, 1)
    return net


@trick
def weight_norm(net):
    nn.utils.parametrizations.weight_norm(net.conv)
    return net


@trick
def parametrised_and_patched(net):
    nn.utils.parametrizations.weight_norm(net.conv)
    net.conv.register_forward_hook(lambda m, args, out: out * 2)
    return net
