"""What Python users pass as numbers: arrays wherever tensors, and a sentence that helps for everything else."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import snnc
from snnc.errors import DataError, SnncError

X = torch.rand(16, 1, 4, 4, generator=torch.Generator().manual_seed(0))
A = X.numpy()
Y = torch.arange(16) % 3


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).eval()


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    made, folder = snnc.compile(net(), 2, "opi", X), tmp_path_factory.mktemp("networks")
    return [made, *(snnc.load(snnc.save(made, folder / f"net.{kind}")) for kind in ("pt2", "onnx"))]


def test_arrays_are_taken_wherever_tensors_are(networks):
    for made in networks:
        assert torch.equal(made(A), made(X))
        assert torch.equal(made.readout(A), made.readout(X))
    made = networks[0]
    assert all(map(torch.equal, made.stream(A), made.stream(X)))
    again = snnc.compile(net(), 2, "opi", A)
    assert all(map(torch.equal, again.state_dict().values(), made.state_dict().values()))
    assert snnc.evaluate(made, (A, Y.numpy()), net()).accuracy == snnc.evaluate(made, (X, Y), net()).accuracy
    assert snnc.verify(made, made, A).same
    assert snnc.explain(made, net(), A).samples == 16


@pytest.mark.parametrize(
    "array",
    [
        A[::-1],
        A.astype(">f4"),
        A.astype(np.float64),
        A.astype(np.float16),
        np.asfortranarray(A),
        A.astype(np.longdouble),
    ],
)
def test_arrays_of_any_order_and_length(networks, array):
    array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for made in networks:
            assert torch.equal(made(array), made(torch.tensor(np.array(array, np.float32))))


def nested():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor(list(X))


BAD = {
    "None": (lambda: None, "None", "tensor or a numpy array"),
    "a list of numbers": (X.tolist, "a list", "torch.tensor"),
    "a list of arrays": (lambda: list(A), "a list", "numpy.stack"),
    "a generator": (lambda: iter(X), "generator|iterator", "tensor or a numpy array"),
    "text": (lambda: "x", "a str", "tensor or a numpy array"),
    "a number": (lambda: 3, "an int", "torch.tensor"),
    "a dictionary": (lambda: {"x": X}, "a dict", "the tensor in it"),
    "sparse": (X.to_sparse, "layout torch.sparse_coo", "to_dense"),
    "meta": (lambda: X.to("meta"), "'meta'", "a tensor on the CPU"),
    "nested": (nested, "nested", "to_padded_tensor"),
    "complex": (lambda: X + 1j, "complex", "x.real"),
    "an array of complex": (lambda: A + 1j, "complex", "x.real"),
    "8 bits": (lambda: (X * 255).byte(), "uint8", r"x.float\(\) / 255"),
    "an array of 8 bits": (lambda: (A * 255).astype(np.uint8), "uint8", r"x.astype\('float32'\) / 255"),
    "whole numbers": (lambda: X.long(), "int64", "x.float"),
    "bool": (lambda: X > 0.5, "bool", "x.float"),
    "objects": (lambda: A.astype(object), "object", "x.astype"),
    "masked": (lambda: np.ma.array(A), "masked", "filled"),
}


@pytest.mark.parametrize("case", BAD)
def test_everything_else_is_refused_in_a_sentence(networks, case):
    make, what, hint = BAD[case]
    for made in networks:
        for call in (made, made.readout):
            with pytest.raises(DataError, match=f"The input .*({what}).*Try: .*{hint}"):
                call(make())
    if case not in ("None", "a generator", "a list of arrays", "a dictionary"):  # data, or none
        with pytest.raises(DataError):
            snnc.compile(net(), 2, "opi", make())


@pytest.mark.parametrize("x", [X[0], A[0]])
def test_one_sample_without_a_batch_is_called_that(networks, x):
    for made in networks:
        with pytest.raises(DataError, match=r"one sample, without a batch.*x\[None\]"):
            made(x)
        assert torch.equal(made(x[None]), made(X[:1]))
    for data in (x, [x, x]):
        with pytest.raises(DataError, match=r"shape \(1, 4, 4\), which is that of one sample"):
            snnc.compile(net(), 2, "opi", data)
    snnc.compile(net(), 2, "opi", x[None])


@pytest.mark.parametrize("chunk", [0, -1, 1.5, "64", None, True])
def test_chunks_that_are_none(networks, chunk, tmp_path):
    with pytest.raises(SnncError, match=r"chunk is .*Try: a whole number"):
        snnc.compile(net(), 2, "opi", X, chunk=chunk)
    path = snnc.save(networks[0], tmp_path / "net.snn")
    with pytest.raises(SnncError, match="chunk is"):
        snnc.load(path, chunk)
    for made in networks:
        before, made.chunk = made.chunk, chunk
        with pytest.raises(SnncError, match="chunk is"):
            made(X)
        made.chunk = before


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("samples", 0),
        ("samples", "all"),
        ("seed", -1),
        ("seed", None),
        ("seed", 0.5),
        ("input_shape", "1,4,4"),
        ("input_shape", 16),
        ("input_shape", (1, 4, 0)),
        ("input_shape", (1, 4, 4.5)),
    ],
)
def test_options_that_are_no_whole_numbers(option, value):
    with pytest.raises(SnncError, match=f"{option} is .*Try: "):
        snnc.compile(net(), 2, "opi", X, **{option: value})


@pytest.mark.parametrize(
    ("labels", "hint"),
    [
        (nn.functional.one_hot(Y), "y.argmax"),
        (nn.functional.one_hot(Y).float(), "y.argmax"),
        (Y.float(), "y.long"),
        (Y / 2, "class numbers"),
        (Y - 1, "class numbers from 0"),
        (Y[:5], "one label per input"),
        (["a"] * 16, "class numbers"),
        (Y + 3, "labels from 0"),
    ],
)
def test_labels_that_are_no_class_numbers(networks, labels, hint):
    with pytest.raises(DataError, match=f"Try: .*{hint}"):
        snnc.evaluate(networks[0], [(X, labels)])


@pytest.mark.parametrize("labels", [Y, Y.int(), Y.numpy(), Y[:, None], Y.tolist()])
def test_labels_that_are(networks, labels):
    assert snnc.evaluate(networks[0], [(X, labels)]).samples == 16
