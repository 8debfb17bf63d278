"""How each module of the dialect is written: the table of this backend, and the rows of what knows about time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from onnx import helper

from snnc.backends.onnx.block import Block, Site, constant_node
from snnc.backends.onnx.functions import ATTRIBUTES, OPSET, parsed
from snnc.backends.onnx.ops import OPS, Emitter
from snnc.backends.onnx.pools import POOLS, leaders
from snnc.files.emitted import DOMAIN
from snnc.ir.dialect import TRAINED
from snnc.ir.neurons import Neuron
from snnc.ir.rows import Refusal, Table
from snnc.ir.temporal import Decode, Encode, GatedMax, Restart, RunningMax, StepCurrent, StepMax, TemporalMax


def decode(at: Site, m: Decode, x: str) -> str:
    """The readout after all steps."""
    return at.call("Decode", x, **readout(m))


def readout(m: Decode) -> dict[str, Any]:
    """What a readout reads, as attributes."""
    return {"T": m.T, "skip": m.skip, "late": m.late, "read": m.read}


def stepped(at: Site, m: StepCurrent, x: str) -> str:
    """A current of its own to each step."""
    return at.call("StepCurrent", x, at.const("shift", m.shift), T=m.T)


def neuron(at: Site, m: Neuron, x: str) -> str:
    """Any neuron, with its own parameters as attributes."""
    parameters = [at.const(name, getattr(m, name)) for name in ("theta", "v0")]
    own = {name: getattr(m, name) for name in ATTRIBUTES[type(m)]}
    more = {name: int(value) if isinstance(value, bool) else value for name, value in own.items()}
    return at.call(at.library.neuron(m, at.rank or 1), x, *parameters, T=m.T, **more)


def pool(at: Site, m: TemporalMax, x: str) -> str:
    """A max pool in time."""
    return at.call(_function(at, m, "Pool", m), x, T=m.T)


def restart(at: Site, m: Restart, x: str) -> str:
    """A max pool in time that starts anew."""
    return at.call(_function(at, m, "Restart", m.body), x, T=m.T, tau=m.tau)


def _function(at: Site, m: Any, outer: str, body: TemporalMax) -> str:
    """The name of the function that lowers a max pool: one for each pool that there is."""
    emitter, kind = EMITTERS(body.pool), type(body).__name__
    EMITTERS(body)  # refuses an unknown kind of pool
    block = Block(constant_node, taken={"steps", "y"})
    inner = replace(at, block=block, out="pooled", label="pooled")
    if isinstance(body, StepMax):
        pooled = emitter(inner, body.pool, block.call("Fold", "steps", out="x"))
    else:
        sums = block.call("Sums", "steps", out="sums")
        if isinstance(body, GatedMax):
            pooled = leaders(inner, body.pool, sums, block.call("Fold", "steps", out="x"))
        else:
            pooled = emitter(inner, body.pool, sums)
    result = block.call("Unfolded", pooled, "steps", out="by_step")
    if isinstance(body, RunningMax):
        result = block.call("Growth", result, out="grown")
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    walk = helper.make_function(
        DOMAIN, f"{kind}Walk", ["steps"], [result], block.nodes, opsets, doc_string=f"{kind} over {body.pool}"
    )
    made = parsed(outer, walk=at.library.keep(walk))
    made.name = type(m).__name__
    return at.library.keep(made)


# Exact: a subclass computes something else than its base, so it must not be written as its base.
EMITTERS: Table[Emitter] = Table(
    "emitters",
    __name__,
    {
        **OPS,
        **POOLS,
        Encode: lambda at, m, x: at.call("Encode", x, T=m.T),
        Decode: decode,
        StepCurrent: stepped,
        tuple(ATTRIBUTES): neuron,
        (RunningMax, GatedMax, StepMax): pool,
        Restart: restart,
        TRAINED: Refusal("belongs to a network that does not spike yet", "the network compiled"),
    },
    exact=True,
)
