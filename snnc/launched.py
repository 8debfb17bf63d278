"""Whether this process is one of several, by the environment alone, without imports that take seconds."""

from __future__ import annotations

import os

LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what torchrun tells each of its processes


def launched() -> bool:
    """Whether torchrun, or something like it, has started this process as one of several."""
    return all(name in os.environ for name in LAUNCHED) and os.environ["WORLD_SIZE"] != "1"


def neighbours() -> int:
    """How many such processes there are on this machine, this one included."""
    told = os.environ.get("LOCAL_WORLD_SIZE", "") if launched() else ""
    return max(1, int(told)) if told.isdecimal() else 1
