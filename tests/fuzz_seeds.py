"""Sound files of every kind that snnc reads, and how each is read: what the fuzzer starts from.

A seed's reader takes the path of the file and does with it what a command would do first: networks are captured,
compiled ones say how they run, data give a batch.
"""

import gzip
import io
import pickle
import struct
import warnings
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from click.testing import CliRunner
from PIL import Image
from torch import nn

import snnc
from snnc.capture import capture
from snnc.cli import main
from snnc.data import read
from snnc.errors import SnncError
from snnc.files import load_model
from snnc.ir.graphfile import unpack_graph
from snnc.networks.network import Network
from snnc.networks.staged import Staged
from snnc.recipes import recipe
from snnc.tune import checkpoint
from snnc.tune.checkpoint import Progress
from tests.onnx_models import exported
from tests.safetensors_files import safetensors

SHAPE = (2, 4, 4)


@dataclass(frozen=True)
class Seed:
    """A sound file.

    Attributes:
        name: for tables.
        file: its name; readers look at suffixes.
        content: its bytes.
        read: reads the file at a path, and raises SnncError where it is refused.
        form: what is inside, so that changes get behind the outermost layer: "bytes", "zip", "onnx" or "text".
        beside: further files in the folder.
        cost: how much slower than others it is read; so many times fewer changes are tried.
    """

    name: str
    file: str
    content: bytes
    read: Callable[[Path], Any]
    form: str = "bytes"
    beside: dict[str, bytes] = field(default_factory=dict)
    cost: int = 1


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 2), nn.ReLU(),
        nn.Flatten(), nn.Linear(4, 3),
    ).eval()  # fmt: skip


def saved(content: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    torch.save(content, out, **options)
    return out.getvalue()


def as_model(path: Path) -> None:
    """A network before conversion, as `snnc check` reads it."""
    found = load_model(path)
    capture(Staged(*unpack_graph(found, str(path))) if isinstance(found, dict) else found, SHAPE)


def as_weights(path: Path) -> None:
    capture(load_model(path, factory="tests.fuzz_seeds:net"), SHAPE)


def as_compiled(path: Path) -> None:
    """A spiking network, as `snnc inspect` reads it."""
    found = snnc.load(path)
    str(found.latency)
    if isinstance(found, Network):
        found.graph.print_readable(print_output=False)


def as_data(path: Path) -> None:
    next(read(path).batches(4))


def as_folder(path: Path) -> None:
    next(read(path.parent).batches(4))


def as_config(path: Path) -> None:
    """A saved run: a command line that makes no sense ends with 2, a file that is refused with 1."""
    result = CliRunner().invoke(main, ["compile", "--config", str(path), "--dry-run", str(path.parent / "ann.pt")])
    if result.exit_code not in (0, 1, 2) or "Unexpected" in result.output or "Traceback" in result.output:
        raise AssertionError(result.output) from result.exception
    if result.exit_code:
        raise SnncError("refused")


def training() -> tuple[dict[str, Any], Any, torch.optim.Optimizer]:
    graph = capture(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), (3,))
    told = {"network": "0" * 64, "teacher": None, "samples": 4, "data": "0" * 64, "options": {"lr": 0.1}}
    optimiser = torch.optim.SGD(graph.parameters(), 0.1, momentum=0.9)
    graph(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    return told, graph, optimiser


def as_checkpoint(path: Path) -> None:
    checkpoint.restore(path, *training())


def images(n: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 4, 4), dtype=np.uint8)


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def picture(suffix: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.stack([images(1)[0]] * 3, -1)).save(out, suffix)
    return out.getvalue()


def external(folder: Path) -> tuple[bytes, bytes]:
    """An ONNX model with its weights in another file."""
    model = exported(net(), SHAPE)
    onnx.save(
        model, folder / "whole.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )  # fmt: skip
    return (folder / "whole.onnx").read_bytes(), (folder / "weights.bin").read_bytes()


def seeds(folder: Path) -> list[Seed]:
    """Every seed; `folder` is for what can only be made in a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's advice on its own exporters
        return [*_networks(folder), *_texts(), *_data()]


def _networks(folder: Path) -> list[Seed]:
    model = net()
    calibration = torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(0))
    snn = snnc.compile(model, 4, "cos", calibration)
    program = io.BytesIO()
    torch.export.save(torch.export.export(model, (calibration,)), program)
    kept = {}
    for suffix in ("snn", "pt2", "onnx"):
        simple = snnc.compile(model, 4, "opi", calibration)
        kept[suffix] = snnc.save(snn if suffix == "snn" else simple, folder / f"kept.{suffix}").read_bytes()
    staged = snnc.save(Staged(capture(model, SHAPE), snnc.Stage.ANN, {}), folder / "staged.snn").read_bytes()
    told, graph, optimiser = training()
    checkpoint.write(folder / "kept.checkpoint", told, graph, optimiser, Progress(rows=[{"epoch": 1}]))
    whole, weights = external(folder)
    beside = {"state_dict": model.state_dict(), "args": Namespace(lr=0.1, out=Path("x")), "best": np.float64(93.1)}
    return [
        Seed("graph file", "net.snn", kept["snn"], as_compiled, "zip"),
        Seed("graph file of an ANN", "net.snn", staged, as_model, "zip"),
        Seed("torch module", "net.pt", saved(model), as_model, "zip"),
        Seed("torch weights", "net.pt", saved(model.state_dict()), as_weights, "zip"),
        Seed("torch weights, legacy", "net.pt",
             saved(model.state_dict(), _use_new_zipfile_serialization=False), as_weights),
        Seed("checkpoint", "net.pt", saved(beside), as_weights, "zip"),
        Seed("safetensors", "net.safetensors", safetensors(model.state_dict()), as_weights),
        Seed("tune's checkpoint", "net.checkpoint", (folder / "kept.checkpoint").read_bytes(), as_checkpoint, "zip"),
        Seed("exported program", "net.pt2", program.getvalue(), as_model, "zip", cost=4),
        Seed("emitted .pt2", "net.pt2", kept["pt2"], as_compiled, "zip", cost=4),
        Seed("ONNX model", "net.onnx", exported(model, SHAPE).SerializeToString(), as_model, "onnx"),
        Seed("ONNX model, data apart", "net.onnx", whole, as_model, "onnx", {"weights.bin": weights}),
        Seed("emitted .onnx", "net.onnx", kept["onnx"], as_compiled, "onnx"),
    ]  # fmt: skip


def _texts() -> list[Seed]:
    edit = 'base = "cos"\nremove = ["scale-thresholds"]\n\n[set.calibrate-offset]\nrho = 8\n\n[[insert]]\n'
    edit += 'name = "normalize-thresholds"\nbefore = "insert-neurons"\n'
    run = 'command = "compile"\n\n[options]\nT = 8\nrecipe = "data-free"\nseed = 3\ninput-shape = [2, 4, 4]\n'
    run += 'out = "out.snn"\nset = ["scale-thresholds.factor=0.9"]\n\n[sha256]\n"ann.pt" = "0000"\n'
    return [
        Seed("recipe", "mine.toml", recipe("best").to_toml().encode(), recipe, "text"),
        Seed("recipe, edited", "mine.toml", edit.encode(), recipe, "text"),
        Seed("saved run", "run.toml", run.encode(), as_config, "text", {"ann.pt": saved(net())}),
    ]


def _data() -> list[Seed]:
    rng = np.random.default_rng(0)
    out = io.BytesIO()
    np.savez(out, x=rng.normal(size=(5, *SHAPE)).astype("float32"), y=np.arange(5))
    packed = io.BytesIO()
    np.savez_compressed(packed, x=images()[:, None], y=np.arange(6, dtype=np.int16))
    rows = rng.integers(0, 256, (3, 3073), dtype=np.uint8)
    rows[:, 0] = [1, 5, 9]
    python = pickle.dumps({"data": rows[:, 1:], "labels": [1, 5, 9], "filenames": ["a"] * 3}, protocol=2)
    labels = idx(np.arange(6, dtype=np.uint8))
    beside = {"train-labels-idx1-ubyte": labels}
    return [
        Seed("npz", "data.npz", out.getvalue(), as_data, "zip"),
        Seed("npz, compressed", "data.npz", packed.getvalue(), as_data),
        Seed("idx images", "train-images-idx3-ubyte", idx(images()), as_data, beside=beside),
        Seed("idx images, gzipped", "train-images-idx3-ubyte.gz", gzip.compress(idx(images()), mtime=0), as_data,
             beside=beside),
        Seed("idx labels", "train-labels-idx1-ubyte", labels, as_folder,
             beside={"train-images-idx3-ubyte": idx(images())}),
        Seed("CIFAR binary", "data_batch_1.bin", rows.tobytes(), as_data),
        Seed("CIFAR python", "data_batch_1", python, as_data),
        *(Seed(f"image folder, {kind}", f"a.{kind}", picture({"jpg": "jpeg"}.get(kind, kind)), as_folder)
          for kind in ("png", "jpg", "bmp", "ppm")),
    ]  # fmt: skip
