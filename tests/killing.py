"""Kills commands with SIGKILL while they write, and says what their files hold then.

A command runs in a forked process, so nothing is imported again. Where it begins to write a file, the process forks for
each kill: the copy goes on and kills itself at a chosen call or return of a function, Python's or C's, which
covers every point between opening the file and giving it its name. Others are killed from outside at a random time.

After each kill a file holds what it held before, or all of what was to be written: a reader says so. What else lies
there is named as a temporary file, and the command runs again beside it.
"""

import json
import os
import random
import re
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snnc.files import writing

LEFTOVER = re.compile(r"\..+-[0-9a-f]{12}\.part(\.\w+)?")
WRITES = 4  # of one run that are looked into: tune writes a checkpoint every few steps


@dataclass(frozen=True)
class Command:
    """A command that writes.

    Attributes:
        name: for tables.
        run: runs it in the current folder; raises where it fails.
        targets: each file that it writes, and a reader that raises where the file is not whole.
        removed: the one of them that it removes at the end.
    """

    name: str
    run: Callable[[], Any]
    targets: dict[str, Callable[[Path], Any]]
    removed: str = ""


def forked(work: Callable[[], Any]) -> int:
    """Runs `work` in a fork of this process, silently; gives the process's number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads that a fork leaves behind; the copy needs none
        child = os.fork()
    if child:
        return child
    code = 1
    try:
        with open(os.devnull, "w") as nothing:  # noqa: PTH123
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        work()
        code = 0
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """How a process ended: its exit code, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Folder:
    """The folder that a command writes to: what its targets held, and what is found after a kill."""

    def __init__(self, command: Command) -> None:
        self.command, self.counts = command, Counter[str]()
        self.bad: list[str] = []
        self.left: set[str] = set()
        self.remember()

    def remember(self) -> None:
        """What lies here now is what was there before."""
        self.before = {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()}

    def check(self, when: str) -> None:
        """Every target is old or whole, and everything new is named as a temporary file; puts the old files back."""
        self.counts["kills"] += 1
        self.compare(when)
        for path in Path().iterdir():
            if path.name in {*self.before, *self.command.targets, *self.left}:
                continue
            known = LEFTOVER.fullmatch(path.name) is not None
            self.left.add(path.name)  # and it stays, in the way of the next run
            self.counts["leftovers" if known else "strange files"] += 1
            if not known:
                self.bad.append(f"{self.command.name}, {when}: left {path.name}")
        self.restore()

    def compare(self, when: str) -> None:
        """Counts the targets that are old, whole, or neither."""
        for name, whole in self.command.targets.items():
            path, old = Path(name), self.before.get(name)
            now = path.read_bytes() if path.exists() else None
            if now == old:
                self.counts["old"] += 1
                continue
            try:
                whole(path)
                self.counts["new"] += 1
            except Exception as error:
                self.counts["half"] += 1
                self.bad.append(f"{self.command.name}, {when}: {name} is neither old nor whole: {error}")

    def restore(self) -> None:
        """Puts the old files back."""
        for name in self.command.targets:
            if name in self.before:
                Path(name).write_bytes(self.before[name])
            else:
                Path(name).unlink(missing_ok=True)


class _Counter:
    """Counts calls and returns from here to the end of `atomic_write`, and ends the process at one of them."""

    code = writing.atomic_write.__wrapped__.__code__

    def __init__(self, last: int, done: Callable[[int], None]) -> None:
        self.last, self.done, self.seen, self.left = last, done, 0, 0

    def __call__(self, frame: Any, event: str, arg: Any) -> None:
        self.seen += 1
        if self.seen == self.last:
            os.kill(os.getpid(), signal.SIGKILL)
        # The generator is left when it gives the temporary path, and again when the file is in its place.
        self.left += frame.f_code is self.code and event == "return"
        if self.left == 2:
            sys.setprofile(None)
            self.done(self.seen)


class Killer:
    """Stands for the module `secrets` in `snnc.files.writing`, which asks it for a name before it opens a file.

    That is where it forks: the copies go on, each with a counter, and the original looks at what they leave.
    """

    def __init__(self, command: Command, kills: int, seed: int) -> None:
        self.folder, self.kills, self.chance = Folder(command), kills, random.Random(seed)
        self.itself, self.writes = os.getpid(), 0

    def token_hex(self, size: int) -> str:
        if os.getpid() == self.itself and self.writes < WRITES:
            self.writes += 1
            self.folder.remember()
            self._kill_copies()
        return os.urandom(size).hex()

    def _kill_copies(self) -> None:
        source, sink = os.pipe()
        if not (child := os.fork()):
            sys.setprofile(_Counter(0, lambda seen: (os.write(sink, str(seen).encode()), os._exit(0))))
            return
        ended(child)
        os.close(sink)
        points = int(os.read(source, 99))
        os.close(source)
        self.folder.restore()
        last = range(max(1, points - 60), points + 1)  # the file gets its name near the end
        chosen = {*self.chance.sample(last, self.kills // 2), *self.chance.sample(range(1, points), self.kills // 2)}
        for at in sorted(chosen):
            if not (child := os.fork()):
                sys.setprofile(_Counter(at, lambda seen: os._exit(0)))
                return
            where = f"write {self.writes}, point {at} of {points}"
            if ended(child) != -signal.SIGKILL:
                self.folder.bad.append(f"{self.folder.command.name}, {where}: was not killed")
            self.folder.check(where)


def kill_inside(command: Command, kills: int, seed: int = 0) -> tuple[Counter[str], list[str]]:
    """Kills the command so often in each file that it writes; then it goes on, beside what the others left."""
    found = Path("killed.json")

    def work() -> None:
        killer = Killer(command, kills, seed)
        writing.secrets = killer  # type: ignore[attr-defined]
        command.run()
        if os.getpid() == killer.itself:
            killer.folder.counts["writes"] += killer.writes
            found.write_text(json.dumps([killer.folder.counts, killer.folder.bad]))

    code = ended(forked(work))
    counts, bad = json.loads(found.read_text()) if found.exists() else ({}, [])
    found.unlink(missing_ok=True)
    return Counter(counts), [*bad, *after(command, code)]


def kill_outside(command: Command, kills: int, seed: int = 0) -> tuple[Counter[str], list[str]]:
    """Kills the command at random times between its beginning and its end; then it runs once more."""
    start = time.monotonic()
    bad = after(command, ended(forked(command.run)))
    seconds, folder, chance = time.monotonic() - start, Folder(command), random.Random(seed)
    for _ in range(kills):
        child = forked(command.run)
        time.sleep(chance.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        ended(child)
        folder.check("from outside")
    return folder.counts, [*bad, *folder.bad, *after(command, ended(forked(command.run)))]


def after(command: Command, code: int) -> list[str]:
    """What is wrong after a run that nothing disturbed but what others left."""
    if code:
        return [f"{command.name} ended with {code}"]
    for name, whole in command.targets.items():
        try:
            if name != command.removed:
                whole(Path(name))
            elif Path(name).exists():
                return [f"{command.name} left {name}"]
        except Exception as error:
            return [f"{command.name} left {name} not whole: {error}"]
    return []
