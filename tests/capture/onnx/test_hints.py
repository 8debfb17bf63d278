"""What each hint on an ONNX model says to do is accepted: a model that gets it, and the same as the hint has it."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import onnx.utils
import onnx.version_converter
import pytest
from onnx import helper, numpy_helper

import snnc
from snnc.capture import capture
from snnc.errors import SnncError
from tests.hints import hints
from tests.onnx_models import model

ONES, FEW = np.ones, np.array
MATRIX, MAP, BIAS = ONES((144, 3), np.float32), ONES((2, 4, 3, 3), np.float32), ONES(3, np.float32)
SCALE = {"a": ONES(4, np.float32), "b": ONES(4, np.float32), "m": ONES(4, np.float32), "v": ONES(4, np.float32)}

WRITTEN = {"i": np.ones((1, 1, 6, 6), np.int64), "u": ONES((1, 1, 6, 6), np.float32)}


def of(body, relu=True, **given):
    """A model of samples `(4, 6, 6)`, whose `h` has passed a ReLU."""
    return model(f"h = Relu(x) {body}" if relu else body, **given)


def twice(net, name="y"):
    """With another output."""
    net.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return net


def alone(net):
    """What `onnx.utils.extract_model` does, in memory."""
    net.graph.output[0].type.CopyFrom(helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, ["N", 4, 6, 6]))
    return onnx.utils.Extractor(net).extract_model(["x"], ["y"])


def versioned(opset, **more):
    net = of("y = Neg(h)", opset=13)
    net.opset_import[0].version = opset
    return net


def sparse(net):
    net.graph.sparse_initializer.append(
        helper.make_sparse_tensor(
            numpy_helper.from_array(ONES(1, np.float32), "s"), numpy_helper.from_array(FEW([0]), "i"), [4]
        )
    )
    return net


def function(net, domain):
    """With a function that is ReLU, and a call of it."""
    body = [helper.make_node("Relu", ["a"], ["b"])]
    made = helper.make_function(domain, "Mine", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    net.functions.append(made)
    if domain:
        net.opset_import.append(helper.make_opsetid(domain, 1))
        net.graph.node[-1].op_type, net.graph.node[-1].domain = "Mine", domain
    return net


def foreign():
    net = of("y = Neg(h)")
    net.graph.node[-1].domain = "com.example"
    net.opset_import.append(helper.make_opsetid("com.example", 1))
    return net


def resized(scales, **options):
    text = ", ".join(f'{k} = "{v}"' for k, v in options.items())
    return of(f"y = Resize{f'<{text}>' if text else ''}(h, , s)", s=FEW(scales, np.float32), opset=18)


def attending(values, options="", **given):
    return of(f"y = Attention{f'<{options}>' if options else ''}({values})", opset=23, **given)


def turned(places):
    """Rotary positions; those that all samples share are spread, as onnxruntime wants them."""
    spread = "d = Shape<end = 1>(x) z = Concat<axis = 0>(d, l) p = Expand(i, z) "
    angles = {"c": ONES((6, 3), np.float32), "s": ONES((6, 3), np.float32), "i": places, "l": FEW([6])}
    body = f"{spread}y = RotaryEmbedding(h, c, s, p)" if len(places) == 1 else "y = RotaryEmbedding(h, c, s, i)"
    return of(body, opset=23, **angles)


def without_input():
    net = of("y = Neg(h)")
    del net.graph.input[:]
    net.graph.initializer.append(numpy_helper.from_array(ONES((2, 4, 6, 6), np.float32), "x"))
    return net


def emitted():
    """A spiking network, as snnc writes it."""
    made = snnc.compile(plain(), 2, "data-free")
    with tempfile.TemporaryDirectory() as folder:
        return onnx.load(snnc.save(made, Path(folder) / "net.onnx"))


def plain():
    return of("y = Neg(h)")


# The hint, what gets it, and what it says to do; after that the shape of a sample where one is given.
FOLLOWED = [
    ("a constant slope", lambda: of("s = ReduceMean<axes=[2, 3]>(h) y = PRelu(h, s)"),
     lambda: of("y = PRelu(h, s)", s=ONES((4, 1, 1), np.float32))),
    ("one slope, or one for each channel", lambda: of("y = PRelu(h, s)", s=ONES((4, 6, 6), np.float32)),
     lambda: of("y = PRelu(h, s)", s=ONES((4, 1, 1), np.float32))),
    ("an odd size", lambda: of("y = LRN<size = 2>(h)"), lambda: of("y = LRN<size = 3>(h)")),
    ("one entry at a time", lambda: of("t = Transpose<perm = [1, 0, 2, 3]>(h) y = Gather(t, i)", i=FEW([0, 2])),
     lambda: of("t = Transpose<perm = [1, 0, 2, 3]>(h) y = Gather(t, i)", i=FEW(2))),
    ("dense constants of floats or integers", lambda: of('c = Constant<value_string = "a">() y = Add(h, c)'),
     lambda: of("c = Constant<value_float = 1.0>() y = Add(h, c)")),
    ("onnx.inliner.inline_local_functions", lambda: function(plain(), "mine"),
     lambda: onnx.inliner.inline_local_functions(function(plain(), "mine"))),
    ("a domain of its own", lambda: function(plain(), ""), plain),
    ("the operations of ONNX itself", foreign, plain),
    ("the first alone", lambda: of("t, m = Dropout(h) f = Cast<to = 1>(m) y = Mul(t, f)"),
     lambda: of("y = Dropout(h)")),
    ("float32 weights", lambda: of("y = MatMul(h, w)", w=ONES((6, 6), np.int64)),
     lambda: of("y = MatMul(h, w)", w=ONES((6, 6), np.float32))),
    ("with these constants computed, or smaller", lambda: of("c = Expand(o, n) d = ReduceSum(c) y = Add(h, d)",
     o=ONES(1, np.float32), n=FEW([2**26])), lambda: of("y = Add(h, d)", d=FEW(2.0**26, np.float32))),
    ("with constant folding", lambda: of("c = Dropout(w) y = Add(h, c)", w=ONES(6, np.float32)),
     lambda: of("y = Add(h, c)", c=ONES(6, np.float32))),
    ("samples of shape 4,6,6", plain, plain, (4, 7, 7), (4, 6, 6)),
    ("pass --input-shape", lambda: of("y = Neg(h)", x="N,4,H,W"), lambda: of("y = Neg(h)", x="N,4,H,W"), None,
     (4, 6, 6)),
    ("with their channels in front if you like", lambda: of("y = Neg(h)", x="N,6,7,4"),
     lambda: of("y = Neg(h)", x="N,6,7,4"),
     (4, 7, 6), (4, 6, 7)),
    ("for smaller samples", lambda: of("y = Neg(h)", x="N,1000000,1000000"), plain),
    ("samples hold values", lambda: of("y = Neg(h)", x="N,0"), plain),
    ("whose first dimension is the batch", lambda: of("y = Neg(h)", x="N"), lambda: of("y = Neg(h)", x="N,3")),
    ("with float input", lambda: of("f = Cast<to = 1>(x) y = Relu(f)", relu=False, kind="int64"), plain),
    ("one of the two", lambda: of('y = Conv<auto_pad = "SAME_UPPER", pads = [1, 1, 1, 1]>(h, w)', w=MAP),
     lambda: of('y = Conv<auto_pad = "SAME_UPPER">(h, w)', w=MAP)),
    ("with pads as numbers", lambda: of('y = Conv<auto_pad = "ODD">(h, w)', w=MAP),
     lambda: of("y = Conv<pads = [1, 1, 1, 1]>(h, w)", w=MAP)),
    ("with pads as numbers",
     lambda: of('y = MaxPool<auto_pad = "SAME_UPPER", kernel_shape = [2, 2], dilations = [2, 2]>(h)'),
     lambda: of("y = MaxPool<pads = [1, 1, 1, 1], kernel_shape = [2, 2], dilations = [2, 2]>(h)")),
    ("with pads as numbers",
     lambda: of('y = AveragePool<auto_pad = "SAME_UPPER", kernel_shape = [2, 2], dilations = [2, 2]>(h)', opset=19),
     lambda: of("y = AveragePool<pads = [1, 1, 1, 1], kernel_shape = [2, 2], dilations = [2, 2]>(h)", opset=19)),
    ("weights as initialisers", lambda: of("f = Flatten(h) y = Gemm<transB = 1>(f, f)"),
     lambda: of("f = Flatten(h) y = Gemm(f, w)", w=MATRIX)),
    ("without transA", lambda: of("f = Flatten(h) y = Gemm<transA = 1>(f, w)", w=MATRIX),
     lambda: of("f = Flatten(h) y = Gemm(f, w)", w=MATRIX)),
    ("flatten before the layer", lambda: of("y = Gemm(h, w)", w=MATRIX),
     lambda: of("f = Flatten(h) y = Gemm(f, w)", w=MATRIX)),
    ("one number for each output", lambda: of("f = Flatten(h) y = Gemm(f, w, c)", w=MATRIX, c=ONES((2, 3), np.float32)),
     lambda: of("f = Flatten(h) y = Gemm(f, w, c)", w=MATRIX, c=BIAS)),
    ("one constant for each channel",
     lambda: of("y = BatchNormalization(h, a, b, m, v)", **SCALE | {"a": ONES((4, 1), np.float32)}),
     lambda: of("y = BatchNormalization(h, a, b, m, v)", **SCALE)),
    ("pads smaller than the window", lambda: of("y = MaxPool<kernel_shape = [2, 2], pads = [2, 2, 2, 2]>(h)"),
     lambda: of("y = MaxPool<kernel_shape = [2, 2], pads = [1, 1, 1, 1]>(h)")),
    ("pads in place of output_shape",
     lambda: of("y = ConvTranspose<output_shape = [99, 99]>(h, w)", w=ONES((4, 2, 3, 3), np.float32)),
     lambda: of("y = ConvTranspose<pads = [1, 1, 1, 1]>(h, w)", w=ONES((4, 2, 3, 3), np.float32))),
    ("onnx.checker.check_model", lambda: of("y = Reshape(h, s)", s=FEW([0, 0, 0, 0, 0])),
     lambda: of("y = Reshape(h, s)", s=FEW([0, 0, 0, 0]))),
    ("onnx.checker.check_model", lambda: of("y = Neg(z)"), plain),
    ("a smaller network", lambda: of(" ".join(f"a{i} = Neg(h)" for i in range(100_001)) + " y = Neg(h)"), plain),
    ("dense ones", lambda: sparse(plain()), plain),
    ("onnx.version_converter", lambda: versioned(6), lambda: onnx.version_converter.convert_version(versioned(6), 13)),
    ("or export it for an older opset", lambda: versioned(99), lambda: versioned(17)),
    ("keep data in floating point", lambda: of("c = Cast<to = 7>(h) y = Cast<to = 1>(c)"),
     lambda: of("c = Cast<to = 1>(h) y = Neg(c)")),
    ("keep data in floating point", lambda: of("y = CastLike(h, i)", i=FEW([1])),
     lambda: of("y = CastLike(h, i)", i=BIAS)),
    ("flatten before it", lambda: of("y = Softmax<axis = 1>(h)", opset=11),
     lambda: of("f = Flatten(h) y = Softmax<axis = 1>(f)", opset=11)),
    ("the batch as the first dimension", lambda: of("y = Reshape(h, s)", s=np.zeros(0, np.int64)),
     lambda: of("y = Reshape(h, s)", s=FEW([0, -1]))),
    ("name the axes, or leave them out", lambda: of("y = Squeeze(h, s)", s=np.zeros(0, np.int64)),
     lambda: of("y = Squeeze(h)", x="N,4,1,6")),
    ("name the axes", lambda: of("y = Squeeze(h)", x="1,4,1,6"),
     lambda: of("y = Squeeze(h, s)", x="1,4,1,6", s=FEW([2]))),
    ("or by constants",
     lambda: of("n = ReduceMean<axes = [1, 2, 3], keepdims = 0>(h) i = Cast<to = 7>(n) y = Gather<axis = 1>(h, i)"),
     lambda: of("y = Gather<axis = 1>(h, i)", i=FEW([0, 2]))),
    ("maps of height and width",
     lambda: of("f = Flatten(h) u = Unsqueeze(f, a) y = Col2Im(u, s, b)", a=FEW([2]), s=FEW([1]), b=FEW([1]), opset=18),
     lambda: of("r = Reshape(h, n) y = Col2Im(r, s, b)", n=FEW([0, 4, 36]), s=FEW([6, 6]), b=FEW([1, 1]), opset=18)),
    ("alike on both sides",
     lambda: of("r = Reshape(h, n) y = Col2Im<pads = [0, 0, 1, 1]>(r, s, b)", n=FEW([0, 4, 36]), s=FEW([7, 7]),
     b=FEW([1, 1]), opset=18),
     lambda: of("r = Reshape(h, n) y = Col2Im(r, s, b)", n=FEW([0, 4, 36]), s=FEW([6, 6]), b=FEW([1, 1]), opset=18)),
    ("pad dimension 1 or higher", lambda: of("y = Pad(h, p)", p=FEW([1, 0, 0, 0, 0, 0, 0, 0])),
     lambda: of("y = Pad(h, p)", p=FEW([0, 1, 0, 0, 0, 0, 0, 0]))),
    ("mode constant, reflect or edge", lambda: of('y = Pad<mode = "odd">(h, p)', p=FEW([0] * 7 + [1])),
     lambda: of('y = Pad<mode = "edge">(h, p)', p=FEW([0] * 7 + [1]))),
    ("crop it by a Slice before", lambda: of('y = Pad<mode = "edge">(h, p)', p=FEW([0] * 7 + [-1])),
     lambda: of("y = Slice(h, s, e, a)", s=FEW([0]), e=FEW([5]), a=FEW([3]))),
    ("keep the whole batch", lambda: of("y = Slice(h, s, e)", s=FEW([1]), e=FEW([2])),
     lambda: of("y = Slice(h, s, e)", s=FEW([0]), e=FEW([2**31]))),
    ("by constant factors",
     lambda: of('y = Resize<keep_aspect_ratio_policy = "not_larger">(h, , , s)', s=FEW([1, 4, 9, 12]), opset=18),
     lambda: resized([1, 1, 2, 2])),
    ("with constant scales",
     lambda: of("s = ReduceMean<axes = [1, 2, 3], keepdims = 0>(h) y = Upsample(h, s)", opset=9),
     lambda: of("y = Upsample(h, s)", s=FEW([1, 1, 2, 2], np.float32), opset=9)),
    ("scale maps alone", lambda: resized([1, 2, 1, 1]), lambda: resized([1, 1, 2, 1])),
    ("check its scales", lambda: resized([1, 1, 1e7, 1e7]), lambda: resized([1, 1, 2, 2])),
    ("half_pixel and nearest_mode floor",
     lambda: resized([1, 1, 1.5, 1.5], coordinate_transformation_mode="tf_crop_and_resize"),
     lambda: resized([1, 1, 1.5, 1.5], coordinate_transformation_mode="half_pixel", nearest_mode="floor")),
    ("with opset 11 or newer",
     lambda: of('y = Upsample<mode = "linear">(h, s)', s=FEW([1, 1, 2, 2], np.float32), opset=9),
     lambda: resized([1, 1, 2, 2], mode="linear")),
    ("mode nearest, linear or cubic", lambda: resized([1, 1, 2, 2], mode="odd"),
     lambda: resized([1, 1, 2, 2], mode="cubic")),
    ("reduction none",
     lambda: of('y = ScatterElements<axis = 1, reduction = "add">(h, i, u)', x="1,4,6,6", **WRITTEN, opset=18),
     lambda: of("y = ScatterElements<axis = 1>(h, i, u)", x="1,4,6,6", **WRITTEN, opset=18)),
    ("export it without that",
     lambda: of("y = Resize<antialias = 1>(h, , s)", s=FEW([1, 1, 2, 2], np.float32), opset=18),
     lambda: resized([1, 1, 2, 2])),
    ("with constant shapes",
     lambda: of("m = ReduceMean<axes = [1, 2, 3], keepdims = 0>(h) s = Cast<to = 7>(m) y = Reshape(h, s)"),
     lambda: of("y = Reshape(h, s)", s=FEW([0, -1]))),
    ("with constants in its place",
     lambda: of("m = ReduceMean<axes = [1, 2, 3], keepdims = 0>(h) y = Pad(h, p, m)", p=FEW([0] * 7 + [1])),
     lambda: of("y = Pad(h, p, m)", p=FEW([0] * 7 + [1]), m=FEW(0, np.float32))),
    ("maps of 1 to 3 dimensions", lambda: of("f = Flatten(h) y = MaxPool<kernel_shape = [2]>(f)"),
     lambda: of("y = MaxPool<kernel_shape = [2, 2]>(h)")),
    ("a network that takes one tensor", without_input, plain),
    ("the network it was made from", emitted, plain),
    ("pad both sides alike", lambda: of("y = MaxPool<kernel_shape = [3, 3], pads = [0, 0, 2, 2]>(h)"),
     lambda: of("y = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(h)")),
    ("all from the input", lambda: attending("m, h, h", m=ONES((1, 4, 6, 6), np.float32)),
     lambda: attending("h, h, h")),
    ("softcap = 0", lambda: attending("h, h, h", "softcap = 2.0"), lambda: attending("h, h, h", "softcap = 0.0")),
    ("softmax_precision left out", lambda: attending("h, h, h", "softmax_precision = 10"),
     lambda: attending("h, h, h")),
    ("with a mask that holds both", lambda: attending("h, h, h, h", "is_causal = 1"),
     lambda: attending("h, h, h, m", m=FEW(np.tril(np.ones((6, 6))), bool))),
    ("export it without a cache", lambda: attending("h, h, h, , h, h"), lambda: attending("h, h, h")),
    ("that constant left out",
     lambda: of("n = Shape<end = 1>(x) s = Concat<axis = 0>(n, z) o = ConstantOfShape(s) e = CastLike(o, h) "
                "y = Concat<axis = 1>(e, h)", z=FEW([0, 6, 6])), plain),
    ("positions that all samples share", lambda: turned(np.zeros((2, 6), np.int64)),
     lambda: turned(np.arange(6)[None])),
    ("constant angles and positions", lambda: of("y = RotaryEmbedding(h, h, h)", opset=23),
     lambda: turned(np.arange(6)[None])),
    ("replace it by one that it knows", lambda: of("y = Shrink(h)"), lambda: of("y = Gelu(h)", opset=20)),
    ("import the float network that it was quantised from",
     lambda: of("q = QuantizeLinear(h, s, z) y = DequantizeLinear(q, s, z)", s=FEW(0.5, np.float32), z=FEW(0,
     np.uint8)), plain),
]  # fmt: skip


def told(net, shape=None):
    """What is said of a model."""
    try:
        capture(net, shape)
    except SnncError as error:
        return [error.hint, *(b.hint for b in getattr(error, "blockers", ()))]
    return []


@pytest.mark.parametrize("case", range(len(FOLLOWED)), ids=[f"{i} {row[0]}" for i, row in enumerate(FOLLOWED)])
def test_what_a_hint_says(case):
    words, before, after, *shapes = FOLLOWED[case]
    assert any(words in hint for hint in told(before(), *shapes[:1])), told(before(), *shapes[:1])
    assert told(after(), *shapes[1:]) == []


# Hints that another test follows: the file and the test.
ELSEWHERE = {}


def test_every_hint_is_followed():
    found = {h.text for h in hints() if h.file.startswith("capture/onnx/")}
    left = {text for text in found if not any(row[0] in text.replace("{}", "4,6,6") for row in FOLLOWED)}
    assert left == set(ELSEWHERE)
    for file, test in (where.split("::") for where in ELSEWHERE.values()):
        assert f"def {test}(" in (Path(__file__).parent / file).read_text(encoding="utf-8"), test
