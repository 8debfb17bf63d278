"""Random networks: what must hold for any network of the dialect holds for these, to the bit.

A few of each here; `python benchmarks/reliability.py networks --examples 1000` tries many.
"""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import fx, nn

from snnc.capture import capture, outcome
from snnc.errors import Unsupported
from tests import network_checks as check
from tests.random_networks import networks

# Drawing a network runs it, which hypothesis takes for slow; examples that shrink would run for minutes.
few = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@settings(few, max_examples=20)
@given(networks(), st.sampled_from((1, 2, 4, 8)))
def test_any_network_is_captured_changed_exactly_and_streamed(made, T):
    net, shape = made
    try:
        graph = check.captured(net, shape)
    except Unsupported as refusal:  # such as a chunk that is changed in place
        assert refusal.blockers  # noqa: PT017 (most are not refused)
        return
    assert check.streams(check.exact_passes(graph, shape, T), shape) > 0


@settings(few, max_examples=5)
@given(networks(dyadic=False), st.sampled_from((1, 3, 8)))
def test_any_fixed_point_network_spikes_the_same_everywhere(tmp_path_factory, made, T):
    assert check.same_everywhere(*made, T, tmp_path_factory.mktemp("net")) > 0


def test_a_difference_would_be_seen(monkeypatch):
    """The checks can fail: this network shows the tracer another function, and what capture compares is left out."""
    monkeypatch.setattr(outcome, "compare", lambda *_: ({}, None))

    class Sly(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x):
            return self.fc(x).relu() * (2 if isinstance(x, fx.Proxy) else 1)

    with pytest.raises(AssertionError, match="capture changed"):
        check.captured(Sly().eval(), (3,))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("sides", [(0, 1), (1, 0)])
def test_padding_on_some_sides_only(mode, sides):
    """torch's paddings other than by zeros name every side, those of width 0 too."""
    kernel = tuple(2 * side + 1 for side in sides)
    net = nn.Sequential(nn.Conv2d(2, 3, kernel, padding=sides, padding_mode=mode), nn.ReLU()).eval()
    x = torch.randn(2, 2, 5, 5)
    assert torch.equal(capture(net, (2, 5, 5))(x), net(x))
