"""Tricks that a tracer does not see: each is honoured or refused, and never another function without a word."""

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snnc.capture import capture
from snnc.errors import Unsupported

from .tricks import SHAPE, TRICKS, make

pytestmark = pytest.mark.filterwarnings("ignore")  # what torch has to say of tricks is its own affair


def honoured(net, shape, training=False):
    """Whether a network is captured as what it is; False where it is refused."""
    try:
        graph = capture(net.train(training), shape)
    except Unsupported as refusal:
        assert refusal.hint  # noqa: PT017
        return False
    net.eval()
    with torch.no_grad():
        for samples in (1, 2, 5, 40):
            x = torch.randn(samples, *SHAPE, generator=torch.Generator().manual_seed(samples))
            want = copy.deepcopy(net)(x.clone())
            torch.testing.assert_close(graph(x), want, rtol=1e-4, atol=1e-4)
    return True


@pytest.mark.parametrize("shape", [None, SHAPE], ids=["unknown", "known"])
@pytest.mark.parametrize("name", TRICKS)
def test_a_trick_is_honoured_or_refused(name, shape):
    honoured(TRICKS[name](make()), shape)


@settings(max_examples=15, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.sampled_from(sorted(TRICKS)), min_size=2, max_size=3, unique=True),
    st.sampled_from((None, SHAPE)),
    st.booleans(),
    st.integers(0, 2**16),
)
def test_tricks_on_tricks_are_honoured_or_refused(names, shape, training, seed):
    net = make(seed)
    for name in names:
        if type(net).__name__ != "DataParallel":  # it hides the layers that other tricks name
            net = TRICKS[name](net)
    honoured(net, shape, training)
