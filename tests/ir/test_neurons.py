"""Integrate-and-fire neurons: the vectors and properties of the algorithm reference, section 5."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from snnc.ir.dialect import ClipQuant
from snnc.ir.neurons import IF, OffsetIF

STEPS = 8
TRAINS = 20_000

# Currents, N*, spikes, v(T), v0 after one calibration, spikes after it. theta = 1, v0 = 1/2, rho = T.
VECTORS = {
    "V1": ([2, -2, 2, -2, 2], 2, [1, 0, 1, 0, 0], 0.5, 0.5, [1, 0, 1, 0, 0]),
    "V2": ([2, 2, 2, -2, -2], 2, [1, 1, 1, 1, 0], -1.5, -0.5, [1, 1, 1, 0, 0]),
    "V3": ([-1, -1, 3, 0], 1, [0, 0, 1, 0], 0.5, 0.5, [0, 0, 1, 0]),
    "V4": ([0, 0, 0, 2.6], 3, [0, 0, 0, 1], 2.1, 1.5, [1, 0, 0, 1]),
    "V5": ([-2, 2.2, 0.4, 0.3], 1, [0, 0, 1, 0], 0.4, 0.5, [0, 0, 1, 0]),
    "V6": ([1.8, -1, -0.6, 0.1], 0, [1, 0, 0, 0], -0.2, -0.801, [0, 0, 0, 0]),
    "V7": ([3, -3.2, 0, 0], 0, [1, 0, 0, 0], -0.7, -2.001, [0, 0, 0, 0]),
    "V8": ([1.25, 1.25, -1.5, -0.5], 1, [1, 1, 0, 0], -1.0, -0.5, [0, 1, 0, 0]),
    "V10": ([2, 2, 2, 2], 4, [1, 1, 1, 1], 4.5, 0.5, [1, 1, 1, 1]),
    "V11": ([-2, -2, 3, 3], 2, [0, 0, 0, 1], 1.5, 2.001, [0, 0, 1, 1]),
}
vectors = pytest.mark.parametrize("name", VECTORS)

sixteenths = st.integers(-48, 48).map(lambda k: k / 16)
trains = st.lists(sixteenths, min_size=1, max_size=16)
thetas = st.sampled_from([0.25, 0.5, 1.0, 2.0, 4.0])
shares = st.integers(0, 15).map(lambda k: k / 16)


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def run(current: Tensor, theta: float, v0: float | Tensor) -> tuple[Tensor, Tensor]:
    """Spikes `[T, N]` as 0 and 1, and final potential, of N neurons with `current` `[T, N]`."""
    neuron = IF(len(current), scalar(theta), torch.as_tensor(v0, dtype=torch.float64))
    v, out = neuron.walk(None, current[:, :, None].flatten(0, 1), len(current))
    return out.reshape(current.shape) / theta, v[:, 0]


def train(currents: list[float]) -> Tensor:
    return torch.tensor(currents, dtype=torch.float64)[:, None]


def ideal(current: Tensor, theta: float, v0: float) -> Tensor:
    """N* = clip(floor((v0 + S) / theta), 0, T)."""
    return torch.floor((v0 + current.sum(0)) / theta).clamp(0, len(current))


def offset(T: int, iterations: int = 1, guard: bool = True, rho: int | None = None, v0: float = 0.5) -> OffsetIF:
    return OffsetIF(T, scalar(1.0), scalar(v0), rho or T, iterations, guard)


def random_trains() -> Tensor:
    return torch.randn((STEPS, TRAINS), dtype=torch.float64) * 1.2 + 0.2


@vectors
def test_spikes_of_the_vectors(name):
    currents, _, spikes, v, _, _ = VECTORS[name]
    found, end = run(train(currents), 1.0, 0.5)
    assert found[:, 0].tolist() == spikes
    assert end.item() == pytest.approx(v, abs=1e-12)


@vectors
def test_calibration_of_the_vectors(name):
    currents, _, _, _, v0, after = VECTORS[name]
    neuron = offset(len(currents))
    assert neuron.calibrated(train(currents)[:, :, None]).item() == pytest.approx(v0, abs=1e-12)
    assert neuron(train(currents)).flatten().tolist() == after


@vectors
def test_iterated_calibration_of_the_vectors_reaches_the_ideal_count(name):
    currents, count, *_ = VECTORS[name]
    assert offset(len(currents), iterations=len(currents))(train(currents)).sum().item() == count


@pytest.mark.parametrize(("name", "v0", "count"), [("V4", 2.5, 3), ("V2", -1.5, 2)])
def test_two_iterations_where_one_is_not_enough(name, v0, count):
    currents = train(VECTORS[name][0])
    neuron = offset(len(currents), iterations=2)
    assert neuron.calibrated(currents[:, :, None]).item() == pytest.approx(v0, abs=1e-12)
    assert neuron(currents).sum().item() == count


def test_released_code_lifts_a_saturated_neuron():
    """V10 without the guard: nothing was silent, so the shift up is 1001."""
    currents = train(VECTORS["V10"][0])
    neuron = offset(4, guard=False)
    assert neuron.calibrated(currents[:, :, None]).item() == pytest.approx(1001.501, abs=1e-12)
    assert neuron(currents).flatten().tolist() == [1, 1, 1, 1]


def test_released_code_keeps_a_saturated_neuron_firing_after_the_window():
    """rho < T: without the guard the neuron fires at every later step whatever comes."""
    currents = train([2, 2, -9, -9, -9, -9])
    assert offset(6, guard=False, rho=2)(currents).flatten().tolist() == [1] * 6
    assert offset(6, guard=True, rho=2)(currents).flatten().tolist() == [1, 1, 0, 0, 0, 0]


def test_guard_is_the_same_where_no_neuron_saturates():
    window = random_trains()[:, :, None]
    free = offset(STEPS, guard=False).calibrated(window)
    count = run(window[:, :, 0], 1.0, 0.5)[0].sum(0)
    assert torch.equal(free[count < STEPS], offset(STEPS).calibrated(window)[count < STEPS])
    assert (count == STEPS).any()


@pytest.mark.parametrize(("at", "spikes", "v"), [([1, 3], [1, 0, 1, 1], 0.0), ([3, 4], [0, 0, 1, 1], 1.0)])
def test_order_matters(at, spikes, v):
    """The figure of the QCFS paper: weight 1.5, v0 = 0, two spikes at different times."""
    currents = [1.5 if t in at else 0.0 for t in (1, 2, 3, 4)]
    found, end = run(train(currents), 1.0, 0.0)
    assert found[:, 0].tolist() == spikes
    assert end.item() == v


def test_table_of_constant_currents():
    """P1, as printed."""
    table = {-0.3: "0000", 0.12: "0001", 0.125: "0011", 0.4: "0123", 0.99: "1248", 1.3: "1248"}
    for x, counts in table.items():
        found = [int(run(train([x] * T), 1.0, 0.5)[0].sum()) for T in (1, 2, 4, 8)]
        assert "".join(map(str, found)) == counts


@pytest.mark.parametrize("theta", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("T", [1, 2, 3, 5, 8, 16])
def test_constant_current(T, theta):
    """P1 on a whole grid: N = clip(floor((T x + v0) / theta), 0, T)."""
    x, v0 = (g.flatten().double() for g in torch.meshgrid(torch.arange(-48, 49), torch.arange(16), indexing="ij"))
    x, v0 = x / 16, v0 / 16 * theta
    neuron = IF(T, scalar(theta), scalar(0.0))
    _, out = neuron.walk(v0[:, None], x[:, None].repeat(T, 1), T)
    count = out.reshape(T, -1).sum(0) / theta
    assert torch.equal(count, torch.floor((T * x + v0) / theta).clamp(0, T))


@given(st.lists(shares, min_size=1, max_size=16), thetas, shares)
def test_any_order_of_small_currents(parts, theta, share):
    """P2: currents in [0, theta] give N = floor((v0 + S) / theta), and v stays in [0, theta)."""
    current = train([p * theta for p in parts])
    found, end = run(current, theta, share * theta)
    assert found.sum().item() == math.floor((share * theta + current.sum().item()) / theta)
    assert 0 <= end.item() < theta


@given(trains, thetas, shares)
def test_potential_stays_positive_under_positive_currents(currents, theta, share):
    """P3: never too many spikes without a negative current."""
    current = train([abs(i) for i in currents])
    found, end = run(current, theta, share * theta)
    assert end.item() >= 0
    assert found.sum().item() <= ideal(current, theta, share * theta).item()


@given(trains, thetas, sixteenths)
def test_charge_is_conserved(currents, theta, v0):
    """P4: theta * spikes + v(T) = v0 + sum of currents, exactly."""
    current = train(currents)
    found, end = run(current, theta, v0)
    assert theta * found.sum().item() + end.item() == v0 + sum(currents)


finite = st.floats(-100, 100, allow_subnormal=False)


@given(st.lists(finite, min_size=1, max_size=16), st.floats(0.01, 10), finite)
def test_charge_is_conserved_for_any_numbers(currents, theta, v0):
    """P4 in float64, where rounding is all that is lost."""
    found, end = run(train(currents), theta, v0)
    assert theta * found.sum().item() + end.item() == pytest.approx(v0 + sum(currents), abs=1e-9)


@given(trains, thetas, shares)
def test_ideal_count_from_the_residual(currents, theta, share):
    """P5: N* = clip(N + floor(v(T) / theta), 0, T)."""
    current = train(currents)
    found, end = run(current, theta, share * theta)
    guess = min(max(found.sum().item() + math.floor(end.item() / theta), 0), len(currents))
    assert guess == ideal(current, theta, share * theta).item()


def test_one_calibration_moves_one_spike():
    """P6: exactly one spike, in the direction of the residual, and none where nothing is to be moved."""
    current = random_trains()
    count, residual = run(current, 1.0, 0.5)
    count = count.sum(0)
    down, up = (residual < 0) & (count >= 1), (residual >= 1) & (count < STEPS)
    new = offset(STEPS)(current.flatten()[:, None]).reshape(current.shape).sum(0)
    assert torch.equal(new - count, up.double() - down.double())
    assert min(int(down.sum()), int(up.sum()), int((~up & ~down).sum())) > 1000


def test_iterated_calibration_reaches_the_ideal_count():
    """P7: as many shifts as the first residual says give N*, whatever the train."""
    current = random_trains()
    out = offset(STEPS, iterations=STEPS)(current.flatten()[:, None]).reshape(current.shape)
    assert torch.equal(out.sum(0), ideal(current, 1.0, 0.5))


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_each_iteration_moves_one_spike_more(iterations):
    current = random_trains()
    count, _ = run(current, 1.0, 0.5)
    wanted = ideal(current, 1.0, 0.5) - count.sum(0)
    new = offset(STEPS, iterations)(current.flatten()[:, None]).reshape(current.shape).sum(0)
    assert torch.equal(new - count.sum(0), wanted.clamp(-iterations, iterations))
    assert (wanted.abs() > iterations).any()


@pytest.mark.parametrize("theta", [0.5, 4.0])
def test_calibration_is_in_units_of_theta(theta):
    """Currents, v0 and threshold scaled together: the same spikes, from potentials that are scaled, margin and all."""
    current = random_trains()[:, :500]
    plain = offset(STEPS, 2)(current.flatten()[:, None])
    scaled = OffsetIF(STEPS, scalar(theta), scalar(theta / 2), STEPS, 2)
    assert torch.equal(scaled(current.flatten()[:, None] * theta), plain * theta)
    start = offset(STEPS, 2).calibrated(current[:, :, None])
    assert torch.equal(scaled.calibrated(current[:, :, None] * theta), start * theta)


def test_a_silent_neuron_cannot_fire_less():
    """Below zero without a spike: there is none to take away, now or in a later iteration."""
    for iterations in (1, 3):
        neuron = offset(4, iterations, rho=2)
        assert neuron.calibrated(train([-1, -1])[:, :, None]).item() == 0.5
        assert neuron(train([-1, -1, 3, 3])).flatten().tolist() == [0, 0, 1, 1]
    # One spike and a residual of -3.7: three shifts are due, and only one can be made.
    assert offset(4, 3, rho=2).calibrated(train([3, -6.2])[:, :, None]).item() == pytest.approx(-2.001, abs=1e-12)


@pytest.mark.parametrize("rho", [1, 2, 3, 4])
def test_window_shorter_than_the_run(rho):
    """Only the first rho steps decide, and all T steps are emitted from the first on."""
    current = random_trains()[:, :500]
    neuron = offset(STEPS, rho=rho)
    start = offset(rho).calibrated(current[:rho, :, None])
    assert torch.equal(neuron.calibrated(current[:rho, :, None]), start)
    want = IF(STEPS, scalar(1.0), scalar(0.0)).walk(start, current.flatten()[:, None], STEPS)[1]
    assert torch.equal(neuron(current.flatten()[:, None]), want)


def test_samples_are_calibrated_apart():
    """A sample's spikes do not depend on the batch it came in."""
    current = random_trains()[:, :6].reshape(STEPS, 6, 1)
    together = offset(STEPS, 2)(current.flatten(0, 1)).reshape(STEPS, 6, 1)
    for b in range(6):
        assert torch.equal(offset(STEPS, 2)(current[:, b]), together[:, b])


def test_calibration_only_says_how_long_it_takes():
    neuron = offset(6, iterations=3, rho=4)
    assert (neuron.steps, neuron.streaming) == (18, False)
    assert (IF(6, scalar(1.0), scalar(0.5)).steps, IF(6, scalar(1.0), scalar(0.5)).streaming) == (6, True)


def test_errors_of_the_initial_potential():
    """P16: uniform drive gives mean error (v0 - 1/2) / T and mean square (1/12 + (v0 - 1/2)^2) / T^2."""
    for T in (1, 2, 4, 8):
        for v0 in (0.0, 0.25, 0.5, 1.0):
            x = (torch.arange(4096, dtype=torch.float64) + 0.5) / 4096
            error = run(x.expand(T, -1), 1.0, v0)[0].sum(0) / T - x
            assert error.mean().item() == pytest.approx((v0 - 0.5) / T, abs=1e-6)
            assert error.square().mean().item() == pytest.approx((1 / 12 + (v0 - 0.5) ** 2) / T**2, abs=1e-6)


@pytest.mark.parametrize("T", [1, 2, 3, 4, 5, 7, 8, 16])
@pytest.mark.parametrize("shift", [0.0, 0.25, 0.5])
def test_theorem(T, shift):
    """At T = L, v0 = shift * theta and constant input an IF neuron is ClipQuant, bit for bit."""
    x = torch.arange(-512, 1025)[:, None] / 128
    for theta in (torch.tensor(0.5), torch.tensor(2.0), torch.tensor([1.0])):
        neuron = IF(T, theta, theta * shift)
        spikes = neuron(x.repeat(T, 1)).reshape(T, *x.shape)
        assert torch.equal(spikes.sum(0) / T, ClipQuant(theta, T, shift)(x))


def shift_error(T: int, L: int, shift: float, v0: float) -> float:
    """Mean over uniform currents of the rate of a neuron minus `ClipQuant`."""
    bins = 64 * T * L
    x = (torch.arange(bins, dtype=torch.float64)[:, None] + 0.5) / bins
    rate = IF(T, scalar(1.0), scalar(v0))(x.repeat(T, 1)).reshape(T, bins, 1).sum(0) / T
    return (rate - ClipQuant(scalar(1.0), L, shift)(x)).mean().item()


@pytest.mark.parametrize(("T", "L", "shift"), [(2, 8, 0.0), (3, 4, 0.0), (4, 8, 0.25), (4, 8, 0.5), (16, 4, 0.5)])
def test_shift_rule_has_no_mean_error(T, L, shift):
    """v0 = theta * (1/2 + (shift - 1/2) T / L) has the mean of the quantiser for uniform currents."""
    v0 = 0.5 + (shift - 0.5) * T / L
    assert 0 <= v0 <= 1
    assert shift_error(T, L, shift, v0) == pytest.approx(0, abs=1e-12)
    assert abs(shift_error(T, L, shift, v0 + 0.25)) > 1e-3


def test_shift_rule_below_zero_is_nearly_right():
    """Clip-floor at T > L asks for v0 < 0, where the count stops at 0: better than v0 = 0, but not exact."""
    assert shift_error(16, 4, 0.0, -1.5) == pytest.approx(1 / 128, abs=1e-12)
    assert shift_error(16, 4, 0.0, 0.0) == pytest.approx(12 / 128, abs=1e-12)


@given(trains, thetas, shares)
def test_channels_have_their_own_threshold(currents, theta, share):
    """One neuron for each channel, each as if it were alone."""
    T = len(currents)
    bounds = torch.tensor([theta, 2 * theta, 3.0], dtype=torch.float64)
    neuron = IF(T, bounds.reshape(3, 1), (bounds * share).reshape(3, 1))
    out = neuron(train(currents)[:, None].expand(T, 3, 2).contiguous())
    for c, bound in enumerate(bounds.tolist()):
        alone = run(train(currents), bound, bound * share)[0][:, 0] * bound
        assert torch.equal(out[:, c, 0], alone)
        assert torch.equal(out[:, c, 1], alone)
