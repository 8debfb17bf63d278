"""Writes a spiking graph as an ONNX model.

Time is folded into the batch as in the graph. Neurons, max pools in time and the borders of time are calls of
functions that the file brings (`functions`); all else is plain ONNX (`ops`, `pools`).
"""

from __future__ import annotations

import copy
import json
from dataclasses import asdict
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper
from torch import fx, nn

from snnc.backends.onnx.block import SHAPE_HINT, Block, Site, constant_node, initialiser
from snnc.backends.onnx.curved import CURVED
from snnc.backends.onnx.functions import ATTRIBUTES, IR_VERSION, OPSET, Library, parsed, several
from snnc.backends.onnx.ops import OPS, Emitter
from snnc.backends.onnx.pools import POOLS, leaders
from snnc.calibrate.observe import watch
from snnc.errors import SnncError
from snnc.files.emitted import BATCH, DOMAIN, KEY
from snnc.ir.curved import degree
from snnc.ir.graph import calls, guess_input, module_of, phases
from snnc.ir.neurons import NEURONS, Neuron
from snnc.ir.temporal import (
    Decode,
    Encode,
    GatedMax,
    Restart,
    StepCurrent,
    StepMax,
    Telescoped,
    TemporalMax,
)
from snnc.networks.network import Network
from snnc.version import __version__

EMITTERS: dict[type[nn.Module], Emitter] = {**OPS, **POOLS, **CURVED}
_LIMIT = 2**31 - 1  # bytes of a protobuf message


class _Shapes:
    """Shapes of samples, found without walking through time; ranks alone where the input's shape had to be guessed."""

    def __init__(self, network: Network) -> None:
        still = copy.deepcopy(network.graph)
        for node, module in calls(still):
            still.set_submodule(str(node.target), _still(module))
        given = network.info.get("input_shape")
        guess = None if given else guess_input(still)
        example = torch.empty(2, *given, device="meta") if given else guess
        self.known = bool(given)
        self.found: dict[str, tuple[int, ...]] = {}
        if example is not None:
            watch(still.to("meta"), example.to("meta"), self._see)

    def _see(self, node: fx.Node, value: Any) -> None:
        self.found[node.name] = tuple(value.shape[1:])

    def of(self, node: fx.Node) -> tuple[int, ...] | None:
        """Shape of one sample."""
        return self.found[node.name] if self.known else None

    def rank(self, node: fx.Node) -> int | None:
        """Dimensions, the batch included."""
        return len(self.found[node.name]) + 1 if self.found else None


def _still(module: nn.Module) -> nn.Module:
    """What a module does to the shape of a sample."""
    if isinstance(module, Restart):
        module = module.body
    if isinstance(module, TemporalMax):
        return module.pool
    if isinstance(module, Telescoped):
        return module.body
    return nn.Identity() if isinstance(module, (Encode, Decode, StepCurrent, Neuron)) else module


class _Writer:
    """Writes one network; what it has written so far is in `main`, `weights` and `library`."""

    def __init__(self, network: Network) -> None:
        self.graph = network.graph
        self.shapes = _Shapes(network)
        self.phase = phases(network.graph)
        self.weights: list[TensorProto] = []
        self.library = Library()
        self.read = network.T
        self.main = Block(initialiser(self.weights))

    def emit(self, node: fx.Node, inputs: list[str], out: str, label: str) -> str:
        """One call of the graph; gives the name of its value."""
        module, block = module_of(self.graph, node), self.main
        if isinstance(module, Encode):
            return block.call("Encode", *inputs, out=out, label=label, T=module.T)
        if isinstance(module, Decode):
            return block.call("Decode", *inputs, out=out, label=label, **_readout(module))
        if isinstance(module, StepCurrent):
            shift = block.const(f"{node.name}.shift", module.shift)
            return block.call("StepCurrent", *inputs, shift, out=out, label=label, T=module.T)
        if type(module) in NEURONS:
            parameters = [block.const(f"{node.name}.{name}", getattr(module, name)) for name in ("theta", "v0")]
            more = {name: _plain(getattr(module, name)) for name in ATTRIBUTES.get(type(module), ())}
            return block.call(
                self.library.neuron(module, self.shapes.rank(node) or 1),
                *inputs,
                *parameters,
                out=out,
                label=label,
                T=module.T,
                **more,
            )
        if isinstance(module, (TemporalMax, Telescoped, Restart)):
            more = {"tau": module.tau} if isinstance(module, Restart) else {}
            return block.call(self.pool(node, module), *inputs, out=out, label=label, T=module.T, **more)
        return self.emitter(node, module)(self.site(block, node, out, label), module, *inputs)

    def emitter(self, node: fx.Node, module: nn.Module) -> Emitter:
        """What writes a module."""
        if type(module) not in EMITTERS:
            raise SnncError(
                f"The backend 'onnx' cannot write '{node.name}', a {type(module).__name__}.", "the backend torch or pt2"
            )
        return EMITTERS[type(module)]

    def site(self, block: Block, node: fx.Node, out: str, label: str) -> Site:
        """Where a module is called, and what is known of its shapes."""
        source = node.all_input_nodes[0]
        before, after, rank = self.shapes.of(source), self.shapes.of(node), self.shapes.rank(source)
        return Site(block, node, out, label, before, after, rank)

    def pool(self, node: fx.Node, module: Any) -> str:
        """The name of the function that lowers a curved operation: one for each that there is."""
        body = module.body if isinstance(module, Restart) else module
        count = len(_inputs(node))
        steps = ["steps", *(f"steps{k}" for k in range(1, count))]
        block = Block(constant_node, taken={*steps, "y"})
        at = self.site(block, node, "pooled", "pooled")
        if isinstance(body, Telescoped):
            result = self.grown(node, body, block, at, steps)
        else:
            if isinstance(body, GatedMax):
                sums, x = block.call("Sums", "steps", out="sums"), block.call("Fold", "steps", out="x")
                pooled = leaders(at, body.pool, sums, x)
            elif isinstance(body, StepMax):
                pooled = self.emitter(node, body.pool)(at, body.pool, block.call("Fold", "steps", out="x"))
            else:
                self.emitter(node, body)
            result = block.call("Unfolded", pooled, "steps", out="by_step")
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
        kind, inside = type(body).__name__, getattr(body, "body", None) or body.pool
        walk = helper.make_function(
            DOMAIN, f"{kind}Walk", steps, [result], block.nodes, opsets, doc_string=f"{kind} over {inside}"
        )
        named = self.library.keep(walk)
        outer = parsed("Restart" if isinstance(module, Restart) else "Pool", walk=named, **several(count))
        outer.name = type(module).__name__
        return self.library.keep(outer)

    def grown(self, node: fx.Node, body: Telescoped, block: Block, at: Site, steps: list[str]) -> str:
        """What `t f(mean up to step t)` grows by; see `Telescoped` for what becomes of t where f is homogeneous."""
        d = degree(body.body)
        kind = "MeansFolded" if d is None else "Sums"
        sums = [block.call(kind, one, out="sums" if k == 0 else f"sums{k}") for k, one in enumerate(steps)]
        pooled = self.emitter(node, body.body)(at, body.body, *sums)
        by_step = block.call("Unfolded", pooled, "steps", out="by_step")
        if d != 1:
            count = block.call("Numbers", by_step, out="count")
            for turn in range(abs(1 - (d or 0))):
                by_step = block.op("Mul" if (d or 0) < 1 else "Div", by_step, count, out=f"times{turn}")
        return block.call("Growth", by_step, out="grown")

    def run(self, anytime: bool) -> dict[str, list[Any]]:
        """Writes the graph; gives the outputs with the shape of each."""
        self.main.taken |= {"logits", "by_step"}
        values: dict[fx.Node, str] = {}
        *nodes, output = self.graph.graph.nodes
        last = output.all_input_nodes[0]
        for node in nodes:
            if node.op == "placeholder":
                values[node] = self.main.name("x")
                continue
            if node is last:
                self.main.taken.remove("logits")
            inputs = [values[n] for n in _inputs(node)]
            values[node] = self.emit(node, inputs, "logits" if node is last else node.name, node.name)
        rank = self.shapes.rank(last) or 1
        sample = self.shapes.of(last) or [f"out{k}" for k in range(1, rank)]
        outputs: dict[str, list[Any]] = {"logits": [BATCH, *sample]}
        if anytime:
            self.by_step(values, [node for node in nodes if self.phase[node] == "after"], last)
            outputs["by_step"] = [self.read, BATCH, *sample]
        return outputs

    def by_step(self, values: dict[fx.Node, str], nodes: list[fx.Node], last: fx.Node) -> None:
        """What stands after time once more, for the readouts after each step, which are folded into the batch."""
        running: dict[fx.Node, str] = {}
        for node in nodes:
            module, out = module_of(self.graph, node), f"{node.name}.by_step"
            if isinstance(module, Decode):
                (source,) = node.all_input_nodes
                running[node] = self.main.call("Running", values[source], out=out, **_readout(module))
                continue
            for source in node.all_input_nodes:
                if source not in running:  # from before time: repeated at each step
                    running[source] = self.main.call(
                        "Encode", values[source], out=f"{source.name}.repeated", T=self.read
                    )
            running[node] = self.emit(node, [running[n] for n in _inputs(node)], out, out)
        self.main.taken.remove("by_step")
        self.main.call("Unfold", running[last], out="by_step", T=self.read)


def _inputs(node: fx.Node) -> list[fx.Node]:
    """What a call is given, in order; one value may stand there twice."""
    return [n for n in node.args if isinstance(n, fx.Node)]


def _readout(module: Decode) -> dict[str, Any]:
    return {"T": module.T, "skip": module.skip, "late": module.late, "read": module.read}


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else value


def model(network: Network, anytime: bool = True) -> onnx.ModelProto:
    """The network as a model in memory.

    Args:
        network: a compiled network.
        anytime: also give the readout after each step.

    Raises:
        SnncError: a module that this backend cannot write, or an operation whose form depends on the shape of the
            input, which is not known.
    """
    first = next(network.graph.buffers(), None)
    if first is not None and first.dtype != torch.float32:
        raise SnncError(f"The backend 'onnx' writes float32, and the network is {first.dtype}.", "network.float()")
    writer = _Writer(network)
    outputs = writer.run(anytime)
    info = {**network.info, "stage": str(network.stage), "latency": asdict(network.latency)}
    given, rank = network.info.get("input_shape"), network.info.get("input_rank")
    entry = given or [f"size{k}" for k in range(1, rank or 1)]
    if not given and not rank:
        raise SnncError("The backend 'onnx' needs the dimensions of the input, and nothing told them.", SHAPE_HINT)
    graph = helper.make_graph(
        writer.main.nodes,
        "snn",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [BATCH, *entry])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        writer.weights,
    )
    made = helper.make_model(
        graph,
        producer_name="snnc",
        producer_version=__version__,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)],
        functions=writer.library.needed(writer.main.nodes),
        doc_string=_description(network),
    )
    helper.set_model_props(made, {KEY: json.dumps(info)})
    if made.ByteSize() > _LIMIT:
        raise SnncError("The network is larger than the 2 GB that an ONNX file holds.", "the backend torch or pt2")
    onnx.checker.check_model(made, full_check=True)
    return made


def _description(network: Network) -> str:
    layers = sum(isinstance(module, Neuron) for _, module in calls(network.graph))
    return (
        f"A spiking network of {layers} neuron layers, compiled by snnc {__version__} with the recipe "
        f"'{network.info.get('recipe')}'. Latency: {network.latency}. Values inside time are [T * batch, ...], step "
        f"after step. The metadata '{KEY}' tells how it was made."
    )
