"""A finished spiking network: an ordinary `nn.Module` around a spiking graph, with its history."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import networkx as nx
import torch
from torch import Tensor, fx

from snnc.defaults import CHUNK, RUNTIMES
from snnc.errors import DataError, SnncError
from snnc.ir.dialect import HEADS
from snnc.ir.graph import Stage, calls, entries, module_of, numbers, only, output, steps, validate, view
from snnc.ir.neurons import LAYER_SYNCHRONOUS, PIPELINED, Neuron, OffsetIF
from snnc.ir.spans import holds_integers
from snnc.ir.whole import places
from snnc.markup import records_table
from snnc.networks.base import Latency, SpikingNetwork, Trains, counted
from snnc.networks.frames import State
from snnc.networks.inputs import Input, Port, bound, checked
from snnc.runtime.choice import Choice, GraphState, choose
from snnc.runtime.runner import Observer, Runner, Window, near
from snnc.steady import exact
from snnc.structure import Samples, Tree, changed, each, leaves, mapped, titled


class Network(SpikingNetwork):
    """A compiled network, around its spiking graph.

    Attributes:
        graph: the spiking graph; on a CPU `graph(x)` gives the same output, with all `T * B` rows in memory at once.
            (On a GPU torch rounds in it what it does not round here: see `snnc.runtime.exact`.)
        chunk: see `SpikingNetwork`. A layer-synchronous or pipelined network holds at least one sample's T steps.
        runtime: "auto" takes what is fastest here and gives the spikes of the reference (`snnc.runtime.choice`);
            "reference" calls the modules of the graph; "fast" raises where there is nothing faster.
    """

    form = "A graph file"
    looks_inside = True

    def __init__(
        self,
        graph: fx.GraphModule,
        info: dict[str, Any],
        chunk: int = CHUNK,
        stage: Stage = Stage.SPIKING,
        runtime: str = "auto",
    ) -> None:
        super().__init__()
        validate(graph, stage)
        self.stage = stage
        self.graph = graph.requires_grad_(False)  # spikes have no gradient: a tape over T steps would be waste
        self.info = info
        self.chunk = counted(chunk)
        self.runtime = runtime
        self._chosen: tuple[GraphState, Choice] | None = None
        self.eval()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_chosen": None}  # layers that are packed for this machine stay here

    @property
    def runs_by(self) -> str:
        """What the last call ran by: "reference", or what was faster; empty before the first call."""
        return self._chosen[1].name if self._chosen else ""

    @property
    def ran_by(self) -> str:
        return self.runs_by

    @property
    def T(self) -> int:
        return Runner(self.graph).read

    @property
    def latency(self) -> Latency:
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

    def forward(self, *x: Input, **named: Input) -> Any:
        """Output after T steps: input `[B, ...]`, a tensor or an array, to `[B, classes]`; of several outputs each.

        Raises:
            DataError: the input is no dense tensor or array of floats, holds NaN or infinity, or has the wrong shape.
        """
        return self._rounds(x, named, False)

    def readout(self, *x: Input, observe: Observer | None = None, **named: Input) -> Any:
        return self._rounds(x, named, True, observe)

    def stream(self, *x: Input, **named: Input) -> Iterator[Any]:
        with exact(), torch.no_grad():
            outputs = Runner(self.graph).run(self.entry(*x, **named), window=1, anytime=True)
        for t in range(self.T):  # no guard is held while the caller has its turn
            yield mapped(lambda one, t=t: one[t], outputs)

    @torch.compiler.disable  # torch.compile would trace what chooses and checks, and code that it cannot see through
    def _rounds(self, x: Any, named: Any, anytime: bool, observe: Observer | None = None) -> Any:
        """Output of one round after the other, joined."""
        with exact():
            results = self._run(self.entry(*x, **named), anytime, observe)
            return mapped(lambda *parts: torch.cat(parts, int(anytime)), *results)

    def _run(self, x: Samples, anytime: bool, observe: Observer | None) -> list[Tree]:
        chunk = counted(self.chunk)
        try:
            choice = self._choice(x)
            # Frames go one at a time and are all read out, so that sums are rounded as they are where frames come so.
            every = anytime or bool(self.frames and self.stage is not Stage.FIXED)
            runner = choice.runner(every, observe)
            samples, rows = (chunk, 1) if self.frames else choice.round(chunk)
            results = []
            for part in x.split(samples):
                window = max(1, rows // len(part)) if runner.streaming else runner.T
                found = runner.run(part, window, every, observe)
                results.append(found if every == anytime else mapped(lambda one: one[-1], found))
        except (RuntimeError, ValueError, IndexError) as error:
            raise _unfit(x, error) from error
        _require_finite(results)
        return results

    def _stepped(self, x: Samples, state: State) -> tuple[Tree, State]:
        given = changed(lambda one: one[:, None], x)
        try:
            if state.kept is None:
                self._choice(changed(lambda one: one.expand(-1, self.T, *one.shape[2:]), given))
                state = replace(state, kept=(self._chosen, Window()))
            chosen, before = state.kept
            if not chosen[0].fits(self._now(x)):
                raise SnncError("The state is of another network, or of this one before it was changed.", "net.start()")
            # What is fast writes potentials where they lie, and a caller may go on from one state twice.
            states = {node: copy.deepcopy(one) for node, one in before.states.items()}
            now = Window(states=states, totals=dict(before.totals), start=before.start)
            found = chosen[1].steps.step(given, now)
        except (RuntimeError, ValueError, IndexError) as error:
            raise _unfit(x, error) from error
        _require_finite([found])
        return found, replace(state, kept=(chosen, now))

    @property
    def entries(self) -> list[Port]:
        table = places(self.graph)
        return [Port(str(node.target), node in table) for node in entries(self.graph)]

    @property
    def structure(self) -> Any:
        return titled(output(self.graph).args[0])

    def entry(self, *x: Input, **named: Input) -> Samples:
        """The inputs as the network takes them: checked, in its own precision and order of memory.

        Raises:
            DataError: see `checked`.
            SnncError: a network of integers in a precision that does not hold them.
        """
        return self._entry(x, named, self.info)

    def _entry(self, x: Any, named: Any, info: Mapping[str, Any]) -> Samples:
        like = numbers(self.graph)
        dtype, ends = like.dtype, self.entries
        if self.stage is Stage.FIXED and not holds_integers(dtype):
            raise SnncError(
                f"The network is one of integers, which {dtype} rounds.", "it in float32, as it was compiled or saved"
            )
        given = bound(ends, x, named)
        found = checked(ends, given, info, dtype)
        for one in given:
            if isinstance(one, Tensor) and one.device != like.device:
                raise DataError(
                    f"The input is on {one.device}, and the network on {like.device}.", f"x.to('{like.device}')"
                )
        found = found.to(like.device)  # an array is nowhere else than in main memory
        return found if info.get("frames") else changed(near, found)

    def _choice(self, x: Samples) -> Choice:
        """The runtime, chosen anew when the graph is no longer what it was."""
        now = self._now(x)
        if self._chosen is None or not self._chosen[0].fits(now):
            now.keep()
            self._chosen = now, choose(self.graph, self.stage is Stage.FIXED, now.runtime, x, self.chunk)
        return self._chosen[1]

    def _now(self, x: Samples) -> GraphState:
        """What a runtime is chosen for."""
        if self.runtime not in RUNTIMES:
            raise SnncError(f"There is no runtime {self.runtime!r}.", f"one of {', '.join(RUNTIMES)}")
        # What is fast leaves no tape, and calls no module that a kernel stands for: gradients and hooks would be lost
        # without a word.
        now = GraphState(self.graph, self.runtime)
        if now.hooked or (torch.is_grad_enabled() and any(t.requires_grad for t in (*each(x), *now.tensors))):
            now = GraphState(self.graph, "reference")
        return now

    def emitted(self, x: Samples, stream: bool = False) -> tuple[Tree, Trains]:
        x = x.to(next(self.graph.buffers()).device)
        seen: dict[str, list[Tensor]] = {name: [] for name, _ in self.neurons()}

        def see(node: fx.Node, value: Tensor, width: int) -> None:
            if node.name in seen:
                seen[node.name].append(value.reshape(width, -1, *value.shape[1:]))

        if stream:
            by_step = Runner(self.graph).run(self.entry(x), window=1, anytime=True, observe=see)
        else:
            by_step = self.readout(x, observe=see)
        T = steps(self.graph)
        return mapped(lambda one: one.cpu(), by_step), {name: _joined(parts, T).cpu() for name, parts in seen.items()}

    def heights(self) -> Trains:
        return {name: neuron.height.cpu() for name, neuron in self.neurons()}

    @property
    def ends_in_head(self) -> bool:
        return any(calls(self.graph, *HEADS))

    def _alone(self, name: str) -> Network:
        info = {key: value for key, value in self.info.items() if key != "outputs"}
        return Network(only(self.graph, name), info, self.chunk, self.stage, self.runtime)

    def _repr_html_(self) -> str:
        recipe = self.info.get("recipe", "unknown")
        title = f"Spiking network: recipe {recipe}, T = {self.T}, {self.latency}, {len(self.neurons())} neuron layers"
        return records_table(title, self.info.get("records", []))

    def neurons(self) -> list[tuple[str, Neuron]]:
        """Every neuron layer with its name, in order."""
        return [(node.name, module_of(self.graph, node)) for node, _ in calls(self.graph, Neuron)]


def _unfit(x: Samples, error: Exception) -> DataError:
    """What to say of input that a network cannot run on."""
    reason = str(error).strip().splitlines()[0].rstrip(".")
    shapes = " and ".join(str(tuple(one.shape)) for one in each(x))
    return DataError(
        f"An input of shape {shapes} does not go through the network: {reason}.",
        "samples of the shape that the network was trained on",
    )


def _require_finite(results: list[Tree]) -> None:
    if not all(torch.isfinite(one).all() for result in results for one in leaves(result)):
        raise DataError("The network's output is NaN or infinite.", "input in the range that it was trained on")


def _joined(parts: list[Tensor], T: int) -> Tensor:
    """Windows `[steps, b, ...]` of one round after the other, T steps each, as `[T, B, ...]`."""
    rounds: list[Tensor] = []
    held: list[Tensor] = []
    for part in parts:
        held.append(part)
        if sum(map(len, held)) == T:
            rounds.append(torch.cat(held))
            held = []
    return torch.cat(rounds, 1)
