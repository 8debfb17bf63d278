"""Weights for a network, found among all that a checkpoint holds.

A checkpoint is taken apart into its tensors, each with a dotted name: `state_dict.model.conv.weight` is the tensor
`model.conv.weight` in the entry `state_dict`. Weights fit a network where one prefix, before each of the network's
names, gives names of the checkpoint. So entries and the prefixes of wrappers are one thing, and no list of either is
needed.
"""

from __future__ import annotations

import argparse
import dataclasses
import types
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from snnc.errors import LoadError
from snnc.files.skipped import Array, Skipped

# What wrappers call the network in them: DataParallel and AveragedModel, torch.compile, FSDP, checkpointing, Fabric.
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
_COUNTERS = {"n_averaged", "total_ops", "total_params", "num_batches_tracked"}  # which no output depends on
_DEPTH = 6  # of containers in each other
MATCHING = "a --factory that builds the network of these weights; arguments may follow, as in pkg.mod:function(20)"


@dataclass(frozen=True)
class Leaf:
    """A tensor or a module in a checkpoint: the containers that it is in, and its name there."""

    path: tuple[str, ...]
    key: str
    value: Any

    @property
    def name(self) -> str:
        """Its dotted name."""
        return ".".join((*self.path, self.key))


@dataclass(frozen=True)
class WeightFit:
    """Weights for a network.

    Attributes:
        prefix: what stands before the network's names in the file, without the last dot.
        found: the network's names and what the file has for them.
        left: names that stand beside them and that the network does not have.
    """

    prefix: str
    found: dict[str, Leaf]
    left: tuple[str, ...] = ()

    def told(self) -> str:
        """In a sentence, what was taken for what; "" where the file's names are the network's and nothing is left."""
        other = next(((name, leaf.name) for name, leaf in self.found.items() if name != leaf.name), None)
        said = [f"'{other[1]}' is taken as '{other[0]}', and the other names alike"] if other else []
        if self.left:
            said.append(f"{len(self.left)} left out ({shortened(self.left)})")
        return f"{'; '.join(said)}." if said else ""


class NothingFits(LoadError):
    """Not one name of the file is a name of the network."""


def leaves(content: Any) -> Iterator[Leaf]:
    """All tensors and modules in nested dicts, lists and dataclasses, each container once."""
    seen: set[int] = set()

    def within(value: Any, path: tuple[str, ...]) -> Iterator[Leaf]:
        if id(value) in seen or len(path) > _DEPTH:
            return
        seen.add(id(value))
        for key, inner in _items(value):
            if isinstance(inner, Array):
                inner = inner.tensor()
            if isinstance(inner, Tensor | nn.Module) or (key.endswith("_extra_state") and _unskipped(inner)):
                yield Leaf(path, key, inner)
            else:
                yield from within(inner, (*path, key))

    return within(content, ())


def _items(value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [(k, v) for k, v in value.items() if isinstance(k, str)]
    if type(value) in (list, tuple):
        return [(str(i), v) for i, v in enumerate(value)]
    bag = isinstance(value, argparse.Namespace | types.SimpleNamespace)
    if bag or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        return vars(value).items()
    return ()


def _unskipped(value: Any, depth: int = _DEPTH) -> bool:
    """Whether nothing in it was skipped."""
    if isinstance(value, Mapping | list | tuple | set):
        inner = value.values() if isinstance(value, Mapping) else value
        return depth > 0 and all(_unskipped(one, depth - 1) for one in inner)
    return not isinstance(value, Skipped)


def under(key: str | None, name: str) -> bool:
    """Whether `name` is the entry `key`, or in it. All names are, where there is no key or it is "."."""
    return key in (None, ".") or f"{name}.".startswith(f"{key}.")


def find(held: list[Leaf], network: nn.Module, key: str | None, what: str, factory: str) -> WeightFit:
    """The weights in a file that fit a network.

    Args:
        held: the tensors in the file.
        network: what they are for.
        key: the entry to take them from; None for whichever fits.
        what: the file, for messages.
        factory: what built the network, for messages.

    Raises:
        LoadError: nothing fits, or several parts of the file do and `key` names none of them.
    """
    wanted = network.state_dict()
    needed = [name for name in wanted if name.rpartition(".")[2] not in _COUNTERS]
    if not needed:
        raise LoadError(f"{factory} builds a network without weights.", "'-' instead of the file")
    entries = shortened(repr(name) for name in dict.fromkeys(".".join(leaf.path) or "." for leaf in held))
    held = [leaf for leaf in held if under(key, leaf.name)]
    if not held:
        message = f"{what} has no weights in an entry '{key}', but in {entries}."
        raise NothingFits(message, "drop --key, or name one of these")
    fits = _fits(held, wanted)
    whole = [fit for fit in fits if fit.found.keys() >= set(needed)]
    good = [fit for fit in whole if not _differing(fit, wanted)]
    if not good:
        best = max(
            whole or fits, key=lambda fit: len(fit.found), default=WeightFit("", {}, tuple(x.name for x in held))
        )
        raise _misfit(best, wanted, needed, what, factory)
    good = _preferred(good, key)
    if len(good) > 1:
        names = [fit.prefix or "." for fit in good]
        message = f"{what} holds weights for {factory} more than once: {shortened(map(repr, names))}."
        raise LoadError(message, f"--key {names[0]}, or another of these names")
    return good[0]


def _fits(held: list[Leaf], wanted: Mapping[str, Any]) -> list[WeightFit]:
    """For every prefix, what of the network's names the file has with it."""
    plain = _comparable(held, wanted)
    theirs = {".".join((*leaf.path, plain(leaf.key))): leaf for leaf in held}
    ours = {plain(name): name for name in wanted}
    fits = _matches(held, theirs, ours)
    # The factory may have wrapped the network itself: then all of its names begin alike.
    while not any(len(fit.found) == len(ours) for fit in fits) and len({n.partition(".")[0] for n in ours}) == 1:
        ours = {short.partition(".")[2]: name for short, name in ours.items()}
        fits += _matches(held, theirs, ours)
    return fits


def _matches(held: list[Leaf], theirs: Mapping[str, Leaf], ours: Mapping[str, str]) -> list[WeightFit]:
    found: dict[str, dict[str, Leaf]] = {}
    longest = max(name.count(".") for name in ours) + 1
    for name, leaf in theirs.items():
        parts = name.split(".")
        for cut in range(max(len(parts) - longest, 0), len(parts)):
            if own := ours.get(".".join(parts[cut:])):
                found.setdefault(".".join(parts[:cut]), {})[own] = leaf
    fits = []
    for taken in found.values():
        paths, mine = {leaf.path for leaf in taken.values()}, {leaf.name for leaf in taken.values()}
        beside = (leaf for leaf in held if leaf.path in paths and leaf.name not in mine)
        left = (leaf.name for leaf in beside if leaf.key.rpartition(".")[2] not in _COUNTERS)
        own, leaf = next(iter(taken.items()))
        fits.append(WeightFit(_prefix(leaf.name, own), taken, tuple(left)))
    return fits


def _prefix(theirs: str, ours: str) -> str:
    """What stands before the network's own name in the file's, whatever wrappers stand within."""
    parts, own = theirs.split("."), ours.split(".")
    while parts and own and (parts[-1] == own[-1] or parts[-1] in _WRAPPERS):
        if parts.pop() == own[-1]:
            own.pop()
    return ".".join(parts)


def _comparable(held: list[Leaf], wanted: Mapping[str, Any]) -> Callable[[str], str]:
    """How names are compared: without the names of wrappers, unless two would become one."""

    def plain(name: str) -> str:
        return ".".join(part for part in name.split(".") if part not in _WRAPPERS)

    theirs = Counter((leaf.path, plain(leaf.key)) for leaf in held)
    ours = Counter(map(plain, wanted))
    return plain if max([*theirs.values(), *ours.values()]) == 1 else str


def _preferred(fits: list[WeightFit], key: str | None) -> list[WeightFit]:
    """The fit to take, or several where none is better than the others."""
    exact = [fit for fit in fits if fit.prefix == ("" if key == "." else key)]
    places = {leaf.path for fit in fits for leaf in fit.found.values()}
    bare = [fit for fit in fits if len(places) == 1 and fit.prefix == ".".join(*places)]
    for better in (exact, bare):
        if len(better) == 1:
            return better
    return fits[:1] if all(_same(fits[0], fit) for fit in fits) else fits


def _same(one: WeightFit, other: WeightFit) -> bool:
    pairs = [(leaf.value, other.found[name].value) for name, leaf in one.found.items() if name in other.found]
    tensors = all(isinstance(value, Tensor) for pair in pairs for value in pair)
    return tensors and len(pairs) == len(other.found) and all(torch.equal(a, b) for a, b in pairs)


def _differing(fit: WeightFit, wanted: Mapping[str, Any]) -> list[str]:
    """The names whose tensors cannot be taken, with the reason."""
    found = []
    for name, leaf in fit.found.items():
        have, want = leaf.value, wanted[name]
        if not isinstance(want, Tensor) or is_lazy(want):
            continue
        if not want.ndim and isinstance(have, Tensor) and have.numel() == 1:
            continue  # torch wrote single numbers so before version 0.4, and takes them
        if not isinstance(have, Tensor) or have.shape != want.shape:
            found.append(f"{name} is {_shape(have)} in the file and {_shape(want)} in the network")
        elif have.is_floating_point() != want.is_floating_point():
            found.append(f"{name} is {have.dtype} in the file and {want.dtype} in the network")
        elif have.layout != want.layout:
            found.append(f"{name} is {have.layout} in the file and {want.layout} in the network")
    return found


def _misfit(fit: WeightFit, wanted: Mapping[str, Any], needed: list[str], what: str, factory: str) -> LoadError:
    where = f"{what} does not fit {factory}"
    missing = [name for name in needed if name not in fit.found]
    if differing := _differing(fit, wanted) if not missing else []:
        return LoadError(f"{where}: {shortened(differing, '; ')}.", MATCHING)
    problems = [f"{len(missing)} missing ({shortened(missing)})"]
    if fit.left:
        problems.append(f"{len(fit.left)} left over ({shortened(fit.left)})")
    return (LoadError if fit.found else NothingFits)(f"{where}: {' and '.join(problems)}.", MATCHING)


def shortened(names: Iterable[str], between: str = ", ") -> str:
    """The first few of some names, each so short that a file cannot fill the screen."""
    names = [name if len(name) <= 200 else f"{name[:200]}..." for name in names]
    return between.join([*names[:4], *(["..."] if len(names) > 4 else [])])


def _shape(value: Any) -> str:
    return "x".join(map(str, value.shape)) or "one number" if isinstance(value, Tensor) else "no tensor"


def fill(network: nn.Module, fit: WeightFit) -> None:
    """Puts the weights into the network.

    Raises:
        LoadError: they do not go in, whatever the reason: a user's own hooks can raise anything.
    """
    try:
        keys = network.load_state_dict({name: leaf.value for name, leaf in fit.found.items()}, strict=False)
        wrong = [n for n in (*keys.missing_keys, *keys.unexpected_keys) if n.rpartition(".")[2] not in _COUNTERS]
        reason = f"'{wrong[0]}' is not taken" if wrong else ""
    except Exception as exc:
        reason = (str(exc).strip() or type(exc).__name__).splitlines()[-1].strip().rstrip(".")
    if reason:
        raise LoadError(f"The weights do not go into the network: {reason}.", MATCHING)
