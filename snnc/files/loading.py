"""A user's model from a file, a factory, or both."""

from __future__ import annotations

import ast
import importlib
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.nn.modules.loss import _Loss

from snnc.errors import LoadError, SnncError
from snnc.files.archive import load_pt2
from snnc.files.onnxfile import load_onnx
from snnc.files.safetensors import load_safetensors
from snnc.files.sniffing import sniff
from snnc.files.torchfile import (
    FACTORY_HINT,
    Content,
    allowed_class,
    current_folder_importable,
    nn_classes,
    read_torch,
)
from snnc.files.weights import Leaf, NothingFits, fill, find, leaves, shortened, under
from snnc.steady import steady

if TYPE_CHECKING:
    import onnx

_log = logging.getLogger(__name__)
_WHOLE = ("onnx", "pt2")
_ACCEPTED = (
    "an exported program (.pt2), an ONNX model, a module of torch.nn layers saved by torch.save, or weights with "
    "--factory pkg.mod:function"
)


@steady()
def load_model(
    path: str | Path | None,
    *,
    factory: str | None = None,
    allow: Iterable[str] = (),
    key: str | None = None,
    leftover: bool = False,
    say: Callable[[str], None] = _log.info,
) -> nn.Module | ExportedProgram | onnx.ModelProto | dict[str, Any]:
    """A trained network from what the user has. Runs nothing that the file holds.

    Everything else in a checkpoint is skipped: it is neither imported nor made.

    Args:
        path: the file; None or "-" if the factory alone gives the network.
        factory: `pkg.mod:function` or `pkg.mod:function(20, width=2)`, arguments being literals. Imported,
            also from the current folder, and called; the weights at `path` are loaded into its module.
        allow: `pkg.mod:Class` for each class of the user's own that a pickled module holds.
        key: the entry of a checkpoint to take, with dots if it lies in another: `state_dict.student`. None for the only
            one that fits; "." for the names that are in no entry.
        leftover: whether weights that the factory's module does not have may stay in the file.
        say: called with a sentence that says which names were matched, and what was left.

    Returns:
        A module in eval mode, an exported program, an ONNX model with its weights in it, or the content of an snnc
        graph file: a dict whose "format" is "snnc-graph".

    Raises:
        LoadError: the file is missing, damaged or refused, does not fit the factory, or holds NaN or inf.
    """
    if path is None or str(path) == "-":
        if factory is None:
            raise LoadError("There is no model.", "a file, or --factory pkg.mod:function")
        _refuse_useless("What the factory builds", {"--key": key, "--leftover": leftover})
        return _checked(_call(factory), factory)
    path = Path(path)
    kind = sniff(path)
    if kind in _WHOLE:
        _refuse_useless(f"{path}", {"--factory": factory, "--key": key, "--leftover": leftover})
        if kind == "onnx":
            return load_onnx(path)
        program = load_pt2(path)
        _check_finite(program.state_dict.items(), str(path))
        return program
    if kind == "pickle":
        raise LoadError(f"{path} is a plain pickle, which can run code when it is read.", FACTORY_HINT)
    if kind == "hdf5":
        raise LoadError(
            f"{path} is HDF5. NIR files are, and hold spiking networks already.",
            f"'snnc inspect {path}' for a NIR file; ONNX for a network of another kind",
        )
    if kind == "unknown":
        raise LoadError(f"{path} is not a model file that snnc knows.", _ACCEPTED)
    if kind == "safetensors":
        content = Content(path, load_safetensors(path))
    else:
        content = read_torch(path, [*nn_classes(), *map(allowed_class, allow)])
    if isinstance(content.value, dict) and content.value.get("format") == "snnc-graph":
        if refusal := content.refusal():
            raise refusal
        return content.value
    held = list(leaves(content.value))
    if factory is None:
        if leftover and not any(isinstance(x.value, Tensor) for x in held):
            _refuse_useless(f"{path}", {"--leftover": leftover})
        return _module(content, held, key)
    return _filled(content, held, factory, key, leftover, say)


def _refuse_useless(what: str, options: Mapping[str, Any]) -> None:
    if given := [option for option, value in options.items() if value]:
        raise LoadError(f"{what} is a whole network and needs no {' and no '.join(given)}.", f"drop {', '.join(given)}")


def _module(content: Content, held: list[Leaf], key: str | None) -> nn.Module:
    """The one module in a file."""
    path, value = content.path, content.value
    if isinstance(value, nn.Module):
        if refusal := content.refusal():
            raise refusal
        if key is not None:
            raise LoadError(f"{path} is one module, and has no entry '{key}'.", "drop --key")
        return _checked(value, str(path), pickled=True)
    several = _modules(held)
    modules = [x for x in several if under(key, x.name)]
    if several and not modules:
        message = f"{path} has no module in an entry '{key}', but in {shortened(repr(x.name) for x in several)}."
        raise LoadError(message, "drop --key, or name one of these")
    if len(modules) > 1:
        names = [x.name for x in modules]
        message = f"{path} holds {len(names)} modules: {shortened(names)}."
        raise LoadError(message, f"--key {names[0]}, or another of these names")
    if modules:
        if refusal := content.refusal((*modules[0].path, modules[0].key)):
            raise refusal
        return _checked(modules[0].value, str(path), pickled=True)
    if refusal := content.refusal_of_network():
        raise refusal
    if tensors := [x for x in held if isinstance(x.value, Tensor)]:
        message = f"{path} holds weights ({shortened(x.name for x in tensors)}) but no network."
        raise LoadError(message, "--factory pkg.mod:function, which builds it")
    if refusal := content.refusal():
        raise refusal
    raise LoadError(f"{path} holds no network: it is {_described(value)}.", _ACCEPTED)


def _modules(held: list[Leaf]) -> list[Leaf]:
    """The modules in a file that may be the network, each once."""
    found = (x for x in held if isinstance(x.value, nn.Module) and not isinstance(x.value, _Loss))
    return list({id(x.value): x for x in found}.values())


def _described(value: Any) -> str:
    return f"a dict with the keys {list(value)[:8]}" if isinstance(value, Mapping) else type(value).__name__


def _filled(
    content: Content, held: list[Leaf], factory: str, key: str | None, leftover: bool, say: Callable[[str], None]
) -> nn.Module:
    """What the factory builds, with the weights in a file."""
    path = content.path
    tensors = [x for x in held if not isinstance(x.value, nn.Module)]
    whole = LoadError(f"{path} holds a whole module and needs no factory.", "drop --factory")
    if isinstance(content.value, nn.Module):
        raise content.refusal() or whole
    if not tensors:
        nothing = LoadError(f"{path} holds no weights: it is {_described(content.value)}.", _ACCEPTED)
        raise content.refusal_of_network() or content.refusal() or (whole if _modules(held) else nothing)
    network = _intact(_call(factory), factory)
    try:
        fit = find(tensors, network, key, str(path), factory)
    except NothingFits as problem:
        raise content.refusal_of_network() or (whole if _modules(held) else problem) from None
    if fit.left and not leftover:
        left = f"{len(fit.left)} left over ({shortened(fit.left)})"
        raise LoadError(f"{path} holds more than {factory} builds: {left}.", "--leftover, to leave them out")
    fill(network, fit)
    if told := fit.told():
        say(f"{path}: {told}")
    return _checked(network, str(path))


def _checked(model: Any, where: str, pickled: bool = False) -> nn.Module:
    """The module in eval mode, once all its values are known to be finite and its methods its classes' own."""
    model = _intact(model, where, pickled)
    _check_finite([*model.named_parameters(), *model.named_buffers()], where)
    return model.eval()


def _intact(model: Any, where: str, pickled: bool = False) -> nn.Module:
    """The module, once it is known to have all parts of a module, and its methods to be its classes' own."""
    if not isinstance(model, nn.Module):
        raise LoadError(f"{where} gives a {type(model).__name__}, not an nn.Module.", _ACCEPTED)
    try:
        for name, module in model.named_modules():
            replaced = [k for k in vars(module) if callable(getattr(type(module), k, None))]
            if pickled and replaced:  # such as a `forward` that the file brings
                raise LoadError(f"{where} is refused: its layer '{name}' replaces {replaced[0]}.", FACTORY_HINT)
        tensors = [*model.named_parameters(), *model.named_buffers()]
        if not all(isinstance(value, Tensor) for _, value in tensors):
            raise TypeError("a parameter is no tensor")
        return model.eval()
    except SnncError:
        raise
    except Exception as exc:  # a pickled module can lack any part of a module
        raise LoadError(f"{where} gives a module that is not intact: {exc}.", FACTORY_HINT) from exc


def _check_finite(tensors: Iterable[tuple[str, Any]], where: str) -> None:
    for name, tensor in tensors:
        if tensor.is_meta:
            hint = "a factory that builds it on the CPU, and not under torch.device('meta')"
            raise LoadError(f"{where}: '{name}' has no values.", hint)
        if torch.nn.parameter.is_lazy(tensor):
            raise LoadError(f"{where}: '{name}' has no values.", "run the network once, or load its weights")
        if (tensor.is_floating_point() or tensor.is_complex()) and not torch.isfinite(tensor).all():
            raise LoadError(f"{where}: '{name}' holds NaN or infinity.", "an earlier checkpoint")


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
