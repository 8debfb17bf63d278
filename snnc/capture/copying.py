"""A copy of the user's network to work on, and what each of its modules computes as."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from types import BuiltinFunctionType, CellType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as modules
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from snnc.capture.swapping import swapped, swapped_items
from snnc.errors import Unsupported
from snnc.ir import dialect

WEIGHT_HOOKS = (WeightNorm, SpectralNorm, prune.BasePruningMethod)


def copied(model: nn.Module) -> nn.Module:
    """A copy of the user's model in eval mode that shares nothing with it, nor do functions that it keeps.

    Raises:
        Unsupported: it cannot be copied.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise Unsupported("A TorchScript module holds no layers to read.", "the module that it was scripted from")
    # torch copies no results of calculations, such as the weights of hooks.
    kept = (v for module in model.modules() for v in vars(module).values() if isinstance(v, Tensor) and not v.is_leaf)
    memo: dict[int, Any] = {id(v): v.detach().clone() for v in kept}
    functions = _Functions({id(module) for module in model.modules()})
    kinds = {FunctionType: functions.function, MethodType: functions.method}
    try:
        with swapped_items(copy._deepcopy_dispatch, kinds):  # type: ignore[attr-defined]
            model = copy.deepcopy(model, memo).eval()
    except Exception as error:
        message = f"The network cannot be copied ({type(error).__name__}: {error})."
        raise Unsupported(message, "keep only modules, parameters and buffers in it") from error
    return _unwrapped(model)


@contextmanager
def no_backward_hooks() -> Iterator[None]:
    """Without the backward hooks of all modules of the process: they ask tracers for gradients."""
    with swapped(modules, _global_backward_hooks=OrderedDict(), _global_backward_pre_hooks=OrderedDict()):
        yield


def private(model: nn.Module) -> tuple[nn.Module, Tensor]:
    """A copy to trace: computed weights put in their place, no backward hooks; and a tensor of its kind."""
    model = copied(model)
    for module in model.modules():
        if parametrize.is_parametrized(module):
            _bake(module)
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, WEIGHT_HOOKS):
                _unhook(module, hook)
        for hooks in (module._backward_hooks, module._backward_pre_hooks):
            hooks.clear()  # they look at gradients, and for those at the type of the result
    floating = (p for p in (*model.parameters(), *model.buffers()) if p.is_floating_point())
    like = next(floating, torch.zeros(()))
    return model, torch.empty((), dtype=like.dtype, device=like.device)


# What a function may keep and share with its copy.
_CONSTANT = (int, float, str, bytes, type(None), type, torch.dtype, torch.device, BuiltinFunctionType, ModuleType)


class _Functions:
    """Copies functions, which `copy.deepcopy` shares: a lambda over `self` becomes one over the copy of it.

    Args:
        network: ids of the network's modules, which a function may also know as globals.
    """

    def __init__(self, network: set[int]) -> None:
        self.network = network

    def function(self, function: Any, memo: dict[int, Any]) -> Any:
        """A function with copies of what it has closed over, or itself where that is constant."""
        function = getattr(function, "_torchdynamo_orig_callable", function)  # of torch.compile
        if not self._holds(function, set()):
            return function
        old = function.__closure__ or ()
        cells = tuple(CellType() for _ in old)
        space = function.__globals__ | {}
        new = FunctionType(function.__code__, space, function.__name__, None, cells)
        memo[id(function)] = new
        new.__qualname__, new.__module__ = function.__qualname__, function.__module__
        space.update({name: copy.deepcopy(space[name], memo) for name in self._globals(function)})
        new.__defaults__ = _own(function.__defaults__, memo)
        new.__kwdefaults__ = _own(function.__kwdefaults__, memo)
        new.__dict__.update({name: _own(value, memo) for name, value in vars(function).items()})
        for cell, before in zip(cells, old, strict=True):
            for value in _contents(before):
                cell.cell_contents = _own(value, memo)
        return new

    def method(self, method: Any, memo: dict[int, Any]) -> Any:
        return MethodType(copy.deepcopy(method.__func__, memo), copy.deepcopy(method.__self__, memo))

    def _globals(self, function: Any) -> list[str]:
        """Names of globals that are modules of the network, or methods of such."""
        there = {name: function.__globals__.get(name) for name in function.__code__.co_names}
        return [name for name, value in there.items() if id(getattr(value, "__self__", value)) in self.network]

    def _holds(self, function: Any, seen: set[int]) -> bool:
        """Whether a function has closed over more than constants, classes, and functions that have not either."""
        if id(function) in seen:
            return False
        seen.add(id(function))
        held = [value for cell in function.__closure__ or () for value in _contents(cell)]
        held += [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values(), *vars(function).values()]
        more = (self._holds(v, seen) if isinstance(v, FunctionType) else not isinstance(v, _CONSTANT) for v in held)
        return any(more) or bool(self._globals(function))


def _own(value: Any, memo: dict[int, Any]) -> Any:
    """A copy, or the thing itself where Python has no copy of it."""
    try:
        return copy.deepcopy(value, memo)
    except Exception:
        return value


def _contents(cell: Any) -> Iterator[Any]:
    try:
        yield cell.cell_contents
    except ValueError:  # nothing has been stored yet
        return


def _unwrapped(model: nn.Module) -> nn.Module:
    """Without the wrappers of `torch.compile`, found by their name, since their class takes seconds to import."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ == "OptimizedModule":
                setattr(parent, name, child._orig_mod)
    return _unwrapped(model._orig_mod) if type(model).__name__ == "OptimizedModule" else model  # type: ignore[arg-type]


def _unhook(module: nn.Module, hook: Any) -> None:
    """Puts a weight that a hook computes at each call in its place, as torch's own functions for this do."""
    if isinstance(hook, WeightNorm):
        remove_weight_norm(module, hook.name)
    elif isinstance(hook, SpectralNorm):
        remove_spectral_norm(module, hook.name)
    else:
        prune.remove(module, hook._tensor_name)


def _bake(module: nn.Module) -> None:
    """Puts the values of parametrised weights in their place.

    torch's own removal would change the class, which the user's model shares.
    """
    names = list(module.parametrizations)  # type: ignore[arg-type]
    if missing := [name for name in names if not hasattr(module, name)]:
        message = f"A {type(module).__name__} has lost its '{missing[0]}', which a parametrisation computes."
        raise Unsupported(message, "torch.nn.utils.parametrize.remove_parametrizations, before its class is changed")
    values = {name: getattr(module, name).detach().clone() for name in names}
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module._modules["parametrizations"]
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value))


_LAYERS = ("torch.nn.", "torch.ao.nn.")
_OPEN = ("torch.nn.modules.module", "torch.nn.modules.container", "torch.nn.parallel")  # nothing of their own
# What a subclass may say anew without computing something else.
_HARMLESS = {
    *("__init__", "__doc__", "__module__", "__qualname__", "__repr__", "__constants__", "__dict__", "__weakref__"),
    *("__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__", "__firstlineno__"),
    *("__static_attributes__", "__orig_bases__", "__parameters__", "__type_params__", "__abstractmethods__"),
    *("extra_repr", "reset_parameters", "_get_name", "_abc_impl"),
}


def kind_of(module: nn.Module) -> type[nn.Module] | None:
    """The class of torch or of the dialect that a module computes as; None where code of somebody else may change that.

    A subclass counts as its base where it overrides nothing that the base has, in its class or on the instance.
    """
    cls: Any = type(module)
    for base in cls.__mro__:
        if base in dialect.CONFIG or (base.__module__.startswith(_LAYERS) and not base.__module__.startswith(_OPEN)):
            break
    else:
        return None
    own = {name for one in cls.__mro__[: cls.__mro__.index(base)] for name in vars(one)} - _HARMLESS
    known = {*dir(base), *vars(module), *module._parameters, *module._buffers, *module._modules, "__getattr__"}
    shadowed = any(callable(getattr(cls, name, None)) for name in vars(module))
    patched = base.__module__.startswith("torch.nn.") and not str(base.forward.__module__).startswith("torch.")
    return None if own & known or shadowed or patched else base
