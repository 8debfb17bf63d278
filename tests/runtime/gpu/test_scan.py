"""Neurons in one kernel give the bits of the reference: in Triton's interpreter, or on a GPU where there is one."""

import copy
import importlib.util
import itertools
import re
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snnc.ir.graph import Stage
from snnc.ir.neurons import IF, OffsetIF
from snnc.ir.temporal import StepCurrent
from snnc.networks.network import Network
from snnc.runtime import choice
from snnc.runtime.cpu.scan import memory
from snnc.runtime.exact import in_double
from snnc.runtime.fast import FastRunner
from snnc.runtime.gpu import scan as gpu
from snnc.runtime.gpu.layer import GpuLayer, packed
from snnc.runtime.gpu.scan import GpuScan
from tests.nets import NETS, sample, spiking
from tests.runtime.test_fast import MODELS, T, assert_same, fixed, shifted

pytestmark = pytest.mark.skipif(not gpu.available(), reason="Triton is not installed")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """Without a GPU the kernel runs as Python, which Triton decides when it first reads it."""
    if not torch.cuda.is_available():
        monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.mark.parametrize("shape", [(5,), (3, 4, 7), (2, 9), (1, 3, 3), (4, 1, 1), (3, 30, 30)])
@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("channels", [False, True])
def test_neurons_in_one_kernel(shape, unit, channels):
    """Any shape, order of memory, window and join; random floats, so that another rounding would show."""
    steps, batch = 7, 2
    per = torch.rand(shape[0], *[1] * (len(shape) - 1), device=DEVICE) + 0.1
    theta = per if channels else torch.tensor(0.3, device=DEVICE)
    neuron = IF(steps, theta, theta / 3, unit)
    current, other = torch.randn(2, steps * batch, *shape, device=DEVICE)
    if len(shape) == 3 and shape[0] != 4:
        current, other = (v.contiguous(memory_format=torch.channels_last) for v in (current, other))
    for joined, own in itertools.product((None, other), (None, torch.randn(steps, *per.shape, device=DEVICE))):
        fed = current if joined is None else current + joined
        want = neuron(fed if own is None else StepCurrent(steps, own)(fed))
        for width in (1, 3, steps):
            state, parts = None, []
            one = GpuScan(neuron, unit, shift=own)
            for start in range(0, steps, width):
                now = slice(start * batch, min(start + width, steps) * batch)
                join = None if joined is None else joined[now]
                state, spikes = one(state, current[now], min(width, steps - start), join, begin=start)
                parts.append(spikes)
            assert torch.equal(torch.cat(parts), want)
            assert memory(spikes) == memory(current)
    same = current[:batch]
    assert torch.equal(GpuScan(neuron, unit)(None, same, steps, constant=True)[1], neuron(torch.cat([same] * steps)))


def test_the_kernel_compiles_for_gpus(monkeypatch, tmp_path):
    """As it is launched, to machine code, which takes no GPU; nothing contracts a product with a sum, or flushes.

    Triton compiles anew for whole numbers that are 1, and for those and addresses that are multiples of 16.
    """
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    compiler, runtime = (pytest.importorskip(f"triton.{part}") for part in ("backends.compiler", "runtime"))
    source = importlib.util.find_spec("snnc.runtime.gpu.kernels").origin
    spec = importlib.util.spec_from_file_location("kernels_to_compile", source)  # the other one may be interpreted
    kernels = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kernels)
    made = {}

    class Launch:
        def __init__(self, kernel):
            self.warm = kernel.warmup

        def __getitem__(self, grid):
            return lambda *args, **options: made.update({(k := self.warm(*args, grid=grid, **options)).hash: k})

    class Driver:
        get_current_device = get_current_stream = staticmethod(lambda *_: 0)
        get_current_target = staticmethod(lambda: compiler.GPUTarget("cuda", 80, 32))

    kernels.scan, kernels.layer = Launch(kernels.scan), Launch(kernels.layer)
    monkeypatch.setitem(sys.modules, "snnc.runtime.gpu.kernels", kernels)
    monkeypatch.setattr(runtime.driver, "_active", Driver())
    for size, steps, begin in ((1, 1, 0), (3, 2, 1), (16, 2, 0)):
        neuron, current = IF(4, torch.rand(size), torch.rand(size)), torch.zeros(steps, size)
        for own in (None, torch.zeros(4, size)):
            one = GpuScan(neuron, False, shift=own)
            state, _ = one(None, current, steps, current, begin=begin)
            one(state, current, steps, begin=begin)
            one(None, current[:1], steps, constant=True)
    assert len(made) > 12
    for kernel in made.values():
        assert kernel.asm["cubin"]
        used = {name.replace(".rn", "") for name in re.findall(r"\b[a-z]+[\w.]*\.f32\b", kernel.asm["ptx"])}
        assert {"add.f32", "sub.f32"} <= used <= {"add.f32", "sub.f32", "selp.f32", "setp.ge.f32"}
    made.clear()
    for each, joined in ((1, False), (16, True)):
        conv = torch.nn.Conv2d(16, 16, 3, 1, 1, groups=each).requires_grad_(False)
        conv.weight.copy_(torch.randint(-127, 128, conv.weight.shape))
        x = torch.zeros(4, 16, 8, 8, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
        packed(conv)(x)
        neuron = IF(2, torch.ones(()), torch.zeros(()), True)
        scan = GpuScan(neuron, True, torch.ones(()) if joined else None)
        packed(conv).firing(scan).fire(None, 2, 0, x, x if joined else None)
    assert len(made) == 4
    for kernel in made.values():
        assert kernel.asm["cubin"]
        assert "fma." not in kernel.asm["ptx"]
    assert sum("mma.sync" in kernel.asm["ptx"] and ".s8.s8" in kernel.asm["ptx"] for kernel in made.values()) == 2


@pytest.mark.parametrize(
    ("name", "model"), [*((name, "binary") for name in NETS), ("mlp", "offset"), ("conv", "offset")]
)
def test_a_network_keeps_every_bit(name, model):
    graph, shape = spiking(name, T, then=MODELS[model])
    for module in graph.modules():
        if isinstance(module, IF | OffsetIF):
            module.theta = module.theta * 0.7  # nothing dyadic: the same roundings, not none
    made = assert_same(graph.to(DEVICE), False, sample(shape, 2).to(DEVICE) * 1.1, kind=GpuScan)
    assert made.joins
    assert not made.layers


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("name", NETS)
def test_a_network_of_integers_keeps_every_spike(name, whole, monkeypatch):
    """Layers and their neurons in one kernel, or one after the other: on a GPU the number of rows decides."""
    monkeypatch.setattr(GpuLayer, "fills", lambda *_: whole)
    graph, shape = copy.deepcopy(fixed(name))  # it is kept for other tests, on the CPU
    made = assert_same(graph.to(DEVICE), True, sample(shape, 2).to(DEVICE), kind=GpuScan)
    assert made.joins
    assert bool(made.layers) == (name not in ("double", "conv1d", "conv3d", "bare"))


@pytest.mark.parametrize("name", ["residual", "maxpool", "mlp"])
def test_integers_that_nobody_proved_run_as_floats(name):
    graph, shape = copy.deepcopy(fixed(name))
    made = assert_same(graph.to(DEVICE), False, sample(shape, 2).to(DEVICE), kind=GpuScan)
    assert made.joins
    assert not made.layers


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_a_layer_of_any_kind_and_its_neurons(data):
    """Against sums of integers in float64: any geometry, number of channels, join, window, and unit of the weights."""

    def draw(*choices):
        return data.draw(st.sampled_from(choices))

    each, inputs = draw(False, False, True), draw(1, 3, 16, 20, 40, 150)
    outputs = inputs if each else draw(1, 5, 16, 33, 150)
    kernel, stride, dilation, padding = ((draw(1, 2, 3), draw(1, 2)) for _ in range(4))
    size, batch, steps = (draw(5, 6, 9), draw(5, 7)), draw(1, 3), draw(1, 4)
    torch.manual_seed(data.draw(st.integers(0, 99)))
    conv = torch.nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, inputs if each else 1, draw(True, False))
    with torch.no_grad():
        scale = 2.0 ** torch.randint(0, 4, (outputs,))
        conv.weight.copy_(torch.randint(-127, 128, conv.weight.shape) * scale.reshape(-1, 1, 1, 1))
        if conv.bias is not None:
            conv.bias.copy_(torch.randint(-999, 999, conv.bias.shape))
    conv = conv.to(DEVICE).requires_grad_(False)
    x = torch.randint(0, draw(2, 128), (steps * batch, inputs, *size), dtype=torch.uint8, device=DEVICE)
    current = in_double(conv, x.float())
    layer = packed(conv)
    assert torch.equal(layer(x), current)

    per = (outputs, 1, 1) if draw(True, False) else ()
    theta = torch.randint(1, 3000, per, device=DEVICE).float()
    neuron = IF(steps, theta, (theta / 2).floor(), draw(True, False))
    factor = draw(None, torch.tensor(3.0), torch.randint(-9, 9, (outputs, 1, 1)).float())
    own = draw(None, torch.randint(-99, 99, (steps, *per), device=DEVICE).float())
    whole = layer.firing(GpuScan(neuron, neuron.unit, factor, own))
    assert layer.scan is None
    y = None
    if draw(True, False) or factor is not None:
        y = torch.randint(0, 128, current.shape, device=DEVICE)
        y = (y.float() if factor is None else y.to(torch.uint8)).contiguous(memory_format=torch.channels_last)
        current = current + (y if factor is None else y.float() * factor.to(DEVICE))
    want = neuron(current if own is None else StepCurrent(steps, own)(current))
    state, parts, width = None, [], draw(1, steps)
    for begin in range(0, steps, width):
        rows = slice(begin * batch, (begin + width) * batch)
        state, spikes = whole.fire(state, width, begin, x[rows], None if y is None else y[rows])
        parts.append(spikes.float())
    assert torch.equal(torch.cat(parts), want)


def test_an_addition_that_repeats_a_value():
    conv = torch.nn.Conv2d(2, 3, 1).requires_grad_(False).to(DEVICE)
    conv.weight.copy_(torch.randint(-9, 9, conv.weight.shape))
    conv.bias.zero_()
    neuron = IF(1, torch.tensor(4.0), torch.tensor(2.0), True)
    whole = packed(conv).firing(GpuScan(neuron, True))
    for wide, there in ((4, True), (1, False), (5, False)):
        y = torch.zeros(2, 3, wide, wide, device=DEVICE)
        assert whole.takes(torch.zeros(2, 2, 4, 4, dtype=torch.uint8, device=DEVICE), y) == there


@given(st.data())
@settings(max_examples=10, deadline=None)
def test_a_linear_layer_and_its_neurons(data):
    inputs, outputs, steps = (data.draw(st.sampled_from(sizes)) for sizes in ((1, 40, 200), (1, 17, 140), (1, 3)))
    torch.manual_seed(data.draw(st.integers(0, 99)))
    linear = torch.nn.Linear(inputs, outputs, data.draw(st.booleans())).requires_grad_(False)
    for value in linear.parameters():
        value.copy_(torch.randint(-127, 128, value.shape))
    linear = linear.to(DEVICE)
    x = torch.randint(0, 128, (2 * steps, inputs), dtype=torch.uint8, device=DEVICE)
    theta = torch.randint(1, 9999, (outputs,), device=DEVICE).float()
    neuron = IF(steps, theta, theta / 4, True)
    _, spikes = packed(linear).firing(GpuScan(neuron, True)).fire(None, steps, 0, x)
    assert torch.equal(spikes.float(), neuron(linear(x.float())))


@pytest.mark.parametrize(
    "module",
    [
        torch.nn.Conv2d(4, 4, 3, groups=2),
        torch.nn.Conv2d(4, 8, 3, groups=4),
        torch.nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        torch.nn.Conv2d(4, 4, 3, padding="same"),
        torch.nn.Conv1d(4, 4, 3),
        torch.nn.ConvTranspose2d(4, 4, 3),
    ],
)
def test_layers_that_have_no_kernel(module):
    module.weight.data.round_()
    assert packed(module) is None


def test_a_linear_layer_on_maps():
    linear = torch.nn.Linear(5, 3).requires_grad_(False).to(DEVICE)
    linear.weight.copy_(torch.randint(-9, 9, linear.weight.shape))
    linear.bias.round_()
    x = torch.randint(0, 9, (4, 3, 2, 5), dtype=torch.uint8, device=DEVICE)
    layer = packed(linear)
    assert torch.equal(layer(x), linear(x.float()))
    whole = layer.firing(GpuScan(IF(2, torch.ones(3, 1, 1), torch.zeros(3, 1, 1), True), True))
    assert not whole.takes(x)  # neurons count the 3 maps, not the 3 outputs
    assert layer.firing(GpuScan(IF(2, torch.ones(2, 1), torch.zeros(2, 1), True), True)) is None
    conv = torch.nn.Conv2d(1, 3, 1).requires_grad_(False).to(DEVICE)
    conv.weight.fill_(1.0)
    assert packed(conv).firing(GpuScan(IF(2, torch.ones(1, 1, 3), torch.zeros(()), True), True)) is None


def test_weights_of_more_bits_have_no_kernel():
    module = torch.nn.Linear(2, 1)
    module.weight.data.copy_(torch.tensor([[255.0, 1.0]]))
    assert packed(module) is None
    module.weight.data.copy_(torch.tensor([[254.0, 2.0]]))
    assert packed(module) is not None


def test_currents_of_steps_are_part_of_the_kernel():
    graph, shape = spiking("residual", T)
    shifted(graph)
    made = assert_same(graph.to(DEVICE), False, sample(shape, 2).to(DEVICE), kind=GpuScan)
    assert any(join.scan.shift is not None for join in made.joins.values())


def test_a_network_on_a_gpu_takes_the_kernel(monkeypatch):
    """The whole way through the choice; without a GPU its tensors stay here, and only the choice believes otherwise."""
    net, shape = placed(monkeypatch)
    x = sample(shape, 3).to(next(net.graph.buffers()).device)
    reference = Network(net.graph, {}, runtime="reference")
    assert torch.equal(net.readout(x), reference.readout(x))
    assert "in one pass" in net.runs_by


def test_a_kernel_that_fails_is_off_with_one_warning(monkeypatch, caplog):
    net, shape = placed(monkeypatch)

    def broken(*_, **__):
        raise RuntimeError("no such processor")

    monkeypatch.setattr(GpuScan, "__call__", broken)
    x = sample(shape, 3).to(next(net.graph.buffers()).device)
    for _ in range(2):
        assert torch.equal(net.readout(x), Network(net.graph, {}, runtime="reference").readout(x))
    assert net.runs_by == "reference"
    assert [r.message for r in caplog.records] == [choice.SURPRISE % "no such processor"]


@pytest.mark.parametrize("fills", [False, True])
def test_the_check_at_load_sees_the_one_kernel_of_a_layer(fills, monkeypatch, caplog):
    """Also where the few rows that it runs are too few for that kernel."""
    net, shape = placed(monkeypatch, integers=True)
    monkeypatch.setattr(GpuLayer, "fills", lambda *_: fills)
    run = GpuLayer.fire

    def wrong(self, *args):
        state, spikes = run(self, *args)
        return state, 1 - spikes

    monkeypatch.setattr(GpuLayer, "fire", wrong)
    x = sample(shape, 3).to(next(net.graph.buffers()).device)
    want = Network(net.graph, {}, stage=net.stage, runtime="reference").readout(x)
    assert torch.equal(net.readout(x), want)
    assert net.runs_by == "reference"
    assert len(caplog.records) == 1


@pytest.mark.parametrize("integers", [False, True])
@pytest.mark.parametrize("place", ["cuda", "cpu"])
@pytest.mark.parametrize(
    ("dtype", "device"), [(torch.float64, "cpu"), (torch.bfloat16, "cpu"), (torch.float32, "meta")]
)
def test_what_a_process_takes_for_granted_changes_nothing(integers, place, dtype, device, monkeypatch, caplog):
    """Defaults of torch for new tensors, set before the first call and after it."""
    net, shape = placed(monkeypatch, place, integers)
    x = sample(shape, 3).to(next(net.graph.buffers()).device)
    want = Network(net.graph, {}, stage=net.stage, runtime="reference").readout(x)
    before = torch.get_default_dtype()
    for one in (copy.deepcopy(net), net):
        try:
            torch.set_default_dtype(dtype)
            with torch.device(device):
                assert torch.equal(one.readout(x), want)
        finally:
            torch.set_default_dtype(before)
        net(x)
    assert not caplog.records


@pytest.mark.parametrize("part", ["input", "weights", "thresholds"])
def test_gradients_are_not_lost(part, monkeypatch):
    """A kernel leaves no tape, so the reference runs where somebody may ask for gradients."""
    net, shape = placed(monkeypatch)
    x = sample(shape, 3).to(next(net.graph.buffers()).device)
    net(x)
    taken = {"input": x, "weights": net.graph.stem.weight, "thresholds": net.graph.relu0.theta}[part]
    taken.requires_grad_()
    net(x).sum().backward()
    assert taken.grad is not None
    with torch.no_grad():
        net(x)
    assert "in one pass" in net.runs_by


def placed(monkeypatch, place="cuda", integers=False):
    """A network on the GPU, or one that is taken for it."""
    graph, shape = copy.deepcopy(fixed("residual")) if integers else spiking("residual", T)
    net = Network(graph, {}, stage=Stage.FIXED if integers else Stage.SPIKING)
    if place == "cuda" and torch.cuda.is_available():
        return net.to("cuda"), shape
    monkeypatch.setattr(choice, "_place", lambda graph: place)
    monkeypatch.setattr(choice, "ReplayRunner", FastRunner)  # nothing records here
    return net, shape


@needs_gpu
def test_integers_on_a_gpu_spike_as_on_the_cpu():
    graph, shape = fixed("residual")
    net = Network(graph, {}, stage=Stage.FIXED)
    x = sample(shape, 64)
    assert torch.equal(copy.deepcopy(net).to("cuda").readout(x.cuda()).cpu(), net.readout(x))
