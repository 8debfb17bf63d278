"""What a spiking file calls: functions of the domain `snnc`, which the file brings.

    s = snnc.IF <T = 8> (current, theta, v0)

So any runtime of ONNX runs it, and it reads as a spiking network. Neither the file nor its export grows with T, and of
the forms that were measured this is the fastest as well: see decision 17. Results are those of `snnc.ir.neurons` and
`snnc.ir.temporal`, to the bit where sums are exact.
"""

from __future__ import annotations

import itertools
import re
from string import Template
from typing import Any

import onnx
from onnx import parser

from snnc.backends.onnx.count_texts import COUNT_TEXTS
from snnc.backends.onnx.neurons import FIRST, NEURON_TEXTS, SHIFT
from snnc.backends.onnx.time import TIME_TEXTS
from snnc.files.emitted import DOMAIN
from snnc.ir.neurons import IF, AverageIF, BipolarIF, GradedIF, Neuron, OffsetIF, ResidualMaskIF, SignedIF, WaitingIF
from snnc.ir.neurons.residual_mask import MARGIN

# Opset 17 has each comparison as one operator, and nothing that came later would make a file smaller or faster. Files
# of it were run in onnxruntime 1.16 (2023), 1.17, 1.20 and 1.31; 1.15 mixes up names when it writes functions out.
OPSET, IR_VERSION = 17, 8

# Every neuron that has a function, and what that takes as attributes beside T.
ATTRIBUTES: dict[type[Neuron], tuple[str, ...]] = {
    IF: (),
    SignedIF: (),
    AverageIF: (),
    GradedIF: ("bits",),
    BipolarIF: ("units",),
    WaitingIF: ("wait",),
    OffsetIF: ("rho", "iterations", "guard", "eps"),
    ResidualMaskIF: ("tau",),
}

_TEXTS = {**TIME_TEXTS, **NEURON_TEXTS, **COUNT_TEXTS}
_COUNTING = {"Walk", *(cls.__name__ for cls in ATTRIBUTES)}  # those that have a form which emits counts


# What a neuron of either sign holds besides its potential, where its sum stays above zero, and where it is free.
FREE = dict.fromkeys(("none", "held_out", "held_in", "holds_out", "none_in", "holds"), "") | {
    "bounded": "count = Clip (exact, least, most)"
}
RECTIFIED = {
    "none": "zero = Constant <value_float = 0.0> ()\n        none = snnc.Start (steps, zero)",
    "held_out": "tracer,",
    "held_in": "float[$dims] held,",
    "holds_out": "float[$dims] holds,",
    "none_in": "none,",
    "bounded": "clipped = Clip (exact, least, most)\n owed = Neg (held)\n count = Max (clipped, owed)",
    "holds": "holds = Add (held, count)",
}


def parsed(name: str, rank: int = 0, /, **blanks: str) -> onnx.FunctionProto:
    """A function by its name: one of those above; "Unit" before one that emits spikes; its rank behind one with a loop.

    Args:
        name: such as "Encode", "UnitIF", "Walk4".
        rank: dimensions of a step's value, the batch included, where the name does not tell it.
        blanks: fill the text in.
    """
    kind = name.rstrip("0123456789")
    rank = int(name.removeprefix(kind) or rank)
    unit = kind.removeprefix("Unit") in _COUNTING and kind.startswith("Unit")
    dims = ", ".join("?" * rank)
    blanks = {blank: Template(text).safe_substitute(dims=dims) for blank, text in blanks.items()}
    text = Template(_TEXTS[kind.removeprefix("Unit") if unit else kind]).substitute(
        u="Unit" if unit else "",
        emits="count" if unit else "charge",
        height="" if unit else "charge = Mul (count, theta)",
        mask_margin=MARGIN,
        shift_margin="margin = Constant <value_float = 1.0> ()" if unit else "margin = Mul (theta, eps)",
        rank=rank,
        dims=dims,
        less=", ".join("?" * (rank - 1)),
        **blanks,
    )
    # Constants may be written without their types, which the parser asks for.
    text = re.sub(r"<value_(int|float) = ", r"<value_\1: \1 = ", text)
    text = re.sub(r"<value_ints = ", "<value_ints: ints = ", text)
    header = f'<domain: "{DOMAIN}", opset_import: ["" : {OPSET}, "{DOMAIN}" : 1]>'
    return parser.parse_function(f"{header} {name} {text}")


def several(count: int) -> dict[str, Any]:
    """What fills in a function of `count` inputs, of which the first has its place in the text."""
    more = range(1, count)

    def lines(text: str) -> str:
        return "\n        ".join(Template(text).substitute(k=k) for k in more)

    def names(name: str) -> str:
        return "".join(f", {name}{k}" for k in more)

    return {
        "more": names("x"),
        "others": names("steps"),
        "firsts": names("first"),
        "seconds": names("second"),
        "unfold": lines("steps$k = snnc.Unfold <T: int = @T> (x$k)"),
        "cut": lines("first$k = Slice (steps$k, zero, turn)\n        second$k = Slice (steps$k, turn, end)"),
    }


def called(nodes: Any) -> list[str]:
    """Functions of `snnc` that nodes call, in order of appearance."""
    return list(dict.fromkeys(node.op_type for node in nodes if node.domain == DOMAIN))


class Library:
    """The functions of one file."""

    def __init__(self) -> None:
        self.functions: dict[str, onnx.FunctionProto] = {}

    def neuron(self, neuron: Neuron, rank: int) -> str:
        """The name of a neuron's function, for values of `rank` dimensions."""
        name = ("Unit" if neuron.unit else "") + type(neuron).__name__
        blanks = {}
        if isinstance(neuron, OffsetIF):
            blanks["last"] = str(neuron.iterations)
            blanks["shifts"] = "\n".join(
                Template(SHIFT).substitute(k=k, after=k + 1, rank=rank, wants="" if k else FIRST)
                for k in range(neuron.iterations)
            )
        if isinstance(neuron, BipolarIF):
            blanks = RECTIFIED if neuron.rectified else FREE
        return self.keep(parsed(name, rank, **blanks))

    def keep(self, made: onnx.FunctionProto) -> str:
        """Keeps a function under its name, with a number where another has that name; gives the name."""
        kind = made.name
        for number in itertools.count(2):
            if self.functions.setdefault(made.name, made) == made:
                return made.name
            made.name = f"{kind}_{number}"
        raise AssertionError("numbers do not end")

    def needed(self, nodes: Any) -> list[onnx.FunctionProto]:
        """Every function that nodes call, directly or by way of others, each behind those that it calls."""
        found: dict[str, onnx.FunctionProto] = {}

        def gather(nodes: Any) -> None:
            for name in called(nodes):
                if name not in found:
                    made = self.functions[name] if name in self.functions else parsed(name)
                    gather(made.node)
                    found[name] = made

        gather(nodes)
        return list(found.values())
