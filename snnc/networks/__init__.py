"""Spiking networks to run: compiled ones, and those read back from a .pt2 or an ONNX file."""
