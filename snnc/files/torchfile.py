"""Files of `torch.save`, through torch's restricted unpickler and never another."""

from __future__ import annotations

import dataclasses
import enum
import importlib
import io
import pickletools
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from snnc.errors import LoadError
from snnc.files.sniffing import check_zip, open_zip, sniff

FACTORY_HINT = "save its state_dict, and pass it with --factory pkg.mod:function that builds the module"
_RUNS_SOURCE = (
    "pickled GraphModules and TorchScript run source text from the file when they are read",
    "torch.export.save(torch.export.export(model, example_inputs), 'model.pt2') where the model was made",
)


def nn_classes() -> list[type[nn.Module]]:
    """The layers of `torch.nn`: module classes only, none of which runs anything that a file holds.

    Lazy modules are left out: they change their own class, by a name that the file could give.
    """
    found = {
        value
        for name, module in list(sys.modules.items())
        if name.startswith("torch.nn.modules.")
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, nn.Module)
    }
    layers = (c for c in found if c.__module__.startswith("torch.nn.modules.") and "Lazy" not in c.__name__)
    return sorted(layers, key=lambda c: c.__qualname__)


def allowed_class(spec: str) -> type:
    """The class that a user allows by name, as `pkg.mod:Class`. Imports `pkg.mod`.

    Raises:
        LoadError: not such a name, nothing there, or nothing that may be allowed.
    """
    module_name, colon, name = spec.partition(":")
    if not (colon and module_name and name):
        raise LoadError(f"'{spec}' does not name a class.", "--allow pkg.mod:Class")
    try:
        with current_folder_importable():
            value: Any = importlib.import_module(module_name)
            for part in name.split("."):
                value = getattr(value, part)
    except Exception as exc:  # importing runs the user's own code
        raise LoadError(f"'{spec}' could not be imported: {exc}.", "check the name and PYTHONPATH") from exc
    if not isinstance(value, type):
        raise LoadError(f"'{spec}' is not a class, and only classes may be allowed.", FACTORY_HINT)
    if issubclass(value, (fx.GraphModule, torch.jit.ScriptModule)) or _runs_source(value.__module__):
        raise LoadError(f"'{spec}' cannot be allowed: {_RUNS_SOURCE[0]}.", _RUNS_SOURCE[1])
    if not (issubclass(value, (nn.Module, enum.Enum)) or dataclasses.is_dataclass(value)):
        raise LoadError(f"'{spec}' is no nn.Module, dataclass or enum, so it cannot be allowed.", FACTORY_HINT)
    return value


def load_torch(path: str | Path, classes: Iterable[type] = ()) -> Any:
    """What a file of `torch.save` holds. Nothing in the file can run.

    Args:
        path: the file.
        classes: classes that it may hold besides tensors and plain data, such as `nn_classes()`.

    Returns:
        The object, with all tensors on the CPU.

    Raises:
        LoadError: not such a file, damaged, or holding other classes or functions; all of them are named.
    """
    path = Path(path)
    kind = sniff(path)
    if kind == "torchscript":
        raise LoadError(f"{path} is a TorchScript file: {_RUNS_SOURCE[0]}.", _RUNS_SOURCE[1])
    if kind not in ("torch-zip", "legacy-pickle"):
        raise LoadError(
            f"{path} is not a file that torch.save wrote.", "a file of torch.save, as the .snn files of snnc are"
        )
    if kind == "torch-zip":
        with open_zip(path) as archive:
            check_zip(archive, path)
    classes = list(classes)
    safe: list[Any] = list(classes)
    try:
        named = sorted(set(_globals(path, kind)))
        # What was defined in a script is stored under __main__, wherever the user imports it from now.
        safe += [(c, n) for n in named for c in classes if n == f"__main__.{c.__qualname__}"]
        with torch.serialization.safe_globals(safe):
            unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(path) if kind == "torch-zip" else []
            if not unsafe:
                return torch.load(_source(path, kind), map_location="cpu", weights_only=True)
    except LoadError:
        raise
    except Exception as exc:  # torch's readers and a damaged pickle can raise anything
        if kind == "torch-zip" or "Unsupported global" not in str(exc):
            raise LoadError(f"{path} cannot be read: {_reason(exc)}", "save it again with torch.save") from exc
        trusted = ("torch._utils.", "torch.nn.modules.", "collections.")
        unsafe = [name for name in named if not name.startswith(trusted)] or named
    raise _refusal(path, sorted(unsafe))


def _globals(path: Path, kind: str) -> Iterator[str]:
    """Every name that the pickles in the file import. Disassembles them, runs none."""
    if kind == "torch-zip":
        with open_zip(path) as archive:
            pickles = next(archive.read(n) for n in archive.namelist() if n.partition("/")[2] == "data.pkl")
        opcodes = pickletools.genops(pickles)
        yield from (str(arg).replace(" ", ".") for op, arg, _ in opcodes if op.name == "GLOBAL")
        return
    f = io.BytesIO(path.read_bytes())
    for _ in range(4):  # magic number, protocol, system, then the object
        yield from (str(arg).replace(" ", ".") for op, arg, _ in pickletools.genops(f) if op.name == "GLOBAL")


def _source(path: Path, kind: str) -> Path | io.BytesIO:
    """What torch reads: a file of the old format from memory, where a length that it claims takes up none."""
    return io.BytesIO(path.read_bytes()) if kind == "legacy-pickle" else path


def _refusal(path: Path, names: list[str]) -> LoadError:
    if any(_runs_source(name) for name in names):
        return LoadError(f"{path} is refused: {_RUNS_SOURCE[0]} (it names {', '.join(names)}).", _RUNS_SOURCE[1])
    if any(name.startswith("torch.ao.") for name in names):
        message = f"{path} is refused: it holds a quantised network, with {', '.join(names)}; nothing was run."
        return LoadError(message, "the float network that it was quantised from; snnc quantises itself")
    # Layers are classes, and classes are capitalised; a function cannot be allowed, so none is suggested.
    layers = [n for n in names if n.rpartition(".")[2][:1].isupper() and "." in n]
    allow = " ".join(f"--allow {m}:{c}" for m, _, c in (n.rpartition(".") for n in layers[:5]))
    allow = allow.replace("__main__:", "your_module:") or "--allow pkg.mod:Class for classes of yours that you trust"
    return LoadError(
        f"{path} is refused: it holds more than torch.nn layers, namely {', '.join(names)}; nothing was run.",
        f"{allow}; or {FACTORY_HINT}",
    )


def _runs_source(name: str) -> bool:
    return name.startswith(("torch.fx", "torch.jit", "torch.package", "torch.ScriptModule", "__torch__"))


def _reason(exc: Exception) -> str:
    """The first line that says what is wrong; torch's own begins with advice to load unsafely."""
    text = str(exc).partition("WeightsUnpickler error: ")[2] or str(exc)
    return (text.strip().partition("\n")[0][:200] or type(exc).__name__).rstrip(".") + "."


@contextmanager
def current_folder_importable() -> Iterator[None]:
    """A user's own code mostly stands in the current folder, where an installed command does not look."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
