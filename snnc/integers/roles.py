"""What each module does with grids of integers: the table that guides `prepare` and `populations`."""

from __future__ import annotations

import enum

from torch import fx

from snnc.ir import dialect
from snnc.ir.curved import BENT
from snnc.ir.dialect import Affine, Concat, Grid, Mean
from snnc.ir.embedding import Embedding
from snnc.ir.graph import module_of
from snnc.ir.neurons import BipolarIF, Neuron
from snnc.ir.rows import Refusal, Table
from snnc.ir.temporal import Decode, Encode, Frames, Restart, StepCurrent, Telescoped, TemporalMax


class Role(enum.Enum):
    """What a module does with a grid."""

    LAYER = enum.auto()  # weights
    JOIN = enum.auto()  # adds values of one grid
    FACTOR = enum.auto()
    AVERAGE = enum.auto()
    MEAN = enum.auto()
    CONCAT = enum.auto()
    ROUTE = enum.auto()
    MAX = enum.auto()
    WALK = enum.auto()  # a max pool in time
    STEP = enum.auto()  # adds currents of its own
    NEURON = enum.auto()
    ENCODE = enum.auto()
    DECODE = enum.auto()
    HEAD = enum.auto()
    GRID = enum.auto()


WIDE = frozenset({Role.LAYER, Role.JOIN, Role.FACTOR})  # the result may have a grid of its choice
LINEAR = WIDE | {Role.AVERAGE, Role.MEAN, Role.CONCAT}
STILL = frozenset({Role.CONCAT, Role.ROUTE, Role.MAX, Role.AVERAGE, Role.ENCODE})  # act on the grid as on the value

ROLES: Table[Role] = Table(
    "roles",
    __name__,
    {
        (*dialect.WEIGHTED, dialect.Mix): Role.LAYER,  # `prepare` makes one of a mix
        (dialect.Add, dialect.Sub): Role.JOIN,
        Affine: Role.FACTOR,
        dialect.AVERAGE_POOLS: Role.AVERAGE,
        Mean: Role.MEAN,
        dialect.ROUTES: Role.ROUTE,
        Concat: Role.CONCAT,
        dialect.MAX_POOLS: Role.MAX,
        (TemporalMax, Restart): Role.WALK,
        StepCurrent: Role.STEP,
        Neuron: Role.NEURON,
        (Encode, Frames): Role.ENCODE,
        Decode: Role.DECODE,
        dialect.HEADS: Role.HEAD,
        Grid: Role.GRID,
        (*BENT, Telescoped, BipolarIF): Refusal(
            "gives no integers that every runtime would agree on",
            "the network without fixed-point, or trained with ReLU in its place",
        ),
        Embedding: Refusal(
            "looks a table up, whose rows lie on no grid of the input", "the network without fixed-point"
        ),
        dialect.TRAINED: Refusal("does not spike, and only spikes are integers", "insert-neurons before fixed-point"),
    },
)


def role(graph: fx.GraphModule, node: fx.Node) -> Role | None:
    """The role of a node; None for inputs and outputs.

    Raises:
        SnncError: its module cannot compute with integers.
    """
    return ROLES.at(node.name, module_of(graph, node)) if node.op == "call_module" else None
