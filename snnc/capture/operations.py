"""The names of operations and what each becomes. One name serves module, function, method, operator and ATen op."""

from __future__ import annotations

from torch import nn

from snnc.capture import (
    assigning,
    attention,
    bounds,
    curved,
    embedding,
    formulas,
    gathering,
    joining,
    layers,
    pools,
    resizing,
    routes,
    spellings,
)
from snnc.capture.values import Spelling
from snnc.ir import dialect
from snnc.ir.embedding import Embedding

# Every operation by its name. A method or function with a trailing underscore is the same, in place.
SPELLINGS: dict[str, Spelling] = {
    # activations and rounding
    "relu": spellings.relu,
    **dict.fromkeys(("long", "int"), embedding.whole),
    "embedding": embedding.embedding,
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
    "floordiv": spellings.floor_divide,
    "floor_divide": spellings.floor_divide,
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
    "avg_pool1d": pools.averages(1),
    "avg_pool2d": pools.averages(2),
    "avg_pool3d": pools.averages(3),
    "adaptive_avg_pool1d": pools.adaptive(pools.ADAPTIVE_AVERAGE, 1),
    "adaptive_avg_pool2d": pools.adaptive(pools.ADAPTIVE_AVERAGE, 2),
    "adaptive_avg_pool3d": pools.adaptive(pools.ADAPTIVE_AVERAGE, 3),
    "max_pool1d": pools.maxima(1),
    "max_pool2d": pools.maxima(2),
    "max_pool3d": pools.maxima(3),
    "adaptive_max_pool1d": pools.adaptive(pools.ADAPTIVE_MAXIMUM, 1),
    "adaptive_max_pool2d": pools.adaptive(pools.ADAPTIVE_MAXIMUM, 2),
    "adaptive_max_pool3d": pools.adaptive(pools.ADAPTIVE_MAXIMUM, 3),
    "mean": pools.mean,
    "sum": pools.sum_,
    "max": pools.max_,
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
    "setitem": routes.setitem,
    "cat": joining.cat,
    "concat": joining.cat,
    "concatenate": joining.cat,
    "hstack": joining.hstack,
    "stack": joining.stack,
    "pad": routes.pad,
    "zeros": spellings.filled(0.0),
    "zeros_like": spellings.filled(0.0),
    "ones": spellings.filled(1.0),
    "ones_like": spellings.filled(1.0),
    "new_zeros": spellings.new_filled(0.0),
    "new_ones": spellings.new_filled(1.0),
    "new_full": spellings.new_full,
    "full": spellings.full,
    "full_like": spellings.full,
    "amax": pools.amax,
    **curved.SPELLINGS,
    **attention.SPELLINGS,
    # sizes
    "size": routes.size,
    "len": routes.length,
    "dim": routes.rank,
    "ndimension": routes.rank,
    "getattr": spellings.getattr_,
    **gathering.SPELLINGS,
    **assigning.SPELLINGS,
    **formulas.SPELLINGS,
    **resizing.SPELLINGS,
    # nothing, at inference
    "dropout": spellings.dropout,
    "dropout1d": spellings.dropout,
    "dropout2d": spellings.dropout,
    "dropout3d": spellings.dropout,
    "alpha_dropout": spellings.dropout,
    "feature_alpha_dropout": spellings.dropout,
    "feature_dropout": spellings.dropout,
    "stochastic_depth": spellings.stochastic_depth,
    "drop_path": spellings.drop_path,
    "drop_block2d": spellings.drop_block,
    "drop_block3d": spellings.drop_block,
    "contiguous": layers.keep,
    "clone": layers.keep,
    "detach": layers.keep,
    "requires_grad": layers.keep,
    "bfloat16": layers.keep,
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
    | {"expand", "expand_as", "broadcast_to", "unfold"}
)

AVERAGED = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
POOLED = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
# Modules of torch.nn: the operation's name, and the attributes that are its arguments.
MODULES: dict[type[nn.Module], tuple[str, tuple[str, ...]]] = {
    nn.ReLU: ("relu", ("inplace",)),
    nn.ReLU6: ("relu6", ("inplace",)),
    nn.Hardtanh: ("hardtanh", ("min_val", "max_val", "inplace")),
    nn.Threshold: ("threshold", ("threshold", "value", "inplace")),
    nn.Softmax: ("softmax", ("dim",)),
    nn.LogSoftmax: ("log_softmax", ("dim",)),
    nn.AvgPool1d: ("avg_pool1d", AVERAGED),
    nn.AvgPool2d: ("avg_pool2d", (*AVERAGED, "divisor_override")),
    nn.AvgPool3d: ("avg_pool3d", (*AVERAGED, "divisor_override")),
    **{c: (f"max_pool{d}d", POOLED) for d, c in pools.MAXIMUM.items()},
    **{c: (f"adaptive_avg_pool{d}d", ("output_size",)) for d, c in pools.ADAPTIVE_AVERAGE.items()},
    **{c: (f"adaptive_max_pool{d}d", ("output_size", "return_indices")) for d, c in pools.ADAPTIVE_MAXIMUM.items()},
    nn.PixelShuffle: ("pixel_shuffle", ("upscale_factor",)),
    nn.ChannelShuffle: ("channel_shuffle", ("groups",)),
    nn.Flatten: ("flatten", ("start_dim", "end_dim")),
    **gathering.MODULES,
    **resizing.MODULES,
    **curved.MODULES,
    **formulas.MODULES,
    nn.Unflatten: ("unflatten", ("dim", "unflattened_size")),
}

SILENT = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
# Modules that are in their final form.
OWN_FORM = (
    *(dialect.Add, dialect.Sub, dialect.Concat, dialect.Affine, dialect.Pad, dialect.Slice, dialect.Reshape),
    *(dialect.Permute, dialect.Mean, dialect.OwnSizeAvgPool2d, dialect.ClipQuant, bounds.Floor, bounds.Round),
    *(*dialect.TRANSPOSED, nn.Linear),
)
PADS = ("Zero", "Constant", "Reflection", "Replication", "Circular")
# Layers with weights, or with bounds: each call site gets its own copy.
OWN: dict[type[nn.Module], Spelling] = {
    nn.Embedding: embedding.module,
    Embedding: layers.own,
    **dict.fromkeys(dialect.CONVOLUTIONS, layers.own_conv),
    **dict.fromkeys((*dialect.BATCHNORMS, nn.SyncBatchNorm), layers.own_batchnorm),
    **dict.fromkeys(OWN_FORM, layers.own),
    **dict.fromkeys(SILENT, layers.keep_module),
    **curved.OWN,
    **formulas.OWN,
    **attention.OWN,
    **{getattr(nn, f"{kind}Pad{d}d"): layers.own_pad for kind in PADS for d in (1, 2, 3)},
}
