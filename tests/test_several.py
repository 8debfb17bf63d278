"""Several inputs and outputs, from the author's network to every file and command."""

import copy
import io
import json
import warnings
from collections import namedtuple

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import snnc
from snnc.capture import blockers, capture, captured
from snnc.differences import verify
from snnc.errors import DataError, RecipeError, SnncError, Unsupported
from snnc.ir.dialect import ACTIVATIONS, ClipQuant
from snnc.ir.graph import Stage, calls, replace, results
from snnc.ir.graphfile import pack_graph, unpack_graph
from snnc.passes import FoldBatchNorm, InsertNeurons, QuantizeActivations
from snnc.passes.pipeline import Pipeline
from snnc.structure import Inputs, alike, built, leaves, mapped, named, names_in, plain, titled
from tests.several import CLASSES, NETWORKS, SIZES, inputs

T = 4
NAMES = list(NETWORKS)
PASSES = Pipeline((FoldBatchNorm(), QuantizeActivations(bound="trained"), InsertNeurons()))


def shapes(name):
    found = tuple(SIZES[name].values())
    return found if len(found) > 1 else found[0]


def same(a, b):
    return alike(a, b) and all(map(torch.equal, leaves(a), leaves(b)))


def quantised(name):
    """The network as a graph whose activations have dyadic levels, so that all sums of its neurons are exact."""
    graph = capture(NETWORKS[name](), shapes(name))
    for node, _ in calls(graph, *ACTIVATIONS):
        replace(graph, node, ClipQuant(torch.tensor(2.0), T))
    return graph


@pytest.fixture(scope="module")
def compiled():
    """Every network, compiled without a number that is not dyadic."""
    return {name: snnc.compile(quantised(name), T, PASSES, inputs(name, 4)) for name in NAMES}


# The doors


def exported(module, given):
    args = tuple(given.values())
    names = tuple(given)
    sizes = {key: {0: torch.export.Dim.AUTO} for key in names}
    if type(module).__name__ == "TwoInputs":
        return torch.export.export(module, args[:1], {names[1]: args[1]}, dynamic_shapes=sizes)
    return torch.export.export(module, args, dynamic_shapes=sizes)


@pytest.mark.parametrize("name", NAMES)
def test_live_modules_keep_names_and_containers(name):
    module, given = NETWORKS[name](), inputs(name, 3)
    found = captured(module, shapes(name))
    assert found.compared["batches"] == [3, 1, 2]
    assert found.compared["error"] == 0
    graph = found.graph
    assert same(graph(*given.values()), module(**given))
    if len(given) > 1:
        assert [node.target for node in graph.graph.find_nodes(op="placeholder")] == list(given)
    again, stage, _ = unpack_graph(torch_saved(pack_graph(graph, Stage.ANN, {})))
    assert stage is Stage.ANN
    assert again.code == graph.code
    assert same(copy.deepcopy(again)(*given.values()), module(**given))


def torch_saved(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("name", NAMES)
def test_exported_programs(name):
    module, given = NETWORKS[name](), inputs(name, 3)
    found = captured(exported(module, given))
    assert found.compared["batches"] == [3, 1, 2]
    assert same(found.graph(*given.values()), module(**given))


def test_onnx_with_two_inputs_and_three_outputs():
    """The names of the file become those of the network."""

    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = NETWORKS["Siamese"]()

        def forward(self, left, right):
            found = self.net(left, right)
            return found["same"], found["left"], found["right"]

    given = inputs("Siamese", 3)
    model = to_onnx(Flat(), given, ["left", "right.x"], ["same", "l", "r"])
    found = captured(model)
    assert found.compared["with"] == "onnxruntime"
    assert found.compared["batches"] == [3, 1, 2]
    wanted = dict(zip(("same", "l", "r"), NETWORKS["Siamese"]()(*given.values()).values(), strict=True))
    assert same(found.graph(*given.values()), wanted)
    net = snnc.compile(model, T, "opi", {"left": given["left"], "right_x": given["right"]})
    assert net.inputs == ("left", "right_x")
    assert net.outputs == ("same", "l", "r")


def to_onnx(module, given, names, outputs):
    buffer = io.BytesIO()
    axes = {key: {0: "batch"} for key in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises its other exporter, which needs packages of its own
        torch.onnx.export(
            module.eval(), tuple(given.values()), buffer, input_names=names, output_names=outputs, dynamic_axes=axes,
            dynamo=False,
        )  # fmt: skip
    return onnx.load_from_string(buffer.getvalue())


def test_onnx_looks_tables_up():
    given = inputs("Text", 3)
    found = captured(to_onnx(NETWORKS["Text"](), given, ["ids"], ["logits"]))
    assert torch.equal(found.graph(given["ids"]), NETWORKS["Text"]()(given["ids"]))


# What runs


@pytest.mark.parametrize("name", NAMES)
def test_every_form_gives_the_same(name, compiled, tmp_path):
    """Time-unrolled, step by step, graph file, exported program and ONNX: the same spikes, outputs and containers."""
    net, given = compiled[name], inputs(name, 5, seed=1)
    wanted, by_step = net(**given), net.readout(**given)
    assert alike(wanted, NETWORKS[name]()(**given))
    assert net.outputs == tuple(named(wanted))
    assert same(wanted, net.graph(*given.values()))
    assert same(wanted, net(*given.values()))
    data = Inputs(tuple(given.values()), tuple(given)) if len(given) > 1 else next(iter(given.values()))
    assert verify(net, net, data, stream=True).spikes == 0
    for t, step in enumerate(net.stream(**given)):
        assert t == 2 or same(step, mapped(lambda one, t=t: one[t], by_step))  # a third is not dyadic
    for suffix in (".snn", ".pt2", ".onnx"):
        again = snnc.load(snnc.save(net, tmp_path / f"net{suffix}"))
        assert again.outputs == net.outputs
        assert again.inputs == net.inputs
        assert same(again(**given), wanted)
        assert same(*(mapped(lambda one: one[[0, 1, 3]], each) for each in (again.readout(*given.values()), by_step)))
        found = verify(net, again, data)
        assert not found.spikes
        assert [found.outputs[t] for t in (0, 1, 3)] == [0, 0, 0]


@pytest.mark.parametrize("name", ["TwoInputs", "Nested"])
def test_an_exported_program_runs_without_snnc(name, compiled, tmp_path):
    net, given = compiled[name], inputs(name, 3)
    module = torch.export.load(snnc.save(net, tmp_path / "net.pt2")).module()
    last, by_step = module(*given.values())
    assert same(last, net(**given))
    assert all(map(torch.allclose, leaves(by_step), leaves(net.readout(**given))))


def test_the_mean_is_the_quantised_network(compiled):
    """At T = L each output is that of the graph with clip-quantisers, where no neuron stands before another."""
    for name in ("TwoHeads", "Named", "Detector", "Text"):
        given = inputs(name, 5, seed=2)
        assert same(compiled[name](**given), quantised(name)(*given.values()))


def test_rounds_and_chunks(compiled):
    net, given = copy.copy(compiled["Nested"]), inputs("Nested", 7)
    wanted = net(**given)
    net.chunk = 8
    assert same(net(**given), wanted)


@pytest.mark.parametrize("recipe", ["best", "cos", "telescoped", "data-free", "srp"])
def test_recipes(recipe):
    """Every pass takes several inputs and outputs; thirty-two steps come near to the network."""
    module, given = NETWORKS["TwoInputs"](), inputs("TwoInputs", 80)
    net = snnc.compile(module, 32, recipe, given)
    assert net.info["input_shape"] == [[1, 4, 6], [5]]
    wanted = module(**given)
    assert (net(**given) - wanted).norm() < 0.35 * wanted.norm()
    heads = NETWORKS["Named"]()
    found = snnc.compile(heads, 32, recipe, inputs("Named", 80))(**inputs("Named", 80))
    for a, b in zip(leaves(found), leaves(heads(**inputs("Named", 80))), strict=True):
        assert (a - b).norm() < 0.35 * b.norm()


def test_fixed_point(tmp_path):
    """Several outputs are integers up to each readout; several inputs are refused by name."""
    pipeline = snnc.recipe("opi").pipeline.insert(snnc.PASSES["fixed-point"]())
    net = snnc.compile(NETWORKS["Named"](), T, pipeline, inputs("Named", 64))
    given = inputs("Named", 5, seed=1)
    again = snnc.load(snnc.save(net, tmp_path / "net.onnx"))
    assert same(again(**given), net(**given))
    assert verify(net, again, given["x"]).same
    with pytest.raises(SnncError, match="several inputs"):
        snnc.compile(NETWORKS["TwoInputs"](), T, pipeline, inputs("TwoInputs", 64))


# What is refused


class Pair(nn.Module):
    def __init__(self, give):
        super().__init__()
        self.layer, self.give = nn.Linear(4, 4), give

    def forward(self, x):
        return self.give(torch.relu(self.layer(x)))


@pytest.mark.parametrize(
    ("give", "why"),
    [
        (lambda h: (h, torch.ones(3)), "'1'.*does not depend on the input"),
        (lambda h: (h, h > 1), "'1'"),
        (lambda h: (), "holds no tensor"),
        (lambda h: {"x": h, 2.5: h}, "keys that are neither"),
        (lambda h: Out(h, h), "Out"),
    ],
)
def test_outputs_that_are_refused(give, why):
    with pytest.raises(Unsupported, match=why):
        capture(Pair(give), (4,))


Out = namedtuple("Out", "a b")


def test_containers_that_are_refused():
    def program(give):
        return torch.export.export(Pair(give).eval(), (torch.ones(2, 4),), strict=False)

    (found,) = blockers(program(lambda h: Out(h, h)))
    assert "holds a Out" in found.why
    assert "tuple(out)" in found.hint
    assert blockers(program(lambda h: tuple(Out(h, h)))) == []
    for shape in (None, (4,)):
        (live,) = blockers(Pair(lambda h: Out(h, h)).eval(), shape)
        assert (live.op, live.hint) == ("Out", found.hint)
        assert blockers(Pair(lambda h: tuple(Out(h, h))).eval(), shape) == []


class Mixed(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.table, self.layer, self.how = nn.Embedding(5, 4), nn.Linear(4, 4), how

    def forward(self, ids):
        return torch.relu(self.layer(self.table(ids))).sum(1), *self.how(ids)


@pytest.mark.parametrize("how", [lambda ids: (ids,), lambda ids: (torch.relu(ids * 1.0),), lambda ids: (ids / 2,)])
def test_whole_numbers_meet_no_neurons(how):
    found = blockers(Mixed(how), (3,))
    assert any("places in a table" in one.why for one in found), found


class Looks(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.table, self.layer, self.how = nn.Embedding(5, 4), nn.Linear(4, 4), how

    def forward(self, ids, y):
        return torch.relu(self.layer(self.how(self, ids, y)))


@pytest.mark.parametrize(
    ("wrong", "right", "hint"),
    [
        (lambda n, i, y: nn.functional.embedding(i, y), lambda n, i, y: n.table(i), "a constant table of floats"),
        (
            lambda n, i, y: nn.functional.embedding(i, n.table.weight, max_norm=1.0),
            lambda n, i, y: nn.functional.embedding(i, n.table.weight),
            "without max_norm",
        ),
    ],
)
def test_tables_that_are_refused(wrong, right, hint):
    given = ((3,), (4,))
    assert any(hint in one.hint for one in blockers(Looks(wrong), given))
    assert blockers(Looks(right), given) == []
    ids = torch.ones(2, 4, dtype=torch.int64)
    program = torch.export.export(Pair(lambda h: h).eval(), (ids.float(),))
    assert blockers(program) == []
    counted = Counting().eval()
    found = blockers(torch.export.export(counted, (ids,)))
    assert any("export it with float input" in one.hint for one in found), found
    assert blockers(torch.export.export(counted, (ids.float(),))) == []


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, ids):
        return torch.relu(self.layer(ids.float()))


def test_calls_that_do_not_fit(compiled):
    net, given = compiled["TwoInputs"], inputs("TwoInputs", 2)
    for wrong, why in (
        (lambda: net(given["image"]), "no 'meta'"),
        (lambda: net(given["image"], given["meta"], given["meta"]), "3 inputs"),
        (lambda: net(given["image"], image=given["image"], meta=given["meta"]), "'image' twice"),
        (lambda: net(given["image"], other=given["meta"]), "'other'"),
        (lambda: net(given["image"][:1], meta=given["meta"]), "different numbers of samples"),
        (lambda: net(given["image"], meta=given["meta"][:, :3]), r"'meta' has shape \(2, 3\)"),
        (lambda: net(given["image"], meta=given["meta"].long()), "'meta' is torch.int64"),
        (lambda: compiled["Text"](torch.full((2, 4), -1)), "goes from -1"),
        (lambda: compiled["Text"](torch.full((2, 4), 0.5)), "not whole"),
        (lambda: compiled["Text"](torch.full((2, 4), 99)), "does not go through"),
    ):
        with pytest.raises(DataError, match=why):
            wrong()
    with pytest.raises(SnncError, match="several outputs"):
        compiled["Named"].exit(inputs("Named", 2)["x"])


def test_training_is_refused():
    for name in ("Named", "TwoInputs"):
        with pytest.raises((RecipeError, DataError), match="several"):
            snnc.tune(NETWORKS[name](), inputs(name, 8), epochs=1, loss="distil")


# Structure


def test_structure_as_plain_data():
    tree = {"a": [1.5, (torch.ones(1), None)], "b": torch.zeros(2), 3: "x"}
    assert list(named(tree)) == ["a.1.0", "b"]
    content = json.loads(json.dumps(titled(tree)))
    assert names_in(content) == ["a.1.0", "b"]
    assert same(built(content, named(tree).__getitem__), tree)
    assert plain(torch.ones(1), lambda _: "one") == "one"


@pytest.mark.parametrize("content", [3, {"tuple": 3}, {"set": []}, {"dict": [[[], "a"]]}, {"constant": []}, ["a"], {}])
def test_structure_that_is_none(content):
    with pytest.raises((ValueError, TypeError)):
        built(content, str)


def test_names_that_clash():
    assert list(named({0: 1.0j, "0": 2.0j, "a.b": 3.0j, "a": {"b": 4.0j}})) == ["0", "0_", "a.b", "a.b_"]


def test_one_value_under_two_names(tmp_path):
    net = snnc.compile(Pair(lambda h: {"a": h, "b": h, "c": h.flatten(1)}), T, "opi", torch.randn(8, 4))
    x = torch.randn(3, 4)
    assert list(results(net.graph)) == ["a", "b", "c"]
    for suffix in (".snn", ".pt2", ".onnx"):
        found = snnc.load(snnc.save(net, tmp_path / f"net{suffix}"))(x)
        assert torch.equal(found["a"], found["b"])


# Data and commands


def test_data_by_name_by_place_and_from_a_file(tmp_path):
    module, given = NETWORKS["TwoInputs"](), inputs("TwoInputs", 64)
    path = tmp_path / "data.npz"
    np.savez(path, y=np.zeros(64, dtype=np.int64), **{key: value.numpy() for key, value in given.items()})
    values = tuple(given.values())
    nets = [
        snnc.compile(module, T, "opi", data)
        for data in (given, values, (values, torch.zeros(64)), path, [values], [(values, torch.zeros(64))])
    ]
    for net in nets[1:]:
        assert all(map(torch.equal, net.graph.state_dict().values(), nets[0].graph.state_dict().values()))
        assert net.info["calibration_sha256"] == nets[0].info["calibration_sha256"]
    np.savez(path, image=given["image"].numpy())
    with pytest.raises(DataError, match="no array `meta`"):
        snnc.compile(module, T, "opi", path)
    with pytest.raises(DataError, match="holds one tensor, and the network takes image, meta"):
        snnc.compile(module, T, "opi", given["image"])


def test_whole_numbers_for_amounts_are_refused():
    with pytest.raises(DataError, match=r"torch\.int64, not floating-point"):
        snnc.compile(NETWORKS["TwoHeads"](), T, "opi", torch.ones(8, 6, dtype=torch.int64))


def test_evaluation(compiled, tmp_path):
    """Class scores by name, and every output beside the ANN's after each step."""
    net, given = compiled["Named"], inputs("Named", 40)
    wanted = quantised("Named")
    labels = wanted(given["x"])["logits"].argmax(1)
    found = snnc.evaluate(net, (given["x"], labels), wanted, output="logits")
    assert found.accuracy[-1] == 100
    assert found.agreement[-1] == 100
    assert [one.name for one in found.outputs] == ["logits", "features"]
    assert [one.error[-1] for one in found.outputs] == [0, 0]
    assert all(len(one.error) == len(one.agreement) == T for one in found.outputs)
    assert found.outputs[0].error[0] > 0
    without = snnc.evaluate(net, given["x"], wanted)
    assert without.accuracy == []
    assert without.outputs == found.outputs
    with pytest.raises(SnncError, match="several outputs: logits, features"):
        snnc.evaluate(net, (given["x"], labels))
    with pytest.raises(SnncError, match="no output 'x'"):
        snnc.evaluate(net, (given["x"], labels), output="x")


def test_explanation_and_report(tmp_path):
    """One output is followed; layers that only others need are left out."""
    module, given = NETWORKS["Siamese"](), inputs("Siamese", 64)
    net = snnc.compile(module, T, "opi", given)
    found = snnc.explain(net, module, given, output="same")
    assert {layer.name for layer in found.layers} == {name for name, _ in net.neurons()}
    assert len(snnc.explain(net, module, given, output="left").layers) == 2
    with pytest.raises(SnncError, match="several outputs"):
        snnc.explain(net, module, given)
    page = snnc.report(net, given, module, tmp_path / "page.html", output="same")
    assert page.evaluation.agreement is not None
    assert page.explanation is not None


def test_check_tells_every_input():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Linear(4, 4), nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x, gate):
            return self.head(torch.relu(self.a(x)) * torch.sigmoid(self.b(gate)))

    found = snnc.check(Gated().eval(), ((4,), (3,)))
    assert found.input.shape == [[4], [3]]
    assert "Input: samples of shape 4 and 3" in str(found)
    assert found.recipes[0].share is not None
    assert "places in a table" in snnc.check(NETWORKS["Text"](), (4,)).input.values


def test_search_counts_one_output():
    from snnc.measure.search import search

    found = search(NETWORKS["Named"](), inputs("Named", 60), 60, recipes=["opi"], steps=[2], output="logits")
    assert found.network.outputs == ("logits", "features")


def test_every_class_is_tried():
    assert {kind.__name__ for kind in CLASSES} == set(SIZES)
