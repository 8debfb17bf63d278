"""Spellings of layers: weights, normalisation, scaling of maps; as modules and as functions."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn

from snnc.capture import routes
from snnc.capture.copying import kind_of
from snnc.capture.lowering import Site
from snnc.capture.pools import each
from snnc.capture.refusals import PRODUCT
from snnc.capture.values import SHAPE_HINT, Refused
from snnc.ir import dialect

CONVOLUTION: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCHNORM: dict[int, Any] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def keep(at: Site, x: Any, *_: Any, **__: Any) -> Any:
    """What does nothing at inference."""
    return x


def bare(module: nn.Module) -> Any:
    """A layer of torch's own class with copies of the weights, and with nothing else that its author hung on it."""
    kind = kind_of(module) or type(module)
    if kind not in dialect.CONFIG:
        return copy.deepcopy(module)
    config = {name: getattr(module, name) for name in dialect.CONFIG[kind]}
    if issubclass(kind, dialect.WEIGHTED):
        config["bias"] = module.bias is not None
    with torch.device("meta"):  # no random numbers
        made = kind(**{k: v.detach().clone() if isinstance(v, Tensor) else v for k, v in config.items()})
    for name, parameter in module._parameters.items():
        made._parameters[name] = copy.deepcopy(parameter)
    for name, buffer in module._buffers.items():
        made._buffers[name] = copy.deepcopy(buffer)
    return made


def own(at: Site, module: nn.Module, *x: Any) -> Any:
    """A layer with weights: its own copy."""
    return at.emit(bare(module), *x)


def own_conv(at: Site, module: nn.Module, x: Any) -> Any:
    """A convolution, its padding in numbers; padding that is not symmetric or not zeros goes in front of it."""
    made = bare(module)
    # In the other modes torch pads by these numbers alone; in that of zeros it asks `padding`.
    told = made if made.padding_mode == "zeros" else module
    pads: list[int] = list(told._reversed_padding_repeated_twice)  # type: ignore[arg-type]
    even = pads[::2] == pads[1::2]
    if made.padding_mode != "zeros" or not even:
        mode = "constant" if made.padding_mode == "zeros" else made.padding_mode
        if any(pads):
            x = at.emit(dialect.Pad(tuple(pads), mode), x, part="pad")
        pads = [0] * len(pads)
    made.padding = tuple(pads[::2][::-1])
    made.padding_mode = "zeros"
    made._reversed_padding_repeated_twice = pads
    return at.emit(made, x)


def own_batchnorm(at: Site, module: nn.Module, x: Any) -> Any:
    """A BatchNorm module, by way of the function."""
    assert isinstance(module, nn.modules.batchnorm._BatchNorm)
    return batch_norm(
        at, x, module.running_mean, module.running_var, module.weight, module.bias, eps=module.eps,
        kind=kind if (kind := kind_of(module)) in dialect.BATCHNORMS else None,
    )  # fmt: skip


def batch_norm(
    at: Site,
    x: Any,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: Any = 0.1,
    eps: float = 1e-5,
    kind: Any = None,
) -> Any:
    """Normalisation by constants; `kind` is the class, where a module tells it."""
    if training or running_mean is None or running_var is None:
        at.refuse(
            "normalises with the statistics of each batch",
            "train with track_running_stats=True and call eval()",
        )
    rank = at.rank(x)
    if kind is None and rank is None:
        raise Refused("normalises a value of unknown rank", SHAPE_HINT, shape=True)
    cls = kind or BATCHNORM[rank or 0]
    module = cls(running_mean.numel(), eps, affine=weight is not None or bias is not None, device="meta")
    module.running_mean, module.running_var = constant(running_mean), constant(running_var)
    module.num_batches_tracked = torch.zeros((), dtype=torch.long)
    if module.affine:
        one = running_mean.new_ones(running_mean.shape) if weight is None else weight
        zero = running_mean.new_zeros(running_mean.shape) if bias is None else bias
        module.weight, module.bias = nn.Parameter(constant(one)), nn.Parameter(constant(zero))
    return at.emit(module, x)


def constant(value: Tensor) -> Tensor:
    """A copy that shares nothing with the network's own tensor."""
    return value.detach().clone()


def _weighted(at: Site, x: Any, module: Any, weight: Tensor, bias: Tensor | None) -> Any:
    """A layer whose weights the author passes to a function."""
    if not isinstance(weight, Tensor) or isinstance(bias, fx.Node):
        at.refuse("takes its weights from data", "use weights that are parameters or buffers of the network")
    module.weight = nn.Parameter(constant(weight))
    module.bias = None if bias is None else nn.Parameter(constant(bias).reshape(-1))
    return at.emit(module, x)


def linear(at: Site, x: Any, weight: Tensor, bias: Tensor | None = None) -> Any:
    """`F.linear`."""
    if not isinstance(weight, Tensor):
        raise PRODUCT.refused()
    return _weighted(at, x, nn.Linear(weight.shape[1], weight.shape[0], device="meta"), weight, bias)


def matmul(at: Site, x: Any, other: Any) -> Any:
    """A product with a constant matrix on either side; one on the left, as of a graph's edges, mixes rows."""
    if isinstance(x, Tensor) and x.dim() == 2 and isinstance(other, fx.Node):
        return routes.transpose(at, linear(at, routes.transpose(at, other, -2, -1), x), -2, -1)
    if isinstance(x, fx.Node) and isinstance(other, fx.Node):
        raise PRODUCT.refused()
    if not (isinstance(x, fx.Node) and isinstance(other, Tensor) and other.dim() == 2):
        at.refuse("multiplies by something other than a constant matrix", "use nn.Linear")
    return linear(at, x, other.t())


def addmm(at: Site, bias: Tensor, x: Any, other: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    """A product with a constant matrix, and a bias."""
    if isinstance(bias, fx.Node) or not isinstance(other, Tensor) or bias.dim() != 1:
        at.refuse("multiplies by something other than a constant matrix", "use nn.Linear")
    return linear(at, x, (other * alpha).t(), bias * beta)


def convolutions(dims: int) -> Any:
    """`F.conv1d`, `conv2d`, `conv3d`."""

    def spelling(
        at: Site, x: Any, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, groups: int = 1,
    ) -> Any:  # fmt: skip
        if not isinstance(weight, Tensor) or isinstance(bias, fx.Node):
            at.refuse("takes its weights from data", "use weights that are parameters or buffers of the network")
        module = CONVOLUTION[dims](
            weight.shape[1] * groups, weight.shape[0], tuple(weight.shape[2:]), each(stride, dims),
            padding if isinstance(padding, str) else each(padding, dims), each(dilation, dims), groups, device="meta",
        )  # fmt: skip
        module.weight = nn.Parameter(constant(weight))
        module.bias = None if bias is None else nn.Parameter(constant(bias))
        return own_conv(at, module, x)

    return spelling


def transposed(dims: int) -> Any:
    """`F.conv_transpose1d`, `conv_transpose2d`, `conv_transpose3d`."""

    def spelling(
        at: Site, x: Any, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0,
        output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
    ) -> Any:  # fmt: skip
        module = TRANSPOSED[dims](
            weight.shape[0], weight.shape[1] * groups, tuple(weight.shape[2:]), each(stride, dims),
            each(padding, dims), each(output_padding, dims), groups, True, each(dilation, dims), device="meta",
        )  # fmt: skip
        return _weighted(at, x, module, weight, bias)

    return spelling


def convolution(
    at: Site, x: Any, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, backwards: bool,
    output_padding: Any, groups: int,
) -> Any:  # fmt: skip
    """ATen: any convolution."""
    dims = weight.dim() - 2
    if backwards:
        return transposed(dims)(at, x, weight, bias, stride, padding, output_padding, groups, dilation)
    return convolutions(dims)(at, x, weight, bias, stride, padding, dilation, groups)


def pixel_shuffle(at: Site, x: fx.Node, upscale_factor: int) -> Any:
    """`F.pixel_shuffle`."""
    return at.emit(nn.PixelShuffle(upscale_factor), x)


def keep_module(at: Site, module: nn.Module, x: Any) -> Any:
    """A module that does nothing at inference."""
    return x


def own_pad(at: Site, module: Any, x: Any) -> Any:
    """`nn.ZeroPad2d` and its like; the mode is in the class's name."""
    kind = type(module).__name__.lower()
    modes = {"reflection": "reflect", "replication": "replicate", "circular": "circular"}
    mode = next((mode for word, mode in modes.items() if word in kind), "constant")
    return at.emit(dialect.Pad(tuple(module.padding), mode, float(getattr(module, "value", 0.0))), x)
