"""The standards' own tests as cases for snnc's doors: onnx's backend tests and torch's examples of export.

`benchmarks/standards.py` runs all of them, `tests/capture/test_standards.py` a share.
"""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import snnc
from snnc.capture import capture
from snnc.errors import SnncError
from snnc.structure import leaves

KINDS = ("equal", "refused", "blamed", "different", "crashed")
BARE, RELUS = "as it is", "with ReLUs behind"
# Parts of reasons and hints that blame a sound file, or tell of an error inside snnc.
BLAME = ("does not read (", "check the file", "check its", "export it again", "KeyError", "malformed")


@dataclass(frozen=True)
class Case:
    """One test in one variant.

    Attributes:
        make: gives the model, its input, and the expected output; nothing where the test does not suit.
    """

    suite: str
    name: str
    variant: str
    make: Callable[[], tuple[Any, torch.Tensor, np.ndarray] | None]
    rtol: float = 1e-3
    atol: float = 1e-6


@dataclass(frozen=True)
class Outcome:
    """What came of a case: one of `KINDS`, and the reason."""

    kind: str
    says: str = ""


def outcome(case: Case) -> Outcome:
    """Captures, runs and compiles."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model, x, want = case.make()
            shape = tuple(x.shape[1:])
            try:
                graph = capture(model, shape if x.dim() else None)
                with torch.no_grad():
                    have = leaves(graph(x.clone()))[0].numpy()  # of several outputs the first, as `want`
                snnc.compile(model, T=2, recipe="data-free", input_shape=shape)
            except SnncError as error:
                return Outcome("blamed" if any(part in str(error) for part in BLAME) else "refused", _reason(error))
        except Exception as error:
            return Outcome("crashed", f"{type(error).__name__}: {error}"[:300])
    if have.shape != want.shape or not np.allclose(have, want, rtol=case.rtol, atol=case.atol, equal_nan=True):
        return Outcome("different", f"shape {have.shape} for {want.shape}")
    return Outcome("equal")


def _reason(error: SnncError) -> str:
    """The operation and what is wrong, without the names of the model."""
    blockers = getattr(error, "blockers", ())
    return f"{blockers[0].op}: {blockers[0].why}"[:200] if blockers else error.message[:200]


# ---- ONNX ------------------------------------------------------------------------------------------


def onnx_nodes() -> Iterator[Case]:
    """The tests that onnx generates, those of its function bodies included."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        tests = collect_testcases(None)
    for test in tests:
        for inputs, outputs in test.data_sets[:1]:
            yield from _both("onnx nodes", test.name, test.model, inputs, outputs, test.rtol, test.atol)


def onnx_models() -> Iterator[Case]:
    """The models in onnx's data that bring their weights with them."""
    from onnx.backend.test import loader

    folder = Path(loader.DATA_DIR)
    for path in sorted(folder.glob("*/*/model.onnx")):
        if path.parts[-3] not in ("simple", "pytorch-converted", "pytorch-operator"):
            continue
        model = _newer(onnx.load(path))
        data = path.parent / "test_data_set_0"
        inputs, outputs = (
            [_tensor(data, kind, k) for k in range(len(list(data.glob(f"{kind}_*"))))] for kind in ("input", "output")
        )
        yield from _both("onnx models", f"{path.parts[-3]}/{path.parts[-2]}", model, inputs, outputs, 1e-3, 1e-5)


def _newer(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model of before opset 7, as onnx's own converter writes it for 13."""
    if all(entry.domain or entry.version >= 7 for entry in model.opset_import):
        return model
    try:
        return onnx.version_converter.convert_version(model, 13)
    except Exception:  # it does not know every operator
        return model


def _tensor(folder: Path, kind: str, number: int) -> np.ndarray | None:
    try:
        tensor = TensorProto.FromString((folder / f"{kind}_{number}.pb").read_bytes())
        return numpy_helper.to_array(tensor)
    except Exception:  # sequences are stored in another kind of message
        return None


def _both(suite, name, model, inputs, outputs, rtol, atol) -> Iterator[Case]:
    atol = max(atol, 1e-6)
    for variant in (BARE, RELUS):
        yield Case(suite, name, variant, lambda v=variant: _onnx_case(model, inputs, outputs, v), max(rtol, 1e-4), atol)


def _onnx_case(model, inputs, outputs, variant):
    """Inputs but the first float tensor become constants; where there is none, the first input stays."""
    made = onnx.ModelProto.FromString(model.SerializeToString())
    graph = made.graph
    weights = {tensor.name for tensor in graph.initializer}
    names = [value.name for value in graph.input if value.name not in weights]
    arrays = (np.asarray(value) if isinstance(value, np.generic) else value for value in inputs)
    given = dict(zip(names, arrays, strict=False))
    floats = [n for n, v in given.items() if isinstance(v, np.ndarray) and v.dtype.kind == "f" and v.ndim]
    entry = next(iter(floats), names[0] if names else "")
    for name, value in given.items():
        if name != entry and isinstance(value, np.ndarray) and value.dtype.kind not in "OSU":
            graph.initializer.append(numpy_helper.from_array(value, name))
    constants = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        known = isinstance(given.get(value.name), np.ndarray)  # such as text, which is no constant here
        if value.name not in (entry, *constants) and not known and value.type.HasField("tensor_type"):
            graph.initializer.append(_zeros(value))  # what only tells a type
    kept = [
        value for value in graph.input if value.name == entry or value.name not in {t.name for t in graph.initializer}
    ]
    del graph.input[:]
    graph.input.extend(kept)
    want = outputs[0]
    if variant == RELUS:
        result = graph.output[0].name
        graph.node.extend(
            [
                helper.make_node("Relu", [result], ["standard_up"]),
                helper.make_node("Neg", [result], ["standard_negative"]),
                helper.make_node("Relu", ["standard_negative"], ["standard_down"]),
                helper.make_node("Sub", ["standard_up", "standard_down"], ["standard_result"]),
            ]
        )
        del graph.output[:]
        graph.output.append(helper.make_empty_tensor_value_info("standard_result"))
    return made, torch.from_numpy(_floats(given.get(entry))), _floats(want)


def _zeros(value):
    kind = value.type.tensor_type
    shape = [dim.dim_value or 1 for dim in kind.shape.dim]
    return numpy_helper.from_array(np.zeros(shape, helper.tensor_dtype_to_np_dtype(kind.elem_type)), value.name)


def _floats(value: Any) -> np.ndarray:
    """Numbers of any kind as float32; a zero for what is none, such as text and sequences."""
    if not isinstance(value, np.ndarray) or value.dtype.kind in "OSU":
        return np.zeros((), np.float32)
    return value.astype(np.float32)


# ---- torch -----------------------------------------------------------------------------------------


class Behind(nn.Module):
    """A network with a pair of ReLUs behind it whose difference is its output."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        y = self.net(*args, **kwargs)
        return torch.relu(y) - torch.relu(-y)


def torch_programs() -> Iterator[Case]:
    """torch's examples of export, live and exported."""
    from torch._export.db.examples import all_examples

    for name, example in all_examples().items():
        if not isinstance(next(iter(example.example_args), None), torch.Tensor):
            continue  # nested inputs, which no door takes, so there is nothing to compare
        for variant in (BARE, RELUS):
            for exported in (False, True):
                door = "exported" if exported else "live"
                make = lambda e=example, v=variant, ex=exported: _torch_case(e, v, ex)  # noqa: E731
                yield Case("torch programs", f"{name} ({door})", variant, make)


def _torch_case(example, variant, exported):
    net = example.model.eval()
    args, kwargs = example.example_args, dict(example.example_kwargs)
    x = args[0]
    with torch.no_grad():
        want = net(*(a.clone() if isinstance(a, torch.Tensor) else a for a in args), **kwargs)
    if isinstance(want, torch.Tensor) and variant == RELUS:
        net = Behind(net)
    if exported:
        try:
            net = torch.export.export(net, args, kwargs)
        except Exception as error:  # what torch does not export is not snnc's
            raise SnncError(f"torch does not export it ({type(error).__name__}).") from error
    want = want if isinstance(want, torch.Tensor) else torch.zeros(0)
    return net, x.float(), want.detach().float().numpy()


SUITES = {"onnx nodes": onnx_nodes, "onnx models": onnx_models, "torch programs": torch_programs}
