"""Symbolic tracing of live modules: what `torch.fx` does, and where snnc has it do otherwise."""

from __future__ import annotations

import builtins
import operator
import re
import traceback
from typing import Any

import torch
from torch import fx, nn
from torch.utils._traceback import CapturedTraceback

from snnc.capture.calling import Calling
from snnc.capture.copying import kind_of, no_backward_hooks
from snnc.capture.refusals import CONTROL
from snnc.capture.swapping import swapped
from snnc.capture.values import PLAIN_HINT, RUN_HINT, SHAPE_HINT, innermost
from snnc.capture.walk import IN_PLACE
from snnc.errors import Blocker
from snnc.ir.graph import flat


def trace(live: nn.Module, how: Calling) -> tuple[fx.Graph, Exception | None]:
    """The graph of a module from `private`, called in one way, as far as tracing came, and what stopped that."""
    # The first stack trace imports torch's compiler, which must not take our `len` for Python's: it would keep it.
    CapturedTraceback.extract().summary()
    with (
        torch.no_grad(),
        torch.random.fork_rng(devices=[]),
        no_backward_hooks(),
        swapped(torch.autograd.Function, apply=classmethod(_apply)),
        swapped(builtins, len=_len),
    ):
        before = torch.get_rng_state()
        tracer = _Tracer(how)
        try:
            tracer.trace(live)
            if not torch.equal(before, torch.get_rng_state()):
                raise RuntimeError("it draws random numbers at inference")
        except Exception as error:  # whatever the author's code raises
            return getattr(tracer, "graph", fx.Graph()), error
        return tracer.graph, None


# What to do where tracing fails on a decision, and on anything else: without a shape, and by whether the network runs.
ASKED = (SHAPE_HINT, SHAPE_HINT)
MENDED = {
    True: ("move decisions that depend on data out of forward", "write forward in torch's own functions"),
    False: (RUN_HINT, RUN_HINT),
}


def from_error(error: Exception, model: nn.Module, hints: tuple[str, str]) -> Blocker:
    """A blocker for an exception out of the author's code."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    text = str(error).strip().split("\n", maxsplit=1)[0].rstrip(".")
    control = (
        "control flow" in text or "data-dependent" in text.lower() or "GuardOnDataDependent" in type(error).__name__
    )
    if text.startswith("Expected pred"):  # torch.cond
        return Blocker(flat(type(model).__name__), "cond", CONTROL.why, CONTROL.hint, innermost(frames))
    if found := re.match(
        r"Found <class '(?:.*\.)?(\w+)'> in output", text
    ):  # torch.export, of what it cannot look into
        return Blocker("output", "output", f"holds a {found[1]}, which is no plain tuple or list", PLAIN_HINT)
    why = "decides in Python on values or shapes" if control else f"cannot be traced ({type(error).__name__}: {text})"
    return Blocker(flat(type(model).__name__), "forward", why, hints[0 if control else 1], innermost(frames))


_STEPS = (operator.add, operator.sub, operator.mul, operator.truediv, torch.add, torch.sub, torch.mul, torch.div)


def input_rank(graph: fx.Graph, root: nn.Module) -> int | None:
    """Rank of the input, from the first layer that it reaches through arithmetic alone."""
    modules = dict(root.named_modules(remove_duplicate=False))  # whatever its class makes of their names
    nodes = [*graph.find_nodes(op="placeholder")]
    while nodes:
        node = nodes.pop()
        for user in node.users:
            name = str(getattr(user.target, "__name__", ""))
            if user.op == "call_module":
                name = type(modules.get(str(user.target))).__name__.lower()
                if name in ("identity", "relu", "clipquant") or "dropout" in name:
                    nodes.append(user)
            if user.op == "call_function" and user.target in (*_STEPS, *IN_PLACE):
                nodes.append(user)
            elif name.startswith(("conv", "maxpool", "avgpool", "max_pool", "avg_pool", "zeropad", "batchnorm")):
                dims = next((int(d) for d in name if d in "123"), 0)
                if dims and name != "batchnorm1d":
                    return 2 + dims
    return None


def looked_up(graph: fx.Graph, root: nn.Module) -> set[int]:
    """Which inputs, by their place, an embedding reads: torch wants whole numbers there."""
    places = {node: k for k, node in enumerate(graph.find_nodes(op="placeholder"))}
    found: set[int] = set()
    modules = dict(root.named_modules(remove_duplicate=False))  # whatever its class makes of their names
    for node in graph.nodes:
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        if not (isinstance(module, nn.Embedding) or node.target is nn.functional.embedding):
            continue
        pending = [node.args[0] if node.args else node.kwargs.get("input")]
        while pending:
            source = pending.pop()
            if isinstance(source, fx.Node):
                found |= {places[source]} if source in places else set()
                pending += source.all_input_nodes
    return found


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

    def __init__(self, how: Calling) -> None:
        super().__init__()
        self.how = how

    record_stack_traces = True
    traced_func_name = "__call__"  # a call runs hooks, and a `forward` that the instance has of its own

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        hooked = m._forward_hooks or m._forward_pre_hooks  # which are traced as well
        return m is not self.root and not hooked and kind_of(m) is not None

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: dict[str, Any] | tuple[Any, ...] | None = None
    ) -> tuple[Any, list[Any]]:
        proxies = [self.create_proxy("placeholder", name, (), {}) for name in self.how.names]
        return lambda module, *values: self.how.call(module, values), [self.root, *proxies]
