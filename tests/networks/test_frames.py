"""Input that changes in time: the contract, over tiny networks with exact numbers, in double precision."""

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

import snnc
from snnc.errors import DataError, LoadError, PassFailed, RecipeError, SnncError, VerifyError
from snnc.ir.frames import over_frames
from snnc.ir.graph import Stage, calls, validate
from snnc.ir.neurons import WaitingIF
from snnc.ir.temporal import Decode, Encode, RunningMax, StepMax
from snnc.measure.evaluate import ann_outputs
from snnc.networks.network import Network
from snnc.passes import FixedPoint, InsertNeurons
from snnc.passes.pipeline import Context, Pipeline
from snnc.runtime.runner import Runner
from tests.nets import NETS, quantized, sample

WAYS = ("mean", "sum", "each")
SMALL = ("mlp", "conv", "maxpool", "pool-first", "skip", "residual", "dense")


def framed(name: str, way: str, T: int) -> tuple[Network, tuple[int, ...]]:
    """A dyadic net over frames, in double precision."""
    graph, shape = quantized(name, T)
    graph = Pipeline((InsertNeurons(),)).run(over_frames(graph, T, way), Context(T=T), Stage.QUANTIZED).graph
    return Network(graph.double(), {"frames": {"of": way, "T": T}, "input_shape": [T, *shape]}), shape


def clips(shape: tuple[int, ...], T: int, batch: int = 3, seed: int = 0) -> Tensor:
    """Samples of T frames, `[B, T, ...]`, on a grid of 1/8."""
    return sample((T, *shape), batch, seed).double()


def stepped(net: snnc.SpikingNetwork, x: Tensor) -> Tensor:
    """The readout after each frame, frame by frame."""
    state, found = net.start(), []
    for t in range(net.T):
        one, state = net.step(x[:, t], state)
        found.append(one)
    return torch.stack(found)


@settings(max_examples=6, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(
    name=st.sampled_from(SMALL), way=st.sampled_from(WAYS), T=st.sampled_from((1, 2, 4, 8)), seed=st.integers(0, 99),
    window=st.integers(1, 8), chunk=st.integers(1, 9),
)  # fmt: skip
def test_step_is_forward(name, way, T, seed, window, chunk):
    """Frame by frame, in windows of any width, in rounds of any size, and all at once: the same bits."""
    net, shape = framed(name, way, T)
    x = clips(shape, T, seed=seed)
    wanted = net.readout(x)
    assert torch.equal(stepped(net, x), wanted)
    assert torch.equal(torch.stack(list(net.stream(x))), wanted)
    halves = [t - 1 for t in (1, 2, 4, 8) if t <= T]  # the steps at which a mean is not rounded
    assert torch.equal(Runner(net.graph).run(x, window, anytime=True)[halves], wanted[halves])
    assert torch.equal(net.graph(x), wanted[-1])
    net.chunk = chunk
    assert torch.equal(net(x), wanted[-1])


@pytest.mark.parametrize("name", SMALL)
def test_constant_frames_are_constant_input(name):
    """Spike for spike, in every layer."""
    T = 4
    net, shape = framed(name, "mean", T)
    graph, _ = quantized(name, T)
    plain = Network(Pipeline((InsertNeurons(),)).run(graph, Context(T=T), Stage.QUANTIZED).graph.double(), {})
    x = sample(shape, 3).double()
    found, trains = net.emitted(x[:, None].expand(-1, T, *[-1] * len(shape)))
    wanted, expected = plain.emitted(x)
    halves = [0, 1, 3]  # the steps at which a mean is not rounded
    assert torch.equal(found[halves], wanted[halves])
    assert all(torch.equal(trains[layer], expected[layer]) for layer in expected)


@pytest.mark.parametrize("way", WAYS)
def test_the_order_of_frames_counts_and_later_ones_do_not(way):
    T = 4
    net, shape = framed("conv", way, T)
    x = clips(shape, T, 8)
    trains = net.emitted(x)[1]
    other = net.emitted(x.flip(1))[1]
    assert any(not torch.equal(trains[layer], other[layer]) for layer in trains)
    later = x.clone()
    later[:, 2:] = clips(shape, T, 8, seed=1)[:, 2:]
    before, after = net.readout(x), net.readout(later)
    assert torch.equal(before[:2], after[:2])
    assert not torch.equal(before[3], after[3])


def test_what_becomes_of_frames():
    """The graph before it spikes, and the original network, for each way."""
    graph, shape = NETS["conv"]()
    x = clips(shape, 4)
    ann = graph.double()
    for way, wanted in (
        ("mean", ann(x.mean(1))),
        ("sum", ann(x.sum(1))),
        ("each", torch.stack([ann(one) for one in x.unbind(1)]).mean(0)),
    ):
        assert torch.equal(over_frames(copy.deepcopy(graph), 4, way).double()(x), wanted)
        assert torch.equal(ann_outputs(ann, x, way)["output"], wanted)
        assert torch.equal(ann_outputs(over_frames(copy.deepcopy(graph), 4, way).double(), x, way)["output"], wanted)
    with pytest.raises(RecipeError, match="'median'"):
        over_frames(graph, 4, "median")


@pytest.mark.parametrize(("way", "kind"), [("mean", RunningMax), ("sum", RunningMax), ("each", StepMax)])
def test_a_pool_before_the_first_neuron(way, kind):
    """Its mean is the maximum of the mean frame, or the mean of the frames' maxima."""
    net, _ = framed("pool-first", way, 4)
    pool = dict(net.graph.named_children())["pool1"]
    assert type(pool) is kind
    x = clips((4, 4, 4), 4).transpose(0, 1)
    mean = pool(x.flatten(0, 1)).unflatten(0, (4, -1)).mean(0)
    wanted = torch.stack(list(map(pool.pool, x))).mean(0) if way == "each" else pool.pool(x.mean(0))
    assert torch.equal(mean, wanted)


def test_a_state_is_never_changed():
    for fixed in (False, True):
        graph, shape = NETS["conv"]()
        x = clips(shape, 4, 8).float()
        recipe = Pipeline((*snnc.recipe("opi").pipeline, *([FixedPoint()] if fixed else [])))
        net = snnc.compile(graph, recipe=recipe, calibration=x, frames="mean")
        first, state = net.step(x[:, 0], net.start(8))
        once, _ = net.step(x[:, 1], state)
        net.step(x[:, 2], state)
        again, state = net.step(x[:, 1], state)
        assert torch.equal(once, again)
        assert torch.equal(torch.stack([first, again]), net.readout(x)[:2])
        net.graph.conv1.weight.data.mul_(2)
        with pytest.raises(SnncError, match="before it was changed"):
            net.step(x[:, 2], state)


def test_steps_that_cannot_be():
    net, shape = framed("mlp", "mean", 2)
    x = clips(shape, 2)
    _, state = net.step(x[:, 0], net.start())
    with pytest.raises(DataError, match="of 2 samples, and the state of 3"):
        net.step(x[:2, 1], state)
    _, state = net.step(x[:, 1], state)
    with pytest.raises(SnncError, match="All 2 frames have been seen"):
        net.step(x[:, 1], state)
    with pytest.raises(SnncError, match="is no state"):
        net.step(x[:, 0], None)
    with pytest.raises(DataError, match="takes"):
        net.step(x[:, :, :3], net.start())
    plain = snnc.compile(NETS["mlp"]()[0], 2, "data-free")
    with pytest.raises(SnncError, match=r"constant in time.*net.stream"):
        plain.start()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda x: x[:, :3], r"holds 3 frames a sample, and the network takes 4"),
        (lambda x: torch.cat([x, x], 1), r"holds 8 frames .*compile with --T 8"),
        (lambda x: x.transpose(0, 1), r"has its 4 frames in front.*x.transpose\(0, 1\)"),
        (lambda x: x[:, 0], r"holds no frames, and the network takes 4.*expand\(-1, 4, -1, -1, -1\)"),
        (lambda x: x[0], r"one sample, without a batch"),
    ],
)
def test_frames_that_do_not_fit(change, match):
    net, shape = framed("conv", "mean", 4)
    x = clips(shape, 4, 5)
    with pytest.raises(DataError, match=match):
        net(change(x))
    assert net(x[:, 0][:, None].expand(-1, 4, -1, -1, -1)).shape == (5, 4)  # what the hint says


def test_frames_for_a_network_without():
    graph, shape = NETS["conv"]()
    net = snnc.compile(graph, 4, "opi", sample(shape, 8))
    with pytest.raises(DataError, match=r"holds 4 frames a sample, and this network takes input that is constant"):
        net(clips(shape, 4).float())


def test_calibration_data_that_do_not_fit():
    shape = (3, 5, 5)
    graph = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 4))
    x = clips(shape, 4, 8).float()
    with pytest.raises(DataError, match="have 4 frames a sample, and T is 8"):
        snnc.compile(graph, 8, "opi", x[:6], frames="mean")
    with pytest.raises(DataError, match=r"8 in front.*--time-first"):
        snnc.compile(graph, 8, "opi", x, frames="mean")
    with pytest.raises(DataError, match="go through the network as they are, so they hold no frames"):
        snnc.compile(graph, None, "opi", sample(shape, 8), frames="mean")
    with pytest.raises(DataError, match=r"as frames would.*--frames"):
        snnc.compile(graph, None, "opi", x)
    with pytest.raises(RecipeError, match=r"Nothing tells how many frames.*--T FRAMES"):
        snnc.compile(graph, None, "data-free", frames="mean")
    with pytest.raises(RecipeError, match=r"frames is 'first'.*'mean' or 'sum'"):
        snnc.compile(graph, None, "opi", x, frames="first")
    # What the hints say:
    for T, data in ((None, x), (4, x), (8, torch.cat([x, x], 1)), (None, torch.stack([*x.unbind(1)]).transpose(0, 1))):
        assert snnc.compile(graph, T, "opi", data, frames="mean").T in (4, T)
    assert snnc.compile(graph, None, "opi", x[:, 0]).frames == ""
    assert snnc.compile(graph, 4, "data-free", frames="each").T == 4


@pytest.mark.parametrize("name", ["cos", "asg", "srp", "low-latency", "low-latency-streaming"])
def test_recipes_that_need_constant_input(name):
    graph, shape = NETS["mlp"]()
    with pytest.raises(RecipeError, match=r"'[a-z-]+' .*Try: a recipe that reads step by step: 'best'"):
        snnc.compile(graph, None, name, clips(shape, 4, 8).float(), frames="mean")


def test_a_delayed_readout_is_left_out():
    graph, shape = NETS["mlp"]()
    x = clips(shape, 8, 80).float()
    net = snnc.compile(graph, recipe="best", calibration=x, frames="sum")
    assert "delay-readout" not in [row["name"] for row in net.info["records"]]
    assert all(not one["option"].startswith("delay-readout") for one in net.info["choices"])
    assert [module.late for _, module in calls(net.graph, Decode)] == [0]


def test_curved_operations_on_each_frame():
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4), nn.Softmax(1))
    with pytest.raises(PassFailed, match=r"Softmax, and the network ran on each frame.*up to its class scores"):
        snnc.compile(net, None, "opi", clips((6,), 4, 8).float(), frames="each")
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 4))
    with pytest.raises(PassFailed, match=r"LayerNorm, and the network ran on each frame.*--frames mean"):
        snnc.compile(net, None, "telescoped", clips((6,), 4, 8).float(), frames="each")
    assert snnc.compile(net, None, "telescoped", clips((6,), 4, 8).float(), frames="mean").frames == "mean"


def test_graphs_over_frames_wait_for_nothing():
    def broken(change) -> fx.GraphModule:
        graph = copy.deepcopy(framed("mlp", "mean", 4)[0].graph)
        change(graph)
        return graph

    def late(graph):
        next(calls(graph, Decode))[1].late = 1

    def waiting(graph):
        one = torch.ones((), dtype=torch.float64)
        graph.relu1 = WaitingIF(4, one, one, 2).eval()

    def repeated(graph):
        graph.x_frames = Encode(4).eval()

    for change in (late, waiting):
        with pytest.raises(VerifyError, match="waits, and frames are read as they come"):
            validate(broken(change), Stage.SPIKING)
    validate(broken(repeated), Stage.SPIKING)  # which is a network of constant input


@pytest.mark.parametrize("way", WAYS)
def test_calibration_on_frames(way):
    """Every layer is calibrated on the spikes of real frames: the mean of its output is the reference's."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    x = torch.rand(128, 8, 6) * torch.linspace(0, 2, 8)[None, :, None]  # what comes late is large
    found = snnc.compile(net, None, "best", x, frames=way, quick=True)
    wanted = ann_outputs(net, x, way)["output"]
    rough = snnc.compile(net, None, "opi", x, frames=way)
    error, before = ((one(x) - wanted).mean(0).abs().max() for one in (found, rough))
    assert error < 0.3 * before


def test_files(tmp_path: Path):
    """Fixed point: the same spikes and bits in every form, whole and frame by frame."""
    graph, shape = NETS["maxpool"]()
    x = clips(shape, 4, 6).float()
    net = snnc.compile(
        graph, recipe=Pipeline((*snnc.recipe("opi").pipeline, FixedPoint())), calibration=x, frames="sum"
    )
    wanted = net.readout(x)
    assert torch.equal(stepped(net, x), wanted)
    for suffix in ("snn", "pt2", "onnx"):
        again = snnc.load(snnc.save(net, tmp_path / f"net.{suffix}"))
        assert (again.frames, again.T) == ("sum", 4)
        assert torch.equal(again.readout(x), wanted)
        assert torch.equal(stepped(again, x), wanted)
        assert snnc.verify(net, again, x).same
        with pytest.raises(DataError, match="holds 3 frames a sample"):
            again(x[:, :3])
    net.runtime = "reference"
    assert torch.equal(stepped(net, x), wanted)
    del net.info["frames"]
    with pytest.raises(LoadError, match="do not say the same of frames"):
        snnc.load(snnc.save(net, tmp_path / "net.snn"))


def test_an_exported_program_of_an_activation_on_the_frames(tmp_path: Path):
    ann = nn.Sequential(nn.Hardtanh(0, 1), nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2)).eval()
    x = torch.rand(8, 3, 3)
    net = snnc.compile(ann, recipe="opi", frames="mean", calibration=x)
    again = snnc.load(snnc.save(net, tmp_path / "net.pt2"))
    for size in (1, 5):
        assert torch.allclose(again.readout(x[:size]), net.readout(x[:size]), atol=1e-6)


def test_several_inputs():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(3, 8), nn.Linear(8, 4)

        def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
            return {"scores": self.c(torch.relu(self.a(left) + self.b(right)))}

    x = {"left": torch.rand(8, 4, 6), "right": torch.rand(8, 4, 3)}
    net = snnc.compile(Two(), None, "opi", x, frames="each")
    wanted = net.readout(**x)["scores"]
    state = net.start()
    for t in range(4):
        found, state = net.step({name: one[:, t] for name, one in x.items()}, state)
        assert torch.equal(found["scores"], wanted[t])
    with pytest.raises(DataError, match="one number of them for all"):
        snnc.compile(Two(), None, "opi", {**x, "right": x["right"][:, :2]}, frames="each")


def test_nir(tmp_path: Path):
    """One frame a step: by the definitions of NIR alone the spikes are the same, in fixed point the bits too."""
    pytest.importorskip("nir")
    from tests.nir_reader import Reader

    graph, shape = NETS["mlp"]()
    x = clips(shape, 4, 8).float()
    pipeline = Pipeline((*snnc.recipe("opi").pipeline, FixedPoint()))
    for way in WAYS:
        net = snnc.compile(graph, recipe=pipeline, calibration=x, frames=way)
        reader = Reader(snnc.save(net, tmp_path / "net.nir"))
        assert reader.told["input"].startswith("frame t of a sample at step t")
        reader.run(x, frames=True)
        _, trains = net.emitted(x)
        assert sum(train.numel() for train in trains.values()) > 0
        assert all(torch.equal(reader.spikes[name], train) for name, train in trains.items())
