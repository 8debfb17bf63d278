"""Whether a network suits a simulator or a chip, and what it costs to make it do so."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from snnc.backends import NirFile
from snnc.checks import one_of
from snnc.errors import SnncError
from snnc.ir.graph import output
from snnc.ir.neurons import IF
from snnc.measure.rough import Shapes, rough
from snnc.networks.network import Network
from snnc.recipes import Recipe, recipe
from snnc.recipes.contest import contenders
from snnc.recipes.default import default_recipe
from snnc.structure import Samples, each

if TYPE_CHECKING:
    from snnc.backends.nir.fit import Suitability


@dataclass(frozen=True)
class LeftOut:
    """What the passes that a target cannot have would have brought, on calibration samples.

    Attributes:
        left_out: those passes.
        samples: how many.
        agreement: percentage of them whose class is the ANN's, of the network that is written.
        agreement_with: the same, of the network with those passes.
        accuracy, accuracy_with: the same beside the labels; None where there are none.
    """

    left_out: list[str]
    samples: int
    agreement: float
    agreement_with: float
    accuracy: float | None = None
    accuracy_with: float | None = None

    def __str__(self) -> str:
        passes = ", ".join(self.left_out)
        said = f"{self.agreement:.1f} % of {self.samples} calibration samples have the ANN's class"
        if self.accuracy is not None:
            said += f" and {self.accuracy:.1f} % the right one"
        with_ = f"{self.agreement_with:.1f} %"
        if self.accuracy_with is not None:
            with_ += f" and {self.accuracy_with:.1f} %"
        return f"Left out for the target: {passes}. {said}; with it {with_}."


def reduced(chosen: Recipe, T: int) -> tuple[Recipe, list[str]]:
    """A recipe without the passes that no NIR file can have, and their names.

    They choose other neurons than integrate-and-fire ones, or leave currents that change from step to step.
    """
    left_out = [one.name for one in chosen.pipeline if one.changes_steps(T) or one.neurons(T) not in (None, IF)]
    whole = chosen
    for name in left_out:
        chosen = chosen.remove(name)
    if left_out:
        chosen = replace(chosen, name=f"{whole.name} without {', '.join(left_out)}")
        chosen.pipeline.check()
    return chosen, left_out


def reduced_candidates(graph: fx.GraphModule, target: str, T: int, shape: Any, data: bool) -> list[Recipe]:
    """The recipes for a network where none is named, the first to be taken, as they were before `reduced`.

    Where a NIR file can carry the network of none, it is the default alone, and `suits` tells why.
    """
    first = default_recipe(graph, data)
    found = []
    for one in map(recipe, dict.fromkeys((first, *(contenders(graph) if data else ())))):
        with suppress(SnncError):
            NirFile(target).accept(reduced(one, T)[0].pipeline, T, graph, shape)
            found.append(one)
    return found or [recipe(first)]


def suits(graph: fx.GraphModule, shapes: Shapes, chosen: Recipe, T: int, target: str) -> Suitability:
    """How a network will suit a target, before any calibration.

    Args:
        graph: an ANN.
        shapes: of one sample of every value.
        chosen: the recipe, reduced or not.
        T: time steps.
        target: one of `snnc.backends.nir.targets.TARGETS`.

    Raises:
        SnncError: no such target, or the package nir is not installed.
        Unsupported: what concerns the network as a whole.
    """
    chosen, left_out = reduced(chosen, T)
    shape = shapes[next(node for node in graph.graph.nodes if node.op == "placeholder")]
    made = rough(graph, shapes, chosen, T)
    _, found = NirFile(target).drawn(
        Network(made.graph, {"input_shape": list(shape), "recipe": chosen.name}, stage=made.stage)
    )
    return replace(found, left_out=left_out)


@torch.no_grad()
def price(
    graph: fx.GraphModule, net: Network, whole: Network, left_out: list[str], x: Samples, y: torch.Tensor | None
) -> LeftOut | None:
    """What it cost to leave passes out; None where the output is no class scores.

    Args:
        graph: the ANN.
        net: the network that is written.
        whole: the network with those passes.
        left_out: their names.
        x: calibration samples.
        y: their labels, where there are some.
    """
    if not isinstance(output(graph).args[0], fx.Node):
        return None
    outputs = [graph(*each(x)), net(*each(x)), whole(*each(x))]
    if outputs[0].dim() != 2 or outputs[0].shape[1] < 2:
        return None
    ann, mine, theirs = (one.argmax(1) for one in outputs)
    told = [100 * float((one == ann).float().mean()) for one in (mine, theirs)]
    right = [None if y is None else 100 * float((one == y).float().mean()) for one in (mine, theirs)]
    return LeftOut(left_out, len(ann), told[0], told[1], right[0], right[1])


def known(target: str) -> str:
    """The name of a target.

    Raises:
        RecipeError: there is none of that name; names the nearest, or all.
    """
    from snnc.backends.nir.targets import TARGETS

    return one_of(target, TARGETS, "target")
