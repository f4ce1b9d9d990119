"""The cache of published files: each is fetched once, and must not change after its first use.

A file is kept only if it is whole: an .npz each of whose arrays has the CRC that the file states.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from distill_bench.data.download import DownloadFailed, Progress, discard, download
from distill_bench.errors import UserError
from distill_bench.files import locked_file, replace_atomically
from distill_bench.weights import npz
from distill_bench.weights.formats import Unfit


def obtain(
    path: Path, url: str, command: str, progress: Progress | None, pauses: Sequence[float]
) -> str:
    """Downloads the .npz at `url` to `path` unless it exists, and returns its sha256.

    The sha256 is written to `<path>.sha256` at the first use and compared at every later one.

    Args:
      command: command line that fetches the file, for error messages.
      progress, pauses: see `download`.

    Raises:
      UserError: if the file cannot be downloaded, read or written, is not a whole .npz, or has
        changed since its first use.
    """
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with locked_file(path.with_name(f".{path.name}.lock")):
                if not path.exists():  # another process may have fetched it meanwhile
                    return _fetch(path, url, command, progress, pauses)
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


def _fetch(
    path: Path, url: str, command: str, progress: Progress | None, pauses: Sequence[float]
) -> str:
    """Downloads the file, keeps it if it is whole and the one used before, returns its sha256."""
    expected = _recorded(path, command)
    part = path.with_name(f"{path.name}.part")
    download(url, part, progress, pauses)
    found = _sha256(part)
    reason = _damage(part)
    if expected not in (None, found):
        reason = (
            f"has sha256 {found}, but at its first use it had {expected}. "
            f"If it may be another file now, remove {_digest_path(path).name}."
        )
    if reason:
        discard(part)
        raise UserError(
            f"{path.name} was downloaded and refused, because it {reason}\n"
            f"  URL      {url}\n  command  {command}\n"
            "Nothing was kept. Run the command again. If the server sends the same again, download "
            f"the file from elsewhere and put it here: {path}"
        )
    os.replace(part, path)
    discard(part)
    _record(path, found)
    return found


def _verify(path: Path, command: str) -> str:
    """The file's sha256, if it is that of the first use. At the first use, the file must be whole.

    Raises:
      UserError: if it is not.
    """
    expected, found = _recorded(path, command), _sha256(path)
    if expected is None:
        if reason := _damage(path):
            raise UserError(
                f"{path} {reason}\nPut the whole file there, or remove it and run: {command}"
            )
        _record(path, found)
    elif found != expected:
        raise UserError(
            f"{path} has changed: its sha256 is {found}, but at its first use it was {expected}.\n"
            f"If you replaced it on purpose, remove {_digest_path(path).name} next to it; "
            f"otherwise remove both and run: {command}"
        )
    return found


def _damage(path: Path) -> str:
    """Why the file is not a whole .npz; "" if it is. Continues a sentence about the file."""
    try:
        npz.verify(path)
        return ""
    except Unfit as error:
        return str(error)


def _digest_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _record(path: Path, sha256: str) -> None:
    line = f"{sha256}  {path.name}\n".encode()  # the format of `sha256sum -c`
    replace_atomically(_digest_path(path), lambda file: file.write(line))


def _recorded(path: Path, command: str) -> str | None:
    """The sha256 at the file's first use; None before.

    Raises:
      UserError: if the file beside it does not begin with a sha256.
    """
    try:
        with open(_digest_path(path), "rb") as file:
            line = re.match(rb"([0-9a-f]{64})(\s|$)", file.read(65))
    except FileNotFoundError:
        return None
    if line is None:
        raise UserError(
            f"{_digest_path(path)} is damaged: it must begin with the 64 hexadecimal digits of a "
            f"sha256.\nRemove it, and {path.name} as well unless you know that it is whole, and "
            f"run: {command}"
        )
    return line[1].decode()
