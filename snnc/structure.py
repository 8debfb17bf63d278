"""Several inputs and several outputs: the one place that knows how values are put together.

A *tree* is what a network gives: a value, or a tuple, a list or a dictionary of trees. Between them may stand what is
no value, such as None. `Samples` are what a network takes: a tensor `[B, ...]`, or a `Inputs` of several.

    leaves(tree)      its values, in order           mapped(change, tree)   the same tree of other values
    named(tree)       its values by name             plain(tree, tell)      as plain data, and back by `built`
    each(samples)     the tensors of samples         joined(parts)          parts of samples as one
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from snnc.errors import SnncError

Tree = Any
OUTPUT = "output"  # the name of what is alone
_CONSTANTS = (type(None), bool, int, float, str)
_DEEPEST = 8  # containers in each other, of any network that people write


def leaves(tree: Tree) -> list[Any]:
    """The values of a tree, in order."""
    return list(_named(tree, ()).values())


def named(tree: Tree) -> dict[str, Any]:
    """The values of a tree by name: the keys and places on the way to each, with dots between; alone it is "output"."""
    found: dict[str, Any] = {}
    for path, value in _named(tree, ()).items():
        name = ".".join(map(str, path)) or OUTPUT
        while name in found:  # the keys 0 and "0", or "a.b" and an "a" that has a "b"
            name += "_"
        found[name] = value
    return found


def _named(tree: Tree, path: tuple[Any, ...]) -> dict[tuple[Any, ...], Any]:
    if isinstance(tree, dict):
        pairs: Any = tree.items()
    elif isinstance(tree, tuple | list):
        pairs = enumerate(tree)
    else:
        return {} if isinstance(tree, _CONSTANTS) else {path: tree}
    return {place: value for key, one in pairs for place, value in _named(one, (*path, key)).items()}


def mapped(change: Callable[..., Any], tree: Tree, *others: Tree) -> Tree:
    """The tree with `change(value)` in the place of each value; of trees that are built alike, of all at once."""
    if isinstance(tree, dict):
        return {key: mapped(change, one, *(other[key] for other in others)) for key, one in tree.items()}
    if isinstance(tree, tuple | list):
        items = [mapped(change, *parts) for parts in zip(tree, *others, strict=True)]
        return tuple(items) if isinstance(tree, tuple) else items
    return tree if isinstance(tree, _CONSTANTS) else change(tree, *others)


def fault(tree: Tree, depth: int = 0) -> str:
    """Why something is no tree, as the end of "the output ..."; empty where it is one."""
    if isinstance(tree, dict):
        if not all(type(key) in (str, int) for key in tree):
            return "has keys that are neither text nor whole numbers"
        if type(tree).__name__ not in ("dict", "OrderedDict", "immutable_dict"):
            return f"holds a {type(tree).__name__}, which is no plain dictionary"
        items = list(tree.values())
    elif isinstance(tree, tuple | list | deque):
        if type(tree).__name__ not in ("tuple", "list", "immutable_list"):
            return f"holds a {type(tree).__name__}, which is no plain tuple or list"
        items = list(tree)
    else:
        return ""
    if depth >= _DEEPEST:
        return f"has more than {_DEEPEST} containers in each other"
    return next(filter(None, (fault(item, depth + 1) for item in items)), "")


def plain(tree: Tree, tell: Callable[[Any], str]) -> Any:
    """A tree as plain data: what `tell` says of each value, within tables that name their containers."""
    if isinstance(tree, dict):
        return {"dict": [[key, plain(one, tell)] for key, one in tree.items()]}
    if isinstance(tree, tuple | list):
        kind = "tuple" if isinstance(tree, tuple) else "list"
        return {kind: [plain(one, tell) for one in tree]}
    return {"constant": tree} if isinstance(tree, _CONSTANTS) else tell(tree)


def titled(tree: Tree) -> Any:
    """A tree as plain data, with the name of each value in its place."""
    names = iter(named(tree))
    return plain(tree, lambda _: next(names))


def names_in(content: Any) -> list[str]:
    """The names in what `titled` or `plain` gave, in order."""
    found: list[str] = []
    built(content, found.append)
    return found


def built(content: Any, find: Callable[[str], Any], depth: int = 0) -> Tree:
    """The tree that `plain` wrote, which may come from a file that nobody trusts.

    Raises:
        ValueError: it is none.
        KeyError: `find` knows no such value.
    """
    if isinstance(content, str):
        return find(content)
    if not isinstance(content, dict) or len(content) != 1 or depth > _DEEPEST:
        raise ValueError("an output that is no tree")
    ((kind, items),) = content.items()
    if kind == "constant" and isinstance(items, _CONSTANTS):
        return items
    if kind in ("tuple", "list") and isinstance(items, list):
        found = [built(item, find, depth + 1) for item in items]
        return tuple(found) if kind == "tuple" else found
    if kind == "dict" and isinstance(items, list):
        pairs = [(key, built(one, find, depth + 1)) for key, one in items]
        if all(type(key) in (str, int) for key, _ in pairs):
            return dict(pairs)
    raise ValueError("an output that is no tree")


def alike(one: Tree, other: Tree) -> bool:
    """Whether two trees are built alike: the same containers, keys and constants; the values may differ."""
    return bool(plain(one, lambda _: "") == plain(other, lambda _: ""))


class Inputs:
    """Samples of a network with several inputs: a tensor for each input, all with the same batch in front.

    It can do with samples what a tensor can: `len`, rows by `[...]`, `split`, `to`.

    Attributes:
        values: the tensors, in the order of the inputs.
        names: of the inputs, where something has told them.
    """

    def __init__(self, values: Sequence[Tensor], names: Sequence[str] = ()) -> None:
        self.values, self.names = tuple(values), tuple(names)

    def __len__(self) -> int:
        return len(self.values[0])

    def __iter__(self) -> Iterator[Inputs]:
        raise TypeError("samples of several inputs are no sequence; `each` gives the tensors")

    def __getitem__(self, rows: Any) -> Inputs:
        return self.map(lambda value: value[rows])

    def map(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        """Samples with every tensor changed."""
        return Inputs([change(value) for value in self.values], self.names)

    def to(self, where: Any) -> Inputs:
        """The same on a device, or with the type (and device) of `where`; whole numbers keep their type."""
        return self.map(lambda value: cast(value, where))

    def double(self) -> Inputs:
        """The same in double precision."""
        return self.map(lambda value: value.double())

    def cpu(self) -> Inputs:
        """The same in main memory."""
        return self.map(lambda value: value.cpu())

    def detach(self) -> Inputs:
        """The same without the record of gradients."""
        return self.map(lambda value: value.detach())

    def clone(self) -> Inputs:
        """A copy."""
        return self.map(lambda value: value.clone())

    def split(self, sizes: int | list[int]) -> list[Inputs]:
        """Parts of so many samples each."""
        parts = zip(*(value.split(sizes) for value in self.values), strict=True)
        return [Inputs(values, self.names) for values in parts]

    @property
    def device(self) -> torch.device:
        """Where the samples are."""
        return self.values[0].device

    @property
    def requires_grad(self) -> bool:
        """Whether any of it wants a gradient."""
        return any(value.requires_grad for value in self.values)


Samples = Tensor | Inputs
Shape = tuple[Any, ...]  # of one sample; of several inputs one shape each


def cast(value: Tensor, where: Any) -> Tensor:
    """A tensor on a device, or with the type (and device) of `where`; whole numbers, places in a table, stay whole."""
    if value.is_floating_point() or isinstance(where, str | torch.device):
        return value.to(where)
    return value.to(where.device) if isinstance(where, Tensor) else value


def of(values: Sequence[Tensor], names: Sequence[str] = ()) -> Samples:
    """Samples of these tensors, one for each input."""
    return values[0] if len(values) == 1 else Inputs(values, names)


def each(samples: Samples) -> tuple[Tensor, ...]:
    """The tensors of samples, one for each input."""
    return samples.values if isinstance(samples, Inputs) else (samples,)


def changed(change: Callable[[Tensor], Tensor], samples: Samples) -> Samples:
    """Samples with every tensor changed."""
    return samples.map(change) if isinstance(samples, Inputs) else change(samples)


def joined(parts: Sequence[Samples]) -> Samples:
    """Parts of samples, one after the other."""
    found = [torch.cat(values) for values in zip(*map(each, parts), strict=True)]
    return of(found, parts[0].names if isinstance(parts[0], Inputs) else ())


def shape_of(samples: Samples) -> Shape:
    """Shape of one sample; of several inputs one shape each."""
    shapes = tuple(tuple(value.shape[1:]) for value in each(samples))
    return shapes if isinstance(samples, Inputs) else shapes[0]


def shapes_of(shape: Sequence[Any] | None, inputs: int) -> list[tuple[int, ...] | None]:
    """The shape of each input, where `shape` is that of one sample, see `shape_of`; None where it is not known.

    Raises:
        SnncError: there are not as many shapes as inputs.
    """
    if shape is None:
        return [None] * inputs
    several = several_shapes(shape)
    found = [tuple(map(int, one)) for one in shape] if several else [tuple(map(int, shape))]
    if len(found) != inputs:
        have = f"{len(found)} shape{'' if len(found) == 1 else 's'} ({told(shape)})"
        raise SnncError(f"There are {have} for {inputs} inputs.")
    return list(found)


def several_shapes(shape: Sequence[Any]) -> bool:
    """Whether this is one shape for each of several inputs."""
    return bool(shape) and all(isinstance(one, tuple | list) for one in shape)


def told(shape: Sequence[Any]) -> str:
    """A shape as people write it: `3,32,32`; of several inputs with `and` between."""
    if several_shapes(shape):
        return " and ".join(told(one) for one in shape)
    return ",".join(map(str, shape))


def listed(shape: Shape) -> list[Any]:
    """A shape as plain data for a file."""
    return [list(one) if isinstance(one, tuple) else one for one in shape]
