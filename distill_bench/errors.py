"""The exceptions that are shown to a user without a stack trace."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """What was wrong, what was got and how to fix it, in words for the terminal; shown without a stack trace."""


class SweepFailed(Exception):
    """A sweep cannot go on because of the machine or of a defect; the message says why."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """The sentence " Did you mean 'x'?" with the nearest of the known names; empty where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
