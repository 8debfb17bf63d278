"""Fixed-point networks on counts in bytes: every spike is the reference's, and bytes are what the file holds."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional

import snnc
from snnc.backends.onnx import count_layers, counting
from snnc.backends.onnx.count_joins import Summand, merged
from snnc.backends.onnx.levels import levels
from snnc.backends.onnx.model import OnnxModel
from snnc.backends.onnx.writer import model
from snnc.errors import SnncError, VerifyError
from snnc.files.emitted import COUNTING, neuron_of
from snnc.integers.pools import sums
from snnc.ir import dialect
from snnc.ir.graph import Stage, calls, insert, phases, remove, replace
from snnc.ir.neurons import NEURONS
from snnc.ir.proof import prove
from snnc.ir.shapes import every_shape
from snnc.ir.temporal import Decode
from snnc.networks.network import Network
from snnc.networks.onnx import OnnxNetwork
from snnc.passes import UseGradedNeurons, UseSignedNeurons, WaitForInput
from tests.backends.onnx.test_backend import layers
from tests.nets import NETS, sample, spiking
from tests.runtime.test_fast import integers, shifted

MODELS = {
    "binary": None,
    "signed": UseSignedNeurons(),
    "graded": UseGradedNeurons(2),
    "waiting": WaitForInput(2),
}
NAMES = [cls.__name__ for cls in NEURONS]


def closed(graph, shape):
    """The graph with nothing but readouts behind time, and sums for average pools; None if it has no such form."""
    shapes = every_shape(graph, shape)
    for node, pool in list(calls(graph, *dialect.AVERAGE_POOLS)):
        try:
            added, _ = sums(node.name, pool, torch.zeros(1, *shapes[node.all_input_nodes[0]]))
        except SnncError:
            return None
        replace(graph, node, added)
    readout = next((m.T, m.read, m.skip, m.late) for _, m in calls(graph, Decode))
    for node, _ in list(calls(graph, Decode)):
        remove(graph, node)
    out = next(node for node in graph.graph.nodes if node.op == "output")
    (last,) = out.all_input_nodes
    try:
        if phases(graph)[last] != "in" or any(calls(graph, *dialect.HEADS)):
            return None
        out.replace_input_with(last, insert(graph, "readout", Decode(*readout), last))
        graph.recompile()
        prove(graph)
    except VerifyError:
        return None
    return graph


def identical(graph, shape, x):
    """Compares every layer and readout with the reference; gives what stands before the neurons' names in the file."""
    history = {"input_shape": list(shape), "recipe": "test"}
    net = Network(graph, history, stage=Stage.FIXED, runtime="reference")
    made = model(net)
    there = OnnxNetwork(made, {**history, "stage": "FIXED", "latency": vars(net.latency)})
    trains, wanted = there.spikes(x), layers(net, x)
    assert list(trains) == list(wanted)
    assert [name for name in trains if not torch.equal(trains[name], wanted[name])] == []
    assert torch.equal(there.readout(x), net.readout(x))
    assert torch.equal(there(x), net(x))
    return {found[1] for node in made.graph.node if (found := neuron_of(node.op_type, NAMES))}


def written(names):
    """Files of some networks: weights held for all steps or read at each, sums as one convolution or apart."""
    for name in names:
        graph, shape = spiking(name, 5)
        net = Network(closed(integers(graph, seed=0), shape), {"input_shape": list(shape)}, stage=Stage.FIXED)
        for held, joined in ((0, merged), (2**20, merged), (0, lambda _: None)):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(count_layers, "HELD", held)
                patch.setattr(counting, "merged", joined)
                yield model(net)


@pytest.mark.parametrize("name", NETS)
def test_every_network(name):
    graph, shape = spiking(name, 5)
    graph = closed(integers(graph, seed=len(name)), shape)
    if graph is None:
        pytest.skip("it is no network of integers inside time")
    found = identical(graph, shape, sample(shape, 3))
    assert found & set(COUNTING) or len(shape) not in (1, 3)


@settings(max_examples=6)
@given(
    name=st.sampled_from(["conv", "residual", "dense", "inverted", "routes", "decoder", "mlp", "early"]),
    neurons=st.sampled_from([*MODELS]),
    seed=st.integers(0, 2**16),
    T=st.integers(3, 12),
    batch=st.integers(1, 5),
    most=st.integers(2, 40),
    moved=st.booleans(),
    held=st.sampled_from([0, 2**20]),
)
def test_any_integers_any_time_any_batch(name, neurons, seed, T, batch, most, moved, held):
    graph, shape = spiking(name, T, then=MODELS[neurons])
    graph = integers(graph, seed, most)
    graph = closed(shifted(graph, seed, 5) if moved else graph, shape)
    assume(graph is not None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(count_layers, "HELD", held)
        identical(graph, shape, sample(shape, batch, seed))


@pytest.mark.parametrize("most", [1, 8, 31, 127])
def test_levels_are_exact_on_both_sides_of_every_threshold(most):
    theta = torch.tensor([1, 2, 3, 4, 7, 8, 100, 255, 1000, 1001, 34484, 34549, 65536])
    theta = theta[theta * (most + 1) < 2**21]
    scale, offset = (value.numpy() for value in levels(theta, most))
    for t, s, o in zip(theta.tolist(), scale, offset, strict=True):
        edges = np.arange(-2, most + 1)[:, None] * t + np.array([-1, 0, 1])
        x = np.concatenate([edges.ravel(), np.arange(-300, 300), [(most + 1) * t, 2**24]])
        found = np.rint((x + o).astype(np.float32) * s).clip(0, 255)
        wanted = np.floor_divide(x, t).clip(0, 255)
        assert (found.clip(0, most) == wanted.clip(0, most)).all(), t


def test_thresholds_that_a_product_could_miss_are_left_out():
    assert levels(torch.tensor([2**20]), 127) is None
    assert levels(torch.tensor([60000]), 127) is None


@pytest.mark.parametrize("most", [1, 5, 8, 40, 100])
@pytest.mark.parametrize("factor", [30, 127, 128, 900, 3000, 5000])
def test_a_sum_of_layers_is_one_convolution(most, factor):
    """A kernel, a shortcut with weights at a stride, and one with factors: as parts that bytes hold, the same sums."""
    generator = torch.Generator().manual_seed(most + factor)

    def drawn(*shape, high=127):
        return torch.randint(-high, high + 1, shape, generator=generator).double()

    terms = (
        Summand("a", most, (40, 6, 6), drawn(8, 40, 3, 3), padding=(1, 1)),
        Summand("b", most, (3, 12, 12), drawn(8, 3, 1, 1), stride=(2, 2)),
        Summand("c", most, (8, 6, 6), torch.diag(drawn(8, high=factor))[:, :, None, None]),
    )
    given = {t.counts: torch.randint(0, most + 1, (2, *t.sample), generator=generator).double() for t in terms}
    wanted = sum(functional.conv2d(given[t.counts], t.weight, None, t.stride, t.padding) for t in terms)
    whole = merged(terms)
    assert whole is not None or factor > 127
    if whole is None:
        return
    parts = [given[p.counts][:, :, :: p.stride[0], :: p.stride[1]] * p.factor for p in whole.parts]
    assert max(float(part.max()) for part in parts) <= 127
    assert whole.term.small
    found = functional.conv2d(torch.cat(parts, 1), whole.term.weight, None, padding=whole.term.padding)
    assert torch.equal(found, wanted)


def test_a_layer_that_shares_no_size_is_no_part():
    one = Summand("a", 8, (4, 6, 6), torch.ones(4, 4, 3, 3).double(), stride=(2, 2), padding=(1, 1))
    other = Summand("b", 8, (4, 6, 6), torch.ones(4, 4, 3, 3).double(), padding=(1, 1))
    assert merged((one, other)) is None
    assert merged((Summand("a", 8, (4, 6, 6), 200 * torch.ones(4, 4, 1, 1).double()),)) is None


def test_a_file_in_floats_has_the_same_spikes(tmp_path):
    graph, shape = spiking("residual", 4)
    net = Network(closed(integers(graph), shape), {"input_shape": list(shape), "recipe": "test"}, stage=Stage.FIXED)
    there = [snnc.load(snnc.save(net, tmp_path / f"{i}.onnx", OnnxModel(integers=i == 1))) for i in range(2)]
    x = sample(shape, 3)
    kinds = [{node.op_type for node in one.model.graph.node if "IF" in node.op_type} for one in there]
    assert kinds[0] == {"UnitIF"}
    assert "UnitIF" not in kinds[1]
    assert torch.equal(there[0].readout(x), there[1].readout(x))
    assert there[0].heights().keys() == there[1].heights().keys()
    trains = [one.spikes(x) for one in there]
    assert all(torch.equal(trains[0][name], trains[1][name]) for name in trains[0])
