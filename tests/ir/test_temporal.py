"""Time folded into the batch: encoding, decoding, and max pooling of spikes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from snnc.ir.neurons import IF, GradedIF, Neuron, ResidualMaskIF, SignedIF
from snnc.ir.temporal import MAXPOOL_LOWERINGS, Decode, Encode, GatedMax, Restart, RunningMax, StepMax, Temporal

POOLS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "2d": (nn.MaxPool2d(2), (3, 6, 6)),
    "overlapping": (nn.MaxPool2d(3, 2), (3, 7, 7)),
    "padded": (nn.MaxPool2d(3, 2, 1), (3, 6, 6)),
    "ceil": (nn.MaxPool2d(3, 2, 1, ceil_mode=True), (3, 6, 6)),
    "dilated": (nn.MaxPool2d(2, 1, dilation=2), (3, 6, 6)),
    "oblong": (nn.MaxPool2d((1, 3), (2, 1), (0, 1)), (3, 6, 6)),
    "global": (nn.MaxPool2d(6), (3, 6, 6)),
    "1d": (nn.MaxPool1d(3, 2, 1), (3, 9)),
    "3d": (nn.MaxPool3d(2, 1), (2, 3, 4, 3)),
    "adaptive-1d": (nn.AdaptiveMaxPool1d(4), (3, 9)),
    "adaptive-2d": (nn.AdaptiveMaxPool2d((2, 5)), (3, 7, 6)),
    "adaptive-3d": (nn.AdaptiveMaxPool3d(2), (2, 3, 4, 3)),
}
pools = pytest.mark.parametrize("pool", POOLS)
T, B = 7, 3


def train(shape: tuple[int, ...], spikes: bool) -> Tensor:
    """`[T, B, ...]`: spikes of a height that differs by channel, or currents of either sign."""
    size = (T, B, *shape)
    if not spikes:
        return torch.randint(-24, 25, size) / 8
    height = torch.tensor([0.5, 1.0, 4.0])[: shape[0]].reshape(-1, *[1] * (len(shape) - 1))
    return torch.randint(0, 2, size) * height


@pools
@pytest.mark.parametrize("spikes", [True, False])
def test_running_max_sums_to_the_maximum_of_the_sums(pool, spikes):
    """After every step, exactly, for spikes and for currents of either sign."""
    module, shape = POOLS[pool]
    x = train(shape, spikes)
    out = RunningMax(T, module)(x.flatten(0, 1)).reshape(T, B, *module(x[0]).shape[1:])
    for t in range(1, T + 1):
        assert torch.equal(out[:t].sum(0), module(x[:t].sum(0)))


@pools
def test_running_max_of_spikes_is_spikes(pool):
    """0 or one spike of the channel's height."""
    module, shape = POOLS[pool]
    out = RunningMax(T, module)(train(shape, True).flatten(0, 1))
    height = torch.tensor([0.5, 1.0, 4.0])[: shape[0]].reshape(-1, *[1] * (len(shape) - 1))
    assert ((out == 0) | (out == height)).all()
    assert (out != 0).any()


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=12))
def test_running_max_of_any_four_trains(rows):
    x = torch.tensor(rows, dtype=torch.float32)[:, None]
    out = RunningMax(len(x), nn.MaxPool1d(4))(x).flatten()
    assert out.cumsum(0).tolist() == x[:, 0].cumsum(0).amax(1).tolist()
    assert set(out.tolist()) <= {0.0, 1.0}


def test_gate_forwards_the_leader():
    """By hand: the leader's own spike, whether or not the largest sum grew."""
    a, b = [1, 1, 0, 0, 0], [0, 0, 1, 1, 1]
    x = torch.tensor([a, b], dtype=torch.float32).T[:, None]
    assert GatedMax(5, nn.MaxPool1d(2))(x).flatten().tolist() == [1, 1, 0, 0, 1]
    # In the other order the tie at step 4 goes to b, whose spike is forwarded though the maximum stays 2.
    assert GatedMax(5, nn.MaxPool1d(2))(x.flip(2)).flatten().tolist() == [1, 1, 0, 1, 1]
    assert RunningMax(5, nn.MaxPool1d(2))(x.flip(2)).flatten().tolist() == [1, 1, 0, 0, 1]


@pytest.mark.parametrize("pool", [name for name in POOLS if not name.startswith("adaptive")])
def test_gate_agrees_with_indices(pool):
    """Each output is the input at the place where the sum is largest."""
    module, shape = POOLS[pool]
    x = train(shape, False)
    out = GatedMax(T, module)(x.flatten(0, 1)).reshape(T, B, *module(x[0]).shape[1:])
    dims = len(shape) - 1
    kind = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[dims - 1]
    config = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    finder = kind(**{name: getattr(module, name) for name in config}, return_indices=True)
    for t in range(T):
        index = finder(x[: t + 1].sum(0))[1].flatten(2)
        assert torch.equal(out[t].flatten(2), x[t].flatten(2).gather(2, index))


def evenly_driven(steps: int) -> tuple[Tensor, Tensor]:
    """Trains `[T * B, 1, 4]` of neurons at constant rates and any phase, and the rates."""
    rates = torch.randint(0, 129, (64, 1, 4)) / 128
    start = torch.randint(0, 128, (64, 1, 4)) / 128
    neuron = IF(steps, torch.tensor(1.0), torch.tensor(0.0))
    return neuron.walk(start, rates.repeat(steps, 1, 1), steps)[1], rates


def test_maximum_at_each_step_overestimates_more_as_time_grows():
    """At T = 1 it is right; the more steps, the more rarely the spikes of a window coincide."""
    errors = []
    for steps in (1, 4, 16, 64):
        x, rates = evenly_driven(steps)
        found = StepMax(steps, nn.MaxPool1d(4))(x).reshape(steps, 64, 1).sum(0) / steps
        right = RunningMax(steps, nn.MaxPool1d(4))(x).reshape(steps, 64, 1).sum(0) / steps
        assert (found >= right).all()
        assert (right - rates.amax(2)).abs().max() <= 1 / steps
        errors.append((found - right).mean().item())
    assert errors[0] == 0
    assert errors == sorted(errors)
    assert errors[-1] > 0.1


@pytest.mark.parametrize("kind", MAXPOOL_LOWERINGS.values())
def test_one_step_is_an_ordinary_max_pool(kind):
    x = train((3, 6, 6), False)[0]
    assert torch.equal(kind(1, nn.MaxPool2d(2))(x), nn.MaxPool2d(2)(x))


def test_encode_repeats_step_after_step():
    x = torch.randn(2, 3, 4)
    out = Encode(5)(x)
    assert out.shape == (10, 3, 4)
    assert all(torch.equal(step, x) for step in out.reshape(5, 2, 3, 4))


@pytest.mark.parametrize("read", [1, 3, 8])
def test_decode_is_the_mean_over_the_steps_that_are_read(read):
    x = torch.randint(-8, 9, (8, 2, 3)) / 8
    assert torch.equal(Decode(8, read)(x.flatten(0, 1)), x[:read].sum(0) / read)


@pytest.mark.parametrize(("read", "skip"), [(1, 7), (3, 1), (2, 4)])
def test_decode_skips(read, skip):
    x = torch.randint(-8, 9, (8, 2, 3)) / 8
    assert torch.equal(Decode(8, read, skip)(x.flatten(0, 1)), x[skip : skip + read].sum(0) / read)
    running = Decode(8, read, skip).running(x.flatten(0, 1)).reshape(read, 2, 3)
    assert torch.equal(running, torch.stack([x[skip : skip + t].sum(0) / t for t in range(1, read + 1)]))


@pytest.mark.parametrize(("skip", "late"), [(0, 1), (0, 4), (2, 3)])
def test_a_delayed_readout_counts_the_later_steps(skip, late):
    """And before them, what there is."""
    x = torch.randint(-8, 9, (8, 2, 3)) / 8
    decode = Decode(8, 5, skip, late)
    read = x[skip : skip + 5]
    assert torch.equal(decode(x.flatten(0, 1)), read[late:].sum(0) / (5 - late))
    early = [read[:t].sum(0) / t for t in range(1, late + 1)]
    then = [read[late:t].sum(0) / (t - late) for t in range(late + 1, 6)]
    assert torch.equal(decode.running(x.flatten(0, 1)).reshape(5, 2, 3), torch.stack([*early, *then]))


@pytest.mark.parametrize("body", MAXPOOL_LOWERINGS.values())
def test_restarting_is_two_runs(body):
    """The second pass knows nothing of the first."""
    x = train((3, 6, 6), True)
    out = Restart(T, body(T, nn.MaxPool2d(2)), 3)(x.flatten(0, 1))
    runs = [body(len(part), nn.MaxPool2d(2))(part.flatten(0, 1)) for part in (x[:3], x[3:])]
    assert torch.equal(out, torch.cat(runs))


@pytest.mark.parametrize("read", [1, 3, 8])
def test_running_decode_ends_where_decode_does(read):
    x = torch.randint(-8, 9, (8, 2, 3, 5)) / 8
    running = Decode(8, read).running(x.flatten(0, 1)).reshape(read, 2, 3, 5)
    for t in range(1, read + 1):
        assert torch.equal(running[t - 1], x[:t].sum(0) / t)


@pytest.mark.parametrize(
    "module",
    [
        IF(6, torch.tensor([0.5, 1.0]), torch.tensor([0.25, 0.5])),
        SignedIF(6, torch.tensor([0.5, 1.0]), torch.tensor([0.25, 0.5])),
        GradedIF(6, torch.tensor([0.5, 0.25]), torch.tensor([0.25, 0.5]), 2),
        ResidualMaskIF(6, torch.tensor([0.5, 1.0]), torch.tensor([0.25, 0.5]), 2),
        *(kind(6, nn.MaxPool1d(2)) for kind in MAXPOOL_LOWERINGS.values()),
        Restart(6, RunningMax(6, nn.MaxPool1d(2)), 2),
    ],
    ids=lambda module: type(module).__name__,
)
@pytest.mark.parametrize("cuts", [(1, 5), (3, 3), (1, 1, 1, 1, 1, 1), (4, 2)])
def test_walk_carries_its_state(module, cuts):
    """Windows in a row give what the whole train gives, and the state alone says where it stands."""
    x = torch.randint(-8, 9, (6, 4, 2)) / 8 if isinstance(module, Neuron) else torch.randint(-8, 9, (6, 4, 2, 6)) / 8
    whole, state, start, parts = module(x.flatten(0, 1)), None, 0, []
    for width in cuts:
        state, out = module.walk(state, x[start : start + width].flatten(0, 1), width)
        parts.append(out)
        start += width
    assert torch.equal(torch.cat(parts), whole)


def test_step_is_pure():
    """Neither the state nor the current is changed by a step."""
    for module in (IF(4, torch.tensor(1.0), torch.tensor(0.5)), RunningMax(4, nn.MaxPool1d(2))):
        x = torch.rand(2, 3, 4)
        state, _ = module.step(module.initial(x), x)
        states = list(filter(torch.is_tensor, tree_leaves(state)))
        kept = [s.clone() for s in states]
        again = x.clone()
        first = module.step(state, x)[1]
        assert kept
        assert torch.equal(x, again)
        assert all(map(torch.equal, states, kept))
        assert torch.equal(module.step(state, x)[1], first)


@pytest.mark.parametrize("method", ["initial", "step"])
def test_what_a_subclass_must_write(method):
    with pytest.raises(NotImplementedError, match=method):
        getattr(Temporal(1), method)(*[torch.zeros(1)] * (1 if method == "initial" else 2))
