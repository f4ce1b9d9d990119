"""The exceptions that are shown to a user without a stack trace."""

from __future__ import annotations


class UserError(Exception):
    """What was wrong, what was got and how to fix it, in words for the terminal; shown without a stack trace."""


class SweepFailed(Exception):
    """A sweep cannot go on because of the machine or of a defect; the message says why."""
