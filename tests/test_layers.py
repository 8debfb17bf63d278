"""The shape of the source: imports point one way, files stay short, and nothing loads a pickle unsafely.

Everything here reads the source as text; the package is never imported. `python -m tests.test_layers` prints the house:
its units, layers and arrows.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest

PACKAGE = Path(__file__).parent.parent / "snnc"
SOURCES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 400
UNSAFE = re.compile(r"weights_only\W+False")

# Lowest first. A unit may import those of the layers below its own, and no other: not even one beside it. A unit is a
# module or a whole subpackage; a new one has to be given its place here.
LAYERS = [
    {"defaults", "errors", "launched", "markup", "memory", "steady", "version"},
    {"structure"},
    {"checks", "data", "files", "ir", "processes"},
    {"calibrate", "runtime"},
    {"integers", "networks"},
    {"capture", "passes"},
    {"backends", "explain", "recipes"},
    {"plugins"},
    {"api"},
    {"measure", "tune"},
    {"differences", "readers", "report"},
    {"cli"},
    {"__init__", "__main__"},
]
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}


def unit(path: Path) -> str:
    """The layer table's name for a file: `snnc/passes/fold.py` belongs to `passes`."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path, source: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line and dotted name, without `snnc`, of every import from within the package, lazy ones too."""
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
        yield from ((node.lineno, tuple(rest)) for root, *rest in targets if root == "snnc")


def target(name: tuple[str, ...]) -> str:
    """The unit of an import: `from snnc import x` is the unit x where there is one, else a name of the package."""
    return name[0] if name and name[0] in LAYER else "__init__"


def violations(path: Path, source: str) -> list[str]:
    """What is wrong with a file's imports, one line each."""
    own = unit(path)
    if own not in LAYER:
        return [f"{path.name}: give '{own}' a layer in {Path(__file__).name}"]
    return [
        f"{path.relative_to(PACKAGE.parent)}:{line}: '{own}' must not import '{target(name)}', which is not below it"
        for line, name in imports(path, source)
        if target(name) != own and LAYER[target(name)] >= LAYER[own]
    ]


def module(name: tuple[str, ...]) -> str:
    """The file that an import reads: the longest beginning of its name that is one."""
    for end in range(len(name), 0, -1):
        path = PACKAGE.joinpath(*name[:end])
        if path.with_suffix(".py").exists():
            return "/".join(name[:end]) + ".py"
        if path.is_dir():
            return "/".join((*name[:end], "__init__.py"))
    return "__init__.py"


def house() -> nx.DiGraph:
    """An arrow from each unit to each that it imports."""
    net = nx.DiGraph()
    net.add_nodes_from(LAYER)
    for path in SOURCES:
        for _, name in imports(path, path.read_text(encoding="utf-8")):
            if target(name) != unit(path):
                net.add_edge(unit(path), target(name))
    return net


def test_there_is_something_to_check():
    assert PACKAGE / "__init__.py" in SOURCES


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    assert violations(path, path.read_text(encoding="utf-8")) == []


def test_no_circle_of_units():
    """Of packages, and of the modules that stand beside them."""
    assert list(nx.simple_cycles(house())) == []


def test_no_circle_of_modules():
    """Lazy imports count too: a circle that only loads is still one to read."""
    net = nx.DiGraph()
    for path in SOURCES:
        own = str(path.relative_to(PACKAGE))
        net.add_edges_from((own, module(name)) for _, name in imports(path, path.read_text(encoding="utf-8")))
    net.remove_edges_from([(a, b) for a, b in net.edges if a == b])
    circles = [sorted(group) for group in nx.strongly_connected_components(net) if len(group) > 1]
    assert circles == []


def test_no_two_classes_share_a_name():
    homes: dict[str, list[str]] = {}
    for path in SOURCES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(str(path.relative_to(PACKAGE)))
    assert {name: files for name, files in homes.items() if len(files) > 1} == {}


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
        ("ir/graph.py", "import snnc.passes.pipeline"),
        ("ir/graph.py", "import snnc"),
        ("ir/graph.py", "from snnc.passes.fold import Fold"),
        ("ir/graph.py", "from snnc import api"),
        ("ir/graph.py", "from snnc import compile"),
        ("ir/graph.py", "from .. import api"),
        ("ir/graph.py", "from ..capture import capture"),
        ("ir/graph.py", "from snnc.files import sniff"),  # of the same layer
        ("ir/graph.py", "def lazy():\n    from snnc.passes.pipeline import Pipeline"),
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
        ("ir/graph.py", "import torch, snnc.errors\nfrom snnc.ir import dialect\nfrom .neurons import IF"),
        ("capture/doors.py", "from snnc.files import load_torch"),
        ("passes/fold.py", "from . import scale\nfrom .scale import Scale\nfrom ..ir.graph import verify"),
        ("backends/onnx.py", "import onnx\nfrom onnx import helper"),
        ("cli.py", "from snnc import api, errors"),
        ("__main__.py", "from snnc.cli import main"),
    ],
)
def test_what_is_allowed_passes(file, source):
    assert violations(PACKAGE / file, source) == []


if __name__ == "__main__":
    net = house()
    backwards = [(a, b) for a, b in net.edges if LAYER[b] >= LAYER[a]]
    print(f"{len(LAYER) - 2} units and 2 entries, {len(LAYERS)} layers, {net.number_of_edges()} arrows between units")
    print(f"{len(backwards)} arrows run backwards", *backwards)
