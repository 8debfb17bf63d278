"""However time is cut into windows, the spikes are those of the folded graph. Dyadic nets: equal to the bit."""

import functools
import weakref

import pytest
import torch

from snnc.calibrate.observe import watch
from snnc.errors import SnncError
from snnc.ir.graph import calls, module_of, phases
from snnc.ir.neurons import Neuron, ResidualMaskIF
from snnc.ir.temporal import Decode, Temporal
from snnc.passes import AverageInput, CalibrateOffset, MaskResidual, UseGradedNeurons, UseSignedNeurons, WaitForInput
from snnc.runtime.runner import Runner
from tests.nets import NETS, sample, spiking

T = 8


def seen_by_runner(graph, x, window):
    found = {}

    def see(node, value, steps):
        found.setdefault(node.name, []).append(value.reshape(steps, -1, *value.shape[1:]))

    output = Runner(graph).run(x, window, observe=see)
    return output, {name: torch.cat(parts) for name, parts in found.items()}


@pytest.mark.parametrize("name", NETS)
def test_every_window_gives_the_spikes_of_the_folded_graph(name):
    graph, shape = spiking(name, T)
    x = sample(shape, 3)
    folded = {}
    with torch.no_grad():
        want = watch(graph, x, lambda node, value: folded.update({node.name: value}))
        for window in (1, 2, 3, T, 100):
            output, seen = seen_by_runner(graph, x, window)
            assert torch.equal(output, want)
            assert seen.keys() == {node.name for node, phase in phases(graph).items() if phase == "in"}
            for node_name, value in seen.items():
                assert torch.equal(value.flatten(0, 1), folded[node_name]), (node_name, window)
    neurons = [folded[node.name] for node, _ in calls(graph, Neuron)]
    assert sum(int((s != 0).sum()) for s in neurons) > 0  # equality of silence would show nothing


STREAMING = {"signed": UseSignedNeurons(), "graded": UseGradedNeurons(2), "mask": MaskResidual(3)}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("model", STREAMING)
def test_every_streaming_model_streams(model, name):
    """Spikes and readouts in any window, those of the folded graph; a first pass runs before what is read."""
    graph, shape = spiking(name, T, then=STREAMING[model], units=3 if name != "trained" else 1)
    x = sample(shape, 3)
    exact = name not in ("trained", "bare") or model != "graded"  # bounds of its own, whose thirds are not dyadic
    folded = {}
    with torch.no_grad():
        want = watch(graph, x, lambda node, value: folded.update({node.name: value}))
        by_step = Runner(graph).run(x, anytime=True)
        assert len(by_step) == T
        for window in (1, 2, 5, 100):
            output, seen = seen_by_runner(graph, x, window)
            for node, _ in calls(graph, Neuron):
                assert not exact or torch.equal(seen[node.name].flatten(0, 1), folded[node.name]), (node, window)
            assert torch.equal(output, want) or not exact
            again = Runner(graph).run(x, window, anytime=True)
            assert torch.equal(again[[0, 1, 3, 7]], by_step[[0, 1, 3, 7]]) or not exact
        assert torch.allclose(by_step[-1], want, atol=1e-5)
    spikes = torch.cat([folded[node.name].flatten() for node, _ in calls(graph, Neuron)])
    assert (spikes != 0).any()


@pytest.mark.parametrize("name", ["residual", "maxpool", "conv1d", "pool-first"])
def test_first_pass_leaves_the_spikes_of_the_second_or_none(name):
    """Streamed with nobody silenced the two passes are alike, max pools and all; the first is that of plain neurons."""
    plain, shape = spiking(name, 3)
    graph, _ = spiking(name, 3, then=MaskResidual(3))
    for _, neuron in calls(graph, ResidualMaskIF):
        neuron.step = functools.partial(keep_all, neuron)
    x = sample(shape, 3)
    with torch.no_grad():
        _, two = seen_by_runner(graph, x, 2)
        _, one = seen_by_runner(plain, x, 2)
    for node in one:
        assert torch.equal(two[node][:3], one[node])
        assert torch.equal(two[node][3:], one[node])


def keep_all(neuron, state, current):
    """A step of a `ResidualMaskIF` that silences nobody."""
    (v, mask, clock), spike = ResidualMaskIF.step(neuron, state, current)
    return (v, torch.ones_like(mask), clock), spike


@pytest.mark.parametrize("name", [name for name in NETS if name != "trained"])  # its v0 depends on T
def test_running_readouts_are_those_of_shorter_networks(name):
    long, shape = spiking(name, T, L=4)
    x = sample(shape, 3)
    with torch.no_grad():
        for window in (1, 3, T):
            by_step = Runner(long).run(x, window, anytime=True)
            for t in (1, 2, 5, T):
                short, _ = spiking(name, t, L=4)
                # The sums are exact; the mean over t steps is not dyadic where t is no power of two.
                close = torch.allclose(by_step[t - 1], short(x), rtol=1e-6, atol=1e-6)
                assert close if t == 5 or name == "bare" else torch.equal(by_step[t - 1], short(x))


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("first", [None, MaskResidual(3)])
def test_delayed_readouts_in_any_window(first, name):
    """The readout of the folded graph, and after each step that of the steps that count by then."""
    graph, shape = spiking(name, T, then=first)
    for _, module in calls(graph, Decode):
        module.late = 4
    x = sample(shape, 3)
    dyadic = [0, 1, 3, 4, 5, 7]  # means of 1, 2 and 4 steps
    with torch.no_grad():
        want = graph(x)
        running = Runner(graph).run(x, T + 3, anytime=True)[dyadic]
        assert torch.equal(running[-1], want)
        for window in (1, 3, 5, T):
            assert torch.equal(Runner(graph).run(x, window), want)
            assert torch.equal(Runner(graph).run(x, window, anytime=True)[dyadic], running)
        for _, module in calls(graph, Decode):
            module.late = 0
        plain = Runner(graph).run(x, 3, anytime=True)[dyadic]
    assert torch.equal(running[:3], plain[:3])
    if name not in ("single", "bare"):
        assert not torch.equal(running[-1], plain[-1])


def test_layer_synchronous_networks_do_not_stream():
    graph, shape = spiking("conv", 4, cos=CalibrateOffset(rho=2))
    with pytest.raises(SnncError, match="layer-synchronous"):
        Runner(graph).run(sample(shape, 2), window=1)
    with torch.no_grad():
        assert torch.equal(Runner(graph).run(sample(shape, 2)), graph(sample(shape, 2)))


@pytest.mark.parametrize(("then", "schedule"), [(AverageInput(), "layer-synchronous"), (WaitForInput(2), "pipelined")])
def test_networks_that_look_ahead_do_not_stream(then, schedule):
    graph, shape = spiking("residual", T, then=then)
    x = sample(shape, 2)
    with pytest.raises(SnncError, match=f"is {schedule}"):
        Runner(graph).run(x, window=1)
    with torch.no_grad():
        assert torch.equal(Runner(graph).run(x), graph(x))
        assert torch.equal(Runner(graph).run(x, anytime=True)[-1], graph(x))


def test_longer_windows_than_are_read():
    """rho > T: the run is as long as rho, and only T steps are read."""
    graph, shape = spiking("conv", 2, cos=CalibrateOffset(rho=4))
    runner = Runner(graph)
    assert (runner.T, runner.read) == (4, 2)
    x = sample(shape, 2)
    with torch.no_grad():
        by_step = runner.run(x, anytime=True)
        assert len(by_step) == 2
        assert torch.equal(by_step[-1], graph(x))


@pytest.mark.parametrize("window", [1, 3, T])
def test_an_observer_sees_every_node_inside_time(window):
    """Once a window, in the order of the graph, with the number of steps that the value holds."""
    graph, shape = spiking("early", T)
    seen = []
    Runner(graph).run(sample(shape, 3), window, observe=lambda node, value, n: seen.append((node.name, n, len(value))))
    widths = [min(window, T - start) for start in range(0, T, window)]
    inside = [node.name for node, phase in phases(graph).items() if phase == "in"]
    assert seen == [(name, width, 3 * width) for width in widths for name in inside]


@pytest.mark.parametrize("name", ["residual", "dense", "early", "double", "skip"])
@pytest.mark.parametrize("anytime", [False, True])
def test_values_die_at_their_last_use(name, anytime):
    """What no later node reads is let go, so a deep network costs no more memory than its widest place."""
    graph, shape = spiking(name, T)
    nodes = list(graph.graph.nodes)
    rank = {node.name: i for i, node in enumerate(nodes)}
    last = {node.name: max((rank[user.name] for user in node.users), default=0) for node in nodes}
    alive: dict[str, weakref.ref] = {}
    freed = 0

    def see(node, value, steps):
        nonlocal freed
        for other, ref in alive.items():
            # A neuron's state may be the value itself; so may the value of a node that was just seen.
            if rank[node.name] > last[other] + 1 and not isinstance(module_of(graph, nodes[rank[other]]), Temporal):
                assert ref() is None, f"{other} is still there at {node.name}"
                freed += 1
        alive[node.name] = weakref.ref(value)

    with torch.no_grad():
        Runner(graph).run(sample(shape, 2), 3, anytime, see)
    assert freed > 0


def test_nothing_is_kept_between_calls():
    """A runner is used again, after other batches and a run that failed."""
    graph, shape = spiking("maxpool", T)
    runner = Runner(graph)
    x, y = sample(shape, 3), sample(shape, 5, seed=1)
    with torch.no_grad():
        want = runner.run(x, 2)
        runner.run(y, 3)
        with pytest.raises(RuntimeError):
            runner.run(x[:, :2], 2)
        runner.run(y, 1, anytime=True)
        assert torch.equal(runner.run(x, 2), want)
    assert not any(isinstance(value, torch.Tensor) for value in vars(runner).values())


@pytest.mark.parametrize("cos", [None, CalibrateOffset(rho=3), CalibrateOffset(rho=12, iterations=2)])
@pytest.mark.parametrize("name", ["residual", "maxpool", "dense"])
def test_samples_do_not_see_each_other(name, cos):
    """A sample's readouts are the same alone and in any company; calibration is its own."""
    graph, shape = spiking(name, T, cos=cos)
    runner = Runner(graph)
    x = sample(shape, 5)
    exact = [0, 1, 3, 7]  # the mean over a power of two
    with torch.no_grad():
        together = runner.run(x, anytime=True)
        for b in range(5):
            alone = runner.run(x[b : b + 1], anytime=True)
            assert torch.equal(alone[exact, 0], together[exact, b])
