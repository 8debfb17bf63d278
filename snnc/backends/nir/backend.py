"""The Neuromorphic Intermediate Representation (Pedersen et al. 2024), for other simulators and chips.

A file holds one step of the network: nodes with weights, and edges between them. Its metadata, which readers may
ignore, hold what NIR has no field for: at each `IF` node the reset by subtraction and the initial potential, and at the
graph the number of steps and how they are read out. docs/nir.md shows how to set up readers.

Every threshold becomes 1 and every spike has height 1, which is what readers ask for: factors move into the weights.
Fixed-point networks keep their thresholds, since their integers must not change. A target (`targets`) shapes the file
further, and says what does not fit (`fit`).
"""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx

from snnc.backends.base import Backend, told
from snnc.backends.nir.pools import spread, sum_pools
from snnc.backends.nir.targets import TARGETS, Target
from snnc.checks import one_of
from snnc.errors import Blocker, SnncError, Unsupported
from snnc.files import atomic_buffer
from snnc.ir.graph import calls, entries, output, remove, results, tidy
from snnc.ir.neurons import IF
from snnc.ir.shapes import Shape, every_shape
from snnc.ir.temporal import Decode, Encode, Frames, StepCurrent
from snnc.networks.network import Network
from snnc.passes.normalize_thresholds import divide_before
from snnc.passes.pipeline import Pipeline
from snnc.version import __version__


@dataclass(frozen=True)
class NirFile(Backend):
    """One step of the network as a graph of NIR, written by the official library.

    Options:
        target: what is to read the file, one of `snnc.backends.nir.targets.TARGETS`.
    """

    name = "nir"
    suffix = ".nir"
    summary = "NIR file for other simulators and chips: binary IF neurons, no max pooling"
    target: str = "nir"

    def __post_init__(self) -> None:
        one_of(self.target, TARGETS, "target")

    def accept(self, pipeline: Pipeline, T: int, graph: fx.GraphModule, shape: tuple[int, ...] | None) -> None:
        _, rules = _library()
        _require_one(graph)
        told(shape, self.name)
        chosen = pipeline.chosen(T)
        if chosen and chosen[1] is not IF:
            raise Unsupported(
                f"NIR cannot carry this network: '{chosen[0].name}' makes neurons that NIR has not.",
                rules.PLAIN_NEURONS,
            )
        # Told last: without it other neurons would still be refused.
        if uneven := next((one.name for one in pipeline if one.changes_steps(T)), None):
            raise Unsupported(
                f"NIR cannot carry this network: '{uneven}' gives it currents that change from step to step.",
                rules.SAME_CURRENTS,
            )
        if blockers := rules.never(graph, pipeline):
            raise _refused(blockers)

    def emit(self, network: Network, path: Path) -> None:
        nir, _ = _library()
        found, suits = self.drawn(network)
        if not suits.runs:
            raise _refused([one.blocker for one in suits.misfits if one.level == "unsupported"], TARGETS[self.target])
        with atomic_buffer(path) as buffer:
            nir.write(buffer, found)

    def drawn(self, network: Network) -> tuple[Any, Any]:
        """The network as a NIR graph shaped for the target, and how it suits it (`fit.Suitability`).

        Raises:
            SnncError: nothing told the shape of the input, or the package nir is not installed.
            Unsupported: what concerns the network as a whole.
        """
        nir, rules = _library()
        _require_one(network.graph)
        from snnc.backends.nir.fit import Mismatch, fit
        from snnc.backends.nir.graph import NirLowering

        plain = all(type(neuron) is IF for _, neuron in network.neurons())
        if plain and (step := next((node.name for node, _ in calls(network.graph, StepCurrent)), None)):
            raise Unsupported(
                f"NIR cannot carry this network: '{step}' is a current that changes from step to step.",
                rules.SAME_CURRENTS,
            )
        target = TARGETS[self.target]
        graph, rounded = one_step(network)
        if target.sums:
            sum_pools(graph, shapes(graph, network), rules.window)
        sums = target.sums and "SumPool2d" in target.reads
        lowering = NirLowering(graph, shapes(graph, network), rules.RULES, sums, target.total, rounded)
        lowering.run()
        missing = [Mismatch("unsupported", one.node, one.op, one.why, one.hint) for one in lowering.blockers]
        said = metadata(network)
        if lowering.grid:
            said |= lowering.grid | {"input": f"{said['input']}, as {lowering.grid['input']}"}
        said |= {"target": target.name}
        last = next(a for a, b in lowering.edges if b == "output")
        if isinstance(lowering.nodes[last], nir.I):
            late = f" after the first {said['late']}" if said["late"] else ""
            said |= {"total": last, "readout": f"mean over the steps{late} of what '{last}' adds up"}
        found = nir.NIRGraph(lowering.nodes, lowering.edges, metadata=said, type_check=not missing)
        return found, fit(found, target, missing)


def load_nir(path: Path, chunk: int) -> Network:
    """The network in a NIR file: see `reading.read_nir`.

    Raises:
        SnncError: the package nir is not installed.
    """
    _library()
    from snnc.backends.nir.reading import read_nir

    return read_nir(path, chunk)


def _library() -> tuple[Any, Any]:
    """NIR's own library, and the rules, which need it."""
    try:
        import nir

        from snnc.backends.nir import rules
    except ImportError as missing:
        raise SnncError(
            f"A NIR file needs the package {missing.name}, which is not installed.", "pip install 'snnc[nir]'"
        ) from missing
    return nir, rules


def _require_one(graph: fx.GraphModule) -> None:
    """Refuses several inputs or outputs, since readers look for one of each."""
    found = [str(node.target) for node in entries(graph)]
    if len(found) > 1:
        why = f"it has several inputs ({', '.join(found)})"
        raise Unsupported(f"NIR cannot carry this network: {why}.", "the backend torch, pt2 or onnx")
    if not isinstance(output(graph).args[0], fx.Node):
        why = f"it has several outputs ({', '.join(results(graph))})"
        hint = "the backend torch, pt2 or onnx, or in Python one of them: snnc.save(net.only(NAME), path)"
        raise Unsupported(f"NIR cannot carry this network: {why}.", hint)


def _refused(blockers: list[Blocker], target: Target = TARGETS["nir"]) -> Unsupported:
    who = "NIR" if target.name == "nir" else f"'{target.name}'"
    return Unsupported.of(blockers, f"{who} cannot carry this network: ", "")


def one_step(network: Network) -> tuple[fx.GraphModule, frozenset[str]]:
    """The graph of a single step: encoders and readouts gone, and every plain neuron with spikes of height 1.

    Returns:
        The graph, and the neurons whose thresholds rounded the weights that they moved into.
    """
    graph, rounded = copy.deepcopy(network.graph), set()
    for node, _ in calls(graph, Encode, Frames, Decode):
        remove(graph, node)
    for node, neuron in calls(graph, IF):
        theta = neuron.theta
        if type(neuron) is not IF or neuron.unit or (theta == 1).all():
            continue  # a unit's spikes have height 1, and its weights are integers, which they shall stay
        divide_before(graph, node, theta)
        spread(graph, node, theta, "height")
        neuron.theta, neuron.v0 = torch.ones_like(theta), neuron.v0 / theta
        if (theta.frexp().mantissa != 0.5).any():  # not a power of two
            rounded.add(node.name)
    return tidy(graph), frozenset(rounded)


def shapes(graph: fx.GraphModule, network: Network) -> dict[fx.Node, Shape]:
    """The shape of one sample of every value.

    Raises:
        SnncError: nothing told the shape of the input.
    """
    shape = told(network.info.get("input_shape"), NirFile.name)
    return every_shape(graph, shape[1:] if network.frames else shape)


def metadata(network: Network) -> dict[str, Any]:
    """What a reader needs to know beyond the nodes, and how the network was made."""
    late = next(int(module.late) for _, module in calls(network.graph, Decode))
    return {
        "generator": f"snnc {__version__}",
        "T": network.T,
        "late": late,
        "dt": 1.0,
        "input": f"frame t of a sample at step t (the network was made for their {network.frames})"
        if network.frames
        else "the same sample at every step",
        "readout": f"mean of the output over the steps after the first {late}" if late else "mean of the output",
        "reset": "subtract",
        "history": json.dumps({**network.info, "latency": asdict(network.latency)}, default=str),
    }
