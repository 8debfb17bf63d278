"""Capture: every door gives the same graph, and what cannot be converted is refused by name."""

import io
import pickle
import re
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.utils import prune

from snnc.capture import blockers, capture, outcome, told_shape
from snnc.capture.refusals import SPIKING, reason
from snnc.errors import Unsupported
from snnc.ir.dialect import CONFIG
from snnc.ir.graph import Stage, calls, validate
from snnc.ir.neurons import IF
from snnc.ir.packing import pack
from snnc.ir.temporal import TIME
from tests.zoo import ZOO, dyadic, sample


def signature(graph: fx.GraphModule, names: bool = True):
    """Names, classes, options and wiring, in the order in which the output needs them (tracers order differently)."""
    order, pending = {}, [*graph.graph.find_nodes(op="output")]
    while pending:
        node = pending[-1]
        missing = [n for n in node.all_input_nodes if n not in order]
        pending += missing[::-1]
        if not missing:
            order.setdefault(pending.pop(), len(order))
    rows = []
    for node in order:
        if node.op == "call_module":
            packed = pack(graph.get_submodule(node.target))
            config = {k: v for k, v in packed["config"].items() if not isinstance(v, torch.Tensor)}
            inputs = [order[n] for n in node.all_input_nodes]
            rows.append((node.name if names else "", packed["type"], config, inputs))
    return rows


def state(graph):
    return {k: v for k, v in graph.state_dict().items() if not k.endswith("num_batches_tracked")}


def archived(net, shape, batch=2):
    file = io.BytesIO()
    dynamic = ({0: torch.export.Dim.AUTO},) if batch > 1 else None
    torch.export.save(torch.export.export(net, (torch.randn(batch, *shape),), dynamic_shapes=dynamic), file)
    file.seek(0)
    return torch.export.load(file)


def test_an_exported_program_tells_its_shape():
    program = archived(nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU()), (2, 6, 5))
    assert told_shape(program) == (2, 6, 5)
    assert blockers(program, (2, 6, 5)) == []
    (found,) = blockers(program, (2, 5, 6))
    assert found.why == "takes samples of shape 2,6,5, not 2,5,6"
    sizes = ({0: torch.export.Dim.AUTO, 2: torch.export.Dim.DYNAMIC},)
    assert told_shape(torch.export.export(nn.ReLU(), (torch.randn(2, 3, 4),), dynamic_shapes=sizes)) is None


# torch.export loses which of several names of a shared module was called, and which module a flatten came from.
UNNAMED = ("shared-relu", "dropout")


@pytest.mark.parametrize("name", ZOO)
def test_every_door_gives_the_same_graph(name):
    net, shape = ZOO[name]()
    graphs = [
        capture(net, shape),
        capture(pickle.loads(pickle.dumps(net)), shape),
        capture(archived(net, shape)),
        capture(archived(net, shape, 1)),
    ]
    x = sample(shape)
    with torch.no_grad():
        want = net(x)
        for graph in graphs:
            validate(graph, Stage.ANN)
            torch.testing.assert_close(graph(x), want, rtol=1e-6, atol=1e-6)
            assert signature(graph, names=name not in UNNAMED) == signature(graphs[0], names=name not in UNNAMED)
            if name not in UNNAMED:
                torch.testing.assert_close(state(graph), state(graphs[0]), rtol=0, atol=0)


@pytest.mark.parametrize("name", [n for n in ZOO if n != "shuffle"])
def test_most_networks_need_no_shape(name):
    net, shape = ZOO[name]()
    x = sample(shape)
    with torch.no_grad():
        torch.testing.assert_close(capture(net)(x), net(x), rtol=1e-6, atol=1e-6)


def test_names_follow_the_authors_paths():
    net, shape = ZOO["residual"]()
    names = [row[0] for row in signature(capture(net, shape))]
    assert names[:4] == ["conv", "bn", "relu", "layer1_0_conv1"]
    assert "layer1_1_pad" in names
    assert "layer1_1_add" in names


def test_the_users_model_is_left_alone():
    net = ZOO["plain"]()[0].train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    flags = [m.training for m in net.modules()]
    graph = capture(net, (3, 8, 8))
    with torch.no_grad():
        for value in graph.state_dict().values():
            value.zero_()
    assert [m.training for m in net.modules()] == flags
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)


def test_weights_are_copied_bit_for_bit():
    net, shape = ZOO["plain"]()
    graph = capture(net, shape)
    for name, value in net.state_dict().items():
        assert torch.equal(graph.state_dict()[name], value)


def test_the_random_state_is_left_alone():
    net, shape = ZOO["functional"]()
    torch.manual_seed(5)
    capture(net, shape)
    have = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(have, torch.rand(3))


def test_a_captured_graph_passes_through():
    net, shape = ZOO["qcfs"]()
    graph = capture(net, shape)
    again = capture(graph)
    assert again is not graph
    assert signature(again) == signature(graph)


def test_a_graph_of_somebody_elses_is_captured_like_a_module():
    net, shape = ZOO["max-pools"]()
    assert signature(capture(fx.symbolic_trace(net), shape)) == signature(capture(net, shape))


def test_a_shared_convolution_gets_a_copy_for_each_call():
    net, shape = ZOO["shared-conv"]()
    convs = [module for _, module in calls(capture(net, shape), nn.Conv2d)]
    assert len(convs) == 3
    assert convs[1].weight is not convs[2].weight
    assert torch.equal(convs[1].weight, convs[2].weight)


def test_parametrised_weights_are_computed_once():
    net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.ReLU()).eval()
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(capture(net)(x), net(x))
    assert "parametrizations" in str(net)


def _pruned(layer):
    return prune.l1_unstructured(layer, "weight", 0.5)


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("hooked", [nn.utils.weight_norm, nn.utils.spectral_norm, _pruned])
def test_weights_of_hooks_are_computed_once(hooked):
    net = nn.Sequential(hooked(nn.Conv2d(3, 4, 3)), nn.ReLU()).eval()
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(capture(net)(x), net(x))
    assert len(net[0]._forward_pre_hooks) == 1


def test_results_of_calculations_that_a_network_keeps_are_no_matter():
    net, shape = ZOO["plain"]()
    net.kept = net.fc.weight * 2
    assert blockers(net, shape) == []


def test_what_torch_compile_wraps_is_read():
    net, last, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU()).eval(), nn.Linear(4, 2), torch.randn(2, 3)
    compiled = torch.compile(net)
    assert torch.equal(capture(compiled)(x), net(x))
    assert torch.equal(capture(nn.Sequential(compiled, last))(x), last(net(x)))
    assert compiled._orig_mod is net


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:DeprecationWarning")
def test_torchscript_is_refused_in_so_many_words():
    net = torch.jit.trace(nn.Sequential(nn.Linear(3, 4), nn.ReLU()).eval(), torch.randn(2, 3))
    (blocker,) = blockers(net, (3,))
    assert "TorchScript" in blocker.why
    assert "scripted from" in blocker.hint


def test_a_quantised_network_is_refused_in_so_many_words():
    class Linear(nn.Module):
        """Stands for torch's own, which warns that it is deprecated."""

        def forward(self, x):
            return x

    Linear.__module__ = "torch.ao.nn.quantized.dynamic.modules.linear"
    (blocker,) = blockers(nn.Sequential(Linear(), nn.ReLU()))
    assert blocker.op == "Linear"
    assert "float network" in blocker.hint


def test_optional_arguments_take_their_defaults():
    class Net(nn.Module):
        def forward(self, x, mask=None, *, scale=2.0):
            return F.relu(x) * scale if mask is None else x

    assert [row[1] for row in signature(capture(Net()))] == ["ReLU", "Affine"]


class Aliased(nn.Module):
    """The body of a test on what in-place operations do to other names of a tensor."""

    def __init__(self, body):
        super().__init__()
        self.body, self.act = body, nn.ReLU(inplace=True)

    def forward(self, x):
        return self.body(x * 1.5, self.act)


def _add_in_place(x, _):
    y = x
    y += 1
    return F.relu(x) + y


def _multiply_and_read_both(x, _):
    y = x.contiguous()
    x *= 2
    return F.relu(x) + y


def _clone_first(x, _):
    y = x.clone()
    y.relu_()
    return x + y


def _module_in_place(x, act):
    y = act(x)
    return x + y


def _dropout_aliases(x, _):
    y = F.dropout(x, 0.5, training=False)
    y.relu_()
    return x - 0.5 * y


def _rebound(x, _):
    y = x
    y = y + 1
    return F.relu(x) + y


@pytest.mark.parametrize(
    "body", [_add_in_place, _multiply_and_read_both, _clone_first, _module_in_place, _dropout_aliases, _rebound]
)
@pytest.mark.parametrize("shape", [None, (3, 4, 4)])
def test_in_place_operations_mean_what_they_do(body, shape):
    x = torch.randn(2, 3, 4, 4)
    net = Aliased(body)
    torch.testing.assert_close(capture(net, shape)(x), net(x.clone()))


def test_a_view_that_is_changed_behind_its_base_is_refused_or_exported():
    def body(x, _):
        y = x.flatten(1)
        y.relu_()
        return x + 1

    net, x = Aliased(body), torch.randn(2, 3, 4, 4)
    (blocker,) = blockers(net)
    assert "in-place" in blocker.why
    torch.testing.assert_close(capture(net, (3, 4, 4))(x), net(x.clone()))


def mlp(body):
    """Two linear layers around a function."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(6, 4), nn.Linear(4, 3)
            self.se, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x):
            return self.fc2(body(self, F.relu(self.fc1(x))))

    return Net().eval()


def _branch(m, x):
    return x if x.sum() > 0 else x * 2


REFUSED = {
    "threshold": (lambda m, x: F.threshold(x, 0.5, 0), "threshold", "ReLU"),
    "batch flattened": (lambda m, x: x.flatten(), "flatten", "torch.flatten(x, 1)"),
    "batch fixed": (lambda m, x: x.view(1, -1), "view", "flatten"),
    "batch moved": (lambda m, x: x.transpose(0, 1), "transpose", "--input-shape"),
    "batch joined": (lambda m, x: torch.cat([x, x]), "cat", "dimension 1"),
    "batch mean": (lambda m, x: x - x.mean(0), "mean", "dimension 1"),
    "batch sliced": (lambda m, x: x[:2], "getitem", "x[:, ...]"),
    "mean of all": (lambda m, x: x - x.mean(), "mean", "dimensions"),
    "dropout left on": (lambda m, x: F.dropout(x, 0.5), "dropout", "training=self.training"),
    "batch statistics": (lambda m, x: F.batch_norm(x, None, None, training=True), "batch_norm", "track_running_stats"),
    "attention": (
        lambda m, x: F.scaled_dot_product_attention(x, x, x),
        "scaled_dot_product_attention",
        "[B, ..., N, C]",
    ),
    "counter": (lambda m, x: x + m.count.add_(x.size(0)), "add_", "self.training"),
    "cast": (lambda m, x: x.to(torch.int32), "to", "floating"),
    "constant of ones": (lambda m, x: x + torch.ones_like(x), "ones_like", "--input-shape"),
    "random": (lambda m, x: x + torch.rand_like(x), "rand_like", "eval()"),
    "length": (lambda m, x: x / len(x), "truediv", "samples"),
    "count of samples": (lambda m, x: x / x.size(0), "truediv", "samples"),
    "unheard of": (lambda m, x: torch.fft.fft(x), "fft_fft", "torch.nn"),
    "quantiser above zero": (lambda m, x: torch.round(x.clamp(0.3, 1) * 4) / 4, "round", "clamp(x / lam"),
    "rounding without bound": (lambda m, x: torch.floor(x * 8) / 8, "floor", "clamp(x / lam"),
    "signed quantiser": (lambda m, x: torch.round(m.se(x).clamp(-1, 1) * 4) / 4, "round", "clamp(x / lam"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_converted_is_refused(case):
    body, op, hint = case
    (blocker,) = blockers(mlp(body))
    assert blocker.op == op
    assert hint in blocker.hint
    with pytest.raises(Unsupported, match=re.escape(blocker.why[:20])):
        capture(mlp(body))


@pytest.mark.parametrize("name", ["threshold", "dropout left on", "signed quantiser"])
def test_the_export_door_does_not_lead_around_a_refusal(name):
    body, op, _ = REFUSED[name]
    assert [b.op for b in blockers(mlp(body), (6,))] == [op]
    assert len(blockers(torch.export.export(mlp(body), (torch.randn(2, 6),)))) == 1


def test_the_places_of_maxima_are_refused_where_they_are_read():
    (blocker,) = blockers(mlp(lambda m, x: x + x[:, :, None].max(2)[1]), (6,))
    assert blocker.op == "add"
    assert "the maxima alone" in blocker.hint


def test_a_refusal_names_the_line():
    def body(m, x):
        return F.threshold(x, 0.5, 0)

    (live,) = blockers(mlp(body))
    assert live.where == f"{__file__}:{body.__code__.co_firstlineno + 1}"
    # torch.export keeps the lines of forward methods only.
    (archived,) = blockers(torch.export.export(mlp(body), (torch.randn(2, 6),)))
    assert archived.where.startswith(f"{__file__}:")


def test_all_blockers_come_at_once():
    def body(m, x):
        return F.threshold(x, 0.5, 0) + F.dropout(x, 0.5) + x.to(torch.int32) + torch.rand_like(x)

    assert [b.op for b in blockers(mlp(body))] == ["threshold", "dropout", "to", "rand_like"]
    with pytest.raises(Unsupported, match="And 3 more"):
        capture(mlp(body))


def test_control_flow_is_refused_with_or_without_a_shape(capfd):
    (without,) = blockers(mlp(_branch))
    (given,) = blockers(mlp(_branch), (6,))
    assert "--input-shape" in without.hint
    assert "out of forward" in given.hint
    for blocker in (without, given):
        assert "decides" in blocker.why
        assert blocker.where == f"{__file__}:{_branch.__code__.co_firstlineno + 1}"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "layer",
    [nn.MaxPool2d(2, return_indices=True), nn.BatchNorm2d(4, track_running_stats=False),
     nn.MultiheadAttention(4, 1), nn.LSTM(4, 4), nn.Flatten(0),
     nn.LPPool2d(2, 2), nn.Threshold(0.5, 0.0)],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_layers_that_are_refused(layer):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), layer).eval()
    (blocker,) = blockers(net)
    assert blocker.node.endswith("2")
    assert len(blocker.hint) > 10


def test_no_activation_is_refused_in_so_many_words():
    net = nn.Sequential(nn.Conv2d(3, 6, 5), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6, 10))
    with pytest.raises(Unsupported, match="has no activation, so there would be no neuron"):
        capture(net)


def test_weights_that_are_not_numbers_are_refused():
    net = ZOO["plain"]()[0]
    net.bn2.running_var[3] = float("nan")
    (blocker,) = blockers(net)
    assert blocker.node == "bn2"
    assert "running_var" in blocker.why


class Several(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.body = forward

    def forward(self, x):
        return self.body(F.relu(x))


def test_outputs_that_no_input_reaches_are_refused():
    for body in (lambda x: torch.ones(2), lambda x: (x, torch.ones(2))):
        (blocker,) = blockers(Several(body))
        assert (blocker.op, blocker.why) == ("output", outcome.ONCE)


def test_hooks_of_layers_are_traced():
    net, shape = ZOO["plain"]()
    net.conv1.register_forward_hook(lambda module, args, output: output * 2)
    x = torch.rand(3, *shape)
    for told in (None, shape):
        assert torch.equal(capture(net, told)(x), net(x))


def test_a_constant_of_the_datas_shape_is_refused_but_for_padding():
    (blocker,) = blockers(Several(lambda x: F.linear(x, torch.ones_like(x))), (4, 3))
    assert blocker.op == "linear"
    x = torch.randn(2, 4, 3)
    assert torch.equal(capture(Several(lambda x: x + torch.ones_like(x)), (4, 3))(x), F.relu(x) + 1)
    assert blockers(Several(lambda x: torch.cat([x, torch.zeros_like(x)], 1)), (4, 3)) == []


def test_the_wrong_shape_is_refused():
    net, _ = ZOO["plain"]()
    with pytest.raises(Unsupported, match="--input-shape"):
        capture(net, (1, 8, 8))


@pytest.mark.parametrize(
    "body", [lambda x: x.squeeze(), lambda x: x.view(x.size(0), x.size(1) // 2, -1), lambda x: x.chunk(2, 1)[0]]
)
def test_what_depends_on_the_shape_asks_for_it(body):
    found = blockers(Several(body))
    assert all("--input-shape" in b.hint for b in found)
    assert len(found) == 1
    assert blockers(Several(body), (4, 3)) == []


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_a_batch_that_is_written_as_a_number_is_refused(batch):
    found = blockers(Several(lambda x: x.view(batch, -1)), (4, 3))
    assert [b.why for b in found] == [f"fixes the batch at {batch}"]


def test_python_that_reads_shapes_goes_through_export():
    def body(x):
        features = 1
        for size in x.size()[1:]:
            features *= size
        return x.view(-1, features) if len(x.shape) > 2 else x

    (blocker,) = blockers(Several(body))
    assert "--input-shape" in blocker.hint
    assert [row[1] for row in signature(capture(Several(body), (4, 3, 3)))] == ["ReLU", "Flatten"]


def test_random_numbers_at_inference_are_refused():
    (blocker,) = blockers(mlp(lambda m, x: x + torch.rand(4)))
    assert "random" in blocker.why


def test_a_spiking_network_is_refused():
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), IF(4, torch.tensor(1.0), torch.tensor(0.5)))
    (blocker,) = blockers(net)
    assert "spiking" in blocker.why


def test_a_network_that_cannot_be_copied_is_refused():
    net = ZOO["plain"]()[0]
    net.kept = threading.Lock()
    with pytest.raises(Unsupported, match="cannot be copied"):
        capture(net)
    assert len(blockers(net)) == 1


def test_double_precision_is_kept():
    net, shape = ZOO["normalised"]()
    graph, x = capture(net.double(), shape), sample(shape).double()
    torch.testing.assert_close(graph(x), net(x), rtol=1e-12, atol=1e-12)


def test_a_reshape_that_may_merge_samples_is_checked_when_it_runs():
    """Without a shape, `view(-1, 8)` may or may not flatten one sample."""
    graph = capture(Several(lambda x: x.view(-1, 8)))
    assert graph(torch.randn(3, 2, 4)).shape == (3, 8)
    with pytest.raises(RuntimeError):
        graph(torch.randn(3, 4, 4))
    (blocker,) = blockers(Several(lambda x: x.view(-1, 8)), (4, 4))
    assert "moves the batch" in blocker.why


@pytest.mark.parametrize("kind", [kind for kind in CONFIG if issubclass(kind, TIME)])
def test_what_spikes_is_known_by_name(kind):
    assert reason(kind.__name__) is SPIKING


@pytest.mark.parametrize("name", ["residual", "qcfs"])
def test_dyadic_networks_stay_on_their_grid(name):
    net = dyadic(ZOO[name]()[0])
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert 1 + module.eps == 1
            assert set(module.running_var.tolist()) <= {0.25, 1.0, 4.0}
    for value in net.parameters():
        assert torch.equal(value * 64, (value * 64).round())
