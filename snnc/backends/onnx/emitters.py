"""How each module of the dialect is written: the table of this backend, and the rows of what knows about time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from onnx import helper
from torch import nn

from snnc.backends.onnx.block import Block, EmitSite, constant_node
from snnc.backends.onnx.curved import CURVED
from snnc.backends.onnx.functions import ATTRIBUTES, OPSET, parsed, several
from snnc.backends.onnx.ops import OPS, Emitter
from snnc.backends.onnx.pools import POOLS, leaders
from snnc.files.emitted import DOMAIN
from snnc.ir.curved import degree
from snnc.ir.dialect import TRAINED
from snnc.ir.neurons import Neuron
from snnc.ir.rows import Refusal, Table
from snnc.ir.temporal import (
    Decode,
    Encode,
    FrameMean,
    Frames,
    GatedMax,
    Restart,
    RunningMax,
    StepCurrent,
    StepMax,
    Telescoped,
)


def decode(at: EmitSite, m: Decode, x: str) -> str:
    """The readout after all steps."""
    return at.call("Decode", x, **readout(m))


def readout(m: Decode) -> dict[str, Any]:
    """What a readout reads, as attributes."""
    return {"T": m.T, "skip": m.skip, "late": m.late, "read": m.read}


def stepped(at: EmitSite, m: StepCurrent, x: str) -> str:
    """A current of its own to each step."""
    return at.call("StepCurrent", x, at.const("shift", m.shift), T=m.T)


def neuron(at: EmitSite, m: Neuron, x: str) -> str:
    """Any neuron, with its own parameters as attributes."""
    parameters = [at.const(name, getattr(m, name)) for name in ("theta", "v0")]
    own = {name: getattr(m, name) for name in ATTRIBUTES[type(m)]}
    more = {name: int(value) if isinstance(value, bool) else value for name, value in own.items()}
    return at.call(at.library.neuron(m, at.rank or 1), x, *parameters, T=m.T, **more)


def pool(at: EmitSite, m: Any, *x: str) -> str:
    """A curved operation in time."""
    return at.call(_function(at, m, "Pool", m, len(x)), *x, T=m.T)


def restart(at: EmitSite, m: Restart, *x: str) -> str:
    """A curved operation in time that starts anew."""
    return at.call(_function(at, m, "Restart", m.body, len(x)), *x, T=m.T, tau=m.tau)


def _function(at: EmitSite, m: Any, outer: str, body: Any, count: int) -> str:
    """The name of the function that lowers a curved operation of `count` inputs: one for each that there is."""
    EMITTERS(body)  # refuses an unknown kind of operation in time
    steps = ["steps", *(f"steps{k}" for k in range(1, count))]
    block = Block(constant_node, taken={*steps, "y"})
    inner = replace(at, block=block, out="pooled", label="pooled")
    inside = body.body if isinstance(body, Telescoped) else body.pool
    if isinstance(body, Telescoped):
        result = _grown(inner, inside, steps)
    else:
        emitter = EMITTERS(inside)
        if isinstance(body, StepMax):
            pooled = emitter(inner, inside, block.call("Fold", "steps", out="x"))
        else:
            sums = block.call("Sums", "steps", out="sums")
            pooled = leaders(inner, inside, sums, block.call("Fold", "steps", out="x"))
        result = block.call("Unfolded", pooled, "steps", out="by_step")
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    kind = type(body).__name__
    walk = helper.make_function(
        DOMAIN, f"{kind}Walk", steps, [result], block.nodes, opsets, doc_string=f"{kind} over {inside}"
    )
    made = parsed(outer, walk=at.library.keep(walk), **several(count))
    made.name = type(m).__name__
    return at.library.keep(made)


def _grown(at: EmitSite, body: Any, steps: list[str]) -> str:
    """The growth of `t f(mean up to step t)`; see `Telescoped` for the case of a homogeneous f."""
    d = degree(body)
    kind = "MeansFolded" if d is None else "Sums"
    sums = [at.block.call(kind, one, out=f"sums{k or ''}") for k, one in enumerate(steps)]
    by_step = at.block.call("Unfolded", EMITTERS(body)(at, body, *sums), "steps", out="by_step")
    if d != 1:
        count = at.block.call("Numbers", by_step, out="count")
        for turn in range(abs(1 - (d or 0))):
            by_step = at.block.op("Mul" if (d or 0) < 1 else "Div", by_step, count, out=f"times{turn}")
    return at.block.call("Growth", by_step, out="grown")


def frames(at: EmitSite, m: Frames, x: str) -> str:
    """Frames stand second in a sample; time comes first where it is folded."""
    steps = at.op("Transpose", x, part="steps", perm=[1, 0, *range(2, at.dimensions(m))])
    return at.call("Fold", steps)


# Exact: a subclass computes something else than its base, so it must not be written as its base.
EMITTERS: Table[Emitter] = Table(
    "emitters",
    __name__,
    {
        **OPS,
        **POOLS,
        **CURVED,
        Encode: lambda at, m, x: at.call("Encode", x, T=m.T),
        Frames: frames,
        Decode: decode,
        StepCurrent: stepped,
        tuple(ATTRIBUTES): neuron,
        (Telescoped, RunningMax, GatedMax, StepMax): pool,
        Restart: restart,
        (FrameMean, *TRAINED): Refusal("belongs to a network that does not spike yet", "the network compiled"),
    },
    exact=nn.Module,
)
