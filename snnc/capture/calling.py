"""How a live module is called: which of its arguments are inputs, and in which way each is passed."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from snnc.errors import Blocker, Unsupported
from snnc.structure import Inputs, Samples, Shape, each, of, several_shapes, told

V = TypeVar("V")
EACH_HINT = "one array, or one shape, for each input: by its name (.npz, dictionary), or in their order (tuple)"


@dataclass(frozen=True)
class Calling:
    """The inputs of a live module.

    Attributes:
        names: what its author calls them, in the order of the signature.
        positional: how many are passed by their place; the others are passed by name.
    """

    names: tuple[str, ...]
    positional: int

    def bound(self, values: Sequence[V]) -> tuple[tuple[V, ...], dict[str, V]]:
        """One value for each input as arguments, by place and by name."""
        first, rest = values[: self.positional], values[self.positional :]
        return tuple(first), dict(zip(self.names[self.positional :], rest, strict=True))

    def call(self, model: Any, values: Sequence[Any]) -> Any:
        """What the module gives for one value for each input."""
        args, kwargs = self.bound(values)
        return model(*args, **kwargs)


def calling(model: nn.Module, given: Sequence[str] | int | None = None) -> Calling:
    """How a module is called.

    Args:
        model: the module.
        given: names of the inputs that there are data for, in any order, or how many there are. Arguments that have a
            default are inputs only where these tell so.

    Raises:
        Unsupported: these are not what its `forward` takes.
    """
    own = type(model).__call__ is not nn.Module.__call__
    called: Any = MethodType(type(model).__call__, model) if own else model.forward
    parameters = inspect.signature(called).parameters.values()
    plain = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    keyword = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    needed = [p.name for p in (*plain, *keyword) if p.default is p.empty]
    if not needed and not given:
        needed = [p.name for p in plain[:1]]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters) and not plain:
        many = given if isinstance(given, int) else len(given or ("x",))
        return Calling(tuple(f"x{k}" for k in range(many)) if many > 1 else ("x",), many)
    known = [p.name for p in (*plain, *keyword)]
    if isinstance(given, int):
        more = [name for name in known if name not in needed]
        names = {*needed, *more[: max(0, given - len(needed))]}
        fits = given == len(names)
    else:
        names = {*needed, *(given or ())}
        fits = given is None or (set(given) == names <= set(known))
    if not fits:
        raise _other(model, needed, known, given)
    taken = [name for name in known if name in names]
    by_place = [p.name for p in plain]
    positional = next((k for k, name in enumerate(taken) if by_place[k : k + 1] != [name]), len(taken))
    return Calling(tuple(taken), positional)


def accepted(model: nn.Module) -> tuple[str, ...]:
    """Names of all arguments that a module can be called with."""
    called: Any = model if type(model).__call__ is not nn.Module.__call__ else model.forward
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return tuple(p.name for p in inspect.signature(called).parameters.values() if p.kind not in kinds)


def in_order(shape: Any, names: Sequence[str]) -> Shape | None:
    """A shape that a user gives as that of samples: of several inputs one each, in the order of the network.

    Raises:
        Unsupported: it is given by names that are not those of the inputs, or is not one each.
    """
    if shape is None:
        return None
    if isinstance(shape, dict):
        if set(shape) != set(names):
            raise _unfit(names, f"shapes of {', '.join(map(str, shape))}")
        shape = tuple(shape[name] for name in names)
        shape = shape if len(names) > 1 else shape[0]
    several = several_shapes(shape)
    if (len(shape) if several else 1) != len(names):
        raise _unfit(names, f"the shape{'s' if several else ''} {told(shape)}")
    if several and len(names) == 1:
        (shape,) = shape
        several = False
    return tuple(tuple(map(int, one)) for one in shape) if several else tuple(map(int, shape))


def arranged(samples: Samples | None, names: Sequence[str]) -> Any:
    """Samples with their tensors in the order of a network's inputs.

    Raises:
        Unsupported: they are those of other inputs.
    """
    if samples is None:
        return None
    have = samples.names if isinstance(samples, Inputs) else ()
    if have:
        if missing := [name for name in names if name not in have]:
            raise _unfit(names, f"samples of {', '.join(have)}, without {missing[0]}")
        by_name = dict(zip(have, each(samples), strict=True))
        return of([by_name[name] for name in names], names)
    if len(each(samples)) != len(names):
        raise _unfit(names, f"samples of {len(each(samples))} inputs")
    return samples


def _unfit(names: Sequence[str], given: str) -> Unsupported:
    why = f"takes {', '.join(names)}, and was given {given}"
    return Unsupported.of([Blocker("input", "input", why, EACH_HINT)])


def _other(model: nn.Module, needed: list[str], known: list[str], given: Any) -> Unsupported:
    takes = ", ".join(needed) + "".join(f", {name} (may be left out)" for name in known if name not in needed)
    told = f"{given} inputs" if isinstance(given, int) else f"inputs named {', '.join(given)}"
    why = f"takes {takes or 'no input'}, and there are {told}"
    return Unsupported.of([Blocker(type(model).__name__, "forward", why, EACH_HINT)])


def few(given: Sequence[Tensor]) -> list[Tensor]:
    """Two samples of inputs in the shapes and types of these."""
    return [torch.rand_like(x[:2]) if x.is_floating_point() else x[:2] for x in given]
