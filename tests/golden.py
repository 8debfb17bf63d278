"""Golden texts: one small network at every stage of its graph, and as an ONNX file, as text that a person can read.

Numbers of the network are dyadic, so every machine comes to the same texts. `make reference` writes them anew; read the
difference before you commit it.
"""

import re
from pathlib import Path

import onnx
from torch import Tensor, fx, nn

from snnc.backends.onnx.writer import model
from snnc.cli.work.describe import graph_rows
from snnc.ir.dialect import Add
from snnc.ir.graph import Stage
from snnc.ir.shapes import every_shape
from snnc.networks.network import Network
from snnc.passes import FixedPoint, FoldBatchNorm, InsertNeurons, QuantizeActivations, SetInitialPotential
from snnc.passes.pipeline import Context, Pass, Pipeline
from snnc.version import __version__
from tests.nets import Dyadic, sample

FOLDER = Path(__file__).with_suffix("")
INPUT = (1, 4, 4)
PASSES: dict[Stage, tuple[Pass, ...]] = {
    Stage.FOLDED: (FoldBatchNorm(),),
    Stage.QUANTIZED: (QuantizeActivations(),),
    Stage.SPIKING: (InsertNeurons(), SetInitialPotential(rule="half")),
    Stage.FIXED: (FixedPoint(),),
}


def network() -> fx.GraphModule:
    """A convolution, max pooling, a residual block of one convolution and a classifier."""
    build = Dyadic(0)
    x = build.chain(build.input(), conv1=nn.Conv2d(1, 2, 3, padding=1), bn1=nn.BatchNorm2d(2), relu1=nn.ReLU())
    x = build.call("pool", nn.MaxPool2d(2), x)
    deep = build.chain(x, conv2=nn.Conv2d(2, 2, 3, padding=1, bias=False), bn2=nn.BatchNorm2d(2))
    x = build.call("join", Add(), deep, x)
    return build.finish(build.chain(x, relu2=nn.ReLU(), flat=nn.Flatten(), head=nn.Linear(8, 3)))


def stages() -> dict[Stage, fx.GraphModule]:
    """The network at every stage."""
    found = {Stage.ANN: network()}
    stage = Stage.ANN
    for goal, passes in PASSES.items():
        # Without data, fixed point rounds each number by itself, which no order of additions can change.
        data = None if goal is Stage.FIXED else [sample(INPUT)]
        context = Context(T=4, calibration=data, input_shape=INPUT)
        found[goal] = Pipeline(passes).run(found[stage], context, stage).graph
        stage = goal
    return found


def written(graph: fx.GraphModule, stage: Stage) -> str:
    """A graph as text: for each node its name, module, inputs and the shape of its value; then its numbers."""
    shapes = {node.name: list(shape) for node, shape in every_shape(graph, INPUT).items()}
    lines = [f"Stage {stage}. For each node: name = module(inputs) -> shape of one sample.", "", f"x -> {list(INPUT)}"]
    for row in graph_rows(graph, stage):
        name, module = row["name"], re.sub(r"(?<=\()\s+|\s+(?=\))", "", re.sub(r"\n +", " ", row["module"]))
        when = f", {row['time']} time" if "time" in row else ""
        lines += ["", f"{name} = {module}({', '.join(row['inputs'])}) -> {shapes[name]}{when}"]
        for key, value in graph.get_submodule(name).state_dict().items():
            lines += _numbers(key, value)
    (result,) = next(iter(reversed(graph.graph.nodes))).all_input_nodes
    return "\n".join([*lines, "", f"output {result.name}", ""])


def _numbers(name: str, value: Tensor) -> list[str]:
    """A tensor: its shape, and its numbers with a line for each output channel."""
    channels = len(value) if value.dim() > 1 and value[0].numel() > 1 else 1
    rows = value.double().reshape(channels, -1)
    texts = [" ".join(f"{number:.10g}" for number in row) for row in rows.tolist()]
    head = f"    {name} {list(value.shape)}:"
    return [f"{head} {texts[0]}"] if len(texts) == 1 else [head, *(f"        {text}" for text in texts)]


def onnx_text() -> str:
    """The spiking network as an ONNX file, in ONNX's own notation, without the version of snnc that wrote it."""
    spiking = Network(stages()[Stage.SPIKING], {"input_shape": list(INPUT), "recipe": "of tests/golden.py"})
    text = onnx.printer.to_text(model(spiking, anytime=True)).replace(__version__, "VERSION")
    lines = [line.rstrip() for line in re.sub(r"}, (?=float|int64)", "},\n    ", text).splitlines()]
    return "\n".join([*lines, ""])


def texts() -> dict[str, str]:
    """Every golden text by the name of its file."""
    graphs = {f"{k}-{stage.lower()}.txt": written(graph, stage) for k, (stage, graph) in enumerate(stages().items(), 1)}
    return {**graphs, "spiking.onnx.txt": onnx_text()}


def write() -> None:
    """Writes every text into tests/golden/."""
    for name, text in texts().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
