"""Which runtime a network gets: decided when it first runs, and checked there against the reference.

The reference is `Runner`, which calls the modules of the graph. The fast one follows a plan. It is taken where the
machine and the network have something for it, and only after a few samples have given the same output, bit for bit,
in both. Otherwise the reference runs, and where that comes as a surprise the log says so, once.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, fx

from snnc.errors import SnncError
from snnc.ir.graph import entries
from snnc.ir.whole import places
from snnc.runtime.cpu import scan
from snnc.runtime.fast import FastRunner
from snnc.runtime.gpu import scan as gpu
from snnc.runtime.gpu.replay import ReplayRunner
from snnc.runtime.gpu.scan import GpuScan
from snnc.runtime.plan import plan, proved
from snnc.runtime.runner import Observer, Runner
from snnc.structure import Samples, Tree, each, leaves, of

# Of a round, all measured: few rows pay for calls and for reading weights anew, many leave the cache.
TILE, MOST, ROWS = 4 << 20, 16 << 20, 64  # bytes of the largest value, or as many rows as fit into `MOST`
STEPS = 8  # of a round, where there are more: potentials are read and written once a round
SETTINGS = (bool, int, float, str, tuple)  # of a module: steps, strides, whether it is a unit
ACTS = ("forward", "walk", "step", "initial")  # methods of a module that a kernel stands for
SURPRISE = "The fast runtime is off, and the reference runs in its place: %s."
log = logging.getLogger("snnc")


@dataclass(frozen=True)
class Choice:
    """The runtime of one network, as it was when chosen.

    Attributes:
        reference: walks the modules.
        final, steps, seen: give the last readout, every readout, and every value; the reference three times where
            there is nothing faster.
        rows: time steps x samples of a round at most; 0 where the order of sums would tell how many there were.
        name: "reference", or what is fast.
    """

    reference: Runner
    final: Runner
    steps: Runner
    seen: Runner
    rows: int
    name: str

    def runner(self, anytime: bool, observe: Observer | None) -> Runner:
        """The runner for one kind of call."""
        return self.seen if observe else self.steps if anytime else self.final

    def round(self, chunk: int) -> tuple[int, int]:
        """Samples and rows of one round, of at most `chunk` rows where that holds one sample's steps."""
        rows, T = min(chunk, self.rows or chunk), self.reference.T
        shown = min(T, STEPS) if self.rows and self.reference.streaming else T
        return max(1, rows // shown), rows


def choose(graph: fx.GraphModule, fixed: bool, runtime: str, x: Samples, chunk: int) -> Choice:
    """Chooses for a network and an input that it takes.

    Args:
        graph: the spiking graph.
        fixed: whether it is of stage FIXED.
        runtime: one of `RUNTIMES`; "fast" insists.
        x: checked input; one sample of it serves as the probe.
        chunk: rows in memory at once.

    Raises:
        SnncError: there is no fast runtime, and `runtime` insists on one.
    """
    reference = Runner(graph)
    plain = Choice(reference, reference, reference, reference, 0, "reference")
    found, reason = None, "neither this machine nor this network has anything for it"
    if runtime == "reference":
        return plain
    if runtime == "fast" or _promising(graph, fixed):
        # States pass from window to window, also here. What the reference refuses is the caller's error.
        window = min((reference.T + 1) // 2, 2 * STEPS, chunk) if reference.streaming else reference.T
        with torch.inference_mode(False), torch.no_grad():  # a plan outlives the mode that it is made in
            probe = _probe(graph, x)[: max(1, chunk // window)]
            want = reference.run(probe, window), reference.run(probe, window, anytime=True)
            try:
                found = _fast(graph, fixed, reference, probe, window)
                if found and not _agrees(found, probe, window, *want):
                    found, reason = None, "its output differs from the reference on this machine"
                    log.warning(SURPRISE, reason)
            except Exception as error:  # whatever a compiler or a kernel of this machine comes up with
                found, reason = None, (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
                log.warning(SURPRISE, reason)
    if found is None and runtime == "fast":
        raise SnncError(
            f"There is no fast runtime for this network here: {reason}.",
            "the runtime 'auto', pip install 'snnc[fast]', or a network compiled with --fixed-point",
        )
    return found or plain


def _promising(graph: fx.GraphModule, fixed: bool) -> bool:
    """Whether a fast plan is possible: numbers of a type that fast code takes, and something to run them with."""
    usual = all(t.dtype == torch.float32 or not t.is_floating_point() for t in _tensors(graph))
    place = _place(graph)
    there = gpu.available() if place == "cuda" else place == "cpu" and (fixed or scan.available())
    return usual and there


def _tensors(graph: fx.GraphModule) -> list[Tensor]:
    return [*graph.parameters(), *graph.buffers()]


def _place(graph: fx.GraphModule) -> str:
    """The kind of device that all numbers of a network are on."""
    places = {t.device.type for t in _tensors(graph)}
    return places.pop() if len(places) == 1 else "several"


def _fast(graph: fx.GraphModule, fixed: bool, reference: Runner, probe: Samples, window: int) -> Choice | None:
    """The fast runtime, if the machine and the network have something for it."""
    if not _promising(graph, fixed):
        return None
    here = _place(graph) == "cpu"
    made = plan(graph, fixed and proved(graph), scan.Scan if here else GpuScan)
    if not made.layers and not made.joins:
        return None
    kind = FastRunner if here else ReplayRunner
    final, steps, seen = kind(made, once=True), kind(made), FastRunner(made, whole=True)
    sizes = [1]
    seen.run(probe, window, observe=lambda node, value, width: sizes.append(value[0].numel() * 4))
    rows = max(STEPS, TILE // max(sizes), min(ROWS, MOST // max(sizes))) if made.fixed and here else 0
    return Choice(reference, final, steps, seen, rows, str(made))


def _agrees(choice: Choice, probe: Samples, window: int, final: Tree, steps: Tree) -> bool:
    """Whether all three ways to call it give what the reference gives, bit for bit, in every output."""
    return (
        _alike(choice.final.run(probe, window), final)
        and _alike(choice.steps.run(probe, window, anytime=True), steps)
        and _alike(choice.seen.run(probe, window, anytime=True, observe=lambda *_: None), steps)
        and ((one := _in_one(choice.steps)) is None or _alike(one.run(probe, window, anytime=True), steps))
    )


def _alike(found: Tree, wanted: Tree) -> bool:
    return all(map(torch.equal, leaves(found), leaves(wanted)))


def _in_one(runner: Runner) -> Runner | None:
    """One with each layer in one kernel with its neurons, where there are such: the few rows of a probe get none."""
    if not isinstance(runner, FastRunner) or all(join.layer is None for join in runner.made.joins.values()):
        return None
    one = FastRunner(runner.made)
    one.one = True
    return one


def _probe(graph: fx.GraphModule, x: Samples) -> Samples:
    """A sample, one of the same numbers in another order, and noise: a blank first sample would wake no neuron."""
    table = places(graph)
    found = zip(entries(graph), each(x), strict=True)
    return of([one[:1].detach().repeat(3, *[1] * (one.dim() - 1)) if n in table else _woken(one) for n, one in found])


def _woken(x: Tensor) -> Tensor:
    one, chance = x[:1].detach(), torch.Generator().manual_seed(0)
    order = torch.randperm(one.numel(), generator=chance).to(one.device)
    other = one.flatten()[order].reshape(one.shape)
    noise = torch.randn(one.shape, generator=chance).to(one)
    return torch.cat([one, other, noise]).contiguous(memory_format=scan.memory(one))


class GraphState:
    """What a choice was made for. A graph may be edited, moved and trained, and then needs another.

    A plan holds copies of parameters, so their numbers are compared, and not torch's counters of changes: those miss
    what is done through `.data`, and a network would go on spiking with weights that it no longer has.
    """

    def __init__(self, graph: fx.GraphModule, runtime: str) -> None:
        modules = list(graph.named_modules(remove_duplicate=False))
        own = [vars(module) for _, module in modules]
        every = [t for one in own for kind in ("_parameters", "_buffers") for t in one[kind].values()]
        self.tensors: list[Tensor] = [t for t in every if t is not None]
        # A recorded run on a GPU reads the very memory that it was recorded with.
        kinds = [(t.dtype, t.device, t.shape, t.stride(), t.is_cuda and t.data_ptr()) for t in self.tensors]
        nodes = [(node, node.target, node.args) for node in graph.graph.nodes]
        settings = [{k: v for k, v in one.items() if type(v) in SETTINGS} for one in own]
        # A module may be given another class, and a class other methods.
        classes = [type(module) for _, module in modules]
        methods = {kind: [getattr(kind, name, None) for name in ACTS] for kind in set(classes)}
        # Somebody looks at a module or changes what it gives, which only who calls that module lets happen.
        hooks = [(one["_forward_hooks"], one["_forward_pre_hooks"], any(a in one for a in ACTS)) for one in own[1:]]
        everywhere = torch.nn.modules.module
        hooks.append((everywhere._global_forward_hooks, everywhere._global_forward_pre_hooks, False))
        self.hooked = any(any(one) for one in hooks)
        self.runtime, self.rest = runtime, (runtime, modules, classes, methods, nodes, settings, kinds)
        self.numbers: list[Tensor] = []
        self.bytes: list[Tensor] = []

    def keep(self) -> None:
        """Copies the numbers; the reference reads them from the graph each time, and needs no copy."""
        if self.runtime == "reference":
            return
        if {t.device.type for t in self.tensors} == {"cuda"} and len({t.device for t in self.tensors}) == 1:
            self.bytes = [_bytes(t) for t in self.tensors if t.numel()]
        self.numbers = [t.detach().clone() for t in self._read(self.tensors)]

    def fits(self, now: GraphState) -> bool:
        """Whether a choice that was made for this one holds for another of the same network."""
        return (
            self.rest == now.rest
            and all(a is b for a, b in zip(self.tensors, now.tensors, strict=True))
            and (not self.numbers or all(map(_equal, self.numbers, self._read(now.tensors))))
        )

    def _read(self, tensors: list[Tensor]) -> list[Tensor]:
        """The numbers of tensors that lie where they lay: on a GPU in one piece, since each comparison waits for it."""
        return [torch.cat(self.bytes)] if self.bytes else tensors


def _bytes(t: Tensor) -> Tensor:
    """The memory of a tensor, which is held as long as this is."""
    size = t.element_size()
    reach = size * (1 + sum((n - 1) * step for n, step in zip(t.shape, t.stride(), strict=True)))
    place = torch.empty(0, dtype=torch.uint8, device=t.device)
    return place.set_(t.untyped_storage(), size * t.storage_offset(), (reach,), (1,))


def _equal(a: Tensor, b: Tensor) -> bool:
    compare = _memcmp()
    if compare is None or a.device.type != "cpu" or not (a.is_contiguous() and b.is_contiguous()):
        return torch.equal(a, b)
    return compare(a.data_ptr(), b.data_ptr(), a.nbytes) == 0


@cache
def _memcmp() -> Callable[[int, int, int], int] | None:
    """The C library's comparison, twice as fast as `torch.equal`: of a wide network it is a good part of a call."""
    try:
        found = ctypes.CDLL(None).memcmp
    except (AttributeError, OSError, TypeError):  # as on Windows
        return None
    found.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    return found
