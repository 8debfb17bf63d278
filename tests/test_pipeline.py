"""The pipeline: order, copies, records, callbacks, and the exactness that passes claim."""

from dataclasses import dataclass

import pytest
import torch

from snnc.errors import PassFailed, RecipeError
from snnc.graph import Stage, calls, replace
from snnc.passes import FoldBatchNorm, InsertNeurons, QuantizeActivations, ScaleThresholds
from snnc.pipeline import Context, Pass, Pipeline
from snnc.recipes import recipe

from .nets import NETS, sample


def run(passes, name="conv", callbacks=()):
    graph, shape = NETS[name]()
    context = Context(T=4, calibration=[sample(shape)])
    return graph, Pipeline(tuple(passes)).run(graph, context, callbacks=callbacks)


def test_the_input_is_copied_and_the_run_recorded():
    graph, shape = NETS["conv"]()
    text, before = str(graph.graph), graph(sample(shape))
    seen = []
    pipeline = recipe("opi").pipeline
    context = Context(T=4, calibration=[sample(shape)])
    result = pipeline.run(graph, context, callbacks=[lambda *what: seen.append(what)])
    assert str(graph.graph) == text
    assert torch.equal(graph(sample(shape)), before)
    assert result.stage is Stage.SPIKING
    assert [r.name for r in result.records] == [p.name for p in pipeline]
    assert result.records[0].error <= 1e-6
    assert all(r.error is None for r in result.records if r.name != "fold-batchnorm")
    assert seen[0][0] is None
    assert [s[3] for s in seen[1:]] == list(result.records)


def test_order_is_checked_and_the_records_so_far_are_kept():
    with pytest.raises(PassFailed, match="takes a graph of stage QUANTIZED") as caught:
        run([FoldBatchNorm(), InsertNeurons()])
    assert [r.name for r in caught.value.records] == ["fold-batchnorm"]
    assert caught.value.name == "insert-neurons"


@dataclass(frozen=True)
class Liar(Pass):
    name = "liar"
    takes = (Stage.ANN,)
    exact = True

    def apply(self, graph, context):
        _, layer = next(calls(graph, torch.nn.Conv2d))
        layer.weight.data *= 1.01
        return 1


@dataclass(frozen=True)
class Breaker(Pass):
    name = "breaker"
    takes = (Stage.ANN,)

    def apply(self, graph, context):
        node, _ = next(calls(graph, torch.nn.Conv2d))
        replace(graph, node, torch.nn.Sigmoid())
        return 1


@dataclass(frozen=True)
class Crash(Pass):
    name = "crash"
    takes = (Stage.ANN,)

    def apply(self, graph, context):
        raise ZeroDivisionError("by nothing\nand a long tail")


@pytest.mark.parametrize(
    ("one", "words"),
    [(Liar(), "says that it is exact"), (Breaker(), "must not contain"), (Crash(), "ZeroDivisionError: by nothing")],
)
def test_bad_passes_are_caught(one, words):
    with pytest.raises(PassFailed, match=words) as caught:
        run([one])
    assert "tail" not in str(caught.value)


def test_editing_gives_a_new_pipeline():
    old = recipe("opi").pipeline
    new = old.set("scale-thresholds", rule="percentile", percent=99).remove("set-initial-potential")
    new = new.insert(ScaleThresholds(factor=2.0), before="insert-neurons")
    assert [p.name for p in new][-3:] == ["scale-thresholds", "scale-thresholds", "insert-neurons"]
    assert new.passes[2].percent == 99
    assert old == recipe("opi").pipeline
    for edit in (
        lambda: old.set("scale-threshold", rule="max"),
        lambda: old.set("scale-thresholds", rul="max"),
        lambda: old.set("scale-thresholds", rule="maximum"),
        lambda: old.remove("scale"),
        lambda: old.insert(InsertNeurons(), after="fold"),
        lambda: QuantizeActivations(levels=True),
    ):
        with pytest.raises(RecipeError):
            edit()
