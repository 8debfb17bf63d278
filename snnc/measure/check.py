"""`snnc.check`: whether a network converts, and what an engineer wants to know before it is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from torch import fx, nn

from snnc.api import single
from snnc.capture import captured, in_order, told_shape
from snnc.errors import Blocker, SnncError, Unsupported
from snnc.ir.accounting import Share, share
from snnc.ir.curved import BENT
from snnc.ir.dialect import ACTIVATIONS, WEIGHTED, ClipQuant
from snnc.ir.graph import Stage, calls, entries
from snnc.ir.shapes import every_shape
from snnc.markup import listed, table
from snnc.measure.cost import Estimate, estimate
from snnc.measure.entry import Wanted, entry
from snnc.measure.rough import entered, rough
from snnc.measure.suits import known, reduced_candidates, suits
from snnc.networks.base import SpikingNetwork
from snnc.networks.staged import Staged
from snnc.recipes import Recipe, recipe
from snnc.recipes.contest import contenders
from snnc.recipes.default import REASONS, default_recipe
from snnc.steady import steady
from snnc.structure import told

if TYPE_CHECKING:
    import onnx
    from torch.export import ExportedProgram

    from snnc.backends.nir.fit import Suitability

T, SAMPLES = 8, 512  # what `snnc.compile` takes where nothing is said


@dataclass(frozen=True)
class Taken:
    """The recipe that is taken where none is named.

    Attributes:
        calibration: whether there is calibration data.
        recipe: by name.
        why: that one.
        estimate: what it takes; None where no shape of a sample is known.
        share: of the multiply-accumulates, which spikes will drive; None where that cannot be told without data.
    """

    calibration: bool
    recipe: str
    why: str
    estimate: Estimate | None
    share: Share | None


@dataclass(frozen=True)
class Check:
    """What `snnc.check` found. Prints as sentences; true where the network converts.

    Attributes:
        blockers: everything that keeps the network from being converted.
        input: what it wants to be given; like the rest None or empty where it does not convert.
        layers: layers with weights, by class.
        activations: by class.
        parameters: numbers in all layers.
        neurons: values of one sample at all activations, each of which becomes a neuron; None where no shape is known.
        recipes: what is taken with calibration data and without.
        compared: with what the graph was compared, and how far they are apart: see `snnc.capture.doors.Captured`.
        fit: how it suits the target that was asked for; None where none was.
    """

    blockers: list[Blocker]
    input: Wanted | None = None
    layers: Mapping[str, int] | None = None
    activations: Mapping[str, int] | None = None
    parameters: int | None = None
    neurons: int | None = None
    recipes: tuple[Taken, ...] = ()
    compared: Mapping[str, Any] | None = None
    fit: Suitability | None = None

    @property
    def converts(self) -> bool:
        """Whether nothing stands in the way."""
        return not self.blockers

    def __bool__(self) -> bool:
        return self.converts

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        found = asdict(self)
        return {"converts": self.converts, **({"stage": str(Stage.ANN)} if self.converts else {}), **found}

    def __str__(self) -> str:
        if self.blockers:
            lines = [f"{len(self.blockers)} thing{'s' * (len(self.blockers) > 1)} in the way:"]
            return "\n".join([*lines, *(f"- {one} Try: {one.hint}." for one in self.blockers)])
        return "\n".join(["It converts.", *sentences(self.to_dict())])

    def _repr_html_(self) -> str:
        if self.blockers:
            rows = [(one.node, one.op, one.where, one.why, one.hint) for one in self.blockers]
            return table("What keeps it from being converted", ("node", "op", "line", "why", "try"), rows)
        return table("It converts", ("", ""), [one.split(": ", 1) for one in sentences(self.to_dict())])


@steady()
def check(
    model: nn.Module | ExportedProgram | onnx.ModelProto | Staged, input_shape: Any = None, target: str | None = None
) -> Check:
    """Says whether a network converts; if not, everything that stands in the way.

    Args:
        model: as `snnc.compile` takes it. It is not changed.
        input_shape: shape of one sample, without the batch, where nothing else tells it; of several inputs one each.
        target: a simulator or chip that is to run it, by name, such as "sinabs": `fit` then says what does not fit.

    Raises:
        SnncError: the model is a spiking network already; or there is no such target, and with one, no shape.
        Unsupported: it could not be read at all.
        LoadError: an ONNX model is malformed.
    """
    if isinstance(model, SpikingNetwork):
        raise SnncError("The model is a spiking network already.", "the ANN that it came from")
    model = single(model)
    if target is not None:
        known(target)
    try:
        read = captured(model, input_shape)
    except Unsupported as problem:
        if not problem.blockers:  # nothing of it could be read
            raise
        return Check(list(problem.blockers))
    graph = read.graph
    own = model.input_shape if isinstance(model, Staged) else None
    names = [str(node.target) for node in entries(graph)]
    wanted = entry(graph, own or told_shape(model), in_order(input_shape, names))
    shapes = None if wanted.shape is None else every_shape(graph, wanted.shape)
    spiking = [node for node, _ in calls(graph, *ACTIVATIONS, ClipQuant)]
    return Check(
        [],
        wanted,
        tally(graph, WEIGHTED),
        tally(graph, (*ACTIVATIONS, ClipQuant, *BENT)),
        sum(value.numel() for value in graph.parameters()),
        None if shapes is None else sum(math.prod(shapes[node]) for node in spiking),
        tuple(_choice(graph, shapes, data) for data in (True, False)),
        read.compared,
        None if target is None else _fit(graph, shapes, target),
    )


def _fit(graph: fx.GraphModule, shapes: dict[fx.Node, tuple[int, ...]] | None, target: str) -> Suitability:
    if shapes is None:
        raise SnncError(
            f"Whether the network suits '{target}' depends on the shape of its input, and nothing told it.",
            "--input-shape, such as --input-shape 3,32,32 (input_shape= in Python)",
        )
    (first, *_) = reduced_candidates(graph, target, T, entered(graph, shapes), True)
    return suits(graph, shapes, first, T, target)


def tally(graph: fx.GraphModule, kinds: tuple[type[nn.Module], ...]) -> dict[str, int]:
    """How many modules of `kinds` a graph calls, by class."""
    return dict(Counter(type(module).__name__ for _, module in calls(graph, *kinds)))


def _choice(graph: fx.GraphModule, shapes: dict[fx.Node, tuple[int, ...]] | None, data: bool) -> Taken:
    name = default_recipe(graph, data)
    found = recipe(name)
    told = shapes is not None and (data or not found.needs_data)
    cost = estimate(graph, shapes, found, T, SAMPLES) if told and shapes else None
    part = _share(graph, shapes, found) if told and shapes else None
    why = REASONS[name] if data or not found.needs_data else f"it will ask for calibration data, since {REASONS[name]}"
    if data and len(several := contenders(graph)) > 1:
        why = f"the first of {', '.join(several)}, which are tried on the data"
    return Taken(data, name, why, cost, part)


def _share(graph: fx.GraphModule, shapes: dict[fx.Node, tuple[int, ...]], chosen: Recipe) -> Share | None:
    """What spikes will drive."""
    try:
        made = rough(graph, shapes, chosen).graph
        return share(made, every_shape(made, entered(graph, shapes)))
    except SnncError:
        return None


def sentences(found: Mapping[str, Any]) -> list[str]:
    """What was found of a network that converts, `KEY: TEXT` each, from `Check.to_dict()`."""
    wanted, lines = found["input"], []
    if wanted["shape"] is None:
        lines.append("Input: of a shape that nothing tells; --input-shape, or input_shape= in Python")
    else:
        size = told(wanted["shape"])
        more = f", {wanted['layout']}" if wanted["layout"] else ""
        such = " or other sizes, which --input-shape tells" if wanted["told_by"] == "a guess" else ""
        lines.append(f"Input: samples of shape {size}{such}{more}")
    lines.append(f"Values: {wanted['values'] or 'as in training; the network does not say how they were normalised'}")
    lines.append(f"Layers with weights: {listed(found['layers'])}; {found['parameters']:,} parameters")
    many = "" if found["neurons"] is None else f"; {found['neurons']:,} neurons"
    lines.append(f"Activations: {listed(found['activations'])}{many}")
    for one in found["recipes"]:
        when = "With calibration data" if one["calibration"] else "Without"
        lines.append(f"{when}: recipe {one['recipe']} ({one['why']}){_cost(one['estimate'])}")
        if one["share"]:
            lines.append(f"{when}, arithmetic: {Share(**one['share'])}")
    return lines


def _cost(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    on = f" on {found['samples']} samples" if found["samples"] else ""
    return f"; compiling takes {_time(found['seconds'])} and {_memory(found['bytes'])}, at T = {found['T']}{on}"


def _time(seconds: float) -> str:
    """A duration as one would say it."""
    if seconds < 5:
        return "a few seconds"
    for unit, size, least in (("seconds", 1, 0), ("minutes", 60, 100), ("hours", 3600, 5400)):
        if seconds >= least:
            told = f"about {_rounded(seconds / size):,.0f} {unit}"
    return told


def _memory(count: float) -> str:
    return f"{count / 1e9:.1f} GB"


def _rounded(value: float) -> float:
    """A number of one digit, or of two where it begins with 1."""
    digits = 10 ** max(0, len(str(int(value))) - (2 if str(int(value)).startswith("1") else 1))
    return round(value / digits) * digits
