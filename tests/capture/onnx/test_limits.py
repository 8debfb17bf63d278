"""Small ONNX files stay small: constants have one limit, and capture takes as many operations as a file has nodes."""

import gc
import sys

import numpy as np
import pytest

from snnc.capture import blockers, capture
from snnc.capture.onnx import fold
from tests.onnx_models import dyadic, model


def ints(*values):
    return np.array(values, dtype=np.int64)


# Each makes more numbers than a few hundred out of few, alone or together.
GROWING = {
    "concat": ("a = Concat<axis=0>(w, w) b = Concat<axis=0>(a, a) c = Concat<axis=0>(b, b, b)", {}),
    "expand": ("c = Expand(w, s)", {"s": ints(50, 4), "w": dyadic(1, 4)}),
    "tile": ("c = Tile(w, s)", {"s": ints(10, 10)}),
    "fill": ("c = ConstantOfShape(s)", {"s": ints(20, 20)}),
    "range": ("c = Range(i, j, k)", {"i": np.int64(0), "j": np.int64(999), "k": np.int64(1)}),
    "sum": ("a = Unsqueeze(w, s) c = Add(a, w)", {"s": ints(1, 2, 3), "w": dyadic(20, 20)}),
    "product": ("a = Transpose(w) c = MatMul(a, w)", {"w": dyadic(1, 20)}),
    "picked": ("c = Gather(w, s)", {"s": ints(*[0] * 99)}),
    "where": ("a = Unsqueeze(w, i) t = Cast<to=9>(a) c = Where(t, w, w)", {"i": ints(1, 2, 3), "w": dyadic(20, 1)}),
    "read often": (" ".join(f"c{i} = ReduceSum<keepdims=0>(w)" for i in range(99)) + " c = Neg(c0)", {}),
    "chained": ("c0 = Neg(w) " + " ".join(f"c{i + 1} = Neg(c{i})" for i in range(40)) + " c = Neg(c40)", {}),
    "by the batch": ("s = Shape(x) c = ConstantOfShape(s)", {}),
}


@pytest.mark.parametrize("case", GROWING.values(), ids=GROWING)
def test_all_constants_count_against_one_limit(case, monkeypatch):
    body, weights = case
    monkeypatch.setattr(fold, "MOST", 100)
    monkeypatch.setattr(fold, "EACH", 1)
    weights = {"w": dyadic(2, 4), **weights}
    found = blockers(model(f"{body} y = Relu(x)", x="N,4", **weights))
    assert "computed at import" in found[0].why


def test_weights_that_many_layers_read_count_as_often(monkeypatch):
    body = " ".join(f"a{i + 1} = Conv(a{i}, w)" for i in range(20))
    proto = model(f"a0 = Relu(x) {body} y = Relu(a20)", w=dyadic(4, 4, 1, 1))
    assert not blockers(proto)
    monkeypatch.setattr(fold, "MOST", 100)
    monkeypatch.setattr(fold, "EACH", 1)
    assert blockers(proto)[0].node == "a8"


def test_weights_may_be_computed_as_exporters_write_it():
    """Normalised weights, as `torch.nn.utils.parametrizations.weight_norm` gives them."""
    body = (
        "q = Mul(w, w) s = ReduceSum<keepdims=1>(q, i) r = Sqrt(s) d = Div(w, r) m = Mul(d, g) "
        "t = Transpose<perm=[1,0]>(m) y = MatMul(a, t)"
    )
    proto = model(f"a = Relu(x) {body}", x="N,1024", w=dyadic(1024, 1024), g=dyadic(1024, 1), i=ints(1))
    assert capture(proto)


def chain(line, **weights):
    def build(n):
        body = " ".join(line.format(a=f"i{k}", b=f"i{k + 1}", k=k) for k in range(n))
        return model(f"i0 = Relu(x) {body} y = Relu(i{n})", **{"x": "N,4,2,2", **weights})

    return build


def fan(line, last):
    def build(n):
        body = " ".join(line.format(k=k) for k in range(n))
        return model(f"i = Relu(x) {body} y = {last}({', '.join(f'd{k}' for k in range(n))})", x="N,4,2,2")

    return build


def outputs(n):
    proto = fan("d{k} = Neg(i)", "Sum")(n)
    for k in range(n):
        proto.graph.output.add(name=f"d{k}")
    return proto


QUANTISED = "c{k} = Clip({a}, l, h) m{k} = Mul(c{k}, n) f{k} = Floor(m{k}) {b} = Div(f{k}, n)"
EDGES = {"l": np.float32(0), "h": np.float32(1)}
LONG = {
    "negations": chain("{b} = Neg({a})"),
    "identities": chain("{b} = Identity({a})"),
    "sums": chain("{b} = Add({a}, {a})"),
    "clips": chain("{b} = Clip({a}, l, h)", **EDGES),
    "clips above": chain("{b} = Min({a}, h)", h=np.float32(1)),
    "roundings": chain("{b} = Floor({a})"),
    "quantisers": chain(QUANTISED, n=np.float32(4), **EDGES),
    "transposes": chain("{b} = Transpose<perm=[0,2,3,1]>({a})", x="N,2,2,2"),
    "slices": chain("{b} = Slice({a}, s, e, s)", s=ints(1), e=ints(9), x="N,99,2,2"),
    "reshapes": chain("t{k} = Flatten({a}) {b} = Reshape(t{k}, s)", s=ints(0, 4, 2, 2)),
    "shapes": chain("s{k} = Shape({a}) {b} = Reshape({a}, s{k})"),
    "convolutions": chain("{b} = Conv({a}, w)", w=dyadic(4, 4, 1, 1)),
    "refusals": chain("{b} = Sigmoid({a})"),
    "softmaxes": fan("d{k} = Softmax<axis=1>(i)", "Sum"),
    "a fan": fan("d{k} = Neg(i)", "Sum"),
    "outputs": outputs,
    "constants": lambda n: model(
        "c0 = Neg(w) " + " ".join(f"c{k + 1} = Neg(c{k})" for k in range(n)) + f" r = Relu(x) y = Mul(r, c{n})",
        w=dyadic(4, 1, 1),
    ),
    "unused initialisers": lambda n: model("y = Relu(x)", **{f"w{k}": dyadic(4) for k in range(n)}),
}


def operations(proto):
    """How often Python calls or returns from something while a model is looked at."""
    count = 0

    def tick(*_):
        nonlocal count
        count += 1

    gc.collect()
    gc.disable()  # what is freed meanwhile calls functions too
    sys.setprofile(tick)
    try:
        blockers(proto)
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


@pytest.mark.parametrize("build", LONG.values(), ids=LONG)
def test_capture_is_linear_in_nodes(build):
    blockers(build(2))  # what is made once
    few, some, many = (operations(build(n)) for n in (6, 12, 24))
    assert many - some < 2.1 * (some - few) + 1000
