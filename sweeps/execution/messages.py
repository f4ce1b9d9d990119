"""What a worker reports to its supervisor, on a pipe that its optimizers can write to as well.

A message is a line: the worker's token, then JSON [kind, value]. It begins with a line break of its
own, in case somebody else's text stands before it. Whatever lacks the token is not a message.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any

LONGEST = 1 << 20  # bytes of a message


class Kind(StrEnum):
    """The kinds of message. The first four are the calls of a `Display`, the last four end the
    run."""

    BEGIN = "begin"  # [label, steps]
    ADVANCE = "advance"  # steps
    SAY = "say"  # text
    SUSPECT = "suspect"  # names of optimizers
    IMPORTING = "importing"  # an optimizer as typed, whose file is imported next
    PLANNED = "planned"  # [name, as typed] of each optimizer
    DONE = "done"  # folders of the studies
    BLAMED = "blamed"  # [name of an optimizer, text]: its code raised where only ours should run
    MISUSE = "misuse"  # text of a UserError
    FAILED = "failed"  # text of a SweepFailed


def encode(token: str, kind: Kind, value: Any) -> bytes:
    return f"\n{token}{json.dumps([kind, value])}\n".encode()


class Reader:
    """Finds the messages in what arrives.

    Attributes:
      foreign: bytes that arrived and are not of messages.
    """

    def __init__(self, token: str):
        self._token, self._rest = token.encode(), b""
        self.foreign = 0

    def feed(self, content: bytes) -> Iterator[tuple[Kind, Any]]:
        """The messages that `content` completes."""
        self.foreign += len(content)
        *lines, self._rest = (self._rest + content).split(b"\n")
        if len(self._rest) > LONGEST:
            self._rest = b""
        for line in lines:
            if message := self._parse(line):
                self.foreign -= len(line) + 2
                yield message

    def _parse(self, line: bytes) -> tuple[Kind, Any] | None:
        if not line.startswith(self._token):
            return None
        try:
            kind, value = json.loads(line[len(self._token) :])
            kind = Kind(kind)
        except (ValueError, TypeError, RecursionError):
            return None
        return (kind, value) if _FORMS[kind](value) else None


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_pair(value: Any) -> bool:
    return _are_texts(value) and len(value) == 2


def _is_number(value: Any) -> bool:
    return isinstance(value, int)


_FORMS: dict[Kind, Callable[[Any], bool]] = {
    Kind.BEGIN: lambda value: (
        isinstance(value, list) and len(value) == 2 and _is_text(value[0]) and _is_number(value[1])
    ),
    Kind.ADVANCE: _is_number,
    Kind.SAY: _is_text,
    Kind.SUSPECT: _are_texts,
    Kind.IMPORTING: _is_text,
    Kind.PLANNED: lambda value: isinstance(value, list) and all(map(_is_pair, value)),
    Kind.DONE: _are_texts,
    Kind.BLAMED: _is_pair,
    Kind.MISUSE: _is_text,
    Kind.FAILED: _is_text,
}
