"""Runs all checks on one optimizer."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import dataclass

from optimizers.conformance.checks import CHECKS, builds
from optimizers.contract.api import Optimizer


@dataclass(frozen=True)
class Outcome:
    """One check of one optimizer; `reason` is None where it passed."""

    check: str
    reason: str | None


def examine(opt: Optimizer) -> Iterator[Outcome]:
    """All checks, one after another; an exception is a reason, with the line of the plug-in that raised it."""
    for check in CHECKS:
        try:
            reason = check(opt)
        except Exception as error:  # whatever the plug-in raises
            own = [
                frame
                for frame in traceback.extract_tb(error.__traceback__)
                if frame.filename == opt.make.__code__.co_filename
            ]
            where = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}{where}"
        yield Outcome(check.__name__, reason)
        if reason and check is builds:
            return
