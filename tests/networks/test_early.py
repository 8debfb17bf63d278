"""Early exit: by hand, against the readouts, through files and on the command line."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import snnc
from snnc.cli import main
from snnc.errors import DataError, RecipeError, SnncError
from snnc.networks.early import certainty, gone, temperatures

BY_STEP = torch.tensor([[[0.0, 0.0], [3.0, 0.0]], [[2.0, 0.0], [0.0, 1.0]], [[0.0, 9.0], [0.0, 0.5]]])


def test_by_hand():
    """The first sample is sure at the second step, the other one at the first; nobody comes back to a later step."""
    sure = certainty(BY_STEP, {}, False)
    assert torch.equal(sure, BY_STEP.double().softmax(-1).amax(-1))
    found = gone(BY_STEP, sure, 0.85, before=5)
    assert found.steps.tolist() == [7, 6]
    assert found.output.tolist() == [[2.0, 0.0], [3.0, 0.0]]
    assert found.confidence.tolist() == [sure[1, 0].item(), sure[0, 1].item()]
    late = gone(BY_STEP, sure, 1.0, before=0)  # never sure: after all steps
    assert late.steps.tolist() == [3, 3]
    assert torch.equal(late.output, BY_STEP[-1])
    assert torch.equal(certainty(BY_STEP, {}, True), BY_STEP.amax(-1))


def test_temperatures_make_confidence_the_share_that_is_right():
    generator = torch.Generator().manual_seed(0)
    by_step = torch.randn(2, 400, 5, generator=generator) * torch.tensor([0.1, 30.0])[:, None, None]
    classes = torch.where(torch.rand(400, generator=generator) < 0.7, by_step[1].argmax(1), 0)
    info = {"exit": {"temperatures": temperatures(by_step, classes)}}
    right = (by_step.argmax(-1) == classes).double().sum(1) / 401
    assert right[1] > 0.7
    assert torch.allclose(certainty(by_step, info, False).mean(1), right.clamp_min(1 / 5), atol=1e-6)


@pytest.fixture(scope="module")
def made():
    torch.manual_seed(0)
    ann = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 24), nn.ReLU(), nn.Linear(24, 4))
    x = torch.rand(128, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    return ann.eval(), x, snnc.compile(ann, 8, "best-signed", x)


@pytest.mark.parametrize("confidence", [0.3, 0.6, 0.9, 1.0])
def test_a_network_and_its_files(made, confidence, tmp_path):
    """Each sample's output is its readout at its step; a file on disk knows the temperatures as well."""
    _, x, net = made
    assert len(net.info["exit"]["temperatures"]) == 8
    found, by_step = net.exit(x, confidence), net.readout(x)
    sure = net.certainty(by_step)
    for sample, step in enumerate(found.steps.tolist()):
        assert torch.equal(found.output[sample], by_step[step - 1, sample])
        assert (sure[: step - 1, sample] < confidence).all()
        assert step == 8 or sure[step - 1, sample] >= confidence
    for name in ("net.snn", "net.onnx"):
        other = snnc.load(snnc.save(net, tmp_path / name)).exit(x, confidence)
        assert torch.allclose(other.output, found.output, atol=1e-5)
        assert torch.equal(other.steps, found.steps)


def test_steps_are_those_of_the_schedule(made):
    """A layer-synchronous network has been at work long before its first readout."""
    ann, x, _ = made
    net = snnc.compile(ann, 4, "cos", x)
    assert net.exit(x, 0.01).steps.tolist() == [net.latency.steps - 3] * len(x)
    assert net.exit(x, 1.0).steps.max() == net.latency.steps


def test_it_is_measured(made):
    ann, x, net = made
    y = ann(x).argmax(1)
    measured = snnc.evaluate(net, [(x[:50], y[:50]), (x[50:], y[50:])], exits=[0.3, 0.9])
    for row, confidence in zip(measured.exits, (0.3, 0.9), strict=True):
        found = net.exit(x, confidence)
        assert row.confidence == confidence
        assert row.steps == pytest.approx(float(found.steps.double().mean()))
        assert row.accuracy == pytest.approx(100 * float((found.output.argmax(1) == y).double().mean()))
    assert measured.exits[0].steps < measured.exits[1].steps
    assert snnc.evaluate(net, [(x, y)]).exits == []


def test_on_the_command_line(made, tmp_path, monkeypatch):
    ann, x, net = made
    monkeypatch.chdir(tmp_path)
    snnc.save(net, "net.snn")
    np.savez("data.npz", x=x.numpy(), y=ann(x).argmax(1).numpy())
    said = CliRunner().invoke(main, ["eval", "net.snn", "--data", "data.npz", "--exit", "0.85"])
    assert said.exit_code == 0, said.output
    assert "asked for" in said.stdout
    rows = json.loads(
        CliRunner().invoke(main, ["eval", "net.snn", "--data", "data.npz", "--exit", "0.85", "--json"]).stdout
    )
    assert [row["confidence"] for row in rows["exits"]] == [0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 0.99, 0.999]
    steps = [row["steps"] for row in rows["exits"]]
    assert steps == sorted(steps)
    assert CliRunner().invoke(main, ["eval", "net.snn", "--data", "data.npz", "--exit", "0"]).exit_code == 2


@pytest.mark.parametrize("confidence", [0.0, -1.0, 1.5, float("nan")])
def test_confidences_that_cannot_be(made, confidence):
    with pytest.raises(RecipeError, match="The confidence is"):
        made[2].exit(made[1][:2], confidence)


def test_what_has_no_classes():
    with pytest.raises(DataError, match="not \\[B, classes\\]"):
        certainty(torch.zeros(4, 2, 1), {}, False)
    for given in ("hot", {}, {"temperatures": [1.0]}, {"temperatures": [1.0, 1.0, 0.0]}, {"temperatures": 3}):
        with pytest.raises(SnncError, match="temperatures"):
            certainty(BY_STEP, {"exit": given} if given != {} else {"exit": {"samples": 1}}, False)
