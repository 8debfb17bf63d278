"""Neurons in one kernel give the bits of the reference: in Triton's interpreter, or on a GPU where there is one."""

import copy
import importlib.util
import itertools
import re
import sys

import pytest
import torch

from snnc.graph import Stage
from snnc.network import Network
from snnc.neurons import IF, OffsetIF
from snnc.runtime import choice, gpu
from snnc.runtime.gpu import GpuScan
from snnc.runtime.scan import memory
from snnc.temporal import StepCurrent

from .nets import NETS, sample, spiking
from .test_fast import MODELS, T, assert_same, fixed, shifted

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
    source = importlib.util.find_spec("snnc.runtime.kernels").origin
    spec = importlib.util.spec_from_file_location("kernels_to_compile", source)  # the other one may be interpreted
    kernels = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kernels)
    warm, made = kernels.scan.warmup, {}

    class Launch:
        def __getitem__(self, grid):
            return lambda *args, **options: made.update({(k := warm(*args, grid=grid, **options)).hash: k})

    class Driver:
        get_current_device = get_current_stream = staticmethod(lambda *_: 0)
        get_current_target = staticmethod(lambda: compiler.GPUTarget("cuda", 80, 32))

    kernels.scan = Launch()
    monkeypatch.setitem(sys.modules, "snnc.runtime.kernels", kernels)
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


@pytest.mark.parametrize("name", ["residual", "maxpool", "mlp"])
def test_a_network_of_integers_counts_its_spikes(name):
    graph, shape = copy.deepcopy(fixed(name))  # it is kept for other tests, on the CPU
    made = assert_same(graph.to(DEVICE), False, sample(shape, 2).to(DEVICE), kind=GpuScan)
    assert made.joins


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


@pytest.mark.parametrize("place", ["cuda", "cpu"])
@pytest.mark.parametrize(
    ("dtype", "device"), [(torch.float64, "cpu"), (torch.bfloat16, "cpu"), (torch.float32, "meta")]
)
def test_what_a_process_takes_for_granted_changes_nothing(place, dtype, device, monkeypatch, caplog):
    """Defaults of torch for new tensors, set before the first call and after it."""
    net, shape = placed(monkeypatch, place)
    x = sample(shape, 3).to(next(net.graph.buffers()).device)
    want = Network(net.graph, {}, runtime="reference").readout(x)
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


def placed(monkeypatch, place="cuda"):
    """A network on the GPU, or one that is taken for it."""
    graph, shape = spiking("residual", T)
    net = Network(graph, {})
    if place == "cuda" and torch.cuda.is_available():
        return net.to("cuda"), shape
    monkeypatch.setattr(choice, "_place", lambda graph: place)
    return net, shape


@needs_gpu
def test_integers_on_a_gpu_spike_as_on_the_cpu():
    graph, shape = fixed("residual")
    net = Network(graph, {}, stage=Stage.FIXED)
    x = sample(shape, 64)
    assert torch.equal(copy.deepcopy(net).to("cuda").readout(x.cuda()).cpu(), net.readout(x))
