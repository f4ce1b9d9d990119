"""The one exception that stands for a user's mistake."""

from __future__ import annotations


class UserError(Exception):
    """What was wrong, what was got and how to fix it, in words for the terminal; shown without a stack trace."""
