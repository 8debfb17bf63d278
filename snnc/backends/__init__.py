"""Every way to write a spiking network, by name. A new backend is a file here and a row below."""

from __future__ import annotations

from snnc.backends.base import Backend
from snnc.backends.graphfile import GraphFile
from snnc.backends.nir.backend import NirFile
from snnc.backends.onnx.model import OnnxModel
from snnc.backends.pt2 import ExportedProgram

BACKENDS: dict[str, Backend] = {b.name: b for b in (GraphFile(), ExportedProgram(), OnnxModel(), NirFile())}

__all__ = ["BACKENDS", "Backend", "ExportedProgram", "GraphFile", "NirFile", "OnnxModel"]
