"""Batch normalisation into the neighbouring layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from snnc.calibrate.algebra import scale_inputs, scale_outputs
from snnc.errors import SnncError
from snnc.ir.dialect import (
    AVERAGE_POOLS,
    BATCHNORMS,
    CONVOLUTIONS,
    WEIGHTED,
    Affine,
)
from snnc.ir.graph import Stage, calls, module_of, remove, replace
from snnc.ir.shapes import every_shape
from snnc.passes.pipeline import Context, Pass
from snnc.structure import shape_of


@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """Removes every batch normalisation, `y = scale * x + shift` in eval mode.

    1. Behind a convolution, transposed convolution or linear layer: into its outputs; through average pools and
       nearest upsampling too, since a mean of affine values is the affine value of the mean.
    2. Before a linear layer (through a flatten too) or a convolution that pads with no zeros: into its inputs.
    3. Anywhere else (behind a join, before a padded convolution): an `Affine` on currents. In a spiking network
       its whole shift acts at every step.

    Only where the layer and all between have no other user; and a linear layer only on vectors `[B, C]`, since
    elsewhere it counts along another dimension than normalisation. What normalisation knew of its output (mean beta,
    standard deviation gamma) is kept in `context.moments` for data-free thresholds.
    """

    name = "fold-batchnorm"
    takes = (Stage.ANN,)
    gives = Stage.FOLDED
    provides = (Context.moments,)
    exact = True
    source = "eval-mode algebra; Jacob et al., CVPR 2018 (arXiv 1712.05877), section 3.2"

    def apply(self, graph: fx.GraphModule, context: Context) -> int:
        sites = 0
        left: list[str] = []
        moments: dict[str, tuple[Tensor, Tensor]] = {}
        for node, norm in calls(graph, *BATCHNORMS):
            scale, shift = affine_of(norm)
            beta = shift + scale * norm.running_mean
            moments[node.name] = (beta, scale.abs() * (norm.running_var + norm.eps).sqrt())
            sites += 1
            if layer := _layer_before(graph, node, context):
                scale_outputs(layer, scale, shift)
                moments[node.all_input_nodes[0].name] = moments[node.name]
                remove(graph, node)
            elif layer := _layer_after(graph, node, context):
                scale_inputs(layer, scale, shift)
                remove(graph, node)
            else:
                replace(graph, node, _affine(graph, node, norm, context))
                left.append(node.name)
        context.moments = moments
        if left:
            context.notes.append(
                f"{len(left)} cannot be folded and stay as affines on currents (the first: '{left[0]}')"
            )
        return sites


def affine_of(norm: Any) -> tuple[Tensor, Tensor]:
    """Scale and shift `[C]` of a batch normalisation in eval mode, float64."""
    inverse = (norm.running_var.double() + norm.eps).rsqrt()
    scale = inverse if norm.weight is None else norm.weight.double() * inverse
    shift = -norm.running_mean.double() * scale
    return scale, shift if norm.bias is None else shift + norm.bias.double()


def _layer_before(graph: fx.GraphModule, node: fx.Node, context: Context) -> nn.Module | None:
    """The layer whose outputs `node` normalises (case 1)."""
    source = node.all_input_nodes[0]
    while source.op == "call_module" and len(source.users) == 1:
        module = module_of(graph, source)
        if isinstance(module, WEIGHTED):
            return module if not isinstance(module, nn.Linear) or _is_vector(graph, node, context) else None
        if not _averages(module):
            return None
        source = source.all_input_nodes[0]
    return None


def _averages(module: nn.Module) -> bool:
    """True where every output is a mean of inputs, with weights that sum to one."""
    if isinstance(module, nn.AvgPool1d | nn.AvgPool2d | nn.AvgPool3d):
        padded = any(module.padding) if isinstance(module.padding, tuple) else module.padding
        return not padded and not module.ceil_mode and getattr(module, "divisor_override", None) is None
    return isinstance(module, (*AVERAGE_POOLS, nn.Upsample))


def _layer_after(graph: fx.GraphModule, node: fx.Node, context: Context) -> nn.Module | None:
    """The layer whose inputs `node` normalises (case 2)."""
    while len(node.users) == 1:
        node = next(iter(node.users))
        module = module_of(graph, node) if node.op == "call_module" else None
        if isinstance(module, nn.Linear):
            return module if _is_vector(graph, node, context) else None
        if isinstance(module, CONVOLUTIONS):
            pads = module.padding == "same" or (module.padding != "valid" and any(module.padding))
            return None if pads and module.padding_mode == "zeros" else module
        if not (isinstance(module, nn.Flatten) and module.start_dim == 1):
            return None
    return None


def _is_vector(graph: fx.GraphModule, node: fx.Node, context: Context) -> bool:
    """True where the value is `[B, C]`."""
    return _rank(graph, node, context) == 2


def _rank(graph: fx.GraphModule, node: fx.Node, context: Context) -> int:
    """Dimensions of a value. Where they rest on a guessed input, the network later takes inputs like it alone."""
    example = context.example(graph)
    if example is None:
        raise SnncError(f"the shape at '{node.name}' is unknown.", "--input-shape, such as --input-shape 3,32,32")
    return 1 + len(every_shape(graph, shape_of(example))[node])


def _affine(graph: fx.GraphModule, node: fx.Node, norm: Any, context: Context) -> Affine:
    """Case 3. The buffers broadcast over one sample, so the number of its dimensions must be known."""
    rank = {nn.BatchNorm2d: 2, nn.BatchNorm3d: 3}.get(type(norm))
    if rank is None:
        rank = _rank(graph, node, context) - 2
    kind = norm.running_var
    scale, shift = (v.to(kind).reshape(-1, *[1] * rank) for v in affine_of(norm))
    return Affine(scale, shift)
