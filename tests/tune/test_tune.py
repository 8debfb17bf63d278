"""Training: gradients against closed forms, values against the network itself, and runs that resume to the bit."""

import copy
import functools
import inspect
import json
import math
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

import snnc
from snnc.capture import capture
from snnc.cli import main
from snnc.data import Dataset
from snnc.errors import DataError, LoadError, RecipeError, SnncError, WriteError
from snnc.ir.dialect import ClipQuant
from snnc.ir.graph import Stage, calls
from snnc.ir.neurons import IF
from snnc.ir.temporal import Decode, StepCurrent
from snnc.passes import EvenCurrents, FoldBatchNorm, InsertNeurons, QuantizeActivations, ScaleThresholds
from snnc.passes.pipeline import Pipeline
from snnc.tune.augment import augment
from snnc.tune.forward import ByRate, Forward, InTime, Quantised
from snnc.tune.match import matched, mismatch, seen
from snnc.tune.norms import Evened, Normed, added, evened, moments, removed, sites
from snnc.tune.options import TuneOptions
from snnc.tune.parameters import RoundDown, closed, groups, opened
from snnc.tune.samples import Batches, gathered, split
from snnc.tune.surrogate import Levels, Rate, Spike
from tests.nets import MAKERS, quantized, sample, spiking

# Gradients.


def through(z, lam, L, shift):
    """The quantiser in torch's own operations, with `detach` in the place of the floor's gradient."""
    level = z * L / lam + shift
    level = level + (torch.floor(level) - level).detach()
    return level.clamp(0, L) * lam / L


@pytest.mark.parametrize("shape", [(), (3, 1, 1)], ids=["layer", "channel"])
@pytest.mark.parametrize(("L", "shift"), [(1, 0.5), (4, 0.5), (3, 0.0)])
def test_the_quantisers_gradient_is_that_of_the_straight_through_floor(shape, L, shift):
    generator = torch.Generator().manual_seed(0)
    z = 3 * torch.randn(4, 3, 5, 5, generator=generator, dtype=torch.float64)
    lam = 0.5 + torch.rand(shape, generator=generator, dtype=torch.float64)
    weight = torch.randn(z.shape, generator=generator, dtype=torch.float64)
    results = []
    for quantise in (Levels.apply, through):
        a, b = z.clone().requires_grad_(), lam.clone().requires_grad_()
        out = quantise(a, b, L, shift)
        (out * weight).sum().backward()
        results.append((out.detach(), a.grad, b.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert results[0][2].shape == lam.shape


@pytest.mark.parametrize(
    ("z", "by_z", "by_lam"),
    [
        (-1.0, 0.0, 0.0),  # below
        (-0.125, 1.0, 0.0 + 0.0625),  # rounds to level 0: q - z / lam
        (0.75, 1.0, 0.5 - 0.375),  # u = 1.5 + 0.5 = level 2 of 4
        (2.0, 1.0, 0.0),  # exactly at the bound
        (2.125, 1.0, 1 - 1.0625),  # above it, and still on the highest level
        (4.0, 0.0, 1.0),  # above
    ],
)
def test_the_quantisers_gradient_in_closed_form(z, by_z, by_lam):
    a, lam = torch.tensor([z], requires_grad=True), torch.tensor(2.0, requires_grad=True)
    Levels.apply(a, lam, 4, 0.5).sum().backward()
    assert (a.grad.item(), lam.grad.item()) == (by_z, by_lam)


@pytest.mark.parametrize("T", [1, 2, 4])
def test_for_even_drive_the_rates_gradient_is_the_quantisers(T):
    z = torch.linspace(-2, 4, 97, dtype=torch.float64) + 0.003
    weight = torch.linspace(1, 2, 97, dtype=torch.float64)
    a, lam = z.clone().requires_grad_(), torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    out = Levels.apply(a, lam, T, 0.5)
    (out * weight).sum().backward()
    b, theta = z.clone().requires_grad_(), lam.detach().clone().requires_grad_()
    v0 = (theta.detach() / 2).requires_grad_()
    rate = Rate.apply(b, out.detach(), theta, v0, T, "rectangle")
    (rate * weight).sum().backward()
    assert torch.equal(rate, out)
    assert torch.equal(a.grad, b.grad)
    # v0 is theta / 2 there, and a parameter of its own here.
    torch.testing.assert_close(theta.grad + v0.grad / 2, lam.grad, rtol=1e-12, atol=1e-12)
    inside = (z + v0.detach() / T >= 0) & (z + v0.detach() / T < 1.5 * (T + 1) / T)
    assert v0.grad.item() == pytest.approx(weight[inside].sum().item() / T)


@pytest.mark.parametrize("T", [1, 2, 4])
def test_a_rates_triangle_is_one_for_each_jump(T):
    theta, v0 = torch.tensor(2.0, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    z = torch.linspace(-4, 12, 160001, dtype=torch.float64).requires_grad_()
    level = (z.detach() * T + v0) / theta
    Rate.apply(z, level.floor().clamp(0, T) * theta / T, theta, v0, T, "triangle").sum().backward()
    wanted = sum((1 - (level - jump).abs()).clamp_min(0) for jump in range(1, T + 1))
    torch.testing.assert_close(z.grad, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["residual", "preactivation", "single"])
def test_at_one_step_both_gradients_are_the_same(name):
    graph, shape = spiking(name, 1)
    found = []
    for kind in (ByRate, InTime):
        live = opened(graph)
        kind(live, "triangle").run(sample(shape, 16)).square().sum().backward()
        found.append({n: value.grad for n, value in live.named_parameters()})
    assert found[0].keys() == found[1].keys()
    for one, other in zip(*(f.values() for f in found), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("shape", "area"), [("rectangle", 1.0), ("triangle", 1.0)])
def test_a_spikes_surrogate_has_area_one(shape, area):
    u = torch.linspace(-4, 8, 120001, dtype=torch.float64).requires_grad_()
    spike = Spike.apply(u, torch.tensor(2.0, dtype=torch.float64), shape)
    assert torch.equal(spike.detach(), (u >= 2).double())
    spike.sum().backward()
    assert u.grad.sum().item() * 1e-4 == pytest.approx(area, rel=1e-3)


# Values.


NAMES = sorted(MAKERS)


@pytest.mark.parametrize("kind", [ByRate, InTime])
@pytest.mark.parametrize("T", [1, 4])
@pytest.mark.parametrize("name", NAMES)
def test_training_sees_the_spiking_network_itself(name, T, kind):
    graph, shape = spiking(name, T)
    x = sample(shape)
    out = kind(opened(graph)).run(x)
    assert torch.equal(out, snnc.Network(graph, {})(x))
    assert out.requires_grad


@pytest.mark.parametrize("kind", [ByRate, InTime])
@pytest.mark.parametrize("name", ["residual", "maxpool", "early"])
def test_training_sees_a_delayed_readout(name, kind):
    graph, shape = spiking(name, 4)
    for _, module in calls(graph, Decode):
        module.late = 2
    x = sample(shape)
    live = opened(graph)
    out = kind(live).run(x)
    assert torch.equal(out, snnc.Network(graph, {})(x))
    out.square().sum().backward()
    assert all(value.grad is not None for value in live.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_training_sees_the_quantised_network_itself(name):
    graph, shape = quantized(name)
    x = sample(shape)
    assert torch.equal(Quantised(opened(graph)).run(x), graph(x))


def test_every_parameter_has_a_gradient_and_is_closed_again():
    graph, shape = spiking("preactivation", 2)
    open_ = opened(graph)
    ByRate(open_).run(sample(shape, 16)).square().sum().backward()
    names = {name for name, _ in open_.named_parameters()}
    assert {"relu1.theta", "relu1.v0", "bn3.scale", "conv1.weight"} <= names
    assert all(value.grad is not None for value in open_.parameters())
    assert all(value.grad is None for value in graph.parameters())  # the original is left alone
    again = closed(open_)
    assert torch.equal(snnc.Network(again, {})(sample(shape)), snnc.Network(graph, {})(sample(shape)))
    assert {n for n, _ in again.named_buffers()} == {n for n, _ in graph.named_buffers()}


def test_at_even_drive_rates_and_levels_have_the_same_gradients():
    # One layer of neurons behind a constant current: the quantised network and the spiking one are the same.
    flat, shape = quantized("single", 4)
    live, _ = spiking("single", 4)
    x = sample(shape, 16)
    found = []
    for forward in (Quantised(opened(flat)), ByRate(opened(live), "rectangle")):
        forward.run(x).square().sum().backward()
        found.append(forward.module.get_submodule("fc1").weight.grad)
    assert torch.equal(*found)


# Normalisation during training.


def normalised(name="conv", T=2):
    graph, shape = spiking(name, T)
    live = opened(graph)
    batches = [sample(shape, 32, seed) for seed in range(2)]
    found, dims = moments(ByRate(live), batches)
    added(live, {node.name: found[node.name] for node in sites(live, dims)})
    return graph, live, batches


@pytest.mark.parametrize("name", ["conv", "residual", "mlp", "conv1d", "dense"])
def test_normalisations_fold_into_the_weights_they_came_from(name):
    graph, live, _ = normalised(name)
    assert any(calls(live, Normed))
    again = copy.deepcopy(live)
    removed(again)
    again = closed(again)
    for (_, one), (_, other) in zip(calls(again), calls(graph), strict=True):
        assert type(one) is type(other)
        if hasattr(other, "weight"):
            torch.testing.assert_close(one.weight, other.weight, rtol=1e-4, atol=1e-5)


def test_steps_are_normalised_as_their_mean_is():
    _, live, _ = normalised("conv", 2)
    _, normed = next(iter(calls(live, Normed)))
    steps = torch.randn(2 * 8, *sample((3, 4, 4), 1).shape[1:])
    mean = steps.reshape(2, 8, 3, 4, 4).mean(0)
    out, scale, shift = normed.measured(mean)
    by_step = normed.steps(steps, scale, shift)
    torch.testing.assert_close(by_step.reshape(2, 8, *by_step.shape[1:]).mean(0), out, rtol=1e-4, atol=1e-5)
    values = out.transpose(0, 1).flatten(1)
    torch.testing.assert_close(values.mean(1), normed.bias, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(values.var(1, correction=0), normed.weight.square(), rtol=1e-2, atol=1e-3)


def test_running_statistics_are_what_folding_uses():
    _, live, _ = normalised("conv", 2)
    _, normed = next(iter(calls(live, Normed)))
    x = torch.randn(16, 3, 4, 4)
    normed.forget()
    out = normed(x).detach()
    normed.note(normed.fresh)  # the first batch after forgetting is all there is
    torch.testing.assert_close(normed.folded()(x), out, rtol=1e-4, atol=1e-5)


# Augmentation and data.


def stepped(T=4):
    """An opened spiking network with currents of single steps, and a batch."""
    x = torch.tensor(tiny_data().x)
    pipeline = Pipeline(
        (FoldBatchNorm(), QuantizeActivations(bound="data"), ScaleThresholds(), InsertNeurons(), EvenCurrents())
    )
    return snnc.compile(tiny(), T, pipeline, [x]), x


def test_currents_of_single_steps_are_measured_anew_and_still_add_up_to_nothing():
    net, x = stepped()
    graph = opened(net.graph)
    evened(graph)
    for _, module in calls(graph, Evened):
        module.step.shift.zero_()
        module.forget()
    before = {node.target: module.step.shift.clone() for node, module in calls(graph, Evened)}
    assert before
    with torch.no_grad():
        for _ in range(2):  # the second sees what the currents of the first have changed
            ByRate(graph).run(x)
            for _, module in calls(graph, Evened):
                module.note(module.fresh)
    removed(graph)
    found = dict(graph.named_modules())
    for name in before:
        assert type(found[name]) is StepCurrent
        shift = found[name].shift
        assert shift.abs().max() > 0
        torch.testing.assert_close(shift.sum(0), torch.zeros_like(shift[0]), atol=1e-5, rtol=0)


def test_one_batch_of_evening_is_the_pass():
    net, x = stepped()
    wanted = {node.name: module.shift.clone() for node, module in calls(net.graph, StepCurrent)}
    graph = opened(net.graph)
    first = next(node.name for node, _ in calls(graph, StepCurrent))  # behind it the pass had evened what came before
    for _, module in calls(graph, StepCurrent):
        module.shift.zero_()
    evened(graph)
    for _, module in calls(graph, Evened):
        module.forget()
    with torch.no_grad():
        ByRate(graph).run(x)
    for _, module in calls(graph, Evened):
        module.note(module.fresh)
    found = {node.name: module.step.shift for node, module in calls(graph, Evened)}
    torch.testing.assert_close(found[first], wanted[first], atol=1e-6, rtol=1e-5)


def test_neurons_are_matched_to_the_activations_of_the_same_name():
    net, x = stepped()
    teacher = capture(tiny(), tuple(x.shape[1:]))
    names = matched(net.graph, teacher)
    assert names == {node.name for node, _ in calls(net.graph, IF)}
    out, activations = seen(Forward(teacher), x, names)
    assert torch.equal(out, teacher(x))
    assert set(activations) == names
    assert mismatch(activations, activations) == 0
    doubled = {name: 2 * value for name, value in activations.items()}
    wanted = torch.stack([value.square().mean() / value.var() for value in activations.values()]).mean()
    torch.testing.assert_close(mismatch(doubled, activations), wanted)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_augmentation_shifts_mirrors_and_covers():
    x = torch.arange(1, 1 + 64 * 36).reshape(64, 1, 6, 6).float()
    assert torch.equal(augment(x, generator(), 0, False, 0), x)
    mirrored = augment(x, generator(), 0, True, 0)
    kinds = [torch.equal(a, b) for a, b in zip(mirrored, x, strict=True)]
    assert 16 < sum(kinds) < 48
    assert all(torch.equal(a, b if same else b.flip(-1)) for a, b, same in zip(mirrored, x, kinds, strict=True))
    padded = functional.pad(x, (2, 2, 2, 2))
    windows = [padded[:, :, i : i + 6, j : j + 6] for i in range(5) for j in range(5)]
    shifted = augment(x, generator(), 2, False, 0)
    found = [next(k for k, w in enumerate(windows) if torch.equal(w[b], shifted[b])) for b in range(64)]
    assert len(set(found)) > 15
    covered = augment(x, generator(), 0, False, 3)
    for image, whole in zip(covered, x, strict=True):
        hidden = image[0] == 0
        assert 4 <= hidden.sum() <= 9
        assert torch.equal(hidden, hidden.any(1)[:, None] & hidden.any(0)[None])  # a rectangle
        assert torch.equal(image[0][~hidden], whole[0][~hidden])


def test_augmentation_leaves_what_is_no_image():
    x = torch.randn(4, 7)
    assert augment(x, generator(), 4, True, 8) is x


def test_batches_depend_on_seed_epoch_and_step_alone():
    data = Dataset(np.random.default_rng(0).random((50, 1, 4, 4), dtype=np.float32), np.arange(50) % 5)
    batches = Batches(data, TuneOptions(batch=8, crop=1))
    whole = list(batches.epoch(3))
    assert len(whole) == batches.steps == 6
    late = list(batches.epoch(3, 4))
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(whole[4:], late, strict=True))
    assert not torch.equal(whole[0][0], next(iter(batches.epoch(4)))[0])


def test_held_out_samples_are_not_trained_on():
    data = Dataset(np.arange(100, dtype=np.float32)[:, None])
    training, held = split(data, 0.2, 0)
    assert len(held) == 20
    assert sorted([*training.x[:, 0], *held.x[:, 0]]) == list(range(100))
    assert split(data, 0.001, 0) == (data, None)


# Whole runs.


def tiny(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, padding=1),
        nn.ReLU(), nn.Flatten(), nn.Linear(64, 3),
    ).eval()  # fmt: skip


def tiny_data(count=60):
    rng = np.random.default_rng(0)
    return Dataset(rng.random((count, 1, 8, 8), dtype=np.float32), rng.integers(0, 3, count))


QUICK = {"T": 2, "epochs": 2, "batch": 8, "held_out": 0.1, "crop": 1}


def weights(network):
    return network.graph.state_dict()


def same(one, other):
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Stop(Exception):
    """What interrupts a run."""


def stopping(after):
    """A progress tracker that fails before step `after` + 1."""

    def track(items, what, total=None):
        for done, item in enumerate(items):
            if what == "tuning" and done == after:
                raise Stop
            yield item

    return track


@pytest.mark.parametrize("after", [1, 6, 9])
@pytest.mark.parametrize(
    "options",
    [{}, {"optimiser": "sgd", "lr": 0.01}, {"kind": "quantised"}, {"gradient": "time", "norms": "none"}],
    ids=["rate", "sgd", "quantised", "time"],
)
def test_an_interrupted_run_resumes_to_the_bit(tmp_path, options, after):
    run = functools.partial(snnc.tune, tiny(), tiny_data(), **QUICK, **options)
    whole = run()
    file = tmp_path / "a.checkpoint"
    with pytest.raises(Stop):
        run(checkpoint=file, save_seconds=0.0, track=stopping(after))
    assert file.exists()
    again = run(checkpoint=file, resume=True)
    assert same(whole, again)
    assert not file.exists()
    ours, theirs = again.info["tune"], whole.info["tune"]
    assert ours["table"] == theirs["table"]
    assert [row["loss"] for row in ours["epochs"]] == [row["loss"] for row in theirs["epochs"]]


def test_two_runs_are_the_same_and_another_seed_is_another_run():
    run = functools.partial(snnc.tune, tiny(), tiny_data(), **QUICK)
    assert same(run(), run())
    assert not same(run(), run(seed=1))


def interrupted(file, **more):
    with pytest.raises(Stop):
        snnc.tune(tiny(), tiny_data(), checkpoint=file, save_seconds=0.0, track=stopping(2), **{**QUICK, **more})


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"lr": 0.5}, r"lr = 0\.001, not 0\.5"),
        ({"T": 1}, "another network"),
        ({"data": tiny_data(40)}, "54 training samples, not 36"),
        ({"data": replace(tiny_data(), x=1 - tiny_data().x)}, "other training data"),
        ({"data": replace(tiny_data(), mean=(0.5,))}, "other training data"),
        ({"teacher": tiny(seed=7)}, "another network to distil from"),
    ],
)
def test_another_run_is_not_resumed(tmp_path, more, message):
    file = tmp_path / "a.checkpoint"
    interrupted(file)
    given = {"data": tiny_data(), **QUICK, **more}
    with pytest.raises(LoadError, match=message):
        snnc.tune(tiny(), given.pop("data"), checkpoint=file, resume=True, **given)
    assert file.exists()


def test_what_is_no_checkpoint_is_not_resumed(tmp_path):
    file = tmp_path / "a.checkpoint"
    with pytest.raises(LoadError, match="no checkpoint"):
        snnc.tune(tiny(), tiny_data(), checkpoint=file, resume=True, **QUICK)
    torch.save({"format": "other"}, file)
    with pytest.raises(LoadError, match="not a checkpoint"):
        snnc.tune(tiny(), tiny_data(), checkpoint=file, resume=True, **QUICK)
    interrupted(tmp_path / "b.checkpoint")
    content = torch.load(tmp_path / "b.checkpoint", weights_only=True)
    torch.save({**content, "progress": {"what": 1}}, file)
    with pytest.raises(LoadError, match="damaged"):
        snnc.tune(tiny(), tiny_data(), checkpoint=file, resume=True, **QUICK)
    with pytest.raises(RecipeError, match="no checkpoint file"):
        snnc.tune(tiny(), tiny_data(), resume=True, **QUICK)


def test_a_checkpoint_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "a.checkpoint"
    interrupted(file)
    before = file.read_bytes()

    def full(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError):
        snnc.tune(tiny(), tiny_data(), checkpoint=file, resume=True, save_seconds=0.0, **QUICK)
    assert file.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [file.name]


@functools.cache
def digits():
    """A small network that reads digits, its training data and its test data."""
    torch.manual_seed(0)
    found = load_digits()
    x, y = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16, torch.tensor(found.target)
    net = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 12, 3, 2, 1), nn.BatchNorm2d(12),
        nn.ReLU(), nn.Conv2d(12, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(24, 10),
    )  # fmt: skip
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(12):
        for index in torch.randperm(1200).split(64):
            optimiser.zero_grad()
            functional.cross_entropy(net(x[index]), y[index]).backward()
            optimiser.step()
    return net.eval(), (x[:1200], y[:1200]), (x[1200:], y[1200:])


def accuracy(net, x, y):
    return 100 * float((net(x).argmax(1) == y).float().mean())


LEARN = {"epochs": 4, "batch": 32, "crop": 0, "flip": False, "lr": 3e-3}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gradient": "time"},
        {"norms": "own", "loss": "labels"},
        {"norms": "none", "loss": "both", "optimiser": "sgd", "lr": 0.01},
        {"kind": "quantised"},
        {"amp": True},
    ],
    ids=["rate", "time", "labels", "both", "quantised", "amp"],
)
@pytest.mark.parametrize("T", [1, 2])
def test_training_teaches(T, options):
    net, training, test = digits()
    before = accuracy(snnc.compile(net, T, "opi", training[0]), *test)
    tuned = snnc.tune(net, training, T=T, **{**LEARN, **options})
    table = tuned.info["tune"]["table"]
    _, held = split(gathered(training), 0.02, 0)
    x, y = next(held.batches(len(held)))
    assert table["after"]["accuracy"][-1] == round(accuracy(tuned, x, y), 2)
    assert table["ann"]["accuracy"][-1] == round(accuracy(net, x, y), 2)
    if options.get("kind") == "quantised":
        assert isinstance(tuned, snnc.Staged)
        tuned = snnc.compile(tuned, T)
        assert tuned.info["recipe"] == "qcfs"
    gap = 100 - before
    assert accuracy(tuned, *test) > before + 0.3 * gap


def test_distillation_needs_no_labels():
    net, (x, _), test = digits()
    tuned = snnc.tune(net, x, T=1, **LEARN)
    assert accuracy(tuned, *test) > accuracy(snnc.compile(net, 1, "opi", x), *test) + 5
    assert tuned.info["tune"]["table"]["after"]["accuracy"] is None
    assert len(tuned.info["tune"]["table"]["after"]["agreement"]) == 1


def test_a_spiking_network_is_trained_from_where_it_is():
    net, training, test = digits()
    first = snnc.compile(net, 2, "opi", training[0])
    state = copy.deepcopy(first.graph.state_dict())
    tuned = snnc.tune(first, training, teacher=net, **LEARN)
    assert tuned.T == 2
    assert accuracy(tuned, *test) > accuracy(first, *test)
    assert all(torch.equal(a, b) for a, b in zip(state.values(), first.graph.state_dict().values(), strict=True))
    assert snnc.tune(first, training, loss="labels", **LEARN).info["tune"]["table"]["ann"] is None


@pytest.mark.parametrize("kind", ["spiking", "quantised"])
def test_another_network_teaches_by_its_outputs_alone(kind):
    """One whose layers have the same names and other shapes."""
    torch.manual_seed(1)
    wide = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 64, 3)).eval()
    tuned = snnc.tune(tiny(), tiny_data(), teacher=wide, kind=kind, **QUICK)
    alone = snnc.tune(tiny(), tiny_data(), teacher=wide, kind=kind, match=0.0, norms="own", **QUICK)
    assert same(tuned, alone)


def test_another_network_teaches_a_spiking_one_by_its_outputs_alone():
    torch.manual_seed(1)
    wide = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 64, 3)).eval()
    first = snnc.compile(tiny(), 2, "opi", tiny_data())
    tuned, alone, own = (
        snnc.tune(first, tiny_data(), teacher=teacher, **more, **QUICK)
        for teacher, more in ((wide, {}), (wide, {"match": 0.0, "norms": "own"}), (tiny(), {}))
    )
    assert same(tuned, alone)
    assert not same(tuned, own)


def test_a_network_with_trained_bounds_is_trained_further():
    graph, shape = quantized("trained", 4)
    x = sample(shape, 32)
    tuned = snnc.tune(graph, x, kind="quantised", epochs=1, batch=8, held_out=0.0)
    bounds = [module for _, module in calls(tuned.graph, ClipQuant)]
    assert [module.L for module in bounds] == [4, 4]
    assert not torch.equal(bounds[0].lam, next(module for _, module in calls(graph, ClipQuant)).lam)
    assert isinstance(snnc.tune(graph, x, T=4, epochs=1, batch=8, held_out=0.0), snnc.Network)


def test_a_budget_of_time_is_kept_and_the_rate_falls_to_nothing(monkeypatch):
    rates = []
    step = torch.optim.AdamW.step

    def noted(self, *args):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    tuned = snnc.tune(tiny(), tiny_data(), T=1, minutes=0.01, batch=8)
    assert 0.6 <= tuned.info["tune"]["seconds"] < 3
    assert rates[0] == pytest.approx(1e-3, rel=0.05)
    assert rates[-1] < 1e-4
    assert rates == sorted(rates, reverse=True)


def test_the_rate_follows_a_cosine(monkeypatch):
    rates = []
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self: rates.append([g["lr"] for g in self.param_groups]))
    snnc.tune(tiny(), tiny_data(), optimiser="sgd", lr=0.5, bound_lr=0.25, **QUICK)
    assert len(rates) == 2 * 6
    for step, (weight, *_, bound) in enumerate(rates):
        assert weight == pytest.approx(0.25 * (1 + math.cos(math.pi * step / 12)))
        assert bound == weight / 4


def test_thresholds_stay_above_zero():
    graph, _ = spiking("conv", 2)
    live = opened(graph)
    floor = RoundDown(live)
    least = [0.01 * neuron.theta.detach().clone() for _, neuron in calls(live, IF)]
    with torch.no_grad():
        for value in live.parameters():
            value.sub_(100)
    floor()
    for (_, neuron), bound in zip(calls(live, IF), least, strict=True):
        torch.testing.assert_close(neuron.theta.detach(), bound)
    assert (next(m for _, m in calls(live, IF)).v0 < 0).all()  # a potential may go below


@pytest.mark.parametrize("decay_bounds", [False, True])
def test_what_decays(decay_bounds):
    graph, _ = spiking("conv", 2)
    live = opened(graph)
    named = {id(value): name for name, value in live.named_parameters()}
    decay = {named[id(v)]: g["weight_decay"] for g in groups(live, 0.5, decay_bounds, 1.0) for v in g["params"]}
    assert set(decay) == set(named.values())
    assert decay["conv1.weight"] == 0.5
    assert decay["conv1.bias"] == 0
    assert decay["relu1.theta"] == decay["relu1.v0"] == (0.5 if decay_bounds else 0)


# What is refused.


def layer_synchronous():
    return snnc.compile(tiny(), 4, "cos", tiny_data())


REFUSED = {
    "no labels": (tiny, lambda: tiny_data().x, {"loss": "labels"}, DataError, "no labels"),
    "nothing to learn from": (
        lambda: snnc.compile(tiny(), 2, "opi", tiny_data()), tiny_data, {}, RecipeError, "nothing to distil from",
    ),
    "layer-synchronous recipe": (tiny, tiny_data, {"recipe": "cos"}, RecipeError, "layer-synchronous"),
    "layer-synchronous network": (
        layer_synchronous, tiny_data, {"teacher": tiny()}, SnncError, "layer-synchronous",
    ),
    "gated pooling": (
        tiny, tiny_data,
        {"recipe": snnc.recipe("opi").pipeline.set("insert-neurons", maxpool="gate")}, RecipeError, "GatedMax",
    ),
    "spiking as quantised": (
        lambda: snnc.compile(tiny(), 2, "opi", tiny_data()), tiny_data,
        {"kind": "quantised", "loss": "labels"}, RecipeError, "quantised one",
    ),
    "no samples": (tiny, list, {}, DataError, "no batches"),
    "labels that have no class": (
        tiny, lambda: Dataset(tiny_data().x, np.arange(60)), {}, DataError, "has 3 classes",
    ),
    "half of the labels": (
        tiny, lambda: [(tiny_data().x, tiny_data().y), tiny_data().x], {}, DataError, "some have none",
    ),
    "unknown option": (tiny, tiny_data, {"learning_rate": 1.0}, RecipeError, "no option of 'tune' 'learning_rate'"),
    "no rate": (tiny, tiny_data, {"lr": 0.0}, RecipeError, "'lr' of 'tune' is 0.0"),
    "negative rate": (tiny, tiny_data, {"lr": -1.0}, RecipeError, "'lr'"),
    "infinite rate": (tiny, tiny_data, {"lr": math.inf}, RecipeError, "'lr'"),
    "a rate in words": (tiny, tiny_data, {"lr": "fast"}, RecipeError, "it takes a number"),
    "no epochs": (tiny, tiny_data, {"epochs": 0}, RecipeError, "'epochs'"),
    "no time": (tiny, tiny_data, {"minutes": 0.0}, RecipeError, "'minutes'"),
    "all held out": (tiny, tiny_data, {"held_out": 1.0}, RecipeError, "'held_out'"),
    "another share": (tiny, tiny_data, {"alpha": 2.0}, RecipeError, "'alpha'"),
    "no such device": (tiny, tiny_data, {"device": "abacus"}, RecipeError, "'device'"),
    "no such kind": (tiny, tiny_data, {"kind": "analog"}, RecipeError, "'spiking' or 'quantised'"),
    "a rate that explodes": (tiny, tiny_data, {"lr": 1e30, "optimiser": "sgd"}, DataError, "lower learning rate"),
    "no neurons to come to": (
        tiny, tiny_data, {"kind": "quantised", "recipe": snnc.recipe("qcfs").pipeline.remove("quantize-activations")},
        SnncError, "FOLDED",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    model, data, options, kind, message = REFUSED[name]
    given = {k: v for k, v in QUICK.items() if k not in options} | options
    with pytest.raises(kind) as caught:
        snnc.tune(model(), data(), **given)
    assert message in str(caught.value)


# Networks of an earlier stage, and the command line.


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(tiny(), "net.pt")
    data = tiny_data()
    np.savez("data.npz", x=data.x, y=data.y)
    return tmp_path


def run(*args, code=0):
    result = CliRunner().invoke(main, [str(a) for a in args])
    assert result.exit_code == code, result.output
    return result


FAST = ("--data", "data.npz", "--T", "2", "--epochs", "1", "--batch", "8", "--held-out", "0.2")


@pytest.mark.usefixtures("here")
def test_the_command_writes_a_network_that_runs():
    result = run("tune", "net.pt", *FAST, "-o", "out.snn")
    assert "Held-out samples, read out after each step" in result.stdout
    assert "Epoch 1" in result.stderr
    net = snnc.load("out.snn")
    assert f"Trained: {net.info['tune']['steps']} steps of snnc tune" in run("inspect", "out.snn").stdout
    assert same(net, snnc.tune(tiny(), tiny_data(), T=2, epochs=1, batch=8, held_out=0.2))
    assert net.info["tune"]["held_out"] == 12
    run("eval", "out.snn", "--data", "data.npz", "--ann", "net.pt")
    run("inspect", "out.snn")
    run("tune", "out.snn", *FAST, "--ann", "net.pt", "-o", "more.snn")
    run("tune", "out.snn", *FAST, "--loss", "labels", "-o", "more.snn")
    assert "nothing to distil from" in run("tune", "out.snn", *FAST, "-o", "x.snn", code=1).stderr


@pytest.mark.usefixtures("here")
def test_the_command_writes_a_quantised_network_that_compiles():
    found = json.loads(run("tune", "net.pt", *FAST, "--kind", "quantised", "-o", "q.snn", "--json").stdout)
    assert found["out"] == "q.snn"
    assert found["options"]["kind"] == "quantised"
    assert len(found["table"]["after"]["accuracy"]) == 1
    made = json.loads(run("compile", "q.snn", "--T", "2", "-o", "s.snn", "--json").stdout)
    assert made["recipe"] == "qcfs"
    assert made["input_shape"] == [1, 8, 8]
    assert made["tune"]["options"] == found["options"]
    lam = next(m for _, m in calls(snnc.load("s.snn").graph, IF)).theta
    tuned = snnc.tune(tiny(), tiny_data(), T=2, epochs=1, batch=8, held_out=0.2, kind="quantised")
    assert torch.equal(lam, next(m for _, m in calls(tuned.graph, ClipQuant)).lam)
    assert json.loads(run("check", "q.snn", "--json").stdout)["activations"] == {"ClipQuant": 2}
    assert "an ANN, as snnc reads it" in run("inspect", "q.snn").stdout
    run("compile", "q.snn", "--T", "2", "-o", "s.pt2")
    run("eval", "s.snn", "--data", "data.npz", "--ann", "q.snn")
    run("tune", "q.snn", *FAST, "-o", "again.snn")


@pytest.mark.usefixtures("here")
def test_the_command_resumes(monkeypatch):
    whole = run("tune", "net.pt", *FAST, "-o", "whole.snn")
    assert whole
    step = torch.optim.AdamW.step
    left = iter(range(3))

    def failing(self, *args):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", failing)
    run("tune", "net.pt", *FAST, "--save-seconds", "0", "-o", "out.snn", code=130)
    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    assert "did not end" in run("tune", "net.pt", *FAST, "-o", "out.snn", code=1).stderr
    run("tune", "net.pt", *FAST, "--resume", "-o", "out.snn")
    assert same(snnc.load("out.snn"), snnc.load("whole.snn"))
    assert "no checkpoint" in run("tune", "net.pt", *FAST, "--resume", "-o", "out.snn", code=1).stderr


@pytest.mark.usefixtures("here")
def test_options_of_the_command_are_those_of_the_library():
    assert set(inspect.signature(TuneOptions).parameters) <= {p.name for p in main.commands["tune"].params}
    assert "'lr'" in run("tune", "net.pt", *FAST, "--lr", "0", "-o", "x.snn", code=1).stderr


def test_staged_networks_are_networks(tmp_path):
    graph, shape = quantized("conv", 4)
    staged = snnc.Staged(graph, Stage.QUANTIZED, {"input_shape": list(shape)})
    x = sample(shape)
    assert torch.equal(staged(x), graph(x))
    assert torch.equal(snnc.compile(staged, 4)(x), snnc.compile(graph, 4)(x))
    assert snnc.compile(staged, 4).info["input_shape"] == list(shape)
    snnc.save(staged, tmp_path / "a.snn")
    with pytest.raises(LoadError, match="stage QUANTIZED"):
        snnc.load(tmp_path / "a.snn")


def test_a_network_that_gives_maps_is_trained_without_a_score():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    result = snnc.tune(net, Dataset(tiny_data().x), **QUICK)
    assert result(torch.zeros(1, 1, 8, 8)).shape == (1, 2, 8, 8)
