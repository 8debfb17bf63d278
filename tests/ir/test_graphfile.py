"""Graph files: what is written is what is read, and a file that is broken or hostile is refused."""

import copy
import io
import random
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import snnc
from snnc.errors import LoadError
from snnc.ir import curved
from snnc.ir.dialect import (
    CONFIG,
    Add,
    Affine,
    ClipQuant,
    Concat,
    Grid,
    Mean,
    Mix,
    OwnSizeAvgPool2d,
    Pad,
    Permute,
    Reshape,
    SignedQuant,
    Slice,
    Sub,
    Take,
)
from snnc.ir.embedding import Embedding
from snnc.ir.graph import Stage, calls
from snnc.ir.graphfile import pack_graph, unpack_graph
from snnc.ir.neurons import IF, AverageIF, BipolarIF, GradedIF, OffsetIF, ResidualMaskIF, SignedIF, WaitingIF
from snnc.ir.packing import pack, unpack
from snnc.ir.temporal import (
    Decode,
    Encode,
    FrameMean,
    Frames,
    GatedMax,
    Restart,
    RunningMax,
    StepCurrent,
    StepMax,
    Telescoped,
)
from snnc.networks.network import Network
from snnc.passes import CalibrateOffset
from tests.nets import NETS, folded, quantized, sample, spiking

theta, v0 = torch.tensor([0.5, 1.0, 2.0]).reshape(3, 1, 1), torch.tensor([0.25, -0.5, 3.0]).reshape(3, 1, 1)
LINE, MAP, CUBE = (3, 8), (3, 8, 8), (3, 4, 4, 4)
conv = {"stride": 2, "padding": 1, "dilation": 2, "groups": 3}
pool = {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}

# One of each class, with no argument at its default, and inputs that it takes (folded in time, T = 4, where it is
# temporal).
ONE: dict[type[nn.Module], tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...]]] = {
    nn.Conv1d: (lambda: nn.Conv1d(3, 6, 3, **conv, bias=False, padding_mode="reflect"), (LINE,)),
    nn.Conv2d: (lambda: nn.Conv2d(3, 6, (3, 1), **conv, padding_mode="circular"), (MAP,)),
    nn.Conv3d: (lambda: nn.Conv3d(3, 6, 2, **conv, padding_mode="replicate"), (CUBE,)),
    nn.ConvTranspose1d: (lambda: nn.ConvTranspose1d(3, 6, 3, 2, 1, 1, 3, False, 2), (LINE,)),
    nn.ConvTranspose2d: (lambda: nn.ConvTranspose2d(3, 6, (3, 2), 2, 1, 1, 3, dilation=2), (MAP,)),
    nn.ConvTranspose3d: (lambda: nn.ConvTranspose3d(3, 6, 2, 3, 1, 2, 3), (CUBE,)),
    Embedding: (lambda: Embedding(torch.randn(3, 4)), ((2,),)),
    nn.Linear: (lambda: nn.Linear(8, 5, bias=False), (LINE,)),
    nn.BatchNorm1d: (lambda: nn.BatchNorm1d(3, 0.5, affine=False), (LINE,)),
    nn.BatchNorm2d: (lambda: nn.BatchNorm2d(3, 0.25), (MAP,)),
    nn.BatchNorm3d: (lambda: nn.BatchNorm3d(3, 0.125), (CUBE,)),
    nn.AvgPool1d: (lambda: nn.AvgPool1d(**pool, count_include_pad=False), (LINE,)),
    nn.AvgPool2d: (lambda: nn.AvgPool2d(**pool, count_include_pad=False, divisor_override=5), (MAP,)),
    nn.AvgPool3d: (lambda: nn.AvgPool3d(**pool, count_include_pad=False, divisor_override=5), (CUBE,)),
    nn.AdaptiveAvgPool1d: (lambda: nn.AdaptiveAvgPool1d(3), (LINE,)),
    nn.AdaptiveAvgPool2d: (lambda: nn.AdaptiveAvgPool2d((3, None)), (MAP,)),
    nn.AdaptiveAvgPool3d: (lambda: nn.AdaptiveAvgPool3d((2, 3, 1)), (CUBE,)),
    OwnSizeAvgPool2d: (lambda: OwnSizeAvgPool2d(3), (MAP,)),
    nn.MaxPool1d: (lambda: nn.MaxPool1d(**pool, dilation=2), (LINE,)),
    nn.MaxPool2d: (lambda: nn.MaxPool2d(**pool, dilation=2), (MAP,)),
    nn.MaxPool3d: (lambda: nn.MaxPool3d(2, 1, 1, 2, ceil_mode=True), (CUBE,)),
    nn.AdaptiveMaxPool1d: (lambda: nn.AdaptiveMaxPool1d(3), (LINE,)),
    nn.AdaptiveMaxPool2d: (lambda: nn.AdaptiveMaxPool2d((3, None)), (MAP,)),
    nn.AdaptiveMaxPool3d: (lambda: nn.AdaptiveMaxPool3d((2, 3, 1)), (CUBE,)),
    Concat: (lambda: Concat(2), (MAP, MAP)),
    Pad: (lambda: Pad((1, 2, 0, 3), value=0.5), (MAP,)),
    Slice: (lambda: Slice(((1, None, 1), (None, 6, 2))), (MAP,)),
    Reshape: (lambda: Reshape((4, -1, 2)), (MAP,)),
    Permute: (lambda: Permute((0, 3, 1, 2)), (MAP,)),
    nn.Flatten: (lambda: nn.Flatten(2, 3), (MAP,)),
    nn.Upsample: (lambda: nn.Upsample(scale_factor=(2, 3)), (MAP,)),
    nn.PixelShuffle: (lambda: nn.PixelShuffle(2), ((8, 3, 3),)),
    Add: (Add, (MAP, MAP)),
    Sub: (Sub, (MAP, MAP)),
    Affine: (lambda: Affine(theta.clone(), v0.clone()), (MAP,)),
    Mean: (lambda: Mean((2, 3), keepdim=True), (MAP,)),
    nn.ReLU: (nn.ReLU, (MAP,)),
    nn.Hardtanh: (lambda: nn.Hardtanh(0.25, 0.75), (MAP,)),
    nn.Softmax: (lambda: nn.Softmax(2), (MAP,)),
    nn.LogSoftmax: (lambda: nn.LogSoftmax(1), (MAP,)),
    ClipQuant: (lambda: ClipQuant(theta.clone(), 5, 0.25), (MAP,)),
    Grid: (lambda: Grid(torch.tensor([1.5, 2.0, 4.0])[:, None, None], -3, 5), (MAP,)),
    Encode: (lambda: Encode(4), (MAP,)),
    Frames: (lambda: Frames(4), ((4, 3, 5),)),
    FrameMean: (lambda: FrameMean(4), ((4, 3, 5),)),
    Decode: (lambda: Decode(4, 2, 1), (MAP,)),
    IF: (lambda: IF(4, theta.clone(), v0.clone()), (MAP,)),
    BipolarIF: (lambda: BipolarIF(4, theta.clone(), v0.clone(), 3, True), (MAP,)),
    SignedIF: (lambda: SignedIF(4, theta.clone(), v0.clone()), (MAP,)),
    GradedIF: (lambda: GradedIF(4, theta.clone(), v0.clone(), 3), (MAP,)),
    WaitingIF: (lambda: WaitingIF(4, theta.clone(), v0.clone(), 2), (MAP,)),
    AverageIF: (lambda: AverageIF(4, theta.clone(), v0.clone()), (MAP,)),
    ResidualMaskIF: (lambda: ResidualMaskIF(4, theta.clone(), v0.clone(), 3), (MAP,)),
    OffsetIF: (lambda: OffsetIF(4, theta.clone(), v0.clone(), 3, 2, False, 0.25, True), (MAP,)),
    StepCurrent: (lambda: StepCurrent(4, torch.arange(12.0).reshape(4, 3, 1, 1)), (MAP,)),
    RunningMax: (lambda: RunningMax(4, nn.MaxPool2d(3, 2, 1)), (MAP,)),
    GatedMax: (lambda: GatedMax(4, nn.MaxPool2d(2, 1)), (MAP,)),
    StepMax: (lambda: StepMax(4, nn.AdaptiveMaxPool2d(2)), (MAP,)),
    Restart: (lambda: Restart(4, RunningMax(4, nn.MaxPool2d(3)), 3), (MAP,)),
    Telescoped: (lambda: Telescoped(4, nn.LayerNorm(8)), (MAP,)),
    **{cls: (cls, (MAP,)) for cls in (nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.SELU, nn.Mish)},
    **{cls: (cls, (MAP,)) for cls in (nn.LogSigmoid, nn.Softsign, nn.Tanhshrink)},
    nn.GELU: (lambda: nn.GELU("tanh"), (MAP,)),
    nn.ELU: (lambda: nn.ELU(0.5), (MAP,)),
    nn.CELU: (lambda: nn.CELU(0.5), (MAP,)),
    nn.Softplus: (lambda: nn.Softplus(2.0, 3.0), (MAP,)),
    nn.LeakyReLU: (lambda: nn.LeakyReLU(0.25), (MAP,)),
    nn.PReLU: (lambda: nn.PReLU(3), (MAP,)),
    nn.Softshrink: (lambda: nn.Softshrink(0.25), (MAP,)),
    nn.Hardshrink: (lambda: nn.Hardshrink(0.25), (MAP,)),
    nn.LayerNorm: (lambda: nn.LayerNorm((8, 8), 0.5, bias=False), (MAP,)),
    nn.RMSNorm: (lambda: nn.RMSNorm(8, 0.5), (MAP,)),
    nn.GroupNorm: (lambda: nn.GroupNorm(3, 3, 0.5), (MAP,)),
    nn.LocalResponseNorm: (lambda: nn.LocalResponseNorm(3, 0.5, 0.25, 2.0), (MAP,)),
    curved.Unary: (lambda: curved.Unary("erf"), (MAP,)),
    curved.Power: (lambda: curved.Power(3.0), (MAP,)),
    curved.Clip: (lambda: curved.Clip(v0.clone() - 4, None), (MAP,)),
    curved.Normalize: (lambda: curved.Normalize(1.0, 2, 0.5), (MAP,)),
    curved.Greatest: (lambda: curved.Greatest((1, 3), True), (MAP,)),
    curved.Least: (lambda: curved.Least((2,)), (MAP,)),
    **{cls: (cls, (MAP, MAP)) for cls in (curved.Product, curved.Quotient, curved.MatMul)},
    **{cls: (cls, (MAP, MAP)) for cls in (curved.Maximum, curved.Minimum)},
    curved.Where: (curved.Where, (MAP, MAP, MAP)),
    Take: (lambda: Take(1, torch.tensor([2, 0, 0])), (MAP,)),
    Mix: (lambda: Mix(2, torch.arange(16.0).reshape(2, 8)), (MAP,)),
    SignedQuant: (lambda: SignedQuant(theta.clone(), 6, 3), (MAP,)),
}


def through_a_file(content: Any) -> Any:
    """What `torch.load` makes of it, with nothing allowed but plain data and tensors."""
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def same(a: Any, b: Any) -> bool:
    """Equality of plain data with tensors in it."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_every_class_of_the_dialect_is_tried():
    assert not CONFIG.keys() ^ ONE.keys(), "ONE, in this file, holds one of each class"


@pytest.mark.parametrize("kind", CONFIG, ids=lambda kind: kind.__name__)
def test_every_class_comes_back(kind):
    """The same text, numbers, data and function."""
    make, shapes = ONE[kind]
    module = make().eval()
    for name, value in module.named_buffers():
        if name.startswith("running"):
            value.uniform_(0.5, 2)
    state = torch.get_rng_state()
    again = unpack(through_a_file(pack(module)))
    assert torch.equal(torch.get_rng_state(), state)
    assert type(again) is kind
    assert not again.training
    assert repr(again) == repr(module)
    assert same(pack(again), pack(module))
    assert same(dict(again.state_dict()), dict(module.state_dict()))
    inputs = [torch.rand(8, *shape) if kind is Embedding else torch.randn(8, *shape) for shape in shapes]
    assert torch.equal(again(*inputs), module(*inputs))


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.Linear, nn.BatchNorm2d, IF, ClipQuant])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_precisions_come_back(kind, dtype):
    module = ONE[kind][0]().to(dtype)
    again = unpack(through_a_file(pack(module)))
    assert same(dict(again.state_dict()), dict(module.state_dict()))


def test_files_from_before_an_argument_was_added():
    """A readout that was written without `skip` skips nothing; one that lacks anything else is refused."""
    packed = pack(Decode(4, 3))
    del packed["config"]["skip"]
    assert repr(unpack(through_a_file(packed))) == "Decode(T=4, read=3)"
    del packed["config"]["read"]
    with pytest.raises(ValueError, match="Decode takes"):
        unpack(packed)


def test_packing_is_not_sharing():
    """What is unpacked owns its tensors, twice over."""
    packed = pack(ONE[IF][0]())
    one, two = unpack(packed), unpack(packed)
    one.theta.zero_()
    assert (two.theta > 0).all()
    packed = pack(nn.Linear(2, 2))
    one, two = unpack(packed), unpack(packed)
    one.weight.data.zero_()
    assert (two.weight != 0).any()


def test_classes_outside_of_the_dialect_have_no_form():
    with pytest.raises(KeyError):
        pack(nn.Dropout())


STAGES = {
    Stage.ANN: lambda name: NETS[name](),
    Stage.FOLDED: folded,
    Stage.QUANTIZED: quantized,
    Stage.SPIKING: spiking,
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("stage", STAGES)
def test_graphs_come_back(name, stage):
    """Text, modules, outputs and history."""
    graph, shape = STAGES[stage](name)
    info = {"recipe": "test", "T": 4, "records": [{"sites": 3, "options": {"rho": "T", "eps": 0.1}}], "none": None}
    again, its_stage, its_info = unpack_graph(through_a_file(pack_graph(graph, stage, info)))
    assert its_stage is stage
    assert same(its_info, info)
    assert str(again.graph) == str(graph.graph)
    assert again.code == graph.code
    assert torch.equal(again(sample(shape)), graph(sample(shape)))
    assert same(pack_graph(again, stage, info), pack_graph(graph, stage, info))


@pytest.mark.parametrize("cos", [None, CalibrateOffset(rho=6, iterations=2)])
def test_networks_come_back(cos, tmp_path):
    """Through a real file: readouts, latency and history."""
    graph, shape = spiking("residual", 4, cos=cos)
    net = Network(graph, {"recipe": "test", "input_shape": list(shape)})
    loaded = snnc.load(snnc.save(net, tmp_path / "net.snn"), chunk=7)
    assert loaded.info == net.info
    assert loaded.latency == net.latency
    assert loaded.chunk == 7
    exact = [0, 1, 3]  # the mean over a power of two
    assert torch.equal(loaded.readout(sample(shape, 5))[exact], net.readout(sample(shape, 5))[exact])


@pytest.mark.parametrize("stage", [Stage.ANN, Stage.FOLDED, Stage.QUANTIZED])
def test_graphs_of_another_stage_are_no_networks(stage, tmp_path):
    graph, _ = STAGES[stage]("mlp")
    torch.save(pack_graph(graph, stage, {}), tmp_path / "net.snn")
    with pytest.raises(LoadError, match=f"stage {stage}, not a spiking network"):
        snnc.load(tmp_path / "net.snn")


# Broken files.


def content(name: str = "maxpool") -> dict[str, Any]:
    graph, _ = spiking(name, 4, cos=CalibrateOffset(rho=3))
    return pack_graph(graph, Stage.SPIKING, {"recipe": "test", "records": [{"options": {"a": 1}}]})


def refused(spoilt: Any, words: str = "") -> None:
    with pytest.raises(LoadError, match=words):
        unpack_graph(spoilt, "The file")


def test_what_is_no_graph_file():
    for wrong in (None, 4, "x", [], {}, torch.zeros(3), {"format": "other"}, {"format": None}):
        refused(wrong, "is not an snnc graph file")


@pytest.mark.parametrize("version", [None, 0, 2, "1", 1.5])
def test_other_versions(version):
    refused({**content(), "version": version}, "version")


@pytest.mark.parametrize("key", ["stage", "input", "rows", "output", "info"])
def test_missing_keys(key):
    spoilt = content()
    del spoilt[key]
    refused(spoilt, "broken graph")


def test_the_place_is_named():
    spoilt = content()
    row = next(r for r in spoilt["rows"] if r["name"] == "conv2")
    row["module"]["state"]["weight"] = torch.zeros(1)
    refused(spoilt, "at 'conv2'")


@pytest.mark.parametrize(
    "name",
    [
        "x=print('ran')",
        "x:print('ran')",
        "x, y=print('ran')",
        "x):\n  print('ran')\ndef f(x",
        "class",
        "self",
        "",
        "é x",
    ],
)
def test_names_cannot_become_code(name, capsys):
    """torch.fx writes names into source text and runs that: neither an input nor a node gets that far."""
    spoilt = content("mlp")
    spoilt["rows"][0]["inputs"] = [name]
    refused({**spoilt, "input": name}, "identifier")
    for place in range(len(spoilt["rows"])):
        spoilt = content("mlp")
        old = spoilt["rows"][place]["name"]
        spoilt["rows"][place]["name"] = name
        for row in spoilt["rows"]:
            row["inputs"] = [name if n == old else n for n in row["inputs"]]
        spoilt["output"] = name if spoilt["output"] == old else spoilt["output"]
        refused(spoilt, "broken graph")
    assert capsys.readouterr().out == ""


def test_sizes_are_checked_before_memory_is_taken():
    """A few bytes that claim a layer of a terabyte."""
    spoilt = content("mlp")
    row = next(r for r in spoilt["rows"] if r["name"] == "fc1")
    row["module"]["config"].update(in_features=10**6, out_features=10**6)
    refused(spoilt, "at 'fc1'")


def test_tensors_that_claim_more_than_the_file_holds():
    """One number, said to be a billion: by its strides alone."""
    spoilt = content("mlp")
    row = next(r for r in spoilt["rows"] if r["name"] == "fc1")
    row["module"]["config"].update(in_features=10**6, out_features=10**6)
    row["module"]["state"]["weight"] = torch.zeros(1).expand(10**6, 10**6)
    refused(through_a_file(spoilt), "at 'fc1': ValueError: a tensor of 4000000000000 bytes has 4")
    spoilt = content("mlp")
    row = next(r for r in spoilt["rows"] if r["name"] == "relu1")
    row["module"]["config"]["theta"] = torch.ones(1).expand(10**12)
    refused(through_a_file(spoilt), "at 'relu1'")


def test_views_are_written_as_what_they_show():
    """Neither the rest of a larger tensor, nor less than they show."""
    layer = nn.Linear(4, 2)
    layer.weight = nn.Parameter(torch.randn(1000, 4)[:2])
    layer.bias = nn.Parameter(torch.randn(1).expand(2))
    packed = pack(layer)
    assert packed["state"]["weight"].untyped_storage().nbytes() == 32
    assert same(dict(unpack(through_a_file(packed)).state_dict()), dict(layer.state_dict()))
    quant = ClipQuant(torch.tensor(2.0).expand(3), 4)
    assert same(unpack(through_a_file(pack(quant))).lam, quant.lam)


def test_every_stage_has_its_rules():
    """A file that claims a stage is held to it."""
    for stage in (Stage.ANN, Stage.FOLDED, Stage.QUANTIZED):
        refused({**content(), "stage": str(stage)}, "must not contain")
    refused({**content(), "stage": "OTHER"}, "broken graph")


ODD: list[Any] = [
    None, True, False, 0, -1, 1, 3, 10**30, -(10**30), 0.5, float("nan"), float("inf"), "", "x", "T",
    "Linear", "no name",
    b"x", (), (1,), (0, 0, 0, 0), [], [None], ["x"], [1, 2, 3], {}, {"a": 1}, {"type": "Linear"}, {"type": "IF"}, set(),
    torch.tensor(0.0), torch.tensor(1), torch.tensor(float("nan")), torch.zeros(0), torch.ones(2, 3),
    torch.ones(3, dtype=torch.long),
    torch.ones(2, dtype=torch.complex64), torch.Size([2]), torch.float32, torch.device("cpu"), 1j, print,
    object, nn.ReLU(),
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in plain data, as a path of keys."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [(*path, key) for key in keys] + [p for key in keys for p in places(value[key], (*path, key))]


def spoil(value: Any, path: tuple[Any, ...], how: Callable[[Any, Any], None]) -> Any:
    """A copy with one place changed."""
    value = copy.deepcopy(value)
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    if not isinstance(parent, dict | list):
        raise TypeError("an earlier change put something else there")
    how(parent, path[-1])
    return value


def harmless(spoilt: Any) -> bool:
    """True where a mutation was refused, and where the graph it left is one that holds together."""
    try:
        graph, stage, _ = unpack_graph(spoilt)
    except LoadError as error:
        assert "\n" not in error.message  # noqa: PT017 (loading may also succeed)
        return True
    pack_graph(graph, stage, {})
    return stage is not Stage.SPIKING or Network(graph, {}).latency.steps > 0


@pytest.mark.parametrize("seed", range(8))
def test_any_mutation_is_refused_or_harmless(seed):
    """Values replaced, removed, doubled and swapped, at any place: nothing but LoadError leaves, ever."""
    chance = random.Random(seed)
    whole = content(["maxpool", "residual", "dense", "mlp", "routes", "early", "skip", "bare"][seed])
    everywhere = places(whole)

    def replace(parent: Any, key: Any) -> None:
        parent[key] = chance.choice(ODD)

    def remove(parent: Any, key: Any) -> None:
        del parent[key]

    def double(parent: Any, key: Any) -> None:
        if isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        else:
            parent["more"] = parent[key]

    def swap(parent: Any, key: Any) -> None:
        other = chance.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
        parent[key], parent[other] = parent[other], parent[key]

    def truncate(parent: Any, key: Any) -> None:
        value = parent[key]
        parent[key] = value[: len(value) // 2] if isinstance(value, list | tuple | str) else {}

    for _ in range(80):
        spoilt = whole
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            path = chance.choice(everywhere)
            try:
                spoilt = spoil(spoilt, path, chance.choice((replace, replace, replace, remove, double, swap, truncate)))
            except (KeyError, IndexError, TypeError):
                continue  # an earlier change took that place away
        assert harmless(spoilt)


def test_every_odd_value_at_every_place():
    """Each place of a small file in turn, with one odd value each, all of them used."""
    whole = content("mlp")
    for number, path in enumerate(places(whole)):
        for odd in (ODD[number % len(ODD)], ODD[(7 * number + 3) % len(ODD)]):

            def put(parent: Any, key: Any, odd: Any = odd) -> None:
                parent[key] = odd

            assert harmless(spoil(whole, path, put))


def test_history_is_plain_data():
    """Objects in it would run code when somebody printed them; deep nesting would end the stack."""
    for odd in (print, nn.ReLU(), {1j}, object(), {"deep": [print]}):
        refused({**content("mlp"), "info": {"recipe": odd}}, "in the history")
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    refused({**content("mlp"), "info": {"recipe": deep}}, "broken graph")
    refused({**content("mlp"), "info": 4}, "broken graph")


def test_truncated_files(tmp_path):
    """Cut anywhere, or with bytes changed: refused, or read as it was."""
    graph, shape = spiking("mlp", 4)
    net = Network(graph, {"recipe": "test"})
    whole = snnc.save(net, tmp_path / "net.snn").read_bytes()
    want = net(sample(shape))
    chance = random.Random(0)
    path = tmp_path / "cut.snn"
    for _ in range(40):
        cut = chance.randrange(len(whole))
        path.write_bytes(whole[:cut])
        with pytest.raises(LoadError):
            snnc.load(path)
        spoilt = bytearray(whole)
        spoilt[cut] ^= 1 << chance.randrange(8)
        path.write_bytes(bytes(spoilt))
        try:
            loaded = snnc.load(path)
        except LoadError:
            continue
        assert torch.equal(loaded(sample(shape)), want)


def test_a_bit_anywhere_in_a_header(tmp_path):
    """torch reads on from a member's spoilt header, and would give other weights."""
    graph, shape = spiking("single", 2)
    net = Network(graph, {})
    whole = snnc.save(net, tmp_path / "net.snn").read_bytes()
    want = net(sample(shape))
    with zipfile.ZipFile(tmp_path / "net.snn") as archive:
        starts = [member.header_offset for member in archive.infolist()]
    path = tmp_path / "spoilt.snn"
    for start in starts:
        for place in range(start, start + 30):
            spoilt = bytearray(whole)
            spoilt[place] ^= 4
            path.write_bytes(bytes(spoilt))
            try:
                loaded = snnc.load(path)
            except LoadError:
                continue
            assert torch.equal(loaded(sample(shape)), want)


def test_a_file_says_nothing_about_names_that_are_taken():
    """Two rows of one name, or the input's."""
    for name in ("fc1", "x"):
        spoilt = content("mlp")
        spoilt["rows"][1]["name"] = name
        refused(spoilt, "broken graph")


def test_modules_keep_their_nodes():
    """Every row's name is its module's, so that a message about a node can be followed into the file."""
    graph, _ = spiking("residual")
    packed = pack_graph(graph, Stage.SPIKING, {})
    assert [row["name"] for row in packed["rows"]] == [node.name for node, _ in calls(graph)]
    assert all(set(row) == {"name", "inputs", "module"} for row in packed["rows"])
