"""Passes, and the pipeline that runs them.

A pass is a frozen dataclass whose fields are its options: Python, recipes and the command line all build the
same object. `Pipeline.run` copies the graph once and then, for each pass, checks the stage, applies, tidies, verifies,
probes (exact passes only) and records.
"""

from __future__ import annotations

import copy
import logging
import time
import typing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor, fx

from snnc.checks import check_option, one_of
from snnc.errors import PassFailed, RecipeError, SnncError
from snnc.ir.dialect import ClipQuant
from snnc.ir.graph import Stage, tidy, verify
from snnc.ir.shapes import guess_input
from snnc.markup import records_table, table
from snnc.processes import APART, agree
from snnc.steady import steady

log = logging.getLogger(__name__)
Item = TypeVar("Item")
# A callback is called before the first pass (pass and record are None) and after each pass.
Callback = Callable[["Pass | None", fx.GraphModule, Stage, "Record | None"], None]

EXACT_TOLERANCE = 1e-4  # of the largest output; float32 folding stays well below it, a wrong fold does not


def no_progress(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """The progress reporter that reports nothing."""
    yield from items


@dataclass
class Context:
    """What passes may need besides the graph, and what they tell each other during one run.

    Attributes:
        T: time steps that the network will be read after.
        calibration: batches `[B, ...]` of unlabelled input, or None.
        input_shape: shape of one sample, where it is known.
        seed: seed of every random choice.
        track: wraps an iterable to show progress.
        statistics: what an observed or predicted pre-activation looks like, by node name
            (`snnc.calibrate.statistics.Statistics`); filled by `quantize-activations`, read by `scale-thresholds`.
        moments: mean and standard deviation `[C]` of a node's output as batch normalisation knew them;
            filled by `fold-batchnorm`.
        units: activations whose bound `normalize-thresholds` moved into the weights, by node name.
        ceilings: clip bound of every activation that became a `ClipQuant` (6 for ReLU6, infinity for ReLU), by node
            name, in the unit of the thresholds.
        reference: the network before conversion, node for node what the spiking graph was made from, in the unit of
            its thresholds; left by `insert-neurons`, read by the calibration passes.
        input_range: least and largest input that the network can tell, where a pass has limited it.
        notes: what the running pass wants its record to say.
    """

    T: int
    calibration: list[Tensor] | None = None
    input_shape: tuple[int, ...] | None = None
    seed: int = 0
    track: Callable[..., Iterator[Any]] = no_progress
    statistics: dict[str, Any] = field(default_factory=dict)
    moments: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    units: set[str] = field(default_factory=set)
    ceilings: dict[str, Tensor] = field(default_factory=dict)
    reference: fx.GraphModule | None = None
    input_range: tuple[float, float] | None = None
    notes: list[str] = field(default_factory=list)

    def example(self, graph: fx.GraphModule) -> Tensor | None:
        """A small input batch: real where there is data, random in a shape that the graph accepts elsewhere."""
        if self.calibration:
            return self.calibration[0][:4]
        if self.input_shape:
            return torch.randn((4, *self.input_shape), generator=torch.Generator().manual_seed(self.seed))
        return guess_input(graph)

    def times(self, steps: int | str) -> int:
        """An option that counts steps: a number, "T" or "2T"."""
        return {"T": self.T, "2T": 2 * self.T}[steps] if isinstance(steps, str) else steps

    def data(self, who: str) -> list[Tensor]:
        """The calibration batches.

        Raises:
            SnncError: there are none.
        """
        if not self.calibration:
            raise SnncError(
                f"{who} needs calibration data and got none.",
                "give some (--calib DATA, or calibration= in Python), or use the recipe 'data-free'",
            )
        return self.calibration


@dataclass(frozen=True)
class Record:
    """What one pass did.

    Attributes:
        name: the pass.
        options: its options.
        sites: places that it changed.
        stage: stage of the graph after it.
        seconds: how long it took.
        error: largest difference that an exact pass made on the probe batch, relative to the largest output;
            None where the pass does not claim to be exact or no probe could be had.
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
class Pass:
    """Base of all passes. A subclass adds its options as fields and writes `apply`.

    Class attributes:
        name: kebab-case name in recipes and on the command line.
        takes: stages that it accepts.
        gives: stage that it leaves, or None where the stage stays.
        exact: True where the graph stays the same function up to rounding; the pipeline then checks it.
        source: paper and equation.
    """

    name: ClassVar[str]
    takes: ClassVar[tuple[Stage, ...]]
    gives: ClassVar[Stage | None] = None
    exact: ClassVar[bool] = False
    source: ClassVar[str] = ""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for option in fields(self):
            check_option(self.name, option.name, hints[option.name], getattr(self, option.name))

    @property
    def options(self) -> dict[str, Any]:
        """Options by name."""
        return asdict(self)

    def require(self, option: str, fits: bool, wanted: str) -> None:
        """Refuses the value of an option that has the right type, but not the right size."""
        if not fits:
            raise RecipeError(f"Option '{option}' of '{self.name}' is {getattr(self, option)!r}.", wanted)

    def accept(self, stage: Stage) -> None:
        """Refuses a graph of a stage that the pass does not take."""
        if stage not in self.takes:
            raise RecipeError(
                f"'{self.name}' takes a graph of stage {' or '.join(self.takes)}, and here the stage is {stage}.",
                "another order of passes",
            )

    def apply(self, graph: fx.GraphModule, context: Context) -> int:
        """Changes `graph` in place; gives the number of sites that it changed."""
        raise NotImplementedError(f"{type(self).__name__}.apply")


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

    def stages(self, stage: Stage = Stage.ANN) -> list[Stage]:
        """The stage after each pass, from that of the graph it is given; nothing runs.

        Raises:
            RecipeError: a pass does not take the stage that it would find.
        """
        found = []
        for one in self.passes:
            one.accept(stage)
            stage = one.gives or stage
            found.append(stage)
        return found

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
            context: data, T and seed; filled with what passes tell each other.
            stage: stage of `graph`.
            callbacks: called before the first pass and after each one.

        Raises:
            PassFailed: a pass broke; names it and carries the records so far.
        """
        graph = copy.deepcopy(graph)
        verify(graph, stage)
        given = [(one.name, one.options) for one in self.passes]
        numbers = (*graph.state_dict().values(), *(context.calibration or ()))
        agree("was given other data, another network or other options", given, context.T, context.seed, *numbers)
        if stage is Stage.ANN:  # a new run: what an earlier one found out belongs to another graph
            for found in (context.statistics, context.moments, context.units, context.ceilings):
                found.clear()
            context.reference = context.input_range = None
        callbacks = tuple(callbacks)
        for callback in callbacks:
            callback(None, graph, stage, None)
        records: list[Record] = []
        for one in self.passes:
            try:
                record = _run_one(one, graph, stage, context)
            except Exception as error:
                raise PassFailed(one.name, error, tuple(records)) from error
            stage = record.stage
            records.append(record)
            log.info("%s: %d sites, stage %s, %.2f s", one.name, record.sites, stage, record.seconds)
            for callback in callbacks:
                callback(one, graph, stage, record)
        agree("came to another network", *graph.state_dict().values(), hint=APART)
        return Result(graph, stage, tuple(records))


class _Relaxed(fx.Interpreter):
    """Runs a graph with clipping in the place of clip-quantisation.

    Rounding can carry a value over the edge of a level, and a whole level is no rounding error.
    """

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        module = self.fetch_attr(target)
        if isinstance(module, ClipQuant):
            return torch.minimum(args[0].clamp_min(0), module.lam)
        return super().call_module(target, args, kwargs)


def _run_one(one: Pass, graph: fx.GraphModule, stage: Stage, context: Context) -> Record:
    one.accept(stage)
    probe = context.example(graph) if one.exact else None
    with torch.no_grad():
        before = _Relaxed(graph).run(probe) if probe is not None else None
        context.notes = []
        start = time.perf_counter()
        sites = one.apply(graph, context)
        seconds = time.perf_counter() - start
        tidy(graph)
        stage = one.gives or stage
        verify(graph, stage)
        error = None
        if before is not None:
            error = float((_Relaxed(graph).run(probe) - before).abs().max() / before.abs().max().clamp_min(1e-12))
            if not error <= EXACT_TOLERANCE:
                raise SnncError(
                    f"it says that it is exact, and changed the output by {error:.2e} of its largest value."
                )
    return Record(one.name, one.options, sites, stage, seconds, error, tuple(context.notes))
