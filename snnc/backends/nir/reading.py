"""NIR files as networks: those that snnc wrote, and others of the kinds of nodes that snnc has.

What a file leaves open is decided as in `backend`: a spike takes the threshold from the potential, and steps last 1. A
file that does not say where potentials start, or for how many steps it is run, starts at 0 and runs `STEPS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor, fx, nn

from snnc.checks import MOST_STEPS
from snnc.errors import Blocker, LoadError, Unsupported, VerifyError
from snnc.files.history import Fault, check_history
from snnc.ir.dialect import Add, Affine, Grid
from snnc.ir.graph import GraphBuilder, Stage, calls, module_of
from snnc.ir.neurons import IF
from snnc.ir.rows import Refused
from snnc.ir.shapes import every_shape
from snnc.ir.temporal import Frames
from snnc.networks.frames import told_frames
from snnc.networks.network import Network
from snnc.passes.insert_neurons import between, put_borders

STEPS = 8  # where the file does not say


def read_nir(path: Path, chunk: int) -> Network:
    """The network in a NIR file.

    Args:
        path: the file.
        chunk: see `snnc.load`.

    Raises:
        LoadError: it is no NIR file, or a broken one.
        Unsupported: it holds nodes that snnc has not; lists every one.
    """
    try:
        graph = nir.read(path, type_check=False)  # nir 1.0.8 takes no groups; shapes are looked at below
    except Exception as error:  # of HDF5, of nir's type check, of missing fields
        why = f"'{path}' is no whole NIR file ({type(error).__name__})."
        raise LoadError(why, "a file that nir.read takes") from error
    try:
        return _network(graph, chunk)
    except (KeyError, ValueError, TypeError, RuntimeError, Fault, VerifyError) as error:
        raise LoadError(f"'{path}' is broken: {error}.", "a file that nir.read takes") from error


def _network(graph: nir.NIRGraph, chunk: int) -> Network:
    told = {key: _plain(value) for key, value in (graph.metadata or {}).items()}
    T, late = int(told.get("T", STEPS)), int(told.get("late", 0))
    if not 1 <= T <= MOST_STEPS:
        raise ValueError(f"it is run for {T} steps")
    ends = [_only(graph, kind) for kind in (nir.Input, nir.Output)]
    sources = {name: sorted(a for a, b in set(graph.edges) if b == name) for name in graph.nodes}
    try:
        order = [name for name in TopologicalSorter(sources).static_order() if name in graph.nodes]
    except CycleError as cycle:
        name = cycle.args[1][0]
        blocker = Blocker(name, _kind(graph, name), "it feeds itself", "a network without recurrence")
        raise _refused([blocker]) from cycle
    if orphans := [name for name in order if not sources[name] and name != ends[0]]:
        raise _refused([Blocker(name, _kind(graph, name), "nothing feeds it", "an edge into it") for name in orphans])
    info = _info(told, T)
    build, made, blockers, neurons = GraphBuilder(), dict[str, fx.Node](), list[Blocker](), list[str]()
    for name in order:
        node = graph.nodes[name]
        if isinstance(node, nir.Input):
            made[name] = build.input()
            if told_frames(info):
                made[name] = build.call("frames", Frames(T), made[name])
            if "input_scale" in told:
                bounds = int(told["input_low"]), int(told["input_high"])
                made[name] = build.call("grid", Grid(_compact(told["input_scale"]), *bounds), made[name])
            continue
        value = made[sources[name][0]]
        for other in sources[name][1:]:
            value = build.call(f"{name}_sum", Add(), value, made[other])
        if name == ends[1] or (isinstance(node, nir.I) and name == told.get("total")):  # a reader's sum of the readout
            made[name] = value
            continue
        try:
            *before, module = MODULES.get(type(node), _unknown)(node, T)
            for one in before:
                value = build.call(f"{name}_gain", one, value)
            value = build.call(name, module, value)
        except Refused as refusal:
            blockers.append(Blocker(name, _kind(graph, name), refusal.why, refusal.hint))
        neurons += [value.name] * isinstance(node, nir.IF)
        made[name] = value
    if not blockers and not neurons:
        blockers.append(Blocker(ends[1], "Output", "no neuron stands before it", "a network of neurons"))
    if blockers:
        raise _refused(blockers)
    found = build.finish(made[ends[1]])
    spiking = {node for node in found.graph.nodes if node.name in neurons}
    frames = {node for node, _ in calls(found, Frames)}
    inside = between(found, spiking, frames)
    whole = "input_scale" in told  # a network of integers, which says so by the grid of its input
    put_borders(found, _with_sums(found, inside) if whole else inside, T, late, framed=bool(frames))
    size = [int(one) for one in graph.nodes[ends[0]].input_type["input"]]
    info["input_shape"] = [T, *size] if frames else size
    every_shape(found, tuple(info["input_shape"]))  # which refuses what does not fit together
    return Network(found, info, chunk, Stage.FIXED if whole else Stage.SPIKING)


def _with_sums(graph: fx.GraphModule, inside: set[fx.Node]) -> set[fx.Node]:
    """With what is linear in integers behind the last neuron: a network of integers adds up before it divides."""
    found = set(inside)
    for node in graph.graph.nodes:
        module = module_of(graph, node) if node.op == "call_module" else None
        numbers = [*module.parameters(), *module.buffers()] if module is not None else []
        integers = all((one == one.round()).all() for one in numbers)
        if module is not None and integers and all(source in found for source in node.all_input_nodes):
            found.add(node)
    return found


def _only(graph: nir.NIRGraph, kind: type) -> str:
    names = [name for name, node in graph.nodes.items() if isinstance(node, kind)]
    if len(names) != 1:
        many = f"it has {len(names)} nodes of the kind {kind.__name__}"
        raise Unsupported(f"The NIR graph is no network that snnc has: {many}.", f"one {kind.__name__}")
    return names[0]


def _info(told: dict[str, Any], T: int) -> dict[str, Any]:
    """How the network was made, as far as the file says."""
    found: dict[str, Any] = {"recipe": "of a NIR file", "T": T}
    if str(told.get("generator", "")).startswith("snnc"):
        found |= json.loads(str(told.get("history", "{}")))
    found.pop("latency", None)
    check_history(found)
    return found


def _refused(blockers: list[Blocker]) -> Unsupported:
    return Unsupported.of(blockers, "The NIR graph is no network that snnc has: ", "")


def _kind(graph: nir.NIRGraph, name: str) -> str:
    return type(graph.nodes[name]).__name__


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _tensor(values: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32).copy())


def _compact(values: Any) -> Tensor:
    """Numbers of a sample's shape as `[]` or `[C, 1, ...]`, where they are the same at every place."""
    full = _tensor(values)
    if full.numel() and (full == full.flatten()[0]).all():
        return full.flatten()[0]
    rows = full.reshape(len(full), -1)
    if not (rows == rows[:, :1]).all():
        raise Refused("its numbers differ from place to place", "one number a channel")
    return rows[:, 0].reshape(-1, *[1] * (full.dim() - 1))


def _pair(value: Any) -> tuple[int, ...]:
    return tuple(int(one) for one in np.atleast_1d(value))


def _factors(node: Any) -> list[nn.Module] | None:
    """A diagonal matrix as the factors that it is: so snnc writes them."""
    square = node.weight.reshape(node.weight.shape[:2])
    if square.shape[0] != square.shape[1] or np.any(square - np.diag(np.diag(square))):
        return None
    scale = _tensor(np.diag(square))
    shift = torch.zeros_like(scale) if getattr(node, "bias", None) is None else _tensor(node.bias).flatten()
    more = [1] * (node.weight.ndim - 2)
    return [Affine(scale.reshape(-1, *more), shift.reshape(-1, *more))]


def _filled(layer: Any, weight: Any, bias: Any) -> list[nn.Module]:
    layer.weight = nn.Parameter(_tensor(weight), requires_grad=False)
    layer.bias = None if bias is None else nn.Parameter(_tensor(bias).flatten(), requires_grad=False)
    return [layer]


def _linear(node: Any, T: int) -> list[nn.Module]:
    if node.weight.ndim != 2:
        raise Refused("its weights are no matrix", "a matrix [out, in]")
    if factors := _factors(node):
        return factors
    bias = getattr(node, "bias", None)
    return _filled(nn.Linear(node.weight.shape[1], node.weight.shape[0], bias is not None), node.weight, bias)


def _convolution(node: Any, T: int) -> list[nn.Module]:
    kind: Any = nn.Conv2d if isinstance(node, nir.Conv2d) else nn.Conv1d
    outputs, inputs, *kernel = node.weight.shape
    groups, padding = int(node.groups), node.padding if isinstance(node.padding, str) else _pair(node.padding)
    if set(kernel) == {1} and {*_pair(node.stride), *_pair(node.dilation)} == {1} and groups == 1:
        factors = None if isinstance(padding, str) or any(padding) else _factors(node)
        if factors:
            return factors
    layer = kind(inputs * groups, outputs, tuple(kernel), _pair(node.stride), padding, _pair(node.dilation), groups)
    return _filled(layer, node.weight, node.bias)


def _pool(node: Any, T: int) -> list[nn.Module]:
    kernel, stride, padding = (_pair(part) for part in (node.kernel_size, node.stride, node.padding))
    divisor = 1 if isinstance(node, nir.SumPool2d) else None
    return [nn.AvgPool2d(kernel, stride, padding, divisor_override=divisor)]  # type: ignore[arg-type]


def _flatten(node: Any, T: int) -> list[nn.Module]:
    rank = len(node.input_type["input"])
    if int(node.start_dim) != 0 or int(node.end_dim) not in (-1, rank - 1):
        raise Refused("it flattens a part of a sample", "all of it, start_dim = 0 and end_dim = -1")
    return [nn.Flatten()]


def _factor(values: Any) -> nn.Module:
    scale = _compact(values)
    return Affine(scale, torch.zeros_like(scale))


def _scale(node: Any, T: int) -> list[nn.Module]:
    return [_factor(node.scale)]


def _neuron(node: Any, T: int) -> list[nn.Module]:
    if np.any(node.v_reset):
        raise Refused("a spike sets its potential to another value than 0", "v_reset = 0")
    told = node.metadata or {}
    theta, v0 = _compact(node.v_threshold), _compact(told.get("v0", np.zeros_like(node.v_threshold)))
    if not (theta > 0).all():
        raise Refused("its threshold is not above 0", "thresholds above 0")
    theta, v0 = torch.broadcast_tensors(theta, v0)
    before = [] if np.all(node.r == 1) else [_factor(node.r)]
    return [*before, IF(T, theta.clone(), v0.clone(), unit=bool((theta != 1).any()))]


def _unknown(node: Any, T: int) -> list[nn.Module]:
    raise Refused("snnc has no such node", f"one of {', '.join(kind.__name__ for kind in MODULES)}")


MODULES: dict[type, Callable[[Any, int], list[nn.Module]]] = {
    nir.Affine: _linear,
    nir.Linear: _linear,
    nir.Conv1d: _convolution,
    nir.Conv2d: _convolution,
    nir.AvgPool2d: _pool,
    nir.SumPool2d: _pool,
    nir.Flatten: _flatten,
    nir.Scale: _scale,
    nir.IF: _neuron,
}
