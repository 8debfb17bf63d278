"""An ONNX file, which reads as a spiking network and runs in onnxruntime and in other runtimes of ONNX.

    logits, by_step = onnxruntime.InferenceSession("model.onnx").run(None, {"x": x})

`logits` `[B, classes]` is the readout after T steps, `by_step` `[T, B, classes]` that after each step. Several outputs
have the names that `SpikingNetwork.outputs` gives, those after each step with `_by_step` behind. Any batch size; all
`T * B` rows are in memory at once, so the batch size bounds the memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from snnc.backends.base import Backend
from snnc.files import atomic_write
from snnc.networks.network import Network


@dataclass(frozen=True)
class OnnxModel(Backend):
    """ONNX with the neurons as functions of the file.

    Attributes:
        anytime: also write the readout after each step, as a second output.
        integers: write fixed-point networks with 8-bit integers where these are exact, for the CPU and onnxruntime 1.24
            or later; other networks, and all with False, are written in float32.
    """

    name = "onnx"
    suffix = ".onnx"
    summary = "ONNX: runs in onnxruntime, where neither snnc nor torch is installed; neurons are functions of the file"

    anytime: bool = True
    integers: bool = True

    def emit(self, network: Network, path: Path) -> None:
        from snnc.backends.onnx.writer import model  # onnx is slow to import

        content = model(network, self.anytime, self.integers).SerializeToString()
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)
