"""The names of operations and what each becomes. One name serves module, function, method, operator and ATen op."""

from __future__ import annotations

from torch import nn

from snnc import bounds, dialect, layers, routes, spellings
from snnc.lowering import Spelling

# Every operation by its name. A method or function with a trailing underscore is the same, in place.
SPELLINGS: dict[str, Spelling] = {
    # activations and rounding
    "relu": spellings.relu,
    "relu6": spellings.relu6,
    "hardtanh": spellings.hardtanh,
    "threshold": spellings.threshold,
    "clamp": spellings.clamp,
    "clip": spellings.clamp,
    "clamp_min": spellings.clamp_min,
    "clamp_max": spellings.clamp_max,
    "maximum": spellings.maximum,
    "minimum": spellings.minimum,
    "floor": spellings.floor,
    "round": spellings.round_,
    "softmax": spellings.head(nn.Softmax),
    "log_softmax": spellings.head(nn.LogSoftmax),
    # arithmetic
    "add": spellings.add,
    "sub": spellings.sub,
    "subtract": spellings.sub,
    "rsub": spellings.rsub,
    "neg": spellings.neg,
    "negative": spellings.neg,
    "mul": spellings.mul,
    "multiply": spellings.mul,
    "div": spellings.div,
    "divide": spellings.div,
    "true_divide": spellings.div,
    "truediv": spellings.div,
    "floordiv": spellings.floor_divide,
    "floor_divide": spellings.floor_divide,
    "matmul": layers.matmul,
    "mm": layers.matmul,
    "addmm": layers.addmm,
    # layers
    "linear": layers.linear,
    "conv1d": layers.convolutions(1),
    "conv2d": layers.convolutions(2),
    "conv3d": layers.convolutions(3),
    "conv_transpose1d": layers.transposed(1),
    "conv_transpose2d": layers.transposed(2),
    "conv_transpose3d": layers.transposed(3),
    "batch_norm": layers.batch_norm,
    "avg_pool1d": layers.averages(1),
    "avg_pool2d": layers.averages(2),
    "avg_pool3d": layers.averages(3),
    "adaptive_avg_pool1d": layers.adaptive(layers.ADAPTIVE_AVERAGE, 1),
    "adaptive_avg_pool2d": layers.adaptive(layers.ADAPTIVE_AVERAGE, 2),
    "adaptive_avg_pool3d": layers.adaptive(layers.ADAPTIVE_AVERAGE, 3),
    "max_pool1d": layers.maxima(1),
    "max_pool2d": layers.maxima(2),
    "max_pool3d": layers.maxima(3),
    "adaptive_max_pool1d": layers.adaptive(layers.ADAPTIVE_MAXIMUM, 1),
    "adaptive_max_pool2d": layers.adaptive(layers.ADAPTIVE_MAXIMUM, 2),
    "adaptive_max_pool3d": layers.adaptive(layers.ADAPTIVE_MAXIMUM, 3),
    "mean": layers.mean,
    "amax": layers.amax,
    "interpolate": layers.interpolate,
    "upsample": layers.interpolate,
    "pixel_shuffle": layers.pixel_shuffle,
    # routes
    "flatten": routes.flatten,
    "view": routes.reshape,
    "reshape": routes.reshape,
    "view_as": routes.view_as,
    "reshape_as": routes.view_as,
    "unflatten": routes.unflatten,
    "squeeze": routes.squeeze,
    "unsqueeze": routes.unsqueeze,
    "permute": routes.permute,
    "transpose": routes.transpose,
    "swapaxes": routes.transpose,
    "swapdims": routes.transpose,
    "channel_shuffle": routes.channel_shuffle,
    "narrow": routes.narrow,
    "select": routes.select,
    "split": routes.split,
    "chunk": routes.chunk,
    "unbind": routes.unbind,
    "getitem": routes.getitem,
    "cat": routes.cat,
    "concat": routes.cat,
    "concatenate": routes.cat,
    "stack": routes.stack,
    "pad": routes.pad,
    "zeros": spellings.filled(0.0),
    "zeros_like": spellings.filled(0.0),
    "ones": spellings.filled(1.0),
    "new_zeros": spellings.new_filled(0.0),
    "new_ones": spellings.new_filled(1.0),
    "full": spellings.full,
    # sizes
    "size": routes.size,
    "dim": routes.rank,
    "ndimension": routes.rank,
    "getattr": spellings.getattr_,
    # nothing, at inference
    "dropout": spellings.dropout,
    "dropout1d": spellings.dropout,
    "dropout2d": spellings.dropout,
    "dropout3d": spellings.dropout,
    "alpha_dropout": spellings.dropout,
    "feature_alpha_dropout": spellings.dropout,
    "feature_dropout": spellings.dropout,
    "contiguous": layers.keep,
    "clone": layers.keep,
    "detach": layers.keep,
    "float": layers.keep,
    "requires_grad": layers.keep,
    "type_as": layers.keep,
    "pos": layers.keep,
    "to": spellings.to,
}

COPIES = frozenset({"clone"})
VIEWS = frozenset(
    {
        "view",
        "reshape",
        "flatten",
        "squeeze",
        "unsqueeze",
        "permute",
        "transpose",
        "swapaxes",
        "swapdims",
        "narrow",
    }
    | {"select", "split", "chunk", "unbind", "getitem", "view_as", "reshape_as", "unflatten", "slice"}
)

# Modules of torch.nn: the operation's name, and the attributes that are its arguments.
MODULES: dict[type[nn.Module], tuple[str, tuple[str, ...]]] = {
    nn.ReLU: ("relu", ("inplace",)),
    nn.ReLU6: ("relu6", ("inplace",)),
    nn.Hardtanh: ("hardtanh", ("min_val", "max_val", "inplace")),
    nn.Threshold: ("threshold", ("threshold", "value", "inplace")),
    nn.Softmax: ("softmax", ("dim",)),
    nn.LogSoftmax: ("log_softmax", ("dim",)),
    **{c: (f"avg_pool{d}d", ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", *(("divisor_override",) if d > 1 else ())))
       for d, c in layers.AVERAGE.items()},
    **{c: (f"max_pool{d}d", ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"))
       for d, c in layers.MAXIMUM.items()},
    **{c: (f"adaptive_avg_pool{d}d", ("output_size",)) for d, c in layers.ADAPTIVE_AVERAGE.items()},
    **{c: (f"adaptive_max_pool{d}d", ("output_size", "return_indices")) for d, c in layers.ADAPTIVE_MAXIMUM.items()},
    nn.Upsample: ("interpolate", ("size", "scale_factor", "mode")),
    nn.UpsamplingNearest2d: ("interpolate", ("size", "scale_factor", "mode")),
    nn.UpsamplingBilinear2d: ("interpolate", ("size", "scale_factor", "mode")),
    nn.PixelShuffle: ("pixel_shuffle", ("upscale_factor",)),
    nn.ChannelShuffle: ("channel_shuffle", ("groups",)),
    nn.Flatten: ("flatten", ("start_dim", "end_dim")),
    nn.Unflatten: ("unflatten", ("dim", "unflattened_size")),
}  # fmt: skip

# Layers with weights, or with bounds: each call site gets its own copy.
OWN: dict[type[nn.Module], Spelling] = {
    **dict.fromkeys(dialect.CONVOLUTIONS, layers.own_conv),
    **dict.fromkeys((*dialect.TRANSPOSED, nn.Linear, dialect.ClipQuant), layers.own),
    **dict.fromkeys((*dialect.BATCHNORMS, nn.SyncBatchNorm), layers.own_batchnorm),
    **dict.fromkeys(
        (dialect.Add, dialect.Sub, dialect.Concat, dialect.Affine, dialect.Pad, dialect.Slice, dialect.Reshape,
         dialect.Permute, dialect.Mean, dialect.OwnSizeAvgPool2d, bounds.Floor, bounds.Round),
        layers.own,
    ),
    **dict.fromkeys(
        (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout),
        layers.keep_module,
    ),
    **dict.fromkeys(
        (getattr(nn, f"{kind}Pad{d}d") for kind in ("Zero", "Constant", "Reflection", "Replication", "Circular")
         for d in (1, 2, 3)),
        layers.own_pad,
    ),
}  # fmt: skip

_RELU = (
    "is not piecewise flat below zero and linear above, so no spike rate equals it",
    "replace it by ReLU, and train again",
)
_STATISTICS = (
    "normalises each sample by its own statistics",
    "use BatchNorm, whose statistics are constants, and train again",
)
_ATTENTION = (
    "multiplies values that both depend on the input",
    "snnc converts networks of convolutions and linear layers",
)
_TIME = ("carries a state through time of its own", "snnc converts feed-forward networks")
_PRODUCT = (
    "is not linear, and no neuron computes it",
    "rewrite it with ReLU and linear layers, and train again",
)

# What is refused, and why; keys without underscores, in lower case.
HINTS: dict[str, tuple[str, str]] = {
    **dict.fromkeys(
        "leakyrelu prelu rrelu elu celu selu gelu silu mish swish hardswish hardsigmoid sigmoid logsigmoid tanh hardshrink "
        "softplus softsign softshrink tanhshrink glu erf".split(), _RELU,
    ),
    **dict.fromkeys(
        "layernorm groupnorm instancenorm instancenorm1d instancenorm2d instancenorm3d localresponsenorm rmsnorm "
        "normalize crossmaplrn2d nativelayernorm nativegroupnorm".split(), _STATISTICS,
    ),
    **dict.fromkeys(
        "multiheadattention transformer transformerencoder transformerencoderlayer transformerdecoder bmm einsum "
        "transformerdecoderlayer scaleddotproductattention bilinear baddbmm".split(), _ATTENTION,
    ),
    **dict.fromkeys("rnn lstm gru rnncell lstmcell grucell".split(), _TIME),
    **dict.fromkeys("abs sign exp log sqrt rsqrt reciprocal pow square sin cos std var norm where ceil trunc frac fmod "
                    "remainder sum prod max min argmax topk sort cumsum median amin logsumexp".split(), _PRODUCT),
    **dict.fromkeys("maxpool2dwithindices maxpool1dwithindices maxpool3dwithindices".split(),
                    ("asks for the place of each maximum", "pool without return_indices")),
    **dict.fromkeys("nativedropout bernoulli rand randn randlike randnlike".split(),
                    ("is random at inference", "call eval() before capture, and pass training=self.training")),
}  # fmt: skip
OTHER = (
    "is not among the operations that snnc converts",
    "rewrite it with layers of torch.nn that snnc knows",
)
# Refused, but the walk goes on as if they were not there: they keep their input's shape.
ELEMENTWISE = frozenset(name for name, hint in HINTS.items() if hint in (_RELU, _STATISTICS))
