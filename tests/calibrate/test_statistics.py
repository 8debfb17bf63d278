"""Bounds from data and from normal approximation: exact counting, and the reference's table of optima."""

import pytest
import torch
from torch import Tensor, nn

from snnc.calibrate.observe import histograms, predict, watch
from snnc.calibrate.statistics import BINS, Gaussian, Histogram, positive, shaped
from snnc.errors import DataError, SnncError
from snnc.ir.dialect import Add, ClipQuant
from snnc.ir.graph import calls
from snnc.ir.shapes import every_shape
from snnc.passes.pipeline import Context
from tests.nets import NETS, Dyadic, folded, sample

# V9: levels; best bound and its error with rounding; best bound with floor, its error, and that of rounding there.
V9 = {
    1: (1.224, 0.0948, 0.886, 0.169, 0.117),
    2: (1.686, 0.0408, 1.286, 0.088, 0.053),
    4: (2.135, 0.0152, 1.729, 0.038, 0.0196),
    8: (2.551, 0.0051, 2.157, 0.0146, 0.0065),
    16: (2.933, 0.0016, 2.514, 0.0049, 0.0022),
}
levels = pytest.mark.parametrize("n", V9)


@pytest.fixture(scope="module")
def normal() -> Tensor:
    """Values that are spread like a standard normal, without the noise of sampling."""
    return torch.special.ndtri((torch.arange(40_000, dtype=torch.float64) + 0.5) / 40_000)


def gathered(values: Tensor, cuts: int = 1) -> Histogram:
    """A histogram of `[N, C]`, from so many batches."""
    histogram = Histogram(values.shape[1])
    for part in values.chunk(cuts):
        histogram.update(part)
    return histogram


def error(values: Tensor, bound: float, n: int, shift: float) -> float:
    """Mean square error of clip-quantisation of a rectified value."""
    quant = ClipQuant(torch.tensor(bound, dtype=torch.float64), n, shift)
    return (quant(values) - values.clamp_min(0)).square().mean().item()


def least(values: Tensor, low: float, high: float, n: int, shift: float) -> float:
    """The least error that any bound of a fine grid gives."""
    return min(error(values, bound, n, shift) for bound in torch.linspace(low, high, 41).tolist())


@levels
def test_best_bound_of_data(n, normal):
    """V9 to 1 %. The reference prints its errors to two or three digits."""
    (found,) = gathered(normal[:, None]).mse(n, 0.5, "channel").tolist()
    assert found == pytest.approx(V9[n][0], rel=0.01)
    assert error(normal, found, n, 0.5) == pytest.approx(V9[n][1], rel=0.01, abs=1e-4)
    assert error(normal, found, n, 0.5) <= 1.001 * least(normal, 0.9 * found, 1.1 * found, n, 0.5)


@levels
def test_best_bound_of_data_with_floor(n, normal):
    """V9 to 1 %; at 16 levels the optimum is flat, and the reference's own figure comes from a noisy sample."""
    (found,) = gathered(normal[:, None]).mse(n, 0.0, "channel").tolist()
    assert found == pytest.approx(V9[n][2], rel=0.025 if n == 16 else 0.01)
    assert error(normal, found, n, 0.0) == pytest.approx(V9[n][3], rel=0.01, abs=1e-3)
    assert error(normal, found, n, 0.0) <= 1.001 * least(normal, 0.9 * found, 1.1 * found, n, 0.0)


@levels
def test_best_bound_of_a_normal_approximation(n):
    """V9 to 1 %, without data."""
    (found,) = Gaussian(torch.zeros(1), torch.ones(1)).mse(n, 0.5, "channel").tolist()
    assert found == pytest.approx(V9[n][0], rel=0.01)


@levels
def test_floor_grid_is_wrong_for_a_rounding_neuron(n, normal):
    """V9's last column: pitfall 6, a quarter of the error lost at small T."""
    assert error(normal, V9[n][2], n, 0.5) == pytest.approx(V9[n][4], rel=0.02, abs=1e-4)
    assert error(normal, V9[n][2], n, 0.5) > 1.15 * error(normal, V9[n][0], n, 0.5)


@pytest.mark.parametrize(("mu", "sigma"), [(0.0, 1.0), (1.0, 0.5), (-0.75, 2.0), (3.0, 1.0)])
@pytest.mark.parametrize("n", [1, 4, 16])
def test_normal_approximation_agrees_with_data(mu, sigma, n, normal):
    """Both ways to the bound lead to the same error, whatever the mean."""
    values = mu + sigma * normal
    (data,) = gathered(values[:, None]).mse(n, 0.5, "channel").tolist()
    (theory,) = Gaussian(torch.tensor([mu]), torch.tensor([sigma])).mse(n, 0.5, "channel").tolist()
    assert error(values, theory, n, 0.5) <= 1.01 * error(values, data, n, 0.5)
    assert error(values, data, n, 0.5) <= 1.01 * error(values, theory, n, 0.5)


@pytest.mark.parametrize("n", [1, 2, 4, 8])
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_best_bound_against_brute_force(n, shift):
    """No bound anywhere beats the one that was found by more than the bins are worth."""
    values = torch.rand(4000, dtype=torch.float64).pow(3) * 5 - 0.3
    (found,) = gathered(values[:, None]).mse(n, shift, "channel").tolist()
    assert error(values, found, n, shift) <= 1.005 * min(
        least(values, 0.05, 0.5, n, shift), least(values, 0.5, 4.7, n, shift)
    )


@pytest.mark.parametrize("cuts", [2, 3, 7, 50])
@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e4])
def test_batches_do_not_matter(cuts, spread):
    """Exactly the same counts, however the data was cut: ranges that grow lose nothing."""
    values = torch.randn(1000, 3) * spread * torch.linspace(0.1, 3, 1000)[:, None]
    values[:, 2] = -values[:, 2].abs()
    whole, parts = gathered(values), gathered(values, cuts)
    assert torch.equal(whole.counts, parts.counts)
    assert torch.equal(whole.top, parts.top)
    assert torch.equal(whole.peak, parts.peak)
    assert whole.total == parts.total == 1000


@pytest.mark.parametrize("cuts", [2, 8, 64])
def test_batches_do_not_matter_on_the_edge_of_a_bin(cuts):
    """Powers of two, and other values that lie between two bins, which quantised networks are full of."""
    values = torch.arange(1, 65)[:, None].float() / 8
    whole, parts = gathered(values), gathered(values, cuts)
    assert torch.equal(whole.counts, parts.counts)
    assert torch.equal(whole.merged().counts, parts.merged().counts)


def test_counts_are_those_of_the_data():
    """Each positive value in its bin `(i, i + 1] * top / BINS`, and the others only in the total."""
    values = torch.randint(-BINS, BINS + 1, (5000, 2)).float() / BINS
    values[0] = 1.0
    histogram = gathered(values)
    assert histogram.top.tolist() == [1.0, 1.0]
    for c in (0, 1):
        want = torch.bincount((values[:, c] * BINS).clamp_min(0).long(), minlength=BINS + 1)[1:]
        assert torch.equal(histogram.counts[c].long(), want)


def test_images_are_counted_by_channel():
    """`[B, C, H, W]` counts over samples and places."""
    x = torch.randn(4, 3, 5, 6)
    image, flat = Histogram(3, 2), gathered(x.movedim(1, 3).reshape(-1, 3))
    image.update(x)
    assert torch.equal(image.counts, flat.counts)
    assert (image.total, image.rank) == (120, 2)


@pytest.mark.parametrize("percent", [50.0, 90.0, 99.0, 99.9, 100.0])
def test_percentile_against_quantile(percent):
    """Within one bin of what torch computes from the values themselves, zeros counted."""
    values = torch.randn(20_000, 2) * torch.tensor([1.0, 5.0]) + 0.5
    histogram = gathered(values, 3)
    found = histogram.percentile(percent, "channel")
    rectified = values.clamp_min(0).double()
    low, high = (torch.quantile(rectified, percent / 100, 0, interpolation=i) for i in ("lower", "higher"))
    width = histogram.top / BINS
    assert (found >= low - width).all()
    assert (found <= high + width).all()


def test_percentile_of_a_layer():
    values = torch.randn(5000, 4) * torch.tensor([0.1, 1.0, 3.0, 20.0])
    histogram = gathered(values)
    one = gathered(values.reshape(-1, 1))
    assert histogram.percentile(99.0, "layer").tolist() == one.percentile(99.0, "channel").tolist()


def test_layer_is_all_channels_together():
    """Merging channels is the same as never having told them apart."""
    values = torch.rand(3000, 3) * torch.tensor([0.3, 2.0, 9.0])
    histogram, one = gathered(values), gathered(values.reshape(-1, 1))
    merged = histogram.merged()
    assert torch.equal(merged.counts, one.counts)
    assert merged.total == one.total
    assert histogram.maximum("layer").tolist() == [values.max().item()]
    assert histogram.mse(4, 0.5, "layer").tolist() == one.mse(4, 0.5, "channel").tolist()
    # The histogram itself stays as it was.
    assert torch.equal(histogram.counts, gathered(values).counts)


def test_maximum_is_the_value_itself():
    values = torch.tensor([[0.3, -1.0, 7.25], [0.1, -2.0, 1e-6]])
    assert gathered(values, 2).maximum("channel").tolist() == [values[0, 0].item(), 7.25, 7.25]


def test_silent_channels_borrow_a_bound():
    """The largest of the layer; 1 where all are silent: a bound is positive, always."""
    values = torch.cat([torch.rand(100, 1), -torch.rand(100, 1), 3 * torch.rand(100, 1)], 1)
    silent = gathered(-torch.rand(50, 2))
    for rule in (
        lambda h, per: h.maximum(per),
        lambda h, per: h.percentile(99.0, per),
        lambda h, per: h.mse(4, 0.5, per),
    ):
        bound = rule(gathered(values), "channel")
        assert bound[1] == bound[2] > bound[0] > 0
        assert rule(silent, "channel").tolist() == [1.0, 1.0]
        assert rule(silent, "layer").tolist() == [1.0]


def test_channel_that_hardly_fires_keeps_its_peak():
    """Where the percentile would be zero: a threshold of zero helps nobody."""
    values = torch.zeros(1000, 1)
    values[3] = 0.75
    assert gathered(values).percentile(99.0, "channel").tolist() == [0.75]


def test_shapes_of_bounds():
    assert shaped(torch.tensor([2.0, 3.0], dtype=torch.float64), 2).shape == (2, 1, 1)
    assert shaped(torch.tensor([2.0, 3.0]), 0).shape == (2,)
    assert shaped(torch.tensor([2.0]), 2).shape == ()
    assert shaped(torch.tensor([2.0], dtype=torch.float64), 0).dtype is torch.float32
    assert positive(torch.tensor([0.0, -1.0])).tolist() == [1.0, 1.0]
    assert positive(torch.tensor([0.0, 2.0, 5.0])).tolist() == [5.0, 2.0, 5.0]


def test_quantiles_of_a_normal_approximation():
    g = Gaussian(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0]))
    assert g.percentile(99.9, "channel").tolist() == pytest.approx([3.0902, 7.1805], abs=1e-3)
    assert g.maximum("channel").tolist() == [4.0, 9.0]
    assert g.maximum("layer").tolist() == [9.0]


def test_silent_normal_channels_get_a_positive_bound():
    """Far below zero nothing fires; what comes back is positive and finite all the same."""
    g = Gaussian(torch.tensor([-50.0, 0.0, 0.0]), torch.tensor([1.0, 1.0, 0.0]))
    for bound in (g.mse(4, 0.5, "channel"), g.maximum("channel"), g.percentile(99.0, "channel")):
        assert (bound > 0).all()
        assert torch.isfinite(bound).all()


def test_histograms_see_what_enters_each_site():
    """The input of every activation, over all batches, as if they had come at once."""
    graph, shape = folded("residual")
    sites = [node for node, _ in calls(graph, nn.ReLU)]
    x = sample(shape, 6)
    found = histograms(graph, sites, x.split(2))
    assert set(found) == {site.name for site in sites}
    seen = {}
    watch(graph, x, lambda node, value: seen.update({node: value}))
    for site in sites:
        value = seen[site.all_input_nodes[0]]
        want = Histogram(value.shape[1], 2)
        want.update(value)
        assert torch.equal(found[site.name].counts, want.counts)
        assert torch.equal(found[site.name].peak, value.amax((0, 2, 3)).clamp_min(0).double())


def test_sites_with_one_source_are_counted_once():
    b = Dyadic(0)
    x = b.call("fc", nn.Linear(4, 3), b.input())
    y = b.call("join", Add(), b.call("relu1", nn.ReLU(), x), b.call("relu2", nn.ReLU(), x))
    graph = b.finish(y)
    found = histograms(graph, [node for node, _ in calls(graph, nn.ReLU)], [sample((4,), 5)])
    assert found["relu1"].total == found["relu2"].total == 5


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        ([], "no batch"),
        ([torch.full((2, 6), float("nan"))], "NaN or infinity at 'fc1'"),
        ([torch.zeros(2, 7)], "does not go through"),
    ],
)
def test_data_that_cannot_be_used(batches, words):
    graph, _ = folded("mlp")
    with pytest.raises(DataError, match=words):
        histograms(graph, [node for node, _ in calls(graph, nn.ReLU)], batches)


def test_prediction_matches_a_sample():
    """Independent normal inputs: the moments of every pre-activation of a linear net, to a few percent."""
    graph, _ = folded("mlp")
    x = torch.randn(20_000, 6)
    seen = {}
    watch(graph, x, lambda node, value: seen.update({node.name: value.double()}))
    found = predict(graph, x[:1], {})
    assert torch.allclose(found["relu1"].mu, seen["fc1"].mean(0), atol=0.03)
    assert torch.allclose(found["relu1"].sigma, seen["fc1"].std(0), rtol=0.03)
    # Behind a rectifier the channels are no longer independent, which the prediction takes them to be.
    assert torch.allclose(found["relu2"].mu, seen["fc2"].mean(0), atol=0.05)
    assert torch.allclose(found["relu2"].sigma, seen["fc2"].std(0), rtol=0.5)


def test_prediction_believes_batch_normalisation():
    graph, shape = folded("conv")
    known = {"conv1": (torch.arange(4.0), torch.arange(1.0, 5.0))}
    found = predict(graph, sample(shape, 1), known)["relu1"]
    assert found.mu.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert found.sigma.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert found.rank == 2


@pytest.mark.parametrize("name", NETS)
def test_prediction_for_any_net(name):
    """Finite and of the right size everywhere, and the graph is left as it was."""
    graph, shape = folded(name)
    x = sample(shape)
    before = graph(x)
    found = predict(graph, Context(T=4, input_shape=shape).example(graph), {})
    shapes = every_shape(graph, shape)
    for node, _ in calls(graph, nn.ReLU, nn.Hardtanh, ClipQuant):
        statistics = found[node.name]
        assert statistics.rank == len(shapes[node]) - 1
        for bound in (statistics.mse(4, 0.5, "channel"), statistics.maximum("layer")):
            assert torch.isfinite(bound).all()
            assert (bound > 0).all()
    assert torch.equal(graph(x), before)


def test_prediction_of_a_sample_that_does_not_fit():
    graph, _ = folded("mlp")
    with pytest.raises(SnncError, match="does not go through"):
        predict(graph, torch.zeros(1, 5), {})
