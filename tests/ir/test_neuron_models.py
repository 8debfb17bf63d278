"""Neuron models besides `IF` and `OffsetIF`: the vectors and properties of the algorithm reference that they have."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from snnc.ir.dialect import ClipQuant
from snnc.ir.neurons import IF, AverageIF, GradedIF, Neuron, ResidualMaskIF, SignedIF, WaitingIF
from tests.ir.test_neurons import (
    STEPS,
    VECTORS,
    ideal,
    random_trains,
    scalar,
    shares,
    sixteenths,
    thetas,
    train,
    trains,
    vectors,
)

one, half = scalar(1.0), scalar(0.5)

# What the signed neuron emits in the T steps, and in the settling steps that it needs to reach N*.
SIGNED = {
    "V1": ([1, -1, 1, -1, 1], [1]),
    "V2": ([1, 1, 1, 1, -1], [-1]),
    "V3": ([0, 0, 1, 0], []),
    "V4": ([0, 0, 0, 1], [1, 1]),
    "V5": ([0, 0, 1, 0], []),
    "V6": ([1, 0, -1, 0], []),
    "V7": ([1, -1, 0, 0], []),
    "V8": ([1, 1, -1, 0], []),
    "V10": ([1, 1, 1, 1], []),
    "V11": ([0, 0, 0, 1], [1]),
}


def run(neuron: Neuron, current: Tensor) -> tuple[Tensor, Tensor]:
    """Output `[T, N]` and final potential `[N]` of N neurons with `current` `[T, N]`."""
    state, out = neuron.walk(None, current.flatten()[:, None], len(current))
    v = state[0] if isinstance(state, tuple) else state
    return out.reshape(current.shape), v[:, 0]


def emitted(neuron: Neuron, current: Tensor) -> Tensor:
    """Output `[T, N]` through the folded call, which every model has."""
    return neuron(current.flatten()[:, None]).reshape(current.shape)


# SignedIF


@vectors
def test_signed_vectors(name):
    currents, count = VECTORS[name][:2]
    spikes, settling = SIGNED[name]
    whole = train([*currents, *[0] * len(settling)])
    out = emitted(SignedIF(len(whole), one, half), whole)
    assert out[:, 0].tolist() == [*spikes, *settling]
    assert out.sum().item() == count


def test_settling_reaches_the_ideal_count():
    """P9: steps without input lead to N*, in either direction; and the sum of the output is never negative."""
    settle = 80
    current = torch.cat([random_trains(), torch.zeros(settle, random_trains().shape[1], dtype=torch.float64)])
    out = emitted(SignedIF(len(current), one, half), current)
    assert torch.equal(out.sum(0), ideal(current, 1.0, 0.5))
    assert (out.cumsum(0) >= 0).all()
    assert (out == -1).any()
    settled = (out[STEPS:] == 0).all(0)
    assert settled.any()
    assert not settled.all()


def test_signed_spikes_miss_fewer():
    """Without settling, at T = 8: |N - N*| is 0.70 for unsigned neurons and 0.27 for signed ones."""
    current = random_trains()
    wanted = ideal(current, 1.0, 0.5)
    missed = [(emitted(kind(STEPS, one, half), current).sum(0) - wanted).abs().mean().item() for kind in (IF, SignedIF)]
    assert missed == pytest.approx([0.70, 0.27], abs=0.02)


@given(trains, thetas, shares)
def test_signed_is_binary_where_nothing_is_taken_back(currents, theta, share):
    """Without negative currents a potential never falls below 0."""
    current = train([abs(i) for i in currents])
    pair = [kind(len(current), scalar(theta), scalar(share * theta)) for kind in (IF, SignedIF)]
    assert torch.equal(*(emitted(neuron, current) for neuron in pair))


# GradedIF


@given(trains, thetas, sixteenths, st.integers(1, 5))
def test_charge_is_conserved(currents, theta, v0, bits):
    """P4: output + v(T) = v0 + sum of currents, exactly, whatever the height and the sign of the spikes."""
    current, T = train(currents), len(currents)
    for neuron in (SignedIF(T, scalar(theta), scalar(v0)), GradedIF(T, scalar(theta), scalar(v0), bits)):
        out, v = run(neuron, current)
        assert out.sum().item() + v.item() == v0 + sum(currents)


@pytest.mark.parametrize("bits", [1, 2, 3, 5])
@pytest.mark.parametrize("theta", [0.5, 2.0, 0.1, 1 / 3, 0.7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_greedy_comparison_is_floor(bits, theta, dtype):
    """One step from v0 = 0, at whole multiples of theta, beside them, and between."""
    t = torch.tensor(theta, dtype=dtype)
    at = torch.arange(-4, 2**bits + 4).to(dtype) * t
    near = torch.nextafter(at, torch.full_like(at, -9e9))
    u = torch.cat([at, near, torch.linspace(-2, 2**bits + 2, 999, dtype=dtype) * t])
    out = GradedIF(1, t, torch.zeros_like(t), bits)(u[:, None])[:, 0]
    k = torch.round(out / t)
    assert torch.equal(k[: len(at)], torch.arange(-4, 2**bits + 4).to(dtype).clamp(0, 2**bits - 1))
    assert torch.equal(k[len(at) : 2 * len(at)], torch.arange(-5, 2**bits + 3).to(dtype).clamp(0, 2**bits - 1))
    assert torch.equal(k[2 * len(at) :], torch.floor(u[2 * len(at) :] / t).clamp(0, 2**bits - 1))
    assert torch.equal(out, k * t)


@given(trains, thetas, shares)
def test_one_bit_is_binary(currents, theta, share):
    current, T = train(currents), len(currents)
    plain, graded = IF(T, scalar(theta), scalar(share)), GradedIF(T, scalar(theta), scalar(share), 1)
    assert torch.equal(emitted(plain, current), emitted(graded, current))


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("T", [1, 2, 3, 5, 8])
def test_constant_current(T, bits):
    """P12: theta * clip(floor((z T + v0) / theta), 0, (2^bits - 1) T), any start."""
    z, v0 = (g.flatten().double() for g in torch.meshgrid(torch.arange(-32, 289), torch.arange(16), indexing="ij"))
    z, v0 = z / 16, v0 / 16
    _, out = GradedIF(T, one, scalar(0.0), bits).walk(v0[:, None], z[:, None].repeat(T, 1), T)
    assert torch.equal(out.reshape(T, -1).sum(0), torch.floor(T * z + v0).clamp(0, (2**bits - 1) * T))


@pytest.mark.parametrize("T", [1, 2, 3, 4, 7, 8])
@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("shift", [0.0, 0.25, 0.5])
def test_theorem(T, bits, shift):
    """At constant input a graded neuron is ClipQuant of (2^bits - 1) T levels, bit for bit."""
    m = 2**bits - 1
    x = torch.arange(-512, 2049)[:, None] / 128
    for lam in (torch.tensor(0.25 * m), torch.tensor(1.0 * m), torch.tensor([2.0 * m])):
        neuron = GradedIF(T, lam / m, lam / m * shift, bits)
        spikes = neuron(x.repeat(T, 1)).reshape(T, *x.shape)
        assert torch.equal(spikes.sum(0) / T, ClipQuant(lam, m * T, shift)(x))


@pytest.mark.parametrize("shift", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("bits", [1, 2, 3])
def test_unit_keeps_the_shift(bits, shift):
    """From the v0 of a binary neuron at other levels than it has to that of the graded one; and back."""
    lam, T, m = torch.tensor([0.75, 3.0]), 4, 2**bits - 1
    v0 = lam * (0.5 + (shift - 0.5) * T / (m * T))
    theta, start = GradedIF.split(lam, v0, bits)
    assert torch.allclose(theta, lam / m)
    assert torch.allclose(start, theta * shift, atol=1e-7)
    back = GradedIF(T, theta, start, bits).binary()
    assert all(torch.allclose(a, b) for a, b in zip(back, (lam, v0), strict=True))


def test_graded_spikes_overshoot_too():
    """The appendix of H-MT: 9 units are emitted where 1 would be right."""
    currents = train([4, 2, -3, 6, -2, -6])
    out = emitted(GradedIF(6, one, half, 3), currents)
    assert out[:, 0].tolist() == [4, 2, 0, 3, 0, 0]
    assert torch.floor(0.5 + currents.sum()) == 1


@pytest.mark.parametrize(("T", "bits"), [(1, 1), (3, 2), (7, 3)])
def test_steps_are_levels(T, bits):
    """P13: T layer-synchronous steps are one step of a graded neuron with unit theta / T and T levels."""
    theta, v0 = scalar(T * 0.5), scalar(T * 0.25)
    mean = torch.arange(-64, 128, dtype=torch.float64) / 32
    spread = torch.linspace(-1, 1, T, dtype=torch.float64).mul(8).round().div(8)
    spread = (spread - spread.flip(0))[:, None]  # sums to zero
    temporal = emitted(AverageIF(T, theta, v0), mean + spread).sum(0) / T
    spatial = emitted(GradedIF(1, theta / T, v0 / T, bits), mean[None])[0]
    assert torch.equal(temporal, spatial)


# WaitingIF and AverageIF


@pytest.mark.parametrize(
    ("name", "wait", "spikes"),
    [
        ("V1", 1, [0, 1, 0, 1, 0]),
        ("V2", 0, [1, 1, 1, 1, 0]),
        ("V2", 1, [1, 1, 1, 0, 0]),
        ("V2", 2, [1, 1, 0, 0, 0]),
        ("V4", 1, [0, 0, 1, 1]),
        ("V4", 2, [0, 1, 1, 1]),
        ("V8", 1, [1, 0, 0, 0]),
    ],
)
def test_waiting_by_hand(name, wait, spikes):
    """Each step more of the input that a neuron has seen moves it to N*."""
    current = train(VECTORS[name][0])
    assert emitted(WaitingIF(len(current), one, half, wait), current)[:, 0].tolist() == spikes


@given(trains, thetas, sixteenths, st.integers(0, 15))
def test_waiting_is_the_input_moved(currents, theta, v0, wait):
    """At output step t the input of steps 1 .. min(t + wait, T) has been integrated."""
    current, T = train(currents), len(currents)
    wait = min(wait, T - 1)
    total = torch.cat([current.cumsum(0)[wait:], current.sum(0).expand(wait, 1)])
    moved = torch.cat([total[:1], total.diff(dim=0)])
    plain = emitted(IF(T, scalar(theta), scalar(v0)), moved)
    assert torch.equal(emitted(WaitingIF(T, scalar(theta), scalar(v0), wait), current), plain)


def test_longer_waits_miss_fewer():
    """From `IF` at wait = 0 to no spike missed at wait = T - 1."""
    current = random_trains()
    wanted = ideal(current, 1.0, 0.5)
    found = [emitted(WaitingIF(STEPS, one, half, wait), current) for wait in range(STEPS)]
    missed = [(out.sum(0) - wanted).abs().mean().item() for out in found]
    assert torch.equal(found[0], emitted(IF(STEPS, one, half), current))
    assert missed == sorted(missed, reverse=True)
    assert len(set(missed)) == STEPS
    assert missed[-1] == 0


whole = pytest.mark.parametrize(
    "make",
    [lambda T, theta, v0: WaitingIF(T, theta, v0, T - 1), AverageIF],
    ids=["waiting", "average"],
)


@whole
@given(currents=trains, theta=thetas, share=shares, seed=st.integers(0, 99))
def test_whole_input_gives_the_ideal_count(make, currents, theta, share, seed):
    """P8: N = N* and the same train, whatever the order of the input, at any T."""
    current, T, v0 = train(currents), len(currents), share * theta
    neuron = make(T, scalar(theta), scalar(v0))
    out = emitted(neuron, current)
    assert out.sum().item() / theta == ideal(current, theta, v0).item()
    order = torch.randperm(T, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(emitted(neuron, current[order]), out)


@given(trains, thetas, sixteenths)
def test_waiting_for_everything_starts_anywhere(currents, theta, v0):
    """N = N* from any v0. An even drive needs 0 <= v0 <= theta: from below, it comes too late for the last spike."""
    current, T = train(currents), len(currents)
    out = emitted(WaitingIF(T, scalar(theta), scalar(v0), T - 1), current)
    assert out.sum().item() / theta == ideal(current, theta, v0).item()


@pytest.mark.parametrize("T", [1, 2, 4, 8])
def test_averaging_is_an_even_drive(T):
    """The train is that of `IF` at the mean, which is a dyadic number at these T."""
    current = torch.randint(-24, 25, (T, 500), dtype=torch.float64) / 8
    even = current.mean(0, keepdim=True).expand(T, -1)
    assert torch.equal(emitted(AverageIF(T, one, half), current), emitted(IF(T, one, half), even))


def test_clipped_floor_networks_are_reproduced():
    """P11: weights times T / N, theta = T / N, v0 = 0 and spike-coded input give floor(N clip(z, 0, T / N)) / N."""
    N, T = 16, 8
    k = torch.randint(0, T + 1, (20, 300), dtype=torch.float64)
    weight = torch.randint(-8, 9, (5, 20), dtype=torch.float64) / 16
    bias = torch.randint(-8, 9, (5, 1), dtype=torch.float64) / 16
    spikes = torch.stack([(k > t).double() for t in range(T)])  # k spikes in T steps
    current = T / N * (weight @ spikes) + bias
    neuron = AverageIF(T, scalar(T / N), scalar(0.0))
    found = emitted(neuron, current.flatten(1)).sum(0).reshape(5, 300) / T
    want = torch.floor(N * (weight @ (k / N) + bias).clamp(0, T / N)) / N
    assert torch.equal(found, want)
    assert len(want.unique()) == T + 1


# ResidualMaskIF


@vectors
def test_masks_of_the_vectors(name):
    """The second pass is the first, or silence; which, the residual says."""
    currents, _, spikes, *_ = VECTORS[name]
    tau = len(currents)
    out = emitted(ResidualMaskIF(2 * tau, one, half, tau), train(currents * 2))[:, 0]
    assert out[:tau].tolist() == spikes
    assert out[tau:].tolist() == [s * (name not in ("V2", "V6", "V7", "V8")) for s in spikes]


def test_neurons_that_should_be_silent_are():
    """P10: N* = 0 and N > 0 means v(tau) < 0, so the mask silences all of these; and some that should spike."""
    tau = 4
    current = torch.randn((tau, 20_000), dtype=torch.float64)
    out = emitted(ResidualMaskIF(2 * tau, one, half, tau), current.repeat(2, 1))
    wanted, first, second = ideal(current, 1.0, 0.5), out[:tau].sum(0), out[tau:].sum(0)
    wrong = (wanted == 0) & (first > 0)
    assert wrong.sum() > 1000
    assert (second[wrong] == 0).all()
    assert ((second == 0) | (second == first)).all()
    assert ((wanted > 0) & (first > 0) & (second == 0)).any()


@pytest.mark.parametrize(("residual", "kept"), [(0.0, 0), (1e-3, 0), (1.01e-3, 1)])
@pytest.mark.parametrize("theta", [1.0, 4.0])
def test_edge_of_the_mask(residual, kept, theta):
    """In units of theta, and above, not at, the margin."""
    neuron = ResidualMaskIF(2, scalar(theta), scalar(0.0), 1)
    current = train([residual * theta, theta])
    assert emitted(neuron, current)[:, 0].tolist() == [0, kept * theta]


def test_second_pass_may_be_longer_than_the_first():
    """tau = 1, T = 3: v starts anew from v0, and the clock goes on in any window."""
    neuron = ResidualMaskIF(4, one, scalar(0.75), 1)
    current = train([1, 0.25, 0, 0.5])
    assert emitted(neuron, current)[:, 0].tolist() == [1, 1, 0, 0]
    state, out = None, []
    for step in current:
        state, spike = neuron.walk(state, step[:, None], 1)
        out.append(spike.item())
    assert out == [1, 1, 0, 0]


# All of them

MODELS = {
    "signed": lambda T, theta, v0: SignedIF(T, theta, v0),
    "graded": lambda T, theta, v0: GradedIF(T, theta, v0, 2),
    "waiting": lambda T, theta, v0: WaitingIF(T, theta, v0, 2),
    "average": AverageIF,
    "mask": lambda T, theta, v0: ResidualMaskIF(T, theta, v0, 3),
}


@pytest.mark.parametrize("model", MODELS)
def test_channels_and_samples_are_apart(model):
    """Parameters `[C, 1]`: every neuron spikes as if it were alone."""
    T, B, C, width = 8, 3, 4, 2
    theta = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64).reshape(C, 1)
    current = torch.randint(-16, 33, (T, B, C, width), dtype=torch.float64) / 8
    out = MODELS[model](T, theta, theta / 4)(current.flatten(0, 1)).reshape(current.shape)
    assert (out != 0).any()
    for c in range(C):
        alone = MODELS[model](T, theta[c, 0], theta[c, 0] / 4)
        for b in range(B):
            assert torch.equal(alone(current[:, b, c]), out[:, b, c])


@pytest.mark.parametrize("model", MODELS)
def test_precision_is_that_of_the_input(model):
    """Nothing turns a train into another type."""
    for dtype in (torch.float32, torch.float64):
        t = torch.tensor(1.0, dtype=dtype)
        assert MODELS[model](8, t, t / 2)(torch.ones(16, 3, dtype=dtype)).dtype == dtype


def test_what_each_needs():
    """Schedule, delay and steps, from which latency is computed."""
    neurons = {name: make(8, one, half) for name, make in MODELS.items()}
    told = {name: (m.schedule, m.delay, m.steps, m.streaming) for name, m in neurons.items()}
    assert told == {
        "signed": ("streaming", 0, 8, True),
        "graded": ("streaming", 0, 8, True),
        "waiting": ("pipelined", 2, 8, False),
        "average": ("layer-synchronous", 0, 8, False),
        "mask": ("two-pass streaming", 0, 8, True),
    }
    assert WaitingIF(8, one, half, 0).schedule == "streaming"
