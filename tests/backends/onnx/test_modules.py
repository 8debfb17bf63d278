"""Every module that can stand in a spiking graph is written as ONNX, and computes there what it computes in torch."""

import itertools

import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from snnc.backends.onnx.emitters import EMITTERS
from snnc.backends.onnx.functions import ATTRIBUTES, IR_VERSION, OPSET, Library
from snnc.backends.onnx.writer import model
from snnc.errors import SnncError
from snnc.files.emitted import DOMAIN, OPERATORS
from snnc.ir import dialect
from snnc.ir.curved import BENT
from snnc.ir.embedding import Embedding
from snnc.ir.graph import SPEC, GraphBuilder, Stage
from snnc.ir.neurons import IF, NEURONS, BipolarIF, GradedIF, Neuron, OffsetIF, ResidualMaskIF, WaitingIF
from snnc.ir.temporal import (
    Decode,
    Encode,
    Frames,
    GatedMax,
    Restart,
    RunningMax,
    StepCurrent,
    StepMax,
    Telescoped,
    Temporal,
)
from snnc.networks.network import Network
from snnc.networks.onnx import quiet_options
from tests.nets import fill

# Each module with the shape of one sample. Windows have sizes of 2^n, or their sums are divided once, so that dyadic
# numbers give the same quotient wherever it is taken.
MODULES = [
    (nn.Conv1d(2, 4, 3, 2, 1, 2), (2, 9)),
    (nn.Conv1d(4, 4, 4, padding="same", dilation=3, groups=4), (4, 11)),
    (nn.Conv2d(2, 4, (3, 2), (2, 1), (1, 0), groups=2), (2, 6, 5)),
    (nn.Conv2d(2, 3, 3, padding="valid", bias=False), (2, 5, 6)),
    (nn.Conv2d(2, 3, 4, padding="same", padding_mode="reflect"), (2, 5, 6)),
    (nn.Conv2d(2, 3, 3, 2, (2, 1), padding_mode="circular"), (2, 5, 6)),
    (nn.Conv2d(2, 3, 3, padding=1, padding_mode="replicate"), (2, 5, 6)),
    (nn.Conv3d(2, 3, 2, padding=1), (2, 3, 4, 5)),
    (nn.ConvTranspose1d(2, 4, 3, 2, 1, 1), (2, 5)),
    (nn.ConvTranspose2d(4, 4, 3, (2, 3), 1, (1, 2), 2, bias=False, dilation=2), (4, 4, 5)),
    (nn.ConvTranspose3d(2, 3, 2, 2), (2, 2, 3, 2)),
    (nn.Linear(6, 4), (6,)),
    (nn.Linear(6, 4, bias=False), (3, 2, 6)),
    (nn.AvgPool1d(4, 2, 1), (2, 9)),
    (nn.AvgPool1d(4, 3, ceil_mode=True), (2, 9)),
    (nn.AvgPool2d(2), (2, 5, 6)),
    (nn.AvgPool2d(4, 2, 1, count_include_pad=False), (2, 8, 8)),
    (nn.AvgPool2d((2, 4), (2, 3), (1, 1), ceil_mode=True), (2, 6, 8)),
    (nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), (2, 6, 8)),
    (nn.AvgPool2d(3, 2, 1, divisor_override=5), (2, 6, 7)),
    (nn.AvgPool2d(2, ceil_mode=True), (2, 4, 6)),
    (nn.AvgPool3d(2, 2, 1, divisor_override=3), (2, 3, 4, 5)),
    (nn.AvgPool3d(2, (2, 1, 2), ceil_mode=True), (2, 3, 4, 5)),
    (nn.AdaptiveAvgPool1d(4), (2, 8)),
    (nn.AdaptiveAvgPool1d(1), (2, 8)),
    (nn.AdaptiveAvgPool2d(1), (2, 4, 4)),
    (nn.AdaptiveAvgPool2d((None, 2)), (2, 3, 8)),
    (nn.AdaptiveAvgPool2d((4, 6)), (2, 5, 7)),
    (nn.AdaptiveAvgPool3d((1, 2, 3)), (2, 2, 4, 4)),
    (nn.MaxPool1d(3, 2, 1, 2), (2, 9)),
    (nn.MaxPool1d(3, 2, ceil_mode=True), (2, 10)),
    (nn.MaxPool2d((3, 2), 2, (1, 0)), (2, 7, 6)),
    (nn.MaxPool2d(3, 2, 1, ceil_mode=True), (2, 6, 8)),
    (nn.MaxPool2d(2, 4, ceil_mode=True), (2, 5, 6)),
    (nn.MaxPool3d(2, 1, 1, ceil_mode=True), (2, 3, 4, 3)),
    (nn.AdaptiveMaxPool1d(3), (2, 7)),
    (nn.AdaptiveMaxPool2d(1), (2, 4, 5)),
    (nn.AdaptiveMaxPool2d((None, 4)), (2, 3, 7)),
    (nn.AdaptiveMaxPool3d((2, 3, 1)), (2, 3, 5, 4)),
    (dialect.OwnSizeAvgPool2d(3), (2, 8, 4)),
    (dialect.Affine(torch.tensor([0.5, 2.0])[:, None], torch.tensor([1.0, -0.25])[:, None]), (2, 5)),
    (dialect.Affine(torch.tensor(0.5), torch.tensor(0.125)), (3,)),
    (dialect.Grid(torch.tensor([2.0, 4.0])[:, None], -3, 5), (2, 9)),
    (dialect.Pad((1, 2, 0, 3), "constant", 0.5), (2, 3, 4)),
    (dialect.Pad((0, 0, 0, 0, 1, 2)), (2, 3, 4)),
    (dialect.Pad((-1, 2, 1, -2)), (2, 4, 4)),
    (dialect.Pad((1, 2, 2, 0), "reflect"), (2, 3, 4)),
    (dialect.Pad((1, 2, 2, 0), "replicate"), (2, 3, 4)),
    (dialect.Pad((1, 2, 2, 0), "circular"), (2, 3, 4)),
    (dialect.Pad((2, -1, -1, 2), "reflect"), (2, 4, 4)),
    (dialect.Pad((2, -1), "circular"), (2, 5)),
    (dialect.Slice(((None, None, None), (1, -1, 2))), (2, 7, 3)),
    (dialect.Slice(((1, None, 1), (None, 3, None), (-4, None, 3))), (3, 5, 6)),
    (dialect.Slice(((None, None, None),)), (3,)),
    (dialect.Reshape((3, -1)), (2, 6)),
    (dialect.Permute((0, 3, -2, 1)), (2, 3, 4)),
    (dialect.Take(1, torch.tensor([2, 0, 0, 1])), (3, 2, 4)),
    (dialect.Take(-1, torch.tensor([3, 0])), (3, 2, 4)),
    (dialect.Mix(1, torch.tensor([[0.5, 0.25, -1.0], [2.0, 0.0, 0.125]])), (3, 2, 4)),
    (dialect.Mix(2, torch.tensor([[0.5, 0.25], [2.0, 0.125], [1.0, -1.0]])), (3, 2, 4)),
    (dialect.Mix(-1, torch.tensor([[0.5, 0.25, 1.0, 0.0]])), (3, 2, 4)),
    (dialect.Mix(1, torch.tensor([[0.5, 0.25, -1.0]])), (3,)),
    (dialect.Mean((2, -1)), (3, 2, 4)),
    (dialect.Mean((1,), True), (4, 3)),
    (nn.Flatten(), (2, 3, 4)),
    (nn.Flatten(2), (2, 3, 4)),
    (nn.Flatten(1, 2), (2, 3, 4)),
    (nn.Flatten(-2), (2, 3, 4)),
    (nn.Upsample(scale_factor=2.0), (2, 5)),
    (nn.Upsample(scale_factor=(2.0, 3.0)), (2, 3, 4)),
    (nn.Upsample(scale_factor=(1.5, 0.7)), (2, 6, 10)),
    (nn.Upsample(size=(7, 9)), (2, 3, 6)),
    (nn.Upsample(size=5), (2, 3, 4, 3)),
    (nn.PixelShuffle(2), (8, 3, 2)),
]
JOINS = [dialect.Add(), dialect.Sub(), dialect.Concat(1), dialect.Concat(-1)]
HEADS = [nn.Softmax(1), nn.LogSoftmax(-1)]
POOLS = [
    (nn.MaxPool1d(3, 2, 1), (2, 8)),
    (nn.MaxPool2d(3, 2, 1, ceil_mode=True), (2, 6, 8)),
    (nn.MaxPool2d((2, 3), (2, 1), (0, 1), (2, 1)), (2, 11, 8)),
    (nn.MaxPool3d(2), (2, 4, 8, 4)),
    (nn.AdaptiveMaxPool2d((3, 2)), (2, 7, 4)),
]
MORE = {BipolarIF: (3, True), GradedIF: (3,), WaitingIF: (2,), OffsetIF: (4,), ResidualMaskIF: (3,)}


def label(value):
    return type(value[0] if isinstance(value, tuple) else value).__name__


def eighths(*shape, low=-16, high=17, seed=0):
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed)) / 8


def network(*modules, shape, known=True, T=2):
    """Modules one after the other. One that takes several values takes the same in two forms."""
    build = GraphBuilder()
    x = build.input()
    for i, module in enumerate(modules):
        inputs = [x]
        if isinstance(module, tuple(map(type, JOINS))):
            inputs.append(build.call("half", dialect.Affine(torch.tensor(0.5), torch.tensor(1.0)), x))
        x = build.call(f"m{i}", module, *inputs)
    info = {"input_shape": list(shape) if known else None, "input_rank": None if known else len(shape) + 1}
    stage = Stage.FIXED if isinstance(modules[0], dialect.Grid) else Stage.SPIKING
    return Network(build.finish(x), {**info, "recipe": "test"}, stage=stage)


def runner(made):
    content = made.SerializeToString()
    session = onnxruntime.InferenceSession(content, quiet_options(1), providers=["CPUExecutionProvider"])
    return lambda x: [torch.from_numpy(value) for value in session.run(None, {"x": x.numpy()})]


def run(made, x):
    return runner(made)(x)


def test_nothing_is_missing():
    """A module that may stand in a spiking graph has a form in ONNX, and a case here; tables in `tests/several.py`."""
    wanted = SPEC[Stage.SPIKING] | SPEC[Stage.FIXED]
    elsewhere = {Encode, Decode, Embedding, Frames, *(cls for cls in wanted if issubclass(cls, Temporal))}
    assert EMITTERS.missing(wanted) == []
    assert {type(m) for m in (*(m for m, _ in MODULES), *JOINS, *HEADS)} | set(BENT) == wanted - elsewhere
    assert elsewhere == {
        Encode,
        Decode,
        Embedding,
        Frames,
        StepCurrent,
        *NEURONS,
        RunningMax,
        GatedMax,
        StepMax,
        Restart,
        Telescoped,
    }


def test_modules_that_snnc_does_not_know_are_refused():
    class Flip(nn.Module):
        def forward(self, x):
            return x.flip(-1)

    class Strange(Neuron):
        pass

    neuron = Strange(2, torch.tensor(1.0), torch.tensor(0.5))
    why = "cannot write 'm1', a Strange: 'Strange' has no row in the table 'emitters' of snnc/backends/onnx/emitters.py"
    for module, message in ((Flip(), "'Flip' has no row in the table"), (neuron, why)):
        net = network(Encode(2), IF(2, torch.tensor(1.0), torch.tensor(0.5)), Decode(2, 2), shape=(4,))
        net.graph.m1 = module
        with pytest.raises(SnncError, match=message):
            model(net)


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@pytest.mark.parametrize(("module", "shape"), MODULES, ids=label)
def test_modules(module, shape):
    """Before time, where the value comes out of the readout as it is, and in any batch."""
    if not isinstance(module, dialect.Affine | dialect.Grid):
        fill(module, torch.Generator().manual_seed(0))
    inside = () if isinstance(module, (*dialect.MAX_POOLS, dialect.Grid)) else (Encode(2), module, Decode(2, 2))
    for modules in ((module, Encode(2), Decode(2, 2)), inside):
        if not modules:
            continue
        written = runner(model(network(*modules, shape=shape)))
        for batch in (1, 3):
            x = eighths(batch, *shape, seed=batch)
            logits, by_step = written(x)
            assert torch.equal(logits, module(x))
            assert torch.equal(by_step, torch.stack([module(x)] * 2))


@pytest.mark.parametrize("join", JOINS, ids=str)
def test_joins(join):
    x = eighths(3, 2, 4)
    logits, _ = run(model(network(join, Encode(2), Decode(2, 2), shape=(2, 4))), x)
    assert torch.equal(logits, join(x, x * 0.5 + 1))


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_heads(head):
    """An exponential is no dyadic number: the only ones here that are equal up to rounding."""
    x = eighths(3, 4)
    logits, by_step = run(model(network(Encode(2), Decode(2, 2), head, shape=(4,))), x)
    assert torch.allclose(logits, head(x), rtol=1e-6)
    assert torch.allclose(by_step[0], head(x), rtol=1e-6)


def of_neuron(neuron, shape):
    """A model that is one neuron."""
    library = Library()
    attributes = {"T": neuron.T, **{name: getattr(neuron, name) for name in ATTRIBUTES.get(type(neuron), ())}}
    node = helper.make_node(
        library.neuron(neuron, 1 + len(shape)), ["x", "theta", "v0"], ["y"], domain=DOMAIN, **attributes
    )
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", *shape]) for name in "xy"]
    weights = [numpy_helper.from_array(getattr(neuron, name).numpy(), name) for name in ("theta", "v0")]
    graph = helper.make_graph([node], "neuron", values[:1], values[1:], weights)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, functions=library.needed(graph.node))
    onnx.checker.check_model(made, full_check=True)
    return made


@pytest.mark.parametrize("unit", [False, True], ids=["theta", "unit"])
@pytest.mark.parametrize("cls", NEURONS)
def test_neurons(cls, unit):
    """Currents of either sign that change from step to step; one threshold a layer, and one a channel."""
    T = 7
    x = eighths(T * 3, 2, 5) * (8 if unit else 1)
    for theta in (torch.tensor(2.0), torch.tensor([1.0, 4.0])[:, None]):
        neuron = cls(T, theta, theta / 2, *MORE.get(cls, ()), unit=unit)
        (found,) = run(of_neuron(neuron, (2, 5)), x)
        assert torch.equal(found, neuron(x))
        assert found.any()


@pytest.mark.parametrize("bits", [1, 2, 5, 16])
def test_graded_neurons_on_their_thresholds(bits):
    """A quotient is rounded, products decide: potentials on, just below and just above every kind of multiple."""
    theta = torch.tensor([0.1, 0.7, 1 / 3, 3.0])[:, None]
    multiples = torch.cat([torch.arange(-2.0, 70), torch.tensor([2.0**bits - 2, 2.0**bits - 1, 2.0**bits, 7e4, 1e30])])
    on = multiples * theta
    x = torch.stack([on, torch.nextafter(on, torch.tensor(-1e38)), torch.nextafter(on, torch.tensor(1e38))])
    neuron = GradedIF(1, theta, torch.zeros(4, 1), bits)
    (found,) = run(of_neuron(neuron, (4, len(multiples))), x)
    assert torch.equal(found, neuron(x))
    assert found.max() == ((2**bits - 1) * theta).max()


@pytest.mark.parametrize("options", [(1, 1), (4, 3), (4, 2, False), (4, 2, True, 0.25)], ids=str)
def test_offset_calibration(options):
    T = 5
    x = eighths(T * 40, 2, low=-24, high=25)
    neuron = OffsetIF(T, torch.tensor([1.0, 2.0]), torch.tensor(0.5), *options)
    neuron.eps = 2**-8 if neuron.eps < 0.1 else neuron.eps  # dyadic
    (found,) = run(of_neuron(neuron, (2,)), x)
    assert torch.equal(found, neuron(x))
    assert not torch.equal(found, OffsetIF(T, neuron.theta, neuron.v0, 1)(x)) or options == (1, 1)


def test_several_iterations_in_one_network():
    """Functions of one kind that differ have names that differ."""
    one, two = (OffsetIF(4, torch.tensor(1.0), torch.tensor(0.5), 4, n, True, 2**-8) for n in (1, 3))
    net = network(Encode(4), one, dialect.Affine(torch.tensor(0.5), torch.tensor(0.25)), two, Decode(4, 4), shape=(6,))
    made = model(net)
    names = [node.op_type for node in made.graph.node]
    assert [name for name in names if name.startswith("Offset")] == ["OffsetIF", "OffsetIF_2"]
    x = eighths(5, 6)
    assert torch.equal(run(made, x)[0], net(x))


@pytest.mark.parametrize("restart", [0, 2])
@pytest.mark.parametrize(("lowering", "pool", "shape"), [
    (lowering, *pool) for lowering, pool in itertools.product((RunningMax, GatedMax, StepMax), POOLS)
    if lowering is not GatedMax or "Adaptive" not in label(pool)
], ids=label)  # fmt: skip
def test_max_pools_in_time(lowering, pool, shape, restart):
    """Of spikes, and of currents of either sign, among which many are equal."""
    T = 6 if restart else 4
    neuron = IF(T, torch.tensor(2.0), torch.tensor(1.0))
    if restart:
        neuron = ResidualMaskIF(T, torch.tensor(2.0), torch.tensor(1.0), restart)
    fill(conv := {2: nn.Conv1d, 3: nn.Conv2d, 4: nn.Conv3d}[len(shape)](2, 2, 1), torch.Generator().manual_seed(1))

    def pooled():
        return Restart(T, lowering(T, pool), restart) if restart else lowering(T, pool)

    net = network(Encode(T), neuron, pooled(), conv, pooled(), Decode(T, 4, restart), shape=shape)
    x = eighths(3, *shape, low=0)
    logits, by_step = run(model(net), x)
    assert torch.equal(logits, net(x))
    assert torch.equal(by_step[[0, 1, 3]], net.readout(x)[[0, 1, 3]])
    assert logits.any()


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
def test_all_operators_are_known_to_the_reader():
    """What files may hold is what is written, and nothing else: each operator of the list is in one of these files."""
    from tests.backends.onnx import test_counting, test_curved  # which take helpers from here

    found = set()

    def gather(nodes):
        for node in nodes:
            if not node.domain:
                found.add(node.op_type)
            for attribute in node.attribute:
                gather(attribute.g.node)

    for module, shape in MODULES:
        gather(model(network(module, Encode(2), Decode(2, 2), shape=shape)).graph.node)
    for module in (*JOINS, *HEADS):
        gather(model(network(Encode(2), Decode(2, 2), module, shape=(4,))).graph.node)
    for cls in NEURONS:
        neuron = cls(4, torch.tensor(1.0), torch.tensor(0.5), *MORE.get(cls, ()))
        for function in of_neuron(neuron, (4,)).functions:
            gather(function.node)
    for lowering in (RunningMax, GatedMax):
        net = network(Encode(4), Restart(4, lowering(4, POOLS[0][0]), 2), Decode(4, 2, 2), shape=POOLS[0][1])
        for function in model(net).functions:
            gather(function.node)
    for make in test_curved.BODIES:
        for function in model(test_curved.network(make)).functions:
            gather(function.node)
    for whole in test_counting.written(("conv", "residual", "mlp", "shared")):
        gather(whole.graph.node)
        for function in whole.functions:
            gather(function.node)
    assert found == OPERATORS


@pytest.mark.parametrize(("module", "shape"), [
    (nn.AvgPool2d(3, 2, ceil_mode=True), (2, 6, 6)),
    (nn.AvgPool2d(2, divisor_override=3), (2, 6, 6)),
    (nn.MaxPool2d(2, ceil_mode=True), (2, 5, 5)),
    (nn.AdaptiveAvgPool2d(2), (2, 6, 6)),
    (nn.AdaptiveMaxPool2d(2), (2, 6, 6)),
    (dialect.OwnSizeAvgPool2d(2), (2, 6, 6)),
    (dialect.Pad((1, 1), "circular"), (2, 6, 6)),
    (nn.Upsample(size=8), (2, 6, 6)),
    (nn.Flatten(1, 2), (2, 6, 6)),
], ids=label)  # fmt: skip
def test_what_depends_on_the_shape_is_refused_without_it(module, shape):
    conv = nn.Conv2d(2, 2, 1)
    net = network(conv, module, Encode(2), Decode(2, 2), shape=shape, known=False)
    with pytest.raises(SnncError, match=f"needs the shape of the input to write 'm1' \\({type(module).__name__}"):
        model(net)


@pytest.mark.parametrize("module", [
    nn.AvgPool2d(2), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1), dialect.Pad((1, 1)),
    dialect.Pad((1, 1, 1, 1), "reflect"), nn.Upsample(scale_factor=2.0), nn.Flatten(), nn.Flatten(-2),
    nn.PixelShuffle(1),
], ids=label)  # fmt: skip
def test_what_does_not_is_written(module):
    """And takes samples of any size."""
    conv = fill(nn.Conv2d(2, 2, 1), torch.Generator().manual_seed(0))
    written = runner(model(network(conv, module, Encode(2), Decode(2, 2), shape=(2, 6, 6), known=False)))
    for size in ((6, 6), (4, 8)):
        x = eighths(2, 2, *size)
        assert torch.equal(written(x)[0], module(conv(x)))
