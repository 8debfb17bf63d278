"""Whether a graph computes what its network computes: both are run on the same samples.

They may differ by one rounding a layer; where they differ by more, how far rounding drives a result of this network is
measured: by how far the graph in double precision is from itself in single precision on these samples. Of several
outputs each is compared, in the network's own containers, by its own largest value and bound. States and what
depends on the number of samples show in runs of the network: on batches of several sizes, and twice on one. Random
numbers show in the state of their generators.

onnxruntime computes a sigmoid as one half and something more, so that it rounds to the last place of one half however
small the sigmoid is. How far that drives a result is measured too.
"""

from __future__ import annotations

import contextlib
import io
import math
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from snnc.capture.rounding import MOST, Runs
from snnc.capture.values import ORIGIN, PLAIN_HINT, RUN_HINT
from snnc.errors import Blocker
from snnc.ir.graph import calls, entries, flat, result
from snnc.ir.shapes import ONE_TYPE
from snnc.ir.whole import noise, places
from snnc.structure import OUTPUT, Samples, Shape, alike, changed, each, fault, leaves, named, of, told

SIZES = (3, 1, 2)
MANY = (*SIZES[:-1], 40, SIZES[-1])  # where tracing could not keep the number of samples open
# Two ways to round may part by this many times what single precision differs from double.
HINT = (
    "write forward so that it does the same for every input: no state, no random numbers, and no question about the "
    "input's type, its number of samples or who is calling"
)
FILE_HINT = (
    "report it with the file: a program or an ONNX model does the same for every input, so snnc reads it wrongly"
)
STATE_HINT = "take states and random numbers out of forward, or put them under `if self.training:`"

Run = Callable[[Samples], Any]


@dataclass
class Reference:
    """The network that a graph was captured from, as something to run.

    Attributes:
        run: a batch to what the network gives.
        name: what it is called in records.
        like: a tensor with the dtype and device of its input.
        batch: the number of samples that it takes, where it takes no other.
        sizes: of the batches that are run otherwise.
        precision: relative rounding of what it computes in.
        module: where it is one, to tell at which layer it parts.
        halves: it rounds a sigmoid to the last place of one half.
        values: where it is none, a batch to its values by name, to tell the same.
    """

    run: Run
    name: str
    like: Tensor
    batch: int | None = None
    sizes: tuple[int, ...] = SIZES
    precision: float = float(torch.finfo(torch.float32).eps)
    module: nn.Module | None = None
    halves: bool = False
    values: Callable[[Samples], dict[str, Any]] | None = None


def not_compared(why: str) -> dict[str, Any]:
    """The record where nothing was run."""
    return {"with": None, "samples": None, "shape": None, "batches": [], "error": None, "bound": None, "why": why}


def compare(
    graph: fx.GraphModule, network: Reference, shape: Shape, samples: Samples | None = None
) -> tuple[dict[str, Any], Blocker | None]:
    """Runs a graph and its network on the same batches.

    Args:
        graph: of stage ANN, on the device of `network.like`.
        network: what it was captured from.
        shape: of one sample; of several inputs one shape each.
        samples: real ones; random ones where None.

    Returns:
        What was compared, as plain data, and what is wrong, or None where the two agree. The data:
        "with" what, on which "samples", "batches" (their sizes), the largest "error" and the "bound" that rounding
        explains, both relative to the largest value of an output, and of all outputs the largest.
    """
    if network.like.device.type == "meta":
        return not_compared("the network's weights have no values"), None
    record: dict[str, Any] = {"with": network.name, "samples": "random" if samples is None else "given"}
    sizes = [list(one) if isinstance(one, tuple) else one for one in shape]
    record |= {"shape": sizes, "batches": [], "error": 0.0, "bound": 0.0, "why": ""}
    with quietly():
        batches = _batches(graph, network, shape, samples)
        for x in batches:
            before = _generators()
            try:
                want = network.run(x.clone())
                again = network.run(x.clone()) if x is batches[-1] else want
            except Exception as failure:
                if len(x) == 1 and len(batches) > 1:  # such as one that squeezes the batch away: that is its own matter
                    continue
                why = f"fails on {len(x)} samples of shape {told(shape)} ({type(failure).__name__}: {_line(failure)})"
                return record, Blocker("network", "forward", why, RUN_HINT)
            record["batches"].append(len(x))
            if (why := fault(want)) or not all(isinstance(value, Tensor) for value in leaves(want)):
                why = why or "holds something that is no tensor"
                return record, Blocker("output", "output", why, PLAIN_HINT)
            if not alike(want, result(graph)):
                why = "is put together in another way when the network runs than when it is read"
                return record, Blocker("output", "output", why, HINT)
            if _generators() != before:
                return record, Blocker("network", "forward", "draws random numbers at inference", STATE_HINT)
            if not alike(want, again) or not all(
                _same(a, b, network.precision) for a, b in zip(leaves(want), leaves(again), strict=True)
            ):
                return record, Blocker("network", "forward", "gives two results for the same samples", STATE_HINT)
            try:
                runs = Runs(graph, x, network.precision, network.halves)
                for name, value in named(want).items():
                    error, bound, parts = runs.apart(name, value.detach())
                    record["error"], record["bound"] = max(record["error"], error), max(record["bound"], bound)
                    if parts:
                        return record, _blocker(graph, network, x, error, name)
            except RuntimeError as failure:  # such as weights of several types
                why = f"fails on {len(x)} samples of shape {told(shape)} once it is a graph ({_line(failure)})"
                kinds = {value.dtype for value in graph.state_dict().values() if value.is_floating_point()}
                return record, Blocker("network", "forward", why, ONE_TYPE if len(kinds) > 1 else RUN_HINT)
    return record, None


def _generators() -> tuple[Any, ...]:
    """The states of the random generators that a network may draw from."""
    numpy: Any = np.random.get_state()  # noqa: NPY002 (whatever a network draws from)
    return random.getstate(), numpy[1].tobytes(), numpy[2:], torch.get_rng_state().numpy().tobytes()


def _line(failure: Exception) -> str:
    return str(failure).strip().split("\n", maxsplit=1)[0].rstrip(".")


def _batches(graph: fx.GraphModule, network: Reference, shape: Shape, samples: Samples | None) -> list[Samples]:
    sizes = network.sizes if network.batch is None else (network.batch,)
    most = max(sizes)
    if samples is None:
        x = noise(graph, most, shape)
    else:
        x = changed(lambda one: one.detach().repeat(math.ceil(most / len(one)), *[1] * (one.dim() - 1)), samples)
    whole = {node.name for node in places(graph)}
    values = [
        one.to(network.like.device, torch.int64) if node.name in whole else one.to(network.like)
        for node, one in zip(entries(graph), each(x), strict=True)
    ]
    return [of([one[:size] for one in values]) for size in sizes]


def _same(a: Tensor, b: Any, precision: float) -> bool:
    """Whether two runs gave the same; on some devices sums are not the same to the last bit."""
    if not isinstance(b, Tensor) or a.shape != b.shape:
        return False
    slack = MOST * precision * float(a.abs().nan_to_num().max()) if a.numel() else 0.0
    return torch.allclose(a, b, rtol=0, atol=slack, equal_nan=True)


def _blocker(graph: fx.GraphModule, network: Reference, x: Samples, error: float, name: str) -> Blocker:
    how = "of another shape" if math.isinf(error) else f"off by {error:.2g} of the largest output"
    how = how if name == OUTPUT else f"'{name}' {how}"
    why = f"computes something else than the graph that was read from it ({how}), which is more than rounding"
    hint = FILE_HINT if network.module is None else HINT
    found = None
    with contextlib.suppress(Exception):  # whatever runs the network may not give what is inside it
        found = _first(graph, network, x)
    return (
        Blocker(*found, f"is the first layer that {why}", hint) if found else Blocker("network", "forward", why, hint)
    )


def _first(graph: fx.GraphModule, network: Reference, x: Samples) -> tuple[str, str] | None:
    """Name and class of the first layer whose value differs, of those that stand for one value of the network."""
    values, known = Values(graph), _told(network, x)
    values.run(*each(x))
    for node, layer in calls(graph):
        have, want = values.found[node], known(node, layer)
        if isinstance(want, Tensor) and want.shape == have.shape and want.is_floating_point():
            slack = 1e-4 * float(want.abs().max()) if want.numel() else 0.0
            if not torch.allclose(have, want.to(have), rtol=0, atol=slack, equal_nan=True):
                return node.name, type(layer).__name__
    return None


def _told(network: Reference, x: Samples) -> Callable[[fx.Node, nn.Module], Any]:
    """What gives the network's value for a node of the graph and its layer; None where that is not known."""
    if network.module is not None:
        seen = _outputs(network, network.module, x)
        return lambda node, layer: seen.get(
            node.name, seen.get(node.name.removeprefix(f"{type(layer).__name__.lower()}_"))
        )
    found = network.values(x.clone()) if network.values else {}
    return lambda node, _: found.get(node.meta.get(ORIGIN, ""))


def _outputs(network: Reference, module: nn.Module, x: Samples) -> dict[str, Tensor]:
    """What each module gives that is called once."""
    seen: dict[str, list[Tensor]] = {}

    def keep(name: str) -> Any:
        def hook(_: Any, __: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                seen.setdefault(name, []).append(output.detach().clone())

        return hook

    handles = [child.register_forward_hook(keep(flat(path))) for path, child in module.named_modules() if path]
    try:
        network.run(x.clone())
    finally:
        for handle in handles:
            handle.remove()
    return {name: found[0] for name, found in seen.items() if len(found) == 1}


class Values(fx.Interpreter):
    """Keeps the value of every node."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.found: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.found[n] = super().run_node(n)
        return self.found[n]


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Runs somebody's network without gradients, warnings, and what it prints."""
    with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
