"""Spellings of layers: weights, normalisation, pooling and scaling of maps, as modules and as functions."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, fx, nn

from snnc import dialect
from snnc.lowering import SHAPE_HINT, Dim, Refused, Site, Sizes, Unknown

CONVOLUTION = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCHNORM = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
AVERAGE = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
ADAPTIVE_AVERAGE = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
MAXIMUM = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
ADAPTIVE_MAXIMUM = {1: nn.AdaptiveMaxPool1d, 2: nn.AdaptiveMaxPool2d, 3: nn.AdaptiveMaxPool3d}


def keep(at: Site, x: Any, *_: Any, **__: Any) -> Any:
    """What does nothing at inference."""
    return x


def own(at: Site, module: nn.Module, *x: Any) -> Any:
    """A layer with weights: its own copy."""
    return at.emit(copy.deepcopy(module), *x)


def own_conv(at: Site, module: nn.Module, x: Any) -> Any:
    """A convolution, its padding in numbers; padding that is not symmetric or not zeros goes in front of it."""
    module = copy.deepcopy(module)
    assert isinstance(module, dialect.CONVOLUTIONS)
    pads = list(module._reversed_padding_repeated_twice)
    even = pads[::2] == pads[1::2]
    if module.padding_mode != "zeros" or not even:
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        if any(pads):
            x = at.emit(dialect.Pad(tuple(pads), mode), x, part="pad")
        pads = [0] * len(pads)
    module.padding = tuple(pads[::2][::-1])
    module.padding_mode = "zeros"
    module._reversed_padding_repeated_twice = pads
    return at.emit(module, x)


def own_batchnorm(at: Site, module: nn.Module, x: Any) -> Any:
    assert isinstance(module, nn.modules.batchnorm._BatchNorm)
    return batch_norm(
        at, x, module.running_mean, module.running_var, module.weight, module.bias, eps=module.eps,
        kind=type(module) if type(module) in dialect.BATCHNORMS else None,
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
    module.num_batches_tracked = running_mean.new_zeros((), dtype=int)
    if module.affine:
        one = running_mean.new_ones(running_mean.shape) if weight is None else weight
        zero = running_mean.new_zeros(running_mean.shape) if bias is None else bias
        module.weight, module.bias = nn.Parameter(constant(one)), nn.Parameter(constant(zero))
    return at.emit(module, x)


def constant(value: Tensor) -> Tensor:
    """A copy that shares nothing with the network's own tensor."""
    return value.detach().clone()


def _weighted(at: Site, x: Any, module: nn.Module, weight: Tensor, bias: Tensor | None) -> Any:
    if not isinstance(weight, Tensor) or isinstance(bias, fx.Node):
        at.refuse("takes its weights from data", "a spiking layer needs constant weights")
    module.weight = nn.Parameter(constant(weight))
    module.bias = None if bias is None else nn.Parameter(constant(bias).reshape(-1))
    return at.emit(module, x)


def linear(at: Site, x: Any, weight: Tensor, bias: Tensor | None = None) -> Any:
    if not isinstance(weight, Tensor):
        at.refuse(
            "multiplies two values that both depend on the input", "a spiking layer needs constant weights"
        )
    return _weighted(at, x, nn.Linear(weight.shape[1], weight.shape[0], device="meta"), weight, bias)


def matmul(at: Site, x: Any, other: Any) -> Any:
    if not (isinstance(x, fx.Node) and isinstance(other, Tensor) and other.dim() == 2):
        at.refuse("multiplies by something other than a constant matrix", "use nn.Linear")
    return linear(at, x, other.t())


def addmm(at: Site, bias: Tensor, x: Any, other: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    if isinstance(bias, fx.Node) or not isinstance(other, Tensor) or bias.dim() != 1:
        at.refuse("multiplies by something other than a constant matrix", "use nn.Linear")
    return linear(at, x, (other * alpha).t(), bias * beta)


def convolutions(dims: int) -> Any:
    def spelling(
        at: Site, x: Any, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, groups: int = 1,
    ) -> Any:  # fmt: skip
        if not isinstance(weight, Tensor) or isinstance(bias, fx.Node):
            at.refuse("takes its weights from data", "a spiking layer needs constant weights")
        module = CONVOLUTION[dims](
            weight.shape[1] * groups, weight.shape[0], tuple(weight.shape[2:]), _each(stride, dims),
            padding if isinstance(padding, str) else _each(padding, dims), _each(dilation, dims), groups, device="meta",
        )  # fmt: skip
        module.weight = nn.Parameter(constant(weight))
        module.bias = None if bias is None else nn.Parameter(constant(bias))
        return own_conv(at, module, x)

    return spelling


def transposed(dims: int) -> Any:
    def spelling(
        at: Site, x: Any, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0,
        output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
    ) -> Any:  # fmt: skip
        module = TRANSPOSED[dims](
            weight.shape[0], weight.shape[1] * groups, tuple(weight.shape[2:]), _each(stride, dims),
            _each(padding, dims), _each(output_padding, dims), groups, True, _each(dilation, dims), device="meta",
        )  # fmt: skip
        return _weighted(at, x, module, weight, bias)

    return spelling


def convolution(
    at: Site, x: Any, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, backwards: bool,
    output_padding: Any, groups: int,
) -> Any:  # fmt: skip
    dims = weight.dim() - 2
    if backwards:
        return transposed(dims)(at, x, weight, bias, stride, padding, output_padding, groups, dilation)
    return convolutions(dims)(at, x, weight, bias, stride, padding, dilation, groups)


def _each(value: Any, dims: int) -> tuple[int, ...]:
    """One number for each dimension, where the author may have written one for all."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return values * dims if len(values) == 1 else values


def _window(at: Site, kernel: Any, stride: Any, padding: Any, dims: int) -> tuple[Any, Any, Any]:
    kernel = tuple(at.integer(k) for k in _each(kernel, dims))
    stride = kernel if stride is None or stride == [] else tuple(at.integer(s) for s in _each(stride, dims))
    return kernel, stride, tuple(at.integer(p) for p in _each(padding, dims))


def averages(dims: int) -> Any:
    def spelling(
        at: Site, x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> Any:  # fmt: skip
        plain = padding in (0, (0,) * dims, [0] * dims) and divisor_override is None
        if plain and stride is None and dims == 2 and (whole := _whole_map(at, x, kernel_size)) is not None:
            return at.emit(whole, x)
        kernel, stride, padding = _window(at, kernel_size, stride, padding, dims)
        more = () if dims == 1 else (divisor_override,)
        return at.emit(AVERAGE[dims](kernel, stride, padding, ceil_mode, count_include_pad, *more), x)

    return spelling


def _whole_map(at: Site, x: Any, kernel: Any) -> nn.Module | None:
    """The module for a window written in terms of the input's own size, where that size is not known."""
    if isinstance(kernel, Sizes) and kernel.node is x and kernel.part in (slice(2, None), slice(-2, None)):
        return nn.AdaptiveAvgPool2d(1)
    if isinstance(kernel, (tuple, list)) and all(isinstance(k, Dim) and k.node is x for k in kernel):
        dims = tuple(k.index % 4 for k in kernel)
        return nn.AdaptiveAvgPool2d(1) if dims == (2, 3) else dialect.OwnSizeAvgPool2d(dims[0])
    if isinstance(kernel, Dim) and kernel.node is x:
        return dialect.OwnSizeAvgPool2d(kernel.index % 4)
    if isinstance(kernel, (Sizes, Unknown)):
        raise Refused("pools with a window of unknown size", SHAPE_HINT, shape=True)
    return None


def maxima(dims: int) -> Any:
    def spelling(
        at: Site, x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
        ceil_mode: bool = False, return_indices: bool = False,
    ) -> Any:  # fmt: skip
        if return_indices:
            at.refuse("asks for the place of each maximum", "pool without return_indices")
        kernel, stride, padding = _window(at, kernel_size, stride, padding, dims)
        return at.emit(MAXIMUM[dims](kernel, stride, padding, _each(dilation, dims), ceil_mode=ceil_mode), x)

    return spelling


def adaptive(table: Any, dims: int) -> Any:
    def spelling(at: Site, x: Any, output_size: Any, return_indices: bool = False) -> Any:
        if return_indices:
            at.refuse("asks for the place of each maximum", "pool without return_indices")
        sizes = tuple(None if n is None else at.integer(n) for n in _each(output_size, dims))
        if None in sizes:
            known = at.known(x)[-dims:]
            sizes = tuple(have if want is None else want for have, want in zip(known, sizes, strict=True))
        return at.emit(table[dims](sizes), x)

    return spelling


def mean(at: Site, x: fx.Node, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    return at.emit(dialect.Mean(_dims(at, x, dim), keepdim), x)


def amax(at: Site, x: fx.Node, dim: Any = (), keepdim: bool = False) -> Any:
    dims, rank = _dims(at, x, dim), at.rank(x)
    if rank is None:
        raise Refused("takes the maximum of a value of unknown rank", SHAPE_HINT, shape=True)
    if dims != tuple(range(2, rank)):
        at.refuse(
            f"takes the maximum over dimensions {dims}", "pool over the whole map, or with nn.MaxPool2d"
        )
    x = at.emit(ADAPTIVE_MAXIMUM[rank - 2]((1,) * (rank - 2)), x)
    return x if keepdim else at.emit(nn.Flatten(1), x, part="flatten")


def _dims(at: Site, x: fx.Node, dim: Any) -> tuple[int, ...]:
    if dim is None or dim in ((), []):
        at.refuse("reduces the batch as well", "name the dimensions, such as x.mean((2, 3))")
    return tuple(sorted(at.axis(x, d) for d in (dim if isinstance(dim, (tuple, list)) else (dim,))))


def interpolate(
    at: Site,
    x: fx.Node,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    *_: Any,
    **__: Any,
) -> Any:
    if mode != "nearest":
        at.refuse(f"scales a map by '{mode}'", "use mode='nearest', and train the network with it")
    if size is not None:
        size = tuple(at.integer(s) for s in size) if isinstance(size, (tuple, list)) else at.integer(size)
    if isinstance(scale_factor, (tuple, list)):
        scale_factor = tuple(float(s) for s in scale_factor)
    return at.emit(nn.Upsample(size, scale_factor, "nearest"), x)


def pixel_shuffle(at: Site, x: fx.Node, upscale_factor: int) -> Any:
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
