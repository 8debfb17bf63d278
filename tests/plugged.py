"""What plug-ins enter is taken out again, so that other tests see snnc as it ships."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from snnc import plugins
from snnc.ir.dialect import ADDED, CONFIG, PLUGGED
from snnc.ir.graph import SPEC
from snnc.passes import PASSES
from snnc.recipes import ADDED as RECIPES


@contextmanager
def restored() -> Iterator[None]:
    """Everything that was registered, as it was before; modules that were imported meanwhile are forgotten."""
    registries = (PASSES, RECIPES, SPEC, CONFIG, ADDED, PLUGGED, plugins._loaded)
    before = [dict(one) for one in registries]
    try:
        yield
    finally:
        for name in set(plugins._loaded) - set(before[-1]):
            sys.modules.pop(name, None)
        for one, content in zip(registries, before, strict=True):
            one.clear()
            one.update(content)
