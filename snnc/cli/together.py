"""Commands under torchrun: the first process speaks for all, and one of them says what went wrong."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import FrameType

import click

from snnc.errors import ProcessError
from snnc.launched import launched

SHARED = ("compile", "eval", "tune")


@contextmanager
def hushed() -> Iterator[None]:
    """Silences every process of a launch but the first."""
    with ExitStack() as stack:
        if launched() and os.environ["RANK"] != "0":
            nowhere = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
            stack.enter_context(redirect_stdout(nowhere))
            stack.enter_context(redirect_stderr(nowhere))
        yield


@contextmanager
def together(command: str | None) -> Iterator[None]:
    """Shares the work of a command among the processes of a launch.

    Raises:
        UsageError: the command is one that runs in one process.
        ProcessError: the processes lost each other, or were told to end.
    """
    if not launched():
        yield
        return
    if command not in SHARED:
        raise click.UsageError(f"'snnc {command}' runs in one process; {', '.join(SHARED)} share their work.")
    signal.signal(signal.SIGTERM, _told_to_end)
    from snnc.processes import distributed

    with distributed():
        yield


def _told_to_end(number: int, frame: FrameType | None) -> None:
    """What SIGTERM does, which torchrun sends if a process has failed: half-written files are removed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise ProcessError("Another process of this run has ended, so the run ends.")


@contextmanager
def last_words() -> Iterator[bool]:
    """Whether this process tells what went wrong; within, it may. The first that asks does, for all of a launch."""
    if not launched():
        yield True
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends by itself, and is not to be interrupted when it says why
    from snnc.processes import speaks

    with redirect_stderr(sys.__stderr__):
        yield speaks()
