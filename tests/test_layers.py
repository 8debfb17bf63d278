"""The shape of the source: imports point one way, files stay short, and nothing loads a pickle unsafely.

Everything here reads the source as text; the package is never imported.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "snnc"
SOURCES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 400
UNSAFE = re.compile(r"weights_only\W+False")

# Lowest first. A module may import its own layer and those below it. A name stands for a module or for a
# whole subpackage; a new one has to be given its place here.
LAYERS = [
    {"errors", "version", "markup", "processes", "steady"},
    {"dialect", "packing", "temporal", "neurons"},
    {"graph", "algebra", "statistics", "regression", "fixed"},
    {"capture", "files", "observe", "data", "artifact", "calibration", "staged"},
    {"integers"},
    {"pipeline", "trace"},
    {"passes"},
    {"recipes", "runtime", "network", "portable", "backends", "meter", "evaluate", "explain", "differences"},
    {"api"},
    {"search", "tune", "report"},
    {"cli"},
    {"__init__", "__main__"},
]
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}


def unit(path: Path) -> str:
    """The layer table's name for a file: `snnc/passes/fold.py` belongs to `passes`."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path, source: str) -> Iterator[tuple[int, str]]:
    """Line and unit of every import from within the package, at any depth of the file, lazy ones too."""
    package = ("snnc", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            targets = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            targets = [(*base, alias.name) for alias in node.names]
        else:
            continue
        for root, *rest in targets:
            if root == "snnc":
                # `from snnc import x` is the module x where there is one, else a name of the package.
                yield node.lineno, rest[0] if rest and rest[0] in LAYER else "__init__"


def violations(path: Path, source: str) -> list[str]:
    """What is wrong with a file's imports, one line each."""
    own = unit(path)
    if own not in LAYER:
        return [f"{path.name}: give '{own}' a layer in {Path(__file__).name}"]
    return [
        f"{path.relative_to(PACKAGE.parent)}:{line}: '{own}' must not import '{target}', which lies above it"
        for line, target in imports(path, source)
        if LAYER[target] > LAYER[own]
    ]


def test_there_is_something_to_check():
    assert PACKAGE / "__init__.py" in SOURCES


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    assert violations(path, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_stay_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_loads_unsafely(path):
    assert not UNSAFE.search(path.read_text(encoding="utf-8"))


def test_an_unsafe_load_is_seen():
    assert UNSAFE.search("torch.load(path, weights_only = False)")
    assert UNSAFE.search("options = {'weights_only': False}")
    assert not UNSAFE.search("torch.load(path, weights_only=True)")


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("graph.py", "import snnc.pipeline"),
        ("graph.py", "import snnc"),
        ("graph.py", "from snnc.passes.fold import Fold"),
        ("graph.py", "from snnc import api"),
        ("graph.py", "from snnc import compile"),
        ("graph.py", "from . import api"),
        ("graph.py", "from .capture import capture"),
        ("graph.py", "def lazy():\n    from snnc.pipeline import Pipeline"),
        ("passes/fold.py", "from ..backends.onnx import emit"),
        ("passes/fold.py", "from .. import cli"),
        ("passes/__init__.py", "from ..api import compile"),
        ("unheard_of.py", ""),
    ],
)
def test_a_violation_is_seen(file, source):
    assert len(violations(PACKAGE / file, source)) == 1


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("graph.py", "import torch, snnc.errors\nfrom snnc import dialect\nfrom .neurons import IF"),
        ("capture.py", "from snnc.files import load_torch"),
        ("passes/fold.py", "from . import scale\nfrom .scale import Scale\nfrom ..graph import verify"),
        ("backends/onnx.py", "import onnx\nfrom onnx import helper"),
        ("cli.py", "from snnc import api, errors"),
        ("__main__.py", "from snnc.cli import main"),
    ],
)
def test_what_is_allowed_passes(file, source):
    assert violations(PACKAGE / file, source) == []
