"""The history that a file holds, an emitted one (`.pt2` or ONNX) as JSON: read without trusting any of it.

What it says of latency and input decides how a network is run, and the rest is printed. So everything that the program
relies on must be of the right kind, and nothing may be so large or so nested that reading it is work.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from snnc.structure import names_in

SCHEDULES = ("streaming", "two-pass streaming", "pipelined", "layer-synchronous")
STAGES = ("SPIKING", "FIXED")
_LONGEST = 2**22  # bytes: far more than any history needs
_DEEPEST = 48  # lists and tables in each other, those of the outputs' containers among them
_MOST = 2**31  # of any number of steps, sizes or dimensions


class Fault(Exception):
    """What is wrong with a file, as the end of "... is refused: "."""


def read_history(text: str | bytes, staged: bool) -> dict[str, Any]:
    """The history, if all that snnc relies on is of the right kind.

    Args:
        text: as the file has it.
        staged: whether it says which stage the network is of.

    Raises:
        Fault: it is not, or is no history at all.
    """
    if len(text) > _LONGEST:
        raise Fault("its history is too long")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Fault("its history is no JSON") from error
    if _depth(found) > _DEEPEST:
        raise Fault("its history is nested too deeply")
    if not isinstance(found, dict) or not isinstance(found.get("latency"), dict):
        raise Fault("its history has no latency")
    if staged and found.get("stage") not in STAGES:
        raise Fault("its stage is not that of a spiking network")
    _check_latency(found["latency"])
    check_history(found)
    return found


def check_history(found: dict[str, Any]) -> None:
    """Checks all entries but the latency, which graph files do not have.

    Raises:
        Fault: one is of the wrong kind.
    """
    for key, (fits, fault) in _ROWS.items():
        if found.get(key) is not None and not fits(found[key]):
            raise Fault(fault)


def _depth(value: Any) -> int:
    """How deep lists and tables stand in each other, no further than is allowed."""
    level, depth = [value], 0
    while level and depth <= _DEEPEST:
        inner = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list)))
        level, depth = [item for items in inner for item in items], depth + 1
    return depth


def _check_latency(latency: dict[str, Any]) -> None:
    if set(latency) != {"schedule", "T", "rho", "depth", "steps"} or not _text(latency["schedule"]):
        raise Fault("its latency is incomplete")
    if latency["schedule"] not in SCHEDULES:
        raise Fault("its schedule is none that a network can have")
    least = {"T": 1, "rho": 0, "depth": 1, "steps": 1}
    if not all(_is_whole(latency[key], low) for key, low in least.items()):
        raise Fault("its latency is not in whole steps")
    if latency["steps"] < latency["T"]:
        raise Fault("its latency has fewer steps than are read out")


def _is_whole(value: Any, least: int = 0) -> bool:
    return type(value) is int and least <= value < _MOST


def _finite(value: Any) -> bool:
    return (type(value) is float and math.isfinite(value)) or (type(value) is int and abs(value) < 2**63)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _shape(value: Any) -> bool:
    """The shape of one sample; of several inputs one each."""
    if isinstance(value, list | tuple) and value and all(isinstance(one, list | tuple) for one in value):
        return all(map(_one_shape, value))
    return _one_shape(value)


def _one_shape(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(_is_whole(size, 1) for size in value) and math.prod(value) < _MOST


def _frames(value: Any) -> bool:
    """What the original network did with frames, and their number."""
    return isinstance(value, dict) and value.get("of") in ("mean", "sum", "each") and _is_whole(value.get("T"), 1)


def _entry(value: Any) -> bool:
    """One input."""
    if not isinstance(value, dict) or type(value.get("whole")) is not bool:
        return False
    return _text(value.get("name")) and value["name"].isidentifier()


def _tree(value: Any) -> bool:
    """What the network returns, with each name in its place."""
    try:
        names = names_in(value)
    except (ValueError, TypeError):
        return False
    return len(names) == len(set(names)) > 0


def _span(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(_finite, value)) and value[0] < value[1]


def _texts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_text, value.values()))


def _each(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list | tuple) and all(map(fits, value))


def _record(value: Any) -> bool:
    """What one pass did."""
    if not isinstance(value, dict) or not all(_text(value.get(key)) for key in ("name", "stage")):
        return False
    if not isinstance(value.get("options"), dict) or not _each(_text)(value.get("notes")):
        return False
    return _is_whole(value.get("sites")) and _finite(value.get("seconds")) and _finite(value.get("error") or 0)


def _bound(value: Any) -> bool:
    """One layer of a proof."""
    if not isinstance(value, dict) or not all(_text(value.get(key)) for key in ("name", "module")):
        return False
    numbers = [value.get(key) for key in ("bits", "bound", "headroom")]
    flags = [value.get(key) for key in ("tf32", "bf16")]
    return all(n is None or _finite(n) for n in numbers) and all(f is None or type(f) is bool for f in flags)


def _comparison(value: Any) -> bool:
    """How the graph was compared with its network."""
    if not isinstance(value, dict) or not all(
        value.get(key) is None or _text(value[key]) for key in ("with", "samples")
    ):
        return False
    if not _text(value.get("why")) or not _each(_is_whole)(value.get("batches")):
        return False
    return value["with"] is None or all(_finite(value.get(key)) for key in ("error", "bound"))


# What a history may hold. For each entry: whether a value fits, and what to say if it does not.
_ROWS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "frames": (_frames, "what it says of frames is not a way to take them and their number"),
    "input_shape": (_shape, "its input has no shape"),
    "inputs": (lambda value: bool(value) and _each(_entry)(value), "its inputs have no names or kinds"),
    "outputs": (_tree, "its outputs are in no containers that it knows"),
    "input_rank": (lambda value: _is_whole(value, 1), "its input has no number of dimensions"),
    "input_range": (_span, "its input has no range"),
    "records": (_each(_record), "its records are not those of passes"),
    "proof": (_each(_bound), "its proof is not one of bounds"),
    "recipe": (_text, "its recipe has no name"),
    "recipe_text": (_text, "its recipe is no text"),
    "versions": (_texts, "its versions are no texts"),
    "calibration_samples": (_is_whole, "its calibration samples are no number"),
    "tune": (lambda value: isinstance(value, dict), "its training is no table"),
    "compared": (_comparison, "its comparison with the network is not complete"),
    "trace": (lambda value: isinstance(value, list), "its trace is no list"),
}
