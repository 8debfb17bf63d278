"""Every door runs the graph and the network on the same samples; what differs by more than rounding is refused."""

import random
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from torch import fx, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_full_backward_hook

import snnc
from snnc.capture import blockers, capture, captured
from snnc.capture.comparison import Reference, compare
from snnc.capture.onnx.reference import compare_onnx
from snnc.capture.references import of_program
from snnc.errors import Unsupported
from tests.nets import fill
from tests.onnx_models import exported as as_onnx

from .tricks import SHAPE, Net, make


def network():
    return make().eval()


def exported(net):
    return torch.export.export(net, (torch.randn(4, *SHAPE),), dynamic_shapes=({0: torch.export.Dim.AUTO},))


@pytest.mark.parametrize(
    ("door", "name"), [(lambda net: net, "the module"), (exported, "the exported program")], ids=["live", "pt2"]
)
def test_the_record_says_what_was_compared(door, name):
    compared = captured(door(network()), SHAPE).compared
    assert compared["with"] == name
    assert compared["samples"] == "random"
    assert compared["shape"] == list(SHAPE)
    assert compared["batches"] == [3, 1, 2]
    assert compared["error"] <= compared["bound"] < 1e-4


class Logarithm(nn.Module):
    """Minus infinity where the ReLU is silent."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 6)

    def forward(self, x):
        return torch.log(torch.relu(self.fc(x)))


def test_an_output_that_is_infinite_here_and_there_is_compared_everywhere():
    torch.manual_seed(0)
    net = Logarithm().eval()
    graph = capture(net, (4,))
    assert torch.isinf(net(torch.randn(8, 4))).any()

    def wrong(change):
        return compare(graph, Reference(lambda x: change(net(x)), "it", torch.zeros(())), (4,))[1]

    assert wrong(lambda y: y) is None
    assert wrong(lambda y: 1.5 * y)
    assert wrong(lambda y: y.clamp_min(-100))
    assert wrong(lambda y: torch.where(torch.isinf(y), -y, y))
    assert wrong(lambda y: torch.where(torch.isinf(y), torch.nan, y))


def test_onnx_is_compared_with_onnxruntime():
    w = onnx.numpy_helper.from_array(np.ones((3, 2), np.float32), "w")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["h"]), onnx.helper.make_node("Relu", ["h"], ["y"])],
        "net",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 2])],
        [w],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    assert captured(model).compared["with"] == "onnxruntime"


def test_a_wrong_graph_of_an_onnx_model_is_refused(monkeypatch):
    from snnc.capture.onnx import operations

    relu = operations.OPERATIONS["Relu"]
    monkeypatch.setitem(operations.OPERATIONS, "Relu", lambda at, x: relu(at, operations.OPERATIONS["Neg"](at, x)))
    net = nn.Sequential(nn.Linear(3, 2), nn.ReLU()).eval()
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Gemm", ["x", "w", "b"], ["h"], transB=1), onnx.helper.make_node("Relu", ["h"], ["y"])],
        "net",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 2])],
        [onnx.numpy_helper.from_array(getattr(net[0], n).detach().numpy(), n[0]) for n in ("weight", "bias")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    (found,) = blockers(model)
    assert "is the first layer that" in found.why
    assert found.op == "ReLU"
    assert "computes something else than the graph" in found.why


def test_a_small_sigmoid_of_onnxruntime_is_rounding_and_a_wrong_one_is_not():
    """It rounds to the last place of one half: at 2^-16 that is more than a rounding of the result."""
    net = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2), nn.Sigmoid()).eval()
    net[2].bias.data[:] = -11.0
    model = as_onnx(net, (3,))
    graph = capture(model, (3,))
    compared = captured(model, (3,)).compared
    assert 1e-4 < compared["bound"] < 0.1
    [layer for layer in graph.children() if isinstance(layer, nn.Linear)][-1].bias.data += 0.2
    assert compare_onnx(model, graph, (3,), None)[1] is not None


def test_compile_compares_on_the_calibration_data():
    x = torch.rand(20, *SHAPE)
    net = snnc.compile(network(), T=4, recipe="opi", calibration=x)
    assert net.info["compared"]["samples"] == "given"
    assert net.info["compared"]["batches"] == [3, 1, 2]


def test_without_a_shape_one_is_guessed_or_nothing_is_compared():
    assert captured(network()).compared["shape"] == [2, 32, 32]
    compared = captured(nn.Sequential(nn.ReLU(), nn.AvgPool2d(2))).compared
    assert compared["with"] is None
    assert compared["why"].startswith("no input shape is known, which --input-shape tells")


def test_the_first_layer_that_differs_is_named():
    net = network()
    graph = capture(net, SHAPE)
    graph.body_0.weight.data *= 1.01
    _, found = compare(graph, Reference(net, "the module", torch.zeros(()), module=net), SHAPE)
    assert found.node == "body_0"
    assert "first layer" in found.why


def test_the_first_layer_of_a_program_that_differs_is_named():
    program = exported(network())
    for name in ("body_0", "head"):
        graph = capture(program)
        graph.get_submodule(name).weight.data *= 1.01
        _, found = compare(graph, of_program(program), SHAPE)
        assert found.node.endswith(name)
        assert "first layer" in found.why


@pytest.mark.parametrize("change", [1e-3, 1e-5])
def test_small_differences_are_seen(change):
    net = network()
    graph = capture(net, SHAPE)
    graph.head.bias.data += change
    _, found = compare(graph, Reference(net, "the module", torch.zeros(()), module=net), SHAPE)
    assert found is not None


def test_a_level_of_difference_is_seen_and_a_jump_at_an_edge_is_not():
    """A value on the edge of a level may be on either side; one in the middle may not."""

    class Quantised(nn.Module):
        def __init__(self, nudge):
            super().__init__()
            self.nudge = nudge

        def forward(self, x):
            return torch.floor(torch.clamp(x + self.nudge, 0, 1) * 4 + 0.5) / 4

    graph = capture(Quantised(0.0), (5,))
    edge = torch.tensor([[0.125, 0.2, 0.6, 0.9, 0.0], *[[0.2, 0.3, 0.4, 0.5, 0.6]] * 3])  # 0.125 * 4 + 0.5 is an edge
    middle = torch.full((4, 5), 0.25)
    tiny = 2.0**-26
    for nudge, samples, wrong in (
        (-tiny, edge, False),
        (0.25, edge, True),
        (0.25, middle, True),
        (-tiny, middle, False),
    ):
        other = Reference(Quantised(nudge), "the module", torch.zeros(()))
        assert (compare(graph, other, (5,), samples)[1] is not None) is wrong, (nudge, samples)


def test_nothing_of_the_process_or_the_network_is_touched():
    net = make().train()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    flags = [module.training for module in net.modules()]
    torch.manual_seed(3), random.seed(3), np.random.seed(3)  # noqa: NPY002
    want = torch.rand(2), random.random(), np.random.rand()  # noqa: NPY002
    torch.manual_seed(3), random.seed(3), np.random.seed(3)  # noqa: NPY002
    capture(net, SHAPE)
    assert torch.is_grad_enabled()
    have = torch.rand(2), random.random(), np.random.rand()  # noqa: NPY002
    assert torch.equal(have[0], want[0])
    assert have[1:] == want[1:]
    assert [module.training for module in net.modules()] == flags
    torch.testing.assert_close(net.state_dict(), state, rtol=0, atol=0)


def test_lists_that_hooks_fill_are_the_copys():
    net, seen = network(), []
    net.body.register_forward_hook(lambda m, args, out: seen.append(out))
    capture(net, SHAPE)
    assert seen == []


def test_hooks_on_all_modules_are_refused_while_they_are_there():
    handle = register_module_forward_hook(lambda m, args, out: out)
    try:
        (found,) = blockers(network(), SHAPE)
        assert "all modules of the process" in found.why
    finally:
        handle.remove()
    assert blockers(network(), SHAPE) == []
    handle = register_module_full_backward_hook(lambda m, a, b: None)
    try:
        assert blockers(network(), SHAPE) == []
    finally:
        handle.remove()


def test_what_a_network_prints_at_each_run_is_not_seen_twice(capsys):
    class Loud(Net):
        def ask(self, x):
            print("a line")
            return x

    capture(make(cls=Loud).eval(), SHAPE)
    assert capsys.readouterr().out.count("a line") <= 1


def test_saved_files_hold_what_instances_were_given(tmp_path):
    net = network()
    net.conv.forward = lambda x, conv=net.conv: torch.conv2d(x * 4 - 2, conv.weight, conv.bias)
    net.register_forward_hook(lambda m, args, out: out * 2)
    x = torch.rand(8, *SHAPE)
    spiking = snnc.compile(net, T=64, recipe="opi", calibration=x)
    snnc.save(spiking, tmp_path / "net.snn")
    assert torch.equal(snnc.load(tmp_path / "net.snn")(x), spiking(x))
    with torch.no_grad():
        assert (spiking(x) - net(x)).abs().max() < 0.1 * net(x).abs().max()


class Mine(nn.Conv2d):
    """A class of one's own with nothing of its own."""


class MineNormed(nn.BatchNorm2d):
    def __init__(self, channels):
        super().__init__(channels)
        self.note = "mine"

    def extra_repr(self):
        return self.note


@pytest.mark.parametrize("shape", [None, SHAPE])
def test_subclasses_with_an_unchanged_forward_are_their_base(shape):
    net = nn.Sequential(Mine(2, 3, 3), MineNormed(3), nn.ReLU()).eval()
    fill(net, torch.Generator().manual_seed(0))
    net[1].running_var.abs_()
    graph = capture(net, shape)
    assert [type(graph.get_submodule(n.target)) for n in graph.graph.nodes if n.op == "call_module"] == [
        nn.Conv2d,
        nn.BatchNorm2d,
        nn.ReLU,
    ]


class Acting(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 1)

    def forward(self, x):
        return torch.relu(self.fc(x).squeeze(1))


class Branching(nn.Module):
    def __init__(self, by_value):
        super().__init__()
        self.fc, self.by_value = nn.Linear(4, 4), by_value

    def forward(self, x):
        h = torch.relu(self.fc(x))
        question = h[0, 0] > 0 if self.by_value else x.shape[0] > 4
        return torch.cond(question, lambda v: v * 2, lambda v: v * 3, (h,))


SMALL = {
    "ConvTranspose2d": (nn.Sequential(nn.ConvTranspose2d(4, 2, 3, padding=1), nn.ReLU()), (4, 4)),
    "Conv2d": (nn.Sequential(nn.Conv2d(4, 2, 3, padding=1), nn.ReLU()), (4, 4)),
    "Conv1d": (nn.Sequential(nn.Conv1d(4, 2, 3, padding=1), nn.ReLU()), (4,)),
    "AvgPool1d": (nn.Sequential(nn.AvgPool1d(2), nn.ReLU()), (4,)),
    "AvgPool2d": (nn.Sequential(nn.AvgPool2d(2), nn.ReLU()), (4, 4)),
    "MaxPool2d": (nn.Sequential(nn.MaxPool2d(2), nn.ReLU()), (4, 4)),
    "AdaptiveAvgPool2d": (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.ReLU()), (4, 4)),
    "AdaptiveMaxPool3d": (nn.Sequential(nn.AdaptiveMaxPool3d(1), nn.ReLU()), (4, 4, 4)),
    "PixelShuffle": (nn.Sequential(nn.PixelShuffle(2), nn.ReLU()), (4, 4)),
    "Linear": (nn.Sequential(nn.Linear(4, 4), nn.ReLU()), ()),
    "relu": (Acting(), (4,)),
    "cond": (Branching(by_value=False), (4,)),
}


@pytest.mark.filterwarnings("ignore")  # of torch.export, about cond
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("door", ["live", "pt2"])
def test_inputs_without_channels_or_without_a_batch_are_refused_by_name(name, door):
    net, shape = SMALL[name]
    if door == "pt2":
        net = torch.export.export(net, (torch.randn(4, *shape),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    found = blockers(net, shape)
    assert name.lower() in [b.op.lower().replace("_", "") for b in found]


def test_a_choice_at_run_time_is_refused_by_name_without_a_shape_too():
    found = blockers(Branching(by_value=True))
    assert [b.op for b in found] == ["cond", "getitem"]  # and h[0, 0], which asks one sample for all
    with pytest.raises(Unsupported, match="at run time"):
        capture(Branching(by_value=True))


def test_a_lambda_over_the_network_is_no_matter_of_its_mode():
    net = make()
    net.body = Lambda(lambda x: torch.relu(net.act(x)))
    net.head = nn.Linear(3, 3)
    for mode in (True, False):
        for shape in (None, SHAPE):
            assert blockers(net.train(mode), shape) == []


class Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def test_a_captured_graph_is_not_compared_again():
    graph = capture(network(), SHAPE)
    assert isinstance(graph, fx.GraphModule)
    assert captured(graph).compared["why"] == "it is a graph already"


def test_torch_compile_works_after_a_capture():
    """In a process of its own: torch imports its compiler once, and that must not be while `len` is ours."""
    code = """
import torch, snnc
from torch import nn
snnc.capture(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
print(torch.compile(lambda x: x * len(x), backend="eager", fullgraph=True)(torch.ones(3)).tolist())
"""
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "[3.0, 3.0, 3.0]", run.stderr
