"""Hints on files that are read and written."""

import functools
import io
import json
import sys
import zipfile

import onnx
import torch
from onnx import helper, numpy_helper
from torch import fx, nn

import snnc
from snnc.files import atomic_write, load_model, load_torch
from snnc.files.onnxfile import array
from tests.followed import BUILD, NET, X, built, compiled, weights
from tests.safetensors_files import safetensors

HERE = "tests.followed.files"


class Own(nn.Module):
    """A class of the user's own."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(x).relu()


def lazy():
    return nn.LazyLinear(3)


def ran():
    made = lazy()
    made(X)
    return made


def meta():
    return nn.Linear(4, 3, device="meta")


def bare():
    return nn.ReLU()


def number():
    return 3


@functools.cache
def program():
    """The members of an archive with an exported program."""
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(NET, (X,)), buffer)
    with zipfile.ZipFile(buffer) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def pt2(path, **change):
    """An exported program, the schema of which is changed."""
    members = dict(program())
    name = next(n for n in members if n.endswith("models/model.json"))
    members[name] = json.dumps(json.loads(members[name]) | change)
    return load_model(zipped(path / "net.pt2", members), factory=None)


def odd(path):
    """A program with a pickle that is no tensor."""
    members = dict(program())
    config = next(n for n in members if n.endswith("model_constants_config.json"))
    entry = {"path_name": "own", "is_param": False, "use_pickle": True, "tensor_meta": None}
    members[config] = json.dumps({"config": {"own": entry}})
    buffer = io.BytesIO()
    torch.save(Own(), buffer)
    members[config.rpartition("/")[0] + "/own"] = buffer.getvalue()
    return load_model(zipped(path / "net.pt2", members))


def kept(path, content=NET, name="net.pt", **options):
    torch.save(content, path / name, **options)
    return path / name


def members(path, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(kept(path)) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    return load_model(zipped(path / "net.pt", found, compression=compression))


def cut(path):
    path.write_bytes(path.read_bytes()[:-90])
    return path


def texted(path, content, name="net.pt"):
    (path / name).write_bytes(content)
    return path / name


def snn(network, path, **change):
    """A compiled network's file, changed."""
    content = torch.load(snnc.save(network, path / "net.snn"), weights_only=True)
    return snnc.load(kept(path, content | change, "net.snn"))


def module(path, text, load):
    """What is loaded by way of a module in the current folder."""
    (path / "mine_followed.py").write_text(text)
    try:
        return load()
    finally:
        sys.modules.pop("mine_followed", None)


def model(weight=None, location=None, path=None):
    """An ONNX model whose weights may lie elsewhere."""
    tensor = numpy_helper.from_array(X.numpy()[:4], "w") if weight is None else weight
    if location:
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.append(onnx.StringStringEntryProto(key="location", value=location))
    ends = [helper.make_tensor_value_info(name, 1, ["N", 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [tensor])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return load_model(texted(path, made.SerializeToString(), "net.onnx"))


def external(path, location="w.bin", there=True):
    if there:
        texted(path, X.numpy()[:4].tobytes(), "w.bin")
    return model(location=location, path=path)


def apart(fill):
    tensor = numpy_helper.from_array(X.numpy()[:4], "w")
    raw = tensor.raw_data
    tensor.data_location = onnx.TensorProto.EXTERNAL
    if fill:
        tensor.data_location, tensor.raw_data = onnx.TensorProto.DEFAULT, raw
    return array(tensor)


def typed(kind):
    return helper.make_tensor("w", kind, [4, 4], [0.5] * 16)


def written(path):
    with atomic_write(path / "net.pt") as temporary:
        temporary.write_bytes(b"x")


def full(path):
    with atomic_write(path / "net.pt"):
        raise OSError(28, "No space left on device")


def factory(name, path=None, **options):
    return load_model(path, factory=f"{HERE}:{name}", **options)


def exported(path):
    torch.export.save(torch.export.export(NET, (X,)), path / "model.pt2")
    return load_model(path / "model.pt2")


def without_values(path):
    return kept(path, {"a": 1})


TENSORS = safetensors({k: v.clone() for k, v in NET.state_dict().items()})
NIR = b"\x89HDF\r\n\x1a\n" + bytes(99)
# The hint, what gets it, and what it says to do: functions of a compiled network and a folder.
ROWS = [
    # files of torch.save, and archives
    ("save or copy it again", lambda n, p: load_model(cut(kept(p))), lambda n, p: load_model(kept(p))),
    ("save or copy it again", lambda n, p: built(texted(p, TENSORS[:-9], "w.safetensors")),
     lambda n, p: built(texted(p, TENSORS, "w.safetensors"))),
    ("the file as torch wrote it", lambda n, p: members(p, zipfile.ZIP_DEFLATED), lambda n, p: members(p)),
    ("check the path and its permissions", lambda n, p: load_model(kept(p) / "more.pt"),
     lambda n, p: load_model(kept(p))),
    ("a module of torch.nn layers saved by torch.save", lambda n, p: load_model(texted(p, b"hello")),
     lambda n, p: load_model(kept(p))),
    ("or weights with --factory pkg.mod:function", lambda n, p: load_model(without_values(p)),
     lambda n, p: built(weights(p))),
    ("a file of torch.save, as the .snn files of snnc are", lambda n, p: load_torch(texted(p, b"hello")),
     lambda n, p: load_torch(snnc.save(n, p / "net.snn"))),
    ("save it again with torch.save", lambda n, p: load_model(kept(p, pickle_protocol=4)),
     lambda n, p: load_model(kept(p))),
    ("save its state_dict with torch.save, and pass that with --factory", lambda n, p: load_model(kept(p, print)),
     lambda n, p: built(kept(p, NET.state_dict()))),
    ("{}; or {}", lambda n, p: load_model(kept(p, Own())),
     lambda n, p: (load_model(kept(p, Own()), allow=[f"{HERE}:Own"]), factory("Own", kept(p, Own().state_dict())))),
    ("--allow pkg.mod:Class", lambda n, p: load_model(kept(p, Own()), allow=["Own"]),
     lambda n, p: load_model(kept(p, Own()), allow=[f"{HERE}:Own"])),
    ("check the name and PYTHONPATH", lambda n, p: load_model(kept(p, Own()), allow=[f"{HERE}:Owm"]),
     lambda n, p: load_model(kept(p, Own()), allow=[f"{HERE}:Own"])),
    ("leave it out, since what stands beside the weights is skipped",
     lambda n, p: built(weights(p, {"net": NET.state_dict(), "by": print}), allow=["builtins:print"]),
     lambda n, p: built(weights(p, {"net": NET.state_dict(), "by": print}))),
    ("torch.export.save(torch.export.export(model, example_inputs), 'model.pt2') where",
     lambda n, p: load_model(kept(p, fx.symbolic_trace(NET))), lambda n, p: exported(p)),
    ("torch.export.save with torch 2.9 or newer", lambda n, p: odd(p), lambda n, p: exported(p)),
    ("export it again", lambda n, p: pt2(p, schema_version={"major": 99, "minor": 1}), lambda n, p: exported(p)),
    ("drop {}", lambda n, p: (pt2(p), load_model(p / "net.pt2", key="a")), lambda n, p: pt2(p)),
    # what builds a network
    ("a factory that builds it on the CPU", lambda n, p: factory("meta"), lambda n, p: factory("ran")),
    ("run the network once, or load its weights", lambda n, p: factory("lazy"), lambda n, p: factory("ran")),
    ("numbers, 'text', True, None", lambda n, p: load_model(None, factory=f"{BUILD}(x)"),
     lambda n, p: load_model(None, factory=f"{BUILD}(5)")),
    ("mend it", lambda n, p: module(p, "1 / 0", lambda: load_model(None, factory="mine_followed:build")),
     lambda n, p: module(p, f"from {HERE} import bare as build",
     lambda: load_model(None, factory="mine_followed:build"))),
    ("'-' instead of the file", lambda n, p: factory("bare", weights(p)), lambda n, p: factory("bare")),
    ("an exported program (.pt2), an ONNX model", lambda n, p: factory("number"), lambda n, p: factory("bare")),
    # ONNX models
    ("the model and its data in one folder", lambda n, p: external(p, "../w.bin"), lambda n, p: external(p)),
    ("copy it too", lambda n, p: external(p, there=False), lambda n, p: external(p)),
    ("float32 weights", lambda n, p: array(typed(onnx.TensorProto.COMPLEX64)),
     lambda n, p: array(typed(onnx.TensorProto.FLOAT))),
    ("onnx.load, which reads that as well", lambda n, p: apart(False), lambda n, p: apart(True)),
    # files that snnc wrote
    ("'snnc compile' on the original network", lambda n, p: snn(n, p, info={"recipe": 3}),
     lambda n, p: snn(compiled(), p)),
    ("a file that 'snnc compile' wrote", lambda n, p: snnc.load(kept(p, {"a": 1})), lambda n, p: snn(n, p)),
    ("the snnc that wrote it, or compile again", lambda n, p: snn(n, p, version=99), lambda n, p: snn(compiled(), p)),
    ("compile again", lambda n, p: snn(n, p, output="none"), lambda n, p: snn(compiled(), p)),
    ("'snnc inspect", lambda n, p: load_model(texted(p, NIR, "net.nir")), lambda n, p: snn(n, p)),
    ("check space and permissions", lambda n, p: full(p), lambda n, p: written(p)),
]  # fmt: skip
