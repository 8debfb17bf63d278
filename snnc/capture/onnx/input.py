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
from snnc.ir.shapes import MOST_VALUES

Shape = tuple[int, ...]


def own_shape(model: onnx.ModelProto) -> Shape | None:
    """The shape of one sample according to the model, or None if it leaves a size open or is not sound."""
    try:
        return sample_shape(only_entry(read(model))[0], None)
    except SnncError:  # told where the model is captured
        return None


def only_entry(program: Program) -> tuple[Entry, list[Blocker]]:
    """The input, and what is amiss with inputs and outputs.

    Raises:
        Unsupported: there is no input.
    """
    if not program.entries:
        none = Blocker("input", "input", "the network has no input", "a network that takes one tensor")
        raise Unsupported.of([none])
    entry = program.entries[0]
    found = []
    if entry.kind not in FLOATS:
        why = f"takes values of type {kind_name(entry.kind)}"
        found.append(Blocker(entry.name, "input", why, "export it with float input"))
    hint = "a network with one input; fix the others as initialisers"
    found += [Blocker(other.name, "input", "is a second input", hint) for other in program.entries[1:]]
    hint = "keep the logits alone: onnx.utils.extract_model"
    return entry, found + [Blocker(name, "output", "is a second output", hint) for name in program.results[1:]]


def sample_shape(entry: Entry, told: Shape | None) -> Shape:
    """Shape of one sample as the model takes it.

    Args:
        entry: the model's input.
        told: shape of one sample as the user gives it. It fills in what the model leaves open. It may have its channels
            in front where the model has them last, and be a map where the model takes the same values in a row.

    Raises:
        Unsupported: a size is not known, or `told` is none of these.
    """
    shape = _sample_shape(entry, told)
    if math.prod(shape) > MOST_VALUES:
        raise _unfit(entry, f"takes samples of {math.prod(shape)} values", "a network for smaller samples")
    return shape


def _sample_shape(entry: Entry, told: Shape | None) -> Shape:
    if entry.sizes is None:
        if told is None:
            raise _unfit(entry, "has a shape that is left open", SHAPE_HINT)
        return told
    sizes = entry.sizes[1:]
    if 0 in sizes:
        raise _unfit(entry, "takes samples without a single value", "a network whose samples hold values")
    if not sizes:
        raise _unfit(entry, "has no dimension besides the batch", "a network whose first dimension is the batch")
    whole = tuple(n for n in sizes if n is not None)
    if told is None:
        if len(whole) < len(sizes):
            raise _unfit(entry, "has sizes that are left open", SHAPE_HINT)
        return whole
    for shape in (told, (*told[1:], told[0])):
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


def laid_out(lowering: Lowering, told: Shape, own: Shape) -> fx.Node:
    """The input in the order of the model, which is not always the order of the data."""
    site = Site(lowering, "input", base="layout")
    if told == own:
        return lowering.x
    if own == (*told[1:], told[0]):
        return site.emit(dialect.Permute((0, *range(2, len(told) + 1), 1)), lowering.x)
    return site.emit(dialect.Reshape(own), lowering.x, part="row")
