"""Loading what users bring and writing whole files. Hostile files are refused, and nothing in them ran."""

import io
import json
import os
import pickle
import stat
import sys
import types
import zipfile
from collections import OrderedDict
from contextlib import suppress
from enum import Enum

import pytest
import torch
from torch import fx, nn

from snnc.errors import LoadError, WriteError
from snnc.files import atomic_write, load_model, load_torch, sniff
from snnc.files.torchfile import nn_classes


class Touch:
    """Pickles to a call that leaves a file behind."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


class Net(nn.Module):
    """A class of the user's own."""

    def __init__(self, width=4):
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, padding=1)
        self.bn = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width, 3)

    def forward(self, x):
        x = torch.relu(self.bn(self.conv(x)))
        return self.fc(x.mean((2, 3)))


class Colour(Enum):
    RED = 1


def plain_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 3)
    )


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "it-ran"


@pytest.fixture
def factories(monkeypatch):
    """An importable module `userland` that holds factories and classes."""
    module = types.ModuleType("userland")
    module.Net, module.build, module.number = Net, lambda width=4: Net(width), lambda: 3
    module.helper = len
    module.Colour, module.lazy = Colour, lambda: nn.LazyLinear(3)
    monkeypatch.setitem(sys.modules, "userland", module)
    monkeypatch.setattr(Net, "__module__", "userland")
    return module


# ---- writing ------------------------------------------------------------------------------------


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "net.pt2"
    with atomic_write(path) as temporary:
        assert temporary.suffix == ".pt2"
        temporary.write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "net.pt"
    path.write_bytes(b"old")

    def half():
        with atomic_write(path) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        half()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_a_write_error(tmp_path):
    with pytest.raises(WriteError, match="No space left"), atomic_write(tmp_path / "net.pt"):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_the_umask_decides_the_permissions(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "net.pt") as temporary:
            temporary.write_bytes(b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "net.pt").stat().st_mode) == 0o640


def test_a_link_is_written_through(tmp_path):
    (tmp_path / "real.pt").write_bytes(b"old")
    (tmp_path / "link.pt").symlink_to("real.pt")
    with atomic_write(tmp_path / "link.pt") as temporary:
        temporary.write_bytes(b"new")
    assert (tmp_path / "link.pt").is_symlink()
    assert (tmp_path / "real.pt").read_bytes() == b"new"


@pytest.mark.parametrize("name", ["missing/net.pt", "folder", "file/net.pt"])
def test_where_nothing_can_be_written(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(WriteError), atomic_write(tmp_path / name):
        pass


# ---- kinds --------------------------------------------------------------------------------------


def zipped(path, members, folder="m", **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members.items():
            archive.writestr(f"{folder}/{name}", content)
    return path


def onnx_file(path):
    onnx = pytest.importorskip("onnx")
    value = [onnx.helper.make_tensor_value_info(n, 1, [1]) for n in "xy"]
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", value[:1], value[1:])), path)
    return path


def test_kinds_are_told_by_content(tmp_path):
    torch.save({}, tmp_path / "a.bin")
    torch.save({}, tmp_path / "b.bin", _use_new_zipfile_serialization=False)
    (tmp_path / "c.bin").write_bytes(pickle.dumps({}))
    zipped(tmp_path / "d.bin", {"data.pkl": "", "constants.pkl": "", "code/__torch__.py": ""})
    zipped(tmp_path / "e.bin", {"archive_format": "pt2", "models/model.json": "{}"})
    zipped(tmp_path / "f.npz", {"x.npy": ""})
    (tmp_path / "g.pt").write_text("hello, this is text")
    onnx_file(tmp_path / "h.bin")
    (tmp_path / "i.onnx").write_bytes(b"no protobuf")
    kinds = [sniff(p) for p in sorted(tmp_path.iterdir())]
    assert kinds == [
        "torch-zip",
        "legacy-pickle",
        "pickle",
        "torchscript",
        "pt2",
        "unknown",
        "unknown",
        "onnx",
        "onnx",
    ]


@pytest.mark.parametrize(("name", "says"), [("none", "not exist"), ("empty", "empty"), (".", "folder")])
def test_no_file_to_sniff(tmp_path, name, says):
    (tmp_path / "empty").touch()
    with pytest.raises(LoadError, match=says):
        sniff(tmp_path / name)


# ---- torch files --------------------------------------------------------------------------------


@pytest.mark.parametrize("new", [True, False])
def test_a_pickled_module_of_torch_layers_loads(tmp_path, new):
    net = plain_net()
    torch.save(net, tmp_path / "net.pt", _use_new_zipfile_serialization=new)
    if not new:  # the old format stores classes by their source, which the safe unpickler does not know
        with pytest.raises(LoadError, match="cannot be read"):
            load_model(tmp_path / "net.pt")
        return
    loaded = load_model(tmp_path / "net.pt")
    x = torch.randn(2, 1, 8, 8)
    assert not loaded.training
    assert torch.equal(loaded(x), net.eval()(x))


@pytest.mark.parametrize("net", [nn.LSTM(2, 3), nn.MultiheadAttention(4, 2), nn.ModuleList([nn.PReLU()])])
def test_layers_with_more_inside_load(tmp_path, net):
    torch.save({"epoch": 3, "model": net}, tmp_path / "net.pt")
    assert repr(load_model(tmp_path / "net.pt")) == repr(net)


def test_the_allow_list_holds_torch_layers_and_nothing_else():
    classes = nn_classes()
    assert {nn.Conv2d, nn.ReLU, nn.BatchNorm2d, nn.Sequential, nn.MultiheadAttention} <= set(classes)
    for cls in classes:
        assert isinstance(cls, type)
        assert issubclass(cls, nn.Module)
        assert cls.__module__.startswith("torch.nn.modules.")
        assert not issubclass(cls, (fx.GraphModule, torch.jit.ScriptModule))
        # The unpickler may call these; none may be a way of its own to run what a file holds.
        assert "__reduce__" not in vars(cls)


def test_the_allow_list_ends_with_the_load(tmp_path):
    torch.save(plain_net(), tmp_path / "net.pt")
    load_model(tmp_path / "net.pt")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "net.pt", weights_only=True)


def test_unknown_classes_are_all_named(tmp_path, factories, monkeypatch):
    factories.Other = type("Other", (nn.Module,), {"__module__": "userland"})
    torch.save(nn.Sequential(Net(), factories.Other()), tmp_path / "net.pt")
    with pytest.raises(LoadError, match=r"userland\.Net, userland\.Other") as caught:
        load_model(tmp_path / "net.pt")
    assert "--allow userland:Net --allow userland:Other" in caught.value.hint
    assert "--factory" in caught.value.hint
    loaded = load_model(tmp_path / "net.pt", allow=["userland:Net", "userland:Other"])
    assert isinstance(loaded[0], Net)


def test_a_class_of_a_script_can_be_allowed_from_a_module(tmp_path, factories, monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "Net", Net, raising=False)
    monkeypatch.setattr(Net, "__module__", "__main__")
    torch.save(Net(), tmp_path / "net.pt")
    with pytest.raises(LoadError, match=r"__main__\.Net") as caught:
        load_model(tmp_path / "net.pt")
    assert "--allow your_module:Net" in caught.value.hint
    assert isinstance(load_model(tmp_path / "net.pt", allow=["userland:Net"]), Net)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("Net", "name a class"),
        ("userland:Nope", "could not be imported"),
        ("nowhere.at.all:Net", "could not be imported"),
        ("userland:helper", "only classes"),
        ("os:system", "only classes"),
        ("subprocess:Popen", "cannot be allowed"),
        ("torch.fx:GraphModule", "source text"),
        ("torch.fx.graph_module:GraphModule", "source text"),
        ("torch.fx.graph_module:reduce_graph_module", "only classes"),
        ("torch.jit:ScriptModule", "source text"),
    ],
)
def test_what_may_not_be_allowed(tmp_path, factories, spec, says):
    torch.save(plain_net(), tmp_path / "net.pt")
    with pytest.raises(LoadError, match=says):
        load_model(tmp_path / "net.pt", allow=[spec])


def test_enums_may_be_allowed(tmp_path, factories, monkeypatch):
    monkeypatch.setattr(Colour, "__module__", "userland")
    net = plain_net()
    net.colour = Colour.RED
    torch.save(net, tmp_path / "net.pt")
    assert load_model(tmp_path / "net.pt", allow=["userland:Colour"]).colour is Colour.RED


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(tmp_path, value):
    net = plain_net()
    with torch.no_grad():
        net[1].running_var[2] = value
    torch.save(net, tmp_path / "net.pt")
    with pytest.raises(LoadError, match=r"'1\.running_var' holds NaN"):
        load_model(tmp_path / "net.pt")


def test_a_layer_that_brings_its_own_forward_is_refused(tmp_path):
    net = plain_net()
    net[2].__dict__["forward"] = nn.Identity()
    torch.save(net, tmp_path / "net.pt")
    with pytest.raises(LoadError, match="layer '2' replaces forward"):
        load_model(tmp_path / "net.pt")


@pytest.mark.parametrize("strange", [{"_modules": 3}, {"_parameters": None}, {"_parameters": {"weight": 3}}])
def test_a_module_that_is_not_intact_is_refused(tmp_path, strange):
    net = nn.Sequential(nn.Linear(2, 2))
    net[0].__dict__.update(strange)
    torch.save(net, tmp_path / "net.pt")
    with pytest.raises(LoadError):
        load_model(tmp_path / "net.pt")


def test_a_graph_file_is_given_back_as_it_is(tmp_path):
    torch.save({"format": "snnc-graph", "rows": [1]}, tmp_path / "net.snn")
    assert load_model(tmp_path / "net.snn") == {"format": "snnc-graph", "rows": [1]}
    assert load_torch(tmp_path / "net.snn")["rows"] == [1]


def test_load_torch_takes_no_classes_unless_told(tmp_path):
    torch.save(nn.ReLU(), tmp_path / "net.pt")
    with pytest.raises(LoadError, match="ReLU"):
        load_torch(tmp_path / "net.pt")
    assert isinstance(load_torch(tmp_path / "net.pt", [nn.ReLU]), nn.ReLU)


# ---- factories and weights ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrap", "prefix"),
    [
        (None, ""),
        ("state_dict", "module."),
        ("model", "_orig_mod."),
        ("net", "module._orig_mod."),
        ("model_state_dict", ""),
    ],
)
def test_weights_fill_a_factory_s_module(tmp_path, factories, wrap, prefix):
    net = Net().eval()
    weights = OrderedDict((prefix + k, v) for k, v in net.state_dict().items())
    torch.save({wrap: weights, "epoch": 7} if wrap else weights, tmp_path / "w.pt")
    with pytest.raises(LoadError, match="no network") as caught:
        load_model(tmp_path / "w.pt")
    assert "--factory" in caught.value.hint
    loaded = load_model(tmp_path / "w.pt", factory="userland:build")
    x = torch.randn(2, 1, 8, 8)
    assert not loaded.training
    assert torch.equal(loaded(x), net(x))


def test_weights_that_do_not_fit(tmp_path, factories):
    weights = dict(Net().state_dict())
    weights["extra"] = weights.pop("conv.bias")
    torch.save(weights, tmp_path / "w.pt")
    with pytest.raises(LoadError, match=r"1 missing \(conv\.bias\) and 1 left over \(extra\)"):
        load_model(tmp_path / "w.pt", factory="userland:build")
    torch.save(Net(5).state_dict(), tmp_path / "w.pt")
    with pytest.raises(LoadError, match=r"conv\.weight is 5x1x3x3 in the file and 4x1x3x3 in"):
        load_model(tmp_path / "w.pt", factory="userland:build")


def test_a_factory_takes_literals(factories):
    assert load_model(None, factory="userland:build(6)").fc.in_features == 6
    assert load_model("-", factory="userland:build(width=2)").fc.in_features == 2


def test_a_factory_is_found_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "my_own_nets.py").write_text("import torch\ndef build(): return torch.nn.ReLU()\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert isinstance(load_model(None, factory="my_own_nets:build"), nn.ReLU)
    assert sys.path == before
    monkeypatch.delitem(sys.modules, "my_own_nets")


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        (None, "no model"),
        ("userland", "does not name a factory"),
        ("userland:nope", "not there"),
        ("nowhere.at.all:build", "not there"),
        ("userland:build(1 + len('a'))", "not literals"),
        ("userland:build(__import__('os'))", "not literals"),
        ("userland:build(**{'width': 3})", "not literals"),
        ("userland:build(1)(2)", "not literals"),
        ("userland:build('a', 'b')", "failed: TypeError"),
        ("userland:number", "int, not an nn.Module"),
        ("userland:lazy", "'weight' has no values"),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")
def test_factories_that_do_not_work(factories, factory, says):
    with pytest.raises(LoadError, match=says):
        load_model(None, factory=factory)


def test_a_whole_module_needs_no_factory(tmp_path, factories):
    torch.save(plain_net(), tmp_path / "net.pt")
    with pytest.raises(LoadError, match="needs no factory"):
        load_model(tmp_path / "net.pt", factory="userland:build")


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], 3.0, {"model": {"a": 1}}])
def test_files_without_a_network(tmp_path, content):
    torch.save(content, tmp_path / "net.pt")
    with pytest.raises(LoadError, match="holds no network"):
        load_model(tmp_path / "net.pt")


def test_formats_that_are_not_read(tmp_path):
    (tmp_path / "net.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(LoadError, match="is HDF5"):
        load_model(tmp_path / "net.h5")


# ---- hostile torch files ------------------------------------------------------------------------


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: {"state_dict": {"w": t}}, lambda t: [nn.ReLU(), t]])
def test_a_hostile_pickle_does_not_run(tmp_path, marker, new, wrap):
    torch.save(wrap(Touch(marker)), tmp_path / "net.pt", _use_new_zipfile_serialization=new)
    with pytest.raises(LoadError, match=r"system|cannot be read") as caught:
        load_model(tmp_path / "net.pt")
    assert "--allow posix" not in str(caught.value)
    assert not marker.exists()


def test_a_plain_pickle_does_not_run(tmp_path, marker):
    hostile = pickle.dumps(Touch(marker))
    (tmp_path / "net.pt").write_bytes(hostile)
    with pytest.raises(LoadError, match="plain pickle"):
        load_model(tmp_path / "net.pt")
    assert not marker.exists()
    pickle.loads(hostile)
    assert marker.exists()  # so it would have


def test_a_graph_module_is_refused(tmp_path):
    net = fx.symbolic_trace(plain_net())
    torch.save(net, tmp_path / "net.pt")
    with pytest.raises(LoadError, match="source text") as caught:
        load_model(tmp_path / "net.pt")
    assert "torch.export.save" in caught.value.hint
    with pytest.raises(LoadError, match="source text"):
        load_model(tmp_path / "net.pt", allow=["torch.fx:GraphModule"])


@pytest.mark.parametrize("folder", ["m", "other"])
def test_torchscript_is_refused(tmp_path, marker, folder):
    hostile = pickle.dumps(Touch(marker), protocol=2)
    members = {"code/__torch__.py": "", "constants.pkl": hostile, "data.pkl": hostile, "version": "3\n"}
    with pytest.raises(LoadError, match="TorchScript") as caught:
        load_model(zipped(tmp_path / "net.pt", members, folder))
    assert "torch.export.save" in caught.value.hint
    assert not marker.exists()


def test_zips_that_torch_does_not_write(tmp_path):
    torch.save({"w": torch.zeros(3)}, tmp_path / "net.pt")
    with zipfile.ZipFile(tmp_path / "net.pt") as archive:
        members = {n.partition("/")[2]: archive.read(n) for n in archive.namelist()}
    zipped(tmp_path / "bomb.pt", members | {"data/1": bytes(1 << 22)}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(LoadError, match="compressed"):
        load_torch(tmp_path / "bomb.pt")
    for name in ("../evil", "a\\..\\evil"):
        with pytest.raises(LoadError, match="path"):
            load_torch(zipped(tmp_path / "path.pt", members | {name: b""}))
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(tmp_path / "net.pt", "a") as archive:
        archive.writestr(archive.namelist()[0], b"")
    with pytest.raises(LoadError, match="twice"):
        load_torch(tmp_path / "net.pt")


# ---- exported programs --------------------------------------------------------------------------


class Exported(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 2, 3, padding="same"), nn.BatchNorm2d(2), nn.ReLU())
        self.shift = torch.ones(2, 1, 1)

    def forward(self, x, flag):
        with torch.no_grad():
            y = self.net(x) + self.shift
        return {"y": y.reshape(y.shape[0] * 2, -1), "twice": torch.cat([x, x]) * flag}


@pytest.fixture(scope="module")
def exported():
    """An exported program with a dynamic batch, a constant and a subgraph, and its archive's members."""
    torch.manual_seed(0)
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(
        Exported().eval(), (torch.randn(3, 1, 4, 4), 0.5), dynamic_shapes={"x": {0: batch}, "flag": None}
    )
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    with zipfile.ZipFile(buffer) as archive:
        return program, {n.partition("/")[2]: archive.read(n) for n in archive.namelist()}


def edited(members, name, edit):
    """The members with the JSON of one changed in place by `edit`."""
    value = json.loads(members[name])
    edit(value)
    return members | {name: json.dumps(value).encode()}


MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
INPUTS = "data/sample_inputs/model.pt"


def test_an_exported_program_loads(tmp_path, exported):
    program, members = exported
    loaded = load_model(zipped(tmp_path / "net.pt2", members))
    x = torch.randn(5, 1, 4, 4), 0.5
    got, want = loaded.module()(*x), program.module()(*x)
    assert all(torch.equal(got[k], want[k]) for k in want)
    assert str(loaded.range_constraints) == str(program.range_constraints)
    assert torch.equal(loaded.example_inputs[0][0], program.example_inputs[0][0])
    assert any("test_files.py" in node.meta.get("stack_trace", "") for node in loaded.graph.nodes)


def test_a_program_from_a_gpu_loads_on_the_cpu(tmp_path, exported):
    _, members = exported
    for name in (MODEL, WEIGHTS, CONSTANTS):
        text = members[name].replace(b'"type": "cpu", "index": null', b'"type": "cuda", "index": 0')
        assert text != members[name]
        members = members | {name: text}
    loaded = load_model(zipped(tmp_path / "net.pt2", members))
    assert loaded.module()(torch.randn(5, 1, 4, 4), 0.5)["y"].device.type == "cpu"


def test_a_program_with_nan_is_refused(tmp_path, exported):
    _, members = exported
    size = len(members["data/weights/weight_0"])
    members = members | {"data/weights/weight_0": b"\xff" * size}
    with pytest.raises(LoadError, match="holds NaN"):
        load_model(zipped(tmp_path / "net.pt2", members))


def torch_bytes(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def attacks(members, marker):
    """Name and members of archives with which torch's own loader runs something, now or when the program runs."""
    call = f"__import__('os').system('touch {marker}')"
    evil, raw = torch_bytes(Touch(marker)), pickle.dumps(Touch(marker))

    def program(edit):
        return edited(members, MODEL, edit)

    def node(target):
        return lambda p: next(n for n in p["graph_module"]["graph"]["nodes"] if target in n["target"])

    def constant(path_name):
        entry = {"path_name": path_name, "is_param": False, "use_pickle": True, "tensor_meta": None}
        return edited(members, CONSTANTS, lambda c: c["config"].update(c=entry)) | {
            f"data/constants/{path_name}": evil if path_name.startswith("tensor") else raw
        }

    def pickled(config):
        for payload in config["config"].values():
            payload.update(use_pickle=True, path_name="weight_0")

    yield "sample inputs", members | {INPUTS: evil}
    yield "sample inputs, plain pickle", members | {INPUTS: raw}
    yield "sample inputs, old pickle", members | {INPUTS: pickle.dumps(Touch(marker), protocol=2)}
    yield "weights", edited(members, WEIGHTS, pickled) | {"data/weights/weight_0": evil}
    yield "constant", constant("tensor_9")
    yield "opaque constant", constant("opaque_obj_0")
    yield "custom object", constant("custom_obj_0")
    yield "old weights", members | {"data/weights/model.pt": evil}
    yield "old constants", members | {"data/constants/model.pt": evil}
    yield "second program", members | {"models/b.json": members[MODEL], "data/sample_inputs/b.pt": evil}
    yield "compiled code", members | {"data/aotinductor/model/a.so": b"\x7fELF"}

    def size(formula):
        def edit(p):
            value = next(iter(p["graph_module"]["graph"]["sym_int_values"].values()))
            value["as_expr"]["expr_str"] = formula

        return program(edit)

    yield "size", size(call)
    yield "size, in a call", size(f"Integer({call})")
    yield "size, in a text", size(f'Add("{call}", Integer(0))')
    yield "size, through an attribute", size("Symbol('s0').__class__.__init__.__globals__['sys'].exit(9)")
    yield "size, by keyword", size(f"Symbol('s0', integer=bool({call}))")

    def renamed(old, new):
        return members | {MODEL: members[MODEL].replace(json.dumps(old).encode(), json.dumps(new).encode())}

    breakout = f"y):\n    pass\n{call}\ndef f(self"
    yield "input's name", renamed("x", breakout)

    def dead_node(p):
        graph, name = p["graph_module"]["graph"], f"a = 1\n{call}\ndef g(self):\n    b"
        graph["tensor_values"][name] = graph["tensor_values"]["x"]
        inputs = [{"name": "self", "arg": {"as_tensor": {"name": "x"}}, "kind": 1}]
        graph["nodes"].append(
            {
                "target": "torch.ops.aten.relu.default",
                "inputs": inputs,
                "outputs": [{"as_tensor": {"name": name}}],
                "metadata": {},
                "name": name,
            }
        )

    yield "node's name", program(dead_node)
    yield (
        "argument names",
        program(
            lambda p: p["graph_module"]["module_call_graph"][0]["signature"].update(forward_arg_names=[breakout, "b"])
        ),
    )
    yield (
        "parameter's name",
        renamed("net.0.weight", f'a", {call}, "b')
        | {WEIGHTS: members[WEIGHTS].replace(b'"net.0.weight"', json.dumps(f'a", {call}, "b').encode())},
    )

    def flow(p):
        node("wrap_with_set_grad")(p)["inputs"][0].update(name=f"a=0, **{call}, b", kind=2)

    yield "keyword's name", program(flow)
    yield "function", program(lambda p: node("cat")(p).update(target="torch.os.system"))
    yield "function, another", program(lambda p: node("cat")(p).update(target="torch.ops.load_library"))
    yield "function, inner", program(lambda p: node("cat")(p).update(target="torch.ops.aten.__init__.__call__"))
    yield "attribute getter", program(lambda p: node("cat")(p).update(target="_operator.attrgetter"))
    yield "file operator", program(lambda p: node("cat")(p).update(target="torch.ops.aten.from_file.default"))
    yield "extension", program(lambda p: node("cat")(p).update(target="#ext:op"))
    yield (
        "function as argument",
        program(lambda p: node("aten.mul")(p)["inputs"][1].update(arg={"as_operator": "torch.os.system"})),
    )

    def tree(**changes):
        spec = {"type": "builtins.dict", "context": "[]", "children_spec": []} | changes
        return program(
            lambda p: p["graph_module"]["module_call_graph"][0]["signature"].update(out_spec=json.dumps([1, spec]))
        )

    enum = json.dumps([{"__enum__": True, "fqn": "evil_module:E", "name": "A"}])
    factory = {"default_factory_module": "evil_module", "default_factory_name": "E", "dict_context": []}
    yield "enum in a tree", tree(context=enum)
    yield "defaultdict in a tree", tree(type="collections.defaultdict", context=factory)
    yield "keys in a tree", tree(context=json.dumps([f"a': {call}, 'b"]))
    yield (
        "text input",
        program(
            lambda p: p["graph_module"]["signature"]["input_specs"][-1].update(
                constant_input={"name": "flag", "value": {"as_string": f"' or {call} or '"}}
            )
        ),
    )
    yield "wrong type", program(lambda p: p["range_constraints"].update(s77={"min_val": call, "max_val": None}))


def test_hostile_programs_are_refused_and_do_not_run(tmp_path, exported, marker, monkeypatch):
    (tmp_path / "evil_module.py").write_text(f"import pathlib; pathlib.Path({str(marker)!r}).touch()")
    monkeypatch.syspath_prepend(tmp_path)
    for name, members in attacks(exported[1], marker):
        with pytest.raises(LoadError, match="is refused") as caught:
            load_model(zipped(tmp_path / "net.pt2", members))
        assert "nothing was run" in caught.value.message, name
        assert not marker.exists(), name


def test_guards_are_dropped(tmp_path, exported, marker):
    call = f"__import__('os').system('touch {marker}') == 0"
    members = edited(exported[1], MODEL, lambda p: p.update(guards_code=[call]))
    loaded = load_model(zipped(tmp_path / "net.pt2", members))
    loaded.module()(torch.randn(5, 1, 4, 4), 0.5)
    assert not marker.exists()


def test_sizes_may_be_formulas(tmp_path, exported):
    def edit(p):
        size = next(iter(p["graph_module"]["graph"]["sym_int_values"].values()))["as_expr"]
        symbol = size["expr_str"]
        size["expr_str"] = f"Add(Mul(Integer(2), {symbol}), Pow({symbol}, Integer(2)), Integer(-3))"

    load_model(zipped(tmp_path / "net.pt2", edited(exported[1], MODEL, edit)))
    for bad in ("Pow(Integer(9), Pow(Integer(9), Integer(9)))", "2**9**9", "Symbol('s0'", "lambda: 0", "()", ""):

        def edit_again(p, bad=bad):
            next(iter(p["graph_module"]["graph"]["sym_int_values"].values()))["as_expr"]["expr_str"] = bad

        with pytest.raises(LoadError, match="expr_str"):
            load_model(zipped(tmp_path / "net.pt2", edited(exported[1], MODEL, edit_again)))


def test_archives_that_are_not_whole(tmp_path, exported):
    _, members = exported
    path = tmp_path / "net.pt2"
    for name in (MODEL, WEIGHTS, CONSTANTS, INPUTS):
        with pytest.raises(LoadError, match="no member"):
            load_model(zipped(path, {k: v for k, v in members.items() if k != name}))
    with pytest.raises(LoadError, match="damaged"):
        load_model(zipped(path, {k: v for k, v in members.items() if k != "data/weights/weight_0"}))
    with pytest.raises(LoadError, match="damaged"):
        load_model(zipped(path, members | {MODEL: b"{"}))
    with pytest.raises(LoadError):
        load_model(zipped(path, members | {MODEL: b"[" * 100_000}))
    with pytest.raises(LoadError):
        load_model(zipped(path, members | {MODEL: b"{}"}))
    with pytest.raises(LoadError, match="could not be read"):
        load_model(zipped(path, members | {"data/weights/weight_0": b"1234"}))
    with pytest.raises(LoadError, match="big-endian"):
        load_model(zipped(path, members | {"byteorder": b"big"}))
    with pytest.raises(LoadError, match="no member"):
        load_model(zipped(path, {"archive_format": b"pt2"}))
    with pytest.raises(LoadError, match="compressed"):
        load_model(zipped(path, members, compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(LoadError, match="path"):
        load_model(zipped(path, members | {"extra/../../evil": b""}))


def test_a_tensor_that_claims_all_memory_is_refused(tmp_path, exported):
    def huge(config):
        next(iter(config["config"].values()))["tensor_meta"]["sizes"] = [{"as_int": 1 << 40}]

    members = edited(exported[1], WEIGHTS, huge) | {"data/weights/weight_0": b""}
    with pytest.raises(LoadError, match="no values"):
        load_model(zipped(tmp_path / "net.pt2", members))


def test_the_format_before_2_8_is_refused(tmp_path, marker):
    hostile = pickle.dumps(Touch(marker))
    with zipfile.ZipFile(tmp_path / "net.pt2", "w") as archive:
        archive.writestr("version", "8.8")
        archive.writestr("serialized_exported_program.json", "{}")
        for name in ("state_dict", "constants", "example_inputs"):
            archive.writestr(f"serialized_{name}.pt", hostile)
    with pytest.raises(LoadError, match=r"2\.7 and older"):
        load_model(tmp_path / "net.pt2")
    assert not marker.exists()


def test_versions_and_operators_that_this_torch_lacks(tmp_path, exported, caplog):
    members = edited(exported[1], MODEL, lambda p: p["schema_version"].update(major=99))
    with pytest.raises(LoadError, match="schema version"):
        load_model(zipped(tmp_path / "net.pt2", members))
    assert not caplog.records

    def custom(p):
        p["graph_module"]["graph"]["nodes"][-1]["target"] = "torch.ops.torchvision.nms.default"

    with pytest.raises(LoadError, match=r"torchvision\.nms"):
        load_model(zipped(tmp_path / "net.pt2", edited(exported[1], MODEL, custom)))


# ---- damage -------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@pytest.mark.parametrize("kind", ["zip", "legacy", "pt2"])
def test_a_truncated_file_is_a_load_error(tmp_path, exported, kind):
    path = tmp_path / "whole"
    if kind == "pt2":
        zipped(path, exported[1])
    else:
        torch.save(plain_net().state_dict(), path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    for size in [*range(40), *range(40, len(whole), len(whole) // 80), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(LoadError):
            load_model(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@pytest.mark.parametrize("kind", ["zip", "legacy", "pt2"])
def test_a_damaged_file_loads_or_is_a_load_error(tmp_path, exported, kind):
    path = tmp_path / "whole"
    if kind == "pt2":
        zipped(path, exported[1])
    else:
        torch.save(plain_net(), path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    for at in range(0, len(whole), len(whole) // 60):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x15]) + whole[at + 1 :])
        with suppress(LoadError):
            load_model(path)


def test_a_quantised_network_is_refused_in_so_many_words(tmp_path):
    path = tmp_path / "quantised.pt"
    torch.save(nn.Sequential(torch.ao.nn.quantized.FloatFunctional()), path)
    with pytest.raises(LoadError, match="holds a quantised network") as caught:
        load_model(path)
    assert "float network" in caught.value.hint
    assert "--allow" not in caught.value.hint
