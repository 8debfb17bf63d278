"""Reading data sets and loaders: what comes out is what was put in, and unusable data is refused with a reason."""

import gzip
import os
import pickle
import struct
import sys
import zipfile

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from snnc.data import Dataset, as_batches, labelled_batches, read, require_labels
from snnc.errors import DataError


def images(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# ---- the data set -------------------------------------------------------------------------------


def test_batches_are_scaled_and_normalised_like_torchvision():
    x = images(5, 3, 4, 4)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    data = Dataset(x, np.arange(5), mean, std, scale=255.0)
    got = list(data.batches(2))
    assert [len(b) for b, _ in got] == [2, 2, 1]
    want = torch.from_numpy(x.copy()).to(torch.float32).div(255)
    want = want.sub(torch.tensor(mean).view(1, 3, 1, 1)).div(torch.tensor(std).view(1, 3, 1, 1))
    assert torch.equal(torch.cat([b for b, _ in got]), want)
    assert torch.equal(torch.cat([y for _, y in got]), torch.arange(5))
    assert got[0][1].dtype == torch.int64
    assert data.input_shape == (3, 4, 4)


def test_one_number_serves_all_channels():
    data = Dataset(np.ones((2, 3, 2), np.float32), mean=(0.5,), std=(0.25,))
    assert next(data.batches(2))[0].unique().tolist() == [2.0]
    assert next(Dataset(np.ones((2, 4)), std=(4.0,)).batches(2))[0].unique().tolist() == [0.25]


def test_floats_are_taken_as_they_are():
    x = np.array([[0.5, 300.0]], np.float64)
    assert next(Dataset(x, scale=255.0).batches(1))[0].tolist() == [[0.5, 300.0]]


def test_a_batch_cannot_change_the_data():
    x = np.zeros((2, 2), np.float32)
    x.flags.writeable = False
    next(Dataset(x).batches(2))[0].fill_(7)
    assert not x.any()


def test_subsets():
    data = Dataset(np.arange(20, dtype=np.float32)[:, None], np.arange(20))
    assert data.limit(3).y.tolist() == [0, 1, 2]
    assert len(data.limit(99)) == len(data.sample(99)) == 20
    first, again, other = (data.sample(5, seed).y.tolist() for seed in (1, 1, 2))
    assert first == again == sorted(set(first))
    assert first != other
    assert data.sample(5, 1).x[:, 0].tolist() == first
    for bad in (data.limit, data.sample, lambda n: next(data.batches(n))):
        with pytest.raises(DataError):
            bad(0)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"x": np.array([[None]])}, "not numeric"),
        ({"x": np.ones((2, 2), complex)}, "not numeric"),
        ({"x": np.array([["a"]])}, "not numeric"),
        ({"x": np.ones(3)}, "batch axis"),
        ({"x": np.ones((0, 3))}, "no samples"),
        ({"x": np.array([[1.0], [np.nan], [np.inf]])}, "sample 1 holds NaN"),
        ({"x": np.array([[1e300]])}, "sample 0 holds"),
        ({"y": np.arange(4)}, "3 inputs but 4 labels"),
        ({"y": np.array([0, 1, -1])}, "negative"),
        ({"y": np.eye(3)}, r"y\.argmax\(1\)"),
        ({"y": np.array([0.0, 1.0, 2.0])}, "float64, not an integer"),
        ({"y": np.eye(3, dtype=int)}, r"shape \(3, 3\)"),
        ({"mean": (0.1, 0.2, 0.3)}, "does not fit 2 channels"),
        ({"std": (1.0, 0.0)}, "not positive"),
        ({"std": (float("nan"),)}, "does not fit"),
        ({"scale": 0.0}, "not positive"),
    ],
)
def test_arrays_that_cannot_be_used(fields, says):
    with pytest.raises(DataError, match=says) as caught:
        Dataset(**{"x": np.ones((3, 2), np.float32), "source": "here", **fields})
    assert caught.value.message.startswith("here: ")
    assert caught.value.hint


def test_labels_on_demand():
    data = Dataset(np.ones((2, 2)), np.array([[1], [0]], np.uint8))
    assert require_labels(data, "to measure accuracy").tolist() == [1, 0]
    assert data.y.dtype == np.int64
    with pytest.raises(DataError, match="needed to measure accuracy"):
        require_labels(Dataset(np.ones((2, 2))), "to measure accuracy")


# ---- npz ----------------------------------------------------------------------------------------


def test_npz(tmp_path):
    x, path = images(4, 1, 2, 2), tmp_path / "d.npz"
    np.savez(path, x=x, y=np.arange(4, dtype=np.int32))
    data = read(path, mean=0.5, std=(0.5,))
    assert (data.x == x).all()
    assert data.y.dtype == np.int64
    assert data.scale == 255
    assert data.source == str(path)
    assert data.mean == data.std == (0.5,)
    assert read(str(path), raw=True).scale == 1
    np.savez(path, x=x.astype(np.float32))
    assert read(path).scale == 1
    assert read(path).y is None


def test_npz_that_cannot_be_used(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, a=np.ones(3))
    with pytest.raises(DataError, match=r"`a` has shape \(3,\), without a batch axis"):
        read(path)
    np.savez(path, a=np.array(["text"]))
    with pytest.raises(DataError, match=r"no array `x`, only \['a'\]"):
        read(path)
    np.savez(path, x=np.array([{}, {}]))
    with pytest.raises(DataError, match="Python objects"):
        read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"no array")
    with pytest.raises(DataError, match="no arrays"):
        read(path)
    np.save(tmp_path / "d.npy", np.ones((2, 2)))
    (tmp_path / "d.npy").rename(path)
    with pytest.raises(DataError, match=r"not an \.npz"):
        read(path)


# ---- idx ----------------------------------------------------------------------------------------


def idx_bytes(array, kind=8):
    head = bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def mnist(folder, split="t10k", n=3, dot="-", packed=False):
    suffix, pack = (".gz", gzip.compress) if packed else ("", bytes)
    x, y = images(n, 28, 28, seed=n), np.arange(n, dtype=np.uint8)
    path = folder / f"{split}-images{dot}idx3-ubyte{suffix}"
    path.write_bytes(pack(idx_bytes(x)))
    (folder / f"{split}-labels{dot}idx1-ubyte{suffix}").write_bytes(pack(idx_bytes(y)))
    return path, x


@pytest.mark.parametrize("dot", "-.")
@pytest.mark.parametrize("packed", [False, True])
def test_idx(tmp_path, dot, packed):
    path, x = mnist(tmp_path, dot=dot, packed=packed)
    for place in (path, tmp_path):
        data = read(place)
        assert data.x.shape == (3, 1, 28, 28)
        assert (data.x[:, 0] == x).all()
        assert data.y.tolist() == [0, 1, 2]
        assert data.source == str(path)


def test_idx_folders_have_splits(tmp_path):
    mnist(tmp_path, "train", 4)
    with pytest.raises(DataError, match="no test split"):
        read(tmp_path, split="test")
    assert len(read(tmp_path)) == 4
    mnist(tmp_path, "t10k", 2)
    assert len(read(tmp_path, split="train")) == 4
    assert len(read(tmp_path, split="test")) == len(read(tmp_path)) == 2
    assert read(tmp_path).source.endswith("the test split")
    with pytest.raises(DataError, match="no split 'dev'"):
        read(tmp_path, split="dev")


def test_idx_without_labels_and_of_other_types(tmp_path):
    path, _ = mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    assert read(path).y is None
    path.write_bytes(idx_bytes(np.array([[1.5, -2.0]], ">f4"), 13))
    assert read(path).x.tolist() == [[1.5, -2.0]]
    path.write_bytes(idx_bytes(np.array([[300, -2]], ">i2"), 11))
    assert next(read(path).batches(1))[0].tolist() == [[300.0, -2.0]]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda b: b[:-1], "less data"),
        (lambda b: b + b"\0", "more data"),
        (lambda b: b[:10], "within its header"),
        (lambda b: b[:2], "not an idx file"),
        (lambda b: b"", "empty"),
        (lambda b: b"\0\0\7\3" + b[4:], "not an idx file"),
        (lambda b: b"\0\0\x08\x09" + b[4:], "not an idx file"),
        (lambda b: b[:4] + b"\xff" * 12 + b[16:], "less data"),  # 2^96 values claimed
        (lambda b: gzip.compress(b)[:-9], "damaged or cut short"),
        (lambda b: gzip.compress(b)[:30] + b"xxxx", "damaged"),
        (lambda b: gzip.compress(b"\0" * 100), "not an idx file"),
    ],
)
def test_damaged_idx(tmp_path, change, says):
    path, _ = mnist(tmp_path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=says):
        read(path)


def test_the_labels_file_is_not_the_images_file(tmp_path):
    mnist(tmp_path)
    with pytest.raises(DataError, match="holds labels"):
        read(tmp_path / "t10k-labels-idx1-ubyte")
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(5, dtype=np.uint8)))
    with pytest.raises(DataError, match="3 inputs but 5 labels"):
        read(tmp_path)


# ---- CIFAR --------------------------------------------------------------------------------------


def cifar_rows(n, labels=1, seed=0):
    rows = images(n, labels + 3072, seed=seed)
    rows[:, 0] = 9
    rows[:, labels - 1] = np.arange(n) % 10
    return rows


def test_cifar_10_binary(tmp_path):
    for i in (1, 2):
        (tmp_path / f"data_batch_{i}.bin").write_bytes(cifar_rows(2 * i, seed=i).tobytes())
    (tmp_path / "test_batch.bin").write_bytes(cifar_rows(3).tobytes())
    (tmp_path / "batches.meta.txt").write_text("airplane\n")
    train = read(tmp_path, split="train")
    assert train.x.shape == (6, 3, 32, 32)
    assert train.y.tolist() == [0, 1, 0, 1, 2, 3]
    assert (train.x[2:].reshape(4, -1) == cifar_rows(4, seed=2)[:, 1:]).all()
    test = read(tmp_path)
    assert len(test) == len(read(tmp_path / "test_batch.bin")) == 3
    assert test.source.endswith("(test_batch.bin), the test split")


def test_cifar_100_binary_uses_the_fine_label(tmp_path):
    (tmp_path / "train.bin").write_bytes(cifar_rows(4, labels=2).tobytes())
    assert read(tmp_path).y.tolist() == [0, 1, 2, 3]
    (tmp_path / "train.bin").rename(tmp_path / "other.bin")
    assert read(tmp_path / "other.bin").y.tolist() == [0, 1, 2, 3]


def test_cifar_binary_that_cannot_be_used(tmp_path):
    path = tmp_path / "test_batch.bin"
    path.write_bytes(cifar_rows(2).tobytes()[:-1])
    with pytest.raises(DataError, match="no multiple"):
        read(path)
    path.write_bytes(b"\xff" + cifar_rows(2).tobytes()[1:])
    with pytest.raises(DataError, match="no CIFAR-10 file"):
        read(tmp_path)


def cifar_dict(n, key="labels"):
    rows = cifar_rows(n)
    return {"data": rows[:, 1:], key: rows[:, 0].tolist(), "filenames": ["a.png"] * n}


@pytest.mark.parametrize("core", [b"numpy._core.multiarray", b"numpy.core.multiarray"])
def test_cifar_python(tmp_path, core):
    for i in (1, 2):
        batch = pickle.dumps(cifar_dict(2 * i), protocol=2)
        name = next(c for c in (b"numpy._core.multiarray", b"numpy.core.multiarray") if c in batch)
        (tmp_path / f"data_batch_{i}").write_bytes(batch.replace(name, core))
    data = read(tmp_path)
    assert data.y.tolist() == [0, 1, 0, 1, 2, 3]
    assert (data.x[:2].reshape(2, -1) == cifar_rows(2)[:, 1:]).all()
    assert len(read(tmp_path / "data_batch_1")) == 2


def test_cifar_100_python(tmp_path):
    (tmp_path / "test").write_bytes(pickle.dumps(cifar_dict(3, "fine_labels"), protocol=2))
    assert read(tmp_path).y.tolist() == [0, 1, 2]


def test_cifar_python_as_python_2_wrote_it(tmp_path):
    rows = cifar_rows(2)

    def text(value):
        return b"U" + bytes([len(value)]) + value

    values = rows[:, 1:].tobytes()
    stream = b"\x80\x02}(" + text(b"data")
    stream += b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0\x85" + text(b"b") + b"tR"
    stream += b"(K\1K\2M" + struct.pack("<H", 3072) + b"\x86cnumpy\ndtype\n(" + text(b"u1") + b"K\0K\1tR"
    stream += b"(K\3" + text(b"|") + b"NNN" + (b"J" + b"\xff" * 4) * 2 + b"K\0tb\x89"
    stream += b"T" + struct.pack("<I", len(values)) + values + b"tb" + text(b"labels") + b"(K\0K\1lu."
    (tmp_path / "test_batch").write_bytes(stream)
    data = read(tmp_path)
    assert (data.x.reshape(2, -1) == rows[:, 1:]).all()
    assert data.y.tolist() == [0, 1]


class Touch:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_hostile_cifar_pickle_does_not_run(tmp_path, protocol):
    marker, path = tmp_path / "it-ran", tmp_path / "test_batch"
    path.write_bytes(pickle.dumps(cifar_dict(1) | {"filenames": Touch(marker)}, protocol=protocol))
    with pytest.raises(DataError, match=r"asks for (posix\.system|numpy)"):
        read(path)
    path.write_bytes(pickle.dumps(Touch(marker), protocol=protocol))
    with pytest.raises(DataError, match=r"posix\.system.*not run"):
        read(path)
    assert not marker.exists()
    pickle.loads(path.read_bytes())
    assert marker.exists()  # so it would have


def test_cifar_pickles_that_cannot_be_used(tmp_path):
    path = tmp_path / "test_batch"
    whole = pickle.dumps(cifar_dict(1), protocol=2)
    for size in (*range(1, 60), *range(60, len(whole), 97)):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError):
            read(path)
    for batch in ([], {}, {"data": 3}, cifar_dict(1, "names"), cifar_dict(2) | {"labels": [1]}):
        path.write_bytes(pickle.dumps(batch, protocol=2))
        with pytest.raises(DataError):
            read(path)


# ---- image folders ------------------------------------------------------------------------------


def save_images(folder, **files):
    Image = pytest.importorskip("PIL.Image")
    for name, array in files.items():
        path = folder / (name.replace("__", "/") + ".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)


def test_image_folder(tmp_path):
    a, b, c = images(3, 4, 5, 3)
    save_images(tmp_path, dog__1=b, cat__9=a, dog__2=c)
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / ".cache").mkdir()
    data = read(tmp_path)
    assert data.y.tolist() == [0, 1, 1]
    assert (data.x == np.stack([a, b, c]).transpose(0, 3, 1, 2)).all()
    assert data.source == f"{tmp_path} (3 images, 2 classes)"


def test_grey_images_have_one_channel_and_a_mixture_three(tmp_path):
    grey, colour = images(4, 4), images(4, 4, 3)
    save_images(tmp_path, a__1=grey, b__1=grey)
    assert read(tmp_path).x.shape == (2, 1, 4, 4)
    save_images(tmp_path, b__2=colour, b__3=images(4, 4, 4))  # the last has an alpha channel
    x = read(tmp_path).x
    assert x.shape == (4, 3, 4, 4)
    assert (x[0] == grey).all()
    assert (x[2] == colour.transpose(2, 0, 1)).all()


def test_images_without_classes_have_no_labels(tmp_path):
    save_images(tmp_path, a=images(2, 2), b=images(2, 2))
    data = read(tmp_path)
    assert len(data) == 2
    assert data.y is None


def test_image_folder_with_splits(tmp_path):
    save_images(tmp_path, train__a__1=images(2, 2), train__b__1=images(2, 2), val__a__1=images(2, 2))
    assert len(read(tmp_path)) == len(read(tmp_path, split="test")) == 1
    assert read(tmp_path).source.endswith("the test split")
    assert read(tmp_path, split="train").y.tolist() == [0, 1]


def test_image_folders_that_cannot_be_used(tmp_path):
    save_images(tmp_path, a__1=images(4, 4), b__1=images(4, 6))
    with pytest.raises(DataError, match=r"b/1\.png is 4x6, 1\.png is 4x4"):
        read(tmp_path)
    (tmp_path / "b" / "1.png").write_bytes((tmp_path / "a" / "1.png").read_bytes()[:40])
    with pytest.raises(DataError, match=r"1\.png is damaged"):
        read(tmp_path)
    (tmp_path / "b" / "1.png").unlink()
    with pytest.raises(DataError, match="b holds nothing"):
        read(tmp_path)
    save_images(tmp_path, b__1=images(4, 4).astype(np.uint16))
    with pytest.raises(DataError, match="more than 8 bits"):
        read(tmp_path)


def test_images_need_pillow(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(DataError, match="needs pillow") as caught:
        read(tmp_path)
    assert "snnc[images]" in caught.value.hint


# ---- other paths --------------------------------------------------------------------------------


def test_paths_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "none")
    with pytest.raises(DataError, match="holds nothing") as caught:
        read(tmp_path)
    assert "idx" in caught.value.hint
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match="no layout") as caught:
        read(tmp_path / "notes.txt")
    assert "CIFAR" in caught.value.hint


# ---- loaders ------------------------------------------------------------------------------------

X, Y = torch.arange(24.0).view(6, 4), torch.arange(6)


class Stream(IterableDataset):
    def __iter__(self):
        return iter([X[:3], X[3:]])


LOADERS = {
    "tensor": lambda: X,
    "array": lambda: X.numpy(),
    "pair": lambda: (X, Y),
    "pair of arrays": lambda: [X.numpy(), Y.numpy()],
    "pair with a list": lambda: (X, Y.tolist()),
    "pair with a column": lambda: (X, Y[:, None]),
    "dict": lambda: {"pixel_values": X, "labels": Y},
    "data set": lambda: Dataset(X.numpy(), Y.numpy()),
    "torch data set": lambda: TensorDataset(X, Y),
    "DataLoader": lambda: DataLoader(TensorDataset(X, Y), batch_size=4),
    "generator": lambda: ((X[i : i + 2], Y[i : i + 2]) for i in (0, 2, 4)),
    "list of batches": lambda: [X[:2], X[2:4], X[4:]],
    "two batches": lambda: [X[:3], X[3:]],
    "stream": Stream,
    "dicts": lambda: iter([{"image": X[:3], "target": Y[:3]}, {"image": X[3:].numpy(), "target": Y[3:]}]),
    "triples": lambda: [(X, Y, "more")],
    "doubles": lambda: [(X.double(), Y.tolist())],
    "integers for labels": lambda: [(X, Y.to(torch.int32))],
}


@pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)
def test_whatever_is_a_loader(make):
    batches = list(as_batches(make()))
    assert all(b.dtype == torch.float32 for b in batches)
    assert torch.equal(torch.cat(batches), X)


def test_two_batches_that_might_be_labels():
    assert len(list(as_batches([torch.eye(4), torch.eye(4)]))) == len(list(as_batches([X[:2, :1], X[2:4, :1]]))) == 2


@pytest.mark.parametrize("x", [X, torch.arange(48.0).view(6, 2, 2, 2), torch.arange(36.0).view(6, 6)])
def test_one_number_for_each_class_is_a_label(x):
    """Data are calibrated on, and what needs labels says how to make class numbers of them."""
    one_hot = torch.eye(6)
    assert torch.equal(torch.cat(list(as_batches((x, one_hot)))), x)
    with pytest.raises(DataError, match=r"one number for each class") as caught:
        list(labelled_batches((x, one_hot)))
    assert caught.value.hint == "y.argmax(1)"
    ((_, labels),) = labelled_batches((x, one_hot.argmax(1)))
    assert torch.equal(labels, Y)


@pytest.mark.parametrize(
    "name", [n for n in LOADERS if n not in ("tensor", "array", "list of batches", "two batches", "stream")]
)
def test_labels_come_along(name):
    x, y = zip(*labelled_batches(LOADERS[name](), "cpu"), strict=True)
    assert torch.equal(torch.cat(x), X)
    assert torch.equal(torch.cat(y), Y)
    assert y[0].dtype == torch.int64


def test_a_path_is_a_loader(tmp_path):
    np.savez(tmp_path / "d.npz", x=images(300, 2))
    batches = list(as_batches(tmp_path / "d.npz", "cpu"))
    assert sum(map(len, batches)) == 300
    assert torch.cat(batches).max() <= 1


def test_gradients_are_left_behind():
    assert not next(as_batches(X.clone().requires_grad_())).requires_grad


NAN = torch.tensor([[1.0, float("nan")]])


@pytest.mark.parametrize(
    ("loader", "says"),
    [
        ([], "no batches"),
        (iter(()), "no batches"),
        (X[:0], "no batches"),
        (3, "type int cannot be read"),
        (torch.tensor(3.0), "shape \\(\\)"),
        (["text"], "Batch 0 is a str"),
        ([("a", 1)], "Batch 0 is a str"),
        ([()], "Batch 0 is a tuple"),
        ([X, {"pixels": X}], r"Batch 1 has no input among its keys \['pixels'\]"),
        ([X[:, :2], NAN], "Batch 1 holds NaN"),
        ([X.double() * 1e300], "Batch 0 holds NaN or infinity"),
        ([np.full((1, 2), 1e300)], "Batch 0 holds NaN or infinity"),
        ([X, X[:, :3]], r"Batch 1 holds samples of shape \(3,\)"),
        ([X[0]], r"shape \(4,\)"),
        ([X, X[:0]], r"Batch 1 has shape \(0, 4\)"),
        ([X.to(torch.complex64)], "complex"),
        ([np.array([[None]])], "not numeric"),
    ],
)
def test_loaders_that_cannot_be_used(loader, says):
    with pytest.raises(DataError, match=says) as caught:
        list(as_batches(loader))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("loader", "says"),
    [
        (X, "Batch 0 has no labels"),
        ((X, list("abcdef")), "not numeric"),
        ([(X, Y), (X, None)], "Batch 1 has no labels"),
        ((X, Y[:5]), "6 inputs but 5 labels"),
        ([(X, Y - 1)], "negative"),
        ([(X, Y.float())], "not an integer"),
        ([(X, list("abcdef"))], "not numeric"),
    ],
)
def test_labels_that_cannot_be_used(loader, says):
    with pytest.raises(DataError, match=says):
        list(labelled_batches(loader))
