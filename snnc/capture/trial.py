"""Whether an operation that symbolic tracing leaves whole is read once `torch.export` has taken it apart.

Only that operation is traced, on tensors without data: a network is not exported to learn that it is refused.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode

from snnc.capture.comparison import quietly
from snnc.capture.exported import ATEN
from snnc.capture.lowering import Lowering
from snnc.capture.refusals import ACTIVATION, PRODUCT, STATE, STATISTICS, reason
from snnc.capture.standins import SAMPLES, caller, leaves, mapped
from snnc.capture.values import LOST, Batch, Dim, Filled, Sizes, Truth, Unknown, innermost
from snnc.capture.walk import walk
from snnc.errors import Blocker

EVERYWHERE = (ACTIVATION, STATISTICS, PRODUCT, STATE)
# Sizes that stand for those of a sample that are not known: even, and all different.
GUESS = (24, 20, 28, 12)


class Trial:
    """Keeps its results, since networks repeat their operations."""

    def __init__(self, lowering: Lowering) -> None:
        self.lowering = lowering
        self.found: dict[str, bool] = {}

    def __call__(self, node: fx.Node, module: nn.Module | None, args: Any, kwargs: Any) -> bool:
        """Whether the door for exported programs reads what `node` does."""
        values = list(leaves((args, kwargs)))
        inputs = list(dict.fromkeys(n for v in values if isinstance(n := _behind(v), fx.Node)))
        if not inputs or any(v is LOST or isinstance(v, (Dim, Sizes, Unknown)) for v in values):
            return False
        shapes = [self._shape(v) for v in inputs]
        form = mapped((args, kwargs), lambda v: inputs.index(v) if isinstance(v, fx.Node) else v)
        key = f"{node.target if module is None else module} {shapes} {form}"
        if key not in self.found:
            self.found[key] = self._try(node, module, args, kwargs, inputs, shapes)
        return self.found[key]

    def _shape(self, node: fx.Node) -> tuple[int, ...]:
        known = self.lowering.shapes.shape(node)
        return GUESS[: (self.lowering.shapes.rank(node) or 4) - 1] if known is None else known

    def _try(
        self, node: fx.Node, module: nn.Module | None, args: Any, kwargs: Any,
        inputs: Sequence[fx.Node], shapes: Sequence[tuple[int, ...]],
    ) -> bool:  # fmt: skip
        like, function = self.lowering.like, caller(node, module)

        def call(*given: Tensor) -> Any:
            tensors = dict(zip(inputs, given, strict=True))

            def real(value: Any) -> Any:
                if isinstance(value, fx.Node):
                    return tensors[value]
                if isinstance(value, Truth):
                    return tensors[value.node] > 0
                if isinstance(value, Filled):
                    return given[0].new_full((SAMPLES, *value.sizes), value.number)
                return SAMPLES if isinstance(value, Batch) else value

            return function(*mapped(args, real), **mapped(kwargs, real))

        try:
            with _in_silence(), FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
                given = [torch.empty((SAMPLES, *shape), dtype=like.dtype, device=like.device) for shape in shapes]
                traced = make_fx(torch.func.functionalize(call))(*given)  # as `run_decompositions` does
        except TypeError:  # the author never called it like that: tracing has not followed the code
            return True
        except Exception:  # whatever the author's functions make of such tensors
            return False
        return _reads(traced, shapes, like)


def _behind(value: Any) -> Any:
    return value.node if isinstance(value, Truth) else value


class _Names(TorchFunctionMode):
    """Notes which functions of torch are called that are refused wherever they stand, and from where."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[tuple[str, str], Blocker] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(getattr(func, "__name__", func)).rstrip("_")
        if (why := reason(name)) in EVERYWHERE:
            where = innermost("".join(traceback.format_stack()))
            self.found.setdefault((name, where), Blocker(name, name, why.why, why.hint, where))
        return func(*args, **(kwargs or {}))


def along_one_path(model: nn.Module, shape: tuple[int, ...], like: Tensor) -> tuple[list[Blocker], bool]:
    """The operations that are refused by name on the path of one batch, and whether the network got through."""
    names, through = _Names(), False
    with suppress(Exception), quietly(), names, torch.random.fork_rng(devices=[]):  # the author's own
        model(torch.rand((2, *shape), dtype=like.dtype, device=like.device))
        through = True
    return list(names.found.values()), through


@contextmanager
def _in_silence() -> Iterator[None]:
    """Without the log of what cannot be run."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _reads(traced: fx.GraphModule, shapes: Sequence[tuple[int, ...]], like: Tensor) -> bool:
    lowering = Lowering(shapes[0], None, like)
    lowering.batch = SAMPLES
    entries = traced.graph.find_nodes(op="placeholder")
    others = {node.name: lowering.stand_in(shape) for node, shape in zip(entries[1:], shapes[1:], strict=True)}
    result = list(leaves(walk(lowering, traced.graph, traced, others, ATEN)))
    if lowering.blockers or not result:
        return False
    return all(isinstance(v, fx.Node) and lowering.cells[v].value is not LOST for v in result)
