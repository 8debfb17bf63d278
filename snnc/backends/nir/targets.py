"""What can be done with a NIR file: the simulators and chips that read it, and what each of them reads.

A row says what the tool does with a file as it stands, or, where `reader` names a function of `snnc.readers`, with the
settings that this function makes. `tried` is the version that the row was checked with, and `by` how: "run" by running
networks in the tool; "tool" by the tool's own checker or importer; "source" by reading its importer, where it cannot be
installed from a package registry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NODES = frozenset(
    {"Input", "Output", "Affine", "Linear", "Conv1d", "Conv2d", "AvgPool2d", "SumPool2d", "Flatten", "IF"}
)


@dataclass(frozen=True)
class Target:
    """One simulator or chip.

    Attributes:
        name: what the user asks for.
        summary: what it is.
        tried, by: see the module.
        reads: kinds of nodes that it takes as they are.
        threshold: whether every neuron may have a threshold of its own, or all of a layer share one.
        reset: whether a spike takes the threshold from the potential, or sets it to 0.
        start: whether potentials can start elsewhere than at 0.
        branches: whether a node may feed several, or read several.
        conv_bias: whether a convolution may have a bias.
        bits: of a weight, sign included; None for floating point.
        analog: whether the input may be any number, where False means spikes.
        readout: whether layers may stand behind the last neuron.
        stacked: whether weights may follow weights without a neuron between them.
        maps: whether neurons may stand on maps `[C, H, W]`, where False means vectors.
        total: whether outputs are those of neurons alone, so that an `I` node has to stand behind the readout.
        memory: whether each layer has to fit into a core of a Speck chip.
        reader: function of `snnc.readers` that runs the file with snnc's spikes, if there is one.
    """

    name: str
    summary: str
    tried: str
    by: Literal["run", "tool", "source"]
    reads: frozenset[str] = NODES
    threshold: Literal["neuron", "layer"] = "neuron"
    reset: Literal["subtract", "zero"] = "subtract"
    start: bool = True
    branches: bool = True
    conv_bias: bool = True
    bits: int | None = None
    analog: bool = True
    readout: bool = True
    stacked: bool = True
    maps: bool = True
    total: bool = False
    memory: bool = False
    reader: str | None = None

    @property
    def sums(self) -> bool:
        """Whether average pools have to be written as sums, with 1/n in the weights behind them."""
        return "AvgPool2d" not in self.reads


ROWS = (
    Target("nir", "any reader; nothing is changed for one", "nir 1.0.8", "run"),
    Target(
        "spikingjelly", "simulator on PyTorch", "spikingjelly 2.0.0", "run", NODES - {"SumPool2d"},
        threshold="layer", reader="spikingjelly",
    ),
    Target(
        "snntorch", "simulator on PyTorch", "snntorch 1.0.0", "run", NODES - {"SumPool2d", "Conv1d"}, reader="snntorch"
    ),
    Target("sinabs", "simulator on PyTorch", "sinabs 3.1.3", "run", NODES - {"AvgPool2d", "Conv1d"}, reader="sinabs"),
    Target("norse", "simulator on PyTorch", "norse 1.1.0", "run", NODES - {"AvgPool2d", "Conv1d"}, reader="norse"),
    Target(
        "lava", "lava-dl, for Intel's Loihi 2", "lava-dl 0.6.0", "tool", NODES - {"AvgPool2d", "Conv1d"},
        threshold="layer", reset="zero", start=False, branches=False, conv_bias=False,
    ),
    Target(
        "spinnaker2", "the chip SpiNNaker2", "py-spinnaker2, its s2_nir.py", "source", NODES - {"AvgPool2d", "Conv1d"},
        start=False, bits=8, analog=False, readout=False, stacked=False,
    ),
    Target(
        "speck", "the chip Speck, by sinabs", "sinabs 3.1.3", "tool", NODES - {"AvgPool2d", "Conv1d"},
        threshold="layer", bits=8, analog=False, readout=False, stacked=False, memory=True,
    ),
    Target(
        "snn-mlir", "compiler to C", "snn-mlir 1.0.0, without its snn-opt", "run", threshold="layer", reset="zero",
        start=False, branches=False, total=True,
    ),
    Target(
        "xylo", "the chip Xylo, by rockpool", "rockpool 3.1.0", "tool",
        frozenset({"Input", "Output", "Affine", "Linear"}), start=False, bits=8, analog=False, readout=False,
    ),
    Target(
        "hls4ml", "compiler to FPGAs", "hls4ml of 2026-06-10", "run",
        frozenset({"Input", "Output", "Affine", "Linear", "Flatten", "IF"}), start=False, branches=False, maps=False,
    ),
)  # fmt: skip
TARGETS: dict[str, Target] = {one.name: one for one in ROWS}
