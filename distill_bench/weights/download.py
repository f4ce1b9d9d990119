"""One large file over HTTP, which goes on where it was broken off (RFC 9110, ranges and If-Range)."""

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
TIMEOUT = 30.0  # seconds without a byte
PAUSES = (1.0, 5.0, 20.0)  # seconds before each further try
_PASSING = {408, 429, 500, 502, 503, 504}  # statuses that may be others the next time

Progress = Callable[[int, int | None], None]


class DownloadFailed(Exception):
    """The file did not come, or not all of it; the message says why."""


class _TryAgain(Exception):
    """This try failed and the next may not; the message says why."""


@dataclass(frozen=True)
class _Begun:
    """What came before: bytes, the server's name for their version of the file, and the length of the whole."""

    size: int = 0
    version: str | None = None
    length: int | None = None


def download(
    url: str, part: Path, progress: Progress | None = None, pauses: Sequence[float] = PAUSES
) -> None:
    """Completes `part`, the file at `url` as far as it came before; what came is kept whenever this raises.

    The server's name for its version of the file is noted in `<part>.json`. Where the server has another version by now, or knows no
    ranges, the file is fetched from its beginning.

    Args:
      progress: told (bytes there, bytes in all or None) after each chunk.
      pauses: seconds to wait before each further try, after a broken connection or an error of the server.

    Raises:
      DownloadFailed: where the server cannot be reached and nothing came before, where it refuses, or all tries failed.
      UserError: where `part` cannot be written.
    """
    said = ""
    for pause in (0.0, *pauses):
        time.sleep(pause)
        try:
            _try(url, part, progress)
            return
        except _TryAgain as error:
            said = str(error)
    raise DownloadFailed(f"{said} ({len(pauses) + 1} tries; what came is kept)")


def discard(part: Path) -> None:
    """Removes `part` and the notes about it."""
    for path in (part, _notes(part)):
        path.unlink(missing_ok=True)


def _notes(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _begun(part: Path) -> _Begun:
    try:
        notes = json.loads(_notes(part).read_text())
        return _Begun(part.stat().st_size, notes["version"], notes["length"])
    except (OSError, ValueError, KeyError, TypeError):
        return _Begun()


def _version(headers: Message) -> str | None:
    """What If-Range may name: a weak ETag may not."""
    etag = headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")


def _try(url: str, part: Path, progress: Progress | None) -> None:
    """One request: for the rest of the version that `part` is the beginning of, else for the whole."""
    begun = _begun(part)
    if begun.size and begun.size == begun.length:
        return
    headers = {"Accept-Encoding": "identity"}
    if begun.size and begun.version:
        headers |= {"Range": f"bytes={begun.size}-", "If-Range": begun.version}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=TIMEOUT
        ) as response:
            _receive(response, part, begun, progress)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # it has less of the file than came before
            with _writing(part):
                discard(part)
        if error.code in _PASSING or (error.code == 416 and "Range" in headers):
            raise _TryAgain(f"the server answered {error.code} {error.reason}") from None
        raise DownloadFailed(f"the server answered {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        failure = _TryAgain if begun.size else DownloadFailed  # it could be reached before
        raise failure(f"the server cannot be reached: {error.reason}") from None
    except ValueError as error:  # the URL is none
        raise DownloadFailed(str(error)) from None
    except (http.client.HTTPException, OSError) as error:
        raise _TryAgain(f"the connection broke: {error or type(error).__name__}") from None


def _receive(
    response: http.client.HTTPResponse, part: Path, begun: _Begun, progress: Progress | None
) -> None:
    """Writes the body where it belongs, and counts it."""
    if response.status == 206:
        span = response.headers.get("Content-Range", "")
        if not re.fullmatch(rf"bytes {begun.size}-\d+/{begun.length}", span) or _version(
            response.headers
        ) not in (None, begun.version):
            with _writing(part):
                discard(part)
            raise _TryAgain("the server has another version of the file by now")
    else:
        announced = response.headers.get("Content-Length")
        begun = _Begun(0, _version(response.headers), int(announced)) if announced else _Begun()
        with _writing(part):
            part.unlink(
                missing_ok=True
            )  # first: notes of one version beside bytes of another would join the two
            _notes(part).write_text(json.dumps({"version": begun.version, "length": begun.length}))
    there = begun.size
    with _writing(part):
        file = open(part, "ab", buffering=0)  # noqa: SIM115 - closed below, apart from the errors of opening it
    with file:
        while chunk := response.read(CHUNK):
            with _writing(part):
                _write(file.fileno(), chunk)
            there += len(chunk)
            if progress:
                progress(there, begun.length)
        with _writing(part):
            os.fsync(file.fileno())
    if begun.length is not None and there != begun.length:
        raise _TryAgain(f"the server stopped after {there:,} of {begun.length:,} bytes")


def _write(descriptor: int, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:  # a disk that fills up takes the beginning
        rest = rest[os.write(descriptor, rest) :]


@contextmanager
def _writing(part: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{part} cannot be written: {error.strerror}.\nWhat came is kept there. Make room, or allow writing, and the same command goes on."
        ) from None
