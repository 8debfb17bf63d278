"""Walks a traced graph of either door, and finds for each node what its operation is called."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from snnc.capture import assigning, constants, laid, refusals, shared
from snnc.capture.attention import LAID
from snnc.capture.copying import kind_of
from snnc.capture.layout import Laid
from snnc.capture.lowering import Lowering, Site
from snnc.capture.operations import COPIES, MODULES, OWN, SPELLINGS, VIEWS
from snnc.capture.refusals import RANDOM, SPELLED, reason
from snnc.capture.spellings import arithmetic
from snnc.capture.standins import caller, is_said, leaves, result_of
from snnc.capture.values import (
    LOST,
    PLACES,
    PLAIN_HINT,
    SHAPE_HINT,
    Batch,
    Dim,
    Filled,
    Refused,
    Repeated,
    Sizes,
    Spelling,
    Truth,
    Unknown,
)

IN_PLACE = {
    operator.iadd: "add",
    operator.isub: "sub",
    operator.imul: "mul",
    operator.itruediv: "div",
    operator.ifloordiv: "floor_divide",
    operator.setitem: "setitem",
}
UNSIZED = (Batch, Dim, Sizes, Unknown)
# What is refused of two values of samples, whatever their shapes.
PRODUCTS = frozenset({"mul", "multiply", "div", "divide", "true_divide", "truediv", "matmul", "mm", "linear"})
ELEMENTWISE = frozenset(
    {"add", "sub", "subtract", "mul", "multiply", "div", "divide", "maximum", "minimum", "max", "min"}
)
ASKS = frozenset({"size", "len", "dim", "ndimension", "numel", "getattr"})
# Names of arguments that differ between a function and its method, or that torch takes from numpy.
ALIASES = {"input": "x", "self": "x", "tensor": "x", "axis": "dim", "keepdims": "keepdim"}
ALIASES |= {"split_size": "sizes", "split_size_or_sections": "sizes", "axis0": "dim0", "axis1": "dim1"}
WORDS = frozenset({"and_", "or_"})  # functions of `operator`, which has no other names for them
JOINS = frozenset({"cat", "concat", "concatenate", "clone", "contiguous", "to", "detach", *assigning.SPELLINGS})
SILENT = frozenset(
    {"_assert_tensor_metadata", "_assert_scalar", "_assert_async", "sym_constrain_range_for_size", "_assert"}
)


@cache
def functions() -> dict[Any, str]:
    """Torch's functions and Python's operators by identity, since some share a `__name__` that is not their own."""
    found: dict[Any, str] = {getattr: "getattr", **IN_PLACE}
    found |= {functional.unfold: "im2col", functional.fold: "col2im"}  # `x.unfold` is another operation
    for name in SPELLINGS:
        for space in (torch, functional, operator):
            for spelled in (name, f"{name}_"):
                if callable(function := getattr(space, spelled, None)):
                    found.setdefault(function, spelled)
    return found


def op_name(target: Any) -> str:
    """What a function, method or ATen overload is called, its trailing underscore kept."""
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.split("::")[1]
    if isinstance(target, str):
        return target
    return functions().get(target) or str(getattr(target, "__name__", target))


def walk(
    lowering: Lowering,
    graph: fx.Graph,
    root: nn.Module | None,
    constants: Mapping[str, Any],
    spellings: Mapping[str, Spelling] = SPELLINGS,
) -> Any:
    """Lowers every node of `graph`; gives the value of its output.

    Args:
        lowering: takes what is built.
        graph: from `torch.fx` or `torch.export`.
        root: owner of the modules and attributes that `graph` names.
        constants: values of placeholders by name; those that are not among them are the inputs, in their order.
        spellings: operations by name.
    """
    result: Any = None
    parts, entries = _Parts(root), iter(lowering.entries)
    lowering.apply = _applied
    for node in graph.nodes:
        if node.op == "output":
            result = node.args[0]
        elif node.op == "placeholder":
            value = constants[node.name] if node.name in constants else next(entries)
            lowering.bind(node, value, False, False, False)
        elif node.op == "get_attr":
            value = parts.value(str(node.target))
            lowering.bind(node, value.detach() if isinstance(value, Tensor) else value, False, False, False)
        else:
            _step(lowering, node, parts.modules.get(str(node.target)) if node.op == "call_module" else None, spellings)
    return result


class _Parts:
    """The modules and tensors of a network as they are registered, whatever its class makes of their names."""

    def __init__(self, root: nn.Module | None) -> None:
        self.root = root
        self.modules = {} if root is None else dict(root.named_modules(remove_duplicate=False))
        self.tensors: dict[str, Any] = {}
        if root is not None:
            self.tensors |= dict(root.named_parameters(remove_duplicate=False))
            self.tensors |= dict(root.named_buffers(remove_duplicate=False))

    def value(self, path: str) -> Any:
        """A parameter, a buffer, or whatever else an attribute holds."""
        return self.tensors[path] if path in self.tensors else operator.attrgetter(path)(self.root)


def _step(lowering: Lowering, node: fx.Node, module: nn.Module | None, spellings: Mapping[str, Spelling]) -> None:
    """One node: finds its spelling, calls it, binds the result."""
    kind = None if module is None else kind_of(module) or type(module)
    name = op_name(node.target) if kind is None else kind.__name__
    site = _site(lowering, node, name, module)
    in_place = node.target in IN_PLACE or (name.endswith("_") and not name.startswith("__") and name not in WORDS)
    plain = name.rstrip("_") if in_place else name
    quantised = kind is not None and kind.__module__.startswith("torch.ao.")
    why = refusals.QUANTISED if quantised else reason(plain)
    value: Any = LOST
    args: Any = ()
    kwargs: Any = {}
    values: list[Any] = []
    if node.target is operator.setitem:  # refused, whatever has become of the value
        lowering.cells[node.all_input_nodes[0]].stale = False
    try:
        args, kwargs = lowering.load(node.args), lowering.load(node.kwargs)
        values = list(leaves((args, kwargs)))
        in_place = in_place and bool(values) and isinstance(values[0], (fx.Node, Tensor))
        spelling, more = _spelling(module, kind, plain, spellings)
        data = any(isinstance(v, (fx.Node, Truth, Filled, Repeated, Laid, *UNSIZED)) or v is LOST for v in values)
        if any(v is PLACES for v in values):
            raise refusals.PLACES.refused()
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            raise why.refused()
        if isinstance(node.target, type) and issubclass(node.target, tuple):
            raise Refused("is a named tuple, which is no plain tuple or list", PLAIN_HINT)
        if not data and (module is None or values):
            if why is RANDOM:
                raise RANDOM.refused()
            value = _fold(caller(node, module), args, kwargs)
        elif (shared.only(values) and plain not in ASKS) or shared.sized(plain, values):
            if why is RANDOM:
                raise RANDOM.refused()
            value = constants.spread(site, shared.fold(caller(node, module), args, kwargs))
        elif plain in SILENT:
            value = None
        elif any(isinstance(v, UNSIZED) for v in values) and _is_arithmetic(node, values):
            value = arithmetic(node.target, *args)  # type: ignore[arg-type]
            value = Unknown(shape=True, lost=True) if lowering.is_lost(values) else value
        elif plain in ASKS and values[0] is LOST:
            value = Unknown(shape=True, lost=True)
        elif part := lowering.part_of(plain, values):
            value = result_of(lowering, node, module, args, kwargs, part)
        elif spelling is None:
            raise why.refused()
        elif in_place and isinstance(values[0], Tensor):
            raise Refused(
                "changes a buffer at each call", "change buffers only where self.training is True, and call eval()"
            )
        elif not any(v is LOST for v in values):
            if plain not in JOINS:  # a constant of every sample is one that broadcasts
                args, kwargs = _broadcast(args), _broadcast(kwargs)
            if any(isinstance(v, Filled) for v in values) and plain not in JOINS:
                args = _unfilled(site, plain, args)
            if module is not None and name not in LAID:
                args, kwargs = (*args, *kwargs.values()), {}
            fed = (*more, *args) if any(v is module for v in more) and module is not None else (*args, *more)
            value = _call(plain, spelling, site, fed, kwargs)
    except Refused as told:
        refused = told
        if module is None and (whole := reason(site.leaf)) is not refusals.OTHER:  # a part of a layer that is refused
            name, refused = site.leaf, whole.refused()
        if is_said(lowering, refused, plain in PRODUCTS, values):
            lowering.note(node, name, _elsewhere(lowering, refused, node, module, args, kwargs), site.base)
        value = result_of(lowering, node, module, args, kwargs, refused.reason or SPELLED)
    # nn.Flatten gives a view as torch.flatten does.
    views = (plain.lower() if module is not None else plain) in VIEWS or plain in COPIES or shared.only(values)
    lowering.trace_back(value, node.name)
    lowering.bind(node, value, in_place or site.inplace, plain in COPIES, views and plain not in COPIES)


def _elsewhere(
    lowering: Lowering, refused: Refused, node: fx.Node, module: nn.Module | None, args: Any, kwargs: Any
) -> Refused:
    """The refusal, as one that the shape of a sample cures where another door then reads the operation."""
    name = op_name(node.target)
    if (
        (refused.reason and refused.reason.final)
        or lowering.passes is None
        or name.rstrip("_") in (*PRODUCTS, "getitem")
    ):
        lowering.unsure |= refused.shape
        return refused
    if not refused.shape and lowering.passes(node, module, args, kwargs):
        return Refused("is read only where the shape of a sample is known", SHAPE_HINT, shape=True)
    lowering.unsure |= refused.shape
    return refused


def _unfilled(at: Site, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Tensors that hold one number everywhere as that number, where that changes no shape; elsewhere as values."""
    shapes = {at.sizes(v) for v in args if isinstance(v, fx.Node)}
    if name in ELEMENTWISE and all(v.sizes in shapes and len(shapes) == 1 for v in args if isinstance(v, Filled)):
        return tuple(torch.tensor(v.number) if isinstance(v, Filled) else v for v in args)
    return tuple(constants.filled(at, v) if isinstance(v, Filled) else v for v in args)


def _is_arithmetic(node: fx.Node, values: list[Any]) -> bool:
    """True for Python arithmetic on sizes; a tensor's operation that takes a size is none."""
    if node.op != "call_function" or node.target is operator.getitem or any(isinstance(v, fx.Node) for v in values):
        return False
    return getattr(node.target, "__module__", "") in ("_operator", "math", "builtins")


def _site(lowering: Lowering, node: fx.Node, name: str, module: nn.Module | None) -> Site:
    """Where a node stands in the author's network."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = stack[-1] if stack else ("", "")
    kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__name__}"
    path = path.split("@")[0]
    is_leaf = kind.startswith("torch.nn.") and ".container." not in kind
    site = Site(lowering, name, trace=str(node.meta.get("stack_trace") or ""))
    if module is not None:
        site.base, site.leaf = str(node.target), name
    elif is_leaf or kind.startswith("snnc.dialect."):
        site.base, site.leaf, site.scope = path, kind.rsplit(".", 1)[1], path.rpartition(".")[0]
    elif not kind.startswith("_empty"):
        site.scope = path
    return site


def _spelling(
    module: nn.Module | None, kind: type[nn.Module] | None, name: str, spellings: Mapping[str, Spelling]
) -> tuple[Spelling | None, tuple]:
    """The spelling of a node, and the arguments that its module adds to the node's own."""
    if kind is None:
        return spellings.get(name), ()
    if own := OWN.get(kind):
        return own, (module,)
    if found := MODULES.get(kind):
        return spellings[found[0]], tuple(getattr(module, attribute) for attribute in found[1])
    return None, ()


def _broadcast(value: Any) -> Any:
    """Constants of every sample as constants that broadcast over samples."""
    if isinstance(value, Repeated):
        return value.sample[None]
    if isinstance(value, (tuple, list)):
        return type(value)(_broadcast(v) for v in value)
    return {k: _broadcast(v) for k, v in value.items()} if isinstance(value, dict) else value


def _applied(site: Site, module: nn.Module, *x: Any) -> Any:
    """What a module within a module becomes."""
    kind = kind_of(module) or type(module)
    spelling, more = _spelling(module, kind, kind.__name__, SPELLINGS)
    if spelling is None:
        raise reason(kind.__name__).refused()
    return spelling(site, *more, *x) if any(v is module for v in more) else spelling(site, *x, *more)


def _call(name: str, spelling: Spelling, site: Site, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    kwargs = {ALIASES.get(k, k): v for k, v in kwargs.items()}
    try:
        moved = any(isinstance(v, Laid) for v in leaves((args, kwargs)))
        if moved and name not in LAID and not (name == "getitem" and isinstance(args[0], (tuple, list))):
            return laid.dispatch(site, name, spelling, args, kwargs)
        return spelling(site, *args, **kwargs)
    except (TypeError, ValueError, AttributeError, IndexError, KeyError, RuntimeError) as error:
        values = list(leaves((args, kwargs)))
        if any(isinstance(v, Batch) for v in values):
            raise Refused("uses the number of samples", "keep samples apart, and constants constant") from error
        shape = any(isinstance(v, UNSIZED) for v in values)
        text = str(error).split("\n", maxsplit=1)[0]
        hint = SHAPE_HINT if shape else "use the plain form of the call"
        raise Refused(f"is called in a way that snnc does not read ({text})", hint, shape) from error


def _fold(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The value of an operation on constants."""
    try:
        with torch.no_grad():
            return function(*args, **kwargs)
    except Exception as error:
        raise Refused(
            f"fails on constants ({type(error).__name__}: {error})", "check the network on one sample"
        ) from error
