"""Spikes of either sign, wherever a value that is no spike meets weights or a product."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import networkx as nx
from torch import Tensor, fx, nn

from snnc.calibrate.observe import histograms_of
from snnc.ir.curved import BILINEAR, CURVED, MatMul
from snnc.ir.dialect import MAX_POOLS, WEIGHTED, ClipQuant, SignedQuant
from snnc.ir.graph import Stage, calls, insert, module_of, view
from snnc.ir.neurons import Spikes
from snnc.ir.neurons.graded import MAX_BITS
from snnc.ir.shapes import every_shape
from snnc.passes.pipeline import Context, Pass

ENCODED: dict[str, tuple[type[nn.Module], ...]] = {"all": BILINEAR, "matrix": (MatMul,), "none": ()}
LAST = "last"  # thresholds of a value that a linear layer reads: one a feature, the last dimension


@dataclass(frozen=True)
class EncodeValues(Pass):
    """Puts a `SignedQuant` where a curved operation's value meets weights, or a matrix product that no spikes meet in.

    `insert-neurons` makes an encoder of it: a neuron whose spikes have either sign and up to `2^bits - 1` units, and
    follow the value as it changes from step to step. So weights and matrix products are driven by spikes. What stays
    dense at each step are the curved operations themselves, products of two values number by number (gates) among
    them: an encoder saves no arithmetic where each number is multiplied once, and costs accuracy.

    The bound of each channel, or of each feature of a value that a linear layer reads, is that of least mean square
    error of rounding at constant input, from one sweep over the calibration data: `units * T` levels on either side.

    What only the network's last weights read stays as it is: they act once, on the mean over time.

    Options:
        bits: of a spike besides its sign; 1 is ternary.
        per: one bound a "channel" or a "layer". Factors of a matrix product have one a layer, or a head.
        products: whose factors are encoded too: "all", "matrix" alone, or "none"; other products are dense.
        factor: multiplies every bound.
    """

    name = "encode-values"
    takes = (Stage.QUANTIZED,)
    source = "signed multi-threshold encoders of DCGS and ECMT; bounds: Li et al., ICML 2021 (arXiv 2106.06984)"

    bits: int = 1
    per: Literal["channel", "layer"] = "channel"
    products: Literal["all", "matrix", "none"] = "matrix"
    factor: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("bits", 1 <= self.bits <= MAX_BITS, f"1..{MAX_BITS}")
        self.require("factor", 0 < self.factor < math.inf, "a number above 0, such as 1")

    @property
    def spikes(self) -> Spikes:
        return "signed"

    def apply(self, graph: fx.GraphModule, context: Context) -> int:
        places = self._places(graph)
        if not places:
            return 0
        batches = context.data(f"Pass '{self.name}'")
        shapes = every_shape(graph, batches[0].shape[1:])
        axes = {source: _axis(graph, users, 1 + len(shapes[source])) for source, users in places.items()}
        units = 2**self.bits - 1

        def look(node: fx.Node, value: Tensor) -> Tensor:
            return (value.movedim(-1, 1) if axes[node] == LAST else value).abs()

        names = {source: [source.name] for source in places}
        found = histograms_of(graph, names, context.track(batches, "observing values"), look)
        for source, users in places.items():
            histogram = found[source.name]
            per = "layer" if axes[source] is None else self.per
            bound = (histogram.mse(units * context.T, 0.5, per) * self.factor).float()
            # A single number stands for a layer; features of the last dimension need no further ones behind.
            deep = 0 if axes[source] == LAST else histogram.rank
            lam = bound[0].clone() if len(bound) == 1 else bound.reshape(-1, *[1] * deep)
            node = insert(graph, f"{source.name}_code", SignedQuant(lam, units * context.T, units), source)
            for user in users:
                user.replace_input_with(source, node)
        return len(places)

    def _places(self, graph: fx.GraphModule) -> dict[fx.Node, list[fx.Node]]:
        """Values to be encoded, each with what reads it as spikes."""
        heavy = [node for node, _ in calls(graph, *WEIGHTED, *BILINEAR)]
        net = view(graph)
        last = {node for node in heavy if not nx.descendants(net, node) & set(heavy)}
        made = _origins(graph)
        places: dict[fx.Node, list[fx.Node]] = {}
        spared: dict[fx.Node, list[fx.Node]] = {}
        for node in heavy:
            dense = {"curved", "current"} if isinstance(module_of(graph, node), BILINEAR) else {"curved"}
            encoded = isinstance(module_of(graph, node), (*WEIGHTED, *ENCODED[self.products]))
            for source in node.all_input_nodes:
                if made[source] & dense and (encoded or node in last):
                    (spared if node in last else places).setdefault(source, []).append(node)
        if not places and not any(True for _ in calls(graph, ClipQuant, SignedQuant)):
            return spared  # there would be no neuron at all
        return places


def _origins(graph: fx.GraphModule) -> dict[fx.Node, set[str]]:
    """What each value is made of: "spikes", "curved" values, "current" of weights, the "input", or several of these."""
    found: dict[fx.Node, set[str]] = {}
    for node in graph.graph.nodes:
        module = module_of(graph, node) if node.op == "call_module" else None
        if module is None:
            found[node] = {"input"}
        elif isinstance(module, (ClipQuant, SignedQuant)):
            found[node] = {"spikes"}
        elif isinstance(module, WEIGHTED):
            found[node] = {"current"}
        elif isinstance(module, CURVED) and not isinstance(module, MAX_POOLS):
            found[node] = {"curved"}
        else:
            found[node] = set().union(*(found[source] for source in node.all_input_nodes))
    return found


def _axis(graph: fx.GraphModule, users: list[fx.Node], rank: int) -> str | int | None:
    """Where thresholds differ: `LAST`, dimension 1, or nowhere."""
    kinds = [module_of(graph, user) for user in users]
    if rank > 2 and all(isinstance(kind, nn.Linear) for kind in kinds):
        return LAST
    if any(isinstance(kind, nn.Linear) for kind in kinds) and rank > 2:
        return None
    if rank == 3 and any(isinstance(kind, BILINEAR) for kind in kinds):
        return None  # dimension 1 of such a value holds tokens
    return 1
