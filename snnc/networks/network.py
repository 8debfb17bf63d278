"""A finished spiking network: an ordinary `nn.Module` around a spiking graph, with its history."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np
import torch
from torch import Tensor, fx, nn

from snnc.data import floats
from snnc.errors import DataError, SnncError
from snnc.ir.graph import Stage, calls, module_of, verify, view
from snnc.ir.neurons import LAYER_SYNCHRONOUS, PIPELINED, STREAMING, TWO_PASS, Neuron, OffsetIF
from snnc.ir.proof import holds_integers
from snnc.markup import records_table
from snnc.runtime.choice import RUNTIMES, Choice, Fingerprint, choose
from snnc.runtime.runner import Observer, Runner
from snnc.steady import exact

ROUNDING = 1e-5  # of an input's range: pixels over 255 in float32
CHUNK = 256  # rows of `steps * samples`: a few tens of megabytes for CIFAR-sized networks


@dataclass(frozen=True)
class Latency:
    """How long one sample takes, in time steps, under the schedule that the network needs.

    Attributes:
        schedule: "streaming": all layers advance at each step; "two-pass streaming": the same, `rho` steps to look and
            T to read; "pipelined": each layer is some steps behind the one before it; "layer-synchronous": a layer
            waits for the whole output of the one before it. One layer that needs a later one of these decides.
        T: steps that are read out. Published tables call this T.
        rho: extra steps of pre-simulation, in each layer or as a first pass (0 where there is none).
        depth: neuron layers on the longest path.
        steps: steps from the first input to the readout: T when streaming, rho + T in two passes, T and the waits of
            the longest path when pipelined, otherwise the sum over the layers of the longest path of what each takes.
    """

    schedule: str
    T: int
    rho: int
    depth: int
    steps: int

    @property
    def simulated(self) -> int:
        """Steps that a run holds: T and those that are not read out."""
        return self.rho + self.T if self.schedule == TWO_PASS else max(self.T, self.rho)

    def __str__(self) -> str:
        if self.schedule == STREAMING:
            return f"{self.steps} step{'' if self.steps == 1 else 's'} (streaming)"
        if self.schedule == TWO_PASS:
            return f"{self.steps} steps (two-pass streaming: {self.rho} + {self.T})"
        if self.schedule == PIPELINED:
            return f"{self.steps} steps (pipelined: {self.depth} layers wait {self.steps - self.T} in all)"
        return f"{self.steps} steps (layer-synchronous: {self.depth} layers x {self.steps // self.depth})"


class Network(nn.Module):
    """A spiking network. A pure function: no state is kept between calls and there is nothing to reset.

    `net(x)` gives `[B, classes]`, the readout of the mean over T steps, for any batch size.

    Attributes:
        graph: the spiking graph; on a CPU `graph(x)` gives the same output, with all `T * B` rows in memory at once.
            (On a GPU torch rounds in it what it does not round here: see `snnc.runtime.exact`.)
        info: how the network was made, as plain data: recipe, T, versions, pass records.
        stage: SPIKING, or FIXED for a network of integers.
        chunk: rows (time steps x samples) in memory at once. Larger batches, and longer T, run in several rounds.
            A layer-synchronous or pipelined network holds at least one sample's T steps.
        runtime: "auto" takes what is fastest here and gives the spikes of the reference (`snnc.runtime.choice`);
            "reference" calls the modules of the graph; "fast" raises where there is nothing faster.
    """

    def __init__(
        self,
        graph: fx.GraphModule,
        info: dict[str, Any],
        chunk: int = CHUNK,
        stage: Stage = Stage.SPIKING,
        runtime: str = "auto",
    ) -> None:
        super().__init__()
        verify(graph, stage)
        self.stage = stage
        self.graph = graph.requires_grad_(False)  # spikes have no gradient: a tape over T steps would be waste
        self.info = info
        self.chunk = counted(chunk)
        self.runtime = runtime
        self._chosen: tuple[Fingerprint, Choice] | None = None
        self.eval()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_chosen": None}  # layers that are packed for this machine stay here

    @property
    def runs_by(self) -> str:
        """What the last call ran by: "reference", or what was faster; empty before the first call."""
        return self._chosen[1].name if self._chosen else ""

    @property
    def T(self) -> int:
        """Steps that are read out."""
        return Runner(self.graph).read

    @property
    def latency(self) -> Latency:
        """Steps from input to readout, under the schedule that the network needs."""
        runner = Runner(self.graph)
        pipelined = runner.schedule == PIPELINED
        # Of two paths that wait as long the one of more layers counts.
        cost = {node: (m.delay if pipelined else m.steps, 1) for node, m in calls(self.graph, Neuron)}
        many = len(cost) + 1
        net = view(self.graph)
        for source, target in net.edges:
            taken, layer = cost.get(target, (0, 0))
            net[source][target]["steps"] = taken * many + layer
        taken, depth = divmod(nx.dag_longest_path_length(net, weight="steps"), many)
        if runner.schedule == LAYER_SYNCHRONOUS:
            rho = max((m.rho * m.iterations for _, m in calls(self.graph, OffsetIF)), default=0)
            return Latency(runner.schedule, runner.read, rho, depth, taken)
        steps = runner.skip + runner.read + (taken if pipelined else 0)
        return Latency(runner.schedule, runner.read, runner.skip, depth, steps)

    def forward(self, x: Tensor | np.ndarray) -> Tensor:
        """Output after T steps: input `[B, ...]`, a tensor or an array, to `[B, classes]`.

        Raises:
            DataError: the input is no dense tensor or array of floats, holds NaN or infinity, or has the wrong shape.
        """
        return torch.cat(self._rounds(x, False))

    def readout(self, x: Tensor | np.ndarray, observe: Observer | None = None) -> Tensor:
        """Output after each step (any-time readout): `[B, ...]` to `[T, B, classes]`.

        Args:
            x: input.
            observe: called with each node inside time, its value `[steps * b, ...]`, and the number of steps.
        """
        return torch.cat(self._rounds(x, True, observe), 1)

    def stream(self, x: Tensor | np.ndarray) -> Iterator[Tensor]:
        """Runs step by step, as a chip does; gives the output `[B, classes]` after each step.

        Raises:
            SnncError: the network is layer-synchronous.
        """
        with exact(), torch.no_grad():
            outputs = Runner(self.graph).run(self.entry(x), window=1, anytime=True)
        yield from outputs  # no guard is held while the caller has its turn

    @torch.compiler.disable  # torch.compile would trace what chooses and checks, and code that it cannot see through
    def _rounds(self, x: Tensor | np.ndarray, anytime: bool, observe: Observer | None = None) -> list[Tensor]:
        """Output of one round after the other."""
        with exact():
            return self._run(self.entry(x), anytime, observe)

    def _run(self, x: Tensor, anytime: bool, observe: Observer | None) -> list[Tensor]:
        chunk = counted(self.chunk)
        try:
            choice = self._choice(x)
            runner = choice.runner(anytime, observe)
            samples, rows = choice.round(chunk)
            results = []
            for part in x.split(samples):
                window = max(1, rows // len(part)) if runner.streaming else runner.T
                results.append(runner.run(part, window, anytime, observe))
        except (RuntimeError, ValueError, IndexError) as error:
            reason = str(error).strip().splitlines()[0].rstrip(".")
            raise DataError(
                f"An input of shape {tuple(x.shape)} does not go through the network: {reason}.",
                "samples of the shape that it was trained on",
            ) from error
        if not all(torch.isfinite(result).all() for result in results):
            raise DataError("The network's output is NaN or infinite.", "input in the range that it was trained on")
        return results

    def entry(self, x: Tensor | np.ndarray) -> Tensor:
        """An input as the network takes it: checked, in its own precision and order of memory.

        Raises:
            DataError: see `checked`.
            SnncError: a network of integers in a precision that does not hold them.
        """
        like = next(self.graph.buffers())
        dtype, given = like.dtype, x
        if self.stage is Stage.FIXED and not holds_integers(dtype):
            raise SnncError(
                f"The network is one of integers, which {dtype} rounds.", "it in float32, as it was compiled or saved"
            )
        x = checked(x, self.info, dtype)
        if x.device != like.device:
            if isinstance(given, Tensor):
                raise DataError(
                    f"The input is on {x.device}, and the network on {like.device}.", f"x.to('{like.device}')"
                )
            x = x.to(like.device)  # an array is nowhere else than in main memory
        return near(x)

    def _choice(self, x: Tensor) -> Choice:
        """The runtime, chosen anew when the graph is no longer what it was."""
        if self.runtime not in RUNTIMES:
            raise SnncError(f"There is no runtime {self.runtime!r}.", f"one of {', '.join(RUNTIMES)}")
        # What is fast leaves no tape, and calls no module that a kernel stands for: gradients and hooks would be lost
        # without a word.
        now = Fingerprint(self.graph, self.runtime)
        if now.hooked or (torch.is_grad_enabled() and any(t.requires_grad for t in (x, *now.tensors))):
            now = Fingerprint(self.graph, "reference")
        if self._chosen is None or not self._chosen[0].fits(now):
            now.keep()
            self._chosen = now, choose(self.graph, self.stage is Stage.FIXED, now.runtime, x, self.chunk)
        return self._chosen[1]

    def _repr_html_(self) -> str:
        recipe = self.info.get("recipe", "unknown")
        title = f"Spiking network: recipe {recipe}, T = {self.T}, {self.latency}, {len(self.neurons())} neuron layers"
        return records_table(title, self.info.get("records", []))

    def neurons(self) -> list[tuple[str, Neuron]]:
        """Every neuron layer with its name, in order."""
        return [(node.name, module_of(self.graph, node)) for node, _ in calls(self.graph, Neuron)]


def counted(chunk: Any) -> int:
    """Rows that a network may hold at once.

    Raises:
        SnncError: no whole number of them, or none.
    """
    if not isinstance(chunk, int) or isinstance(chunk, bool) or chunk < 1:
        raise SnncError(f"chunk is {chunk!r}.", "a whole number of rows (time steps x samples), 1 or more, such as 256")
    return chunk


def near(x: Tensor) -> Tensor:
    """An input with its channels closest together in memory, which is how convolutions on CPUs run fastest."""
    images = x.dim() == 4 and x.device.type == "cpu" and x.dtype == torch.float32
    return x.contiguous(memory_format=torch.channels_last) if images else x


def checked(x: Tensor | np.ndarray, info: dict[str, Any], dtype: torch.dtype = torch.float32) -> Tensor:
    """A network's input in its own precision, if it can be trusted.

    Args:
        x: input, a tensor or an array.
        info: history of the network: "input_shape" where it is known, "input_rank" where it had to be guessed.
        dtype: of the network.

    Raises:
        DataError: the input is no dense tensor or array of floats, is empty, holds NaN or infinity, or is of another
            shape than the network takes.
    """
    x = floats(x, "The input")
    shape, rank = info.get("input_shape"), info.get("input_rank")
    if (shape and tuple(x.shape) == tuple(shape)) or (rank and x.dim() == rank - 1):
        raise DataError(f"The input of shape {tuple(x.shape)} is one sample, without a batch.", "x[None]")
    if shape and tuple(x.shape[1:]) != tuple(shape):
        raise DataError(
            f"The input has shape {tuple(x.shape)}; the network takes [B, {', '.join(map(str, shape))}].",
            "a batch dimension in front, and samples of the shape that it was trained on",
        )
    if rank and x.dim() != rank:
        raise DataError(
            f"The input has shape {tuple(x.shape)}; the network was compiled without a shape, for {rank} dimensions.",
            f"a batch dimension in front, or compile with --input-shape {','.join(map(str, x.shape[1:])) or 'SHAPE'}",
        )
    if not len(x):
        raise DataError("The input is an empty batch.", "at least one sample")
    x = x.to(dtype)  # of float64, numbers that this does not hold become infinite
    # NaN never reaches a threshold: the neuron would stay silent and nobody would notice.
    if not torch.isfinite(x).all():
        raise DataError("The input holds NaN or infinity.", "clean data")
    if bounds := info.get("input_range"):
        low, high = float(x.min()), float(x.max())
        if low < bounds[0] - ROUNDING or high > bounds[1] + ROUNDING:
            raise DataError(
                f"The input goes from {low:.3g} to {high:.3g}; spikes stand for {bounds[0]:g} to {bounds[1]:g} here.",
                "the data as the network was compiled with, without --mean/--std",
            )
    return x
