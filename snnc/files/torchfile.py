"""Files of `torch.save`, through torch's restricted unpickler and never another."""

from __future__ import annotations

import argparse
import dataclasses
import enum
import importlib
import io
import pathlib
import pickletools
import sys
import types
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from snnc.errors import LoadError
from snnc.files.pickled import Outline, full_name, outline
from snnc.files.skipped import Skipped, stand_ins
from snnc.files.sniffing import check_zip, open_zip, sniff

FACTORY_HINT = (
    "save its state_dict with torch.save, and pass that with --factory pkg.mod:function that builds the module"
)
DROP_IT = f"leave it out, since what stands beside the weights is skipped; if it is in a module, {FACTORY_HINT}"
_BAGS = (argparse.Namespace, types.SimpleNamespace, pathlib.PosixPath)  # which do nothing with what they are given
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
        raise LoadError(f"'{spec}' is not a class, and only classes may be allowed.", DROP_IT)
    if issubclass(value, (fx.GraphModule, torch.jit.ScriptModule)) or _runs_source(value.__module__):
        raise LoadError(f"'{spec}' cannot be allowed: {_RUNS_SOURCE[0]}.", _RUNS_SOURCE[1])
    if not (issubclass(value, (nn.Module, enum.Enum, *_BAGS)) or dataclasses.is_dataclass(value)):
        raise LoadError(f"'{spec}' is no nn.Module, dataclass or enum, so it cannot be allowed.", DROP_IT)
    return value


@dataclasses.dataclass(frozen=True)
class Content:
    """What a file of `torch.save` holds.

    Attributes:
        value: the object, with all tensors on the CPU and `Skipped` in the place of what was not made.
        unknown: the names, as `module.name`, that are more than tensors, plain data and allowed classes.
        plan: the outline of the pickle, where something was skipped.
    """

    path: Path
    value: Any
    unknown: tuple[str, ...] = ()
    plan: Outline | None = None

    def refusal(self, keys: Iterable[object] = ()) -> LoadError | None:
        """Why the entry at `keys`, one inside the other, cannot be taken; None where nothing in it was skipped."""
        node = self.plan.root if self.plan else None
        for key in keys:
            node = node.at(key) if node else None
        names = node.names() & set(self.unknown) if node else ()
        return _refusal(self.path, sorted(names)) if names else None

    def refusal_of_network(self) -> LoadError | None:
        """Why no network can be taken, where an entry that was skipped holds tensors: such is a module's pickle."""
        entries = self.value.items() if isinstance(self.value, Mapping) else ()
        skipped = [key for key, value in entries if isinstance(value, Skipped)]
        for key in skipped:
            if self.plan and any(n.startswith("torch._utils._rebuild_") for n in self.plan.root.at(key).names()):
                return self.refusal([key])
        return None


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
    kind = _kind(path)
    with _allowed(path, kind, classes) as unknown:
        if unknown:
            raise _refusal(path, unknown)
        return torch.load(_source(path, kind), map_location="cpu", weights_only=True)


def read_torch(path: str | Path, classes: Iterable[type] = ()) -> Content:
    """As `load_torch`, but everything else in the file is skipped: it is not imported, not made, and not run.

    Raises:
        LoadError: another kind of file, damaged, or not readable without the skipped parts.
    """
    path = Path(path)
    kind = _kind(path)
    classes = list(classes)
    with _allowed(path, kind, classes) as unknown:
        if not unknown:
            return Content(path, torch.load(_source(path, kind), map_location="cpu", weights_only=True))
        try:
            plan = outline(_pickle(path, kind))
            with _safe(stand_ins(unknown, plan)):
                value = torch.load(_source(path, kind), map_location="cpu", weights_only=True)
        except Exception as exc:  # whatever a stand-in does not do
            raise _refusal(path, unknown) from exc
        return Content(path, value, tuple(unknown), plan)


def _kind(path: Path) -> str:
    """The kind of the file, whose members are sound.

    Raises:
        LoadError: no file of torch.save, or one that was tampered with.
    """
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
    return kind


@contextmanager
def _allowed(path: Path, kind: str, classes: Iterable[type]) -> Iterator[list[str]]:
    """While it lasts, torch makes objects of `classes`. Gives the names in the file that torch would refuse even so."""
    try:
        named = sorted(set(_globals(path, kind)))
        # What was defined in a script is stored under __main__, wherever the user imports it from now.
        classes = list(classes)
        main = [(c, f"__main__.{n}") for m, n in named for c in classes if m == "__main__" and n == c.__qualname__]
        with _safe([*classes, *main]):
            yield _unknown(named)
    except LoadError:
        raise
    except Exception as exc:  # torch's readers and a damaged pickle can raise anything
        raise LoadError(f"{path} cannot be read: {_reason(exc)}", "save it again with torch.save") from exc


@contextmanager
def _safe(wanted: list[Any]) -> Iterator[None]:
    """Allows these, and takes back no more than that: the list is the process's, and the user may have added to it."""
    there = set(torch.serialization.get_safe_globals())
    with torch.serialization.safe_globals([one for one in wanted if one not in there]):
        yield


def _pickle(path: Path, kind: str) -> io.BytesIO:
    """The pickle of the object itself, from where it starts."""
    if kind == "torch-zip":
        with open_zip(path) as archive:
            return io.BytesIO(next(archive.read(n) for n in archive.namelist() if n.partition("/")[2] == "data.pkl"))
    f = io.BytesIO(path.read_bytes())
    for _ in range(3):  # magic number, protocol, system
        for _ in pickletools.genops(f):
            pass
    return f


def _globals(path: Path, kind: str) -> Iterator[tuple[str, str]]:
    """Module and name of everything that the pickle in the file imports. Disassembles it, runs none."""
    opcodes = pickletools.genops(_pickle(path, kind))
    yield from (full_name(str(arg)) for op, arg, _ in opcodes if op.name == "GLOBAL")


def _unknown(names: Iterable[tuple[str, str]]) -> list[str]:
    """Which of these names torch would refuse now: it is asked with a file that holds nothing else."""
    question = io.BytesIO()
    with zipfile.ZipFile(question, "w") as archive:
        archive.writestr("names/data.pkl", "".join(f"c{module}\n{name}\n" for module, name in names) + ".")
        archive.writestr("names/version", "3\n")
    question.seek(0)
    return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(question))


def _source(path: Path, kind: str) -> Path | io.BytesIO:
    """What torch reads: a file of the old format from memory, where a length that it claims takes up none."""
    return io.BytesIO(path.read_bytes()) if kind == "legacy-pickle" else path


def _refusal(path: Path, names: list[str]) -> LoadError:
    if any(_runs_source(name) for name in names):
        return LoadError(f"{path} is refused: {_RUNS_SOURCE[0]} (it names {', '.join(names)}).", _RUNS_SOURCE[1])
    if any(name.startswith("torch.ao.") for name in names):
        message = f"{path} is refused: it holds a quantised network, with {', '.join(names)}; nothing was run."
        return LoadError(message, "the float network that it was quantised from; snnc quantises itself")
    message = f"{path} is refused: it holds more than torch.nn layers, namely {', '.join(names)}; nothing was run."
    if not all(map(_may_be_allowed, names)):
        return LoadError(message, FACTORY_HINT)
    allow = " ".join(f"--allow {m}:{c}" for m, _, c in (name.rpartition(".") for name in names))
    return LoadError(message, f"{allow.replace('__main__:', 'your_module:')}; or {FACTORY_HINT}")


def _may_be_allowed(name: str) -> bool:
    """Whether it looks like a class of the user's own. Classes are capitalised; a function cannot be allowed."""
    module, _, last = name.rpartition(".")
    if name in {f"{bag.__module__}.{bag.__qualname__}" for bag in _BAGS}:
        return True
    own = module.partition(".")[0] not in (*sys.stdlib_module_names, "torch", "numpy") or module == "__main__"
    return own and last[:1].isupper()


def _runs_source(name: str) -> bool:
    return name.startswith(("torch.fx", "torch.jit", "torch.package", "torch.ScriptModule", "__torch__"))


def _reason(exc: Exception) -> str:
    """The first line that says what is wrong; torch's own begins with advice to load unsafely."""
    text = str(exc).partition("WeightsUnpickler error: ")[2] or str(exc)
    if "Unsupported operand" in text or "pickle protocol" in text:
        return "it was written with another pickle_protocol than torch.save's own, which is 2."
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
