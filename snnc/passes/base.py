"""What a pass is, and what passes hand to each other.

A pass is a frozen dataclass whose fields are its options: Python, recipes and the command line all build the same
object. Its class says what it is, so that no other file knows a pass by its name: stages, neurons, units, and which
products of earlier passes it reads.

A product is a field of `Context`, and the field itself is the token that `requires`, `uses`, `provides` and `spoils`
hold. While a pass runs, a product that it does not name can be neither read nor set.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar, overload

from torch import Tensor, fx

from snnc.calibrate.statistics import Statistics
from snnc.checks import MOST, MOST_STEPS, check_option
from snnc.errors import RecipeError, SnncError
from snnc.ir.graph import Stage
from snnc.ir.neurons import Neuron, Spikes
from snnc.ir.shapes import guess_input
from snnc.ir.whole import noise
from snnc.structure import Samples, Shape

Item = TypeVar("Item")
V = TypeVar("V")
NOTHING: Mapping[str, Any] = MappingProxyType({})
GIVERS: dict[Stage, type[Pass]] = {}  # the pass that gives a stage, to be named where it lacks


def no_progress(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """The progress reporter that reports nothing."""
    yield from items


class Finding(Generic[V]):
    """A field of `Context` that passes fill and later passes read.

    Args:
        what: what it is, as a part of a sentence.
        empty: its value where no pass has filled it; without one there is nothing to read then.

    Attributes:
        name: of the field.
        providers: names of the passes that provide it.
    """

    def __init__(self, what: str, empty: V | None = None) -> None:
        self.what, self.empty = what, empty
        self.providers: list[str] = []

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, context: None, owner: type) -> Self: ...
    @overload
    def __get__(self, context: Context, owner: type) -> V: ...
    def __get__(self, context: Context | None, owner: type) -> Self | V:
        if context is None:
            return self
        value = context.find(self)
        if value is None:
            raise RecipeError(f"There is no 'context.{self.name}', {self.what}.", self.remedy)
        return value

    def __set__(self, context: Context, value: V) -> None:
        one = context.running
        if one is not None and self not in one.provides:
            raise SnncError(f"it sets 'context.{self.name}' and does not say so.", "the product in its `provides`")
        context.products[self] = value

    @property
    def remedy(self) -> str:
        """The passes that provide it, as a hint."""
        return f"{' or '.join(repr(name) for name in self.providers)} before it"

    def __repr__(self) -> str:
        return f"Context.{self.name}"


@dataclass
class Context:
    """What passes may need besides the graph, and what they hand to each other during one run.

    Attributes:
        T: time steps that the network will be read after.
        calibration: batches `[B, ...]` of unlabelled input, or None. Of several inputs each is a `Inputs`.
        input_shape: shape of one sample, where it is known; of several inputs one each.
        seed: seed of every random choice.
        track: wraps an iterable to show progress.
        memory: bytes that the process may hold while passes calibrate; None: what it holds, and half of what is free.
            No result depends on it.
        notes: what the running pass wants its record to say.
        running: the pass that runs, if one does.
        products: what passes have left, by field.
        moments: mean and standard deviation `[C]` of a node's output as batch normalisation knew them, by node name.
        statistics: what each activation receives, observed or predicted, by node name. Activations whose bound was
            trained have none.
        ceilings: clip bound of every activation that became a `ClipQuant` (6 for ReLU6, infinity for ReLU), by node
            name, in the unit of the thresholds.
        reference: the network before conversion, node for node what the spiking graph was made from, in the unit of
            its thresholds.
        input_range: least and largest input that the network can tell.
    """

    T: int
    calibration: list[Samples] | None = None
    input_shape: Shape | None = None
    seed: int = 0
    track: Callable[..., Iterator[Any]] = no_progress
    memory: float | None = None
    notes: list[str] = field(default_factory=list)
    running: Pass | None = field(default=None, init=False, repr=False)
    products: dict[Finding[Any], Any] = field(default_factory=dict, init=False, repr=False)

    moments = Finding[Mapping[str, tuple[Tensor, Tensor]]]("what batch normalisation knew of its outputs", NOTHING)
    statistics = Finding[Mapping[str, Statistics]]("what each activation receives")
    ceilings = Finding[Mapping[str, Tensor]]("the bounds that activations had before they were quantised", NOTHING)
    reference = Finding[fx.GraphModule]("the network before conversion")
    input_range = Finding[tuple[float, float]]("the range of the input")

    def __post_init__(self) -> None:
        if self.T > MOST_STEPS:
            raise RecipeError(f"T is {self.T}.", f"{MOST_STEPS} time steps at most, and 2 to 32 as a rule")

    def find(self, product: Finding[V]) -> V | None:
        """A product; what it is where no pass has filled it, which may be None."""
        one = self.running
        if one is not None and product not in (*one.requires, *one.uses, *one.provides):
            raise SnncError(f"it reads 'context.{product.name}' and does not say so.", "the product in its `uses`")
        found: V | None = self.products.get(product, product.empty)
        return found

    def fork(self, **changes: Any) -> Context:
        """Another context with the same products, which either may then change for itself."""
        other = replace(self, notes=[], **changes)
        other.products = dict(self.products)
        return other

    def example(self, graph: fx.GraphModule) -> Samples | None:
        """A small input batch: real where there is data, random in a shape that the graph accepts elsewhere."""
        if self.calibration:
            return self.calibration[0][:4]
        if self.input_shape:
            return noise(graph, 4, self.input_shape, self.seed)
        return guess_input(graph)

    def times(self, steps: int | str) -> int:
        """An option that counts steps: a number, "T" or "2T"."""
        return {"T": self.T, "2T": 2 * self.T}[steps] if isinstance(steps, str) else steps

    def seen(self, samples: int) -> int:
        """How many calibration samples a pass looks at that may look at `samples`."""
        return min(samples, sum(map(len, self.calibration or ())))

    def data(self, who: str) -> list[Samples]:
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
class Pass:
    """Base of all passes. A subclass adds its options as fields and writes `apply`.

    Class attributes:
        name: kebab-case name in recipes and on the command line.
        takes: stages that it accepts.
        gives: stage that it leaves, or None where the stage stays.
        exact: True where the graph stays the same function up to rounding; the pipeline then checks it.
        source: paper and equation.
        requires: products that it cannot do without; an earlier pass has to provide them.
        uses: products that it reads where they are there.
        provides: products that it leaves, new or in the place of the old ones.
        spoils: products that do not hold any more after it.
        neuron: the model that it puts in the place of all neurons, or None where they stay.
        changes_units: what is in another unit afterwards than in the ANN: "spikes", or "currents" and the spikes
            with them; empty where all is as it was.
    """

    name: ClassVar[str]
    takes: ClassVar[tuple[Stage, ...]]
    gives: ClassVar[Stage | None] = None
    exact: ClassVar[bool] = False
    source: ClassVar[str] = ""
    requires: ClassVar[tuple[Finding[Any], ...]] = ()
    uses: ClassVar[tuple[Finding[Any], ...]] = ()
    provides: ClassVar[tuple[Finding[Any], ...]] = ()
    spoils: ClassVar[tuple[Finding[Any], ...]] = ()
    neuron: ClassVar[type[Neuron] | None] = None
    changes_units: ClassVar[Literal["", "spikes", "currents"]] = ""

    def __init_subclass__(cls) -> None:
        for product in cls.__dict__.get("provides", ()):
            product.providers.append(cls.name)
        if stage := cls.__dict__.get("gives"):
            GIVERS.setdefault(stage, cls)

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for option in fields(self):
            check_option(self.name, option.name, hints[option.name], getattr(self, option.name), MOST)

    @property
    def options(self) -> dict[str, Any]:
        """Options by name."""
        return asdict(self)

    def require(self, option: str, fits: bool, wanted: str) -> None:
        """Refuses the value of an option that has the right type, but not the right size."""
        if not fits:
            raise RecipeError(f"Option '{option}' of '{self.name}' is {getattr(self, option)!r}.", wanted)

    def rows(self, context: Context) -> int:
        """About how many samples, times steps, it runs through the network: what makes a pass take hours."""
        return 0

    def neurons(self, T: int) -> type[Neuron] | None:
        """The model of neuron that it leaves at T steps with its options; None where neurons stay what they are."""
        return self.neuron

    @property
    def spikes(self) -> Spikes | None:
        """What neurons emit after it: "binary", "signed" or "graded"; None where that stays.

        A pass without a `neuron` that has them adds encoders, which emit these whatever other neurons do.
        """
        return self.neuron.spikes if self.neuron else None

    def over_frames(self, T: int) -> Self | None:
        """The pass where input changes in time; None if it has nothing to do there.

        Raises:
            RecipeError: it needs input that is constant in time.
        """
        kind = self.neurons(T)
        if kind and not kind.streaming:
            raise self.unframed("makes layers wait for later steps, and frames are read as they come")
        return self

    def unframed(self, why: str) -> RecipeError:
        """The refusal of input that changes in time; `why` goes on after the name."""
        return RecipeError(f"'{self.name}' {why}.", "a recipe that reads step by step: 'best', 'opi' or 'best-graded'")

    def changes_steps(self, T: int) -> bool:
        """Whether it may leave currents that change from step to step by themselves, in a network of T steps."""
        return False

    def apply(self, graph: fx.GraphModule, context: Context) -> int:
        """Changes `graph` in place; gives the number of sites that it changed."""
        raise NotImplementedError(f"{type(self).__name__}.apply")
