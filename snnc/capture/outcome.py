"""What a door gives: a graph, or what stands in its way; and what all doors do last."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from snnc.capture import constants
from snnc.capture.canonical import finish, remaining
from snnc.capture.comparison import HINT, Reference, compare, not_compared
from snnc.capture.layout import MOVED, Laid
from snnc.capture.lowering import Lowering, Site
from snnc.capture.values import LOST, PLAIN_HINT, SHAPE_HINT, Filled, Refused, Repeated
from snnc.errors import Blocker, Unsupported
from snnc.ir.graph import Stage, entries, validate
from snnc.ir.shapes import guess_input
from snnc.ir.whole import places
from snnc.structure import OUTPUT, Samples, Shape, fault, mapped, named

ALONE_HINT = "return what is computed from the input alone"
ONCE = "does not depend on the input, and is there once for the whole batch"
EACH_HINT = (
    "give it to every sample, as y.expand(x.shape[0], *y.shape), or leave it out; of an ONNX file "
    "onnx.utils.extract_model(path, new_path, inputs, outputs) keeps the outputs that are named"
)


@dataclass
class Outcome:
    """A graph, or what stands in its way; and what was compared."""

    graph: fx.GraphModule | None
    blockers: list[Blocker] = field(default_factory=list)
    compared: dict[str, Any] = field(default_factory=dict)

    def against(self, network: Callable[[], Reference], shape: Shape | None, samples: Samples | None) -> Outcome:
        """With the graph, if there is one, compared with its network."""
        if self.graph is None:
            return self
        if shape is None:
            return self._guessed(network)
        self.compared, wrong = compare(self.graph, network(), shape, samples)
        return self if wrong is None else Outcome(None, [wrong])

    def _guessed(self, network: Callable[[], Reference]) -> Outcome:
        """Compared on samples of some shape that graph and network take, if there is one."""
        assert self.graph is not None
        guess = guess_input(self.graph)
        if guess is not None:
            compared, wrong = compare(self.graph, network(), tuple(guess.shape[1:]))
            if compared["batches"]:  # the network takes samples of that shape
                self.compared = compared
                if wrong is not None and wrong.hint == HINT:  # the other door may see more
                    wrong = replace(wrong, hint=SHAPE_HINT)
                return self if wrong is None else Outcome(None, [wrong])
        self.compared = not_compared("no input shape is known, which --input-shape tells (input_shape= in Python)")
        return self


def blockers_of(error: Unsupported) -> list[Blocker]:
    """What an error lists, or the error itself as one."""
    return list(error.blockers) or [Blocker("network", "network", error.message.rstrip("."), error.hint)]


def _of_every_sample(lowering: Lowering, one: Any) -> Any:
    """A constant of every sample as a value of the graph, and anything else as it is."""
    at = Site(lowering, "output")
    if isinstance(one, Tensor | np.ndarray):
        one = torch.as_tensor(one)
        fixed = one.dim() > 0 and one.is_floating_point() and len(one) == lowering.batch and at.alike(one)
        one = Repeated(one[0]) if fixed else one
    if isinstance(one, Filled):
        one = Repeated(torch.full(one.sizes, one.number))
    return constants.value(at, one.sample) if isinstance(one, Repeated) else one


def ended(lowering: Lowering, result: Any, shape: Shape | None, rank: int | None) -> Outcome:
    """Looks up the output of a traced graph, then does what all doors do last."""
    found = list(lowering.blockers)
    value: Any = LOST
    try:
        if why := fault(result):
            raise Refused(why, PLAIN_HINT)
        value = lowering.load(result)
    except Refused as refused:
        found.append(Blocker("output", "output", refused.why, refused.hint))
    return checked_end(lowering, value, found, shape, rank)


def checked_end(lowering: Lowering, value: Any, found: list[Blocker], shape: Shape | None, rank: int | None) -> Outcome:
    """Checks the output, then what all doors do last."""
    with suppress(Refused):  # where nothing tells how the constants of every sample come in
        value = mapped(lambda one: _of_every_sample(lowering, one), value)
    parts = named(value)
    for name, one in parts.items():
        what = "output" if name == OUTPUT else f"'{name}'"
        if isinstance(one, Laid):
            found.append(Blocker(what, "output", *MOVED))
        elif not isinstance(one, fx.Node) and one is not LOST:
            found.append(Blocker(what, "output", ONCE, EACH_HINT if len(parts) > 1 else ALONE_HINT))
    if not parts:
        found.append(Blocker("output", "output", "holds no tensor", ALONE_HINT))
    if found or lowering.elsewhere:
        ends = tuple(node for node in lowering.build.graph.nodes if not node.users)
        rest = lowering.build.finish(lowering.stand_in(None, None, ends))
        return Outcome(None, found + [b for b in remaining(rest, rank) if b not in found])
    graph = lowering.build.finish(value)
    typed = {node.name for node in lowering.whole}
    unread = [node for node in entries(graph) if node.name in typed and node not in places(graph)]
    why = "holds whole numbers, and no embedding reads them"
    found += [
        Blocker(str(n.target), "input", why, "export it with float input, where its numbers tell amounts")
        for n in unread
    ]
    if found:
        return Outcome(None, found)
    try:
        found = finish(graph, shape, rank)
    except Unsupported as error:
        found = blockers_of(error)
    if found:
        return Outcome(None, found)
    validate(graph, Stage.ANN)
    return Outcome(graph)
