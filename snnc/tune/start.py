"""What training starts from: the conversion, opened, with normalisations behind its layers."""

from __future__ import annotations

import itertools
from dataclasses import replace

import torch
from torch import Tensor, fx

from snnc.ir.dialect import ACTIVATIONS
from snnc.ir.graph import Stage, calls
from snnc.passes import CalibrateReadout, CalibrateWeights, DelayReadout, FoldBatchNorm
from snnc.passes.pipeline import Context, Pipeline, Result
from snnc.recipes import Recipe, recipe
from snnc.tune import norms
from snnc.tune.forward import ByRate, Forward, InTime, Quantised
from snnc.tune.options import TuneOptions


def until_quantised(pipeline: Pipeline) -> Pipeline:
    """The passes of a recipe before the one that inserts neurons."""
    return Pipeline(tuple(itertools.takewhile(lambda one: one.gives is not Stage.SPIKING, pipeline)))


def default(graph: fx.GraphModule) -> Recipe:
    """The recipe that training starts from where none is named.

    A delayed readout is left out of it: training teaches the first steps to count, and fewer steps that are read are
    fewer levels. So is the correction of weights by what neurons emit: training does that better, and with norms of its
    own ends a point lower where it begins there.
    """
    if not any(calls(graph, *ACTIVATIONS)):
        return recipe("qcfs")
    plain = (
        recipe("best").remove(DelayReadout.name).remove(CalibrateReadout.name).set(CalibrateWeights.name, feedback=0)
    )
    return replace(plain, name="best, all steps read")


def folded(graph: fx.GraphModule, batches: list[Tensor]) -> fx.GraphModule:
    """The original network without batch normalisation: its layers have the names that they have in the conversion."""
    shape = tuple(batches[0].shape[1:])
    context = Context(T=1, calibration=[*batches], input_shape=shape)
    result: Result = Pipeline((FoldBatchNorm(),)).run(graph, context)
    return result.graph


def forward_of(graph: fx.GraphModule, options: TuneOptions) -> Forward:
    """The forward pass that the options ask for, over an opened graph."""
    if options.kind == "quantised":
        return Quantised(graph)
    kind = ByRate if options.gradient == "rate" else InTime
    return kind(graph, options.surrogate)


@torch.no_grad()
def akin(graph: fx.GraphModule, original: fx.GraphModule, x: Tensor, options: TuneOptions) -> bool:
    """Whether the values of two networks have the same shapes wherever they have the same name.

    Args:
        graph: an opened graph.
        original: the network that it may have come from.
        x: a batch.
        options: those that training has.
    """
    found: list[dict[str, torch.Size]] = []
    for forward in (forward_of(graph, options), Forward(original)):
        shapes: dict[str, torch.Size] = {}
        forward.see = lambda node, value, shapes=shapes: shapes.update({node.name: value.shape[1:]})
        forward.run(x)
        found.append(shapes)
    one, other = found
    return all(one[name] == other[name] for name in one.keys() & other.keys())


@torch.no_grad()
def normalise(
    graph: fx.GraphModule, original: fx.GraphModule | None, batches: list[Tensor], options: TuneOptions
) -> None:
    """Puts normalisations into an opened graph. In place.

    With norms "own" they give each layer's output the moments that it has; with "original" those that it has in the
    original network, so that whatever the coarse activations before it took away or added is made up for.
    """
    if options.norms == "none":
        return
    found, dims = norms.moments(forward_of(graph, options), batches)
    sites = {node.name for node in norms.sites(graph, dims)}
    own = {name: found[name] for name in sites}
    norms.added(graph, own)
    if options.norms == "original" and original is not None:
        wanted, _ = norms.moments(Quantised(folded(original, batches)), batches)
        norms.aim(graph, {name: wanted[name] for name in sites if name in wanted})
