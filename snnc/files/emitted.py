"""Which ONNX files are spiking networks that snnc wrote."""

from __future__ import annotations

KEY = "snnc"
