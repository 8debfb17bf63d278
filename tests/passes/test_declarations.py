"""What passes say of themselves: it is true, the pipeline believes it, and no other file knows a pass by its name."""

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

import snnc
from snnc.calibrate.observe import watch
from snnc.errors import PassFailed, RecipeError
from snnc.ir.graph import Stage, calls
from snnc.ir.neurons import IF, BipolarIF, Neuron, SignedIF
from snnc.ir.temporal import StepCurrent
from snnc.passes import (
    PASSES,
    CalibrateBias,
    CalibrateWeights,
    EncodeInput,
    EncodeValues,
    EvenCurrents,
    FixedPoint,
    FoldBatchNorm,
    InsertNeurons,
    NormalizeThresholds,
    QuantizeActivations,
    ScaleThresholds,
    SetInitialPotential,
    TrainThresholds,
    UseGradedNeurons,
    UseSignedNeurons,
    WaitForInput,
)
from snnc.passes.base import Finding
from snnc.passes.pipeline import Context, Pass, Pipeline
from snnc.recipes import names, recipe
from tests.nets import folded, sample, spiking

PACKAGE = Path(snnc.__file__).parent


def values(graph, x):
    found = {}
    watch(graph, x, lambda node, value: found.update({node.name: value}))
    return found


PRODUCTS = {name: value for name, value in vars(Context).items() if isinstance(value, Finding)}
START = (FoldBatchNorm(), QuantizeActivations(), ScaleThresholds(), InsertNeurons())
every = pytest.mark.parametrize("one", PASSES.values(), ids=PASSES)


@pytest.mark.parametrize("name", PRODUCTS)
def test_every_product_has_a_pass_that_provides_it_and_one_that_reads_it(name):
    product = PRODUCTS[name]
    assert [one.name for one in PASSES.values() if product in one.provides] == sorted(
        set(product.providers) & set(PASSES), key=list(PASSES).index
    )
    assert set(product.providers) & set(PASSES)
    assert any(product in (*one.requires, *one.uses) for one in PASSES.values())
    assert repr(product) == f"Context.{name}"


@every
def test_a_pass_names_products_and_what_it_spoils_it_does_not_provide(one):
    named = (*one.requires, *one.uses, *one.provides, *one.spoils)
    assert set(named) <= set(PRODUCTS.values())
    assert not set(one.requires) & set(one.uses)
    assert not set(one.provides) & set(one.spoils)


def test_products_are_there_until_they_are_spoilt():
    """Each after the pass that provides it, as it says, and from the first pass of a run on none of an earlier one."""
    graph, shape = spiking("mlp")
    context = Context(T=4, calibration=[sample(shape, 8)])
    context.reference = graph
    before = []

    def see(one, graph, stage, record):
        before.append({product.name for product in context.products})

    plain, _ = folded("mlp")
    passes = (*START[:3], NormalizeThresholds(), InsertNeurons(), TrainThresholds())
    Pipeline(passes).run(plain, context, callbacks=(see,))
    found = {"moments", "statistics", "ceilings"}
    unit = {"moments", "ceilings"}
    assert before == [set(), {"moments"}, found, found, unit, {*unit, "reference"}, unit]


@dataclass(frozen=True)
class Sly(Pass):
    """Reads what it does not name."""

    name = "sly"
    takes = (Stage.SPIKING,)

    def apply(self, graph, context):
        return len(context.ceilings)


@dataclass(frozen=True)
class Meddler(Pass):
    """Sets what it does not name."""

    name = "meddler"
    takes = (Stage.SPIKING,)
    uses = (Context.ceilings,)

    def apply(self, graph, context):
        context.ceilings = {}
        return 0


@pytest.mark.parametrize(
    ("one", "words"), [(Sly(), "reads 'context.ceilings'"), (Meddler(), "sets 'context.ceilings'")]
)
def test_a_pass_that_hides_what_it_reads_or_sets_is_caught(one, words):
    graph, _ = spiking("mlp")
    context = Context(T=4)
    with pytest.raises(PassFailed, match=f"'{one.name}' failed: it {words} and does not say so"):
        Pipeline((one,)).run(graph, context, Stage.SPIKING)
    assert context.ceilings == {}  # nobody runs any more


def test_what_lacks_is_told_with_the_pass_that_would_provide_it():
    context = Context(T=4)
    with pytest.raises(RecipeError, match=r"no 'context.reference'.*Try: 'insert-neurons' before it"):
        _ = context.reference
    with pytest.raises(RecipeError, match=r"no 'context.statistics'.*Try: 'quantize-activations' before it"):
        _ = context.statistics
    assert context.find(Context.reference) is None
    with pytest.raises(TypeError):
        context.ceilings["relu"] = None  # what nobody has filled is no place to leave things in


def test_a_fork_has_the_same_products_and_changes_for_itself():
    context = Context(T=4)
    context.ceilings = {"a": None}
    other = context.fork(T=8)
    other.ceilings = {}
    assert (other.T, context.T, context.ceilings) == (8, 4, {"a": None})


# The order


@pytest.mark.parametrize(
    ("passes", "message", "hint"),
    [
        (
            (*START[:2], NormalizeThresholds(), ScaleThresholds(), InsertNeurons()),
            "'scale-thresholds' needs what each activation receives, and 'normalize-thresholds' before it",
            "'scale-thresholds' first, then 'normalize-thresholds'",
        ),
        (
            (*START, TrainThresholds(), CalibrateWeights()),
            "'calibrate-weights' needs the network before conversion, and 'train-thresholds' before it",
            "'calibrate-weights' first, then 'train-thresholds'",
        ),
        (
            (InsertNeurons(),),
            "'insert-neurons' takes a graph of stage QUANTIZED, and here the stage is ANN.",
            "'fold-batchnorm' and 'quantize-activations' before it",
        ),
        (
            (*START[:3], SetInitialPotential()),
            "takes a graph of stage SPIKING, and here the stage is QUANTIZED, which 'quantize-activations' gives.",
            "'insert-neurons' before it",
        ),
        (
            (*START, UseSignedNeurons(), EncodeInput()),
            "'encode-input' takes a graph of stage QUANTIZED, and here the stage is SPIKING, which 'insert-neurons'",
            "'encode-input' first, then 'insert-neurons'",
        ),
        (
            (*START, FixedPoint(), CalibrateBias()),
            "here the stage is FIXED, which 'fixed-point' gives.",
            "'calibrate-bias' first, then 'fixed-point'",
        ),
        ((FoldBatchNorm(), *START), "here the stage is FOLDED, which 'fold-batchnorm' gives", "'fold-batchnorm' once"),
    ],
)
def test_orders_that_cannot_work(passes, message, hint):
    with pytest.raises(RecipeError) as refused:
        Pipeline(passes).check()
    assert message in refused.value.message
    assert refused.value.hint == hint


@pytest.mark.parametrize(
    ("passes", "stage", "message", "hint"),
    [
        ((ScaleThresholds(),), Stage.QUANTIZED, "which 'quantize-activations' provides, and", "before it"),
        (
            (EvenCurrents(),),
            Stage.SPIKING,
            "which 'insert-neurons' provides, and that does not come before",
            "before it",
        ),
        ((FoldBatchNorm(),), Stage.SPIKING, "takes a graph of stage ANN", "a graph of stage ANN"),
    ],
)
def test_a_run_from_the_middle_needs_what_went_before(passes, stage, message, hint):
    with pytest.raises(RecipeError) as refused:
        Pipeline(passes).check(stage)
    assert message in refused.value.message
    assert refused.value.hint.endswith(hint)


def test_what_a_context_has_already_counts():
    pipeline = Pipeline((CalibrateBias(),))
    assert pipeline.check(Stage.SPIKING, {Context.reference}) == [Stage.SPIKING]
    with pytest.raises(RecipeError):
        pipeline.check(Stage.SPIKING, {Context.ceilings})


def test_a_product_that_comes_too_late():
    @dataclass(frozen=True)
    class Early(Pass):
        name = "early"
        takes = (Stage.QUANTIZED,)
        requires = (Context.input_range,)

    with pytest.raises(
        RecipeError, match=r"which 'encode-input' provides.*after it.*'encode-input' first, then 'early'"
    ):
        Pipeline((*START[:3], Early(), EncodeInput())).check()


@pytest.mark.parametrize("name", names())
def test_every_recipe_stands(name):
    assert recipe(name).pipeline.check()[-1] is Stage.SPIKING


# Neurons


@every
@pytest.mark.parametrize("T", [1, 4])
def test_neurons_and_currents_are_what_the_pass_says(one, T):
    """Of what gives or takes a spiking network: every model of neuron, and whether single steps have currents."""
    made = one()
    if Stage.SPIKING not in (made.gives, *made.takes):
        assert (made.neuron, made.changes_steps(T)) == (None, False)
        assert made.spikes == ("signed" if one is EncodeValues else None)  # its encoders
        return
    graph, shape = folded("conv")
    passes = START[1:] if one is InsertNeurons else (*START[1:], made)
    done = Pipeline(passes).run(graph, Context(T=T, calibration=[sample(shape, 8)]), Stage.FOLDED).graph
    neurons = {type(neuron) for _, neuron in calls(done, Neuron)}
    kind = made.neurons(T) or IF
    assert neurons <= {kind, IF}  # what waits does so where there is something to wait for
    assert kind in neurons
    assert made.spikes in (None, kind.spikes)
    for _, neuron in calls(done, kind):
        least, most = neuron.reach()
        assert kind.spikes == ("signed" if least < 0 else "graded" if most > 1 else "binary")
    assert any(calls(done, StepCurrent)) == made.changes_steps(T)


def test_pipelines_know_their_spikes():
    assert recipe("best-signed").pipeline.spikes == "signed"
    assert recipe("graded").pipeline.spikes == "graded"
    assert recipe("cos").pipeline.spikes == "binary"
    assert recipe("graded").pipeline.insert(WaitForInput()).spikes == "binary"  # the last one decides
    assert Pipeline(START[:2]).spikes is None
    assert recipe("opi").pipeline.insert(EncodeValues(), before="insert-neurons").spikes == "signed"
    assert UseSignedNeurons(bits=2).neurons(4) is BipolarIF
    assert Pipeline(START[:2]).chosen(4) is None
    one, kind = Pipeline((*START, UseSignedNeurons(), SetInitialPotential())).chosen(4)
    assert (one, kind) == (UseSignedNeurons(), SignedIF)
    assert Pipeline((*START, WaitForInput(1))).chosen(1)[1] is IF


@pytest.mark.parametrize(
    "one", [NormalizeThresholds(), UseGradedNeurons(), SetInitialPotential()], ids=lambda one: one.name
)
def test_units(one):
    """Whether a layer gives the same currents as before, and neurons the same mean output, up to quantisation."""
    graph, shape = folded("mlp")
    x = sample(shape, 64)
    assert TrainThresholds.changes_units == "spikes"
    passes = list(START[1:])
    passes.insert(2 if one.takes[0] is Stage.QUANTIZED else 3, one)
    plain, made = (
        Pipeline(tuple(p)).run(graph, Context(T=8, calibration=[x]), Stage.FOLDED).graph for p in (START[1:], passes)
    )
    ratios = {}
    for kind, name in (("currents", "fc1"), ("spikes", "relu1")):
        a, b = (values(done, x)[name].mean(0) for done in (plain, made))
        ratios[kind] = (b / a)[a.abs() > 0.05]
    moved = {kind for kind, ratio in ratios.items() if float((ratio - 1).abs().max()) > 0.2}
    assert moved == {"": set(), "currents": {"currents", "spikes"}}[one.changes_units]


# Names


def test_no_other_file_knows_a_pass_by_its_name():
    """Only the pass itself spells its name as a text of its own; sentences for users may hold it."""
    found = [
        (path.relative_to(PACKAGE).as_posix(), node.value)
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in PASSES
    ]
    assert sorted(name for _, name in found) == sorted(PASSES)
    assert all(path == f"passes/{name.replace('-', '_')}.py" for path, name in found)
