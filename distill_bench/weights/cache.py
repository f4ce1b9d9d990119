"""The cache of published files: each is fetched once, and must not change after its first use."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

from distill_bench.errors import UserError
from distill_bench.files import locked_file, replace_atomically
from distill_bench.weights.download import DownloadFailed, Progress, discard, download


def obtain(
    path: Path, url: str, command: str, progress: Progress | None, pauses: Sequence[float]
) -> str:
    """Downloads the .npz at `url` to `path` unless it exists, and returns its sha256.

    The sha256 is written to `<path>.sha256` at the first use and compared at every later one.

    Args:
      command: command line that fetches the file, for error messages.
      progress, pauses: see `download`.

    Raises:
      UserError: if the file cannot be downloaded, read or written, is not an .npz, or has changed
        since its first use.
    """
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with locked_file(path.with_name(f".{path.name}.lock")):
                if not path.exists():  # another process may have fetched it meanwhile
                    _fetch(url, path, progress, pauses)
        return _verify(path, command)
    except DownloadFailed as error:
        raise UserError(
            f"{path.name} is not in the cache and cannot be downloaded: {error}.\n"
            f"  URL      {url}\n  into     {path}\n  command  {command}\n"
            "Run the command on a machine with a network, or download the URL by other means "
            "and put the file there; no network is needed after that."
        ) from None
    except OSError as error:
        raise UserError(
            f"{error.filename or path}: {error.strerror}.\n"
            "The cache must be a folder that can be read and written."
        ) from None


def _fetch(url: str, path: Path, progress: Progress | None, pauses: Sequence[float]) -> None:
    part = path.with_name(f"{path.name}.part")
    download(url, part, progress, pauses)
    if not zipfile.is_zipfile(part):
        discard(part)
        raise DownloadFailed("the server sent something that is not an .npz")
    os.replace(part, path)
    discard(part)


def _verify(path: Path, command: str) -> str:
    digest_path = path.with_name(f"{path.name}.sha256")
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest_path.exists():
        if not zipfile.is_zipfile(path):
            raise UserError(
                f"{path} is not a complete .npz.\n"
                f"Put the whole file there, or remove it and run: {command}"
            )
        line = f"{found}  {path.name}\n".encode()  # the format of `sha256sum -c`
        replace_atomically(digest_path, lambda file: file.write(line))
        return found
    expected = digest_path.read_text().partition(" ")[0]
    if found != expected:
        raise UserError(
            f"{path} has changed: its sha256 is {found}, but at its first use it was {expected}.\n"
            f"If you replaced it on purpose, remove {digest_path.name} next to it; "
            f"otherwise remove both and run: {command}"
        )
    return found
