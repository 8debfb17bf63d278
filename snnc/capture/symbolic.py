"""Symbolic tracing of live modules: what `torch.fx` does, and where snnc has it do otherwise."""

from __future__ import annotations

import builtins
import copy
import inspect
import operator
import traceback
from typing import Any
from unittest import mock

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from snnc.capture.values import SHAPE_HINT, innermost
from snnc.capture.walk import IN_PLACE
from snnc.errors import Blocker, Unsupported
from snnc.ir import dialect
from snnc.ir.graph import flat

WEIGHT_HOOKS = (WeightNorm, SpectralNorm, prune.BasePruningMethod)


def private(model: nn.Module) -> tuple[nn.Module, Tensor]:
    """A copy of the user's model in eval mode, computed weights put in their place, and a tensor of its kind."""
    if isinstance(model, torch.jit.ScriptModule):
        raise Unsupported("A TorchScript module holds no layers to read.", "the module that it was scripted from")
    # torch copies no results of calculations, such as the weights of hooks.
    kept = (v for module in model.modules() for v in vars(module).values() if isinstance(v, Tensor) and not v.is_leaf)
    try:
        model = copy.deepcopy(model, {id(v): v.detach().clone() for v in kept}).eval()
    except Exception as error:
        message = f"The network cannot be copied ({type(error).__name__}: {error})."
        raise Unsupported(message, "keep only modules, parameters and buffers in it") from error
    model = _plain(model)
    for module in model.modules():
        if parametrize.is_parametrized(module):
            _bake(module)
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, WEIGHT_HOOKS):
                _unhook(module, hook)
    floating = (p for p in (*model.parameters(), *model.buffers()) if p.is_floating_point())
    like = next(floating, torch.zeros(()))
    return model, torch.empty((), dtype=like.dtype, device=like.device)


def _plain(model: nn.Module) -> nn.Module:
    """Without the wrappers of `torch.compile`, told by name: their class takes seconds to import."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ == "OptimizedModule":
                setattr(parent, name, child._orig_mod)
    return _plain(model._orig_mod) if type(model).__name__ == "OptimizedModule" else model  # type: ignore[arg-type]


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
    values = {name: getattr(module, name).detach().clone() for name in module.parametrizations}  # type: ignore[union-attr]
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module._modules["parametrizations"]
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value))


def trace(live: nn.Module) -> fx.Graph:
    """The graph of a module from `private`; raises whatever tracing its code raises."""
    with (
        torch.no_grad(),
        torch.random.fork_rng(devices=[]),
        mock.patch.object(torch.autograd.Function, "apply", classmethod(_apply)),
        mock.patch.object(builtins, "len", _len),
    ):
        before = torch.get_rng_state()
        graph = _Tracer().trace(live)
        if not torch.equal(before, torch.get_rng_state()):
            raise RuntimeError("it draws random numbers at inference")
        return graph


def from_error(error: Exception, model: nn.Module, known: bool) -> Blocker:
    """A blocker for an exception out of the author's code."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    text = str(error).strip().split("\n", maxsplit=1)[0].rstrip(".")
    control = (
        "control flow" in text or "data-dependent" in text.lower() or "GuardOnDataDependent" in type(error).__name__
    )
    why = "decides in Python on values or shapes" if control else f"cannot be traced ({type(error).__name__}: {text})"
    hint = "move decisions that depend on data out of forward" if known else SHAPE_HINT
    return Blocker(flat(type(model).__name__), "forward", why, hint, innermost(frames))


_STEPS = (operator.add, operator.sub, operator.mul, operator.truediv, torch.add, torch.sub, torch.mul, torch.div)


def input_rank(graph: fx.Graph, root: nn.Module) -> int | None:
    """Rank of the input, told by the first layer that it reaches through arithmetic alone."""
    nodes = [*graph.find_nodes(op="placeholder")]
    while nodes:
        node = nodes.pop()
        for user in node.users:
            name = str(getattr(user.target, "__name__", ""))
            if user.op == "call_module":
                name = type(root.get_submodule(str(user.target))).__name__.lower()
                if name in ("identity", "relu", "clipquant") or "dropout" in name:
                    nodes.append(user)
            if user.op == "call_function" and user.target in (*_STEPS, *IN_PLACE):
                nodes.append(user)
            elif name.startswith(("conv", "maxpool", "avgpool", "max_pool", "avg_pool", "zeropad", "batchnorm")):
                dims = next((int(d) for d in name if d in "123"), 0)
                if dims and name != "batchnorm1d":
                    return 2 + dims
    return None


class _Proxy(fx.Proxy):
    """Records `x += y` as in place: `fx` itself takes it for `x = x + y`, which loses what other names of x see."""

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, index, value), {})

    def __iadd__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})

    def __isub__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.isub, (self, other), {})

    def __imul__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.imul, (self, other), {})

    def __ifloordiv__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.ifloordiv, (self, other), {})

    def __itruediv__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.itruediv, (self, other), {})


class _Context:
    """Stands for the `ctx` of an autograd function; its forward pass may store what it likes."""

    needs_input_grad: tuple[bool, ...] = ()

    def _ignore(self, *_: Any) -> None: ...

    save_for_backward = save_for_forward = mark_dirty = mark_non_differentiable = set_materialize_grads = _ignore


def _apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
    """`Function.apply` during tracing: the forward pass, traced through."""
    has_setup = cls.setup_context is not torch.autograd.function._SingleLevelFunction.setup_context
    return cls.forward(*args, **kwargs) if has_setup else cls.forward(_Context(), *args, **kwargs)


_LEN = len


def _len(value: Any) -> Any:
    """`len` during tracing: Python wants a number of it, and the number of samples has none."""
    return (
        value.tracer.create_proxy("call_function", _LEN, (value,), {}) if isinstance(value, fx.Proxy) else _LEN(value)
    )


class _Tracer(fx.Tracer):
    """Keeps the modules of `torch.nn` and of the dialect whole, parameters as they are, and only required arguments."""

    record_stack_traces = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in dialect.CONFIG or super().is_leaf_module(m, module_qualified_name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: dict[str, Any] | tuple[Any, ...] | None = None
    ) -> tuple[Any, list[Any]]:
        _, *parameters = inspect.signature(root_fn).parameters.values()
        plain = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        named = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
        needed = [p.name for p in plain if p.default is p.empty] or [p.name for p in plain[:1]]
        if not needed and any(p.kind is p.VAR_POSITIONAL for p in parameters):
            needed = ["x"]
        proxies = [self.create_proxy("placeholder", name, (), {}) for name in (*needed, *named)]

        def forward(module: nn.Module, *args: Any) -> Any:
            return root_fn(module, *args[: len(needed)], **dict(zip(named, args[len(needed) :], strict=True)))

        return forward, [self.root, *proxies]
