"""The base of all spiking networks, whatever file they were read from."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, fx, nn

from snnc.checks import MOST
from snnc.errors import SnncError
from snnc.ir.graph import Stage
from snnc.ir.neurons import PIPELINED, STREAMING, TWO_PASS, Neuron
from snnc.networks.early import Exit, certainty, gone
from snnc.networks.frames import State, advanced, of_one_frame, seen, told_frames
from snnc.networks.inputs import Input, Port, bound, checked, told_entries
from snnc.runtime.runner import Observer
from snnc.structure import OUTPUT, Samples, Tree, mapped, names_in
from snnc.structure import named as by_name

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

    Inputs are passed as to the network that it was made from, by place or by name, and outputs come in the same
    containers: a dictionary of boxes and scores stays one, and each is the readout of its own mean, in its own unit.

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
    def entries(self) -> list[Port]:
        """What the network takes, in order."""
        return told_entries(self.info)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs; one alone is called "x"."""
        return tuple(entry.name for entry in self.entries)

    @property
    def structure(self) -> Any:
        """What the network returns, with the name of each output in its place, as plain data (`snnc.structure`)."""
        return self.info.get("outputs") or OUTPUT

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs: the keys and places on the way to each, with dots between; one alone is "output"."""
        return tuple(names_in(self.structure))

    @property
    def ran_by(self) -> str:
        """What runs it: the runtime of the last call, or the form of the file."""
        return self.form.partition(" ")[2]

    def readout(self, *x: Input, observe: Observer | None = None, **named: Any) -> Any:
        """Output after each step (any-time readout): `[B, ...]` to `[T, B, classes]`; of several outputs each.

        Args:
            x: the inputs, tensors or arrays.
            observe: called with each node inside time, its value `[steps * b, ...]`, and the number of steps.
            named: inputs by name.

        Raises:
            SnncError: the network cannot be looked into, or was written without this.
        """
        raise NotImplementedError(f"{type(self).__name__}.readout")

    def certainty(self, by_step: Tensor) -> Tensor:
        """Confidence in the largest class after each step, `[T, B]`, of what `readout` gave: see `exit`."""
        return certainty(by_step, self.info, self.ends_in_head)

    @torch.no_grad()
    def exit(self, x: Any, confidence: float = 0.9, output: str | None = None) -> Exit:
        """Reads each sample out as soon as its readout is sure, or else after all steps.

        The confidence is the softmax of the largest class, at a temperature for each step at which it is the share of
        held-out calibration samples that have the ANN's class. It is found where `snnc.compile` chooses options on
        data (`info["exit"]`); 1 is taken elsewhere. All T steps are simulated: a chip would stop.

        Args:
            x: input `[B, ...]`; several in a tuple, or by name in a dictionary.
            confidence: what is enough, above 0, 1 at most.
            output: name of the output that holds class scores, where there are several.

        Raises:
            RecipeError: a confidence that cannot be.
            DataError: the output is no class scores.
            SnncError: no such output, or none is named and there are several.
        """
        name = self.chosen(output)
        if isinstance(x, dict):
            tree = self.readout(**x)
        else:
            tree = self.readout(*x) if isinstance(x, tuple) else self.readout(x)
        by_step = by_name(tree)[name]
        return gone(by_step, self.certainty(by_step), confidence, self.latency.steps - self.T)

    def chosen(self, output: str | None) -> str:
        """The name of the output that is meant: the only one, where none is named.

        Raises:
            SnncError: no such output, or none is named and there are several.
        """
        if output is None and len(self.outputs) > 1:
            raise SnncError(
                f"The network has several outputs: {', '.join(self.outputs)}.",
                f"the one that is meant, such as --output {self.outputs[0]} (output= in Python)",
            )
        if output is not None and output not in self.outputs:
            raise SnncError(f"The network has no output '{output}'.", f"one of {', '.join(self.outputs)}")
        return output or self.outputs[0]

    def only(self, output: str | None) -> SpikingNetwork:
        """The network with one of its outputs alone: itself where it has no other.

        Of a graph file what only the others need is left out, and its spikes are not counted.

        Raises:
            SnncError: no such output, or none is named and there are several.
        """
        name = self.chosen(output)
        return self if self.structure == OUTPUT else self._alone(name)

    def _alone(self, name: str) -> SpikingNetwork:
        raise NotImplementedError(f"{type(self).__name__}.only")

    def stream(self, *x: Input, **named: Input) -> Iterator[Any]:
        """Runs step by step, as a chip does; gives the output `[B, classes]` after each step.

        Raises:
            SnncError: the network cannot run step by step.
        """
        raise SnncError(f"{self.form} cannot run step by step.", "the graph file (.snn) of the same network")

    @property
    def frames(self) -> str:
        """What the original network did with the frames of a sample: "mean", "sum" or "each" of them.

        Empty where input is constant in time. A network over frames takes samples `[B, T, ...]`, and reads frame t at
        step t. Its readout after a step is that of the frames up to it.
        """
        return told_frames(self.info)

    def start(self, batch: int | None = None) -> State:
        """The state before the first frame, for `step`.

        Args:
            batch: number of samples; the first frame tells it where None.

        Raises:
            SnncError: the network takes input that is constant in time, or cannot run frame by frame.
        """
        if not self.frames:
            raise SnncError(
                "The network takes input that is constant in time, and no frames.",
                "net.stream(x), which gives its readout after each step",
            )
        return State(batch)

    @torch.no_grad()
    def step(self, frame: Any, state: State) -> tuple[Any, State]:
        """Reads one frame, and goes on from `state`, which stays what it is.

            state = net.start()
            for t in range(net.T):
                output, state = net.step(x[:, t], state)  # output is net.readout(x)[t]

        An emitted file (`.pt2`, ONNX) holds a run of T steps: there a step runs the frames so far again.

        Args:
            frame: `[B, ...]`, a tensor or an array; of several inputs a tuple, or a dictionary by name.
            state: what `start` gave, or the step before.

        Returns:
            The readout of the frames so far, `[B, classes]`, of several outputs each; and the next state.

        Raises:
            DataError: a frame that does not fit.
            SnncError: a network without frames, or a state that is not of it, or after its last frame.
        """
        self.start()
        given, named = ((), frame) if isinstance(frame, dict) else (frame if isinstance(frame, tuple) else (frame,), {})
        x = self._entry(given, named, of_one_frame(self.info, len(self.entries)))
        return self._stepped(x, advanced(state, x, self.T))

    def _entry(self, x: Any, named: Any, info: Mapping[str, Any]) -> Samples:
        """Inputs as the network takes them, checked against a history."""
        return checked(self.entries, bound(self.entries, x, named), info)

    def _stepped(self, x: Samples, state: State) -> tuple[Tree, State]:
        """A step that is known to fit, and the state that counts it."""
        whole, after = seen(state, x, self.T)
        return mapped(lambda one: one[state.step - 1], self.readout(whole)), after

    def emitted(self, x: Samples, stream: bool = False) -> tuple[Tree, Trains | None]:
        """What the network gives for a few samples, all in memory at once.

        Returns:
            On the CPU, the output after each step `[read, B, classes]` (of several each), and what every neuron layer
            emits `[steps, B, ...]`; None where that cannot be seen.

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
