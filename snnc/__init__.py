"""snnc compiles trained neural networks into spiking networks that need few time steps.

>>> import snnc
>>> net = snnc.compile(model, T=8, recipe="cos", calibration=loader)
>>> logits = net(x)
>>> snnc.save(net, "model.snn")
"""

import logging

from snnc.api import compile, load, save
from snnc.capture import capture
from snnc.differences import differences
from snnc.errors import SnncError
from snnc.explain import explain
from snnc.ir.graph import Stage, verify
from snnc.ir.proof import prove
from snnc.measure.evaluate import evaluate
from snnc.measure.search import search
from snnc.networks.network import Network
from snnc.networks.staged import Staged
from snnc.passes import PASSES
from snnc.passes.pipeline import Context, Pass, Pipeline, Record
from snnc.processes import distributed
from snnc.recipes import recipe
from snnc.report import compare, report
from snnc.tune import TuneOptions, tune
from snnc.version import __version__

# A library says nothing unless asked to: `logging.basicConfig(level="INFO")` shows what it does.
logging.getLogger("snnc").addHandler(logging.NullHandler())

__all__ = [
    "PASSES",
    "Context",
    "Network",
    "Pass",
    "Pipeline",
    "Record",
    "SnncError",
    "Stage",
    "Staged",
    "TuneOptions",
    "__version__",
    "capture",
    "compare",
    "compile",
    "differences",
    "distributed",
    "evaluate",
    "explain",
    "load",
    "prove",
    "recipe",
    "report",
    "save",
    "search",
    "tune",
    "verify",
]
