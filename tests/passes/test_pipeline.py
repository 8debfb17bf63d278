"""Pipelines: order, failure, probing, recording, editing; and the options of passes."""

import copy
from dataclasses import FrozenInstanceError, dataclass
from typing import ClassVar, Literal

import pytest
import torch
from torch import fx, nn

from snnc.checks import one_of
from snnc.errors import PassFailed, RecipeError, SnncError, VerifyError
from snnc.ir.dialect import ClipQuant
from snnc.ir.graph import GraphBuilder, Stage, calls, insert, module_of, replace
from snnc.passes import (
    CalibrateOffset,
    FoldBatchNorm,
    InsertNeurons,
    NormalizeThresholds,
    QuantizeActivations,
    ScaleThresholds,
    SetInitialPotential,
)
from snnc.passes.pipeline import EXACT_TOLERANCE, Context, Pass, Pipeline
from tests.nets import NETS, folded, quantized, sample

WHOLE = Pipeline((FoldBatchNorm(), QuantizeActivations(), ScaleThresholds(), InsertNeurons(), CalibrateOffset()))
ANY = tuple(Stage)


@dataclass(frozen=True)
class Nudge(Pass):
    """Says that it is exact, and moves a bias."""

    name = "nudge"
    takes = ANY
    exact = True

    by: float = 0.0

    def apply(self, graph: fx.GraphModule, context: Context) -> int:
        [m for _, m in calls(graph, nn.Linear)][-1].bias.data += self.by
        return 1


@dataclass(frozen=True)
class Do(Pass):
    """Base of passes that run any function on the graph."""

    name = "do"
    takes = ANY
    what: ClassVar = staticmethod(lambda graph, context: 0)

    def apply(self, graph: fx.GraphModule, context: Context) -> int:
        return self.what(graph, context)


def do(what: object, exact: bool = False) -> Pass:
    """A pass that does `what`."""
    return type("Done", (Do,), {"what": staticmethod(what), "exact": exact})()


@dataclass(frozen=True)
class Options(Pass):
    """One option of each kind."""

    name = "options"
    takes = ANY

    number: float = 0.5
    count: int = 1
    flag: bool = False
    text: str = "a"
    either: int | Literal["T"] = "T"
    rule: Literal["max", "mse"] = "max"
    maybe: str | None = None


def context(shape: tuple[int, ...], **more: object) -> Context:
    return Context(T=4, calibration=[sample(shape)], **more)


def test_a_whole_pipeline():
    """From ANN to SPIKING, one record a pass; the graph that was given is as it was."""
    graph, shape = NETS["residual"]()
    before = copy.deepcopy(graph)
    result = WHOLE.run(graph, context(shape))
    assert result.stage is Stage.SPIKING
    assert [r.name for r in result.records] == [p.name for p in WHOLE]
    assert [r.options for r in result.records] == [p.options for p in WHOLE]
    quantized, spiking = [Stage.QUANTIZED] * 2, [Stage.SPIKING] * 2
    assert [r.stage for r in result.records] == [Stage.FOLDED, *quantized, *spiking]
    assert [r.sites for r in result.records] == [5, 4, 4, 4, 4]
    assert [r.error is None for r in result.records] == [False, True, True, True, True]
    assert str(graph) == str(before)
    pairs = zip(graph.state_dict().values(), before.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert torch.equal(graph(sample(shape)), before(sample(shape)))


def test_an_empty_pipeline():
    graph, shape = NETS["mlp"]()
    result = Pipeline(()).run(graph, context(shape))
    assert result.graph is not graph
    assert (result.stage, result.records) == (Stage.ANN, ())


@pytest.mark.parametrize(
    ("passes", "place", "words"),
    [
        ((InsertNeurons(),), 0, "takes a graph of stage QUANTIZED, and here the stage is ANN"),
        ((QuantizeActivations(),), 0, "takes a graph of stage FOLDED, and here the stage is ANN"),
        ((FoldBatchNorm(), FoldBatchNorm()), 1, "takes a graph of stage ANN, and here the stage is FOLDED"),
        ((FoldBatchNorm(), SetInitialPotential()), 1, "takes a graph of stage SPIKING"),
        ((FoldBatchNorm(), QuantizeActivations(), InsertNeurons(), ScaleThresholds()), 3, "stage QUANTIZED, and here"),
    ],
)
def test_a_wrong_order(passes, place, words):
    """Named and explained before anything runs."""
    graph, shape = NETS["mlp"]()
    with pytest.raises(RecipeError, match=words) as failed:
        Pipeline(passes).run(graph, context(shape), callbacks=(lambda *given: pytest.fail("a pass ran"),))
    assert failed.value.message.startswith(f"'{passes[place].name}'")


def test_the_graph_must_be_of_the_stage_that_is_said():
    graph, shape = NETS["conv"]()
    with pytest.raises(VerifyError, match="'bn1' is a BatchNorm2d"):
        Pipeline((QuantizeActivations(),)).run(graph, context(shape), Stage.FOLDED)


def test_foreign_exceptions_are_wrapped():
    """By type and first line; torch.fx puts a traceback behind it."""

    def burst(graph, context):
        raise ZeroDivisionError("by nought\nand a long tail")

    graph, shape = NETS["mlp"]()
    with pytest.raises(PassFailed, match="Pass 'do' failed: ZeroDivisionError: by nought") as failed:
        Pipeline((FoldBatchNorm(), do(burst))).run(graph, context(shape))
    assert [r.name for r in failed.value.records] == ["fold-batchnorm"]
    assert isinstance(failed.value.__cause__, ZeroDivisionError)
    assert "--debug" in failed.value.hint
    assert "tail" not in str(failed.value)


def test_our_own_exceptions_keep_their_hint():
    def refuse(graph, context):
        raise SnncError("it cannot be.", "something else")

    graph, shape = NETS["mlp"]()
    with pytest.raises(PassFailed, match=r"Pass 'do' failed: it cannot be\. Try: something else"):
        Pipeline((do(refuse),)).run(graph, context(shape))


def test_a_pass_that_breaks_a_rule_is_caught():
    def mark(graph, context):
        next(m for _, m in calls(graph, nn.Linear)).train()
        return 1

    graph, shape = NETS["mlp"]()
    with pytest.raises(PassFailed, match="'fc1' is in training mode") as failed:
        Pipeline((do(mark),)).run(graph, context(shape))
    assert isinstance(failed.value.__cause__, VerifyError)


def test_what_a_pass_leaves_over_is_tidied():
    def litter(graph, context):
        insert(graph, "loose", nn.ReLU(), next(calls(graph))[0])
        return 1

    graph, shape = NETS["mlp"]()
    result = Pipeline((do(litter),)).run(graph, context(shape))
    assert result.graph.code == graph.code


# Probing of exact passes.


def test_an_exact_pass_that_lies_is_caught():
    graph, shape = NETS["conv"]()
    with pytest.raises(PassFailed, match=r"says that it is exact, and changed the output by \d"):
        Pipeline((Nudge(1.0),)).run(graph, context(shape))


def test_what_rounding_alone_explains_is_no_lie():
    """A mean of 65536 in front of a deviation of 2^-10: float32 itself is off by more than the tolerance."""
    torch.manual_seed(0)
    build = GraphBuilder()
    layer, norm = nn.Linear(3, 4), nn.BatchNorm1d(4, eps=0.0)
    layer.bias.data.fill_(65536.0)
    norm.running_mean.fill_(65536.0)
    norm.running_var.fill_(2.0**-20)
    x = build.call("relu", nn.ReLU(), build.call("norm", norm, build.call("layer", layer, build.input())))
    (record,) = Pipeline((FoldBatchNorm(),)).run(build.finish(x), context((3,))).records
    assert record.error > EXACT_TOLERANCE


@pytest.mark.parametrize(("factor", "fine"), [(0.5, True), (2.0, False)])
def test_tolerance_is_relative_to_the_largest_output(factor, fine):
    """Either side of the tolerance, which is in units of the largest output on the probe."""
    graph, shape = NETS["conv"]()
    one = context(shape)
    largest = graph(one.example(graph)).abs().max().item()
    pipeline = Pipeline((Nudge(factor * EXACT_TOLERANCE * largest),))
    if fine:
        (record,) = pipeline.run(graph, one).records
        assert record.error == pytest.approx(factor * EXACT_TOLERANCE, rel=0.1)
    else:
        with pytest.raises(PassFailed, match="exact"):
            pipeline.run(graph, one)


def test_nan_is_no_small_error():
    """An output that is not a number is further away than any tolerance."""

    def ruin(graph, context):
        next(m for _, m in calls(graph, nn.Conv2d)).weight.data *= 1e38
        return 1

    graph, shape = NETS["bare"]()
    with pytest.raises(PassFailed, match="changed the output by nan"):
        Pipeline((do(ruin, exact=True),)).run(graph, context(shape))


def test_the_probe_is_not_led_astray_by_rounding():
    """A tiny difference may carry a value over the edge of a level: that is not held against a pass."""
    graph, shape = quantized("single", L=4)
    graph.fc1.bias.data.fill_(0.25)
    graph.fc1.weight.data.zero_()
    before = copy.deepcopy(graph)

    def shrink(graph, context):
        graph.fc1.bias.data -= 1e-7
        return 1

    result = Pipeline((do(shrink, exact=True),)).run(graph, context(shape), Stage.QUANTIZED)
    assert not torch.equal(result.graph(sample(shape)), before(sample(shape)))
    assert result.records[0].error < 1e-6


def test_without_a_probe_nothing_is_claimed():
    """Where no input can be guessed, the record holds no error."""
    graph, _ = NETS["mlp"]()
    graph.fc2 = nn.Linear(5, 8).eval()
    (record,) = Pipeline((Nudge(1.0),)).run(graph, Context(T=4)).records
    assert record.error is None


@pytest.mark.parametrize("name", ["mlp", "residual", "dense"])
def test_examples_come_from_data_then_shape_then_guess(name):
    graph, shape = NETS[name]()
    x = sample(shape, 8, seed=3)
    assert torch.equal(Context(T=4, calibration=[x], input_shape=(1,)).example(graph), x[:4])
    shaped = Context(T=4, input_shape=shape, seed=1).example(graph)
    assert shaped.shape == (4, *shape)
    assert torch.equal(shaped, Context(T=4, input_shape=shape, seed=1).example(graph))
    assert not torch.equal(shaped, Context(T=4, input_shape=shape, seed=2).example(graph))
    assert torch.isfinite(graph(Context(T=4).example(graph))).all()


# Callbacks, records, notes.


def test_callbacks():
    """Before the first pass, then after each, every one in its turn."""
    graph, shape = NETS["mlp"]()
    seen = []

    def note(who):
        def callback(one, graph, stage, record):
            quants = sum(1 for _ in calls(graph, ClipQuant))
            seen.append((who, one and one.name, stage, record and record.sites, quants))

        return callback

    passes = (FoldBatchNorm(), QuantizeActivations(), InsertNeurons())
    Pipeline(passes).run(graph, context(shape), callbacks=(note("a"), note("b")))
    wanted = [
        (None, Stage.ANN, None, 0),
        ("fold-batchnorm", Stage.FOLDED, 0, 0),
        ("quantize-activations", Stage.QUANTIZED, 2, 2),
        ("insert-neurons", Stage.SPIKING, 2, 0),
    ]
    assert seen == [(who, *entry) for entry in wanted for who in ("a", "b")]


def test_callbacks_may_be_a_generator():
    graph, shape = NETS["mlp"]()
    seen = []
    Pipeline((FoldBatchNorm(),)).run(graph, context(shape), callbacks=((lambda *a: seen.append(a)) for _ in "xy"))
    assert len(seen) == 4


def test_notes_belong_to_their_pass():
    graph, shape = NETS["preactivation"]()
    result = Pipeline((FoldBatchNorm(), QuantizeActivations(bound="moments"), InsertNeurons())).run(
        graph, Context(T=4, input_shape=shape)
    )
    fold, quantize, neurons = (r.notes for r in result.records)
    assert fold == ("3 cannot be folded and stay as affines on currents (the first: 'bn1')",)
    assert quantize[0].startswith("no data was seen")
    assert "in 2 of 3 layers" in quantize[0]
    assert [note.split(" % of ")[0] for note in neurons] == ["spikes drive 100"]


def test_progress_is_reported():
    graph, shape = folded("mlp")
    seen = []

    def track(items, what, total=None):
        seen.append(what)
        yield from items

    passes = (QuantizeActivations(), ScaleThresholds())
    Pipeline(passes).run(graph, context(shape, track=track), Stage.FOLDED)
    assert seen == ["observing activations", "choosing thresholds"]


def test_a_context_can_be_used_again():
    """A run starts anew: neither statistics of another net nor bounds moved into its weights are taken over."""
    passes = (FoldBatchNorm(), QuantizeActivations(), ScaleThresholds(), NormalizeThresholds(), InsertNeurons())
    graph, shape = NETS["trained"]()
    for node, _ in list(calls(graph, ClipQuant)):
        replace(graph, node, nn.ReLU())
    one = context(shape)
    first, again = (Pipeline(passes).run(graph, one).graph for _ in range(2))
    assert torch.equal(first(sample(shape)), again(sample(shape)))
    trained, _ = NETS["trained"]()
    kept = Pipeline(passes[:3]).run(trained, one)
    assert kept.records[-1].notes == ("2 trained bounds kept",)


def test_data_that_is_missing_is_asked_for():
    graph, shape = NETS["mlp"]()
    with pytest.raises(PassFailed, match=r"needs calibration data and got none.*--calib") as failed:
        WHOLE.run(graph, Context(T=4, input_shape=shape))
    assert failed.value.name == "quantize-activations"


# Editing.


def names(pipeline: Pipeline) -> list[str]:
    return [one.name for one in pipeline]


def test_insert():
    new = SetInitialPotential()
    own = names(WHOLE)
    assert names(WHOLE.insert(new)) == [*own, new.name]
    assert names(WHOLE.insert(new, before="calibrate-offset")) == [*own[:4], new.name, *own[4:]]
    assert names(WHOLE.insert(new, before="fold-batchnorm")) == [new.name, *own]
    assert names(WHOLE.insert(new, after="calibrate-offset")) == [*own, new.name]
    assert names(WHOLE.insert(new, after="fold-batchnorm")) == [own[0], new.name, *own[1:]]
    assert names(WHOLE) == own


def test_insert_at_two_places():
    with pytest.raises(RecipeError, match="before and after"):
        WHOLE.insert(SetInitialPotential(), before="insert-neurons", after="fold-batchnorm")


def test_remove():
    assert names(WHOLE.remove("scale-thresholds")) == [n for n in names(WHOLE) if n != "scale-thresholds"]
    twice = WHOLE.insert(ScaleThresholds(rule="max"))
    assert names(twice.remove("scale-thresholds"))[-1] == "scale-thresholds"


def test_set():
    changed = WHOLE.set("calibrate-offset", rho=7, guard=False)
    assert changed.passes[-1] == CalibrateOffset(rho=7, guard=False)
    assert WHOLE.passes[-1] == CalibrateOffset()
    assert changed.passes[:-1] == WHOLE.passes[:-1]


def test_pipelines_and_passes_do_not_change():
    with pytest.raises(FrozenInstanceError):
        WHOLE.passes = ()
    with pytest.raises(FrozenInstanceError):
        WHOLE.passes[-1].rho = 1


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda p: p.remove("scale-treshold"), "no pass in this pipeline 'scale-treshold'.*'scale-thresholds'"),
        (lambda p: p.insert(FoldBatchNorm(), before="insert-neuron"), "Try: 'insert-neurons'"),
        (lambda p: p.insert(FoldBatchNorm(), after="fold"), "There is no pass in this pipeline 'fold'"),
        (lambda p: p.set("calibrate_offset", rho=8), "Try: 'calibrate-offset'"),
        (lambda p: p.set("calibrate-offset", roh=8), "no option of 'calibrate-offset' 'roh'.*'rho'"),
        (lambda p: p.set("calibrate-offset", rho="t"), "Option 'rho' of 'calibrate-offset' is 't'"),
        (lambda p: p.set("calibrate-offset", rho=-1), "Option 'rho' of 'calibrate-offset' is -1"),
        (lambda p: p.remove("zzzz"), "one of calibrate-offset, fold-batchnorm, insert-neurons"),
    ],
)
def test_names_that_do_not_exist(edit, words):
    with pytest.raises(RecipeError, match=words):
        edit(WHOLE)


def test_choose():
    assert one_of("a", ["b", "a"], "letter") == "a"
    with pytest.raises(RecipeError, match=r"There is no letter 'c'\. Try: one of a, b"):
        one_of("c", ["b", "a"], "letter")


# Options.


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("number", 1), ("number", -0.25), ("count", -3), ("flag", True), ("text", ""), ("either", 3), ("either", "T"),
        ("rule", "mse"), ("maybe", None), ("maybe", "x"),
    ],
)  # fmt: skip
def test_options_that_fit(option, value):
    assert Options(**{option: value}).options == {**Options().options, option: value}


@pytest.mark.parametrize(
    ("option", "value", "kind"),
    [
        ("number", "1", "a number"), ("number", True, "a number"), ("number", None, "a number"),
        ("count", 1.0, "a whole number"), ("count", True, "a whole number"), ("count", "1", "a whole number"),
        ("flag", 1, "true or false"), ("flag", "true", "true or false"), ("text", 1, "text"),
        ("either", "t", "a whole number or 'T'"), ("either", 1.5, "a whole number or 'T'"), ("either", True, "'T'"),
        ("rule", "MAX", "'max' or 'mse'"), ("rule", ["max"], "'max' or 'mse'"), ("maybe", 1, "text or None"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit(option, value, kind):
    with pytest.raises(RecipeError, match=rf"Option '{option}' of 'options' is .*; it takes .*{kind}"):
        Options(**{option: value})


def test_an_abstract_pass():
    graph, shape = NETS["mlp"]()
    with pytest.raises(PassFailed, match=r"NotImplementedError: Options\.apply"):
        Pipeline((Options(),)).run(graph, context(shape))


def test_a_pass_of_the_user():
    """A pass from outside of the package runs among the others."""

    def halve(graph, context):
        sites = list(calls(graph, ClipQuant))
        for node, _ in sites:
            module_of(graph, node).lam /= 2
        return len(sites)

    graph, shape = NETS["mlp"]()
    pipeline = WHOLE.insert(do(halve), after="scale-thresholds")
    plain, changed = (p.run(graph, context(shape)).graph for p in (WHOLE, pipeline))
    for name in ("relu1", "relu2"):
        assert torch.equal(changed.get_submodule(name).theta * 2, plain.get_submodule(name).theta)
