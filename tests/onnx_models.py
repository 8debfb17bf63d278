"""Small ONNX models: written as text with weights beside it, or exported from a torch network."""

import io
import warnings

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper, parser

from snnc.capture import capture
from snnc.networks.onnx import quiet_options


def model(body, x="N,4,6,6", opset=17, kind="float", **weights):
    """`x` to `y` by way of `body`, in ONNX's text form; `weights` become initialisers."""
    graph = parser.parse_graph(f"g ({kind}[{x}] x) => (float[N] y) {{ {body} }}")
    graph.output[0].type.tensor_type.ClearField("shape")
    graph.initializer.extend(numpy_helper.from_array(np.asarray(v), name) for name, v in weights.items())
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", opset)])


def dyadic(*shape, seed=0):
    """Multiples of 1/8 from -2 to 2."""
    return (np.random.default_rng(seed).integers(-16, 17, shape) / 8).astype(np.float32)


def reference(proto, x):
    """What onnxruntime makes of an input."""
    content = proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, quiet_options(1), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def same(proto, samples=3, shape=None):
    """Captures a model, requires the result of onnxruntime to the bit, and gives the graph."""
    sizes = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    graph = capture(proto, shape)
    x = dyadic(sizes[0] or samples, *(shape or sizes[1:]), seed=1)
    with torch.no_grad():
        have = graph(torch.tensor(x)).numpy()
    want = reference(proto, x)
    assert have.shape == want.shape
    assert np.array_equal(have, want)
    return graph


def kinds(graph):
    """Classes of the modules that a graph calls, in order."""
    return [type(graph.get_submodule(n.target)).__name__ for n in graph.graph.nodes if n.op == "call_module"]


def exported(net, shape, opset=17, dynamic=True, fold=False):
    """A torch network as its own exporter writes it, without training's layers melted into others."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises its other exporter, which needs packages of its own
        torch.onnx.export(
            net, (torch.zeros(2, *shape),), file, dynamo=False, opset_version=opset, input_names=["x"],
            dynamic_axes={"x": {0: "N"}} if dynamic else None, training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=fold,
        )  # fmt: skip
    return onnx.load_from_string(file.getvalue())


def retyped(proto, kind=TensorProto.FLOAT16):
    """The same model with floats of another kind."""
    other = onnx.ModelProto.FromString(proto.SerializeToString())
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    for tensor in other.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(array.astype(dtype), tensor.name))
    for value in (*other.graph.input, *other.graph.output):
        value.type.tensor_type.elem_type = kind
    return other
