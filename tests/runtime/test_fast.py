"""The fast runtime gives the reference's values at every node, to the bit, or says that it cannot run."""

import copy
import functools
import itertools
import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from snnc.errors import DataError, SnncError
from snnc.ir import dialect
from snnc.ir.graph import Stage, calls, insert, module_of, phases, replace
from snnc.ir.neurons import IF, Neuron
from snnc.ir.temporal import Decode, StepCurrent
from snnc.networks.network import Network, near
from snnc.passes import (
    AverageInput,
    CalibrateOffset,
    FixedPoint,
    MaskResidual,
    UseGradedNeurons,
    UseSignedNeurons,
    WaitForInput,
)
from snnc.passes.pipeline import Context, Pipeline
from snnc.runtime import choice
from snnc.runtime.counts import COUNTS
from snnc.runtime.cpu import loops, scan
from snnc.runtime.cpu.integer import packed
from snnc.runtime.fast import FastRunner
from snnc.runtime.plan import plan
from snnc.runtime.runner import Runner
from tests.nets import NETS, sample, spiking

T = 8
MODELS = {
    "binary": None,
    "signed": UseSignedNeurons(),
    "graded": UseGradedNeurons(2),
    "many": UseGradedNeurons(8),
    "mask": MaskResidual(2),
    "waiting": WaitForInput(2),
    "average": AverageInput(),
    "offset": CalibrateOffset(rho=3),
}
needs_numba = pytest.mark.skipif(not scan.available(), reason="numba is not installed")


def integers(graph, seed=0, most=9):
    """The graph with integers for its numbers, counting neurons, a grid in front and factors on shortcuts. In place."""
    generator = torch.Generator().manual_seed(seed)

    def pick(low, high, value):
        return torch.randint(low, high, value.shape, generator=generator).to(value)

    phase = phases(graph)
    for node, module in list(calls(graph)):
        if isinstance(module, Neuron):
            module.unit, module.theta = True, pick(1, most, module.theta)
            module.v0 = pick(-2, most, module.theta)
        elif isinstance(module, dialect.WEIGHTED):
            for value in (module.weight, module.bias):
                if value is not None:
                    value.data = pick(-4, 6, value)
        elif isinstance(module, dialect.Affine):
            module.scale, module.shift = pick(1, 5, module.scale), pick(-3, 4, module.shift)
        elif isinstance(module, dialect.Add) and phase[node] == "in":
            for source in set(node.all_input_nodes):
                if phase[source] == "in" and not isinstance(module_of(graph, source), dialect.WEIGHTED):
                    factor = dialect.Affine(torch.tensor(3.0), torch.tensor(0.0))
                    node.replace_input_with(source, insert(graph, f"{node.name}_factor", factor, source))
    source = next(iter(graph.graph.nodes))
    readers = list(source.users)
    grid = insert(graph, "grid", dialect.Grid(torch.tensor(4.0), -8, 8), source)
    for reader in readers:
        reader.replace_input_with(source, grid)
    graph.recompile()
    return graph


@functools.cache
def fixed(name):
    """The graph as the compiler makes it of integers."""
    graph, shape = spiking(name, T)
    context = Context(T=T, calibration=[sample(shape, 8)], input_shape=shape)
    return Pipeline((FixedPoint(),)).run(graph, context, Stage.SPIKING).graph, shape


def shifted(graph, seed=0, most=0, every=1):
    """The graph with a current of its own for every step in front of neurons: of all, or of each second one."""
    generator = torch.Generator().manual_seed(seed)
    for place, (node, neuron) in enumerate(list(calls(graph, Neuron))):
        if place % every:
            continue
        shape = (neuron.T, *neuron.theta.shape)
        drawn = torch.randint(-most, most + 1, shape, generator=generator).float() if most else None
        own = StepCurrent(neuron.T, torch.randn(shape, generator=generator) if drawn is None else drawn)
        source = node.all_input_nodes[0]
        node.replace_input_with(source, insert(graph, f"{node.name}_current", own, source))
    graph.recompile()
    return graph


def values(runner, x, window):
    """Final readout, running readouts, and the value of every node that is formed."""
    found = {}
    with torch.no_grad():
        final = runner.run(x, window)
        every = runner.run(
            x, window, anytime=True, observe=lambda n, v, w: found.setdefault(n.name, []).append(v.clone())
        )
    return final, every, found


def assert_same(graph, fixed, x, windows=(None, 3), kind=scan.Scan):
    x, made = near(x), plan(graph, fixed, kind)
    reference = Runner(graph)
    for window in windows if reference.streaming else (None,):
        final, every, want = values(reference, x, window)
        _, _, found = values(FastRunner(made, whole=True), x, window)
        assert found.keys() == want.keys()
        for name in want:
            for a, b in zip(found[name], want[name], strict=True):
                assert torch.equal(a, b), (name, window)
                assert fixed or a.stride() == b.stride(), (name, window)  # by which layers choose how to sum
        with torch.no_grad():
            assert torch.equal(FastRunner(made, once=True).run(x, window), final)
            assert torch.equal(FastRunner(made).run(x, window), final)
            assert torch.equal(FastRunner(made).run(x, window, anytime=True), every)
    return made


@needs_numba
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("model", MODELS)
def test_a_float_network_keeps_every_bit(name, model):
    graph, shape = spiking(name, T, then=MODELS[model])
    for _, neuron in calls(graph, Neuron):
        neuron.theta = neuron.theta * 0.7  # nothing dyadic: the same roundings, not none
    made = assert_same(graph, False, sample(shape, 3) * 1.1)
    assert bool(made.joins) or model not in ("binary", "offset")
    assert not made.layers


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 3), (2, 3), (4, 2), (3, 3)])
@pytest.mark.parametrize(
    "geometry", [{}, {"padding": 1}, {"padding": (2, 1)}, {"padding": 1, "stride": 2}, {"padding": 2, "dilation": 2}]
)
@pytest.mark.parametrize("counts", [False, True])
def test_maps_that_are_smaller_than_a_kernel(size, geometry, counts):
    generator = torch.Generator().manual_seed(sum(size))
    conv = nn.Conv2d(5, 6, 3, bias=not counts, **geometry).requires_grad_(False)
    drawn = torch.randint(0 if counts else -127, 3 if counts else 128, conv.weight.shape, generator=generator)
    conv.weight.copy_(drawn if counts else 2 * drawn)
    if not counts:
        conv.bias.copy_(torch.randint(-999, 999, (6,), generator=generator))
    x = torch.randint(0, 2 if counts else 128, (7, 5, *size), generator=generator, dtype=torch.uint8)
    try:
        want = conv(x.float())
    except RuntimeError:
        pytest.skip("the kernel does not fit in")
    found = packed(conv, counts)(near(x))
    assert torch.equal(found.float(), want)
    assert found.dtype == (torch.uint8 if counts else torch.float32)


def test_a_kernel_that_does_not_fit_is_refused():
    conv = nn.Conv2d(8, 4, 3, stride=2).requires_grad_(False)
    conv.weight.fill_(1.0)
    with pytest.raises(RuntimeError, match="Kernel size"):
        packed(conv)(near(torch.ones(1, 8, 2, 2, dtype=torch.uint8)))


def test_a_dilation_along_a_single_line():
    """oneDNN crashed on it."""
    conv = nn.Conv2d(4, 4, (3, 1), (1, 2), (2, 1), (2, 2)).requires_grad_(False)
    conv.weight.copy_(torch.randint(-9, 9, conv.weight.shape))
    conv.bias.round_()
    x = torch.randint(0, 9, (5, 4, 4, 1), dtype=torch.uint8)
    assert torch.equal(packed(conv)(near(x)), conv(x.float()))


@needs_numba
def test_modules_that_change_places_are_seen():
    graph, shape = copy.deepcopy(spiking("residual", T))
    net, x = Network(graph, {}), sample(shape, 3)
    first, second = (node.target for node, _ in list(calls(graph, IF))[:2])
    graph.get_submodule(second).theta = graph.get_submodule(second).theta * 0.3
    before = net(x)
    named, other = dict(graph.named_children()), {first: second, second: first}
    for name in named:
        delattr(graph, name)
    for name, module in named.items():  # in the old order
        graph.add_module(other.get(name, name), module)
    assert torch.equal(net(x), Network(graph, {}, runtime="reference")(x))
    assert not torch.equal(net(x), before)


@needs_numba
@pytest.mark.parametrize("before", [False, True])
def test_hooks_are_called(before):
    """What is fast does not call the modules that it stands for, and nothing that was recorded would."""
    graph, shape = copy.deepcopy(spiking("residual", T))
    net, x = Network(graph, {}), sample(shape, 3)
    plain = net(x)
    if before:
        hook = graph.conv1.register_forward_pre_hook(lambda module, args: (args[0] * 0,))
    else:
        hook = graph.conv1.register_forward_hook(lambda module, args, current: current * 0)
    assert not torch.equal(net(x), plain)
    assert net.runs_by == "reference"
    hook.remove()
    assert torch.equal(net(x), plain)
    assert net.runs_by != "reference"


@needs_numba
def test_a_last_window_of_one_row_lies_in_memory_as_those_before():
    """Rows cut out of a channels-last map: one sample of them looks as if it were in that order, more do not."""
    graph, shape = spiking("residual", T)
    node = next(node for node, _ in calls(graph, Neuron) if node.all_input_nodes[0].name == "conv1")
    (source,) = node.all_input_nodes
    node.replace_input_with(source, insert(graph, "cut", dialect.Slice(((None, None, None), (0, 7, 1))), source))
    back = insert(graph, "back", dialect.Pad((0, 0, 0, 1)), node)
    node.replace_all_uses_with(back, delete_user_cb=lambda user: user is not back)
    graph.recompile()
    assert_same(graph, False, sample(shape, 1), (T - 1, T - 3))


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("model", MODELS)
def test_integers_may_run_in_any_order(name, model):
    graph, shape = spiking(name, T, then=MODELS[model])
    graph = integers(graph, seed=len(name))
    assert_same(graph, True, sample(shape, 3))


def test_bytes_are_read_out_for_more_steps_than_a_byte_counts():
    graph, shape = spiking("bare", 300)
    assert_same(integers(graph), True, sample(shape, 2), (None, 70))


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("name", ["residual", "mlp"])
def test_a_spike_is_as_high_as_its_neuron_says(name, unit):
    """Integers whose neurons emit theta, and counts in a network that is none of integers any more."""
    graph, shape = spiking(name, T)
    graph = integers(graph)
    for _, neuron in calls(graph, Neuron):
        neuron.unit = unit
    assert_same(graph, not unit, sample(shape, 3))


@settings(max_examples=25)
@given(
    name=st.sampled_from(["conv", "residual", "dense", "maxpool", "inverted", "routes", "decoder", "mlp", "early"]),
    seed=st.integers(0, 2**16),
    T=st.integers(1, 12),
    batch=st.integers(1, 5),
    window=st.integers(1, 12),
    most=st.integers(2, 40),
)
def test_any_integers_any_time_any_batch(name, seed, T, batch, window, most):
    graph, shape = spiking(name, T)
    assert_same(integers(graph, seed, most), True, sample(shape, batch, seed), (window,))


@needs_numba
@settings(max_examples=25)
@given(
    name=st.sampled_from([*NETS]),
    seed=st.integers(0, 2**16),
    T=st.integers(1, 12),
    batch=st.integers(1, 4),
    window=st.integers(1, 12),
    every=st.integers(1, 2),
    integer=st.booleans(),
)
def test_currents_of_steps_are_part_of_the_pass(name, seed, T, batch, window, every, integer):
    """Alone and behind a join, in numbers that round and in integers."""
    graph, shape = spiking(name, T)
    graph = shifted(integers(graph, seed) if integer else graph, seed, 5 * integer, every)
    made = assert_same(graph, integer, sample(shape, batch, seed), (window,))
    absorbed = {node for join in made.joins.values() for node in join.absorbed}
    assert absorbed >= {node for node, _ in calls(graph, StepCurrent) if node not in made.sums}


@pytest.mark.parametrize("name", ["conv", "residual", "dense", "maxpool", "inverted", "conv1d", "mlp", "early"])
def test_a_compiled_network_of_integers(name):
    graph, shape = fixed(name)
    made = assert_same(graph, True, sample(shape, 3))
    assert made.layers or name == "conv1d"
    assert made.tail or name in ("maxpool", "conv1d")  # a readout that is before or after time already


def test_the_plan_takes_what_it_is_for():
    graph, _ = fixed("residual")
    made = plan(graph, True)
    assert {node.name for node in made.layers} >= {"conv1", "conv2", "conv3", "short"}
    if scan.available():
        assert len(made.joins) == len(list(calls(graph, Neuron)))
        assert not [n for n in FastRunner(made).walked if isinstance(module_of(graph, n), dialect.Add)]
    assert all(isinstance(module_of(graph, node), Neuron) for node in made.sums)


@settings(max_examples=60)
@given(
    groups=st.sampled_from([1, 2, 3]),
    inputs=st.integers(1, 4),
    outputs=st.integers(1, 9),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    padding=st.integers(0, 2),
    size=st.tuples(st.integers(5, 9), st.integers(5, 9)),
    batch=st.integers(1, 3),
    bias=st.booleans(),
)
def test_a_convolution_of_bytes_is_exact(groups, inputs, outputs, kernel, stride, dilation, padding, size, batch, bias):
    layer = nn.Conv2d(groups * inputs, groups * outputs, kernel, stride, padding, dilation, groups, bias)
    exact(layer, torch.randint(0, 128, (batch, groups * inputs, *size), dtype=torch.uint8))


@settings(max_examples=20)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 5), st.booleans())
def test_a_linear_layer_of_bytes_is_exact(inputs, outputs, batch, bias):
    exact(nn.Linear(inputs, outputs, bias), torch.randint(0, 128, (batch, inputs), dtype=torch.uint8))


def exact(layer, x):
    for value in layer.requires_grad_(False).parameters():
        value.copy_(torch.randint(-127, 128, value.shape))
    fast = packed(layer)
    assert fast is not None
    assert torch.equal(fast(x), layer(x.float()))


@pytest.mark.parametrize("pool", [(2, 2, 0), (3, 2, 1)])
@pytest.mark.parametrize("most", [1, 15])
def test_a_pool_that_sums_gives_bytes(pool, most):
    """What follows it then multiplies bytes as well; 9 x 15 no longer fits."""
    layer = nn.Conv2d(4, 4, *pool, groups=4, bias=False).requires_grad_(False)
    layer.weight.fill_(1)
    x = torch.randint(0, most + 1, (3, 4, 7, 7), dtype=torch.uint8)
    assert COUNTS(layer)(layer, [most]) == most * pool[0] ** 2
    fast = packed(layer, counts=True)
    assert fast is not None
    assert fast(x).dtype == torch.uint8
    assert torch.equal(fast(x).float(), layer(x.float()))
    layer.weight[0] = -1
    assert COUNTS(layer)(layer, [most]) is None


def test_layers_behind_a_pool_take_bytes():
    graph, shape = spiking("conv", T)
    graph = integers(graph)
    node = next(iter(plan(graph, True).layers))
    channels = module_of(graph, node).in_channels
    pool = nn.Conv2d(channels, channels, 1, groups=channels, bias=False).requires_grad_(False)
    pool.weight.fill_(3)
    source = node.all_input_nodes[0]
    node.replace_input_with(source, insert(graph, "summed", pool, source))
    graph.recompile()
    made = assert_same(graph, True, sample(shape, 3))
    assert node in made.layers
    assert [n.name for n in made.bound if made.bound[n] == 3] == ["summed"]


@pytest.mark.parametrize(("layer", "shape"), [(nn.Conv2d(3, 4, 3), (3, 6, 6)), (nn.Linear(20, 4), (20,))])
def test_powers_of_two_of_an_output_are_taken_out(layer, shape):
    """As fixed point with few bits has them: wide numbers, and yet of few bits."""
    layer.requires_grad_(False)
    layer.weight.copy_(torch.randint(-7, 8, layer.weight.shape))
    layer.weight.mul_(torch.tensor([1.0, 2.0, 64.0, 1024.0]).reshape(-1, *[1] * (layer.weight.dim() - 1)))
    layer.bias.copy_(torch.randint(-9999, 9999, layer.bias.shape))
    x = torch.randint(0, 8, (5, *shape), dtype=torch.uint8)
    fast = packed(layer)
    assert fast is not None
    assert torch.equal(fast(x), layer(x.float()))


@pytest.mark.parametrize("odd", [nn.Conv1d(2, 2, 1), nn.Conv2d(2, 2, 3, padding="same"), nn.ConvTranspose2d(2, 2, 1)])
def test_other_layers_and_other_numbers_stay_as_they_are(odd):
    nn.init.ones_(odd.weight)
    assert packed(odd) is None
    for weight in (0.5, 129.0):
        layer = nn.Conv2d(2, 2, 1)
        nn.init.constant_(layer.weight, weight)
        assert packed(layer) is None


@needs_numba
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", [(5,), (3, 4, 7), (2, 9), (1, 3, 3), (4, 1, 1), (3, 50, 50)])
@pytest.mark.parametrize("channels", [False, True])
def test_neurons_in_one_pass(shape, channels, threads, monkeypatch):
    """Any shape, order of memory, window and join; random floats, so that another rounding would show."""
    monkeypatch.setattr(scan, "SMALL", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    steps, batch = 7, 2
    per = torch.rand(shape[0], *[1] * (len(shape) - 1)) + 0.1
    theta = per if channels else torch.tensor(0.3)
    neuron = IF(steps, theta, theta / 3)
    current, other = torch.randn(2, steps * batch, *shape)
    if len(shape) == 3:
        current, other = (v.contiguous(memory_format=torch.channels_last) for v in (current, other))
    for joined, own in itertools.product((None, other), (None, torch.randn(steps, *per.shape))):
        fed = current if joined is None else current + joined
        want = neuron(fed if own is None else StepCurrent(steps, own)(fed))
        for width in (1, 3, 4, steps):
            state, parts = None, []
            one = scan.Scan(neuron, False, shift=own)
            for start in range(0, steps, width):
                cut = slice(start * batch, min(start + width, steps) * batch)
                state, spikes = one(
                    state,
                    current[cut],
                    min(width, steps - start),
                    None if joined is None else joined[cut],
                    begin=start,
                )
                parts.append(spikes)
            assert torch.equal(torch.cat(parts), want)
    same = current[:batch]
    assert torch.equal(scan.Scan(neuron, False)(None, same, steps, constant=True)[1], neuron(torch.cat([same] * steps)))
    counted = scan.Scan(neuron, True)(None, current, steps)[1]
    assert counted.dtype == torch.uint8
    assert torch.equal(counted, (neuron(current) != 0).to(torch.uint8))


def network(name="residual", integer=True, **more):
    if integer:
        graph, shape = fixed(name)
        return Network(copy.deepcopy(graph), {}, stage=Stage.FIXED, **more), shape
    graph, shape = spiking(name, T)
    return Network(graph, {}, **more), shape


@pytest.mark.parametrize("chunk", [1, 5, 64, 4096])
@pytest.mark.parametrize("batch", [1, 5])
def test_a_network_is_fast_by_itself(chunk, batch):
    net, shape = network(chunk=chunk)
    x = sample(shape, batch)
    assert net.runs_by == ""
    fast, every = net(x), net.readout(x)
    assert "8-bit" in net.runs_by
    net.runtime = "reference"
    assert torch.equal(net(x), fast)
    assert torch.equal(net.readout(x), every)
    assert net.runs_by == "reference"


def test_an_edited_network_gets_a_new_plan():
    net, shape = network()
    x = sample(shape, 2)
    net(x)
    for edit in (weights, neurons):
        edit(net)
        fast, net.runtime = net(x), "reference"
        assert torch.equal(net(x), fast)
        net.runtime = "auto"
    assert copy.deepcopy(net).runs_by == ""
    assert torch.equal(copy.deepcopy(net)(x), fast)
    net = net.double()
    assert torch.equal(net(x.double()).float(), fast)
    assert net.runs_by == "reference"


@pytest.mark.parametrize("edit", ["weights", "thresholds"])
def test_a_change_that_torch_does_not_count_is_seen(edit):
    net, shape = network()
    x = sample(shape, 4)
    before = net(x)
    if edit == "weights":
        net.graph.conv1.weight.data.neg_()
    else:
        for _, neuron in calls(net.graph, Neuron):
            neuron.theta.data.mul_(2)
    fast, net.runtime = net(x), "reference"
    assert torch.equal(net(x), fast)
    assert not torch.equal(fast, before)


def dilated(net):
    net.graph.conv1.padding = net.graph.conv1.dilation = (2, 2)


def delayed(net):
    for _, decode in calls(net.graph, Decode):
        decode.late = 3


@pytest.mark.parametrize("edit", [dilated, delayed])
@pytest.mark.parametrize("runtime", ["auto", "reference"])
def test_a_setting_of_a_module_that_changes_is_seen(edit, runtime):
    net, shape = network(runtime=runtime)
    x = sample(shape, 4)
    before = net(x)
    edit(net)
    found, want = net(x), net.graph(x)
    assert torch.equal(found, want)
    assert not torch.equal(found, before)


def weights(net):
    net.graph.conv1.weight.neg_()


def neurons(net):
    node, old = next(calls(net.graph, Neuron))
    replace(net.graph, node, IF(T, old.theta + 3, old.v0, unit=True))


def test_numbers_that_are_no_integers_are_summed_in_order():
    net, shape = network()
    net.graph.conv1.weight.mul_(0.3)
    x = sample(shape, 2)
    fast, net.runtime = net(x), "reference"
    assert "8-bit" not in net.runs_by
    assert torch.equal(net(x), fast)


def test_a_runtime_that_differs_is_off_with_one_warning(monkeypatch, caplog):
    monkeypatch.setattr("snnc.runtime.cpu.integer.packed", lambda module, counts: lambda x: module(x.float()) + 1)
    net, shape = network()
    x = sample(shape, 2)
    with caplog.at_level(logging.WARNING, "snnc"):
        fast = net(x)
        net(x)
    assert [record.message for record in caplog.records] == [
        choice.SURPRISE % "its output differs from the reference on this machine"
    ]
    assert net.runs_by == "reference"
    net.runtime = "reference"
    assert torch.equal(net(x), fast)
    net.runtime = "fast"
    with pytest.raises(SnncError, match="differs from the reference"):
        net(x)


def test_a_blank_first_sample_hides_no_difference(monkeypatch):
    monkeypatch.setattr("snnc.runtime.cpu.integer.packed", lambda module, counts: lambda x: module(x.float() * 2))
    net, shape = network()
    for module in net.graph.modules():
        if isinstance(module, Neuron):  # nothing is at half a threshold at the start, so nothing spikes
            module.v0 = torch.zeros_like(module.v0)
        elif getattr(module, "bias", None) is not None:
            module.bias.data.zero_()
    x = sample(shape, 2)
    net(torch.zeros_like(x))
    assert net.runs_by == "reference"


def test_a_runtime_that_fails_is_off_with_one_warning(monkeypatch, caplog):
    def fails(module, counts):
        raise RuntimeError("no such instruction")

    monkeypatch.setattr("snnc.runtime.cpu.integer.packed", fails)
    net, shape = network()
    with caplog.at_level(logging.WARNING, "snnc"):
        net(sample(shape, 2))
    assert len(caplog.records) == 1
    assert net.runs_by == "reference"


def test_without_numba_layers_are_fast_all_the_same(monkeypatch):
    monkeypatch.setattr(loops, "jit", lambda: None)
    monkeypatch.setattr(scan, "jit", lambda: None)
    net, shape = network()
    x = sample(shape, 3)
    fast, by, net.runtime = net(x), net.runs_by, "reference"
    assert "8-bit" in by
    assert "one pass" not in by
    assert torch.equal(net(x), fast)
    plain, shape = network(integer=False, runtime="fast")
    with pytest.raises(SnncError, match="no fast runtime"):
        plain(sample(shape, 2))


def test_what_the_reference_refuses_is_no_fault_of_the_plan(caplog):
    net, _ = network()
    with caplog.at_level(logging.WARNING, "snnc"), pytest.raises(DataError, match="does not go through"):
        net(torch.zeros(2, 5, 8, 8))
    assert not caplog.records
    with pytest.raises(SnncError, match="no runtime 'quick'"):
        Network(spiking("mlp", T)[0], {}, runtime="quick")(torch.zeros(1, 6))
