"""The graph: its builder, its editing, its phases, and each rule of `verify` broken once."""

import copy
import pickle

import pytest
import torch
from torch import fx, nn

from snnc.errors import VerifyError
from snnc.ir import dialect
from snnc.ir.dialect import Add, ClipQuant, Concat, SignedQuant
from snnc.ir.graph import (
    SPEC,
    GraphBuilder,
    Stage,
    calls,
    flat,
    insert,
    module_of,
    phases,
    remove,
    replace,
    steps,
    tidy,
    validate,
    view,
)
from snnc.ir.neurons import IF, AverageIF, GradedIF, OffsetIF, ResidualMaskIF, SignedIF, WaitingIF
from snnc.ir.shapes import guess_input
from snnc.ir.temporal import Decode, Encode, FrameMean, Restart, RunningMax
from tests.nets import NETS, folded, quantized, sample, spiking

one = torch.tensor(1.0)


def graph_of(*modules: nn.Module) -> fx.GraphModule:
    """A chain of modules `m0`, `m1`, ..."""
    build = GraphBuilder()
    x = build.input()
    for i, module in enumerate(modules):
        x = build.call(f"m{i}", module, x)
    return build.finish(x)


def broken(graph: fx.GraphModule, stage: Stage, words: str) -> None:
    with pytest.raises(VerifyError, match=words):
        validate(graph, stage)


@pytest.mark.parametrize("name", NETS)
def test_every_net_is_right_at_its_stage(name):
    validate(NETS[name]()[0], Stage.ANN)
    validate(folded(name)[0], Stage.FOLDED)
    validate(quantized(name)[0], Stage.QUANTIZED)
    validate(spiking(name)[0], Stage.SPIKING)


@pytest.mark.parametrize("name", NETS)
def test_graphs_are_plain_modules(name):
    """They copy, pickle and print without losing a node, its module or its output."""
    graph, shape = spiking(name)
    x = sample(shape)
    for again in (copy.deepcopy(graph), pickle.loads(pickle.dumps(graph))):
        validate(again, Stage.SPIKING)
        assert [n.name for n in again.graph.nodes] == [n.name for n in graph.graph.nodes]
        assert torch.equal(again(x), graph(x))
    assert "(relu1)" in str(graph) or "(act1)" in str(graph)


def test_builder():
    """Names are the caller's, made flat and unique; what nobody uses is gone; eval mode."""
    build = GraphBuilder()
    x = build.input("image")
    y = build.call("layer1.0.conv1", nn.Linear(2, 2), x)
    build.call("unused", nn.ReLU(), y)
    a, b = build.call("act", nn.ReLU(), y), build.call("act", nn.ReLU(), y)
    graph = build.finish(build.call("half", Add(), a, b))
    names = [node.name for node, _ in calls(graph)]
    assert names == ["layer1_0_conv1", "act", "act_1", "half_"]
    assert set(dict(graph.named_children())) == set(names)
    assert all(node.target == node.name for node, _ in calls(graph))
    assert not any(module.training for module in graph.modules())
    assert graph.half().dtype is not None if hasattr(graph, "dtype") else graph.half() is graph
    validate(graph.float(), Stage.ANN)


@pytest.mark.parametrize("name", ["forward", "train", "half", "graph", "code", "eval", "T_destination", "self"])
def test_names_that_would_hide_a_method(name):
    assert flat(name) == f"{name}_"
    graph = graph_of(nn.ReLU())
    replace(graph, next(calls(graph))[0], nn.ReLU())
    node = insert(graph, name, nn.ReLU(), next(calls(graph))[0])
    assert not hasattr(nn.Module, node.name)
    assert not hasattr(fx.GraphModule, node.name)


@pytest.mark.parametrize("name", ["x=print('ran')", "a b", "", "1x", "class", "self", "x:int", "x\n"])
def test_names_of_inputs_are_identifiers(name, capsys):
    """torch writes them into source text, which it then runs."""
    with pytest.raises(ValueError, match="identifier"):
        GraphBuilder().input(name)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["x=print('ran')", "a b", "1x", "class", "a-b", "ü", "relu\n"])
def test_names_of_nodes_become_identifiers(name, capsys):
    build = GraphBuilder()
    graph = build.finish(build.call(name, nn.ReLU(), build.input()))
    assert torch.equal(graph(torch.tensor([[-1.0, 1.0]])), torch.tensor([[0.0, 1.0]]))
    validate(graph, Stage.ANN)
    assert capsys.readouterr().out == ""


def test_insert_and_remove_are_inverse():
    graph, shape = NETS["mlp"]()
    x = sample(shape)
    before, text = graph(x), graph.code
    relu = next(node for node, _ in calls(graph, nn.ReLU))
    node = insert(graph, "extra", nn.ReLU(), relu)
    for user in [u for u in relu.users if u is not node]:
        user.replace_input_with(relu, node)
    validate(tidy(graph), Stage.ANN)
    assert node.name == "extra"
    assert torch.equal(graph(x), before)
    remove(graph, node)
    validate(tidy(graph), Stage.ANN)
    assert graph.code == text


def test_insert_leaves_the_module_in_eval_mode():
    graph = graph_of(nn.ReLU())
    node = insert(graph, "norm", nn.BatchNorm1d(2).train(), next(calls(graph))[0])
    assert not module_of(graph, node).training
    replace(graph, node, nn.BatchNorm1d(2).train())
    assert not module_of(graph, node).training


def test_tidy_drops_what_nobody_uses():
    graph = graph_of(nn.ReLU(), nn.ReLU())
    insert(graph, "loose", nn.ReLU(), next(calls(graph))[0])
    graph.add_module("orphan", nn.ReLU())
    tidy(graph)
    assert set(dict(graph.named_children())) == {"m0", "m1"}
    validate(graph, Stage.ANN)


def test_calls_by_kind_and_in_order():
    graph, _ = NETS["conv"]()
    names = [node.name for node, _ in calls(graph)]
    assert names == ["conv1", "bn1", "relu1", "conv2", "bn2", "relu2", "pool", "flatten", "fc"]
    assert [node.name for node, _ in calls(graph, nn.ReLU, nn.Linear)] == ["relu1", "relu2", "fc"]


def test_view_has_every_edge():
    graph, _ = NETS["residual"]()
    net = view(graph)
    assert {n.name for n in net} == {n.name for n in graph.graph.nodes}
    assert {(a.name, b.name) for a, b in net.edges} >= {("relu0", "join1"), ("bn2", "join1"), ("relu2", "short")}
    assert net.number_of_edges() == sum(len(n.all_input_nodes) for n in graph.graph.nodes)


# Rules of every stage.


@pytest.mark.parametrize(
    ("stage", "module"),
    [
        (Stage.ANN, IF(4, one, one)),
        (Stage.ANN, Encode(4)),
        (Stage.FOLDED, nn.BatchNorm1d(3)),
        (Stage.QUANTIZED, nn.ReLU()),
        (Stage.QUANTIZED, nn.Hardtanh(0, 6)),
        (Stage.QUANTIZED, nn.BatchNorm1d(3)),
        (Stage.SPIKING, ClipQuant(one, 4)),
        (Stage.SPIKING, nn.ReLU()),
        (Stage.ANN, nn.Dropout()),
        (Stage.ANN, nn.ReLU6()),
    ],
)
def test_modules_of_another_stage(stage, module):
    broken(graph_of(nn.Flatten(), module.eval()), stage, rf"'m1' is a {type(module).__name__}.*{stage}")


def test_stages_only_take_away_and_add_what_the_design_says():
    assert SPEC[Stage.ANN] - SPEC[Stage.FOLDED] == set(dialect.BATCHNORMS)
    assert SPEC[Stage.FOLDED] - SPEC[Stage.QUANTIZED] == set(dialect.ACTIVATIONS)
    assert SPEC[Stage.QUANTIZED] - SPEC[Stage.SPIKING] == {ClipQuant, SignedQuant, FrameMean}
    assert SPEC[Stage.FOLDED] <= SPEC[Stage.ANN]
    assert SPEC[Stage.QUANTIZED] <= SPEC[Stage.FOLDED]
    assert set().union(*SPEC.values()) == set(dialect.CONFIG)


def test_two_inputs():
    graph = graph_of(nn.ReLU())
    with graph.graph.inserting_before():
        graph.graph.placeholder("y")
    validate(graph, Stage.ANN)
    node = graph.graph.find_nodes(op="output")[0]
    node.args = ((),)
    broken(graph, Stage.ANN, "holds something that is no value")


def test_function_calls():
    graph = graph_of(nn.ReLU())
    with graph.graph.inserting_before(next(iter(reversed(graph.graph.nodes)))):
        graph.graph.call_function(torch.relu, (next(calls(graph))[0],))
    broken(graph, Stage.ANN, "'relu' is not a call of a module")


def test_two_call_sites_of_one_name():
    graph = graph_of(nn.ReLU(), nn.ReLU())
    nodes = [node for node, _ in calls(graph)]
    nodes[1].target = "m0"
    broken(graph, Stage.ANN, "'m0' has more than one call site")


def test_two_names_of_one_module():
    graph = graph_of(nn.ReLU(), nn.ReLU())
    graph.m1 = graph.m0
    broken(graph, Stage.ANN, "'m1' and 'm0' share a module")


def test_modules_that_are_never_called():
    graph = graph_of(nn.ReLU())
    graph.add_module("orphan", nn.ReLU())
    broken(graph, Stage.ANN, "'orphan' is never called")


def test_graphs_that_do_not_lint():
    graph = graph_of(nn.ReLU(), nn.ReLU())
    nodes = [node for node, _ in calls(graph)]
    nodes[1].append(nodes[0])
    broken(graph, Stage.ANN, "does not lint")
    graph = graph_of(nn.ReLU())
    del graph.m0
    broken(graph, Stage.ANN, "does not lint")


def test_arguments_that_are_no_nodes():
    """A number among the inputs would be lost in a file."""
    graph = graph_of(nn.Linear(2, 2))
    node = next(calls(graph))[0]
    node.args = (*node.args, 2.0)
    broken(graph, Stage.ANN, "'m0' takes something besides")
    node.args, node.kwargs = node.args[:1], {"scale": 2}
    broken(graph, Stage.ANN, "'m0' takes something besides")


def test_training_mode():
    graph = graph_of(nn.Flatten(), nn.BatchNorm1d(3))
    graph.m1.train()
    broken(graph, Stage.ANN, "'m1' is in training mode")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite(value):
    layer = nn.Linear(3, 3)
    layer.bias.data[1] = value
    broken(graph_of(nn.Flatten(), layer), Stage.ANN, "'m1.bias' holds NaN or infinity")


@pytest.mark.parametrize("lam", [0.0, -1.0])
def test_bounds_that_are_not_positive(lam):
    broken(graph_of(ClipQuant(torch.tensor([1.0, lam]), 4)), Stage.QUANTIZED, "'m0.lam' is not positive")


@pytest.mark.parametrize("L", [0, -1, 2.5])
def test_levels_that_do_not_count(L):
    broken(graph_of(ClipQuant(one, L)), Stage.QUANTIZED, "'m0' has L = ")


def test_bounds_of_a_wrong_shape():
    broken(graph_of(ClipQuant(torch.ones(1, 3, 3), 4)), Stage.QUANTIZED, r"'m0.lam' has shape \(1, 3, 3\)")


def test_scaling_that_mixes_neighbours():
    """No integer comes of it, and backends write nearest neighbours."""
    validate(graph_of(nn.Upsample(scale_factor=2.0)), Stage.ANN)
    broken(graph_of(nn.Upsample(scale_factor=2.0, mode="bilinear")), Stage.ANN, "'m0' scales by 'bilinear'")


# Rules of spiking graphs.


def spikes(*modules: nn.Module, T: int = 4) -> fx.GraphModule:
    """A chain in time: `m0` encodes, the last decodes."""
    return graph_of(Encode(T), *modules, Decode(T, T))


def test_threshold_that_is_not_positive():
    broken(spikes(IF(4, torch.tensor(0.0), one)), Stage.SPIKING, "'m1.theta' is not positive")


def test_initial_potentials_may_have_any_sign():
    validate(spikes(IF(4, one, torch.tensor(-2.0))), Stage.SPIKING)


def test_initial_potential_of_a_wrong_shape():
    broken(spikes(IF(4, one, torch.ones(2, 3))), Stage.SPIKING, "'m1.v0' has shape")


def test_two_numbers_of_steps():
    graph = spikes(IF(5, one, one))
    broken(graph, Stage.SPIKING, r"one T; this one has \[4, 5\]")
    with pytest.raises(VerifyError, match="one T"):
        steps(graph)


def test_no_time_at_all():
    broken(graph_of(nn.Flatten()), Stage.SPIKING, "one T; this one has none")


@pytest.mark.parametrize("T", [0, -4, 4.0, True, "4"])
def test_steps_that_do_not_count(T):
    broken(graph_of(Encode(T), IF(T, one, one), Decode(T, 1)), Stage.SPIKING, "T = ")


@pytest.mark.parametrize("read", [0, 5, -1, 1.5])
def test_reading_outside_of_the_run(read):
    broken(graph_of(Encode(4), IF(4, one, one), Decode(4, read)), Stage.SPIKING, "'m2' reads")


def test_two_readouts():
    """All readouts read the same steps: the network has one T."""
    build = GraphBuilder()
    x = build.call("encode", Encode(4), build.input())
    x = build.call("neuron", IF(4, one, one), x)
    y, z = build.call("long", Decode(4, 4), x), build.call("short", Decode(4, 2), x)
    broken(build.finish(build.call("join", Add(), y, z)), Stage.SPIKING, "'short' reads")


@pytest.mark.parametrize("rho", [0, 5])
def test_window_outside_of_the_run(rho):
    broken(spikes(OffsetIF(4, one, one, rho)), Stage.SPIKING, f"'m1' has rho = {rho}")


@pytest.mark.parametrize("option", [{"iterations": 0}, {"iterations": 1.5}, {"eps": 0.0}, {"eps": float("nan")}])
def test_calibration_that_shifts_nothing(option):
    broken(spikes(OffsetIF(4, one, one, 2, **option)), Stage.SPIKING, "'m1' has iterations = ")


@pytest.mark.parametrize(
    ("neuron", "words"),
    [
        (lambda: GradedIF(4, one, one, 0), "has bits = 0, outside 1..16"),
        (lambda: GradedIF(4, one, one, 17), "has bits = 17"),
        (lambda: GradedIF(4, one, one, 2.0), "has bits = 2.0"),
        (lambda: GradedIF(4, -one, one, 2), "'m1.theta' is not positive"),
        (lambda: WaitingIF(4, one, one, 4), "has wait = 4, outside 0..T - 1 = 3"),
        (lambda: WaitingIF(4, one, one, -1), "has wait = -1"),
        (lambda: WaitingIF(4, one, one, True), "has wait = True"),
        (lambda: ResidualMaskIF(4, one, one, 4), "has tau = 4, outside 1..T - 1 = 3"),
        (lambda: ResidualMaskIF(4, one, one, 0), "has tau = 0"),
        (lambda: Restart(4, nn.ReLU(), 2), "restarts what is no curved operation"),
        (lambda: SignedIF(4, one, torch.ones(2, 3)), "'m1.v0' has shape"),
        (lambda: AverageIF(0, one, one), "has T = 0"),
    ],
)
def test_parameters_out_of_range(neuron, words):
    broken(spikes(neuron()), Stage.SPIKING, words)


@pytest.mark.parametrize("late", [-1, 3, 1.0, True, None])
def test_leaving_out_what_is_not_there(late):
    broken(graph_of(Encode(4), IF(4, one, one), Decode(4, 3, 0, late)), Stage.SPIKING, "'m2' leaves out")


@pytest.mark.parametrize("skip", [-1, 3, 1.0, True, None])
def test_skipping_outside_of_the_run(skip):
    broken(graph_of(Encode(4), IF(4, one, one), Decode(4, 2, skip)), Stage.SPIKING, "'m2' skips")


def test_passes_that_do_not_meet():
    """What readouts skip is the first pass of everything with a state."""
    mask = ResidualMaskIF(4, one, one, 2)
    validate(graph_of(Encode(4), mask, Restart(4, RunningMax(4, nn.MaxPool1d(2)), 2), Decode(4, 2, 2)), Stage.SPIKING)
    for module, decode in (
        (mask, Decode(4, 2, 1)),
        (mask, Decode(4, 4)),
        (IF(4, one, one), Decode(4, 2, 2)),
        (WaitingIF(4, one, one, 1), Decode(4, 2, 2)),
    ):
        broken(graph_of(Encode(4), copy.deepcopy(module), decode), Stage.SPIKING, "'m1' has a first pass of")
    pool = RunningMax(4, nn.MaxPool1d(2))
    broken(graph_of(Encode(4), copy.deepcopy(mask), pool, Decode(4, 2, 2)), Stage.SPIKING, "'m2' has a first pass of 0")


def test_two_readouts_that_skip_differently():
    build = GraphBuilder()
    x = build.call("neuron", ResidualMaskIF(4, one, one, 2), build.call("encode", Encode(4), build.input()))
    y, z = build.call("a", Decode(4, 1, 2), x), build.call("b", Decode(4, 1, 1), x)
    broken(build.finish(build.call("join", Add(), y, z)), Stage.SPIKING, "'b' skips 1")


def test_neuron_before_time():
    broken(graph_of(IF(4, one, one), Decode(4, 4)), Stage.SPIKING, r"'m0' \(IF\) stands before time")


def test_encoding_twice():
    broken(graph_of(Encode(4), Encode(4), IF(4, one, one), Decode(4, 4)), Stage.SPIKING, r"'m1' \(Encode\) stands in")


def test_encoding_behind_time():
    graph = graph_of(Encode(4), IF(4, one, one), Decode(4, 4), Encode(4), IF(4, one, one), Decode(4, 4))
    broken(graph, Stage.SPIKING, r"'m3' \(Encode\) stands after")


def test_decoding_what_is_not_in_time():
    broken(graph_of(Encode(4), Decode(4, 4), Decode(4, 4)), Stage.SPIKING, r"'m2' \(Decode\) stands after")


def test_output_in_time():
    broken(graph_of(Encode(4), IF(4, one, one)), Stage.SPIKING, "output stands in time: no Decode")


def test_one_path_without_encode():
    build = GraphBuilder()
    x = build.input()
    y = build.call("encode", Encode(4), x)
    z = build.call("join", Concat(1), y, x)
    z = build.call("decode", Decode(4, 4), build.call("neuron", IF(4, one, one), z))
    broken(build.finish(z), Stage.SPIKING, "At 'join' a value before time meets one in time")


@pytest.mark.parametrize("module", [nn.MaxPool1d(2), nn.AdaptiveMaxPool1d(2), nn.Softmax(1), nn.LogSoftmax(1)])
def test_what_must_not_see_single_steps(module):
    broken(spikes(IF(4, one, one), module), Stage.SPIKING, rf"'m2' \({type(module).__name__}\) acts on single steps")
    validate(graph_of(module, Encode(4), IF(4, one, one), Decode(4, 4), copy.deepcopy(module)), Stage.SPIKING)
    validate(spikes(IF(4, one, one), RunningMax(4, nn.MaxPool1d(2))), Stage.SPIKING)


def test_phases_of_a_net():
    """Before the first neuron, between, and behind the last; a skip to the output counts as behind."""
    graph, _ = spiking("skip")
    phase = {node.name: p for node, p in phases(graph).items()}
    assert {n for n, p in phase.items() if p == "before"} == {"x", "fc1", "short"}
    assert {n for n, p in phase.items() if p == "in"} == {"fc1_encode", "relu1", "fc2", "relu2"}
    assert {n for n, p in phase.items() if p == "after"} == {"relu2_decode", "fc3", "join", "output"}


@pytest.mark.parametrize("name", NETS)
def test_an_input_is_guessed(name):
    """Some shape that goes through, and random states are left alone."""
    graph, _ = NETS[name]()
    state = torch.get_rng_state()
    x = guess_input(graph)
    assert torch.equal(torch.get_rng_state(), state)
    assert x is None or torch.isfinite(graph(x)).all()
    if name not in ("conv", "maxpool", "conv1d", "conv3d", "bare"):
        assert x is not None


def test_nothing_to_guess_from():
    assert guess_input(graph_of(nn.ReLU())) is None
    assert guess_input(graph_of(nn.Linear(3, 4), nn.Linear(5, 3))) is None
