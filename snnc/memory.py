"""How much memory this process holds, and how much more it could have."""

from __future__ import annotations

import os
import sys
from pathlib import Path

UNKNOWN = 4 * 10**9  # bytes taken to be free where nothing tells
GROUPS = (  # of a container: its limit, what it has taken, and the line there that says how much of it cannot be let go
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.stat", "anon"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.stat", "total_rss"),
)


def free() -> int:
    """Bytes that processes here can still take without others being pushed out: of the machine, or of the container."""
    found = [value for value in (_machine(), *(_left(*group) for group in GROUPS)) if value is not None]
    return max(0, min(found, default=UNKNOWN))


def resident() -> int:
    """Bytes of main memory that this process holds now; where that cannot be told the most that it has held, or 0."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return _most()


def _most() -> int:
    try:
        import resource
    except ImportError:
        return 0
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else found * 1024


def _machine() -> int | None:
    lines = _lines("/proc/meminfo", ":")
    if "MemAvailable" in lines:
        return int(lines["MemAvailable"].split()[0]) * 1024
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def _left(limit: str, taken: str, key: str) -> int | None:
    try:
        most = int(Path(limit).read_text())  # "max" where there is none
        return most - int(_lines(taken, " ")[key])
    except (OSError, ValueError, KeyError):
        return None


def _lines(path: str, mark: str) -> dict[str, str]:
    try:
        text = Path(path).read_text()
    except OSError:
        return {}
    return {key: rest.strip() for key, _, rest in (line.partition(mark) for line in text.splitlines())}
