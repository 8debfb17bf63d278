"""Spikes for the input itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import fx

from snnc.errors import DataError, SnncError
from snnc.ir.dialect import Affine, ClipQuant, Concat
from snnc.ir.graph import Stage, entries, insert, module_of
from snnc.ir.whole import places
from snnc.passes.pipeline import Context, Pass
from snnc.structure import each

ROUNDING = 1e-5  # how far pixels may lie outside of [0, 1]


@dataclass(frozen=True)
class EncodeInput(Pass):
    """Puts a `ClipQuant` on the input, from 0 to 1 in T levels, so that the network is fed with spikes.

    `insert-neurons` makes a neuron of it, as of any other: a pixel x becomes k = floor(T x) spikes in T steps, evenly
    spread, and all layers add up weights instead of multiplying. With `limit-range` behind it a pixel
    is k / N, with k = floor(N x), T at most; pixels above T / N saturate.

    The input must lie in [0, 1]: there is no negative spike. Calibration data is checked; where there is none, nothing
    is. An input that is quantised already is left as it is.

    No data needed. What it costs: the input has T + 1 values, and one more layer of neurons.
    """

    name = "encode-input"
    takes = (Stage.QUANTIZED,)
    uses = (Context.ceilings,)
    provides = (Context.ceilings, Context.input_range)
    source = "Yan, Zhou, Wong (arXiv 2211.08410), spike-coded input"

    def over_frames(self, T: int) -> Self | None:
        raise self.unframed("makes spikes of a picture that stays")

    def apply(self, graph: fx.GraphModule, context: Context) -> int:
        if len(entries(graph)) > 1 or places(graph):
            raise SnncError(
                "the network has several inputs, or one of whole numbers, and a pixel becomes spikes of one range.",
                "a recipe without encode-input, such as 'best'",
            )
        for x in (one for batch in context.calibration or () for one in each(batch)):
            if float(x.min()) < -ROUNDING or float(x.max()) > 1 + ROUNDING:
                raise DataError(
                    f"the calibration data goes from {float(x.min()):.3g} to {float(x.max()):.3g}, and spikes can only "
                    "stand for 0 to 1.",
                    "pixels over 255, and mean and deviation taken out inside the network "
                    "(nn.Sequential(Normalise(), net)), or a recipe without encode-input",
                )
        context.input_range = (0.0, 1.0)
        if encoder(graph):
            return 0
        if not context.calibration:
            context.notes.append("no data was seen: the input has to lie in [0, 1]")
        (source,) = entries(graph)
        users = list(source.users)
        node = insert(graph, f"{source.name}_spikes", ClipQuant(torch.tensor(1.0), context.T, 0.0), source)
        for user in users:
            user.replace_input_with(source, node)
        context.ceilings = {**context.ceilings, node.name: torch.tensor(1.0)}
        return 1


def encoder(graph: fx.GraphModule) -> fx.Node | None:
    """The `ClipQuant` through which alone the input is read, if there is one; factors and copies may lie between."""
    seen = [node for node in graph.graph.nodes if node.op == "placeholder"]
    found: set[fx.Node] = set()
    for node in seen:
        for user in node.users:
            module = module_of(graph, user) if user.op == "call_module" else None
            if isinstance(module, Affine | Concat):
                seen.append(user)
            elif isinstance(module, ClipQuant):
                found.add(user)
            else:
                return None
    return found.pop() if len(found) == 1 else None
