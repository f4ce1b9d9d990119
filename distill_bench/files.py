"""Files that several processes share: written completely or not at all, and locked."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

if sys.platform != "win32":  # where all but locks works
    import fcntl


class FileInUse(Exception):
    """Another process holds the lock; the message is what that process wrote into the file."""


def write_atomically(path: Path, content: str) -> None:
    """Replaces a file in one step: a crash leaves either the old or the new content."""
    replace_atomically(path, lambda file: file.write(content.encode()))


def replace_atomically(path: Path, write: Any) -> None:
    """Calls write(file) on a temporary file next to `path`, then renames it to `path`.

    If anything fails, the file at `path` stays as it was. What an earlier process that was killed
    left of the same write is removed.
    """
    remove_abandoned(path.parent, {path.name})
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with _claimed(temporary):
        try:
            with open(temporary, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def remove_abandoned(folder: Path, names: Collection[str]) -> None:
    """Removes the temporary files that killed processes left in the folder, of `replace_atomically`
    for files of these names."""
    if sys.platform == "win32":
        return
    for temporary in folder.iterdir():
        start, _, process = temporary.name.rpartition(".")
        if start.startswith(".") and start[1:] in names and process.isdecimal():
            with suppress(OSError), open(temporary, "r+b") as file:
                if _try_lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    temporary.unlink()


@contextmanager
def _claimed(temporary: Path) -> Iterator[None]:
    """Creates the file and locks it, so that no other process takes it for abandoned."""
    if sys.platform == "win32":  # which does not rename an open file
        yield
        return
    while True:
        with open(temporary, "ab") as file:
            # A file system without locks is no hindrance: nobody can remove the file there.
            _try_lock(file, fcntl.LOCK_EX)
            # Before it was locked, another process may have removed it.
            if _is_at(file, temporary):
                yield
                return


@contextmanager
def locked_file(
    path: Path, shared: bool = False, patience: float | None = None
) -> Iterator[IO[str]]:
    """Holds a lock on the file at `path` and gives the open file; creates the file if needed.

    The system releases the lock when the process ends, even if it is killed. The holder may write
    into the file who it is; other processes see this text in `FileInUse`.

    Args:
      shared: shared locks go together; without it, nobody else may hold the lock.
      patience: seconds to wait for the other processes; None waits for as long as it takes.

    Raises:
      FileInUse: if another process still holds the lock after `patience` seconds.
      OSError: if the file cannot be opened or locked.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with open(path, "a+", errors="replace") as file:
        if patience is None:
            fcntl.flock(file, kind)
        else:
            deadline = time.monotonic() + patience
            while not _try_lock(file, kind | fcntl.LOCK_NB):
                if time.monotonic() > deadline:
                    file.seek(0)
                    raise FileInUse(file.read().strip() or "another process")
                time.sleep(0.1)
        yield file


def _is_at(file: IO[Any], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _try_lock(file: IO[Any], kind: int) -> bool:
    try:
        fcntl.flock(file, kind)
        return True
    except OSError:
        return False
