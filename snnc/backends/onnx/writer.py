"""Writes a spiking graph as an ONNX model.

Time is folded into the batch as in the graph. Neurons, max pools in time and the borders of time are calls of
functions that the file brings (`functions`); all else is plain ONNX (`ops`, `pools`). `emitters` has the table.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper
from torch import fx

from snnc.backends.onnx.block import SHAPE_HINT, Block, EmitSite, initialiser
from snnc.backends.onnx.counting import Counting
from snnc.backends.onnx.emitters import EMITTERS, readout
from snnc.backends.onnx.functions import IR_VERSION, OPSET, Library
from snnc.errors import SnncError
from snnc.files.emitted import BATCH, DOMAIN, KEY, by_step, output_names
from snnc.ir.embedding import Embedding
from snnc.ir.graph import Stage, calls, module_of, numbers, phases, results
from snnc.ir.neurons import Neuron
from snnc.ir.rows import MissingRow, Refused
from snnc.ir.shapes import Shapes
from snnc.ir.temporal import Decode
from snnc.ir.whole import places
from snnc.networks.network import Network
from snnc.structure import shapes_of
from snnc.version import __version__

_LIMIT = 2**31 - 1  # bytes of a protobuf message


class _Writer:
    """Writes one network; what it has written so far is in `main`, `weights` and `library`.

    Attributes:
        values: names of values by node, those inside time by step.
        counting: what is written as counts and sums, if anything is.
    """

    def __init__(self, network: Network, integers: bool) -> None:
        self.graph = network.graph
        self.shapes = Shapes.of(network.graph, network.info.get("input_shape"), network.info.get("input_rank"))
        self.phase = phases(network.graph)
        self.weights: list[TensorProto] = []
        self.library = Library()
        self.read = network.T
        self.main = Block(initialiser(self.weights))
        self.whole, self.floats = places(network.graph), dict[fx.Node, str]()
        self.entries = [self.main.name(name) for name in network.inputs]
        self.values: dict[fx.Node, str] = {}
        self.counting = None
        if integers and network.stage is Stage.FIXED:
            self.counting = Counting(
                self.graph, self.shapes, self.main, self.library, self._floats, self.value, self.emit
            )

    def emit(self, node: fx.Node, inputs: list[str], out: str, label: str) -> str:
        """One call of the graph; gives the name of its value."""
        module, source = module_of(self.graph, node), node.all_input_nodes[0]
        try:
            emitter = EMITTERS(module)
        except (Refused, MissingRow) as no:
            raise SnncError(
                f"The backend 'onnx' cannot write '{node.name}', a {type(module).__name__}: {no}",
                "the backend torch or pt2",
            ) from no
        before, after, rank = self.shapes.shape(source), self.shapes.shape(node), self.shapes.rank(source)
        return emitter(EmitSite(self.main, node, out, label, before, after, rank, self.library), module, *inputs)

    def run(self, anytime: bool) -> dict[str, list[Any]]:
        """Writes the graph; gives the outputs with the shape of each."""
        wanted = results(self.graph)
        names = output_names(list(wanted), self.entries)
        self.main.taken |= {*names, *(by_step(name) for name in names)} | {"logits"}
        values = self.values
        nodes = [node for node in self.graph.graph.nodes if node.op != "output"]
        called: dict[fx.Node, str] = {}
        for name, node in zip(names, wanted.values(), strict=True):
            if node.op == "call_module":
                called.setdefault(node, name)
        given = iter(self.entries)
        for node in nodes:
            if node.op == "placeholder":
                values[node] = next(given)
                continue
            if self.counting and self.phase[node] == "in" and self.counting.take(node, node.name):
                continue
            self.main.taken.discard(called.get(node, ""))
            inputs = [self._fed(node, n, self.value(n, node)) for n in _inputs(node)]
            values[node] = self.emit(node, inputs, called.get(node, node.name), node.name)
        outputs: dict[str, list[Any]] = {}
        samples = {}
        for name, node in zip(names, wanted.values(), strict=True):
            if called.get(node) != name:  # an input as it is, or a value that another output is too
                self.main.taken.discard(name)
                self.main.op("Identity", values[node], out=name)
            rank = self.shapes.rank(node) or 1
            samples[name] = self.shapes.shape(node) or [f"out{k}" for k in range(1, rank)]
            outputs[name] = [BATCH, *samples[name]]
        if anytime:
            after = [node for node in nodes if self.phase[node] == "after"]
            self.by_step(values, after, dict(zip(names, wanted.values(), strict=True)))
            outputs |= {by_step(name): [self.read, BATCH, *sample] for name, sample in samples.items()}
        return outputs

    def by_step(self, values: dict[fx.Node, str], nodes: list[fx.Node], wanted: dict[str, fx.Node]) -> None:
        """What stands after time once more, for the readouts after each step, which are folded into the batch."""
        running: dict[fx.Node, str] = {}
        for node in nodes:
            module, out = module_of(self.graph, node), f"{node.name}.by_step"
            if isinstance(module, Decode):
                (source,) = node.all_input_nodes
                running[node] = self.main.call("Running", self.value(source, node), out=out, **readout(module))
                continue
            for source in node.all_input_nodes:
                self._repeat(source, values, running)
            running[node] = self.emit(node, [running[n] for n in _inputs(node)], out, out)
        for name, node in wanted.items():
            self._repeat(node, values, running)
            self.main.taken.remove(by_step(name))
            self.main.call("Unfold", running[node], out=by_step(name), T=self.read)

    def value(self, node: fx.Node, reader: fx.Node) -> str:
        """A value by step, for one of those that read it; one that is counted is written so when it is first read."""
        if node not in self.values and self.counting:
            counted = node in self.counting.counts or isinstance(module_of(self.graph, reader), Decode)
            if counted:  # a sum is what a readout reads
                self.values[node] = self.counting.steps_of(node, f"{node.name}.spikes")
            else:
                inputs = [self.value(source, node) for source in _inputs(node)]
                self.values[node] = self.emit(node, inputs, node.name, node.name)
        return self.values[node]

    def _floats(self, node: fx.Node) -> str:
        """A value from before time, in floats."""
        return self._fed(next(iter(node.users)), node, self.values[node])

    def _fed(self, node: fx.Node, source: fx.Node, value: str) -> str:
        """What a call reads: of an input of whole numbers floats, unless it is a table."""
        if source not in self.whole or isinstance(module_of(self.graph, node), Embedding):
            return value
        if source not in self.floats:
            self.floats[source] = self.main.op("Cast", value, out=f"{source.name}.floats", to=TensorProto.FLOAT)
        return self.floats[source]

    def _repeat(self, source: fx.Node, values: dict[fx.Node, str], running: dict[fx.Node, str]) -> None:
        """A value from before time, at each step."""
        if source not in running:
            running[source] = self.main.call("Encode", values[source], out=f"{source.name}.repeated", T=self.read)


def _inputs(node: fx.Node) -> list[fx.Node]:
    """The inputs of a call, in order; a value may occur twice."""
    return [n for n in node.args if isinstance(n, fx.Node)]


def model(network: Network, anytime: bool = True, integers: bool = True) -> onnx.ModelProto:
    """The network as a model in memory.

    Args:
        network: a compiled network.
        anytime: also give the readout after each step.
        integers: of a fixed-point network write what can be as integers.

    Raises:
        SnncError: a module that this backend cannot write, or an operation whose form depends on the shape of the
            input, which is not known.
    """
    first = numbers(network.graph)
    if first.dtype != torch.float32:
        raise SnncError(f"The backend 'onnx' writes float32, and the network is {first.dtype}.", "network.float()")
    writer = _Writer(network, integers)
    outputs = writer.run(anytime)
    info = {**network.info, "stage": str(network.stage), "latency": asdict(network.latency)}
    given, rank = network.info.get("input_shape"), network.info.get("input_rank")
    if not given and not rank:
        raise SnncError("The backend 'onnx' needs the dimensions of the input, and nothing told them.", SHAPE_HINT)
    shapes = shapes_of(given, len(network.entries)) if given else [[f"size{k}" for k in range(1, rank or 1)]]
    inputs = [
        helper.make_tensor_value_info(
            name, TensorProto.INT64 if end.whole else TensorProto.FLOAT, [BATCH, *(one or ())]
        )
        for name, end, one in zip(writer.entries, network.entries, shapes, strict=True)
    ]
    graph = helper.make_graph(
        writer.main.nodes,
        "snn",
        inputs,
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
