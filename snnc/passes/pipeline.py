"""The pipeline that runs passes.

`Pipeline.run` checks the order of its passes before any of them runs. It copies the graph once and then, for each pass,
applies, tidies, verifies, probes (exact passes only) and records.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import torch
from torch import fx

from snnc.checks import one_of
from snnc.errors import DataError, PassFailed, RecipeError, SnncError
from snnc.ir.dialect import ClipQuant
from snnc.ir.graph import Stage, tidy, validate
from snnc.ir.neurons import Neuron, Spikes
from snnc.markup import records_table, table
from snnc.passes.base import Context, Finding, Pass, no_progress
from snnc.passes.order import check
from snnc.processes import APART, agree
from snnc.steady import steady
from snnc.structure import Tree, each, leaves

__all__ = ["Callback", "Context", "Pass", "Pipeline", "Record", "Result", "no_progress"]

log = logging.getLogger(__name__)
# A callback is called before the first pass (pass and record are None) and after each pass.
Callback = Callable[["Pass | None", fx.GraphModule, Stage, "Record | None"], None]

MANY_ROWS = 2**20  # samples times steps, below which no pass takes hours
MARGIN = 2**10  # below the largest number of a precision, for sums of many such numbers
EXACT_TOLERANCE = 1e-4  # of the largest output; float32 folding stays well below it, a wrong fold does not
ROUNDINGS = 16  # as many times what float32 itself is off, in networks where that is more


@dataclass(frozen=True)
class Record:
    """What one pass did.

    Attributes:
        name: the pass.
        options: its options.
        sites: places that it changed.
        stage: stage of the graph after it.
        seconds: how long it took.
        error: largest difference that an exact pass made on the probe batch, relative to the largest value of the
            output, of several outputs the largest of these; None where the pass does not claim to be exact or no probe
            could be had.
        notes: what the user should know.
    """

    name: str
    options: dict[str, Any]
    sites: int
    stage: Stage
    seconds: float
    error: float | None = None
    notes: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        return records_table(f"Pass {self.name}", [asdict(self)])


@dataclass(frozen=True)
class Result:
    """A graph, its stage, and the records of the passes that made it."""

    graph: fx.GraphModule
    stage: Stage
    records: tuple[Record, ...]

    def _repr_html_(self) -> str:
        return records_table(f"Graph of stage {self.stage}", [asdict(record) for record in self.records])


@dataclass(frozen=True)
class Pipeline:
    """An ordered list of passes. Immutable: every editing method gives a new one.

    Example:
        >>> pipeline = snnc.recipe("cos").pipeline
        >>> [p.name for p in pipeline.passes]
        >>> pipeline = pipeline.set("calibrate-offset", rho=8).remove("set-initial-potential")
        >>> result = pipeline.run(graph, snnc.Context(T=8, calibration=batches))
    """

    passes: tuple[Pass, ...]

    def __iter__(self) -> Iterator[Pass]:
        return iter(self.passes)

    def _repr_html_(self) -> str:
        rows = [(one.name, one.options, one.gives or "", one.source) for one in self.passes]
        return table(f"Pipeline of {len(rows)} passes", ("pass", "options", "gives", "source"), rows)

    def _index(self, name: str) -> int:
        names = [p.name for p in self.passes]
        return names.index(one_of(name, names, "pass in this pipeline"))

    def insert(self, new: Pass, *, before: str | None = None, after: str | None = None) -> Self:
        """With `new` before or after the named pass, or at the end."""
        if before is not None and after is not None:
            raise RecipeError(f"'{new.name}' cannot be inserted both before and after another pass.", "one of the two")
        place = len(self.passes)
        if before is not None:
            place = self._index(before)
        elif after is not None:
            place = self._index(after) + 1
        return replace(self, passes=(*self.passes[:place], new, *self.passes[place:]))

    def remove(self, name: str) -> Self:
        """Without the named pass."""
        place = self._index(name)
        return replace(self, passes=self.passes[:place] + self.passes[place + 1 :])

    def set(self, name: str, /, **options: Any) -> Self:
        """With options of the named pass changed."""
        place = self._index(name)
        old = self.passes[place]
        for option in options:
            one_of(option, old.options, f"option of '{name}'")
        new = replace(old, **options)
        return replace(self, passes=(*self.passes[:place], new, *self.passes[place + 1 :]))

    def check(self, stage: Stage = Stage.ANN, held: Collection[Finding[Any]] = ()) -> list[Stage]:
        """The stage after each pass, from that of the graph it is given; nothing runs.

        Args:
            stage: of the graph that it is given.
            held: products that a context has already.

        Raises:
            RecipeError: an order that cannot work; names the two passes and what to do.
        """
        return check(self.passes, stage, held)

    def over_frames(self, T: int) -> Self:
        """The pipeline for input that changes in time, without passes that have nothing to do there.

        Raises:
            RecipeError: a pass needs input that is constant in time.
        """
        kept = [one.over_frames(T) for one in self.passes]
        return replace(self, passes=tuple(one for one in kept if one is not None))

    def chosen(self, T: int) -> tuple[Pass, type[Neuron]] | None:
        """The pass that decides on the neurons, the last that chooses any, and what they are at T steps."""
        kinds = [(one, kind) for one in self.passes if (kind := one.neurons(T))]
        return kinds[-1] if kinds else None

    @property
    def spikes(self) -> Spikes | None:
        """What its neurons emit: "binary", "signed" or "graded"; None where it inserts none."""
        said = [one for one in self.passes if one.spikes]
        encoders = [one for one in said if not one.neuron]
        return (encoders or said)[-1].spikes if said else None

    @steady()
    def run(
        self,
        graph: fx.GraphModule,
        context: Context,
        stage: Stage = Stage.ANN,
        callbacks: Iterable[Callback] = (),
    ) -> Result:
        """Runs every pass on a copy of `graph`.

        Args:
            graph: a verified graph of `stage`.
            context: data, T and seed; filled with what passes hand to each other.
            stage: stage of `graph`.
            callbacks: called before the first pass and after each one.

        Raises:
            RecipeError: an order of passes that cannot work; nothing has run then.
            PassFailed: a pass broke; names it and carries the records so far.
        """
        if stage is Stage.ANN:  # a new run: what an earlier one found out belongs to another graph
            context.products.clear()
        self.check(stage, context.products)
        network = graph
        graph = copy.deepcopy(graph)
        validate(graph, stage)
        given = [(one.name, one.options) for one in self.passes]
        data = [one for batch in context.calibration or () for one in each(batch)]
        numbers = (*graph.state_dict().values(), *data)
        agree("was given other data, another network or other options", given, context.T, context.seed, *numbers)
        _warn(self.passes, graph, context)
        callbacks = tuple(callbacks)
        for callback in callbacks:
            callback(None, graph, stage, None)
        records: list[Record] = []
        for one in self.passes:
            try:
                record = _run_one(one, graph, stage, context)
            except Exception as error:
                blamed = None if isinstance(error, DataError) else _overflow(network, context)
                raise PassFailed(one.name, blamed or error, tuple(records)) from error
            stage = record.stage
            records.append(record)
            log.info("%s: %d sites, stage %s, %.2f s", one.name, record.sites, stage, record.seconds)
            for callback in callbacks:
                callback(one, graph, stage, record)
        agree("came to another network", *graph.state_dict().values(), hint=APART)
        return Result(graph, stage, tuple(records))


def _warn(passes: Iterable[Pass], graph: fx.GraphModule, context: Context) -> None:
    """Says what would run for hours, before it does."""
    rows = {one.name: one.rows(context) for one in passes}
    example = context.example(graph) if sum(rows.values()) > MANY_ROWS else None
    if example is None:
        return
    start = time.perf_counter()
    with torch.no_grad():
        graph(*each(example))
    hours = sum(rows.values()) * (time.perf_counter() - start) / len(example) / 3600
    if hours > 1:
        longest = max(rows, key=lambda name: rows[name])
        log.warning(
            "This will take about %.0f hours, most of them for '%s': fewer samples, rounds or steps take less.",
            hours, longest,
        )  # fmt: skip


def _overflow(network: fx.GraphModule, context: Context) -> DataError | None:
    """Calibration data that take the network itself to the end of its precision, for which no pass is to blame."""
    for batch in context.calibration or ():
        with torch.no_grad():
            found = leaves(network(*each(batch)))
        floats = [x for x in (*each(batch), *found) if x.is_floating_point()]
        largest = max((float(x.abs().max()) for x in floats if x.numel()), default=0.0)
        kind = found[0].dtype
        if not largest < torch.finfo(kind).max / MARGIN:
            return DataError(
                f"On the calibration data the network's own values reach {largest:.3g}, where"
                f" {str(kind).removeprefix('torch.')} ends.",
                "data in the range that the network was trained on",
            )
    return None


class _Relaxed(fx.Interpreter):
    """Runs a graph with clipping instead of clip-quantisation, in double precision where that is asked for.

    Rounding can carry a value over the edge of a level, and a whole level is more than a rounding error.
    """

    def __init__(self, graph: fx.GraphModule, double: bool = False) -> None:
        super().__init__(graph)
        self.double = double

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        module = self.fetch_attr(target)
        if isinstance(module, ClipQuant):
            return torch.minimum(args[0].clamp_min(0), module.lam)
        if not self.double:
            return module(*args)
        state = {k: v.double() for k, v in module.state_dict().items() if v.is_floating_point()}
        return torch.func.functional_call(module, state, args)


def _apart(after: Tree, before: Tree) -> float:
    """The largest difference of any output, relative to the largest value of that output."""
    pairs = zip(leaves(after), leaves(before), strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-12)) for a, b in pairs)


def _run_one(one: Pass, graph: fx.GraphModule, stage: Stage, context: Context) -> Record:
    probe = context.example(graph) if one.exact else None
    with torch.no_grad():
        before = _Relaxed(graph).run(*each(probe)) if probe is not None else None
        kept = copy.deepcopy(graph) if probe is not None else None
        context.notes = []
        start = time.perf_counter()
        context.running = one
        try:
            sites = one.apply(graph, context)
        finally:
            context.running = None
        for product in one.spoils:
            context.products.pop(product, None)
        seconds = time.perf_counter() - start
        tidy(graph)
        stage = one.gives or stage
        validate(graph, stage)
        error = None
        if kept is not None and probe is not None:
            error = _apart(_Relaxed(graph).run(*each(probe)), before)
            if not error <= EXACT_TOLERANCE:
                noise = _apart(before, _Relaxed(kept, double=True).run(*each(probe.double())))
                if not error <= ROUNDINGS * noise:
                    raise SnncError(
                        f"it says that it is exact, and changed the output by {error:.2e} of its largest value."
                    )
    return Record(one.name, one.options, sites, stage, seconds, error, tuple(context.notes))
