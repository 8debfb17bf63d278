"""snnc compiles trained neural networks into spiking networks that need few time steps.

>>> import snnc
>>> net = snnc.compile(model, T=8, recipe="cos", calibration=loader)
>>> logits = net(x)
>>> snnc.save(net, "model.snn")

Names are imported as they are first used, since torch takes seconds: `snnc --version` needs none of it.
"""

import importlib
import logging
import sys
import types
from typing import TYPE_CHECKING, Any

from snnc.errors import SnncError
from snnc.version import __version__

if TYPE_CHECKING:
    from snnc.api import compile, load, save
    from snnc.capture import capture
    from snnc.differences import verify
    from snnc.explain import explain
    from snnc.ir.graph import Stage
    from snnc.ir.proof import prove
    from snnc.measure.check import check
    from snnc.measure.evaluate import evaluate
    from snnc.measure.search import search
    from snnc.networks.base import SpikingNetwork
    from snnc.networks.network import Network
    from snnc.networks.staged import Staged
    from snnc.passes import PASSES
    from snnc.passes.pipeline import Context, Pass, Pipeline, Record
    from snnc.plugins import plugin
    from snnc.processes import distributed
    from snnc.recipes import recipe
    from snnc.report import compare, report
    from snnc.tune.options import TuneOptions
    from snnc.tune.run import tune

# A library is silent unless asked: `logging.basicConfig(level="INFO")` shows what it does.
logging.getLogger("snnc").addHandler(logging.NullHandler())

_HOME = {
    "snnc.api": ("compile", "load", "save"),
    "snnc.capture": ("capture",),
    "snnc.differences": ("verify",),
    "snnc.explain": ("explain",),
    "snnc.ir.graph": ("Stage",),
    "snnc.ir.proof": ("prove",),
    "snnc.measure.check": ("check",),
    "snnc.measure.evaluate": ("evaluate",),
    "snnc.measure.search": ("search",),
    "snnc.networks.base": ("SpikingNetwork",),
    "snnc.networks.network": ("Network",),
    "snnc.networks.staged": ("Staged",),
    "snnc.passes": ("PASSES",),
    "snnc.passes.pipeline": ("Context", "Pass", "Pipeline", "Record"),
    "snnc.plugins": ("plugin",),
    "snnc.processes": ("distributed",),
    "snnc.recipes": ("recipe",),
    "snnc.report": ("compare", "report"),
    "snnc.tune.options": ("TuneOptions",),
    "snnc.tune.run": ("tune",),
}
_MODULES = ("readers",)  # public as they stand
_PUBLIC = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "PASSES",
    "Context",
    "Network",
    "Pass",
    "Pipeline",
    "Record",
    "SnncError",
    "SpikingNetwork",
    "Stage",
    "Staged",
    "TuneOptions",
    "__version__",
    "capture",
    "check",
    "compare",
    "compile",
    "distributed",
    "evaluate",
    "explain",
    "load",
    "plugin",
    "prove",
    "recipe",
    "report",
    "save",
    "search",
    "tune",
    "verify",
]


class _Package(types.ModuleType):
    """This module, which keeps its functions where a subpackage has the name of one, such as `snnc.tune`.

    Python makes every subpackage an attribute of its parent when it is imported.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _PUBLIC and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name in _MODULES:
            return importlib.import_module(f"snnc.{name}")
        if name not in _PUBLIC:
            raise AttributeError(f"module 'snnc' has no attribute '{name}'")
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
        setattr(self, name, value)
        importlib.import_module("snnc.plugins").installed()
        return value

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__, *_MODULES})


sys.modules[__name__].__class__ = _Package
