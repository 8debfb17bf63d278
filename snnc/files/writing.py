"""Writing a file whole or not at all."""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from snnc.errors import WriteError


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path to write to, and moves it onto `path` when the block ends well.

    The temporary file exists, empty, in the folder of `path` and has its suffix. Where the block fails it is
    removed, and what was at `path` stays as it was. A process that is killed can leave it behind: a hidden file with
    `.part` before its suffix, which nothing reads and which may be deleted.

    Raises:
        WriteError: the folder is missing or cannot be written to, `path` is not a regular file, or writing
            failed (an `OSError` within the block included).
    """
    final = Path(os.path.realpath(path))  # through a link, so that the link survives
    if not final.parent.is_dir():
        raise WriteError(f"{path} cannot be written: there is no folder {final.parent}.", "make the folder first")
    if final.exists() and not final.is_file():
        raise WriteError(f"{path} cannot be written: it is not a regular file.", "another name")
    temporary = final.with_name(f".{final.stem[:64]}-{secrets.token_hex(6)}.part{final.suffix}")
    try:
        # Not tempfile.mkstemp: its files are private, and the user's umask should decide.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary
        _sync(temporary)
        temporary.replace(final)
        with suppress(OSError):  # not every system lets a folder be opened
            _sync(final.parent)
    except OSError as exc:
        raise WriteError(f"{path} cannot be written: {exc.strerror or exc}.", "check space and permissions") from exc
    finally:
        with suppress(OSError):  # such as on a read-only system, where there is none
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_buffer(path: str | Path) -> Iterator[io.BytesIO]:
    """Gives memory to write to, and moves what is in it onto `path` as `atomic_write` does when the block ends well.

    For the writers of torch and HDF5: on a full disk they end the whole process.

    Raises:
        WriteError: as `atomic_write`.
    """
    buffer = io.BytesIO()
    yield buffer
    with atomic_write(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
