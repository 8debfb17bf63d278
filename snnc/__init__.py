"""snnc compiles trained neural networks into spiking networks that need few time steps.

>>> import snnc
>>> net = snnc.compile(model, T=8, recipe="cos", calibration=loader)
>>> logits = net(x)
>>> snnc.save(net, "model.snn")
"""

from snnc.api import compile, load, save
from snnc.capture import capture
from snnc.errors import SnncError
from snnc.evaluate import evaluate
from snnc.explain import explain
from snnc.fixed import prove
from snnc.graph import Stage, verify
from snnc.network import Network
from snnc.passes import PASSES
from snnc.pipeline import Context, Pass, Pipeline, Record
from snnc.recipes import recipe
from snnc.search import search
from snnc.staged import Staged
from snnc.tune import TuneOptions, tune
from snnc.version import __version__

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
    "compile",
    "evaluate",
    "explain",
    "load",
    "prove",
    "recipe",
    "save",
    "search",
    "tune",
    "verify",
]
