"""Data that were prepared otherwise than those of the calibration are noticed, and data that were not are let be."""

import click.testing
import numpy as np
import pytest
import torch
from torch import nn

import snnc
from snnc.cli import main
from snnc.data import Dataset, PreparationWarning, described, eight_bits
from snnc.data.fit import Fit, misfit, read_as

MEAN, STD = (0.5,), (0.25,)


def images(n=64, seed=0):
    """8-bit images whose pixels are as likely dark as bright."""
    return np.random.default_rng(seed).integers(0, 256, (n, 1, 6, 6), dtype=np.uint8)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()


def data(way, seed=0, n=64):
    """The same pixels, read in several ways."""
    options = {"plain": {"scale": 255.0}, "raw": {}, "normal": {"scale": 255.0, "mean": MEAN, "std": STD}}
    return Dataset(images(n, seed), np.arange(n) % 3, **options[way])


def batch(way, seed=0, n=64):
    return torch.cat([x for x, _ in data(way, seed, n).batches(64)])


def known(way):
    return described(data(way), batch(way))


def test_a_file_keeps_how_data_were_read_and_what_came_of_it(tmp_path):
    made = snnc.compile(net(), 2, "opi", data("normal"))
    kept = snnc.load(snnc.save(made, tmp_path / "net.snn")).info["calibration"]
    assert kept == known("normal")
    assert (kept["dtype"], kept["raw"], kept["mean"], kept["std"]) == ("uint8", False, [0.5], [0.25])
    assert kept["layout"] == [1, 6, 6]
    x = batch("normal").double()
    want = {"low": x.min(), "high": x.max(), "mean": x.mean(), "std": x.std(correction=0)}
    for name, value in want.items():
        assert kept["channels"][name] == [pytest.approx(float(value), rel=1e-5, abs=1e-7)]
    for suffix in ("pt2", "onnx"):
        assert snnc.load(snnc.save(made, tmp_path / f"net.{suffix}")).info["calibration"] == kept


def test_each_channel_has_its_own_statistics():
    x = torch.stack([torch.full((8, 2, 2), 1.0), torch.arange(32.0).reshape(8, 2, 2)], 1)
    assert described(x, x)["channels"] == {
        "low": [1.0, 0.0],
        "high": [1.0, 31.0],
        "mean": [1.0, 15.5],
        "std": [0.0, 9.23309],
    }
    assert described(x, x.flatten(1))["channels"]["high"] == [31.0]


@pytest.mark.parametrize(
    ("then", "now", "text", "ask"),
    [
        ("raw", "plain", "read with --raw", "pass --raw"),
        ("plain", "raw", "read with no option", "leave --raw out"),
        ("normal", "plain", "read with --mean 0.5 --std 0.25", "pass --mean 0.5 --std 0.25"),
        ("plain", "normal", "these data with --mean 0.5 --std 0.25", "leave --mean 0.5 --std 0.25 out"),
    ],
)
def test_options_that_differ_are_named(then, now, text, ask):
    found = misfit(known(then), read_as(data(now)), batch(now))
    assert text in found
    assert ask in found


@pytest.mark.parametrize("n", [1, 4, 16, 64, 512])
@pytest.mark.parametrize(
    ("then", "now", "ask"),
    [
        ("raw", "plain", "--raw"),
        ("plain", "raw", "leave out --raw"),
        ("normal", "raw", "--mean 0.5 --std 0.25"),
    ],
)
def test_numbers_that_differ_are_told_where_nobody_says_how_they_were_read(then, now, ask, n):
    x = batch(now, 1, n)
    assert ask in misfit(known(then), read_as(x), x)


@pytest.mark.parametrize("n", [16, 64, 512])
def test_a_forgotten_normalisation_is_told_by_its_numbers(n):
    x = batch("plain", 1, n)
    assert "--mean 0.5 --std 0.25" in misfit(known("normal"), read_as(x), x)


@pytest.mark.parametrize("n", [1, 4, 16, 64, 512])
@pytest.mark.parametrize("way", ["plain", "raw", "normal"])
def test_other_samples_that_were_read_alike_fit(way, n):
    assert misfit(known(way), read_as(data(way, 1, n)), batch(way, 1, n)) is None
    dark = batch(way, 2, n)
    dark[: n // 2] *= 0.5  # a few that are darker than others
    assert misfit(known(way), read_as(dark), dark) is None


@pytest.mark.parametrize(
    "kept",
    [None, 3, {}, {"channels": {}}, {"channels": {"low": [0], "high": ["x"], "mean": [0], "std": [1]}, "dtype": None}],
)
def test_files_that_say_nothing_or_nonsense_are_let_be(kept):
    assert misfit(kept, {}, batch("plain")) is None


def test_networks_without_the_record_are_measured_as_ever():
    made = snnc.compile(net(), 2, "opi", data("plain"))
    del made.info["calibration"]
    assert snnc.evaluate(made, data("raw")).notes == []


def measured(network, given):
    """What each way to measure notes, in Python."""
    ann = net()
    yield snnc.evaluate(network, given, ann).notes
    yield snnc.explain(network, ann, given).notes
    yield snnc.verify(network, network, given).notes
    yield snnc.report(network, given, ann).missing
    yield snnc.compare({"one": network}, given, ann).rows[0].evaluation.notes


def test_whatever_measures_says_so():
    made = snnc.compile(net(), 2, "opi", data("raw"))
    with pytest.warns(PreparationWarning, match="pass --raw"):
        assert all(any("pass --raw" in note for note in notes) for notes in measured(made, data("plain")))
    assert not any("--raw" in note for notes in measured(made, data("raw", 1)) for note in notes)


def constant():
    """A network that predicts one class for everything."""
    found = net()
    found[3].bias.data = torch.tensor([0.0, 1000.0, 0.0])
    return found


def test_one_class_for_everything_is_worth_a_warning():
    made = snnc.compile(constant(), 2, "opi", data("plain"))
    with pytest.warns(PreparationWarning, match="Class 1 is predicted for all 64 samples"):
        assert "3 classes" in snnc.evaluate(made, data("plain")).notes[0]
    alone = Dataset(images(), np.ones(64, np.int64), scale=255.0)
    assert snnc.evaluate(made, alone).notes == []  # which is right
    assert snnc.evaluate(made, data("plain").limit(5)).notes == []  # which may be chance


def test_a_fit_passes_batches_on_as_they_are():
    batches = [(torch.ones(2, 3), torch.zeros(2)), (torch.ones(1, 3), torch.zeros(1))]
    assert list(Fit({}, batches).watch(batches)) == batches


@pytest.mark.parametrize(
    ("way", "text"),
    [("plain", "divided by 255"), ("raw", "stay 0 to 255"), ("normal", "normalised with --mean 0.5 --std 0.25")],
)
def test_what_was_done_to_8_bit_data_is_one_sentence(way, text):
    assert text in eight_bits(data(way))
    assert eight_bits(Dataset(np.ones((2, 3), np.float32))) is None


def test_the_command_line_says_it_all(tmp_path):
    run = click.testing.CliRunner()
    file, snn = tmp_path / "data.npz", tmp_path / "net.snn"
    np.savez(file, x=images(), y=np.arange(64) % 3)
    snnc.save(snnc.compile(net(), 2, "opi", Dataset(images())), snn)  # as --raw reads them
    found = run.invoke(main, ["eval", str(snn), "--data", str(file)])
    assert "8-bit values are divided by 255" in found.stderr
    assert "pass --raw" in found.stderr
    found = run.invoke(main, ["eval", str(snn), "--data", str(file), "--raw"])
    assert "8-bit values stay 0 to 255 (--raw)" in found.stderr
    assert "pass" not in found.stderr
    assert "Warning" not in found.output
