"""However time is cut into windows, the spikes are those of the folded graph. Dyadic nets: equal to the bit."""

import pytest
import torch

from snnc.errors import SnncError
from snnc.graph import calls
from snnc.neurons import Neuron
from snnc.observe import watch
from snnc.passes import CalibrateOffset
from snnc.runtime.runner import Runner

from .nets import NETS, sample, spiking

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
            for node, _ in calls(graph, Neuron):
                assert torch.equal(seen[node.name].flatten(0, 1), folded[node.name]), (node.name, window)
    neurons = [folded[node.name] for node, _ in calls(graph, Neuron)]
    assert sum(int((s != 0).sum()) for s in neurons) > 0  # equality of silence would show nothing


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
                assert torch.allclose(by_step[t - 1], short(x), rtol=1e-6, atol=1e-6)


def test_layer_synchronous_networks_do_not_stream():
    graph, shape = spiking("conv", 4, cos=CalibrateOffset(rho=2))
    with pytest.raises(SnncError, match="layer-synchronous"):
        Runner(graph).run(sample(shape, 2), window=1)
    with torch.no_grad():
        assert torch.equal(Runner(graph).run(sample(shape, 2)), graph(sample(shape, 2)))


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
