"""Constants of ONNX graphs, folded as they are met by onnx's own reference implementation.

A size that depends on the number of samples has no fixed value. So it is computed twice, for two numbers of samples. If
the results differ, the value is `Varying`. All arithmetic on shapes that exporters write works this way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from snnc.capture.onnx.model import Call
from snnc.capture.values import Batch, Filled, ManyBatches, Refused, Repeated, Unknown

# Two numbers of samples that no author writes; small, since tensors of as many samples are made of them.
SAMPLES = (61, 67)
SAMPLED = ("uses the number of samples", "keep samples apart, and constants constant")
UNFOLDED = "export it with constant folding, which computes it"
MOST = 2**25  # numbers that an import may compute, and
EACH = 24  # as many more for each number that the file holds


class Ledger:
    """What constants cost at import: all numbers that are read or made, counted against one limit.

    A few nodes can stand for any amount of memory: a `Concat` of a `Concat`, or one weight in a thousand layers.

    Args:
        held: numbers in the file.
    """

    def __init__(self, held: int) -> None:
        self.limit = MOST + EACH * held
        self.spent = 0

    def take(self, numbers: int) -> None:
        """Counts numbers before they are made.

        Raises:
            Refused: that is more than the limit; later, smaller ones may still be within it.
        """
        if self.spent + numbers > self.limit:
            why = f"would bring the constants that are computed at import to {self.spent + numbers} numbers"
            raise Refused(f"{why}, more than {self.limit}", "export it with these constants computed, or smaller")
        self.spent += numbers


@dataclass(frozen=True, eq=False)
class Varying:
    """A constant that depends on the number of samples: what it is for each of `SAMPLES`."""

    first: np.ndarray
    second: np.ndarray

    def numbers(self) -> list[Any]:
        """A vector of sizes: integers, `Batch`, and `Unknown` for what was calculated from the batch."""
        if self.first.shape != self.second.shape:
            return [Unknown(shape=False)]
        pairs = zip(self.first.flatten().tolist(), self.second.flatten().tolist(), strict=True)
        return [a if a == b else _counted_in_samples(a, b) for a, b in pairs]

    def filled(self) -> Filled | None:
        """The same number for every sample and all over it, or None."""
        numbers = np.unique(np.concatenate([self.first.ravel(), self.second.ravel()]))
        shapes = [a.shape for a in (self.first, self.second)]
        whole = all(shape[:1] == (n,) for shape, n in zip(shapes, SAMPLES, strict=True))
        if not whole or shapes[0][1:] != shapes[1][1:] or len(numbers) != 1:
            return None
        return Filled(tuple(shapes[0][1:]), float(numbers[0]))

    def sample(self) -> np.ndarray | None:
        """What every sample has alike, `[1, ...]`, or None."""
        shapes = [a.shape for a in (self.first, self.second)]
        whole = all(shape[:1] == (n,) for shape, n in zip(shapes, SAMPLES, strict=True))
        if not whole or shapes[0][1:] != shapes[1][1:]:
            return None
        one = self.first[:1]
        return one if (self.first == one).all() and (self.second == one).all() else None

    def repeated(self) -> Repeated | None:
        """The same numbers for every sample, or None."""
        one = self.sample()
        if one is None or one.dtype.kind not in "fi":
            return None
        kind = np.float32 if one.dtype.kind == "f" else np.int64
        return Repeated(torch.from_numpy(np.array(one[0], dtype=kind, order="C")))


def _counted_in_samples(a: int, b: int) -> Any:
    """A size that is the number of samples, or so many times that."""
    times, rest = divmod(a, SAMPLES[0])
    if rest or times < 1 or b != times * SAMPLES[1]:
        return Unknown(shape=False)
    return Batch() if times == 1 else ManyBatches(times=times)


def fold(call: Call, inputs: list[Any], opset: int, ledger: Ledger) -> tuple[Any, ...]:
    """The results of an operation on constants alone.

    Args:
        call: a node of one of ONNX's own operators.
        inputs: arrays, `Varying` values, and None for inputs left out.
        opset: version of the operation.
        ledger: takes what it costs.

    Raises:
        Refused: it fails, or its result would be too large.
    """
    if not any(isinstance(v, Varying) for v in inputs):
        return _evaluate(call, inputs, opset, ledger)
    first, second = (
        _evaluate(
            call, [getattr(v, which) if isinstance(v, Varying) else v for v in inputs], opset, ledger, varying=True
        )
        for which in ("first", "second")
    )
    pairs = zip(first, second, strict=True)
    return tuple(a if np.array_equal(a, b) else Varying(a, b) for a, b in pairs)


def _evaluate(
    call: Call, inputs: list[Any], opset: int, ledger: Ledger, varying: bool = False
) -> tuple[np.ndarray, ...]:
    given = [v for v in inputs if v is not None]
    try:
        ledger.take(SIZES.get(call.op, _inferred(opset))(call, inputs) + sum(v.size for v in given))
        feed = dict(zip(filter(None, call.inputs), given, strict=True))
        # A node by itself would be run by the newest version of its operation.
        entries, results = ([onnx.ValueInfoProto(name=n) for n in names if n] for names in (feed, call.outputs))
        graph = helper.make_graph([call.proto], "fold", entries, results)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        with np.errstate(all="ignore"):
            return tuple(np.asarray(value) for value in ReferenceEvaluator(model).run(None, feed))
    except Refused:
        raise
    except Exception as error:  # whatever numpy makes of sizes and types that do not fit
        if varying:  # it may well fit the one number of samples that the author had
            raise Refused(*SAMPLED) from error
        line = " ".join(str(error).split())[:200]
        raise Refused(f"fails on constants ({type(error).__name__}: {line})", UNFOLDED) from error


Size = Callable[[Call, list[Any]], int]


def _as_large(call: Call, inputs: list[Any]) -> int:
    return sum(int(v.size) for v in inputs if v is not None)


def _broadcast(call: Call, inputs: list[Any]) -> int:
    return math.prod(np.broadcast_shapes(*(v.shape for v in inputs if v is not None)))


def _product(call: Call, inputs: list[Any]) -> int:
    a, b = inputs[0].shape, inputs[1].shape
    return math.prod(np.broadcast_shapes(a[:-2], b[:-2])) * max(a[-2:-1] or (1,)) * max(b[-2:])


def _gathered(call: Call, inputs: list[Any]) -> int:
    axis = call.attributes.get("axis", 0)
    return int(inputs[1].size) * int(inputs[0].size) // max(1, inputs[0].shape[axis])


def _written(call: Call, inputs: list[Any]) -> int:
    return math.prod(max(0, int(n)) for n in inputs[0])


def _expanded(call: Call, inputs: list[Any]) -> int:
    return math.prod(np.broadcast_shapes(inputs[0].shape, tuple(max(0, int(n)) for n in inputs[1])))


def _tiled(call: Call, inputs: list[Any]) -> int:
    return math.prod(max(0, int(n)) for n in inputs[1]) * int(inputs[0].size)


def _counted(call: Call, inputs: list[Any]) -> int:
    start, limit, delta = (float(v.item()) for v in inputs)
    return max(0, math.ceil((limit - start) / delta))


def _multiplied(call: Call, inputs: list[Any]) -> int:
    """As many products as there are letters' values: what `Einsum` may make on its way."""
    formula = call.attributes.get("equation", b"")
    text = formula.decode() if isinstance(formula, bytes) else str(formula)
    words = text.replace(" ", "").partition("->")[0].split(",")
    sizes: dict[str, int] = {}
    for word, value in zip(words, inputs, strict=True):
        run = word.replace("...", "." * (value.ndim - len(word.replace("...", ""))))
        sizes |= {f"{c}{i if c == '.' else ''}": n for i, (c, n) in enumerate(zip(run, value.shape, strict=True))}
    return math.prod(sizes.values())


def _inferred(opset: int) -> Size:
    """What ONNX's own inference says of the result; of layers times the weights for one number of it."""

    def size(call: Call, inputs: list[Any]) -> int:
        data = {
            name: numpy_helper.from_array(np.ascontiguousarray(value))
            for name, value in zip(call.inputs, inputs, strict=True)
            if value is not None
        }
        kinds = {name: helper.make_tensor_type_proto(one.data_type, list(one.dims)) for name, one in data.items()}
        imports = [helper.make_opsetid("", opset)]
        schema = onnx.defs.get_schema(call.op, opset)
        found = onnx.shape_inference.infer_node_outputs(schema, call.proto, kinds, data, opset_imports=imports)
        made = sum(math.prod(d.dim_value for d in one.tensor_type.shape.dim) for one in found.values())
        if not found or any(not d.dim_value for one in found.values() for d in one.tensor_type.shape.dim):
            raise Refused("works on constants alone, and snnc does not compute it", UNFOLDED)
        window = call.attributes.get("kernel_shape", inputs[1].shape[2:] if "Conv" in call.op else [])
        return made * math.prod(window) * (inputs[1].shape[1] if call.op == "Conv" else 1)

    return size


# What is folded, and a bound on how large the result gets; of other operations `_inferred` tells it.
SIZES: dict[str, Size] = {
    **dict.fromkeys(
        (
            *("Shape", "Size", "Concat", "Slice", "Split", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Transpose"),
            *("Cast", "CastLike", "Identity", "Neg", "Abs", "Sqrt", "Exp", "Log", "Reciprocal", "Floor", "Ceil"),
            *("Round", "Sign", "Relu", "Not", "ReduceProd", "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin"),
            *("CumSum", "Sin", "Cos", "Tanh", "Sigmoid", "Erf", "Softplus", "Softmax", "Trilu", "EyeLike"),
        ),
        _as_large,
    ),
    **dict.fromkeys(
        (
            *("Add", "Sub", "Mul", "Div", "Pow", "Mod", "Min", "Max", "Sum", "Mean", "Clip", "Where", "Equal"),
            *("Less", "Greater", "LessOrEqual", "GreaterOrEqual", "And", "Or"),
        ),
        _broadcast,
    ),
    "NonZero": lambda call, inputs: int(inputs[0].size) * inputs[0].ndim,
    "MatMul": _product,
    "Einsum": _multiplied,
    "Gather": _gathered,
    "ConstantOfShape": _written,
    "Expand": _expanded,
    "Tile": _tiled,
    "Range": _counted,
}
