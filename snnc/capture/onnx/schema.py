"""A node held against the schema of its operator, and against what was read of it.

ONNX defines for every version of an operator which inputs, outputs and attributes it has. A node that has others is
malformed, and an attribute that nobody reads might have meant something: both are refused by name.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import onnx
from onnx import defs, helper

from snnc.capture.onnx.model import AGAIN, Call
from snnc.capture.values import Refused

# Attributes without effect on what snnc takes.
IDLE: dict[str, frozenset[str]] = {
    "BatchNormalization": frozenset({"momentum"}),  # of statistics that are constants
    "Cast": frozenset({"saturate", "round_mode"}),  # of floats of 8 bits
    "CastLike": frozenset({"saturate", "round_mode"}),
    "Dropout": frozenset({"ratio", "seed"}),  # nothing is dropped at inference
    "MaxPool": frozenset({"storage_order"}),  # of the places of maxima
    "Resize": frozenset({"cubic_coeff_a", "exclude_outside", "extrapolation_value"}),  # of modes other than nearest
}
_KINDS = onnx.AttributeProto.AttributeType


def check(call: Call, opset: int) -> None:
    """Refuses a node that its operator's schema does not allow.

    Args:
        call: a node of one of ONNX's own operators.
        opset: version of ONNX's operators.

    Raises:
        Refused: no such operator in this version; or an input, output or attribute that it has not, or lacks.
    """
    schema = _schema(call.op, opset)
    given = {attribute.name: attribute for attribute in call.proto.attribute}
    for name, attribute in given.items():
        if name not in schema.attributes:
            raise Refused(f"has an attribute '{name}', which opset {opset} does not know", AGAIN)
        if attribute.type != (kind := schema.attributes[name].type.value):
            was, wanted = (_KINDS.Name(k).lower() for k in (attribute.type, kind))
            raise Refused(f"has an attribute '{name}' of kind {was}, and not {wanted}", AGAIN)
    for name, attribute in schema.attributes.items():
        if attribute.required and name not in given:
            raise Refused(f"lacks the attribute '{name}'", AGAIN)
    for what, names, least, most in (
        ("input", call.inputs, schema.min_input, schema.max_input),
        ("output", call.outputs, schema.min_output, schema.max_output),
    ):
        if not least <= len(names) <= most:
            bound = f"{least}" if least == most else f"{least} to {most}"
            raise Refused(f"has {len(names)} {what}s, where opset {opset} has {bound}", AGAIN)
    needed = [entry.name for entry in schema.inputs if entry.option == entry.option.Single]
    if missing := [name for name, value in zip(needed, call.inputs, strict=False) if not value]:
        raise Refused(f"leaves its input '{missing[0]}' out", AGAIN)


def check_read(call: Call, opset: int, read: Set[str]) -> None:
    """Refuses a node with an attribute that was not read, and does not say what goes without saying.

    Args:
        call: a node that `check` allows.
        opset: version of ONNX's operators.
        read: names of attributes that were taken into account.

    Raises:
        Refused: there is one.
    """
    schema = _schema(call.op, opset)
    for name, value in call.attributes.items():
        if name in read or name in IDLE.get(call.op, ()):
            continue
        if value != _default(schema, name):
            raise Refused(f"has {name} = {value!r}, which snnc does not take into account", "export it without that")


def _schema(op: str, opset: int) -> Any:
    try:
        schema = defs.get_schema(op, opset, "")
    except Exception as error:  # onnx's own kind has no public name in older versions
        raise Refused(f"is no operator of opset {opset}", AGAIN) from error
    if schema.deprecated:
        raise Refused(f"is no operator of opset {opset} any more", AGAIN)
    return schema


def _default(schema: Any, name: str) -> Any:
    default = schema.attributes[name].default_value
    value = helper.get_attribute_value(default) if default.name else None
    return value.decode() if isinstance(value, bytes) else value
