"""The input of an ONNX model: which it is, its shape, and the order in which data have to reach it."""

from __future__ import annotations

import math

import onnx
from torch import fx

from snnc.capture.lowering import Lowering, Site
from snnc.capture.onnx.model import Entry, Program, kind_name, read
from snnc.capture.onnx.operations import FLOATS
from snnc.capture.values import SHAPE_HINT
from snnc.errors import Blocker, SnncError, Unsupported
from snnc.ir import dialect
from snnc.ir.graph import flat
from snnc.ir.shapes import MOST_VALUES
from snnc.structure import Shape as AnyShape
from snnc.structure import shapes_of

Shape = tuple[int, ...]
WHOLE = (onnx.TensorProto.INT64, onnx.TensorProto.INT32)


def own_shape(model: onnx.ModelProto) -> AnyShape | None:
    """The shape of one sample according to the model, or None if it leaves a size open or is not sound."""
    try:
        return sample_shapes(read(model), None)
    except SnncError:  # told where the model is captured
        return None


def names(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the inputs as arguments; () where the model is not sound."""
    try:
        return named(read(model))
    except SnncError:
        return ()


def named(program: Program) -> tuple[str, ...]:
    """Names of the inputs as arguments: identifiers, like the names in the file."""
    found: list[str] = []
    for entry in program.entries:
        name = flat(entry.name)
        name = name if name.isidentifier() else f"x_{name}"
        while name in found:
            name += "_"
        found.append(name)
    return tuple(found)


def checked_entries(program: Program) -> list[Blocker]:
    """What is amiss with the inputs.

    Raises:
        Unsupported: there is no input.
    """
    if not program.entries:
        none = Blocker("input", "input", "the network has no input", "a network that takes one tensor")
        raise Unsupported.of([none])
    return [
        Blocker(entry.name, "input", f"takes values of type {kind_name(entry.kind)}", "export it with float input")
        for entry in program.entries
        if entry.kind not in (*FLOATS, *WHOLE)
    ]


def sample_shapes(program: Program, told: AnyShape | None) -> AnyShape:
    """Shape of one sample as the model takes it, of several inputs one each; see `sample_shape`."""
    checked_entries(program)
    many = len(program.entries)
    given = shapes_of(told, many)
    found = [sample_shape(entry, one, many > 1) for entry, one in zip(program.entries, given, strict=True)]
    return tuple(found) if many > 1 else found[0]


def sample_shape(entry: Entry, told: Shape | None, scalar: bool = False) -> Shape:
    """Shape of one sample as the model takes it.

    Args:
        entry: the model's input.
        told: shape of one sample as the user gives it. It fills in what the model leaves open. It may have its channels
            in front where the model has them last, and be a map where the model takes the same values in a row.
        scalar: a sample may be a single number, as beside other inputs.

    Raises:
        Unsupported: a size is not known, or `told` is none of these.
    """
    shape = _sample_shape(entry, told, scalar)
    if math.prod(shape) > MOST_VALUES:
        raise _unfit(entry, f"takes samples of {math.prod(shape)} values", "a network for smaller samples")
    return shape


def _sample_shape(entry: Entry, told: Shape | None, scalar: bool) -> Shape:
    if entry.sizes is None:
        if told is None:
            raise _unfit(entry, "has a shape that is left open", SHAPE_HINT)
        return told
    sizes = entry.sizes[1:]
    if 0 in sizes:
        raise _unfit(entry, "takes samples without a single value", "a network whose samples hold values")
    if not sizes and not (scalar and len(entry.sizes) == 1):
        raise _unfit(entry, "has no dimension besides the batch", "a network whose first dimension is the batch")
    whole = tuple(n for n in sizes if n is not None)
    if told is None:
        if len(whole) < len(sizes):
            raise _unfit(entry, "has sizes that are left open", SHAPE_HINT)
        return whole
    for shape in (told, (*told[1:], *told[:1])):
        if len(shape) == len(sizes) and all(have in (None, n) for have, n in zip(sizes, shape, strict=True)):
            return shape
    if len(whole) == len(sizes) and math.prod(whole) == math.prod(told):
        one, other = ([n for n in shape if n != 1] for shape in (whole, told))
        if one == other or len(one) <= 1:
            return whole
    wanted = ",".join("?" if n is None else str(n) for n in sizes)
    why = f"takes samples of shape {wanted}, not {','.join(map(str, told))}"
    raise _unfit(entry, why, f"samples of shape {wanted}, with their channels in front if you like")


def _unfit(entry: Entry, why: str, hint: str) -> Unsupported:
    return Unsupported.of([Blocker(entry.name, "input", why, hint)])


def laid_out(lowering: Lowering, entry: fx.Node, told: Shape, own: Shape) -> fx.Node:
    """An input in the order of the model, which is not always the order of the data."""
    site = Site(lowering, "input", base="layout")
    if told == own:
        return entry
    if own == (*told[1:], told[0]):
        return site.emit(dialect.Permute((0, *range(2, len(told) + 1), 1)), entry)
    return site.emit(dialect.Reshape(own), entry, part="row")
