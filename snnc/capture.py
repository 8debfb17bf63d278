"""From a trained network to a graph of the dialect: the doors for live modules and for exported programs.

A live module is traced symbolically, which needs no example input and keeps its modules. What that refuses, because Python
code looks at shapes, is exported instead, where the input's shape is known. Both doors end in the same graph.
"""

from __future__ import annotations

import copy
import inspect
import operator
import traceback
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.nn.utils import parametrize

from snnc import dialect
from snnc.canonical import finish
from snnc.errors import Blocker, Unsupported, VerifyError
from snnc.exported import export, lower_exported
from snnc.graph import Stage, flat, verify
from snnc.lowering import SHAPE_HINT, Lowering, Refused, innermost
from snnc.walk import walk

Network = nn.Module | ExportedProgram | fx.GraphModule


def capture(model: Network, input_shape: tuple[int, ...] | None = None) -> fx.GraphModule:
    """The network as a graph of stage `ANN`: the same function in eval mode, with its own copies of all weights.

    Args:
        model: a module, an exported program, or a graph that was captured before. It is not changed.
        input_shape: shape of one sample, such as `(3, 32, 32)`. Needed where the network's own code depends on it.

    Raises:
        Unsupported: the network holds something that cannot be converted; `blockers` lists all of it.
    """
    graph, found = _capture(model, input_shape)
    if graph is None:
        raise Unsupported.of(found)
    return graph


def blockers(model: Network, input_shape: tuple[int, ...] | None = None) -> list[Blocker]:
    """Everything that keeps a network from being converted; empty where nothing does."""
    return _capture(model, input_shape)[1]


Outcome = tuple[fx.GraphModule | None, list[Blocker]]


def _capture(model: Network, input_shape: tuple[int, ...] | None) -> Outcome:
    shape = None if input_shape is None else tuple(int(n) for n in input_shape)
    if isinstance(model, ExportedProgram):
        return _exported(model)
    if isinstance(model, fx.GraphModule) and _is_captured(model):
        return copy.deepcopy(model), []
    graph, found, needs_export = _symbolic(model, shape)
    if graph is not None:
        return graph, []
    if shape is None:
        return None, found
    live, like = _private(model)
    try:
        program = export(live, shape, like)
    except Exception as error:  # noqa: BLE001 - the author's code runs in here, so anything may come out
        return None, [_from_error(error, live, known=True)] if needs_export else found
    graph, more = _exported(program)
    return graph, more if graph is not None or needs_export else found


def _is_captured(graph: fx.GraphModule) -> bool:
    try:
        verify(graph, Stage.ANN)
    except VerifyError:
        return False
    return True


def _exported(program: ExportedProgram) -> Outcome:
    try:
        lowering, result, shape = lower_exported(program)
    except Unsupported as error:
        return None, list(error.blockers)
    return _finish(lowering, result, shape, None)


def _private(model: nn.Module) -> tuple[nn.Module, Tensor]:
    """A copy of the user's model in eval mode, parametrisations applied, and a tensor of its kind."""
    model = copy.deepcopy(model).eval()
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    floating = (p for p in (*model.parameters(), *model.buffers()) if p.is_floating_point())
    like = next(floating, torch.zeros(()))
    return model, torch.empty((), dtype=like.dtype, device=like.device)


def _symbolic(model: nn.Module, shape: tuple[int, ...] | None) -> tuple[fx.GraphModule | None, list[Blocker], bool]:
    """The symbolic door. The last value tells whether tracing itself failed or wanted the shape."""
    live, like = _private(model)
    try:
        with torch.no_grad(), mock.patch.object(torch.autograd.Function, "apply", _apply):
            traced = _Tracer().trace(live)
    except Exception as error:  # noqa: BLE001 - the author's code runs in here, so anything may come out
        return None, [_from_error(error, live, known=shape is not None)], True
    entries = traced.find_nodes(op="placeholder")
    extra = [
        Blocker(node.name, "input", "is a second input", "wrap the network in a module with one input")
        for node in entries[1:]
    ]
    if extra or not entries:
        none = Blocker("input", "input", "the network has no input", "give forward one tensor")
        return None, extra or [none], False
    rank = _input_rank(traced, live)
    lowering = Lowering(shape, rank, like)
    result = walk(lowering, traced, live, {})
    graph, found = _finish(lowering, result, shape, rank)
    return graph, found, lowering.wants_shape


def _finish(lowering: Lowering, result: Any, shape: tuple[int, ...] | None, rank: int | None) -> Outcome:
    """Checks the output, then does what all doors do last."""
    found = list(lowering.blockers)
    value: Any = None
    if isinstance(result, fx.Node):
        try:
            value = lowering.load(result)
        except Refused as refused:
            found.append(Blocker("output", "output", refused.why, refused.hint))
    if found:
        return None, found
    if not isinstance(value, fx.Node):
        several = isinstance(result, (tuple, list, dict)) or isinstance(value, (tuple, list, dict))
        why = "is not one tensor" if several else "does not depend on the input"
        return None, [Blocker("output", "output", why, "return the logits alone")]
    graph = lowering.build.finish(value)
    try:
        found = finish(graph, shape, rank)
    except Unsupported as error:
        found = list(error.blockers) or [Blocker("network", "network", error.message.rstrip("."), error.hint)]
    if found:
        return None, found
    verify(graph, Stage.ANN)
    return graph, []


def _from_error(error: Exception, model: nn.Module, known: bool) -> Blocker:
    """A blocker for an exception out of the author's code."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    text = str(error).strip().split("\n", maxsplit=1)[0].rstrip(".")
    control = "control flow" in text or "data-dependent" in text.lower() or "GuardOnDataDependent" in type(error).__name__
    why = "decides in Python on values or shapes" if control else f"cannot be traced ({type(error).__name__}: {text})"
    hint = "move decisions that depend on data out of forward" if known else SHAPE_HINT
    return Blocker(flat(type(model).__name__), "forward", why, hint, innermost(frames))


_STEPS = (operator.add, operator.sub, operator.mul, operator.truediv, torch.add, torch.sub, torch.mul, torch.div)


def _input_rank(graph: fx.Graph, root: nn.Module) -> int | None:
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
            if user.op == "call_function" and user.target in (*_STEPS, *operator_in_place()):
                nodes.append(user)
            elif name.startswith(("conv", "maxpool", "avgpool", "max_pool", "avg_pool", "zeropad", "batchnorm")):
                dims = next((int(d) for d in name if d in "123"), 0)
                if dims and name != "batchnorm1d":
                    return 2 + dims
    return None


def operator_in_place() -> tuple[Callable[..., Any], ...]:
    """The in-place forms of Python's arithmetic."""
    return (operator.iadd, operator.isub, operator.imul, operator.itruediv)


class _Proxy(fx.Proxy):
    """Records `x += y` as in place: `fx` itself takes it for `x = x + y`, which loses what other names of x see."""

    def __iadd__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})

    def __isub__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.isub, (self, other), {})

    def __imul__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.imul, (self, other), {})

    def __itruediv__(self, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.itruediv, (self, other), {})


class _Context:
    """Stands for the `ctx` of an autograd function; its forward pass may store what it likes."""

    needs_input_grad: tuple[bool, ...] = ()

    def _ignore(self, *_: Any) -> None: ...

    save_for_backward = save_for_forward = mark_dirty = mark_non_differentiable = set_materialize_grads = _ignore


def _apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
    """`Function.apply` during tracing: the forward pass, traced through; straight-through estimators are all forward."""
    has_setup = cls.setup_context is not torch.autograd.function._SingleLevelFunction.setup_context
    return cls.forward(*args, **kwargs) if has_setup else cls.forward(_Context(), *args, **kwargs)


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
