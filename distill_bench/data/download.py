"""Downloads one large file and resumes it after an interruption (RFC 9110: ranges, If-Range)."""

from __future__ import annotations

import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

from distill_bench.errors import UserError

CHUNK = 2**18  # bytes
TIMEOUT = 30.0  # seconds to wait for the next byte
PAUSES = (1.0, 5.0, 20.0)  # seconds to wait before each further attempt
LARGEST = 2**33  # bytes; the largest published file has 3.8 GB
_TEMPORARY = {408, 429, 500, 502, 503, 504}  # HTTP statuses that are worth another attempt

Progress = Callable[[int, int | None], None]


class DownloadFailed(Exception):
    """The file was not downloaded completely; the message says why."""


class _TryAgain(Exception):
    """This attempt failed, but the next one may succeed; the message says why."""


@dataclass(frozen=True)
class _Partial:
    """What earlier attempts received.

    Attributes:
      size: number of bytes.
      version: the server's name for this version of the file; None if unknown.
      length: size of the whole file in bytes; None if unknown.
    """

    size: int = 0
    version: str | None = None
    length: int | None = None


def download(
    url: str, part: Path, progress: Progress | None = None, pauses: Sequence[float] = PAUSES
) -> None:
    """Downloads the file at `url` to `part`, and resumes what earlier calls left there.

    If this raises, `part` is kept for the next call. The server's version of the file is noted in
    `<part>.json`. If the server has another version by now, or does not support ranges, the
    download starts over.

    Args:
      progress: called with (bytes received, bytes in all or None) after each chunk.
      pauses: seconds to wait before each further attempt, after a broken connection or an error of
        the server.

    Raises:
      DownloadFailed: if the server refuses, if all attempts failed, if the server cannot be reached
        and nothing was received before, or if it sends more than it announced or than LARGEST.
      UserError: if `part` cannot be written.
    """
    reason = ""
    for pause in (0.0, *pauses):
        time.sleep(pause)
        try:
            _try(url, part, progress)
            return
        except _TryAgain as error:
            reason = str(error)
    raise DownloadFailed(
        f"{reason} ({len(pauses) + 1} attempts; the part that was downloaded is kept)"
    )


def discard(part: Path) -> None:
    """Removes `part` and the notes about it."""
    for path in (part, _notes(part)):
        path.unlink(missing_ok=True)


def _notes(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _partial(part: Path) -> _Partial:
    try:
        notes = json.loads(_notes(part).read_text())
        version, length = notes["version"], notes["length"]
        if isinstance(version, str | None) and isinstance(length, int | None):
            return _Partial(part.stat().st_size, version, length)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return _Partial()


def _version(headers: Message) -> str | None:
    """The version that If-Range can name, which a weak ETag is not allowed to be."""
    etag = headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")


def _try(url: str, part: Path, progress: Progress | None) -> None:
    """One request: for the rest of the file if `part` holds its beginning, else for all of it."""
    partial = _partial(part)
    if partial.size and partial.size == partial.length:
        return
    headers = {"Accept-Encoding": "identity"}
    if partial.size and partial.version:
        headers |= {"Range": f"bytes={partial.size}-", "If-Range": partial.version}
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            _receive(response, part, partial, progress)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # the server's file is shorter than the part received before
            with _writing(part):
                discard(part)
        if error.code in _TEMPORARY or (error.code == 416 and "Range" in headers):
            raise _TryAgain(f"the server answered {error.code} {error.reason}") from None
        raise DownloadFailed(f"the server answered {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        # Wait for the network only if the server could be reached before.
        failure = _TryAgain if partial.size else DownloadFailed
        raise failure(f"the server cannot be reached: {error.reason}") from None
    except ValueError as error:  # not a URL
        raise DownloadFailed(str(error)) from None
    except (http.client.HTTPException, OSError) as error:
        raise _TryAgain(f"the connection broke: {error or type(error).__name__}") from None


def _receive(
    response: http.client.HTTPResponse, part: Path, partial: _Partial, progress: Progress | None
) -> None:
    """Appends the response to `part`, or replaces `part` if the response is the whole file."""
    if response.status == 206:
        span = response.headers.get("Content-Range", "")
        continues = re.fullmatch(rf"bytes {partial.size}-\d+/{partial.length}", span)
        if not continues or _version(response.headers) not in (None, partial.version):
            with _writing(part):
                discard(part)
            raise _TryAgain("the server has another version of the file by now")
    else:
        announced = response.headers.get("Content-Length", "")
        length = int(announced) if announced.isdecimal() else None
        if (length or 0) > LARGEST:
            raise DownloadFailed(
                f"the server announces {length:,} bytes, but at most {LARGEST:,} are accepted"
            )
        partial = _Partial() if length is None else _Partial(0, _version(response.headers), length)
        with _writing(part):
            # Before the notes: new notes next to old bytes would mix two versions.
            part.unlink(missing_ok=True)
            _notes(part).write_text(
                json.dumps({"version": partial.version, "length": partial.length})
            )
    received, most = partial.size, LARGEST if partial.length is None else partial.length
    with _writing(part):
        file = open(part, "ab", buffering=0)  # noqa: SIM115 - closed by the next `with`
    with file:
        while chunk := response.read(CHUNK):
            with _writing(part):
                _write(file.fileno(), chunk)
            received += len(chunk)
            if received > most:
                with _writing(part):
                    discard(part)
                raise DownloadFailed(f"the server sent more than {most:,} bytes")
            if progress:
                progress(received, partial.length)
        with _writing(part):
            os.fsync(file.fileno())
    if partial.length is not None and received != partial.length:
        raise _TryAgain(f"the server stopped after {received:,} of {partial.length:,} bytes")


def _write(descriptor: int, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:  # a disk that is nearly full takes only the first bytes of a write
        rest = rest[os.write(descriptor, rest) :]


@contextmanager
def _writing(part: Path) -> Iterator[None]:
    """Turns an OSError into a UserError that names the file."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{part} cannot be written: {error.strerror}.\n"
            "The part that was downloaded is kept there. "
            "Make room, or allow writing, and run the same command again to continue."
        ) from None
