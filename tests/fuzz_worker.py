"""Reads changed files in a forked worker, and says how each reading ended.

loaded    the change did no harm, or harmed only values
refused   an `SnncError` of one line
leaked    any other exception: the user would see a traceback
memory    asked for far more memory than the file could need
hung      no end within `SECONDS`
crashed   ended by a signal
ran       started a process, opened a connection, or left the file that a hostile pickle would make
wrote     left or changed a file
"""

import os
import pickle
import resource
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snnc.errors import SnncError
from tests.fuzz_mutations import mutate
from tests.fuzz_seeds import Seed

SECONDS = 60  # per file; they take milliseconds, but machines are shared
MEMORY = 2**31  # of address space beyond what the worker has from the start
GROWTH = 2**28  # of resident memory by a single file; none here exceeds 100 kB
GOOD = ("loaded", "refused")
_STARTS = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "webbrowser.open")


@dataclass
class Tally:
    """How the readings of one seed's changes ended, and what was bad about the first few that ended badly."""

    counts: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)

    def add(self, end: str, what: str) -> None:
        self.counts[end] += 1
        if end not in GOOD:
            self.bad.append(f"{what}")


def fuzz(seed: Seed, mutations: int) -> Tally:
    """Reads so many changes of a seed."""
    tally, start = Tally(), 0
    with tempfile.TemporaryDirectory() as folder:
        while start < mutations:
            for start, end, what in _worker(seed, range(start, mutations), Path(folder)):  # noqa: B020
                tally.add(end, f"{seed.name}, change {start}: {what}")
            start += 1
    return tally


def _worker(seed: Seed, numbers: range, folder: Path) -> Iterator[tuple[int, str, str]]:
    """Number, end and particulars of each change, until all are read or the worker dies of one."""
    source, sink = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads that a fork leaves behind; the worker needs none
        child = os.fork()
    if not child:
        os.close(source)
        _read_all(seed, numbers, folder, os.fdopen(sink, "wb"))
        os._exit(0)
    os.close(sink)
    at = numbers.start
    with os.fdopen(source, "rb") as results, suppress(EOFError, pickle.UnpicklingError):
        while True:
            at, end, what = pickle.load(results)
            yield at, end, what
            at += 1
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        end = "hung" if number == signal.SIGALRM else "crashed"
        yield at, end, signal.Signals(number).name


def _read_all(seed: Seed, numbers: range, folder: Path, results: Any) -> None:
    with open(os.devnull, "w") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    os.chdir(folder)
    started: list[str] = []
    sys.addaudithook(lambda event, _: started.append(event) if event.startswith(_STARTS) else None)
    warnings.simplefilter("ignore")
    space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (space + MEMORY, space + MEMORY))
    for number in numbers:
        for name, content in {
            **seed.beside,
            seed.file: mutate(seed.content, seed.form, f"{seed.name}/{number}"),
        }.items():
            (folder / name).write_bytes(content)
        before = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
        Path("/proc/self/clear_refs").write_text("5")  # the peak is the present from here
        most = _peak()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        end, what = _read(seed, folder / seed.file)
        signal.alarm(0)
        grown = _peak() - most
        after = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
        if started or "it-ran" in after:
            end, what = "ran", f"{started[:3]}"
        elif after != before:
            end, what = "wrote", f"{sorted(set(after) ^ set(before)) or 'the file'}"
        elif grown > GROWTH:
            end, what = "memory", f"{grown >> 20} MB more"
        started.clear()
        for name in set(after) - set(before):
            (folder / name).unlink()
        pickle.dump((number, end, what), results)
        results.flush()


def _peak() -> int:
    """Most bytes of memory that this process had since the peak was put back."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def _read(seed: Seed, path: Path) -> tuple[str, str]:
    try:
        seed.read(path)
    except SnncError as error:
        told = error.message.replace(f"{path.parent}/", "")  # the folder is another one each time
        cause: BaseException | None = error
        while cause is not None:
            if _full(cause):
                return "memory", told[:200]
            cause = cause.__cause__
        fine = "\n" not in error.message and "Traceback" not in error.message
        return ("refused", "") if fine else ("leaked", repr(told)[:300])
    except BaseException as error:
        return "memory" if _full(error) else "leaked", f"{type(error).__name__}: {error}"[:300]
    return "loaded", ""


def _full(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or "allocate memory" in str(error)
