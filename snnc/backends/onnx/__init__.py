"""Spiking networks as ONNX files."""
