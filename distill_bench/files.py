"""Files that several processes share: written completely or not at all, and locked."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


class FileInUse(Exception):
    """Another process holds the lock; the message is what that process wrote into the file."""


def replace_atomically(path: Path, write: Any) -> None:
    """Calls write(file) on a temporary file next to `path`, then renames it to `path`.

    If anything fails, the file at `path` stays as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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
    import fcntl  # here: not on Windows, where the rest of this module works

    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with open(path, "a+") as file:
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


def _try_lock(file: IO[str], kind: int) -> bool:
    import fcntl

    try:
        fcntl.flock(file, kind)
        return True
    except OSError:
        return False
