"""Standard streams that can be written to, whatever the process was started with."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import Any, TextIO

# What a character becomes in an encoding that lacks it; "?" if it is not here.
_PLAIN = {"×": "x", "±": "+-", "–": "-", "─": "-", "…": "..."}


def make_ready() -> None:
    """Opens the standard streams that are closed, and lets them replace what they cannot encode.

    What is written to a stream that was closed is lost.
    """
    _fill_gaps()
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=__name__)


def plain(text: str) -> str:
    """The text with an escape such as \\x1b for each character that is neither shown nor a space or
    line break: messages hold other people's text, which must not command the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def discard(stream: TextIO) -> None:
    """What is written to the stream from now on is lost: nobody can read it any more."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


class _Lossy(io.FileIO):
    def write(self, content: Any, /) -> int:
        try:
            return super().write(content)
        except OSError:
            return len(content)


def lossy_stderr() -> TextIO:
    """Standard error, without the errors if nobody can read it any more."""
    file = io.BufferedWriter(_Lossy(sys.stderr.fileno(), "w", closefd=False))
    return io.TextIOWrapper(file, sys.stderr.encoding, errors=__name__, line_buffering=True)


def _fill_gaps() -> None:
    """Opens closed descriptors below 3: the next file that is opened would get their number, and
    with it what is meant for a standard stream."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest free descriptor: this one
            os.set_inheritable(null, True)


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character, "?") for character in lacking), error.end


codecs.register_error(__name__, _replace)
