"""Quantised activations, in the arithmetic of those who publish them, become `ClipQuant`."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from snnc.capture import blockers, capture
from snnc.ir import dialect
from snnc.ir.graph import calls
from tests.capture.test_capture import archived, signature
from tests.zoo import GradFloor, Qcfs


class Net(nn.Module):
    """A convolution and an activation."""

    def __init__(self, body):
        super().__init__()
        self.conv, self.body, self.pool, self.qcfs = nn.Conv2d(3, 4, 3), body, nn.AvgPool2d(2), Qcfs(8, 1.7)
        self.lam = nn.Parameter(torch.tensor([1.5]))
        self.each = nn.Parameter(torch.tensor([0.5, 1.0, 2.0, 3.0]).reshape(4, 1, 1))

    def forward(self, x):
        return self.body(self, self.conv(x))


def build(body):
    torch.manual_seed(3)
    return Net(body).eval()


def _through(m, x):
    y = torch.clamp(x / m.lam, 0, 1) * 4
    return ((torch.round(y) - y).detach() + y) / 4 * m.lam


def _through_all(m, x):
    y = torch.floor(x.clamp(0, 1) * 8) / 8
    return x.clamp(0, 1) + (y - x.clamp(0, 1)).detach()


# Body, and for each ClipQuant its L, shift and lam.
CHAINS = {
    "QCFS": (lambda m, x: m.qcfs(x), [(8, 0.5, 1.7)]),
    "QCFS with torch.floor": (lambda m, x: torch.floor((x / m.lam).clamp(0, 1) * 4 + 0.5) / 4 * m.lam, [(4, 0.5, 1.5)]),
    "floor, then clip": (lambda m, x: (torch.floor(x * 4 / m.lam + 0.5) / 4).clamp(0, 1) * m.lam, [(4, 0.5, 1.5)]),
    "floor, then clip levels": (lambda m, x: GradFloor.apply(x * 4 + 0.5).clamp(0, 4) / 4, [(4, 0.5, 1.0)]),
    "clip at the bound": (
        lambda m, x: torch.floor(torch.clamp(x, m.lam * 0, m.lam) * 4 / m.lam) * m.lam / 4,
        [(4, 0.0, 1.5)],
    ),
    "CQ": (lambda m, x: torch.floor(torch.clamp(x, 0, 1) * 10) / 10, [(10, 0.0, 1.0)]),
    "CQ with relu": (lambda m, x: torch.floor(F.relu(x).clamp(max=1) * 10) / 10, [(10, 0.0, 1.0)]),
    "CQ with hardtanh": (lambda m, x: torch.floor(F.hardtanh(x, 0, 1) * 10).div_(10), [(10, 0.0, 1.0)]),
    "CQ by steps": (lambda m, x: torch.floor(x.clamp(0, 1) / 0.1) * 0.1, [(10, 0.0, 1.0)]),
    "relu6 rounded": (lambda m, x: torch.round(F.relu6(x) * 2.5) / 2.5, [(15, 0.5, 6.0)]),
    "round": (lambda m, x: torch.round(x.clamp(0, 1) * 4) * 0.25, [(4, 0.5, 1.0)]),
    "by channel": (
        lambda m, x: torch.floor((x / m.each).clamp(0, 1) * 4 + 0.5) / 4 * m.each,
        [(4, 0.5, (0.5, 1.0, 2.0, 3.0))],
    ),
    "floor division": (lambda m, x: torch.div(x.clamp(0, 2), 0.25, rounding_mode="floor") * 0.25, [(8, 0.0, 2.0)]),
    "another shift": (lambda m, x: torch.floor(x.clamp(0, 1) * 8 + 0.25) / 8, [(8, 0.25, 1.0)]),
    "straight through": (_through, [(4, 0.5, 1.5)]),
    "straight through all": (_through_all, [(8, 0.0, 1.0)]),
    "twice": (lambda m, x: m.qcfs(m.pool(m.qcfs(x))), [(8, 0.5, 1.7), (8, 0.5, 1.7)]),
    "behind a pool": (lambda m, x: torch.floor(m.pool(x.clamp(0, 1)) * 16) / 16, [(16, 0.0, 1.0)]),
    "behind a join": (lambda m, x: torch.floor(torch.cat([x.clamp(0, 1), F.relu6(x)], 1) * 2) / 2, [(12, 0.0, 6.0)]),
    "behind a pad": (lambda m, x: torch.floor(F.pad(x.clamp(0, 1), (1, 1))[:, 1:].flatten(1) * 4) / 4, [(4, 0.0, 1.0)]),
    "bound off the grid": (lambda m, x: torch.floor(m.pool(x.clamp(0, 0.9)) * 8) / 8, [(7, 0.0, 0.875)]),
    "dialect": (lambda m, x: dialect.ClipQuant(torch.tensor(1.0), 4)(x), [(4, 0.5, 1.0)]),
}


def quants(graph):
    return [(m.L, m.shift, m.lam) for _, m in calls(graph, dialect.ClipQuant)]


@pytest.mark.parametrize("case", CHAINS.values(), ids=CHAINS)
def test_chains(case):
    body, expected = case
    net = build(body)
    graph = capture(net, (3, 8, 8))
    x = torch.randn((8, 3, 8, 8), generator=torch.Generator().manual_seed(2)) * 3
    with torch.no_grad():
        # A value may lie so close to a tie that the chain's own rounding decides; none of these does.
        torch.testing.assert_close(graph(x), net(x), rtol=1e-5, atol=1e-6)
    for (L, shift, lam), (want_L, want_shift, want_lam) in zip(quants(graph), expected, strict=True):
        assert (L, shift) == (want_L, want_shift)
        torch.testing.assert_close(lam.flatten(), torch.tensor(want_lam).flatten(), rtol=1e-6, atol=0)


def test_exported_programs_give_the_same():
    """All chains in one network, since exporting each by itself takes long."""
    net = build(lambda m, x: torch.cat([body(m, x + i).flatten(1) for i, (body, _) in enumerate(CHAINS.values())], 1))
    graphs = [capture(net, (3, 8, 8)), capture(archived(net, (3, 8, 8)))]
    assert signature(graphs[0], names=False) == signature(graphs[1], names=False)
    for have, want in zip(quants(graphs[1]), quants(graphs[0]), strict=True):
        assert have[:2] == want[:2]
        assert torch.equal(have[2], want[2])


def test_nothing_of_a_chain_is_left():
    graph = capture(build(CHAINS["QCFS"][0]), (3, 8, 8))
    assert [row[:2] for row in signature(graph)] == [("conv", "Conv2d"), ("qcfs", "ClipQuant")]


def test_levels_without_a_scale_keep_it_behind():
    net = build(lambda m, x: torch.floor(x.clamp(0, 1) * 8))
    graph = capture(net)
    assert [row[1] for row in signature(graph)] == ["Conv2d", "ClipQuant", "Affine"]
    x = torch.randn(4, 3, 8, 8)
    assert torch.equal(graph(x), net(x))


def test_arithmetic_around_a_quantiser_stays_outside():
    net = build(lambda m, x: m.qcfs(x * 0.5 + 0.1) * m.each)
    assert [row[1] for row in signature(capture(net))] == ["Conv2d", "Affine", "Affine", "ClipQuant", "Affine"]
    assert quants(capture(net))[0][:2] == (8, 0.5)


REFUSED = {
    "no bound": (lambda m, x: torch.floor(x * 4) / 4, "nothing bounds it"),
    "bounded below only": (lambda m, x: torch.floor(F.relu(x) * 4) / 4, "nothing bounds it"),
    "signed": (lambda m, x: torch.floor(x.clamp(-1, 1) * 4 + 0.5) / 4, "shift of 4.5"),
    "upside down": (lambda m, x: torch.floor(x.clamp(0, 1) * -4) / 4, "not positive"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_is_no_quantised_activation_is_refused(case):
    body, reason = case
    (blocker,) = blockers(build(body))
    assert "is no quantised activation" in blocker.why
    assert reason in blocker.why


def test_the_quantiser_equals_the_chain_up_to_ties():
    """On a fine grid, at every level and both ends."""
    chain, x = Qcfs(7, 1.3), torch.linspace(-1, 3, 400_001)
    quant = dialect.ClipQuant(torch.tensor(1.3), 7)
    with torch.no_grad():
        off = (chain(x) - quant(x)).abs() > 1e-5
    level = x.double() * 7 / 1.3 + 0.5
    assert off.sum() < 10
    assert ((level - level.round()).abs()[off] < 1e-5).all()
