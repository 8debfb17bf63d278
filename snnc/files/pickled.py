"""An outline of what a pickle would build, from its opcodes. Nothing is imported, and nothing is built."""

from __future__ import annotations

import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING  # how torch reads names of Python 2, which torch.save writes
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

LARGEST = 10_000_000  # opcodes; a checkpoint of a thousand tensors and their optimiser has a hundred thousand
LIST, DICT, BUILD = "list", "dict", "build"
_CALLS = {"REDUCE", "NEWOBJ"}
_FILLS = {"APPEND": LIST, "APPENDS": LIST, "SETITEM": DICT, "SETITEMS": DICT, "BUILD": BUILD}
_PUTS, _GETS = {"BINPUT", "LONG_BINPUT", "PUT"}, {"BINGET", "LONG_BINGET", "GET"}


@dataclass(eq=False, slots=True)
class Node:
    """One object that a pickle would build.

    Attributes:
        name: what is imported, or what was called to make this object; "" for plain data.
        text: the text or number that it is, where it is one.
        parts: all that goes into it.
        items: the keys and values that are set in it.
    """

    name: str = ""
    text: object = None
    parts: list[Node] = field(default_factory=list)
    items: list[tuple[Node, Node]] = field(default_factory=list)

    def at(self, key: object) -> Node:
        """What it holds under `key`; all of it, where that is not to be told."""
        return next((value for k, value in reversed(self.items) if k.text == key), self)

    def all(self) -> Iterator[Node]:
        """This node and all that it is made of, each once."""
        seen, due = {id(self)}, [self]
        while due:
            node = due.pop()
            yield node
            for part in node.parts:
                if id(part) not in seen:
                    seen.add(id(part))
                    due.append(part)

    def names(self) -> set[str]:
        """Every name that it imports, as `module.name`."""
        return {node.name for node in self.all() if node.name}


@dataclass(frozen=True)
class Outline:
    """A pickle as a graph of nodes.

    Attributes:
        root: the object itself.
        filled: pairs of what was called and how the object that it made is filled then: LIST, DICT or BUILD.
        subclasses: names of tensors' classes.
    """

    root: Node
    filled: frozenset[tuple[str, str]]
    subclasses: frozenset[str]


def outline(pickle: bytes | BinaryIO) -> Outline:
    """Reads one pickle, up to its end.

    Raises:
        ValueError, IndexError, KeyError, AttributeError: it is damaged, or not of protocol 2.
    """
    stack: list[Node | None] = []  # None is a mark
    memo: dict[object, Node] = {}
    filled: set[tuple[str, str]] = set()
    subclasses: set[str] = set()
    for count, (op, arg, _) in enumerate(pickletools.genops(pickle)):
        if count == LARGEST:
            raise ValueError("it is too long")
        if op.name in _GETS:
            stack.append(memo[arg])
            continue
        if op.name in _PUTS:
            memo[arg] = _node(stack[-1])
            continue
        taken = _taken(op, stack)
        if op.name in _FILLS:
            marked = pickletools.markobject in op.stack_before  # then the target lies below the mark
            target = _node(stack.pop()) if marked else taken.pop(0)
            filled.add((target.name, _FILLS[op.name]))
            target.parts += taken
            if _FILLS[op.name] == DICT:
                target.items += zip(taken[::2], taken[1::2], strict=True)
            stack.append(target)
        elif op.name in _CALLS:
            called, arguments = taken
            if called.name == "torch._tensor._rebuild_from_type_v2":
                subclasses.add(arguments.parts[1].name)
            stack.append(Node(called.name, parts=taken))
        elif op.name == "GLOBAL":
            stack.append(Node(".".join(full_name(str(arg)))))
        elif op.name == "STOP":
            return Outline(taken[0], frozenset(filled), frozenset(subclasses))
        elif op.stack_after:
            stack.append(None if op.name == "MARK" else Node(text=arg, parts=taken))
    raise ValueError("it has no end")


def _taken(op: pickletools.OpcodeInfo, stack: list[Node | None]) -> list[Node]:
    """Takes from the stack what an opcode takes, down to a mark where it says so."""
    if pickletools.markobject not in op.stack_before:
        return [_node(stack.pop()) for _ in op.stack_before][::-1]
    taken = []
    while (top := stack.pop()) is not None:
        taken.append(top)
    return taken[::-1]


def _node(found: Node | None) -> Node:
    if found is None:
        raise ValueError("it takes a mark for an object")
    return found


def full_name(text: str) -> tuple[str, str]:
    """Module and name that an opcode gives as "module name", as they are in Python 3."""
    module, _, name = text.partition(" ")
    return NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
