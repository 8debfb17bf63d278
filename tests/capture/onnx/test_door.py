"""ONNX models give the graph that their torch networks give, and every way into snnc takes them."""

import json

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import snnc
from snnc.capture import blockers, capture, told_shape
from snnc.cli import main
from snnc.errors import LoadError, Unsupported
from snnc.files import load_model
from snnc.ir.graph import Stage, validate
from tests.capture.test_capture import signature
from tests.nets import NETS
from tests.nets import sample as grid
from tests.onnx_models import dyadic, exported, kinds, model, same
from tests.zoo import ZOO, sample

# What torch's exporter cannot write in an older version, or with the batch left open.
NOT_WRITTEN = {(9, "residual"), (9, "upsampled")}
FIXED = ("dense",)
# Deep ones, whose sums outgrow the 24 bits of a float, and one that ends in a softmax.
NOT_EXACT = ("residual", "preactivation", "inverted", "bare")


def rows(graph):
    """A graph's signature without names; a normalisation without weights of its own arrives with ones and zeros."""
    return [
        (kind, {k: v for k, v in config.items() if k != "affine"}, wiring)
        for _, kind, config, wiring in signature(graph)
    ]


@pytest.mark.parametrize("opset", [9, 13, 18])
@pytest.mark.parametrize("name", ZOO)
def test_onnx_gives_the_same_graph_as_torch(name, opset):
    if (opset, name) in NOT_WRITTEN:
        pytest.skip("torch's exporter does not write it")
    net, shape = ZOO[name]()
    proto = exported(net, shape, opset, dynamic=name not in FIXED, fold=opset == 13)
    graph, x = capture(proto), sample(shape)
    validate(graph, Stage.ANN)
    assert rows(graph) == rows(capture(net, shape))
    with torch.no_grad():
        torch.testing.assert_close(graph(x), net(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in NETS if name not in NOT_EXACT])
def test_dyadic_networks_agree_with_onnxruntime_to_the_bit(name):
    graph, shape = NETS[name]()
    again = same(exported(nn.Sequential(graph), shape))
    x = grid(shape)
    with torch.no_grad():
        assert torch.equal(again(x), graph(x))


def test_names_follow_the_authors_paths():
    net, shape = ZOO["residual"]()
    names = [row[0] for row in signature(capture(exported(net, shape)))]
    assert names[:3] == ["conv", "bn", "Relu"]
    assert {"layer1_0_conv1", "layer1_1_bn2", "fc"} <= set(names)


def test_names_that_are_numbers_or_missing_get_a_word():
    proto = model("t = Conv(x, w) y = Relu(t)", w=dyadic(6, 4, 3, 3))
    proto.graph.node[0].name = "12"
    assert [row[0] for row in signature(capture(proto))] == ["conv2d_12", "y"]


@pytest.mark.parametrize(
    "name", ["import", "None", "self", "training", "forward", "x", "é", "a b/c:0", "__class__", "²", "/"]
)
def test_any_name_will_do(name, tmp_path):
    proto = model("t = Conv(x, w) y = Relu(t)", w=dyadic(6, 4, 3, 3))
    proto.graph.node[0].name = name
    assert kinds(same(proto)) == ["Conv2d", "ReLU"]
    snn = snnc.compile(proto, 2)
    assert torch.equal(
        snnc.load(snnc.save(snn, tmp_path / "net.snn"))(torch.ones(1, 4, 6, 6)), snn(torch.ones(1, 4, 6, 6))
    )


def test_weights_are_copies():
    proto = model("t = Conv(x, w) y = Relu(t)", w=dyadic(6, 4, 3, 3))
    before = proto.SerializeToString()
    graph = capture(proto)
    with torch.no_grad():
        for value in graph.parameters():
            value.zero_()
    assert proto.SerializeToString() == before


# ---- the input's shape ---------------------------------------------------------------------------


def keras():
    """Channels last, as Keras networks are: a transpose in front, and one before the flattening."""
    return model(
        "t = Transpose<perm=[0,3,1,2]>(x) c = Conv(t, w) a = Relu(c) n = Transpose<perm=[0,2,3,1]>(a) "
        "f = Reshape(n, s) y = MatMul(f, m)",
        x="N,6,6,4", w=dyadic(6, 4, 3, 3), s=np.array([-1, 96]), m=dyadic(96, 5),
    )  # fmt: skip


def test_channels_last_are_kept_where_data_have_them_last():
    assert kinds(same(keras())) == ["Permute", "Conv2d", "ReLU", "Permute", "Flatten", "Linear"]


def test_channels_last_fold_away_where_data_have_them_in_front():
    proto = keras()
    graph = capture(proto, (4, 6, 6))
    assert kinds(graph) == ["Conv2d", "ReLU", "Permute", "Flatten", "Linear"]
    x = torch.tensor(dyadic(3, 4, 6, 6))
    with torch.no_grad():
        assert torch.equal(graph(x), capture(proto)(x.permute(0, 2, 3, 1)))


@pytest.mark.parametrize("given", [(1, 6, 6), (6, 6), (36,), (1, 36)])
def test_a_map_goes_into_a_row(given):
    proto = model("f = Flatten(x) g = Gemm(f, w) y = Relu(g)", x="1,36,1", w=dyadic(36, 5))
    graph = capture(proto, given)
    assert kinds(graph)[-2:] == ["Linear", "ReLU"]
    x = torch.tensor(dyadic(3, 36, 1))
    with torch.no_grad():
        assert torch.equal(graph(x.reshape(3, *given)), capture(proto)(x))


@pytest.mark.parametrize("given", [(4, 6, 7), (2, 6, 12), (144,), (6, 4, 6)])
def test_other_shapes_are_refused_with_the_right_one(given):
    (found,) = blockers(keras(), given)
    assert found.op == "input"
    assert "6,6,4" in found.why
    assert "6,6,4" in found.hint


def test_open_sizes_are_asked_for():
    proto = model("t = Conv(x, w) y = Relu(t)", x="N,4,H,W", w=dyadic(6, 4, 3, 3))
    (found,) = blockers(proto)
    assert "--input-shape" in found.hint
    assert told_shape(proto) is None
    assert kinds(capture(proto, (4, 6, 6))) == ["Conv2d", "ReLU"]
    assert "4,?,?" in blockers(proto, (3, 6, 6))[0].why
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    assert "--input-shape" in blockers(proto)[0].hint
    assert kinds(capture(proto, (4, 6, 6))) == ["Conv2d", "ReLU"]


def test_second_inputs_and_outputs_hide_nothing_that_is_refused():
    proto = model("a = Relu(x) y = Shrink(a)")
    proto.graph.input.extend(model("y = Relu(x)").graph.input)
    proto.graph.input[1].name = "mask"
    proto.graph.output.extend(model("y = Relu(x)").graph.output)
    proto.graph.output[1].name = "a"
    assert [(b.node, b.op) for b in blockers(proto)] == [("y", "Shrink")]


def test_integers_are_refused_as_input():
    (found,) = blockers(model("t = Cast<to=1>(x) y = Relu(t)", kind="uint8"))
    assert "uint8" in found.why


# ---- through the whole of snnc -------------------------------------------------------------------


@pytest.fixture
def net(tmp_path):
    """An exported network, its torch form, and data for both."""
    torch.manual_seed(0)
    live = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 5)
    ).eval()
    onnx.save(exported(live, (3, 8, 8)), tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).random((24, 3, 8, 8), np.float32), y=np.arange(24) % 5)
    return live, tmp_path


def run(*words):
    return CliRunner().invoke(main, [str(w) for w in words])


def test_compiling_in_python_is_the_same_from_onnx(net):
    live, folder = net
    x = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    both = [snnc.compile(m, 4, "opi", x) for m in (live, onnx.load(folder / "net.onnx"))]
    with torch.no_grad():
        assert torch.equal(both[0](x), both[1](x))
    alone = snnc.compile(load_model(folder / "net.onnx"), 4)
    assert alone.info["input_shape"] == [3, 8, 8]


def test_the_command_line_takes_onnx_everywhere(net):
    _, folder = net
    model, data, out = folder / "net.onnx", folder / "data.npz", folder / "net.snn"
    said = run("check", model, "--json")
    assert json.loads(said.stdout)["layers"] == {"Conv2d": 2, "Linear": 1}
    assert "Conv2d" in run("inspect", model).stdout
    made = run("compile", model, "--T", 4, "--calib", data, "--recipe", "opi", "-o", out)
    assert made.exit_code == 0, made.stderr
    scored = json.loads(run("eval", out, "--data", data, "--ann", model, "--json").stdout)
    assert scored["ann_accuracy"] is not None
    assert json.loads(run("explain", out, "--ann", model, "--data", data, "--json").stdout)["layers"]
    assert run("compile", model, "--factory", "a:b", "-o", out).exit_code == 1


def test_the_command_line_rearranges_data_and_says_so(tmp_path):
    onnx.save(keras(), tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", x=dyadic(24, 4, 6, 6), y=np.arange(24) % 5)
    model, data, out = tmp_path / "net.onnx", tmp_path / "data.npz", tmp_path / "net.snn"
    made = run("compile", model, "--T", 4, "--calib", data, "--recipe", "opi", "-o", out)
    assert made.exit_code == 0
    assert "takes samples of shape 6,6,4: those of 4,6,6 are rearranged" in made.stderr
    assert run("eval", out, "--data", data, "--ann", model).exit_code == 0
    np.savez(tmp_path / "other.npz", x=dyadic(24, 4, 5, 5))
    said = run("compile", model, "--T", 4, "--calib", tmp_path / "other.npz", "-o", tmp_path / "not.snn")
    assert said.exit_code == 1
    assert "takes samples of shape 6,6,4, not 4,5,5" in said.stderr
    assert not (tmp_path / "not.snn").exists()


def test_check_lists_every_blocker(tmp_path):
    onnx.save(model("a = ThresholdedRelu(x) b = Shrink(a) y = Mul(b, b)"), tmp_path / "net.onnx")
    said = run("check", tmp_path / "net.onnx", "--json")
    assert said.exit_code == 1
    assert [b["op"] for b in json.loads(said.stdout)["blockers"]] == ["ThresholdedRelu", "Shrink"]


def test_an_emitted_spiking_network_is_recognised(tmp_path):
    proto = model("y = Relu(x)")
    onnx.helper.set_model_props(proto, {"snnc": "{}"})
    onnx.save(proto, tmp_path / "net.onnx")
    with pytest.raises(LoadError, match="spiking network already"):
        capture(proto)
    said = run("compile", tmp_path / "net.onnx", "-o", tmp_path / "net.snn")
    assert "is a spiking network already" in said.stderr


@pytest.mark.parametrize("opset", [6, onnx.defs.onnx_opset_version() + 1])
def test_other_versions_are_refused(opset):
    with pytest.raises(Unsupported, match=f"opset {opset}"):
        capture(model("y = Relu(x)", opset=opset))


def test_the_newest_version_is_read():
    assert kinds(capture(model("y = Relu(x)", opset=onnx.defs.onnx_opset_version()))) == ["ReLU"]
