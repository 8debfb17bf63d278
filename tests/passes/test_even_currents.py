"""Currents of their own for every step: what they take away, and where they stand."""

import pytest
import torch
from torch import nn

from snnc import load, prove, save
from snnc.calibrate.observe import watch
from snnc.errors import PassFailed, RecipeError, SnncError, VerifyError
from snnc.ir.dialect import Affine
from snnc.ir.graph import Stage, calls, validate
from snnc.ir.neurons import Neuron
from snnc.ir.temporal import StepCurrent
from snnc.networks.network import Network
from snnc.passes import (
    AverageInput,
    CalibrateBias,
    CalibrateOffset,
    EvenCurrents,
    FixedPoint,
    InsertNeurons,
    MaskResidual,
    QuantizeActivations,
    ScaleThresholds,
    WaitForInput,
)
from snnc.passes.even_currents import departure as departure_of
from snnc.passes.pipeline import Context, Pipeline
from snnc.passes.wait_for_input import steady
from snnc.processes import Shards
from tests.nets import NETS, folded, quantized, sample

T = 4
START = (QuantizeActivations(), ScaleThresholds(), InsertNeurons())
nets = pytest.mark.parametrize("net", NETS)


def run(net, *passes, samples=16):
    graph, shape = folded(net)
    x = sample(shape, samples, seed=5)
    context = Context(T=T, calibration=[x], input_shape=shape)
    return Pipeline((*START, *passes)).run(graph, context, Stage.FOLDED), x


def departure(current, T):
    shards = Shards((current.shape[0] // T,))
    return departure_of({0: current}, T, shards)


def currents(graph, x):
    """What every neuron is given, by name."""
    fed = {node.all_input_nodes[0]: node.name for node, _ in calls(graph, Neuron)}
    found = {}
    watch(graph, x, lambda node, value: found.update({fed[node]: value}) if node in fed else None)
    return found


@nets
def test_on_the_calibration_samples_no_step_departs_from_the_mean(net):
    done, x = run(net, EvenCurrents())
    validate(done.graph, Stage.SPIKING)
    even = {node.name for node in steady(done.graph)}
    steps = {node.all_input_nodes[0].name: module for node, module in calls(done.graph, StepCurrent)}
    assert len(steps) == done.records[-1].sites == sum(1 for _ in calls(done.graph, Neuron)) - len(even)
    for name, current in currents(done.graph, x).items():
        if name not in even:
            assert departure(current, T).abs().max() <= 1e-5 * current.abs().max().clamp_min(1)
    for module in steps.values():  # charge is neither given nor taken over the run
        assert module.shift.sum(0).abs().max() <= 1e-5 * module.shift.abs().max().clamp_min(1)


def test_it_takes_away_something():
    """Without the pass the currents of this net do depart, by a tenth of a threshold somewhere."""
    plain, x = run("conv")
    done, _ = run("conv", EvenCurrents())
    (node, neuron), *_ = [c for c in calls(plain.graph, Neuron) if c[0] not in steady(plain.graph)]
    assert (departure(currents(plain.graph, x)[node.name], T).abs() > 0.1 * neuron.theta).any()
    assert any(True for _ in calls(done.graph, StepCurrent))


def test_departure_by_hand():
    """Two steps, one sample, two channels of two positions: means 1, 0 and 3, 4; the mean over steps is 2, 2."""
    current = torch.tensor([[[0.0, 2.0], [0.0, 0.0]], [[3.0, 3.0], [8.0, 0.0]]])
    assert departure(current, 2).tolist() == [[[1.0], [2.0]], [[-1.0], [-2.0]]]


@nets
def test_spikes_are_the_same_step_by_step_and_after_a_file(net, tmp_path):
    """On dyadic numbers, so that sums are exact and outputs equal; a mean over three steps is not dyadic."""
    graph, shape = quantized(net)
    x = sample(shape, 6)
    done = Pipeline((InsertNeurons(), EvenCurrents())).run(graph, Context(T=T, calibration=[x]), Stage.QUANTIZED)
    for _, module in calls(done.graph, StepCurrent):
        module.shift = (module.shift * 64).round() / 64
    network = Network(done.graph, {})
    whole = network.readout(x)
    assert torch.equal(torch.stack(list(network.stream(x)))[[0, 1, 3]], whole[[0, 1, 3]])
    assert torch.equal(network.graph(x), whole[-1])
    assert torch.equal(load(save(network, tmp_path / "a.snn"), chunk=3)(x), whole[-1])


def test_a_bias_found_later_goes_through_it():
    done, _ = run("conv", EvenCurrents(), CalibrateBias())
    assert not any(calls(done.graph, Affine))
    assert any(module.bias is not None and module.bias.any() for _, module in calls(done.graph, nn.Conv2d))


def test_gain():
    full, _ = run("mlp", EvenCurrents())
    half, _ = run("mlp", EvenCurrents(gain=0.5))
    first = [next(calls(done.graph, StepCurrent))[1].shift for done in (full, half)]
    assert torch.equal(first[0] * 0.5, first[1])
    none, _ = run("mlp", EvenCurrents(gain=0))
    assert none.records[-1].sites == 0
    with pytest.raises(RecipeError, match="'gain' of 'even-currents' is -1"):
        EvenCurrents(gain=-1)


def test_neurons_that_look_ahead_and_those_that_wait_for_all():
    ahead, _ = run("conv", WaitForInput(1), EvenCurrents())
    assert ahead.records[-1].sites > 0
    average, _ = run("conv", AverageInput(), EvenCurrents())
    assert average.records[-1].sites == 0
    assert "layers that do not stream are left as they are" in average.records[-1].notes[-1]


@pytest.mark.parametrize("longer", [MaskResidual(tau=2), CalibrateOffset(rho=6)])
def test_a_pass_that_changes_the_number_of_steps_is_refused(longer):
    """They would no longer be those that were measured."""
    with pytest.raises(PassFailed, match=r"currents of single steps at '\w+' hold for T = 4 steps, not 6") as caught:
        run("conv", EvenCurrents(), longer)
    assert "--set even-currents.gain=0" in caught.value.hint
    run("conv", EvenCurrents(gain=0), longer)
    run("conv", EvenCurrents(), CalibrateOffset(rho=4))


def test_one_step_has_nothing_to_even():
    graph, shape = folded("conv")
    context = Context(T=1, calibration=[sample(shape)])
    done = Pipeline((*START, EvenCurrents())).run(graph, context, Stage.FOLDED)
    assert done.records[-1].sites == 0


def test_a_wrong_number_of_steps_is_refused():
    done, _ = run("conv", EvenCurrents())
    module = next(calls(done.graph, StepCurrent))[1]
    module.shift = module.shift[1:]
    with pytest.raises(VerifyError, match="has currents of shape"):
        validate(done.graph, Stage.SPIKING)


@pytest.mark.parametrize(
    "net", sorted(set(NETS) - {"bare"})
)  # whose softmax is real arithmetic, and rounds where it runs
def test_in_fixed_point_and_in_onnxruntime(net, tmp_path):
    """Shifts are integers there, the proof counts them, and the readouts are equal to the bit after every step."""
    done, x = run(net, EvenCurrents(), FixedPoint())
    shifts = [module.shift for _, module in calls(done.graph, StepCurrent)]
    assert all(torch.equal(shift, shift.round()) for shift in shifts)
    assert sum(shift.abs().max() > 0 for shift in shifts) > 0 or not shifts
    network = Network(done.graph, {"input_shape": list(x.shape[1:])}, stage=Stage.FIXED)
    assert torch.equal(load(save(network, tmp_path / "a.onnx")).readout(x), network.readout(x))


def test_the_proof_counts_the_largest_shift():
    done, _ = run("conv", EvenCurrents(), FixedPoint())
    node, module = next(calls(done.graph, StepCurrent))
    before = {row.name: row.bound for row in prove(done.graph)}
    module.shift[1] += 10000
    after = {row.name: row.bound for row in prove(done.graph)}
    assert after[node.name] >= before[node.name] + 5000
    module.shift[0] = 0.5
    with pytest.raises(VerifyError, match="no integers"):
        prove(done.graph)


def test_nir_refuses_it_and_says_what_to_do(tmp_path):
    done, x = run("mlp", EvenCurrents())
    with pytest.raises(SnncError) as refused:
        save(Network(done.graph, {"input_shape": list(x.shape[1:])}), tmp_path / "a.nir")
    assert "even-currents.gain=0" in f"{refused.value} {refused.value.hint}"
