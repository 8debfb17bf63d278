"""The network as its users hold it: a pure function of any batch, in bounded memory, that refuses bad input."""

import copy

import pytest
import torch

import snnc
from snnc.cli.show import timing
from snnc.errors import DataError, SnncError, VerifyError
from snnc.ir.graph import calls, replace
from snnc.ir.neurons import AverageIF, Neuron, SignedIF
from snnc.networks.base import GradientWarning
from snnc.networks.network import Network
from snnc.passes import AverageInput, CalibrateOffset, MaskResidual, UseGradedNeurons, UseSignedNeurons, WaitForInput
from snnc.runtime.runner import Runner
from tests.nets import NETS, sample, spiking


def network(name, T=4, chunk=256, **options):
    graph, shape = spiking(name, T, **options)
    return Network(graph, {"input_shape": list(shape)}, chunk), shape


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("chunk", [1, 3, 8, 1000])
def test_any_batch_and_any_chunk_give_the_same(name, chunk):
    net, shape = network(name, chunk=chunk)
    x = sample(shape, 7)
    with torch.no_grad():
        want = net.graph(x)
        assert torch.equal(net(x), want)
        assert torch.equal(net(x), want)  # nothing to reset
        assert torch.equal(net.readout(x)[-1], want)
        assert torch.equal(torch.cat([net(one[None]) for one in x]), want)
        streamed, read = torch.stack(list(net.stream(x))), net.readout(x)
        assert torch.equal(streamed[[0, 1, 3]], read[[0, 1, 3]])
        assert torch.allclose(streamed[2], read[2], rtol=1e-6, atol=1e-6)  # a mean over 3 steps is not dyadic


@pytest.mark.parametrize("T", [2, 8, 64])
def test_rows_in_memory_do_not_grow_with_time(T):
    net, shape = network("residual", T=T, chunk=8)
    rows = []
    net.readout(sample(shape, 20), observe=lambda node, value, steps: rows.append(len(value)))
    assert max(rows) <= 8


@pytest.mark.parametrize(("T", "chunk", "batch"), [(16, 4, 3), (5, 7, 20), (3, 1, 2), (8, 8, 1), (4, 1000, 9)])
@pytest.mark.parametrize("name", NETS)
def test_no_layer_sees_more_rows_than_a_chunk(name, T, chunk, batch):
    """Before time, in it and after it; T may be longer than a chunk, and neither need divide the other."""
    net, shape = network(name, T, chunk)
    rows = []
    for module in net.graph.children():
        module.register_forward_hook(lambda _, inputs, output: rows.append(max(len(inputs[0]), len(output))))
    x = sample(shape, batch)
    for run in (net, lambda x: net.readout(x, observe=lambda node, value, steps: rows.append(len(value)))):
        run(x)
        assert 0 < max(rows) <= chunk
        rows.clear()


def test_a_layer_synchronous_network_holds_one_sample():
    """It cannot be cut in time, so where a chunk is shorter than that it holds one sample's steps."""
    net, shape = network("residual", 4, chunk=3, cos=CalibrateOffset(rho=6))
    rows = []
    out = net.readout(sample(shape, 5), observe=lambda node, value, steps: rows.append(len(value)))
    assert set(rows) == {6}
    assert out.shape == (4, 5, 4)


def test_parts_of_the_interface():
    """Neurons in order, T as it is read, and the schedule in words."""
    net, _ = network("residual", 4)
    assert [name for name, _ in net.neurons()] == ["relu0", "relu1", "relu2", "relu3"]
    assert (net.T, net.latency.depth, str(net.latency)) == (4, 4, "4 steps (streaming)")
    assert str(network("residual", 1)[0].latency) == "1 step (streaming)"
    assert not net.training
    # The longest path has all four layers; each takes 2 * 5 steps to calibrate and 5 to emit.
    cos, _ = network("residual", 2, cos=CalibrateOffset(rho=5, iterations=2))
    assert (cos.T, str(cos.latency)) == (2, "60 steps (layer-synchronous: 4 layers x 15)")


def test_a_network_is_an_ordinary_module():
    """It copies, its tensors are where modules have them, and nothing of it learns."""
    net, shape = network("maxpool", 4)
    x = sample(shape, 3)
    assert torch.equal(copy.deepcopy(net)(x), net(x))
    assert {name.rpartition(".")[2] for name in net.state_dict()} == {"weight", "bias", "theta", "v0"}
    assert not any(p.requires_grad for p in net.parameters())
    with pytest.raises(SnncError, match=r"snnc\.tune"):
        net.requires_grad_()
    with pytest.warns(GradientWarning, match=r"snnc\.tune"):
        net.train()
    assert torch.equal(net.eval()(x), net.requires_grad_(False)(x))
    broken = copy.deepcopy(net.graph)
    next(m for _, m in calls(broken, Neuron)).theta.zero_()
    with pytest.raises(VerifyError, match="theta"):
        Network(broken, {})


def test_latency_tells_the_schedule():
    net, _ = network("residual", T=4)
    assert (net.latency.schedule, net.latency.steps, net.latency.rho) == ("streaming", 4, 0)
    cos, shape = network("residual", T=4, cos=CalibrateOffset(rho=6, iterations=2))
    assert cos.latency.schedule == "layer-synchronous"
    assert (cos.latency.T, cos.latency.rho) == (4, 12)
    assert cos.latency.steps == cos.latency.depth * (12 + 6)
    with pytest.raises(SnncError, match="layer-synchronous"):
        list(cos.stream(sample(shape, 1)))


@pytest.mark.parametrize(
    ("then", "told"),
    [
        (UseSignedNeurons(), ("streaming", 4, 0, 4, "4 steps (streaming)")),
        (UseGradedNeurons(), ("streaming", 4, 0, 4, "4 steps (streaming)")),
        (MaskResidual(3), ("two-pass streaming", 4, 3, 7, "7 steps (two-pass streaming: 3 + 4)")),
        (WaitForInput(0), ("streaming", 4, 0, 4, "4 steps (streaming)")),
        # The first of the four layers knows its input.
        (WaitForInput(2), ("pipelined", 4, 0, 10, "10 steps (pipelined: 4 layers wait 6 in all)")),
        (WaitForInput("T"), ("pipelined", 4, 0, 13, "13 steps (pipelined: 4 layers wait 9 in all)")),
        (AverageInput(), ("layer-synchronous", 4, 0, 16, "16 steps (layer-synchronous: 4 layers x 4)")),
    ],
)
def test_latency_of_every_model(then, told):
    net, shape = network("residual", T=4, then=then)
    found = net.latency
    assert (found.schedule, found.T, found.rho, found.steps, str(found)) == told
    assert (found.depth, net.T) == (4, 4)
    assert found.simulated == Runner(net.graph).T
    assert net.readout(sample(shape, 3)).shape == (4, 3, 4)


def test_one_layer_decides_the_schedule():
    """Layers of every kind: the schedule is that of the one that needs most, and waits do not count in it."""
    net, _ = network("residual", T=4, then=WaitForInput(1))
    nodes = {node.name: node for node, _ in calls(net.graph, Neuron)}
    theta, v0 = torch.tensor(1.0), torch.tensor(0.5)
    replace(net.graph, nodes["relu1"], SignedIF(4, theta.clone(), v0.clone()))
    assert str(net.latency) == "6 steps (pipelined: 4 layers wait 2 in all)"
    replace(net.graph, nodes["relu3"], AverageIF(4, theta.clone(), v0.clone()))
    assert str(net.latency) == "16 steps (layer-synchronous: 4 layers x 4)"


def test_the_longest_wait_is_that_of_a_path():
    """Two branches behind one layer, one of which waits: the other is delayed until the join."""
    net, _ = network("shared", T=8, then=WaitForInput(3))
    assert [type(neuron).__name__ for _, neuron in net.neurons()] == ["IF", "IF", "WaitingIF"]
    assert net.latency.steps == 11
    assert net.latency.depth == 2


@pytest.mark.parametrize(
    ("then", "sentence"),
    [
        (UseSignedNeurons(), "4 steps (streaming)"),
        (
            MaskResidual(3),
            "7 steps (two-pass streaming: 3 + 4); T = 4 are read out, 3 before them decide which neurons stay silent",
        ),
        (WaitForInput(1), "7 steps (pipelined: 4 layers wait 3 in all); T = 4 are read out"),
        (AverageInput(), "16 steps (layer-synchronous: 4 layers x 4); T = 4 are read out"),
    ],
)
def test_timing_as_a_sentence(then, sentence):
    assert timing(network("residual", T=4, then=then)[0].latency) == sentence


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda x: x * torch.nan, "NaN or infinity"),
        (lambda x: x / 0, "NaN or infinity"),
        (lambda x: x.double() * 1e300, "holds NaN or infinity"),  # a number, but not in float32
        (lambda x: (x * 8).int(), "not floating-point"),
        (lambda x: x[:0], "empty"),
        (lambda x: x[0], "one sample, without a batch"),
        (lambda x: x[..., :3], "the network takes"),
    ],
)
def test_bad_input_is_refused(spoil, words):
    net, shape = network("conv")
    for run in (net, net.readout, lambda x: list(net.stream(x))):
        with pytest.raises(DataError, match=words):
            run(spoil(sample(shape, 2) + 1))


@pytest.mark.parametrize("T", [0, -1, 2.5, True, "8"])
def test_steps_that_are_none(T):
    with pytest.raises(SnncError, match="T is"):
        snnc.compile(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 2)), T=T)


def test_torch_compile_leaves_a_network_as_it_is():
    net, shape = network("conv")
    x = sample(shape, 3)
    compiled = torch.compile(net, backend="eager")
    for samples in (3, 2):
        assert torch.equal(compiled(x[:samples]), net(x[:samples]))


def test_compile_takes_what_loaders_yield():
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
    x = torch.randn(40, 6)
    y = torch.zeros(40)
    loaders = [
        x,
        x.numpy(),
        x.split(16),
        [(b, b) for b in x.split(16)],
        [{"image": b, "label": 0} for b in x.split(40)],
        torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 16),
        (b.numpy() for b in x.split(16)),
    ]
    want = snnc.compile(model, 4, "opi", x)(x)
    for loader in loaders:
        assert torch.equal(snnc.compile(model, 4, "opi", loader)(x), want)
    assert not any(p.requires_grad is False for p in model.parameters())  # the user's model is as it was


def normalised(*layers):
    """A net in eval mode whose batch normalisations have seen something."""
    net = torch.nn.Sequential(*layers)
    for module in net:
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
    return net.eval()


def test_an_input_of_other_dimensions_than_guessed_is_refused():
    """Along which dimension a BatchNorm1d acts is only known with the shape."""
    nn = torch.nn
    tokens = normalised(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))
    x = torch.randn(8, 16, 16)
    with pytest.raises(DataError, match="--input-shape 16,16"):
        snnc.compile(tokens, 8)(x)
    snn = snnc.compile(tokens, 256, "opi", x)
    assert (snn(x) - tokens(x)).norm() < 0.05 * tokens(x).norm()
    with pytest.raises(DataError, match="one sample, without a batch"):
        snnc.compile(tokens, 8)(torch.randn(16))


def test_normalisation_in_front():
    nn = torch.nn
    table = normalised(nn.BatchNorm1d(8), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    x = torch.randn(64, 8)
    snn = snnc.compile(table, 256)  # bare: no data, no shape
    assert snn(x[:1]).shape == (1, 4)
    assert (snn(x) - table(x)).norm() < 0.1 * table(x).norm()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions_are_computed_in_float32(dtype):
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).to(dtype)
    snn = snnc.compile(model, 4)
    x = torch.randn(5, 6)
    assert torch.equal(snn(x.double()), snn(x))
    assert next(model.parameters()).dtype == dtype
    assert not snn(x).requires_grad


def test_overflow_is_noticed():
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
    model[0].weight.data.fill_(2)
    with pytest.raises(DataError, match="NaN or infinit"):
        snnc.compile(model, 4)(torch.full((1, 6), 3e38))


def test_compiling_twice_is_refused():
    net, _ = network("conv")
    with pytest.raises(SnncError, match="spiking network already"):
        snnc.compile(net, 4)


def test_names_that_graphs_have_themselves():
    class Names(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.meta = torch.nn.Linear(4, 4)
            self.graph = torch.nn.ReLU()
            self.code = torch.nn.Linear(4, 2)

        def forward(self, x):
            return self.code(self.graph(self.meta(x)))

    assert snnc.compile(Names(), 4)(torch.randn(3, 4)).shape == (3, 2)


def test_in_place_through_a_view_of_a_module():
    class View(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.c, self.f, self.r = torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.ReLU(inplace=True)
            self.a, self.b = torch.nn.Linear(72, 3), torch.nn.Linear(72, 3)

        def forward(self, x):
            y = self.c(x)
            return self.a(self.r(self.f(y))) + self.b(torch.flatten(y, 1))

    net, x = View().eval(), torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        assert torch.allclose(snnc.capture(net, (1, 8, 8))(x), net(x), atol=1e-5)


def test_evaluating_leaves_the_ann_alone():
    model = torch.nn.Sequential(
        torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(8, 3)
    )
    x, y = torch.randn(50, 6), torch.randint(3, (50,))
    before = model[1].running_mean.clone()
    found = snnc.evaluate(snnc.compile(model, 64, "opi", x), [(x, y)], model.train())
    assert model.training
    assert torch.equal(model[1].running_mean, before)
    assert found.ann_accuracy == 100 * (model.eval()(x).argmax(1) == y).float().mean()
    assert found.agreement[-1] > 80
