"""A file that is fetched once, by one process at a time, and has to stay as it was at its first use."""

from __future__ import annotations

import fcntl
import hashlib
import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from distill_bench.errors import UserError
from distill_bench.files import replace_atomically
from distill_bench.weights.download import DownloadFailed, Progress, discard, download


def obtain(
    path: Path, url: str, command: str, progress: Progress | None, pauses: Sequence[float]
) -> str:
    """Brings the .npz at `url` to `path` unless it is there, and gives its sha256, which is kept in `<path>.sha256` from the first use on.

    Args:
      command: what a user types to have the file brought, for the messages.
      progress, pauses: see `download`.

    Raises:
      UserError: where the file cannot be had, read or written, is no .npz, or was changed since its first use.
    """
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with _one_process(path):
                if not path.exists():  # another process may have brought it meanwhile
                    _bring(url, path, progress, pauses)
        return _verify(path, command)
    except DownloadFailed as error:
        raise UserError(
            f"{path.name} is not in the cache and cannot be downloaded: {error}.\n"
            f"  URL      {url}\n  into     {path}\n  command  {command}\n"
            "Run the command where there is a network, or get the URL by other means and put the file there; it is then used offline."
        ) from None
    except OSError as error:
        raise UserError(
            f"{error.filename or path}: {error.strerror}.\nThe cache has to be a folder that can be read and written."
        ) from None


@contextmanager
def _one_process(path: Path) -> Iterator[None]:
    """Waits until no other process is bringing the file; the system lets go when a process ends."""
    with open(path.with_name(f".{path.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _bring(url: str, path: Path, progress: Progress | None, pauses: Sequence[float]) -> None:
    part = path.with_name(f"{path.name}.part")
    download(url, part, progress, pauses)
    if not zipfile.is_zipfile(part):
        discard(part)
        raise DownloadFailed("the server sent something else than an .npz")
    os.replace(part, path)
    discard(part)


def _verify(path: Path, command: str) -> str:
    kept = path.with_name(f"{path.name}.sha256")
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not kept.exists():
        if not zipfile.is_zipfile(path):
            raise UserError(
                f"{path} is no complete .npz.\nPut the whole file there, or remove it and run: {command}"
            )
        replace_atomically(
            kept, lambda file: file.write(f"{found}  {path.name}\n".encode())
        )  # as `sha256sum -c` reads it
        return found
    expected = kept.read_text().partition(" ")[0]
    if found != expected:
        raise UserError(
            f"{path} was changed: its sha256 is {found}, at its first use it was {expected}.\n"
            f"If you replaced it on purpose, remove {kept.name} beside it; otherwise remove both and run: {command}"
        )
    return found
