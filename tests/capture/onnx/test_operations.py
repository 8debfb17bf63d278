"""Every operation of an ONNX model gives what onnxruntime computes, to the bit, in each version that spells it anew."""

import numpy as np
import pytest
import torch
from onnx import TensorProto, defs
from onnx.reference import ReferenceEvaluator

from snnc.capture import blockers, capture
from tests.onnx_models import dyadic, kinds, model, reference, retyped, same

W = dyadic(6, 4, 3, 3)
V = dyadic(6)
IDS = np.array([2, 3], dtype=np.int64)


def ints(*values):
    return np.array(values, dtype=np.int64)


# body (after a ReLU), the modules that it becomes, and what else `model` takes.
CASES = {
    # convolutions
    "conv": ("y = Conv<pads=[1,1,1,1]>(a, w, b)", ["Conv2d"], {"w": W, "b": V}),
    "conv strided": ("y = Conv<strides=[2,1], dilations=[1,2]>(a, w)", ["Conv2d"], {"w": W}),
    "conv grouped": ("y = Conv<group=2>(a, w)", ["Conv2d"], {"w": dyadic(6, 2, 3, 3)}),
    "conv lopsided": ("y = Conv<pads=[0,1,2,1]>(a, w)", ["Pad", "Conv2d"], {"w": W}),
    "conv valid": ('y = Conv<auto_pad="VALID">(a, w)', ["Conv2d"], {"w": W}),
    "conv same": ('y = Conv<auto_pad="SAME_UPPER">(a, w)', ["Conv2d"], {"w": W}),
    "conv same upper": ('y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(a, w)', ["Pad", "Conv2d"], {"w": W}),
    "conv same lower": ('y = Conv<auto_pad="SAME_LOWER", strides=[2,2]>(a, w)', ["Pad", "Conv2d"], {"w": W}),
    "conv1d": ("y = Conv(a, w)", ["Conv1d"], {"x": "N,4,9", "w": dyadic(5, 4, 3)}),
    "conv3d": ("y = Conv<pads=[1,1,1,1,1,1]>(a, w)", ["Conv3d"], {"x": "N,2,4,4,4", "w": dyadic(3, 2, 3, 3, 3)}),
    "conv then bias": ("t = Conv(a, w) y = Add(t, b)", ["Conv2d"], {"w": W, "b": V.reshape(6, 1, 1)}),
    "transposed": ("y = ConvTranspose<strides=[2,2]>(a, w, b)", ["ConvTranspose2d"], {"w": dyadic(4, 6, 3, 3), "b": V}),
    "transposed padded": (
        "y = ConvTranspose<strides=[2,2], pads=[1,1,1,1], output_padding=[1,1], group=2>(a, w)",
        ["ConvTranspose2d"],
        {"w": dyadic(4, 3, 3, 3)},
    ),
    "transposed lopsided": (
        "y = ConvTranspose<strides=[2,2], pads=[0,1,1,0]>(a, w)", ["ConvTranspose2d", "Slice"],
        {"w": dyadic(4, 3, 3, 3)},
    ),
    "transposed to a shape": (
        "y = ConvTranspose<strides=[2,2], output_shape=[12,12]>(a, w)",
        ["ConvTranspose2d", "Slice"],
        {"w": dyadic(4, 3, 3, 3)},
    ),
    "transposed same": (
        'y = ConvTranspose<strides=[2,2], auto_pad="SAME_UPPER">(a, w)',
        ["ConvTranspose2d", "Slice"],
        {"w": dyadic(4, 3, 3, 3)},
    ),
    "transposed same with more": (
        'y = ConvTranspose<strides=[3,3], auto_pad="SAME_LOWER", output_padding=[1,0]>(a, w)',
        ["ConvTranspose2d", "Slice"],
        {"w": dyadic(4, 3, 4, 4)},
    ),
    # products
    "gemm": ("y = Gemm<transB=1>(a, w, b)", ["Linear"], {"x": "N,4", "w": dyadic(6, 4), "b": V}),
    "gemm scaled": (
        "y = Gemm<alpha=0.5, beta=2.0>(a, w, b)", ["Linear"], {"x": "N,4", "w": dyadic(4, 6), "b": V[None]},
    ),
    "gemm one bias": ("y = Gemm(a, w, b)", ["Linear"], {"x": "N,4", "w": dyadic(4, 6), "b": V[:1]}),
    "gemm bare": ("y = Gemm(a, w)", ["Linear"], {"x": "N,4", "w": dyadic(4, 6)}),
    "matmul": ("y = MatMul(a, w)", ["Linear"], {"w": dyadic(6, 3)}),
    "matmul and bias": ("t = MatMul(a, w) y = Add(b, t)", ["Linear"], {"x": "N,4", "w": dyadic(4, 6), "b": V}),
    "matmul of three": ("y = MatMul(a, w)", ["Linear"], {"x": "N,3,4", "w": dyadic(1, 4, 6)}),
    # normalisation, with variances that are powers of four
    "norm": (
        "y = BatchNormalization<epsilon=1e-30>(a, s, b, m, v)",
        ["BatchNorm2d"],
        {"s": dyadic(4), "b": V[:4], "m": dyadic(4, seed=2), "v": np.array([1, 4, 0.25, 1], np.float32)},
    ),
    # pools
    "max": ("y = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a)", ["MaxPool2d"], {}),
    "max overlapping": ("y = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(a)", ["MaxPool2d"], {}),
    "max dilated": ("y = MaxPool<kernel_shape=[2,2], dilations=[2,2]>(a)", ["MaxPool2d"], {}),
    "max ceil": ("y = MaxPool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>(a)", ["MaxPool2d"], {}),
    "max same": ('y = MaxPool<kernel_shape=[3,3], strides=[2,2], auto_pad="SAME_UPPER">(a)', ["MaxPool2d"], {}),
    "max same lower": ('y = MaxPool<kernel_shape=[3,3], strides=[2,2], auto_pad="SAME_LOWER">(a)', ["MaxPool2d"], {}),
    "max behind": ("y = MaxPool<kernel_shape=[2,2], pads=[0,0,1,1]>(a)", ["MaxPool2d", "Slice"], {}),
    "max in front": ("y = MaxPool<kernel_shape=[2,2], pads=[1,1,0,0]>(a)", ["MaxPool2d", "Slice"], {}),
    "max1d": ("y = MaxPool<kernel_shape=[2]>(a)", ["MaxPool1d"], {"x": "N,4,9"}),
    "mean": ("y = AveragePool<kernel_shape=[2,2], strides=[2,2]>(a)", ["AvgPool2d"], {}),
    "mean padded": ("y = AveragePool<kernel_shape=[2,2], pads=[1,1,1,1]>(a)", ["AvgPool2d"], {}),
    "mean counted": ("y = AveragePool<kernel_shape=[2,2], pads=[1,1,1,1], count_include_pad=1>(a)", ["AvgPool2d"], {}),
    "mean lopsided": ("y = AveragePool<kernel_shape=[2,2], pads=[0,0,1,1]>(a)", ["AvgPool2d", "Slice"], {}),
    "mean lopsided counted": (
        "y = AveragePool<kernel_shape=[2,2], pads=[0,0,1,1], count_include_pad=1>(a)", ["Pad", "AvgPool2d"], {},
    ),
    "mean same": ('y = AveragePool<kernel_shape=[2,2], auto_pad="SAME_UPPER">(a)', ["AvgPool2d", "Slice"], {}),
    "mean of the map": ("y = GlobalAveragePool(a)", ["AdaptiveAvgPool2d"], {"x": "N,3,4,4"}),
    "mean of the whole window": ("y = AveragePool<kernel_shape=[4,4]>(a)", ["AdaptiveAvgPool2d"], {"x": "N,3,4,4"}),
    "max of the map": ("y = GlobalMaxPool(a)", ["AdaptiveMaxPool2d"], {}),
    "reduced": ("y = ReduceMean<axes=[2,3]>(a)", ["AdaptiveAvgPool2d"], {"x": "N,3,4,4"}),
    "reduced flat": ("y = ReduceMean<axes=[-1,-2], keepdims=0>(a)", ["AdaptiveAvgPool2d", "Flatten"], {"x": "N,3,4,4"}),
    "reduced by input": ("y = ReduceMean(a, i)", ["AdaptiveAvgPool2d"], {"x": "N,3,4,4", "i": IDS, "opset": 18}),
    "summed": ("y = ReduceSum<axes=[2,3]>(a)", ["AdaptiveAvgPool2d", "Affine"], {"x": "N,3,4,4", "opset": 11}),
    "summed by input": ("y = ReduceSum(a, i)", ["AdaptiveAvgPool2d", "Affine"], {"x": "N,3,4,4", "i": IDS}),
    "matrix first": ("y = MatMul(w, a)", ["Permute", "Linear", "Permute"], {"x": "N,3,4", "w": dyadic(5, 3)}),
    "reduced channels": ("y = ReduceMean<axes=[1]>(a)", ["Mean"], {}),
    "largest": ("y = ReduceMax<axes=[2,3], keepdims=0>(a)", ["AdaptiveMaxPool2d", "Flatten"], {}),
    "reshape beside the batch": (
        "t = Transpose<perm=[1,0,2]>(a) q = Reshape<allowzero=1>(t, s) y = Transpose<perm=[1,0,2,3]>(q)",
        ["Reshape"],
        {"x": "N,3,4", "s": ints(3, -1, 2, 2)},
    ),
    # activations
    "clip": ("y = Clip(x, l, h)", ["Hardtanh"], {"l": np.float32(0), "h": np.float32(1.5)}),
    "clip below": ("y = Clip(x, l)", ["ReLU"], {"l": np.float32(0)}),
    "clip attributes": ("y = Clip<min=0.0, max=1.5>(x)", ["Hardtanh"], {"opset": 10}),
    "clip attribute": ("y = Clip<min=0.0>(x)", ["ReLU"], {"opset": 10}),
    "max and min": ("t = Max(x, l) y = Min(t, h)", ["Hardtanh"], {"l": np.float32(0), "h": np.float32(1.5)}),
    "quantised": (
        "c = Clip(x, l, h) s = Mul(c, n) f = Floor(s) y = Div(f, n)",
        ["ClipQuant"],
        {"l": np.float32(0), "h": np.float32(1), "n": np.float32(8)},
    ),
    "rounded": (
        "c = Clip(x, l, h) s = Mul(c, n) t = Add(s, k) f = Floor(t) y = Div(f, n)",
        ["ClipQuant"],
        {"l": np.float32(0), "h": np.float32(1), "n": np.float32(8), "k": np.float32(0.5)},
    ),
    # arithmetic
    "add": ("t = MaxPool<kernel_shape=[1,1]>(a) y = Add(a, t)", ["MaxPool2d", "Add"], {}),
    "sub": ("t = MaxPool<kernel_shape=[1,1]>(a) y = Sub(t, a)", ["MaxPool2d", "Sub"], {}),
    "sum": ("y = Sum(a, a, a)", ["Add", "Add"], {}),
    "mean of two": ("y = Mean(a, a)", ["Add", "Affine"], {}),
    "scale": ("y = Mul(a, s)", ["Affine"], {"s": dyadic(1, 4, 1, 1)}),
    "from a constant": ("y = Sub(s, a)", ["Affine"], {"s": np.float32(1.5)}),
    "quotient": ("y = Div(a, s)", ["Affine"], {"s": np.float32(4)}),
    "negative": ("y = Neg(a)", ["Affine"], {}),
    # routes
    "flatten": ("y = Flatten(a)", ["Flatten"], {}),
    "flatten from behind": ("y = Flatten<axis=-3>(a)", ["Flatten"], {}),
    "reshape": ("y = Reshape(a, s)", ["Reshape"], {"s": ints(0, 2, -1)}),
    "reshape open batch": ("y = Reshape(a, s)", ["Flatten"], {"s": ints(-1, 144)}),
    "reshape by shape": ("s = Shape(a) y = Reshape(a, s)", [], {}),
    "reshape by arithmetic": (
        "s = Shape(a) n = Gather<axis=0>(s, i) u = Unsqueeze(n, j) t = Concat<axis=0>(u, m) y = Reshape(a, t)",
        ["Flatten"],
        {"i": np.int64(0), "j": ints(0), "m": ints(-1)},
    ),
    "squeeze": ("t = GlobalMaxPool(a) y = Squeeze<axes=[2,3]>(t)", ["AdaptiveMaxPool2d", "Flatten"], {"opset": 11}),
    "squeeze by input": ("t = GlobalMaxPool(a) y = Squeeze(t, i)", ["AdaptiveMaxPool2d", "Flatten"], {"i": IDS}),
    "unsqueeze": ("y = Unsqueeze<axes=[1,-1]>(a)", ["Reshape"], {"opset": 11}),
    "unsqueeze by input": ("y = Unsqueeze(a, i)", ["Reshape"], {"i": IDS}),
    "transpose": ("y = Transpose<perm=[0,2,3,1]>(a)", ["Permute"], {}),
    "transpose twice": ("t = Transpose<perm=[0,2,3,1]>(a) y = Transpose<perm=[0,3,1,2]>(t)", [], {}),
    "concat": ("y = Concat<axis=1>(a, a)", ["Concat"], {}),
    "concat zeros": (
        "s = Shape(a) z = ConstantOfShape(s) y = Concat<axis=1>(a, z)", ["Pad"], {},
    ),
    "split": ("t, u = Split<axis=1>(a) y = Sub(t, u)", ["Slice", "Slice", "Sub"], {"opset": 13}),
    "split attribute": ("t, y = Split<axis=1, split=[1,3]>(a)", ["Slice"], {"opset": 11}),
    "split input": ("t, y = Split<axis=1>(a, s)", ["Slice"], {"s": ints(1, 3)}),
    "split outputs": ("t, y = Split<axis=1, num_outputs=2>(a)", ["Slice"], {"opset": 18}),
    "slice": (
        "y = Slice(a, s, e, i, t)", ["Slice"],
        {"s": ints(1, -4), "e": ints(3, 2**62), "i": ints(1, 2), "t": ints(1, 2)},
    ),
    "slice attributes": ("y = Slice<starts=[1,0], ends=[3,-1], axes=[1,3]>(a)", ["Slice"], {"opset": 9}),
    "gather one": ("y = Gather<axis=1>(a, i)", ["Slice", "Reshape"], {"i": np.int64(-2)}),
    "gather some": ("y = Gather<axis=1>(a, i)", ["Slice"], {"i": ints(0, 2)}),
    "expand": ("s = Shape(a) y = Expand(a, s)", [], {}),
    "pad": ("y = Pad(a, p, v)", ["Pad"], {"p": ints(0, 0, 1, 0, 0, 1, 0, 2), "v": np.float32(0.5)}),
    "pad attributes": ("y = Pad<pads=[0,0,1,0,0,1,0,2], value=0.5>(a)", ["Pad"], {"opset": 10}),
    "pad axes": ("y = Pad(a, p, , i)", ["Pad"], {"p": ints(1, 0, 2, 0), "i": IDS, "opset": 18}),
    "pad mirrored": ('y = Pad<mode="reflect">(a, p)', ["Pad"], {"p": ints(0, 0, 1, 0, 0, 0, 1, 2)}),
    "pad edge": ('y = Pad<mode="edge">(a, p)', ["Pad"], {"p": ints(0, 0, 1, 0, 0, 0, 1, 2)}),
    "pixels": ('y = DepthToSpace<blocksize=2, mode="CRD">(a)', ["PixelShuffle"], {}),
    "pixels by depth": ("y = DepthToSpace<blocksize=2>(a)", ["Reshape", "Permute", "Reshape"], {"x": "N,8,3,3"}),
    "depth": ("y = SpaceToDepth<blocksize=2>(a)", ["Reshape", "Permute", "Reshape"], {}),
    "max of channels": ("y = Max(x, l)", ["ReLU"], {"l": np.zeros((4, 1, 1), np.float32)}),
    "constant like data": ("c = CastLike(k, a) d = Neg(c) y = Add(a, d)", ["Affine"], {"k": np.int64(3)}),
    "kernel told": ("y = Conv<kernel_shape=[3,3]>(a, w)", ["Conv2d"], {"w": W}),
    "reduced with a flag of no effect": (
        "y = ReduceMean<noop_with_empty_axes=1>(a, i)", ["AdaptiveAvgPool2d"], {"x": "N,3,4,4", "i": IDS, "opset": 18},
    ),
    # scaling maps
    "upsample 7": ("y = Upsample<scales=[1.0,1.0,2.0,3.0]>(a)", ["Upsample"], {"opset": 7}),
    "upsample 9": ("y = Upsample(a, s)", ["Upsample"], {"opset": 9, "s": np.float32([1, 1, 2, 2])}),
    "resize 10": ("y = Resize(a, s)", ["Upsample"], {"opset": 10, "s": np.float32([1, 1, 2, 1])}),
    "resize": ("y = Resize(a, , s)", ["Upsample"], {"s": np.float32([1, 1, 2, 2])}),
    "resize by half": (
        'y = Resize<coordinate_transformation_mode="asymmetric", nearest_mode="floor">(a, , s)',
        ["Upsample"],
        {"s": np.float32([1, 1, 1.5, 1.5])},
    ),
    "resize to": (
        'y = Resize<coordinate_transformation_mode="asymmetric", nearest_mode="floor">(a, , , s)',
        ["Upsample"],
        {"s": ints(3, 4, 9, 9), "x": "3,4,6,6"},
    ),
    "resize up": (
        'y = Resize<nearest_mode="ceil">(a, , s)', ["Take", "Take"], {"s": np.float32([1, 1, 1.5, 1.5])},
    ),
    "resize linear": ('y = Resize<mode="linear">(a, , s)', ["Mix", "Mix"], {"s": np.float32([1, 1, 2, 2])}),
    "resize cubic": (
        'y = Resize<mode="cubic", cubic_coeff_a=-0.5, exclude_outside=0>(a, , s)',
        ["Mix"],
        {"s": np.float32([1, 1, 2, 1])},
    ),
    "resize by corners": (
        'y = Resize<mode="linear", coordinate_transformation_mode="align_corners">(a, , , s)',
        ["Mix", "Mix"],
        {"s": ints(3, 4, 11, 21), "x": "3,4,6,6"},
    ),
    "triangle": ("y = Trilu(a, k)", ["Affine"], {"k": np.int64(1)}),
    "other triangle": ("y = Trilu<upper=0>(a)", ["Affine"], {}),
    "sums": ("y = CumSum(a, i)", ["Mix"], {"i": np.int64(2)}),
    "sums before": ("y = CumSum<exclusive=1>(a, i)", ["Mix"], {"i": np.int64(-1)}),
    "sums from the back": ("y = CumSum<reverse=1>(a, i)", ["Mix"], {"i": np.int64(1)}),
    "mean with gaps": (
        "y = AveragePool<kernel_shape=[2,2], strides=[2,1], dilations=[2,3], pads=[1,1,1,0], count_include_pad=1>(a)",
        ["Mix", "Mix"],
        {"opset": 19},
    ),
    "mean with gaps, counted": (
        "y = AveragePool<kernel_shape=[2,2], dilations=[2,2], pads=[1,1,1,1]>(a)", ["Mix", "Mix"], {"opset": 19},
    ),
    # picking
    "backwards": (
        "y = Slice(a, s, e, i, t)", ["Take"], {"s": ints(-1), "e": ints(-9), "i": ints(1), "t": ints(-1)},
    ),
    "shuffled": ("y = Gather<axis=1>(a, i)", ["Take"], {"i": ints(1, 0, -1)}),
    "shuffled in rows": (
        "y = Gather<axis=3>(a, i)", ["Take", "Reshape"], {"i": np.int64([[0, 1], [1, 2], [2, 3]])},
    ),
    "tiled": ("y = Tile(a, n)", ["Take", "Take"], {"n": ints(1, 2, 1, 3)}),
    "spread": ("t = GlobalAveragePool(a) y = Expand(t, s)", ["AdaptiveAvgPool2d", "Take", "Take"], {"s": ints(5, 6)}),
    "written from the end": (
        "d = Shape<end=1>(a) z = Concat<axis=0>(d, l) p = Expand(i, z) u = Expand(v, z) "
        "y = ScatterElements<axis=1>(a, p, u)", ["Take", "Affine"],
        {"x": "N,5", "i": ints([-3, 1]), "v": np.float32([[2, 4]]), "l": ints(2)},
    ),
    "columns": (
        "y = Col2Im<pads=[1,0,1,0], strides=[2,1]>(a, s, k)",
        ["Reshape", "ConvTranspose2d"],
        {"x": "N,8,18", "s": ints(5, 7), "k": ints(2, 2), "opset": 18},
    ),
    # nothing
    "identity": ("t = Identity(a) y = Dropout(t)", [], {}),
    "dropout attribute": ("y = Dropout<ratio=0.5>(a)", [], {"opset": 10}),
    "cast": ("t = Cast<to=11>(a) y = Cast<to=1>(t)", [], {}),
    "constant": ("c = Constant<value_float=0.5>() y = Mul(a, c)", ["Affine"], {}),
    "constant tensor": ("c = Constant<value=float[1] {0.5}>() y = Mul(a, c)", ["Affine"], {}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_operations(case):
    """What reads `a` sees both signs; what reads `x` is an activation itself."""
    body, expected, options = case
    before = "" if "(x" in body else "r = Relu(x) h = Constant<value=float {0.5}>() a = Sub(r, h) "
    graph = same(model(before + body, **options))
    assert kinds(graph) == [*(["ReLU", "Affine"] if before else []), *expected]


@pytest.mark.parametrize(
    ("body", "opset", "kind", "dim"),
    [
        ("y = Softmax(a)", 13, "Softmax", 3),
        ("y = Softmax<axis=1>(a)", 17, "Softmax", 1),
        ("y = LogSoftmax<axis=-2>(a)", 17, "LogSoftmax", 2),
        ("t = GlobalMaxPool(a) y = Softmax(t)", 12, "Softmax", 1),
        ("t = Flatten(a) y = LogSoftmax(t)", 9, "LogSoftmax", 1),
        ("y = Softmax<axis=3>(a)", 11, "Softmax", 3),
    ],
)
def test_heads(body, opset, kind, dim):
    proto = model(f"a = Relu(x) {body}", opset=opset)
    graph, x = capture(proto), dyadic(3, 4, 6, 6)
    (head,) = [m for m in graph.children() if type(m).__name__ == kind]
    assert head.dim == dim
    with torch.no_grad():
        np.testing.assert_allclose(graph(torch.tensor(x)).numpy(), reference(proto, x), rtol=1e-5, atol=1e-6)


# body, the node that is named, its operation, and part of the reason or the hint.
REFUSED = {
    "quantised": (
        "a = Relu(x) q = QuantizeLinear(a, s, z) y = DequantizeLinear(q, s, z)", "QuantizeLinear", "float network",
        {"s": np.float32(0.5), "z": np.uint8(0)},
    ),
    "loop": ("a = Relu(x) y = Scan(a)", "Scan", "loops", {}),
    "custom": ("a = Relu(x) y = com.acme.Fancy(a)", "com.acme.Fancy", "com.acme", {}),
    "weights from data": ("a = Relu(x) y = Conv(a, a)", "Conv", "parameters or buffers", {}),
    "sum of all": ("a = Relu(x) y = ReduceSum<keepdims=0>(a)", "ReduceSum", "batch", {}),
    "batch mean": ("a = Relu(x) y = ReduceMean<axes=[0]>(a)", "ReduceMean", "batch", {}),
    "mean of all": ("a = Relu(x) y = ReduceMean(a)", "ReduceMean", "batch", {}),
    "batch moved": ("a = Relu(x) y = Transpose<perm=[1,0,2,3]>(a)", "output", "batch", {}),
    "batch flattened": ("a = Relu(x) y = Flatten<axis=2>(a)", "output", "batch", {}),
    "batch sliced": ("a = Relu(x) y = Slice(a, s, e)", "Slice", "samples", {"s": ints(0), "e": ints(2)}),
    "batch picked": ("a = Relu(x) y = Gather(a, i)", "Gather", "batch", {"i": np.int64(0)}),
    "batch fixed": ("a = Relu(x) y = Reshape(a, s)", "Reshape", "batch at 1", {"s": ints(1, 144)}),
    "batch merged": ("a = Relu(x) y = Reshape(a, s)", "output", "batch", {"s": ints(-1, 6)}),
    "batch counted": ("a = Relu(x) s = Size(a) f = Cast<to=1>(s) y = Div(a, f)", "Div", "number of samples", {}),
    "dropout on": (
        "a = Relu(x) y = Dropout(a, r, t)", "Dropout", "inference", {"r": np.float32(0.5), "t": np.bool_(True)},
    ),
    "indices": ("a = Relu(x) t, i = MaxPool<kernel_shape=[2,2]>(a) y = Sub(t, i)", "MaxPool", "second result", {}),
    "cast": ("a = Relu(x) y = Cast<to=7>(a)", "Cast", "floating point", {}),
    "cropped resize": (
        'a = Relu(x) y = Resize<coordinate_transformation_mode="tf_crop_and_resize">(a, , s)', "Resize", "tf_crop",
        {"s": np.float32([1, 1, 2, 2])},
    ),
    "softmax of old": ("a = Relu(x) y = Softmax(a)", "Softmax", "flatten", {"opset": 11}),
    "no activation": ("y = MaxPool<kernel_shape=[2,2]>(x)", "network", "no activation", {}),
    "spread": ("a = Relu(x) y = Expand(a, s)", "Expand", "expanded size", {"s": ints(1, 4, 12, 6)}),
    "infinite weight": ("a = Relu(x) y = Mul(a, s)", "Affine", "NaN", {"s": np.float32(np.inf)}),
    "integer kernel": ("a = Relu(x) y = Conv(a, w)", "Conv", "integers", {"w": np.ones((6, 4, 3, 3), "int64")}),
    "integer matrix": ("a = Relu(x) f = Flatten(a) y = Gemm(f, m)", "Gemm", "integers", {"m": ints(*[[1] * 5] * 144)}),
    "another kernel told": ("a = Relu(x) y = Conv<kernel_shape=[2,2]>(a, w)", "Conv", "kernel_shape", {"w": W}),
    "pads twice": ('a = Relu(x) y = Conv<auto_pad="VALID", pads=[1,1,1,1]>(a, w)', "Conv", "at once", {"w": W}),
    "unread attribute": ("a = Relu(x) y = Relu<foo=3>(a)", "Relu", "'foo'", {}),
    "attribute of later": (
        'a = Relu(x) y = DepthToSpace<blocksize=2, mode="CRD">(a)', "DepthToSpace", "opset 10", {"opset": 10},
    ),
    "split into others": (
        "a = Relu(x) t, y = Split<axis=1, num_outputs=3>(a)", "Split", "num_outputs", {"opset": 18},
    ),
    "no axes": ("a = Relu(x) y = Squeeze(a, i)", "Squeeze", "names no axes", {"i": ints()}),
    "wide pads": ("a = Relu(x) y = MaxPool<kernel_shape=[2,2], pads=[0,2,0,2]>(a)", "MaxPool", "outside", {}),
    "ceil by itself": (
        'a = Relu(x) y = MaxPool<kernel_shape=[3,3], strides=[2,2], auto_pad="VALID", ceil_mode=1>(a)', "MaxPool",
        "differently", {},
    ),
    "gaps by themselves": (
        'a = Relu(x) y = MaxPool<kernel_shape=[2,2], dilations=[2,2], auto_pad="SAME_UPPER">(a)', "MaxPool",
        "differently", {},
    ),
    "cropped and mirrored": (
        'a = Relu(x) y = Pad<mode="reflect">(a, p)', "Pad", "crops", {"p": ints(0, 0, -1, 0, 0, 0, 1, 2)},
    ),
    "smaller in old versions": (
        "a = Relu(x) y = Resize(a, s)", "Resize", "floor or ceil",
        {"s": np.float32([1, 1, 0.6, 0.6]), "opset": 10},
    ),
    "spread bound": ("y = Max(x, l)", "Max", "one sample", {"x": "N,1", "l": np.zeros((2, 1), np.float32)}),
    "half a kernel": ("a = Relu(x) y = Conv(a, w)", "Conv", "shape", {"w": dyadic(6, 3, 3, 3)}),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_converted_is_refused_by_name(case):
    body, op, says, options = case
    found = blockers(model(body, **options))
    assert found[0].op == op
    assert says in f"{found[0].why} {found[0].hint}"
    assert len(found) == 1


@pytest.mark.skipif(defs.onnx_opset_version() < 28, reason="SpaceToDepth has a mode since opset 28")
@pytest.mark.parametrize("mode", ["", "DCR", "CRD"])
def test_space_to_depth_follows_its_mode(mode):
    """onnxruntime does not have it yet."""
    attribute = f', mode="{mode}"' if mode else ""
    proto, x = model(f"a = Relu(x) y = SpaceToDepth<blocksize=2{attribute}>(a)", opset=28), dyadic(3, 4, 6, 6)
    with torch.no_grad():
        have = capture(proto)(torch.tensor(x)).numpy()
    assert np.array_equal(have, ReferenceEvaluator(proto).run(None, {"x": x})[0])


def test_all_blockers_come_at_once_and_are_named_as_in_the_file():
    proto = model("a = ThresholdedRelu(x) b = Shrink(a) c = com.acme.Fancy(b) d = Shrink(c) y = Mul(b, b)")
    proto.graph.node[1].name = "/block/act 1"
    found = blockers(proto)
    assert [(b.node, b.op) for b in found] == [
        ("a", "ThresholdedRelu"), ("/block/act 1", "Shrink"), ("c", "com.acme.Fancy"), ("d", "Shrink"),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_floats_of_other_kinds_become_float32(kind):
    proto = model("t = Conv(x, w, b) a = Relu(t) f = Flatten(a) y = Gemm(f, m)", w=W, b=V, m=dyadic(96, 5))
    graph = capture(retyped(proto, kind))
    assert {p.dtype for p in graph.parameters()} == {torch.float32}
    x = dyadic(2, 4, 6, 6)
    with torch.no_grad():
        assert np.array_equal(graph(torch.tensor(x)).numpy(), reference(proto, x))


def test_a_batch_of_one_is_a_batch_of_any_size():
    proto = model("a = Relu(x) y = Reshape(a, s)", x="1,4,6,6", s=ints(1, 144))
    assert kinds(same(proto)) == ["ReLU", "Flatten"]
    with torch.no_grad():
        assert capture(proto)(torch.zeros(5, 4, 6, 6)).shape == (5, 144)


def test_old_models_list_initialisers_among_their_inputs():
    proto = model("t = Conv(x, w) y = Relu(t)", opset=8, w=W)
    proto.ir_version = 3
    proto.graph.input.extend(model("y = Relu(x)", x="6,4,3,3").graph.input)
    proto.graph.input[1].name = "w"
    assert kinds(same(proto)) == ["Conv2d", "ReLU"]
