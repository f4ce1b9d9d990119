"""Exceptions whose message is shown to the user without a stack trace, and what messages need."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """The user can fix this: the message says what was wrong, what was got and what to do."""


class SweepFailed(Exception):
    """A sweep cannot continue because of the machine or a defect; the message says why."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """The sentence " Did you mean 'x'?" with the known name nearest to `name`, or ""."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def clip(text: str, length: int = 20_000) -> str:
    """The text, without its middle if it is longer."""
    left_out = len(text) - length
    if left_out <= 0:
        return text
    head = length // 2
    return f"{text[:head]}\n... {left_out} characters left out ...\n{text[left_out + head :]}"
