"""Names and numbers that the command line shows in its help, which is printed without what takes seconds to import."""

from __future__ import annotations

CHUNK = 256  # rows of `steps * samples` in memory at once: a few tens of megabytes for CIFAR-sized networks
RUNTIMES = ("auto", "reference", "fast")
WAYS = ("mean", "sum", "each")  # what a network was trained on, of the frames of a sample: see `snnc.ir.frames`
BACKENDS = {"torch": ".snn", "pt2": ".pt2", "onnx": ".onnx", "nir": ".nir"}  # suffix of each; the first is the default
