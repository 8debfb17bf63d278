"""Malformed ONNX files are refused in one sentence; external data come from the model's own folder alone."""

import contextlib
import time
import tracemalloc

import numpy as np
import onnx
import onnx.inliner
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from snnc.capture import blockers, capture
from snnc.cli import main
from snnc.errors import LoadError, SnncError
from snnc.files import load_model
from snnc.files.onnxfile import array
from tests.onnx_models import dyadic, kinds, model, same

W = dyadic(6, 4, 3, 3)


def sound():
    return model("t = Conv(x, w) a = Relu(t) s = Shape(a) y = Reshape(a, s)", w=W)


def weight(proto):
    return proto.graph.initializer[0]


def _dims(*dims):
    def change(proto):
        del weight(proto).dims[:]
        weight(proto).dims.extend(dims)

    return change


def _missing(proto):
    del proto.graph.initializer[:]


def _twice(proto):
    proto.graph.initializer.append(weight(proto))


def _same_name(proto):
    proto.graph.node[1].output[0] = "t"
    proto.graph.node[2].input[0] = proto.graph.node[3].input[0] = "t"


def _cycle(proto):
    proto.graph.node[0].input[0] = "y"


def _unordered(proto):
    nodes = list(proto.graph.node)[::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def _short(proto):
    weight(proto).raw_data = weight(proto).raw_data[:-4]


def _segment(proto):
    weight(proto).segment.begin = 1


def _integers(proto):
    weight(proto).CopyFrom(onnx.numpy_helper.from_array(W.astype(np.int8), "w"))


def _text(proto):
    weight(proto).CopyFrom(helper.make_tensor("w", TensorProto.STRING, [1], [b"x"]))


def _strange_type(proto):
    weight(proto).data_type = 127


def _no_type(proto):
    weight(proto).data_type = 0


def _no_output(proto):
    proto.graph.output[0].name = "nowhere"


def _no_nodes(proto):
    del proto.graph.node[:]


def _no_sizes(proto):
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_value = -3


def _sequence(proto):
    proto.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = 1


def _huge_input(proto):
    for dim in proto.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = 2**40


def _many_inputs(proto):
    proto.graph.node[0].input.extend(["w"] * 5)


def _attribute(**changes):
    def change(proto):
        proto.graph.node[0].attribute.extend(helper.make_attribute(k, v) for k, v in changes.items())

    return change


def _flat(op, source, result):
    return helper.make_node(op, [source], [result])


def _round(proto):
    proto.graph.node[1].op_type = "Round"


def _untyped_attribute(proto):
    proto.graph.node[0].attribute.add(name="group")


def _external(proto):
    weight(proto).data_location = TensorProto.EXTERNAL


def _huge_constant(proto):
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2**40]), "many"))
    proto.graph.node.insert(0, helper.make_node("ConstantOfShape", ["many"], ["zeros"]))


def _huge_product(proto):
    column = onnx.numpy_helper.from_array(np.zeros((2**20, 1), np.float32), "column")
    line = onnx.numpy_helper.from_array(np.zeros((1, 2**20), np.float32), "line")
    proto.graph.initializer.extend([column, line])
    proto.graph.node.insert(0, helper.make_node("Add", ["column", "line"], ["table"]))


def _huge_pad(proto):
    proto.graph.node.insert(1, helper.make_node("Pad", ["t", "wide"], ["p"]))
    proto.graph.node[2].input[0] = "p"
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0, 0, 2**16, 0, 0, 0, 0, 2**16]), "wide"))


def _huge_scale(proto):
    proto.graph.node.insert(1, helper.make_node("Resize", ["t", "", "far"], ["p"]))
    proto.graph.node[2].input[0] = "p"
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.float32([1, 1, 2**20, 2**20]), "far"))


def _doubling(proto):
    for i in range(40):
        source = f"d{i - 1}" if i else "t"
        proto.graph.node.insert(1 + i, helper.make_node("Concat", [source, source], [f"d{i}"], axis=2))
    proto.graph.node[41].input[0] = "d39"


MALFORMED = {
    "negative size": (_dims(6, -4, 3, 3), "has the shape"),
    "huge size": (_dims(2**40, 2**20), "numbers and has"),
    "wrong size": (_dims(6, 4, 3, 4), "needs 288 numbers and has 216"),
    "truncated weights": (_short, "needs 216 numbers and has 215"),
    "segment": (_segment, "numbers"),
    "missing initialiser": (_missing, "reads 'w', a value that nothing gives"),
    "initialiser twice": (_twice, "gives a name to two"),
    "name twice": (_same_name, "the name 't' to two"),
    "cycle": (_cycle, "of a later node"),
    "out of order": (_unordered, "of a later node"),
    "integer weights": (_integers, "w"),
    "text": (_text, "of type string"),
    "strange type": (_strange_type, "of type number 127"),
    "no type": (_no_type, "of type undefined"),
    "no output": (_no_output, "'nowhere'"),
    "no nodes": (_no_nodes, "holds no network"),
    "negative input": (_no_sizes, "has the shape"),
    "a sequence": (_sequence, "is no tensor"),
    "huge input": (_huge_input, "takes samples of"),
    "too many inputs": (_many_inputs, "has 7 inputs, where opset 17 has 2 to 3"),
    "too few inputs": (lambda m: m.graph.node[0].input.pop(), "has 1 inputs"),
    "an input left out": (lambda m: m.graph.node[0].input.__setitem__(1, ""), "leaves its input 'W' out"),
    "too many outputs": (lambda m: m.graph.node[0].output.append("more"), "has 2 outputs"),
    "an attribute of no operator": (_attribute(foo=3), "an attribute 'foo', which opset 17 does not know"),
    "an attribute twice": (lambda m: (_attribute(group=1)(m), _attribute(group=2)(m)), "an attribute twice"),
    "an attribute lacking": (lambda m: m.graph.node[2].CopyFrom(_flat("Concat", "t", "s")), "lacks the attribute"),
    "an operator that is none": (lambda m: setattr(m.graph.node[1], "op_type", "Upsample"), "of opset 17 any more"),
    "an operator of later": (lambda m: setattr(m.opset_import[0], "version", 7) or _round(m), "no operator of opset 7"),
    "imports twice": (lambda m: m.opset_import.append(helper.make_opsetid("", 13)), "own domain twice"),
    "imports twice by two names": (
        lambda m: m.opset_import.append(helper.make_opsetid("ai.onnx", 17)),
        "own domain twice",
    ),
    "imports another domain twice": (
        lambda m: m.opset_import.extend([helper.make_opsetid("a.b", 1)] * 2),
        "the domain 'a.b' twice",
    ),
    "an operator redefined": (
        lambda m: m.functions.append(helper.make_function("", "Relu", ["a"], ["b"], [], m.opset_import)),
        "defines 'Relu'",
    ),
    "a result twice": (lambda m: m.graph.output.append(m.graph.output[0]), "a result twice"),
    "an input without a name": (lambda m: m.graph.input.add().type.tensor_type.SetInParent(), "without a name"),
    "attribute of no sense": (_attribute(strides=[0, 0]), "Conv"),
    "attribute of another type": (_attribute(strides="two"), "Conv"),
    "attribute too short": (_attribute(pads=[1]), "pads"),
    "negative dilation": (_attribute(dilations=[-1, 1]), "Conv"),
    "huge padding": (_attribute(pads=[2**16] * 4), "values"),
    "attribute without a value": (_untyped_attribute, "without a value"),
    "data elsewhere": (_external, "another file"),
    "huge constant": (_huge_constant, "computed at import"),
    "huge sum of constants": (_huge_product, "computed at import"),
    "huge pad": (_huge_pad, "values"),
    "huge scale": (_huge_scale, "scales a map to"),
    "doubling": (_doubling, "values"),
}


def test_the_model_that_is_spoilt_is_sound():
    assert kinds(same(sound())) == ["Conv2d", "ReLU"]


@pytest.mark.parametrize("case", MALFORMED.values(), ids=MALFORMED)
def test_malformed_models_are_refused_in_a_sentence(case):
    change, says = case
    proto = sound()
    change(proto)
    start = time.process_time()
    tracemalloc.start()
    with pytest.raises(SnncError) as error:
        capture(proto)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert says in str(error.value)
    assert len(error.value.message) < 400
    assert error.value.hint
    assert peak < 2**26
    assert time.process_time() - start < 10


def test_a_spoilt_file_writes_nothing(tmp_path):
    proto = sound()
    _cycle(proto)
    onnx.save(proto, tmp_path / "net.onnx")
    for command in ("compile", "check", "inspect"):
        words = [command, str(tmp_path / "net.onnx")] + (
            ["-o", str(tmp_path / "net.snn")] if command == "compile" else []
        )
        said = CliRunner().invoke(main, words)
        assert said.exit_code == 1
        assert said.stderr.startswith("Error: Node 't' (Conv) reads 'y'")
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


def read(path, content):
    path.write_bytes(content)
    return capture(load_model(path))


@pytest.mark.parametrize("length", [1, 10, 100, 500, 900])
def test_truncated_files_are_refused(tmp_path, length):
    content = sound().SerializeToString()
    assert len(content) > 900
    with pytest.raises(SnncError):
        read(tmp_path / "net.onnx", content[:length])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 2000), byte=st.integers(0, 255))
def test_a_spoilt_byte_never_leads_past_the_errors_of_snnc(tmp_path, place, byte):
    content = bytearray(sound().SerializeToString())
    content[place % len(content)] = byte
    with contextlib.suppress(SnncError):
        read(tmp_path / "net.onnx", bytes(content))


def test_no_model_at_all(tmp_path):
    with pytest.raises(LoadError, match="no ONNX file"):
        read(tmp_path / "net.onnx", b"hello, this is text")


# ---- external data -------------------------------------------------------------------------------


def outside(folder, location, proto=None, **entries):
    """A model whose weights lie at `location`."""
    proto = proto or sound()
    weight(proto).ClearField("raw_data")
    weight(proto).data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        weight(proto).external_data.add(key=key, value=str(value))
    onnx.save(proto, folder / "net.onnx")
    return folder / "net.onnx"


def test_external_data_are_read(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "w.bin").write_bytes(bytes(8) + W.tobytes() + bytes(8))
    found = load_model(outside(tmp_path, "parts/w.bin", offset=8, length=W.nbytes))
    assert np.array_equal(array(weight(found)), W)
    assert kinds(same(found)) == ["Conv2d", "ReLU"]
    (tmp_path / "parts" / "w.bin").write_bytes(W.tobytes())
    assert np.array_equal(array(weight(load_model(outside(tmp_path, "parts/w.bin")))), W)


@pytest.mark.parametrize(
    "location",
    ["../w.bin", "a/../../w.bin", "/tmp/w.bin", "..\\w.bin", "C:\\w.bin", "C:/w.bin", "", "link.bin", "way/w.bin"],
)
def test_external_data_outside_the_folder_are_refused(tmp_path, location):
    (tmp_path / "w.bin").write_bytes(W.tobytes())
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    (folder / "way").symlink_to(tmp_path)
    with pytest.raises(LoadError, match="outside the model's folder"):
        load_model(outside(folder, location))


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"offset": 8}, "more than"),
        ({"offset": 2**60}, "place in its file"),
        ({"offset": -1}, "place in its file"),
        ({"length": 4}, "needs 864 bytes"),
        ({"length": "many"}, "place in its file"),
    ],
)
def test_external_data_that_do_not_fit_are_refused(tmp_path, entries, says):
    (tmp_path / "w.bin").write_bytes(W.tobytes())
    with pytest.raises(LoadError, match=says):
        load_model(outside(tmp_path, "w.bin", **entries))


def test_missing_external_data_are_named(tmp_path):
    with pytest.raises(LoadError, match=r"there is no file 'w\.bin'"):
        load_model(outside(tmp_path, "w.bin"))


def test_a_small_file_cannot_be_read_a_thousand_times(tmp_path):
    (tmp_path / "w.bin").write_bytes(W.tobytes())
    proto = sound()
    for i in range(1000):
        weights = proto.graph.initializer.add()
        weights.CopyFrom(weight(proto))
        weights.name = f"w{i}"
        weights.ClearField("raw_data")
        weights.data_location = TensorProto.EXTERNAL
        weights.external_data.add(key="location", value="w.bin")
    with pytest.raises(LoadError, match="asks for more than"):
        load_model(outside(tmp_path, "w.bin", proto))


def test_functions_of_the_model_are_named_with_what_to_do():
    proto = model("a = Relu(x) y = own.Twice(a)")
    body = helper.make_node("Add", ["v", "v"], ["r"])
    opset = [helper.make_opsetid("", 17)]
    proto.functions.append(helper.make_function("own", "Twice", ["v"], ["r"], [body], opset))
    proto.opset_import.extend([helper.make_opsetid("own", 1)])
    (found,) = blockers(proto)
    assert "inline_local_functions" in found.hint
    assert kinds(capture(onnx.inliner.inline_local_functions(proto))) == ["ReLU", "Add"]
