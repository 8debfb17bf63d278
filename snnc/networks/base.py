"""The base of all spiking networks, whatever file they were read from."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, fx, nn

from snnc.checks import MOST
from snnc.data import floats
from snnc.errors import DataError, SnncError
from snnc.ir.graph import Stage
from snnc.ir.neurons import PIPELINED, STREAMING, TWO_PASS, Neuron
from snnc.networks.early import Exit, certainty, gone
from snnc.runtime.runner import Observer

ROUNDING = 1e-5  # of an input's range: pixels over 255 in float32
Input = Tensor | np.ndarray
Trains = dict[str, Tensor]  # what neuron layers emit, by name
NO_GRADIENT = "Spikes come from comparisons, whose gradient is 0, so a compiled network cannot be trained as it stands."
TUNE = "snnc.tune(net, data), which trains through the spikes"


class GradientWarning(UserWarning):
    """A compiled network was put into training mode, in which nothing of it is trained."""


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


class SpikingNetwork(nn.Module):
    """Base of the networks that `snnc.compile` and `snnc.load` give.

    `net(x)` gives `[B, classes]`, the readout of the mean over T steps, for any batch size. A network is a pure
    function: no state is kept between calls and there is nothing to reset.

    Attributes:
        info: how the network was made, as plain data: recipe, T, versions, pass records.
        stage: SPIKING, or FIXED for a network of integers, which spikes the same everywhere.
        chunk: rows (time steps x samples) in memory at once. Larger batches, and longer T, run in several rounds.
        form: what it is, as a sentence begins.
        runtime: what a graph file runs by, see `Network`; others run as they were written.
        looks_inside: whether it has a `graph`, so that spikes and operations can be counted.
        graph: its spiking graph, where it `looks_inside`.
    """

    form: ClassVar[str]
    looks_inside: ClassVar[bool] = False
    graph: fx.GraphModule
    info: dict[str, Any]
    stage: Stage
    chunk: int
    runtime: str = "auto"

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """As `nn.Module.to`.

        Raises:
            SnncError: torch does not find such a device, or cannot move the network there.
        """
        try:
            return super().to(*args, **kwargs)
        except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
            where = kwargs.get("device", args[0] if args else None)
            reason = str(error).strip().split("\n", maxsplit=1)[0].rstrip(".")
            raise SnncError(
                f"torch finds no device '{where}' here ({reason}).", "net.to('cpu'), where every network runs"
            ) from error

    def cuda(self, device: int | str | torch.device | None = None) -> Self:
        """As `to("cuda")`, or of a device by its number."""
        return self.to("cuda" if device is None else f"cuda:{device}" if isinstance(device, int) else device)

    @property
    def T(self) -> int:
        """Steps that are read out."""
        return self.latency.T

    @property
    def latency(self) -> Latency:
        """Steps from input to readout, under the schedule that the network needs."""
        return Latency(**self.info["latency"])

    def train(self, mode: bool = True) -> Self:
        """Says that training mode trains nothing here. It changes nothing else: no layer acts otherwise in it."""
        if mode:
            warnings.warn(f"{NO_GRADIENT} Try: {TUNE}.", GradientWarning, stacklevel=2)
        return super().train(mode)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Refuses to ask for gradients.

        Raises:
            SnncError: says what trains a network.
        """
        if requires_grad:
            raise SnncError(NO_GRADIENT, TUNE)
        return super().requires_grad_(requires_grad)

    @property
    def ran_by(self) -> str:
        """What runs it: the runtime of the last call, or the form of the file."""
        return self.form.partition(" ")[2]

    def readout(self, x: Input, observe: Observer | None = None) -> Tensor:
        """Output after each step (any-time readout): `[B, ...]` to `[T, B, classes]`.

        Args:
            x: input, a tensor or an array.
            observe: called with each node inside time, its value `[steps * b, ...]`, and the number of steps.

        Raises:
            SnncError: the network cannot be looked into, or was written without this.
        """
        raise NotImplementedError(f"{type(self).__name__}.readout")

    def certainty(self, by_step: Tensor) -> Tensor:
        """Confidence in the largest class after each step, `[T, B]`, of what `readout` gave: see `exit`."""
        return certainty(by_step, self.info, self.ends_in_head)

    @torch.no_grad()
    def exit(self, x: Input, confidence: float = 0.9) -> Exit:
        """Reads each sample out as soon as its readout is sure, or else after all steps.

        The confidence is the softmax of the largest class, at a temperature for each step at which it is the share of
        held-out calibration samples that have the ANN's class. It is found where `snnc.compile` chooses options on
        data (`info["exit"]`); 1 is taken elsewhere. All T steps are simulated: a chip would stop.

        Args:
            x: input `[B, ...]`.
            confidence: what is enough, above 0, 1 at most.

        Raises:
            RecipeError: a confidence that cannot be.
            DataError: the output is no class scores.
        """
        by_step = self.readout(x)
        return gone(by_step, self.certainty(by_step), confidence, self.latency.steps - self.T)

    def stream(self, x: Input) -> Iterator[Tensor]:
        """Runs step by step, as a chip does; gives the output `[B, classes]` after each step.

        Raises:
            SnncError: the network cannot run step by step.
        """
        raise SnncError(f"{self.form} cannot run step by step.", "the graph file (.snn) of the same network")

    def emitted(self, x: Tensor, stream: bool = False) -> tuple[Tensor, Trains | None]:
        """What the network gives for a few samples, all in memory at once.

        Returns:
            On the CPU, the output after each step `[read, B, classes]`, and what every neuron layer emits `[steps, B,
            ...]`; None where that cannot be seen.

        Raises:
            SnncError: the network cannot run step by step, and was to.
        """
        if stream:
            self.stream(x)
        return self.readout(x), None

    def neurons(self) -> list[tuple[str, Neuron]]:
        """Every neuron layer with its name, in order.

        Raises:
            SnncError: the network cannot be looked into.
        """
        self.require_inside()
        raise NotImplementedError(f"{type(self).__name__}.neurons")

    def heights(self) -> Trains:
        """Height of one spike of every neuron layer, `[]` or `[C, 1, ...]`; of none where that cannot be seen."""
        return {}

    @property
    def ends_in_head(self) -> bool:
        """Whether a softmax stands behind the readout, which is real arithmetic and may round."""
        return False

    def require_inside(self) -> None:
        """Refuses a network without a graph.

        Raises:
            SnncError: it cannot be looked into.
        """
        if not self.looks_inside:
            raise SnncError(f"{self.form} cannot be looked into.", "the graph file (.snn) of the same network")


def counted(chunk: Any) -> int:
    """Rows that a network may hold at once.

    Raises:
        SnncError: no whole number of them, or none.
    """
    if not isinstance(chunk, int) or isinstance(chunk, bool) or not 1 <= chunk <= MOST:
        raise SnncError(f"chunk is {chunk!r}.", "a whole number of rows (time steps x samples), 1 or more, such as 256")
    return chunk


def checked(x: Input, info: dict[str, Any], dtype: torch.dtype = torch.float32) -> Tensor:
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
