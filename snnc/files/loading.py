"""A user's model from a file, a factory, or both."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from snnc.errors import LoadError, SnncError
from snnc.files.archive import load_pt2
from snnc.files.onnxfile import load_onnx
from snnc.files.sniffing import sniff
from snnc.files.torchfile import FACTORY_HINT, allowed_class, current_folder_importable, load_torch, nn_classes
from snnc.steady import steady

if TYPE_CHECKING:
    import onnx

_NESTED = ("state_dict", "model_state_dict", "model", "net")  # where training scripts put the network
_PREFIXES = ("module.", "_orig_mod.")  # left by DataParallel and torch.compile
_ACCEPTED = (
    "an exported program (.pt2), an ONNX model, a module of torch.nn layers saved by torch.save, or a state_dict with "
    "--factory pkg.mod:function"
)


@steady()
def load_model(
    path: str | Path | None, *, factory: str | None = None, allow: Iterable[str] = ()
) -> nn.Module | ExportedProgram | onnx.ModelProto | dict[str, Any]:
    """A trained network from what the user has. Runs nothing that the file holds.

    Args:
        path: the file; None or "-" where the factory alone gives the network.
        factory: `pkg.mod:function` or `pkg.mod:function(20, width=2)`, arguments being literals. Imported,
            also from the current folder, and called; the state_dict at `path` is loaded into its module.
        allow: `pkg.mod:Class` for each class of the user's own that a pickled module holds.

    Returns:
        A module in eval mode, an exported program, an ONNX model with its weights in it, or the content of an snnc
        graph file: a dict whose "format" is "snnc-graph".

    Raises:
        LoadError: the file is missing, damaged or refused, does not fit the factory, or holds NaN or inf.
    """
    if path is None or str(path) == "-":
        if factory is None:
            raise LoadError("There is no model.", "a file, or --factory pkg.mod:function")
        return _checked(_call(factory), factory)
    path = Path(path)
    kind = sniff(path)
    if kind == "onnx":
        if factory is not None:
            raise LoadError(f"{path} is a whole network and needs no factory.", "drop --factory")
        return load_onnx(path)
    if kind == "pickle":
        raise LoadError(f"{path} is a plain pickle, which can run code when it is read.", FACTORY_HINT)
    if kind == "unknown":
        raise LoadError(f"{path} is not a model file that snnc knows.", _ACCEPTED)
    if kind == "pt2":
        if factory is not None:
            raise LoadError(f"{path} is a whole program and needs no factory.", "drop --factory")
        program = load_pt2(path)
        _check_finite(program.state_dict.items(), str(path))
        return program
    content = load_torch(path, [*nn_classes(), *map(allowed_class, allow)])
    if isinstance(content, dict) and content.get("format") == "snnc-graph":
        return content
    return _from_content(content, path, factory)


def _from_content(content: Any, path: Path, factory: str | None) -> nn.Module:
    candidates = [content]
    if isinstance(content, Mapping):
        candidates += [content[key] for key in _NESTED if key in content]
    for found in candidates:
        if isinstance(found, nn.Module):
            if factory is not None:
                raise LoadError(f"{path} holds a whole module and needs no factory.", "drop --factory")
            return _checked(found, str(path), pickled=True)
        if _is_state_dict(found):
            if factory is None:
                raise LoadError(f"{path} holds weights (a state_dict) but no network.", "--factory pkg.mod:function")
            model = _checked(_call(factory), factory)
            _fill(model, found, path, factory)
            return _checked(model, str(path))
    what = f"a dict with the keys {list(content)[:8]}" if isinstance(content, Mapping) else type(content).__name__
    raise LoadError(f"{path} holds no network: it is {what}.", _ACCEPTED)


def _is_state_dict(value: Any) -> bool:
    if not isinstance(value, Mapping) or not value:
        return False
    return all(isinstance(k, str) and (isinstance(v, Tensor) or "_extra_state" in k) for k, v in value.items())


def _checked(model: Any, where: str, pickled: bool = False) -> nn.Module:
    """The module in eval mode, once all its values are known to be finite and its methods its classes' own."""
    if not isinstance(model, nn.Module):
        raise LoadError(f"{where} gives a {type(model).__name__}, not an nn.Module.", _ACCEPTED)
    try:
        for name, module in model.named_modules():
            replaced = [k for k in vars(module) if callable(getattr(type(module), k, None))]
            if pickled and replaced:  # such as a `forward` that the file brings
                raise LoadError(f"{where} is refused: its layer '{name}' replaces {replaced[0]}.", FACTORY_HINT)
        _check_finite([*model.named_parameters(), *model.named_buffers()], where)
        return model.eval()
    except SnncError:
        raise
    except Exception as exc:  # a pickled module can lack any part of a module
        raise LoadError(f"{where} gives a module that is not intact: {exc}.", FACTORY_HINT) from exc


def _check_finite(tensors: Iterable[tuple[str, Any]], where: str) -> None:
    for name, tensor in tensors:
        if torch.nn.parameter.is_lazy(tensor) or tensor.is_meta:
            raise LoadError(f"{where}: '{name}' has no values.", "run the network once, or load its weights")
        if (tensor.is_floating_point() or tensor.is_complex()) and not torch.isfinite(tensor).all():
            raise LoadError(f"{where}: '{name}' holds NaN or infinity.", "an earlier checkpoint")


def _fill(model: nn.Module, weights: Mapping[str, Tensor], path: Path, factory: str) -> None:
    """Loads weights strictly, after removing wrapper prefixes that only the file has."""
    expected = set(model.state_dict())
    for _ in range(4):  # wrappers can nest
        prefix = next((p for p in _PREFIXES if all(k.startswith(p) for k in weights)), None)
        if prefix is None or expected & set(weights):
            break
        weights = {k.removeprefix(prefix): v for k, v in weights.items()}
    try:
        keys = model.load_state_dict(dict(weights), strict=False)
    except Exception as exc:  # wrong sizes, and whatever a user's own hooks raise
        lines = [line.strip() for line in str(exc).splitlines()]
        detail = next((line for line in lines if "size mismatch" in line), lines[-1] if lines else "")
        raise LoadError(f"{path} does not fit {factory}: {detail.rstrip('.')}.", "the matching factory") from exc
    problems = [
        f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for kind, names in (("missing", keys.missing_keys), ("unexpected", keys.unexpected_keys))
        if names
    ]
    if problems:
        raise LoadError(f"{path} does not fit {factory}: {' and '.join(problems)}.", "the matching factory")


def _call(factory: str) -> Any:
    """Imports and calls `pkg.mod:function(literals)`."""
    match = re.fullmatch(r"([\w.]+):([\w.]+)(\(.*\))?", factory.strip(), re.DOTALL)
    if match is None:
        raise LoadError(f"'{factory}' does not name a factory.", "pkg.mod:function or pkg.mod:function(20)")
    args, kwargs = _literals(match[3] or "()", factory)
    with current_folder_importable():
        try:
            function: Any = importlib.import_module(match[1])
            for part in match[2].split("."):
                function = getattr(function, part)
        except (ImportError, AttributeError) as exc:
            raise LoadError(f"The factory '{factory}' is not there: {exc}.", "check its name and PYTHONPATH") from exc
        except Exception as exc:  # importing runs the user's own code
            raise LoadError(f"Importing {match[1]} failed: {type(exc).__name__}: {exc}.", "mend it") from exc
        try:
            return function(*args, **kwargs)
        except SnncError:
            raise
        except Exception as exc:  # so does calling it
            hint = "pass its arguments as pkg.mod:function(20, width=2)"
            raise LoadError(f"The factory '{factory}' failed: {type(exc).__name__}: {exc}.", hint) from exc


def _literals(text: str, factory: str) -> tuple[list[Any], dict[str, Any]]:
    try:
        call = ast.parse(f"f{text}", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError("not a call")
        named = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords if k.arg}
        if len(named) != len(call.keywords):
            raise ValueError("not a literal")
        return [ast.literal_eval(a) for a in call.args], named
    except (SyntaxError, ValueError) as exc:
        raise LoadError(f"The arguments in '{factory}' are not literals.", "numbers, 'text', True, None") from exc
