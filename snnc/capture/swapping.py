"""Values of other modules that are changed while a network is copied or traced, and put back afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_ABSENT: Any = object()


@contextmanager
def swapped(owner: Any, **values: Any) -> Iterator[None]:
    """Within it a module or class has other values for some attributes.

    What a class inherits is no value of its own: it is inherited again afterwards.
    """
    before = {name: vars(owner).get(name, _ABSENT) for name in values}
    try:
        for name, value in values.items():
            setattr(owner, name, value)
        yield
    finally:
        for name, value in before.items():
            if value is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, value)


@contextmanager
def swapped_items(table: dict[Any, Any], values: dict[Any, Any]) -> Iterator[None]:
    """Within it a dictionary has other values for some keys."""
    before = {key: table.get(key, _ABSENT) for key in values}
    table.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is _ABSENT:
                del table[key]
            else:
                table[key] = value
