"""Exceptions whose message is shown to the user without a stack trace."""

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
